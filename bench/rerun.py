"""A second decomposition of the same activations: another seed, optimizer steps counted, labels withheld for once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from bench.lanes import one_line
from methods.protocol import ActivationSource, Decomposition, Follower, HasDictionary, Method


@dataclass(frozen=True, eq=False)
class Rerun:
    """A `metrics.protocol.Rerun`: what came of decomposing once more.

    Attributes:
        dictionary: The atoms of the first decomposition as directions; None where the method gives none.
        dictionary_again: The atoms of the second.
        unit_of_atom_again: The unit each atom of the second is part of, for methods that split units.
        gradient_steps: Steps that optimizers took in the second.
        needs_labels: How the method stopped where labels were withheld from it; None where it ran.
    """

    dictionary: Float[Tensor, "atoms width"] | None
    dictionary_again: Float[Tensor, "atoms_again width"] | None
    unit_of_atom_again: Int[Tensor, " atoms_again"] | None
    gradient_steps: int
    needs_labels: str | None


@torch.inference_mode(False)
@torch.enable_grad()
def decomposed_again(
    method: Method,
    found: Decomposition,
    leader: Decomposition | None,
    source: Callable[[frozenset[str]], ActivationSource],
    weight: Float[Tensor, "units d_in"],
    *,
    seed: int,
) -> Rerun:
    """What the method makes of the same activations under another seed.

    A method that declares to read labels is tried without them first. Where that fails but the run with labels does
    not, labels are what it needs; and the two runs that are compared have both seen the same.

    Args:
        method: What decomposes.
        found: Its first decomposition.
        leader: The decomposition that it follows, the same both times.
        source: The activations with what a method declares to read, and nothing else.
        weight: The site's own kernel.
        seed: The second seed.
    """

    def decomposed(reads: frozenset[str]) -> Decomposition:
        if leader and isinstance(method, Follower):
            return method.decompose_like(source(reads), leader, seed=seed)
        return method.decompose(source(reads), seed=seed)

    needs_labels = None
    if "labels" in method.reads:
        try:
            decomposed(method.reads - {"labels"})
        except Exception as error:  # whatever it says of labels that are not there
            needs_labels = one_line(error)
    with counted_steps() as steps:
        second = decomposed(method.reads)
    return Rerun(
        dictionary=compared_by(method, found, weight),
        dictionary_again=compared_by(method, second, weight),
        unit_of_atom_again=second.unit_of_atom,
        gradient_steps=len(steps),
        needs_labels=needs_labels,
    )


def compared_by(
    method: Method, found: Decomposition, weight: Float[Tensor, "units d_in"]
) -> Float[Tensor, "atoms width"] | None:
    """The dictionary that two runs are compared by; None for methods without one.

    For methods that split units the "input" one, as far as they have it: their "output" ones say nothing but which
    unit an atom is of. For the others the "output" one.
    """
    if not isinstance(method, HasDictionary):
        return None
    dictionaries = method.dictionaries(found, weight)
    order = ("output", "input") if found.unit_of_atom is None else ("input", "output")
    return next((dictionaries[kind] for kind in order if kind in dictionaries), None)


@contextmanager
def counted_steps() -> Iterator[list[str]]:
    """A list that grows by one name with every step that any torch optimizer takes meanwhile."""
    steps: list[str] = []

    def count(optimizer: torch.optim.Optimizer, _args: Any, _options: Any) -> None:
        steps.append(type(optimizer).__name__)

    handle = register_optimizer_step_post_hook(count)
    try:
        yield steps
    finally:
        handle.remove()

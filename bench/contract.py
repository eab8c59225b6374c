"""The contract of a method, as checks that its author can run: `eludebench check-method`.

Each check is one law, tried on a small site with planted structure. The same checks run in the test suite over every
registered method, so a built-in and a plugin are held to the same.
"""

import dataclasses
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from bench.case import Broken, Case, NotTried, case_of, decomposed, expect, reason_of
from bench.planted import POSITIONS, cast, degenerate, planted, some, tokens_of
from bench.subject import moved
from methods import artifacts
from methods.protocol import Decomposition, Explicit, HasDictionary, HasStart, Swappable


@dataclass(frozen=True)
class Outcome:
    """What came of one check.

    Attributes:
        verdict: Whether the law holds; "not tried" is neither.
        reason: Why it does not, or was not tried; None where it holds.
    """

    verdict: Literal["holds", "BROKEN", "not tried"]
    reason: str | None = None


def same_tensors(a: Decomposition, b: Decomposition) -> bool:
    """Whether two decompositions are equal bit for bit."""
    return set(a.tensors) == set(b.tensors) and all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)


def options_are_plain(case: Case) -> None:
    """Options survive JSON, so that they can stand in suites, keys and records."""
    options = dataclasses.asdict(case.method)  # type: ignore[call-overload]
    expect(
        json.loads(json.dumps(options)) == options,
        f"options {options} change in JSON; use numbers, texts, booleans only",
    )


def decomposition_is_whole(case: Case) -> None:
    """There is an atom, notes can be recorded, tensors are finite, and parents name units."""
    expect(case.found.n_atoms > 0, f"n_atoms: got {case.found.n_atoms}; expected at least 1")
    for name, note in case.found.notes.items():
        plain = isinstance(note, bool | int | str) or (isinstance(note, float) and math.isfinite(note))
        expect(plain, f"notes[{name!r}]: got {note!r}; expected a finite number, a text or a boolean")
    for name, tensor in case.found.tensors.items():
        expect(bool(torch.isfinite(tensor).all()), f"tensors[{name!r}]: not finite; expected numbers only")
    parents = case.found.unit_of_atom
    if parents is not None:
        shape = tuple(parents.shape)
        expect(shape == (case.found.n_atoms,), f"unit_of_atom: got shape {shape}; expected one parent an atom")
        units = case.source.outputs.shape[1]
        expect(bool(((parents >= 0) & (parents < units)).all()), "unit_of_atom: names a unit that does not exist")


def seed_decides(case: Case) -> None:
    """The same seed gives the same decomposition, bit for bit."""
    again = decomposed(case.method, planted(case.method.reads), seed=42)
    expect(same_tensors(case.found, again), "the same seed gave two decompositions; draw from the seed given, only")


def activations_are_untouched(case: Case) -> None:
    """Nothing that was given is written to."""
    fresh = planted(case.method.reads)
    for name in ("inputs", "outputs", "weight"):
        before, after = getattr(fresh, name), getattr(case.source, name)
        expect(before is None or torch.equal(before, after), f"the {name} given were changed; copy them first")


def codes_have_their_shape(case: Case) -> None:
    """Codes are tokens x atoms, finite."""
    shape = (case.source.n_tokens, case.found.n_atoms)
    expect(tuple(case.codes.shape) == shape, f"encode: got shape {tuple(case.codes.shape)}; expected {shape}")
    expect(bool(torch.isfinite(case.codes).all()), "encode: not finite; expected numbers only")


def outputs_have_their_shape(case: Case) -> None:
    """Decoded outputs are tokens x units, finite; what claims to be explicit has a `decode`."""
    if not isinstance(case.method, Explicit):
        claims = case.method.properties.explicit
        expect(not claims, "claims to be explicit, but has no decode; add decode, or claim explicit=False")
        raise NotTried("virtual units: nothing is rebuilt")
    outputs = case.method.decode(case.found, case.codes)
    shape = tuple(case.source.outputs.shape)
    expect(tuple(outputs.shape) == shape, f"decode: got shape {tuple(outputs.shape)}; expected {shape}")
    expect(bool(torch.isfinite(outputs).all()), "decode: not finite; expected numbers only")


def batches_do_not_matter(case: Case) -> None:
    """The codes of a token do not depend on the tokens of other images beside it."""
    cut = 62 * POSITIONS
    halves = [case.method.encode(case.found, some(case.tokens, rows)) for rows in (slice(0, cut), slice(cut, None))]
    gap = float((torch.cat(halves) - case.codes).abs().max())
    expect(gap <= 1e-4, f"encode: codes differ by {gap:.1e} when tokens come in two batches; expected at most 1e-4")


def saving_changes_nothing(case: Case) -> None:
    """A saved and loaded decomposition gives the same codes, bit for bit."""
    with tempfile.TemporaryDirectory() as folder:
        artifacts.save(case.found, Path(folder), {})
        codes = case.method.encode(artifacts.load(Path(folder)), case.tokens)
    expect(torch.equal(codes, case.codes), "codes differ after saving and loading; keep all state in tensors")


def losslessness_is_as_claimed(case: Case) -> None:
    """A method that claims to be lossless gives the outputs back, through decode and through its layer."""
    if not case.method.properties.lossless:
        raise NotTried("not claimed")
    if not isinstance(case.method, Explicit):
        raise NotTried("virtual units: the network stays as it is")
    size = float(case.source.outputs.abs().max())
    gap = float((case.method.decode(case.found, case.codes) - case.source.outputs).abs().max())
    expect(gap <= 1e-5 * size, f"claims to be lossless, but outputs differ by {gap:.1e} of {size:.1e}")
    if isinstance(case.method, Swappable):
        site = planted().read(slice(None))
        layer = case.method.layer(case.found, site.needed_weight(), site.bias)
        gap = float((layer(site.needed_inputs()) - site.outputs).abs().max())
        expect(gap <= 1e-5 * size, f"claims to be lossless, but its layer's outputs differ by {gap:.1e} of {size:.1e}")


def dictionaries_have_their_shape(case: Case) -> None:
    """Directions are atoms x units ("output") or atoms x d_in ("input"), finite; before training as after it."""
    if not isinstance(case.method, HasDictionary):
        raise NotTried("no dictionary")
    weight = planted().read(slice(None)).needed_weight()
    found = case.method.dictionaries(case.found, weight)
    shapes = dict(zip(("output", "input"), ((case.found.n_atoms, width) for width in weight.shape), strict=True))
    kinds = f"dictionaries: got {sorted(found)}; expected 'output', 'input' or both"
    expect(bool(found) and found.keys() <= shapes.keys(), kinds)
    starts = [case.method.start(case.source, seed=0)] if isinstance(case.method, HasStart) else []
    for name, dictionaries in zip(("dictionaries", "start"), (found, *starts), strict=False):
        expect(dictionaries.keys() == found.keys(), f"{name}: got {sorted(dictionaries)}; expected {sorted(found)}")
        for kind, rows in dictionaries.items():
            got, where = tuple(rows.shape), f"{name}[{kind!r}]"
            expect(got == shapes[kind], f"{where}: got shape {got}; expected {shapes[kind]}")
            expect(bool(torch.isfinite(rows).all()), f"{where}: not finite; expected numbers only")


def same_elsewhere(case: Case, like: Tensor) -> None:
    """Codes and outputs of the same tokens in the dtype and on the device of `like`, the decomposition moved there.

    One token in a hundred may differ: a selection among near-equal codes may turn out otherwise.
    """
    found, site = moved(case.found, like), cast(planted().read(slice(None)), like)
    made = {"encode": case.method.encode(found, cast(case.tokens, like))}
    before = {"encode": case.codes}
    if isinstance(case.method, Explicit):
        made["decode"] = case.method.decode(found, made["encode"])
        before["decode"] = case.method.decode(case.found, case.codes)
    if isinstance(case.method, Swappable):
        made["layer"] = case.method.layer(found, site.needed_weight(), site.bias)(site.needed_inputs())
        before["layer"] = case.source.outputs
    for verb, values in made.items():
        got, wanted = f"{values.dtype} on {values.device.type}", f"{like.dtype} on {like.device.type}"
        expect(got == wanted, f"{verb}: got {got} for {wanted}; make what it needs in the dtype and device it is given")
        gaps = (values.cpu().double() - before[verb].double()).abs().amax(dim=1)
        is_near = gaps <= 1e-3 * float(before[verb].abs().max())  # no number is near none
        share = float((~is_near).double().mean())
        expect(share <= 0.01, f"{verb}: {share:.0%} of tokens differ in {wanted}; expected rounding only")


def dtype_is_kept(case: Case) -> None:
    """Activations in float64 give codes and outputs in float64, the same but for rounding."""
    same_elsewhere(case, torch.zeros((), dtype=torch.float64))


def accelerator() -> torch.device | None:
    """Another device than the CPU, where there is one."""
    return torch.device("cuda") if torch.cuda.is_available() else None


def device_is_kept(case: Case) -> None:
    """Activations on a GPU give codes and outputs on it, the same but for rounding."""
    device = accelerator()
    if device is None:
        raise NotTried("no GPU")
    same_elsewhere(case, torch.zeros((), device=device))


def degenerate_inputs_are_survived(case: Case) -> None:
    """Where there is nothing to find, the method finds something whole all the same, or says so in one line."""
    for what, source in degenerate(case.method.reads):
        try:
            found = decomposed(case.method, source, seed=42)
        except ValueError as error:
            expect(str(error).count("\n") == 0, f"{what}: the ValueError has several lines; expected one; shorten it")
            continue
        except Exception as error:
            raise Broken(
                f"{what}: {reason_of(error)}; expected a decomposition, or a ValueError of one line"
            ) from error
        try:
            tokens = tokens_of(source, case.method.reads)
            here = Case(case.method, source, found, tokens, case.method.encode(found, tokens))
            decomposition_is_whole(here)
            codes_have_their_shape(here)
        except Exception as error:
            raise Broken(f"{what}: {reason_of(error)}") from error


CHECKS: tuple[Callable[[Case], None], ...] = (
    options_are_plain,
    decomposition_is_whole,
    seed_decides,
    codes_have_their_shape,
    outputs_have_their_shape,
    dictionaries_have_their_shape,
    batches_do_not_matter,
    saving_changes_nothing,
    losslessness_is_as_claimed,
    dtype_is_kept,
    device_is_kept,
    degenerate_inputs_are_survived,
    activations_are_untouched,
)


def checked(method: Any) -> Iterator[tuple[str, Outcome]]:
    """Every check by name as it is done.

    A method that cannot be tried at all has the one entry "method".
    """
    try:
        case = case_of(method)
    except Exception as error:
        yield "method", Outcome("BROKEN", reason_of(error))
        return
    for one in CHECKS:
        try:
            one(case)
            yield one.__name__, Outcome("holds")
        except NotTried as error:
            yield one.__name__, Outcome("not tried", str(error))
        except Exception as error:
            yield one.__name__, Outcome("BROKEN", reason_of(error))


def check(method: Any) -> dict[str, str | None]:
    """Every law that is broken, with the reason; empty where all that could be tried hold."""
    return {law: outcome.reason for law, outcome in checked(method) if outcome.verdict == "BROKEN"}

"""Runs that differ in the init seed alone, compared: how stable a method is (ELUDe paper, appendix B.3, Table 4).

A comparison is of several cells: one site, one label, the first token seed, every init seed. It has an identity and
records of its own, beside those of its cells; the numbers are `metrics.similarity.Stability`'s.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool
from torch import Tensor

from bench.cache import digest
from bench.cells import Cell, SiteSpec
from bench.measuring import Measurement
from bench.memory import forget_peak, peak_bytes
from bench.provenance import machine
from methods.protocol import ActivationSource, Decomposition, HasDictionary, HasStart
from metrics.similarity import Dictionary, Stability

if TYPE_CHECKING:
    from bench.stages import Workshop

VERSION = 2
"""Part of every comparison's identity; raised when the bench itself compares differently."""
ALIVE_TOKENS = 2**18
"""Tokens of which one has to activate an atom for it to count as alive."""
BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Comparison:
    """One method at one site under several init seeds, all else the same.

    Attributes:
        site: Where.
        label: The method's label in the suite.
        cells: The runs, two at least, in the order of the suite's init seeds.
    """

    site: SiteSpec
    label: str
    cells: tuple[Cell, ...]

    @property
    def id(self) -> str:
        """Hash of everything that its numbers follow from, names and labels aside."""
        cells = [cell.unmeasured.id for cell in self.cells]
        return digest({"stability": VERSION, "metric": Stability.version, "cells": cells})[:16]

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.site.label}/{self.label}/stability"


def groups_of(cells: Iterable[Cell]) -> list[Comparison]:
    """The comparisons that these cells allow, in their order: none for a method with one init seed.

    Only the first token seed of a site and label counts, since the others see other data.
    """
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        group = groups.setdefault((cell.site.label, cell.label), [])
        if not group or cell.token_seed == group[0].token_seed:
            group.append(cell)
    return [Comparison(group[0].site, group[0].label, tuple(group)) for group in groups.values() if len(group) > 1]


def compared(workshop: "Workshop", comparison: Comparison) -> Measurement:
    """All values of one comparison, with the similarity of each pair of runs and their spread among the notes.

    Decompositions come from the cache, or are found now. What a training started from is made once more from its seed.
    """
    forget_peak()
    begin = time.perf_counter()
    cells = [workshop.settled(cell) for cell in comparison.cells]
    runs, starts = [], []
    for index, cell in enumerate(cells):
        workshop.report("runs compared", index, len(cells))
        method, reads = cell.method.built, cell.method.built.reads
        runs.append(dictionaries_of(workshop, cell))
        if isinstance(method, HasStart):
            start = method.start(workshop.source(cell.site, cell.token_seed, reads), seed=cell.init_seed)
            starts.append({kind: Dictionary(rows) for kind, rows in start.items()})
    stability = Stability(runs, starts or None)
    values = stability.compute()
    workshop.report("runs compared", len(cells), len(cells))
    notes: dict[str, Any] = {
        **stability.notes(),
        "init_seeds": ", ".join(str(cell.init_seed) for cell in cells),
        "dataset_fingerprint": workshop.dataset(comparison.site).fingerprint,
        "backbone_fingerprint": workshop.backbone(comparison.site).fingerprint,
        "machine": machine(),
    }
    seconds = time.perf_counter() - begin
    return Measurement(values, cells[0].method.options, notes, seconds, peak_bytes(), workshop.cache.made)


def dictionaries_of(workshop: "Workshop", cell: Cell) -> Mapping[str, Dictionary]:
    """What the cell's method found, as directions, dead atoms as zeros; nothing where its atoms are no directions."""
    method, found = cell.method.built, workshop.decomposition(cell)
    if not isinstance(method, HasDictionary):
        return {}
    is_alive = alive(method, found, workshop.source(cell.site, cell.token_seed, cell.method.built.reads))
    dictionaries = method.dictionaries(found, workshop.site(cell.site).weight.cpu())
    parents = None if found.unit_of_atom is None else found.unit_of_atom.cpu()
    return {kind: Dictionary(rows.cpu() * is_alive[:, None], parents) for kind, rows in dictionaries.items()}


@torch.inference_mode()
def alive(method: Any, found: Decomposition, source: ActivationSource) -> Bool[Tensor, " atoms"]:
    """Which atoms have a code that is not zero for any of the first `ALIVE_TOKENS` probing tokens.

    A method that reads whole images is not asked: its atoms are never dead in this sense.
    """
    if "images" in method.reads:
        return torch.ones(found.n_atoms, dtype=torch.bool)
    is_alive = torch.zeros(found.n_atoms, dtype=torch.bool)
    for start in range(0, min(source.n_tokens, ALIVE_TOKENS), BATCH_TOKENS):
        is_alive |= (method.encode(found, source.read(slice(start, start + BATCH_TOKENS))) != 0).any(dim=0).cpu()
        if is_alive.all():
            break
    return is_alive

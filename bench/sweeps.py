"""Sweeps: variants of one method, of which eq. 9 chooses one (ELUDe paper, appendix E.1).

A suite's `sweep = { option = [values], ... }` makes the grid. All variants see the first token seed and the first init
seed; those that differ only in what can be stacked are trained in one pass over the activations. The one chosen is
then used under every seed. Each variant leaves its records, and its decomposition stays in the cache.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench import UsageError
from bench.cache import digest
from bench.cells import Cell, Component
from bench.lanes import one_line
from bench.options import Problems
from methods.protocol import ActivationSource, Decomposition, Stackable
from metrics.selection import best, selection_scores

if TYPE_CHECKING:
    from bench.stages import Workshop

VERSION = 1
BATCH_TOKENS = 4096
FILE = "trials.json"
MISFITS = (ValueError, ArithmeticError, LookupError)
"""What a method raises of options that do not fit: the end of a variant, not of its sweep."""


@dataclass(frozen=True)
class Trial:
    """What came of one variant.

    Attributes:
        options: Every option of it.
        error: Mean squared error of the reconstruction of the probing tokens; None where it found nothing.
        l0: Mean number of active atoms a token.
        active_share: The same as a share of all atoms.
        score: Eq. 9.
        is_chosen: Whether eq. 9 chose it.
        n_tokens: Tokens that it was measured on.
        reason: Why it found nothing; None where it found something.
    """

    options: Mapping[str, Any]
    error: float | None
    l0: float | None
    active_share: float | None
    score: float | None
    is_chosen: bool
    n_tokens: int
    reason: str | None


def grid(table: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination of the values, the last option varying fastest."""
    for values in itertools.product(*table.values()):
        yield dict(zip(table, values, strict=True))


def combinations(
    table: Mapping[str, Any], options: Collection[str], where: str, problems: Problems
) -> list[dict[str, Any]]:
    """Every combination of the swept options; none where nothing is swept."""
    sweep = table.get("sweep", {})
    if not isinstance(sweep, dict) or not all(isinstance(v, list) and v for v in sweep.values()):
        problems.add(f"{where}.sweep: got {sweep!r}; expected lists of values; write sweep = {{ option = [1, 2] }}")
        return []
    for name in sorted(sweep.keys() & set(options)):
        problems.add(f"{where}.sweep.{name}: stands among the options too; expected it once; remove one")
    for name, values in sweep.items():
        if len({repr(value) for value in values}) < len(values):
            problems.add(f"{where}.sweep.{name}: got {values!r}; expected distinct values; remove the repeated")
    return list(grid(sweep)) if sweep else []


def variant_cell(cell: Cell, variant: Component) -> Cell:
    """The cell of one variant at the seeds on which the sweep selects."""
    if cell.selected_at is None:
        raise UsageError(f"sweep: {cell.name} has none; expected variants; give it `sweep` in the suite")
    token_seed, init_seed = cell.selected_at

    def there(one: Cell) -> Cell:
        """The cell at those seeds, and with it the one that it follows."""
        leader = there(one.leader) if one.leader else None
        return dataclasses.replace(one, leader=leader, token_seed=token_seed, init_seed=init_seed)

    return dataclasses.replace(there(cell), method=variant, selected_at=None)


def sweep_id(cell: Cell) -> str:
    """Identifies the sweep that the cell's method is chosen by; the same for all seeds."""
    variants = [variant_cell(cell, variant) for variant in cell.method.variants]
    return digest({"sweep": VERSION, "variants": [one.unmeasured.id for one in variants]})[:16]


def trial_ids(cell: Cell) -> list[str]:
    """Identifies each variant in the records."""
    sweep = sweep_id(cell)
    return [digest({"sweep": sweep, "variant": index})[:16] for index in range(len(cell.method.variants))]


def trials_of(workshop: "Workshop", cell: Cell) -> list[Trial]:
    """Every variant decomposed and measured, and one chosen; kept in the cache."""
    cells = [variant_cell(cell, variant) for variant in cell.method.variants]
    key = {"version": VERSION, "variants": [workshop.decomposition_key(one) for one in cells]}

    def build(folder: Path) -> None:
        misfits = decomposed(workshop, cells, keeps)
        source = workshop.source(cells[0].site, cells[0].token_seed, cell.method.built.reads)
        rows: list[tuple[float, float, float] | str] = []
        for index, one in enumerate(cells):
            workshop.report("variants measured", index, len(cells))
            # What is measured is what the cache gives, whoever was first to put it there.
            what = misfits.get(index) or alone(workshop, one)
            rows.append(what if isinstance(what, str) else fit(one.method.built, what, source))
        numbers = [(None, None, None) if isinstance(row, str) else row for row in rows]
        scores = selection_scores([row[0] for row in numbers], [row[2] for row in numbers])
        chosen, together = best(scores), zip(cells, rows, numbers, scores, strict=True)
        trials = [
            Trial(
                options=dict(one.method.options),
                error=error,
                l0=l0,
                active_share=share,
                score=score,
                is_chosen=index == chosen,
                n_tokens=source.n_tokens,
                reason=row if isinstance(row, str) else None,
            )
            for index, (one, row, (error, l0, share), score) in enumerate(together)
        ]
        text = json.dumps([vars(trial) for trial in trials], indent=1, allow_nan=False)
        (folder / FILE).write_text(text, encoding="utf-8")

    with workshop.cache.unfinished("sweeps", key) as keeps:
        folder = workshop.cache.get("sweeps", key, build)
    return [Trial(**row) for row in json.loads((folder / FILE).read_text(encoding="utf-8"))]


def chosen_of(workshop: "Workshop", cell: Cell) -> Component:
    """The variant that eq. 9 chose.

    Raises:
        UsageError: Every variant diverged.
    """
    trials = trials_of(workshop, cell)
    reason = without_choice(trials)
    if reason is not None:
        raise UsageError(f"sweep: {reason}")
    return next(variant for variant, trial in zip(cell.method.variants, trials, strict=True) if trial.is_chosen)


def without_choice(trials: Sequence[Trial]) -> str | None:
    """Why eq. 9 chose none of the variants; None where it chose one."""
    if any(trial.is_chosen for trial in trials):
        return None
    return f"none of {len(trials)} variants found anything; the first: {trials[0].reason}"


def decomposed(workshop: "Workshop", cells: Sequence[Cell], keeps: Path | None) -> dict[int, str]:
    """Decompose what can be stacked in one pass each, into the cache; why a variant found nothing, by its index.

    Args:
        workshop: Where the work is done.
        cells: The variants.
        keeps: Folder for what a stack keeps: an interrupted sweep goes on, and finished stacks are in the cache.
    """
    misfits: dict[int, str] = {}
    for members in stacks([cell.method for cell in cells]):
        stack = [cells[index] for index in members]
        if len(members) > 1 and not all(workshop.has_decomposition(cell) for cell in stack):
            results = together(workshop, stack, keeps)
            misfits |= {index: why for index, why in zip(members, results, strict=True) if why is not None}
    return misfits


def together(workshop: "Workshop", cells: Sequence[Cell], keeps: Path | None) -> list[str | None]:
    """Put into the cache what the variants of one stack find in one pass; the reason for each that finds nothing."""
    if keeps:
        keeps = keeps / digest({"stack": [workshop.decomposition_key(cell) for cell in cells]})[:16]
        keeps.mkdir(exist_ok=True)
    source = workshop.source(cells[0].site, cells[0].token_seed, cells[0].method.built.reads)
    variants = [cell.method.built for cell in cells]
    try:
        results = variants[0].decompose_stack(
            variants, dataclasses.replace(source, keeps=keeps), seed=cells[0].init_seed
        )
    except MISFITS as error:
        return [one_line(error)] * len(cells)
    for cell, result in zip(cells, results, strict=True):
        if isinstance(result, Decomposition):
            workshop.put_decomposition(cell, result)
    return [result if isinstance(result, str) else None for result in results]


def alone(workshop: "Workshop", cell: Cell) -> Decomposition | str:
    """What one variant finds by itself; one that does not converge or fit leaves its reason and no harm."""
    try:
        return workshop.decomposition(cell)
    except MISFITS as error:
        return one_line(error)


def stacks(variants: Sequence[Component]) -> list[list[int]]:
    """Which variants can be decomposed in one pass: those that differ in stackable options only."""
    groups: dict[str, list[int]] = {}
    for index, variant in enumerate(variants):
        method = variant.built
        free = method.stackable if isinstance(method, Stackable) else frozenset()
        fixed = {name: value for name, value in variant.options.items() if name not in free}
        name = digest(fixed) if isinstance(method, Stackable) else f"alone {index}"
        groups.setdefault(name, []).append(index)
    return list(groups.values())


@torch.inference_mode()
def fit(method: Any, found: Decomposition, source: ActivationSource) -> tuple[float, float, float] | str:
    """Mean squared error, active atoms a token, and their share of all atoms, over all probing tokens.

    A text says so where codes or outputs are not finite.
    """
    squares, active, n, width = 0.0, 0, 0, 1
    for batch in source.batches(BATCH_TOKENS):
        codes = method.encode(found, batch)
        outputs = method.decode(found, codes)
        squares += float((outputs.double() - batch.outputs.double()).square().sum())
        active += int((codes != 0).sum())
        n, width = n + len(outputs), outputs.shape[1]
    if not math.isfinite(squares):
        return "its outputs are not finite; expected numbers; lower learning_rate, or see check-method"
    return squares / (n * width), active / n, active / n / found.n_atoms

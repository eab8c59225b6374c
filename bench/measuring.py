"""What is measured of cells: each decomposed by itself, then all of one site evaluated in one pass."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from bench import evaluation, rerun
from bench.backbones import Backbone
from bench.cache import StorageError
from bench.cells import Cell, SiteSpec
from bench.efficiency import IMAGES, timings_of
from bench.evaluation import Question
from bench.exemplars import Asked, Shown, keep_scores, key_of
from bench.lanes import Failure, one_line
from bench.memory import forget_peak, peak_bytes
from bench.provenance import machine
from bench.subject import Subject
from metrics.catalogue import Value
from metrics.protocol import Timing

if TYPE_CHECKING:
    from bench.stages import Workshop

LEAST_UNITS = 16
"""Units that are worth a task of their own."""


@dataclass(frozen=True)
class Found:
    """A decomposition was found, or was there.

    Attributes:
        seconds: Wall seconds.
        peak_bytes: Most memory that the process held meanwhile; None where the system does not tell.
    """

    seconds: float
    peak_bytes: int | None


@dataclass(frozen=True)
class Measurement:
    """What came of one cell.

    Attributes:
        values: The measured values by metric name.
        options: Every option of the method; of a swept one, of the variant that was chosen.
        notes: What the method noted, and the content hashes of what it was measured on.
        seconds: Wall seconds of this cell alone: decomposing, and what its evaluation did not share with others.
        peak_bytes: Most memory that a process held meanwhile, with all that were evaluated beside it; None where the
            system does not tell.
        made: Commit, dirty flag and device of the process that measured, as record fields; empty where it is the one
            that writes the records.
    """

    values: Mapping[str, Value]
    options: Mapping[str, Any]
    notes: Mapping[str, float | int | str | bool]
    seconds: float
    peak_bytes: int | None
    made: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Skipped:
    """A cell or a sweep whose method cannot be applied at its site: no failure, and nothing to be tried again.

    Attributes:
        reason: What is missing there.
    """

    reason: str


Outcome = Measurement | Skipped | Failure


def found(
    workshop: "Workshop", cell: Cell, came: Mapping[str, Any] | None = None, share: tuple[int, int] | None = None
) -> Found | Skipped:
    """Decompose, where that is not done yet, or find a share of the units.

    Args:
        workshop: Where the work is done.
        cell: The cell.
        came: What came of the shares of it that were found before; their seconds count, one after the other.
        share: Which share of how many is to be found, the others beside it; None for the decomposition.
    """
    lacking = workshop.lacking(cell)
    if lacking:
        return Skipped(lacking)
    forget_peak()
    start = time.perf_counter()
    if share is None:
        workshop.decomposition(cell)
    elif units := share_of(workshop.site(cell.site).units, *share):
        workshop.find_units(cell, units)
    seconds, peak = time.perf_counter() - start, peak_bytes()
    before = [one for one in (came or {}).values() if isinstance(one, Found)]
    peaks = [one for one in (peak, *(one.peak_bytes for one in before)) if one is not None]
    return Found(sum((one.seconds for one in before), seconds), max(peaks, default=None))


def share_of(n_units: int, index: int, n_shares: int) -> range:
    """The units of one share of so many; fewer shares than that have any where they would be too small to pay."""
    n_shares = min(n_shares, n_units // LEAST_UNITS)
    if n_shares < 2 or index >= n_shares:
        return range(0)
    return range(n_units * index // n_shares, n_units * (index + 1) // n_shares)


def evaluated(workshop: "Workshop", cells: Sequence[Cell], came: Mapping[str, Any]) -> dict[str, Outcome]:
    """What came of each of these cells of one site, by id.

    Args:
        workshop: Where the work is done.
        cells: The cells.
        came: What came of decomposing each.
    """
    outcomes: dict[str, Outcome] = {
        cell.id: came[cell.id] for cell in cells if isinstance(came.get(cell.id), Skipped | Failure)
    }
    left = [cell for cell in cells if cell.id not in outcomes]
    if not left:
        return outcomes
    forget_peak()
    spec = left[0].site
    site, dataset = workshop.site(spec), workshop.dataset(spec)
    questions = [question_of(workshop, cell) for cell in left]
    shown: list[list[Shown]] = [[] for _ in left]
    if not left[0].runs_alone:  # they are wanted later, by judges say, and cost next to nothing here
        questions = [
            replace(one, metrics=[*one.metrics, Asked(into)]) for one, into in zip(questions, shown, strict=True)
        ]
    encoder = encoder_of(workshop, spec, questions)
    answers = evaluation.evaluate(
        site,
        dataset.test,
        questions,
        workshop.report,
        probing=dataset.train,
        encoder=encoder,
        folder=workshop.cache.root,
    )
    peak = peak_bytes()
    for cell, question, answer, exemplars in zip(left, questions, answers, shown, strict=True):
        for one in exemplars:
            one.keep(workshop, cell)
        if answer.values is None:
            outcomes[cell.id] = answer.failure or Failure("nothing was measured")
            continue
        keep_scores(workshop, cell, answer.scores)
        before = came.get(cell.id, Found(0.0, None))
        outcomes[cell.id] = Measurement(
            answer.values,
            workshop.settled(cell).method.options,
            notes_of(workshop, cell, question.subject),
            before.seconds + answer.seconds,
            max((one for one in (peak, before.peak_bytes) if one is not None), default=None),
            workshop.cache.made,
        )
    return outcomes


def encoder_of(workshop: "Workshop", spec: SiteSpec, questions: Sequence[Question]) -> Backbone | str | None:
    """The network that metrics see images through, where one asks for it, or why it cannot be had; None without."""
    asked = any("embeddings" in row.needs for one in questions for metric in one.metrics for row in metric.rows)
    if spec.encoder is None or not asked:
        return None
    try:
        return workshop.encoder(spec)
    except StorageError:
        raise
    except Exception as error:
        return f"the encoder cannot be had: {one_line(error)}"


def question_of(workshop: "Workshop", cell: Cell) -> Question:
    """What is asked of the cell's decomposition."""
    cell = workshop.settled(cell)
    site, dataset = workshop.site(cell.site), workshop.dataset(cell.site)
    decomposition = workshop.decomposition(cell)
    leader = workshop.decomposition(cell.leader) if cell.leader else None
    source = partial(workshop.source, cell.site, cell.token_seed)

    def again() -> rerun.Rerun:
        seed = cell.init_seed + 1
        weight = site.weight.cpu()  # where decompositions are
        return rerun.decomposed_again(cell.method.built, decomposition, leader, source, weight, seed=seed)

    def timings(subject: Subject) -> Mapping[str, Timing]:
        return timings_of(subject, dataset.test.images(slice(0, IMAGES)))

    subject = Subject(site, cell.method.built, decomposition, len(dataset.classes), again, timings)
    names = [name for name, _ in cell.metrics]
    classes = dict.fromkeys(workshop.registry.find("metrics", name).load() for name in names)
    return Question(subject, list(classes), names)


def notes_of(workshop: "Workshop", cell: Cell, subject: Subject) -> dict[str, float | int | str | bool]:
    """What the method noted, what it claims, and where all of it comes from."""
    return {
        **subject.found.notes,
        **{f"claims_{name}": value for name, value in vars(subject.method.properties).items()},
        **workshop.dataset(cell.site).notes,
        **({"warnings": "; ".join(cell.site.warnings)} if cell.site.warnings else {}),
        "dataset_fingerprint": workshop.dataset(cell.site).fingerprint,
        "backbone_fingerprint": subject.site.backbone.fingerprint,
        **workshop.origin(workshop.settled(cell)),
        "machine": machine(),
    }


def exemplars_of(workshop: "Workshop", cells: Sequence[Cell]) -> dict[str, Shown | Failure]:
    """The exemplars of each of these cells, by the cell's id, or why there are none.

    Args:
        workshop: Where the cells' decompositions are found, or are kept.
        cells: Cells of one site.
    """
    found: dict[str, Shown | Failure] = {}
    missing = []
    for cell in cells:
        folder = workshop.cache.folder("exemplars", key_of(workshop, cell))
        if workshop.cache.is_whole(folder):
            found[cell.id] = Shown.load(folder)
        else:
            missing.append(cell)
    if missing:
        found |= looked_for(workshop, missing)
    return found


def looked_for(workshop: "Workshop", cells: Sequence[Cell]) -> dict[str, Shown | Failure]:
    """The exemplars of cells of one site, found in one pass and put by."""
    lists: list[list[Shown]] = [[] for _ in cells]
    questions = [
        Question(question_of(workshop, cell).subject, [Asked(into)], [])
        for cell, into in zip(cells, lists, strict=True)
    ]
    site, split = workshop.site(cells[0].site), workshop.dataset(cells[0].site).test
    answers = evaluation.evaluate(site, split, questions, workshop.report, folder=workshop.cache.root)
    found: dict[str, Shown | Failure] = {}
    for cell, into, answer in zip(cells, lists, answers, strict=True):
        if answer.failure is not None:
            found[cell.id] = answer.failure
            continue
        found[cell.id] = into[0]
        into[0].keep(workshop, cell)
    return found

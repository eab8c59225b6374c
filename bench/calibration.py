"""The calibration of `plan`: every task of a run rehearsed for a moment, in as many lanes as the run would have.

What the cache holds costs nothing, and later stages are rehearsed with it. In place of what it does not hold stand a
backbone that was barely trained, tokens of a few images, and what a method finds in a few hundred tokens: the sizes
are right, the content is not. Tasks that differ in seeds only are rehearsed once. Nothing is written to the cache.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench import UsageError, evaluation, sweeps
from bench.activations import TensorSource
from bench.cache import Cache, Looking, NotCachedError
from bench.cells import Cell, SiteSpec
from bench.evaluation import Question
from bench.findings import Chunk, Findings, Hurried
from bench.lanes import Came, Report, Task, one_line
from bench.place import Place
from bench.rehearsal import RehearsalImages, RehearsalSource, RehearsalStream
from bench.replay import Replay
from bench.rerun import Rerun, compared_by
from bench.rows import Rows
from bench.spool import Spool
from bench.stages import StartWorkshop, Workshop
from bench.stopwatch import PATIENCE_SECONDS, Clock, Stopwatch, later, timed
from bench.subject import Subject
from methods.protocol import ActivationSource, Decomposition, Follower

BACKBONE_PATIENCE_SECONDS = 1.2
"""How long the training of a backbone is looked at: one stands before everything, and takes long."""
HURRIED_TOKENS = (256, 1024, 4096)
"""Tokens in which a method is to find something; the next number where it cannot in so few, at last all."""


class Calibrator:
    """Rehearses chunks; one per lane."""

    def __init__(self, workshop: Workshop, clock: Clock, starting_seconds: float) -> None:
        self.workshop = workshop
        self.clock = clock
        self.starting_seconds = starting_seconds

    def perform(self, chunk: Chunk) -> Findings:
        """What each task of the chunk will take; one that cannot be rehearsed has its reason."""
        place: Place = self.once("place", chunk.site, lambda: Place(self.workshop, chunk.site, self.clock))
        seconds: dict[str, float] = {}
        reasons: dict[str, str] = {}
        measuring: dict[str, float] = {}
        rehearse = {"backbone": self.backbone, "activations": self.activations, "sweep": self.sweep, "find": self.cells}
        for group in chunk.groups:
            try:
                seconds |= rehearse[group[0].payload[0]](place, group)
                if group[0].payload[0] == "find":
                    measuring |= dict.fromkeys((task.id for task in group), self.measuring(place, group[0].payload[1]))
            except Exception as error:
                reasons |= dict.fromkeys((task.id for task in group), one_line(error))
        sharing = self.sharing(place) if measuring else 0.0
        return Findings(seconds, reasons, measuring, sharing, self.starting_seconds, place.loading_seconds)

    def once(self, what: str, about: SiteSpec | Cell, make: Callable[[], Any]) -> Any:
        """What `make` gave when it was first asked for; seeds make no difference."""
        if isinstance(about, Cell):
            leader = about.leader.method.identity if about.leader else None
            own = {"site": about.site.identity, "method": about.method.identity, "leader": leader}
        else:
            own = about.identity
        return self.workshop.once({"rehearsed": what, **own}, make)

    def watch(self, patience: float = PATIENCE_SECONDS) -> Stopwatch:
        """A stopwatch, begun."""
        return Stopwatch(patience, self.clock)

    def backbone(self, place: Place, group: Sequence[Task]) -> dict[str, float]:
        """Training the backbone; nothing where the cache holds it."""
        watch = self.watch(BACKBONE_PATIENCE_SECONDS)
        factory = place.spec.backbone.built
        seconds = 0.0 if place.is_kept else timed(lambda: factory.weights(place.dataset, watch.report), watch)
        return {task.id: seconds for task in group}

    def activations(self, place: Place, group: Sequence[Task]) -> dict[str, float]:
        """Extracting what is missing of the activations, in one pass."""
        seconds = {}
        for task in group:
            pairs = [pair for pair in task.payload[1] if not self.is_kept(partial(self.workshop.extracted, [pair]))]
            seconds[task.id] = place.pass_seconds(pairs, self.clock) * len(place.dataset.train) if pairs else 0.0
        return seconds

    def sweep(self, place: Place, group: Sequence[Task]) -> dict[str, float]:
        """Decomposing by every variant, in stacks, and measuring the fit of each."""
        cell: Cell = group[0].payload[1]
        if self.workshop.lacking(cell) or self.is_kept(partial(sweeps.trials_of, self.workshop, cell)):
            return {task.id: 0.0 for task in group}
        cells = [sweeps.variant_cell(cell, variant) for variant in cell.method.variants]
        first, seconds = cells[0], 0.0
        for members in sweeps.stacks(cell.method.variants):
            stack = [cells[index] for index in members]
            if all(self.is_kept(partial(self.workshop.decomposition, one)) for one in stack):
                continue
            seconds += self.stacked(place, stack) if len(stack) > 1 else self.decomposing(place, stack[0])
        found, watch = self.found(place, first), self.watch()
        source = self.source(place, first, watch)
        seconds += len(cells) * timed(lambda: sweeps.fit(first.method.built, found, source), watch)
        return {task.id: seconds for task in group}

    def stacked(self, place: Place, cells: Sequence[Cell]) -> float:
        """Seconds of a stack of variants, decomposed in one pass."""
        self.hurried(place, cells[0])  # what is slow only once is then over
        variants, watch = [cell.method.built for cell in cells], self.watch()
        source = self.source(place, cells[0], watch)
        return timed(lambda: variants[0].decompose_stack(variants, source, seed=cells[0].init_seed), watch)

    def cells(self, place: Place, group: Sequence[Task]) -> dict[str, float]:
        """Decomposing, where the cache does not hold what is found and no sweep will have put it there."""
        cells: list[Cell] = [task.payload[1] for task in group]
        if self.workshop.lacking(cells[0]):
            return {task.id: 0.0 for task in group}
        settled = self.settled(cells[0])
        seconds = {}
        for task, cell in zip(group, cells, strict=True):
            is_there = cell.selected_at == (cell.token_seed, cell.init_seed)
            is_there = is_there or self.is_kept(partial(self.workshop.decomposition, cell))
            seconds[task.id] = 0.0 if is_there else self.decomposing(place, settled)
        return seconds

    def settled(self, cell: Cell) -> Cell:
        """The cell with its method chosen; the first variant stands for the one that will be."""
        try:
            return self.workshop.settled(cell)
        except NotCachedError:
            return replace(cell, method=cell.method.variants[0], selected_at=None)

    def is_kept(self, ask: Callable[[], object]) -> bool:
        """Whether the cache holds what is asked for."""
        try:
            ask()
        except NotCachedError:
            return False
        return True

    def source(self, place: Place, cell: Cell, watch: Stopwatch, n_hurried: int = 0) -> RehearsalSource:
        """The tokens that the cell's method is given, as many as there will be or so many for one in a hurry."""
        reads = cell.method.built.reads
        tokens: TensorSource[Tensor] | TensorSource[Rows]
        try:
            tokens = self.workshop.source(cell.site, cell.token_seed, reads)
            n_tokens = tokens.n_tokens
        except NotCachedError:
            tokens, n_tokens = place.tokens.only(reads), place.n_tokens
        images = tokens.images
        if images is not None:
            n_images = min(images.n_images, place.few) if n_hurried else images.n_images
            images = RehearsalImages(images, n_images, place.few, watch)
        n, n_threads = min(n_tokens, n_hurried or n_tokens), self.workshop.n_threads
        return RehearsalSource(tokens, n, watch, images, is_hurried=n_hurried > 0, n_threads=n_threads)

    def found(self, place: Place, cell: Cell) -> Decomposition:
        """What the cache holds of the cell's method, or else what that finds in a hurry."""
        try:
            return self.workshop.decomposition(cell)
        except NotCachedError:
            return self.hurried(place, cell).found

    def hurried(self, place: Place, cell: Cell) -> Hurried:
        """What the method finds in as few tokens as it can find something in."""

        def attempt(n_tokens: int) -> Hurried:
            watch = self.watch(math.inf)
            source = self.source(place, cell, watch, n_tokens)
            found = self.decomposed(place, cell, source)
            scales = {source.n_tokens: place.n_tokens / source.n_tokens}
            if source.images is not None:
                scales[source.images.n_images] = len(place.dataset.train) / source.images.n_images
            return Hurried(found, [*watch.phases, ("", 0, watch.seconds)], scales)

        def make() -> Hurried:
            for n_tokens in HURRIED_TOKENS:
                if n_tokens < place.n_tokens:
                    try:
                        return attempt(n_tokens)
                    except Exception:  # too few for it; what is wrong with it otherwise shows at last
                        continue
            return attempt(place.n_tokens)

        return self.once("hurried", cell, make)  # type: ignore[no-any-return]

    def decomposed(self, place: Place, cell: Cell, source: ActivationSource) -> Decomposition:
        """What the cell's method finds in these tokens."""
        method = cell.method.built
        if cell.leader and isinstance(method, Follower):
            leader = self.found(place, self.settled(cell.leader))
            return method.decompose_like(source, leader, seed=cell.init_seed)
        return method.decompose(source, seed=cell.init_seed)  # type: ignore[no-any-return]

    def decomposing(self, place: Place, cell: Cell) -> float:
        """Seconds that the method will take to decompose."""

        def make() -> float:
            hurried, watch = self.hurried(place, cell), self.watch()
            source = self.source(place, cell, watch)
            seconds = timed(lambda: self.decomposed(place, cell, source), watch)
            return seconds + later(watch, hurried.phases, hurried.scales)

        return self.once("decomposing", cell, make)  # type: ignore[no-any-return]

    def measuring(self, place: Place, cell: Cell) -> float:
        """Seconds of the cell's own part of its evaluation, a second decomposition where a metric asks for one."""
        if self.workshop.lacking(cell):
            return 0.0
        cell = self.settled(cell)
        method, found, watch = cell.method.built, self.found(place, cell), self.watch()

        def again() -> Rerun:
            begin = watch.clock()
            with torch.inference_mode(False), torch.enable_grad():
                seconds = self.decomposing(place, cell)
            watch.leave_out(seconds - (watch.clock() - begin))
            rows = compared_by(method, found, place.site.weight.cpu())
            return Rerun(rows, rows, found.unit_of_atom, 0, None)

        subject = Subject(place.site, method, found, len(place.dataset.classes), again)
        names = [name for name, _ in cell.metrics]
        classes = dict.fromkeys(self.workshop.registry.find("metrics", name).load() for name in names)
        (answer,) = evaluation.evaluate(
            place.site,
            place.dataset.test,
            [Question(subject, list(classes), names)],
            watch.report,
            probing=place.dataset.train,
            stream=RehearsalStream(watch, place.few),
        )
        if answer.failure:
            raise UsageError(answer.failure.reason)
        return max(0.0, watch.seconds - self.sharing(place))

    def sharing(self, place: Place) -> float:
        """Seconds of what all evaluations at a site share."""

        def make() -> float:
            watch, test = self.watch(), place.dataset.test
            batches = RehearsalStream(watch, place.few)
            with torch.inference_mode(), Spool() as spool:
                for shared in batches(Replay(place.site), test, torch.arange(len(test)), None, watch.report, ""):
                    spool.add(shared.images, shared.outputs)
                    _ = shared.logits
                for _ in spool.again():
                    pass
            return watch.seconds

        return self.once("sharing", place.spec, make)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class StartCalibrator(StartWorkshop):
    """Makes a calibrator inside a lane, over a cache that is only looked at.

    Attributes:
        began: Seconds since the epoch at which the lanes were started.
        clock: What everything is measured by.
    """

    began: float = 0.0
    clock: Clock = time.perf_counter

    kind_of_cache: ClassVar[type[Cache]] = Looking

    def __call__(self, report: Report, say: Callable[[str], None]) -> Callable[[Any, Came], Any]:
        """The function that rehearses a chunk."""
        calibrator = Calibrator(self.workshop(report, say), self.clock, max(0.0, time.time() - self.began))
        return lambda chunk, came: calibrator.perform(chunk)

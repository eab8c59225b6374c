"""The evaluation of decompositions at one site: all tokens of the evaluation split, streamed once for all of them.

A batch of images runs through the backbone once. Each decomposition then encodes and decodes what came of it, the rest
of the network runs on its reconstruction, and every metric takes in what it needs; nothing of it is kept. What a metric
asks for in a second pass, the untouched site's outputs, was put by on disk. A decomposition that fails fails alone.
"""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from bench import UsageError
from bench.backbones import Backbone
from bench.batches import Batch, LaterBatch, SiteBatch
from bench.cache import StorageError
from bench.datasets import Split
from bench.geometry import ahead
from bench.lanes import Failure, Report, one_line
from bench.replay import Replay
from bench.sites import Site
from bench.spool import Spool
from bench.subject import Subject
from metrics.catalogue import Value
from metrics.protocol import AtomScorer, Learner, Scores

BATCH_IMAGES = 256
"""Images that are run at once, at most."""
BATCH_BYTES = 2**28
"""Codes of a batch, at most, of a method with eight atoms a unit: what is run at once depends on the site alone."""
LEARNING_SEED = 20261
"""Of the draw of probing images that metrics learn from."""


def images_at_once(site: Site, split: Split) -> int:
    """How many images are run together at this site."""
    first = site.read(split.images(torch.arange(1))).outputs
    return max(1, min(BATCH_IMAGES, BATCH_BYTES // (8 * first.nelement() * first.element_size())))


def stream(
    replay: Replay, split: Split, rows: Int[Tensor, " rows"], encoder: Backbone | None, report: Report, what: str
) -> Iterator[SiteBatch]:
    """Some images of a split in batches, in their order."""
    n, done = len(rows), 0
    for some, pixels in ahead(split, rows.split(images_at_once(replay.site, split)) if n else ()):
        report(what, done, n)
        yield SiteBatch(replay, some, pixels, split, encoder)
        done += len(some)
    report(what, n, n)


Stream = Callable[[Replay, Split, Int[Tensor, " rows"], Backbone | None, Report, str], Iterator[SiteBatch]]
"""Gives the batches of one pass."""


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of one decomposition.

    Attributes:
        subject: The decomposition, at its site.
        metrics: The classes (`metrics.protocol.Metric`) that compute the values.
        names: Which of their values are wanted.
    """

    subject: Subject
    metrics: Sequence[Any]
    names: Sequence[str]


@dataclass
class Answer:
    """What came of it.

    Attributes:
        values: The named values, by name, in the order asked for; None where it failed.
        scores: What metrics say of each atom, by the name of the value that is made of it.
        failure: Why it did.
        seconds: Wall seconds that this decomposition took, of what is done apart for each; what is made once for all
            counts for the first that asks.
    """

    values: dict[str, Value] | None = None
    scores: dict[str, Scores] = field(default_factory=dict)
    failure: Failure | None = None
    seconds: float = 0.0


@dataclass
class Running:
    """One question while its split is streamed.

    Attributes:
        question: The question.
        missing: Why values cannot be had, by name.
        metrics: The metrics that take in batches.
        answer: What came of it so far.
    """

    question: Question
    missing: dict[str, str]
    metrics: list[Any] = field(default_factory=list)
    answer: Answer = field(default_factory=Answer)

    @classmethod
    def begun(cls, question: Question, split: Split, lacks: dict[str, str]) -> "Running":
        """The question with its metrics made, those for which something is there."""
        lacks = question.subject.lacks | lacks
        missing = {
            row.name: next(lacks[need] for need in row.needs if need in lacks)
            for metric in question.metrics
            for row in metric.rows
            if lacks.keys() & set(row.needs)
        }
        running = cls(question, missing)
        facts = question.subject.facts(len(split))
        wanted = [one for one in question.metrics if any(row.name not in missing for row in one.rows)]
        running.attempt(lambda: running.metrics.extend(metric(facts) for metric in wanted))
        return running

    def attempt(self, act: Callable[[], object]) -> None:
        """Do something for this question alone; where it fails, the question has failed and lets go of everything."""
        if self.answer.failure is not None:
            return
        begin = time.perf_counter()
        try:
            act()
        except StorageError:
            raise
        except Exception as error:
            self.answer.failure = Failure(one_line(error), traceback.format_exc())
            self.metrics = []
        self.answer.seconds += time.perf_counter() - begin

    def learn(self, shared: SiteBatch, n: int) -> None:
        """Take in probing images, of those metrics that want so many of them."""
        batch = Batch(self.question.subject, shared)
        for metric in self.metrics:
            if isinstance(metric, Learner) and metric.n_training_images == n:
                metric.learn(batch)

    def see(self, shared: SiteBatch) -> None:
        """Take in one batch of the first pass."""
        self.update(Batch(self.question.subject, shared), 0)

    def update(self, batch: Batch | LaterBatch, index: int) -> None:
        """Take in one batch of a pass."""
        for metric in self.metrics:
            if index < metric.passes:
                metric.update(batch, pass_index=index)

    def end(self) -> None:
        """Compute the values.

        Raises:
            UsageError: A metric gives something else.
        """
        found: dict[str, Value] = {}
        for metric in self.metrics:
            found.update(metric.compute())
        found |= {name: Value.null(reason) for name, reason in self.missing.items()}
        for name in self.question.names:
            if not isinstance(found.get(name), Value):
                got = type(found[name]).__name__ if name in found else "nothing"
                raise UsageError(
                    f"metric {name!r}: compute gave {got} for it; expected a metrics.catalogue.Value; return one"
                )
        self.answer.values = {name: found[name] for name in self.question.names}
        for metric in self.metrics:
            each = metric.atom_scores() if isinstance(metric, AtomScorer) else {}
            self.answer.scores |= {name: scores for name, scores in each.items() if name in self.question.names}


def lacking(site: Site, split: Split, encoder: Backbone | str | None) -> dict[str, str]:
    """Properties of a batch that do not exist for this split, each with the reason."""
    found = {}
    if split.labels is None:
        found["labels"] = "the data set has no labels"
    if split.concepts is None:
        found["concepts"] = "the data set plants no concepts"
    elif (n := n_tokens(site, split)) != split.concepts.shape[1]:
        found["concepts"] = f"an image has {n} tokens at the site and {split.concepts.shape[1]} patches in the data set"
    if not isinstance(encoder, Backbone):
        found["embeddings"] = encoder or "the suite names no encoder for this site"
    return found


def n_tokens(site: Site, split: Split) -> int:
    """How many tokens of an image are studied."""
    return len(site.kept(site.read(split.images(torch.arange(1))).outputs.shape[1]))


@torch.inference_mode()
def evaluate(
    site: Site,
    split: Split,
    questions: Sequence[Question],
    report: Report,
    *,
    probing: Split | None = None,
    encoder: Backbone | str | None = None,
    folder: Path | None = None,
    stream: Stream = stream,
) -> list[Answer]:
    """The answer to each question, in their order.

    Args:
        site: Where all of the decompositions are.
        split: The evaluation split.
        questions: What is asked of which decomposition.
        report: Told how far it is.
        probing: The probing split, for metrics that learn from it.
        encoder: Another network whose view of the images metrics may ask for; a text says why it cannot be had.
        folder: Where the outputs are put by for a second pass; None for the system's own place.
        stream: Gives the batches; a rehearsal has its own.
    """
    lacks = lacking(site, split, encoder)
    encoder = encoder if isinstance(encoder, Backbone) else None
    all_running = [Running.begun(question, split, lacks) for question in questions]
    metrics = [metric for running in all_running for metric in running.metrics]
    n_passes = max((metric.passes for metric in metrics), default=0)
    replay = Replay(site)
    for n in sorted({metric.n_training_images for metric in metrics if isinstance(metric, Learner)}):
        rows = learned_rows(n, 0 if probing is None else len(probing))
        for shared in stream(replay, probing, rows, encoder, report, "probing images") if probing else ():
            for running in all_running:
                running.attempt(partial(running.learn, shared, n))
    with Spool(folder) as spool:
        everything = torch.arange(len(split))
        for shared in stream(replay, split, everything, encoder, report, "evaluation") if n_passes else ():
            if n_passes > 1:
                spool.add(shared.images, shared.outputs)
            for running in all_running:
                running.attempt(partial(running.see, shared))
            if all(running.answer.failure for running in all_running):
                return [running.answer for running in all_running]
        for index in range(1, n_passes):
            for batch in later(spool, replay, split, report, f"evaluation, pass {index + 1}"):
                for running in all_running:
                    running.attempt(partial(running.update, batch, index))
    for running in all_running:
        running.attempt(running.end)
    return [running.answer for running in all_running]


def learned_rows(most: int, n: int) -> Int[Tensor, " rows"]:
    """The probing images that a metric learns from which wants so many of n, ascending: the first of one draw."""
    drawn = torch.randperm(n, generator=torch.Generator().manual_seed(LEARNING_SEED))[:most]
    return drawn.sort().values


def later(spool: Spool, replay: Replay, split: Split, report: Report, what: str) -> Iterator[LaterBatch]:
    """The batches of a later pass: from the disk, or from the backbone where the disk did not take them."""
    n = len(split)
    if spool.is_whole:
        for images, outputs in spool.again():
            report(what, int(images[0]), n)
            labels = None if split.labels is None else split.labels[images].to(outputs.device)
            yield LaterBatch(images, labels, outputs)
        report(what, n, n)
    else:
        for shared in stream(replay, split, torch.arange(n), None, report, what):
            yield LaterBatch(shared.images, shared.labels, shared.outputs)

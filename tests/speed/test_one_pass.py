"""What evaluating all methods of a site costs, against the work that cannot be avoided, and what memory it takes."""

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from bench.activations import opened
from bench.backbones import Backbone
from bench.datasets import InMemory
from bench.embedded import to_unit_range
from bench.evaluation import Question, evaluate, images_at_once
from bench.extraction import extract
from bench.lanes import quietly
from bench.memory import forget_peak, peak_bytes
from bench.registry import Registry
from bench.shards import FILLED, Wanted
from bench.sites import Site
from bench.subject import Subject
from methods.protocol import Explicit, Follower
from metrics.catalogue import ROWS

DEPTH, WIDTH, N_CLASSES = 12, 768, 100
N_FEW, N_MANY = 55, 110
"""Images of one batch at that site, and of two."""
N_LEARNED, TOKENS_LEARNED = 48, 40
"""Images and tokens that methods decompose: enough for the right shape, which is all that the cost depends on."""
OPTIONS: dict[str, dict[str, Any]] = {
    "elude": {"top_k": 120, "min_cluster_size": 2, "min_samples": 2},
    "pure": {"n_images": 20, "n_parts": 5, "n_init": 1},
    "dnrwcv": {"n_images": 20, "min_members": 2, "n_init": 1},
    "dpcicnn": {"class_share": 0.2},
}
LEFT_OUT = {"checkpoint", "planted_truth"}
"""Somebody else's, and one that only a planted site has."""


def split_of(n: int, seed: int, side: int = 224) -> InMemory:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (n, 3, side, side), generator=generator, dtype=torch.uint8)
    return InMemory(pixels, torch.randint(N_CLASSES, (n,), generator=generator))


def vit(depth: int, side: int = 224, patch: int = 16) -> Site:
    """The last MLP's second layer of a ViT-B with random weights."""
    torch.manual_seed(0)
    module = VisionTransformer(
        img_size=side, patch_size=patch, embed_dim=WIDTH, depth=depth, num_heads=12, num_classes=N_CLASSES
    )
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.04)
    backbone = Backbone.of("vit", module, to_unit_range, preprocessing="rgb / 127.5 - 1", prefix=("cls",))
    return Site(backbone, f"blocks.{depth - 1}.mlp.fc2")


def found_by(name: str, entry: Any, source: Any, others: dict[str, Any]) -> tuple[Any, Any]:
    """A method and what it finds, barely trained."""
    fields = getattr(entry.load(), "__dataclass_fields__", {})
    method = entry.load()(**OPTIONS.get(name, {"epochs": 1} if "epochs" in fields else {}))
    if name == "archetypal_sae":  # reads its codes as TopK does, from tensors of the same names and shapes
        return method, others["topk_sae"][1]
    tokens = source.only(method.reads)
    if isinstance(method, Follower):
        return method, method.decompose_like(tokens, others["elude"][1], seed=0)
    return method, method.decompose(tokens, seed=0)


def questions_at(site: Site, side: int = 224, only: Sequence[str] = ()) -> list[Question]:
    """Built-in methods with their decompositions, asked for everything that is streamed over the split by default."""
    folder = Path(mkdtemp())
    split = split_of(N_LEARNED, 1, side)
    extract([Wanted(site, 0, TOKENS_LEARNED)], [folder], split, quietly)
    source = opened(folder / FILLED, site, split, quietly)
    entries = Registry(()).tables["methods"]
    order = ["elude", *sorted(name for name in entries if name not in {*LEFT_OUT, "elude", "archetypal_sae"})]
    found: dict[str, tuple[Any, Any]] = {}
    for name in only or [*order, "archetypal_sae"]:
        found[name] = found_by(name, entries[name], source, found)
    rows = [row for row in ROWS.values() if row.by_default]
    classes = dict.fromkeys(Registry(()).find("metrics", row.name).load() for row in rows)
    streamed = [one for one in classes if one.passes]
    names = [row.name for one in streamed for row in one.rows if row.by_default]
    return [Question(Subject(site, *one, N_CLASSES), streamed, names) for one in found.values()]


@torch.inference_mode()
def unavoidable_seconds(site: Site, split: InMemory, questions: Sequence[Question]) -> dict[str, float]:
    """One forward pass over the split at once, and each method's own encode and decode of it; nothing measured."""
    begin = time.perf_counter()
    reading = site.read(split.images(slice(None)))
    seconds = {"backbone": time.perf_counter() - begin}
    for question in questions:
        subject = question.subject
        activations = subject.activations(reading.inputs, reading.outputs)
        begin = time.perf_counter()
        codes = subject.method.encode(subject.decomposition, activations)
        if isinstance(subject.method, Explicit):
            subject.method.decode(subject.decomposition, codes)
        seconds[type(subject.method).__name__] = time.perf_counter() - begin
        del codes
    return seconds


def test_evaluation_of_all_methods(benchmark: BenchmarkFixture) -> None:
    """At d = 768 and up to 6,144 atoms a method, one thread; the ratios are to the work that cannot be avoided.

    `ratio` is that of all images, `ratio_of_a_batch` that of each further batch, without what an evaluation costs once
    whatever the number of images; both also without matching pursuit, whose own encoding outweighs all the others'.
    """
    torch.set_num_threads(1)
    site, many = vit(DEPTH), split_of(N_MANY, 0)
    assert many.labels is not None
    few = InMemory(many.pixels[:N_FEW], many.labels[:N_FEW])
    questions = questions_at(site)
    assert images_at_once(site, many) == N_FEW
    unavoidable_seconds(site, few, questions)
    floors = [unavoidable_seconds(site, few, questions)]
    seconds, own = [], []
    for split in (few, many):
        begin = time.perf_counter()
        if split is many:
            answers = benchmark.pedantic(lambda: evaluate(site, many, questions, quietly), rounds=1)
        else:
            answers = evaluate(site, few, questions, quietly)
        seconds.append(time.perf_counter() - begin)
        own.append({type(q.subject.method).__name__: a.seconds for q, a in zip(questions, answers, strict=True)})
        assert not [answer.failure for answer in answers if answer.failure]
    floors.append(unavoidable_seconds(site, few, questions))
    floor = {name: (floors[0][name] + floors[1][name]) / 2 for name in floors[0]}
    n = N_MANY / N_FEW

    def ratios(without: Sequence[str]) -> dict[str, float]:
        least = sum(value for name, value in floor.items() if name not in without)
        taken = [total - sum(apart[name] for name in without) for total, apart in zip(seconds, own, strict=True)]
        return {"ratio": taken[1] / (n * least), "ratio_of_a_batch": (taken[1] - taken[0]) / ((n - 1) * least)}

    for question in questions:
        name = type(question.subject.method).__name__
        a_batch = (own[1][name] - own[0][name]) / (n - 1)
        atoms = question.subject.decomposition.n_atoms
        print(f"{name:22} {atoms:6} atoms; a batch {a_batch:6.2f} s, unavoidable {floor[name]:6.2f} s")
    print(f"backbone {floor['backbone']:.2f} s; evaluations {seconds[0]:.1f} and {seconds[1]:.1f} s")
    pursuit = ratios(["MatchingPursuitSAE"])
    benchmark.extra_info.update(
        images=N_MANY, at_once=N_FEW, methods=len(questions),
        **{name: round(value, 3) for name, value in ratios([]).items()},
        **{f"{name}_without_matching_pursuit": round(value, 3) for name, value in pursuit.items()},
        drift=round(sum(floors[1].values()) / sum(floors[0].values()), 3),
    )  # fmt: skip
    print(benchmark.extra_info)


@dataclass(frozen=True)
class Endless(InMemory):
    """So many images, of which few are held.

    Attributes:
        n: How many.
    """

    n: int = 0

    def __len__(self) -> int:
        return self.n

    def images(self, rows: Tensor | slice) -> Tensor:
        rows = torch.arange(self.n)[rows] if isinstance(rows, slice) else rows
        return self.pixels[rows % len(self.pixels)]


@pytest.mark.parametrize("n_images", [2000, 20_000])
def test_memory_of_an_evaluation(benchmark: BenchmarkFixture, n_images: int) -> None:
    """Peak memory of 2,000 images and of ten times as many, beyond that of the first 512; `extra_info` has the bytes.

    Once every atom has its hundred images and batches are full, nothing is left to grow.
    """
    torch.set_num_threads(1)
    site = vit(1, side=32, patch=8)
    questions = questions_at(site, 32, only=["elude", "topk_sae"])
    few = split_of(512, 0, 32)
    assert few.labels is not None
    split = Endless(few.pixels, few.labels.repeat(n_images // 512 + 1)[:n_images], n=n_images)
    evaluate(site, few, questions, quietly)
    gc.collect()
    forget_peak()
    before = peak_bytes() or 0
    benchmark.pedantic(lambda: evaluate(site, split, questions, quietly), rounds=1)
    extra = (peak_bytes() or 0) - before
    benchmark.extra_info.update(images=n_images, before_bytes=before, extra_bytes=extra)
    print(f"{n_images} images: {extra / 2**20:.0f} MiB beyond {before / 2**20:.0f} MiB")

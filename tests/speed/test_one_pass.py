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

from bench.activations import extract, opened, quietly
from bench.backbones import Backbone
from bench.datasets import InMemory
from bench.embedded import to_unit_range
from bench.evaluation import Question, evaluate, images_at_once
from bench.memory import forget_peak, peak_bytes
from bench.registry import Registry
from bench.sites import Site
from bench.subject import Subject
from methods.protocol import Explicit, Follower
from metrics.catalogue import ROWS

DEPTH, WIDTH, N_CLASSES = 12, 768, 100
N_EVALUATED = 96
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


def split_of(n: int, seed: int) -> InMemory:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (n, 3, 224, 224), generator=generator, dtype=torch.uint8)
    return InMemory(pixels, torch.randint(N_CLASSES, (n,), generator=generator))


def vit(depth: int) -> Site:
    """The last MLP's second layer of a ViT-B/16 with random weights."""
    torch.manual_seed(0)
    module = VisionTransformer(embed_dim=WIDTH, depth=depth, num_heads=12, num_classes=N_CLASSES)
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


def questions_at(site: Site) -> list[Question]:
    """Every built-in method with its decomposition, asked for everything that is measured by default."""
    folder = Path(mkdtemp())
    split = split_of(N_LEARNED, 1)
    extract(site, split, TOKENS_LEARNED, 0, folder, quietly)
    source = opened(folder, site, split, quietly)
    entries = Registry(()).tables["methods"]
    order = ["elude", *sorted(name for name in entries if name not in {*LEFT_OUT, "elude", "archetypal_sae"})]
    found: dict[str, tuple[Any, Any]] = {}
    for name in [*order, "archetypal_sae"]:
        found[name] = found_by(name, entries[name], source, found)
    names = [row.name for row in ROWS.values() if row.by_default]
    classes = list(dict.fromkeys(Registry(()).find("metrics", name).load() for name in names))
    return [Question(Subject(site, *one, N_CLASSES), classes, names) for one in found.values()]


@torch.inference_mode()
def unavoidable_seconds(site: Site, split: InMemory, questions: Sequence[Question], size: int) -> dict[str, float]:
    """One forward pass, and each method's own encode and decode of what came of it; nothing measured."""
    seconds: dict[str, float] = {}

    def add(what: str, begin: float) -> None:
        seconds[what] = seconds.get(what, 0.0) + time.perf_counter() - begin

    for start in range(0, len(split), size):
        begin = time.perf_counter()
        reading = site.read(split.images(slice(start, start + size)))
        add("backbone", begin)
        for question in questions:
            subject = question.subject
            activations = subject.activations(reading.inputs, reading.outputs)
            begin = time.perf_counter()
            codes = subject.method.encode(subject.decomposition, activations)
            if isinstance(subject.method, Explicit):
                subject.method.decode(subject.decomposition, codes)
            add(type(subject.method).__name__, begin)
            del codes
    return seconds


def test_evaluation_of_all_methods(benchmark: BenchmarkFixture) -> None:
    """At d = 768 and about 6,144 atoms a method; `extra_info` has the ratio to the work that cannot be avoided."""
    torch.set_num_threads(1)
    site, split = vit(depth=DEPTH), split_of(N_EVALUATED, 0)
    questions = questions_at(site)
    size = images_at_once(site, split)
    unavoidable_seconds(site, InMemory(split.pixels[:size], None), questions, size)
    before = unavoidable_seconds(site, split, questions, size)
    begin = time.perf_counter()
    answers = benchmark.pedantic(lambda: evaluate(site, split, questions, quietly), rounds=1)
    taken = time.perf_counter() - begin
    after = unavoidable_seconds(site, split, questions, size)
    floor = (sum(before.values()) + sum(after.values())) / 2
    for question, answer in zip(questions, answers, strict=True):
        assert answer.failure is None, answer.failure
        name = type(question.subject.method).__name__
        own = (before[name] + after[name]) / 2
        print(f"{name:22} {question.subject.decomposition.n_atoms:6} atoms {answer.seconds:7.2f} s, own {own:7.2f} s")
    print(f"backbone {before['backbone']:.2f} s; all {taken:.1f} s, unavoidable {floor:.1f} s")
    benchmark.extra_info.update(
        images=len(split), at_once=size, methods=len(questions), seconds=round(taken, 1),
        unavoidable_seconds=round(floor, 1), ratio=round(taken / floor, 3),
        drift=round(sum(after.values()) / sum(before.values()), 3),
    )  # fmt: skip


@pytest.mark.parametrize("n_images", [400, 4000])
def test_memory_of_an_evaluation(benchmark: BenchmarkFixture, n_images: int) -> None:
    """Peak memory beyond what was there before, with 1x and 10x images at a small site; `extra_info` has the bytes."""
    torch.set_num_threads(1)
    site = vit(depth=1)
    questions = [one for one in questions_at(site) if type(one.subject.method).__name__ in ("TopKSAE", "ELUDe")]

    @dataclass(frozen=True)
    class Endless(InMemory):
        """So many images, of which few are held."""

        n: int = n_images

        def __len__(self) -> int:
            return self.n

        def images(self, rows: Tensor | slice) -> Tensor:
            rows = torch.arange(self.n)[rows] if isinstance(rows, slice) else rows
            return self.pixels[rows % len(self.pixels)]

    few = split_of(64, 0)
    assert few.labels is not None
    split = Endless(few.pixels, few.labels.repeat(n_images // 64 + 1)[:n_images])
    evaluate(site, Endless(few.pixels, few.labels, n=64), questions, quietly)
    gc.collect()
    forget_peak()
    before = peak_bytes() or 0
    benchmark.pedantic(lambda: evaluate(site, split, questions, quietly), rounds=1)
    benchmark.extra_info.update(images=n_images, extra_bytes=(peak_bytes() or 0) - before)
    print(f"{n_images} images: {((peak_bytes() or 0) - before) / 2**20:.0f} MiB")

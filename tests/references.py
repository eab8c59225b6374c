"""The slow obvious version of each metric, and the smallest evaluation split that a metric can stream.

Every reference is a plain reading of its definition in Python and float64 numpy: loops over atoms, images and pairs,
no streaming, no algebra. They exist to be compared with, so they share no code with what they check.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations, permutations
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from metrics.catalogue import Value
from metrics.codes import CodeSummary
from metrics.protocol import Learner, Metric


@dataclass
class Evaluation:
    """An evaluation split held in memory: the facts, and batches of any size."""

    outputs: Float[Tensor, "images tokens units"]
    codes: Float[Tensor, "images tokens atoms"]
    reconstruction: Float[Tensor, "images tokens units"]
    labels: Int[Tensor, " images"]
    logits: Float[Tensor, "images classes"]
    replaced_logits: Float[Tensor, "images classes"]
    codes_are_nonnegative: bool = False
    unit_of_atom: Int[Tensor, " atoms"] | None = None
    is_explicit: bool = True
    rerun: "Rerun | None" = None
    in_place_logits: Float[Tensor, "images classes"] | None = None
    embeddings: Float[Tensor, "images width"] | None = None
    concepts: Bool[Tensor, "images tokens concepts"] | None = None
    dictionaries: Mapping[str, Float[Tensor, "atoms width"]] = field(default_factory=dict)
    truth: Any = None
    timed: Mapping[str, Any] = field(default_factory=lambda: timings())

    def timings(self) -> Mapping[str, Any]:
        return self.timed

    def again(self) -> "Rerun":
        return self.rerun or Rerun()

    @property
    def n_images(self) -> int:
        return len(self.outputs)

    @property
    def n_units(self) -> int:
        return self.outputs.shape[2]

    @property
    def n_atoms(self) -> int:
        return self.codes.shape[2]

    def batches(self, size: int) -> Iterator["Batch"]:
        for start in range(0, self.n_images, size):
            yield Batch(self, torch.arange(start, min(start + size, self.n_images)))


@dataclass
class Batch:
    """Some images of an evaluation; notes what is read of it."""

    evaluation: Evaluation
    images: Int[Tensor, " images"]
    was_read: set[str] = field(default_factory=set)

    def _read(self, name: str) -> Tensor:
        self.was_read.add(name)
        everything: Tensor = getattr(self.evaluation, name)
        return everything[self.images]

    @property
    def labels(self) -> Tensor:
        return self._read("labels")

    @property
    def outputs(self) -> Tensor:
        return self._read("outputs")

    @property
    def codes(self) -> Tensor:
        return self._read("codes")

    @property
    def reconstruction(self) -> Tensor:
        return self._read("reconstruction")

    @property
    def logits(self) -> Tensor:
        return self._read("logits")

    @property
    def replaced_logits(self) -> Tensor:
        return self._read("replaced_logits")

    @property
    def summary(self) -> CodeSummary:
        return CodeSummary.of(self.codes)

    @property
    def in_place_logits(self) -> Tensor:
        return self._read("replaced_logits" if self.evaluation.in_place_logits is None else "in_place_logits")

    @property
    def embeddings(self) -> Tensor:
        return self._read("embeddings")

    @property
    def concepts(self) -> Tensor:
        return self._read("concepts")

    def of_site(self, make: Callable[[Any], Any]) -> Any:
        return make(self)

    @property
    def in_float64(self) -> "Batch":
        self.was_read.add("in_float64")
        names = ("outputs", "codes", "reconstruction", "logits", "replaced_logits")
        precise = {name: getattr(self.evaluation, name).double() for name in names}
        return Batch(replace(self.evaluation, **precise), self.images)


@dataclass
class Timed:
    """How long one way of running a network took."""

    milliseconds: tuple[float, ...]
    peak_bytes: int | None = None


def timings(seed: int = 0, n: int = 20, peak_bytes: int | None = 1_000_000) -> dict[str, Timed]:
    """Every way that there is, around 100 ms a batch for the backbone and 110, 120, ... for the others."""
    rng = np.random.default_rng(seed)
    ways = ("backbone", "backbone again", "unasked", "codes", "merged", "hooked")
    means = (100, 100, 110, 120, 130, 140)
    return {way: Timed(tuple(rng.normal(mean, 1, n)), peak_bytes) for way, mean in zip(ways, means, strict=True)}


@dataclass
class Rerun:
    """What came of a second decomposition: another dictionary, after as many steps as are said."""

    dictionary: Float[Tensor, "atoms width"] | None = field(default_factory=lambda: torch.eye(7))
    dictionary_again: Float[Tensor, "atoms_again width"] | None = field(default_factory=lambda: torch.eye(7).flip(0))
    unit_of_atom_again: Int[Tensor, " atoms_again"] | None = None
    gradient_steps: int = 0
    needs_labels: str | None = None


def evaluation(
    *, n_images: int = 40, n_tokens: int = 3, n_units: int = 5, n_atoms: int = 7, seed: int = 0, **replaced: Any
) -> Evaluation:
    """A random split; any part may be given instead, and then sets the number of images, tokens and so on."""
    if "codes" in replaced:
        n_images, n_tokens, n_atoms = replaced["codes"].shape
    elif "outputs" in replaced:
        n_images, n_tokens, n_units = replaced["outputs"].shape
    elif "logits" in replaced:
        n_images = len(replaced["logits"])
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    outputs = replaced.get("outputs", noise(n_images, n_tokens, n_units) + 2)
    logits = noise(n_images, 8)
    parts = {
        "outputs": outputs,
        "codes": noise(n_images, n_tokens, n_atoms),
        "reconstruction": outputs + 0.3 * noise(*outputs.shape),
        "labels": torch.randint(8, (n_images,), generator=generator),
        "logits": logits,
        "replaced_logits": logits + 0.5 * noise(*logits.shape),
        "embeddings": noise(n_images, 6) + 0.5,
    }
    return Evaluation(**(parts | replaced))


def teach(metric: Metric, training: Evaluation, batch_size: int = 16) -> None:
    """What the runner does first: a metric that learns sees the probing split."""
    if isinstance(metric, Learner):
        for batch in training.batches(batch_size):
            metric.learn(batch)


def stream(
    metric: Metric, split: Evaluation, batch_size: int = 16, training: Evaluation | None = None
) -> Mapping[str, Value]:
    """What the runner does: the training, here on the split itself unless given, every pass, then compute."""
    teach(metric, training or split, batch_size)
    for pass_index in range(metric.passes):
        for batch in split.batches(batch_size):
            metric.update(batch, pass_index=pass_index)
    return metric.compute()


def number(value: Value) -> float:
    """The number in a value that has one."""
    assert value.value is not None, value.reason
    return value.value


def interval(value: Value) -> tuple[float, float]:
    """The interval of a value that has one."""
    assert value.low is not None, value
    assert value.high is not None, value
    return value.low, value.high


def top_images(scores: list[float], k: int) -> list[int]:
    """The k images with the largest scores, the lower index first among equals."""
    return sorted(range(len(scores)), key=lambda image: (-scores[image], image))[:k]


def ms_score(
    codes: Float64[np.ndarray, "images tokens"],
    outputs: Float64[np.ndarray, "images tokens units"],
    k: int = 100,
    *,
    codes_are_nonnegative: bool = False,
    embedded_by: list[int] | None = None,
) -> float | None:
    """The MS-Score of one atom, pair by pair (Bağcı et al. 2026, B.2); None where it is excluded.

    Image i is embedded by itself, or by the i-th of `embedded_by`.
    """
    smallest, largest = codes.min(), codes.max()
    if largest == smallest or (codes_are_nonnegative and largest <= 0):
        return None
    embeddings, weights = [], []
    for image in top_images([float(tokens.max()) for tokens in codes], k):
        position = list(codes[image]).index(codes[image].max())
        embedding = outputs[embedded_by[image] if embedded_by else image, position]
        length = np.sqrt((embedding**2).sum())
        embeddings.append(embedding / length if length > 0 else embedding)
        weights.append(min(max((codes[image].max() - smallest) / (largest - smallest), 0.0), 1.0))
    if sum(weight > 0 for weight in weights) < 2:
        return None
    pairs = list(combinations(range(len(weights)), 2))
    weighted_cosines = sum(weights[i] * weights[j] * float(embeddings[i] @ embeddings[j]) for i, j in pairs)
    return float(weighted_cosines / sum(weights[i] * weights[j] for i, j in pairs))


def ms_scores(split: Evaluation, k: int = 100, embedded_by: list[int] | None = None) -> list[float | None]:
    """The MS-Score of every atom."""
    codes, outputs = split.codes.double().numpy(), split.outputs.double().numpy()
    return [
        ms_score(
            codes[:, :, atom],
            outputs,
            k,
            codes_are_nonnegative=split.codes_are_nonnegative,
            embedded_by=embedded_by,
        )
        for atom in range(split.n_atoms)
    ]


def r2(x: Float64[np.ndarray, "tokens units"], x_hat: Float64[np.ndarray, "tokens units"]) -> float:
    """1 - sum ||x - x_hat||^2 / sum ||x - mean vector||^2."""
    return float(1 - ((x - x_hat) ** 2).sum() / ((x - x.mean(axis=0)) ** 2).sum())


def r2_scalar_mean(x: Float64[np.ndarray, "tokens units"], x_hat: Float64[np.ndarray, "tokens units"]) -> float:
    """The same with one mean over all elements."""
    return float(1 - ((x - x_hat) ** 2).sum() / ((x - x.mean()) ** 2).sum())


def nmse_zero_baseline(x: Float64[np.ndarray, "tokens units"], x_hat: Float64[np.ndarray, "tokens units"]) -> float:
    """sum ||x - x_hat||^2 / sum ||x||^2."""
    return float(((x - x_hat) ** 2).sum() / (x**2).sum())


def l0(codes: Float64[np.ndarray, "images tokens atoms"]) -> float:
    """Mean number of nonzero codes of a token."""
    tokens = codes.reshape(-1, codes.shape[2])
    return sum(sum(1 for code in token if code != 0) for token in tokens) / len(tokens)


def wilson(n_hits: int, n: int) -> tuple[float, float]:
    """Wilson 1927: the proportions p with |n_hits/n - p| <= z sqrt(p (1 - p) / n), found by a fine scan."""
    z = 1.959963984540054
    p = np.linspace(0, 1, 2_000_001)
    inside = p[np.abs(n_hits / n - p) <= z * np.sqrt(p * (1 - p) / n) + 1e-15]
    return float(inside.min()), float(inside.max())


def matched_cosine(a: Float64[np.ndarray, "atoms width"], b: Float64[np.ndarray, "atoms_b width"]) -> float:
    """Mean cosine of the best matching, tried one by one, less the share of the larger side that is left over."""
    alive = [[row / np.sqrt((row**2).sum()) for row in rows if (row != 0).any()] for rows in (a, b)]
    few, many = sorted(alive, key=len)
    left_over = (len(many) - len(few)) / len(many)
    if not few:
        return -left_over
    matchings = permutations(many, len(few))
    best = max(sum(float(x @ y) for x, y in zip(few, matching, strict=True)) for matching in matchings)
    return best / len(few) - left_over


def ms_score_pach(
    scores: Float64[np.ndarray, " images"], embeddings: Float64[np.ndarray, "images width"]
) -> float | None:
    """Pach et al. 2025, section 3.2: the mean cosine of all pairs, weighted; None for an atom with one score only."""
    smallest, largest = scores.min(), scores.max()
    if smallest == largest:
        return None
    total = weight = 0.0
    for i, j in combinations(range(len(scores)), 2):
        lengths = np.sqrt((embeddings[i] ** 2).sum()) * np.sqrt((embeddings[j] ** 2).sum())
        cosine = embeddings[i] @ embeddings[j] / lengths if lengths > 0 else 0.0
        both = (scores[i] - smallest) / (largest - smallest) * (scores[j] - smallest) / (largest - smallest)
        total, weight = total + both * cosine, weight + both
    return float(total / weight) if weight > 0 else None

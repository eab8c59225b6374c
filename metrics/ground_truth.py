"""What was planted against what was found: concepts whose presence is known, units whose parts are known.

`GroundTruth` needs to know which concepts each token shows, which a data set may know under any backbone:

- concept recovery: does an atom's code tell where a concept is? ROC AUC over tokens, presence against code; an atom
  fires by being large, so a code that is small where the concept is counts as 0 and not as 1. AUC asks about all
  tokens alike and a concept is rare: a unit that mixes three rare concepts still ranks most tokens right, so values
  near 1 are where methods differ.
- exemplar purity asks about the top images alone: how many of those that drive an atom most show one and the same
  concept there. Two concepts in equal parts give 50 %.
- concept cosine: does an atom of the output dictionary point where a concept moves the outputs? That direction is the
  least-squares effect of its presence, all concepts fitted together: what the site does with the concept, interference
  included, and free of the concepts that happen to stand beside it.

`PlantedParts` needs to know of which parts each unit is the sum (`Truth`), and looks at the dictionary alone.

AUC is exact on a fixed random sample of 20,000 tokens (80 kB an atom), the directions need the moments of presence and
outputs. Only the concepts of every image are held, a byte each: a small part of the pixels that they were planted in.
"""

from collections.abc import Mapping
from typing import ClassVar, Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int
from numpy import ndarray
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata
from torch import Tensor

from metrics.catalogue import MetricRow, Value, rows_of
from metrics.exemplars import Exemplars, Ranking
from metrics.intervals import N_RESAMPLES, SEED, bootstrapped, percentiles, proportion
from metrics.protocol import EvaluationBatch, EvaluationFacts, Scores, Truth

TOP_K: Final = 100
MAX_TOKENS: Final = 20_000
"""Tokens that AUC is measured on, drawn once for all methods of a split of that size."""
RANKED_AT_ONCE: Final = 256
"""Atoms whose codes are ranked together."""


class GroundTruth:
    """Concept AUC (matched one to one, and not), exemplar purity and its chance level, and concept cosine; one pass.

    Args:
        facts: What is known before the first batch.
        top_k: Images kept for each atom; all of them where the split has fewer.
        max_tokens: Tokens that AUC is measured on; all of them where the split has fewer.
    """

    rows: ClassVar[tuple[MetricRow, ...]] = rows_of("metrics.ground_truth:GroundTruth")
    version: ClassVar[int] = 1
    passes: ClassVar[int] = 1

    def __init__(self, facts: EvaluationFacts, *, top_k: int = TOP_K, max_tokens: int = MAX_TOKENS) -> None:
        self._facts = facts
        self._top_k, self._max_tokens = top_k, max_tokens
        self._sample: Int[Tensor, "sampled 2"] | None = None
        self._codes: list[Float32[Tensor, "some atoms"]] = []
        self._present: list[Bool[Tensor, "some concepts"]] = []
        self._has_output = "output" in facts.dictionaries
        self._ranking = Ranking(top_k)
        self._images: list[Int[Tensor, " some"]] = []
        self._concepts: list[Bool[Tensor, "some tokens concepts"]] = []
        self._moments: tuple[Tensor, Tensor] | None = None

    def update(self, batch: EvaluationBatch, *, pass_index: int) -> None:
        """Take in the sampled tokens, the images that drive atoms most, and how outputs move with concepts."""
        self._keep_sampled(batch)
        self._ranking.add(batch.images, batch.summary)
        self._images.append(batch.images.cpu())
        self._concepts.append(batch.concepts.cpu())
        if self._has_output:
            moments = batch.of_site(moments_of)
            kept = self._moments
            self._moments = moments if kept is None else (kept[0] + moments[0], kept[1] + moments[1])

    def _keep_sampled(self, batch: EvaluationBatch) -> None:
        codes, concepts, images = batch.codes, batch.concepts, batch.images.cpu()
        if self._sample is None:
            n_tokens = self._facts.n_images * codes.shape[1]
            n = min(n_tokens, self._max_tokens)
            drawn = np.sort(np.random.default_rng(SEED).choice(n_tokens, n, replace=False, shuffle=False))
            self._sample = torch.from_numpy(np.stack(np.divmod(drawn, codes.shape[1]), axis=1))
        rows = torch.searchsorted(images, self._sample[:, 0].contiguous()).clamp(max=len(images) - 1)
        is_here = images[rows] == self._sample[:, 0]
        rows, positions = rows[is_here], self._sample[is_here, 1]
        self._codes.append(codes[rows, positions].float().cpu())
        self._present.append(concepts[rows, positions].cpu())

    def compute(self) -> Mapping[str, Value]:
        """One value per row; null without images or concepts."""
        exemplars = self._ranking.exemplars()
        if exemplars is None:
            return {row.name: Value.null("no images") for row in self.rows}
        present = torch.cat(self._present).numpy()
        if not present.shape[1]:
            return {row.name: Value.null("the data set has no concepts") for row in self.rows}
        return {
            **recovered(torch.cat(self._codes).numpy(), present),
            "exemplar_purity": self._purity(exemplars),
            "exemplar_purity_chance": chance_of_purity(present, min(self._top_k, self._facts.n_images)),
            "concept_cosine": self._cosine(),
        }

    def _each_purity(self, exemplars: Exemplars) -> Scores:
        """An image counts where it drives the atom at all, which is above the atom's smallest code anywhere."""
        is_finite = (exemplars.scores.isfinite().all(dim=1) & exemplars.smallest.isfinite()).cpu()
        counts = exemplars.weights() > 0
        n_images = counts.sum(dim=1).cpu()
        rows = torch.searchsorted(torch.cat(self._images), exemplars.images.long().cpu())
        shown = torch.cat(self._concepts)[rows, exemplars.positions.long().cpu()]
        n_showing = (shown & counts[..., None].cpu()).sum(dim=1).amax(dim=1)
        return Scores(100 * n_showing.double() / n_images.clamp(min=1), (n_images >= 2) & is_finite)

    def _purity(self, exemplars: Exemplars) -> Value:
        each = self._each_purity(exemplars)
        n_excluded = int((~each.is_scored).sum())
        reason = f"{n_excluded} driven by fewer than two images, or with codes that are not finite"
        percent: Float64[ndarray, " atoms"] = each.values[each.is_scored].numpy()
        return bootstrapped(percent, "atoms", n_excluded=n_excluded, reason=reason if n_excluded else None)

    def atom_scores(self) -> Mapping[str, Scores]:
        """The share of an atom's images, in %, that show the concept which most show; none without concepts."""
        exemplars = self._ranking.exemplars()
        if exemplars is None or not self._concepts[0].shape[2]:
            return {}
        return {"exemplar_purity": self._each_purity(exemplars)}

    def _cosine(self) -> Value:
        if self._moments is None:
            return Value.null("the method's atoms are no directions among the outputs")
        directions = concept_directions(*(moments.cpu().numpy() for moments in self._moments))
        is_known = np.abs(directions).sum(axis=1) > 0
        if not is_known.any():
            return Value.null("no concept moves the outputs", n_excluded=len(directions))
        known = unit_rows(torch.from_numpy(directions[is_known]))
        best = (known @ unit_rows(self._facts.dictionaries["output"]).T).amax(dim=1)
        n_excluded = int((~is_known).sum())
        reason = f"{n_excluded} concepts without an effect" if n_excluded else None
        return bootstrapped(best.numpy(), "concepts", n_excluded=n_excluded, reason=reason)


def moments_of(batch: EvaluationBatch) -> tuple[Float64[Tensor, "n n"], Float64[Tensor, "n units"]]:
    """The moments of presence, a constant first, with itself and with the outputs, summed over tokens."""
    outputs = batch.outputs.flatten(0, 1).double()
    present = batch.concepts.flatten(0, 1).to(outputs)
    x = torch.cat([torch.ones_like(present[:, :1]), present], dim=1)
    return x.T @ x, x.T @ outputs


def concept_directions(
    xx: Float64[ndarray, "n n"], xy: Float64[ndarray, "n units"]
) -> Float64[ndarray, "concepts units"]:
    """How each concept moves the outputs, by least squares; zeros for one that is nowhere or everywhere."""
    n_showing = xx[0, 1:]
    varies = (n_showing > 0) & (n_showing < xx[0, 0])
    fitted = np.flatnonzero(np.concatenate([[True], varies]))
    effects = np.linalg.pinv(xx[np.ix_(fitted, fitted)], hermitian=True) @ xy[fitted]
    directions = np.zeros((len(n_showing), xy.shape[1]))
    directions[varies] = effects[1:]
    return directions


def aucs(
    codes: Float32[ndarray, "tokens atoms"], present: Bool[ndarray, "tokens concepts"]
) -> Float64[ndarray, "concepts atoms"]:
    """ROC AUC of each atom's code for each concept, all of which are present at some tokens and absent at others.

    The share of pairs of a token with the concept and one without in which the first has the larger code, equal ones
    counting half (Mann and Whitney 1947): from the sum of ranks, and exact, since ranks are halves of whole numbers.
    """
    n_with = present.sum(axis=0, dtype=np.float64)[:, None]
    n_without = len(present) - n_with
    shows = present.T.astype(np.float64)
    starts = range(0, codes.shape[1], RANKED_AT_ONCE)
    sums = np.concatenate([shows @ rankdata(codes[:, i : i + RANKED_AT_ONCE], axis=0) for i in starts], axis=1)
    return np.asarray((sums - n_with * (n_with + 1) / 2) / (n_with * n_without))


def recovered(codes: Float32[ndarray, "tokens atoms"], present: Bool[ndarray, "tokens concepts"]) -> dict[str, Value]:
    """`concept_auc` and `concept_auc_unmatched` on these tokens."""
    n_concepts = present.shape[1]
    known = present.any(axis=0) & ~present.all(axis=0)
    finite = np.isfinite(codes).all(axis=0)
    said = f"on {len(present)} tokens"
    if not known.any() or not finite.any():
        what = "concept that some tokens show and others do not" if finite.any() else "atom whose codes are finite"
        null = Value.null(f"no {what}, {said}", n_excluded=n_concepts)
        return {"concept_auc": null, "concept_auc_unmatched": null}
    table = aucs(codes[:, finite], present[:, known])
    matched = table[linear_sum_assignment(table, maximize=True)]
    reasons = {
        f"{n_concepts - len(table)} concepts at none or all of them": n_concepts - len(table),
        f"{len(table) - len(matched)} concepts left without an atom": len(table) - len(matched),
        f"{(~finite).sum()} atoms with codes that are not finite left out": (~finite).sum(),
    }

    def value(numbers: Float64[ndarray, " concepts"]) -> Value:
        reason = ", ".join([said, *(why for why, n in reasons.items() if n)])
        return bootstrapped(numbers, "concepts", n_excluded=n_concepts - len(numbers), reason=reason)

    return {"concept_auc": value(matched), "concept_auc_unmatched": value(table.max(axis=1))}


def chance_of_purity(present: Bool[ndarray, "tokens concepts"], top_k: int) -> Value:
    """The purity of an atom whose top images are tokens at random; the interval is that of one such atom."""
    n = min(top_k, len(present))
    drawn = np.random.default_rng(SEED).integers(len(present), size=(N_RESAMPLES, n))
    shares = np.array([100 * present[tokens].sum(axis=0).max() / n for tokens in drawn])
    return Value(float(shares.mean()), *percentiles(shares), f"{N_RESAMPLES} draws of {n} tokens", len(present))


def unit_rows(rows: Float[Tensor, "rows width"]) -> Float64[Tensor, "rows width"]:
    """The rows at unit length, in float64 on the CPU; those of zeros, or with a number that is not finite, as zeros."""
    rows = rows.detach().cpu().double()
    norms = rows.norm(dim=1, keepdim=True)
    return torch.where((norms > 0) & norms.isfinite(), rows / norms, 0.0)


class PlantedParts:
    """`part_cosine`, `parts_found_ratio` and `parts_exact_share`, from the facts without a pass over the split.

    Args:
        facts: What is known; without a `truth` every value is null.
    """

    rows: ClassVar[tuple[MetricRow, ...]] = rows_of("metrics.ground_truth:PlantedParts")
    version: ClassVar[int] = 1
    passes: ClassVar[int] = 0

    def __init__(self, facts: EvaluationFacts) -> None:
        self._facts = facts

    def update(self, batch: EvaluationBatch, *, pass_index: int) -> None:
        """Nothing to take in."""

    def compute(self) -> Mapping[str, Value]:
        """One value per row; null where the parts of the units, or those of the method, are not known."""
        truth = self._facts.truth
        if truth is None:
            reason = "nobody knows of which parts the units of this site are made"
            return {row.name: Value.null(reason) for row in self.rows}
        return {"part_cosine": self._cosine(truth), **self._counts(truth)}

    def _cosine(self, truth: Truth) -> Value:
        """A part is looked for among the atoms of its own unit where the method splits units, else among all."""
        if "input" not in self._facts.dictionaries:
            return Value.null("the method's atoms are no directions among the inputs")
        parts, atoms = unit_rows(truth.parts), unit_rows(self._facts.dictionaries["input"])
        cosines, parents = parts @ atoms.T, self._facts.unit_of_atom
        if parents is not None:
            is_sibling = truth.unit_of_part.cpu()[:, None] == parents.cpu()
            # A unit without an atom has found nothing: 0, as for an atom that is orthogonal.
            cosines = cosines.where(is_sibling, -torch.inf).masked_fill(~is_sibling.any(dim=1, keepdim=True), 0)
        return bootstrapped(cosines.amax(dim=1).numpy(), "parts")

    def _counts(self, truth: Truth) -> dict[str, Value]:
        """Dead atoms count, as in `expansion_factor`."""
        parents = self._facts.unit_of_atom
        if parents is None:
            null = Value.null("the method does not split units")
            return {"parts_found_ratio": null, "parts_exact_share": null}
        planted = torch.bincount(truth.unit_of_part.cpu(), minlength=self._facts.n_units)
        found = torch.bincount(parents.cpu(), minlength=self._facts.n_units)
        made = planted > 0
        n_unknown = int((~made).sum())
        ratios = (found[made].double() / planted[made]).numpy()
        return {
            "parts_found_ratio": bootstrapped(ratios, "units", n_excluded=n_unknown),
            "parts_exact_share": proportion(int((found == planted)[made].sum()), int(made.sum()), "units"),
        }

"""Whether a method has the properties that it claims: Table 1 of the ELUDe paper, measured.

`Repeatability` has the method decompose the same activations once more with another seed; `Exactness` compares what
the network computes with the atoms in place with what it computed before, in the working dtype and in float64, where
a lossy method stays lossy and a lossless one differs by the last digits only.
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from metrics.catalogue import MetricRow, Value, rows_of
from metrics.protocol import EvaluationBatch, EvaluationFacts
from metrics.similarity import Dictionary, similarity

N_IMAGES = 256
"""Images that the differences are taken over: a claim of exactness that holds for these holds for any."""


class Repeatability:
    """`seed_similarity`, `gradient_steps` and `runs_without_labels`, without a pass over the split.

    Steps are counted at torch's optimizers; a method that moves its parameters by hand would go unseen.
    """

    rows: ClassVar[tuple[MetricRow, ...]] = rows_of("metrics.properties:Repeatability")
    version: ClassVar[int] = 1
    passes: ClassVar[int] = 0
    runs_apart: ClassVar[bool] = True

    def __init__(self, facts: EvaluationFacts) -> None:
        self._stopped: str | None = None
        try:
            again = facts.again()
        except (ValueError, ArithmeticError, LookupError, RuntimeError) as error:
            self._stopped = " ".join(f"decomposing again failed: {error}".split())
            return
        self._alike = Value.null("the method gives no dictionary to compare two runs by; add one")
        if again.dictionary is not None and again.dictionary_again is not None:
            parents = facts.unit_of_atom
            parents = None if parents is None else parents.to(again.dictionary.device)
            one = Dictionary(again.dictionary, parents)
            self._alike = similarity(one, Dictionary(again.dictionary_again, again.unit_of_atom_again))
        self._steps = again.gradient_steps
        self._needs_labels = again.needs_labels

    def update(self, batch: EvaluationBatch, *, pass_index: int) -> None:
        """Nothing to take in."""

    def compute(self) -> Mapping[str, Value]:
        """The three values; null similarity where there are no directions to compare."""
        if self._stopped is not None:
            return {row.name: Value.null(self._stopped) for row in self.rows}
        stopped = f"with labels withheld: {self._needs_labels}" if self._needs_labels else None
        without = Value(0.0 if stopped else 1.0, None, None, "exact", 1, reason=stopped)
        return {
            "seed_similarity": self._alike,
            "gradient_steps": Value.exact(float(self._steps), n=1),
            "runs_without_labels": without,
        }


class Exactness:
    """`runs_in_place`, the differences of outputs and logits, and their scales, over the first `N_IMAGES` images.

    Virtual units replace nothing: the network stays as it is, and its differences are null.
    """

    rows: ClassVar[tuple[MetricRow, ...]] = rows_of("metrics.properties:Exactness")
    version: ClassVar[int] = 1
    passes: ClassVar[int] = 1

    def __init__(self, facts: EvaluationFacts) -> None:
        self._is_explicit = facts.is_explicit
        self._n_images = 0
        self._largest: dict[str, float] = {}

    def update(self, batch: EvaluationBatch, *, pass_index: int) -> None:
        """Keep the largest absolute differences; nothing is computed once enough images were seen."""
        n = min(len(batch.images), N_IMAGES - self._n_images)
        if n <= 0:
            return
        self._n_images += n
        outputs, logits = batch.outputs[:n], batch.logits[:n]
        self._keep("largest_output", outputs)
        self._keep("largest_logit", logits)
        if not self._is_explicit:
            return
        self._keep("output_difference", batch.reconstruction[:n].double() - outputs.double())
        self._keep("logit_difference", batch.in_place_logits[:n].double() - logits.double())
        precise = batch.in_float64
        self._keep("output_difference_float64", precise.reconstruction[:n] - precise.outputs[:n])
        self._keep("logit_difference_float64", precise.in_place_logits[:n] - precise.logits[:n])

    def _keep(self, name: str, numbers: Tensor) -> None:
        largest, before = float(numbers.double().abs().max()), self._largest.get(name, 0.0)
        # A difference that is no number, now or before, must stay one: max() would lose it.
        self._largest[name] = max(largest, before) if largest >= 0 and before >= 0 else float("inf")

    def compute(self) -> Mapping[str, Value]:
        """All values; null where the split is empty or numbers are not finite."""
        if self._n_images == 0:
            return {row.name: Value.null("no images") for row in self.rows}
        values = {name: self._value(largest) for name, largest in self._largest.items()}
        if not self._is_explicit:
            reason = "virtual units: the network stays as it is"
            in_place = Value(0.0, None, None, "exact", self._n_images, reason=reason)
            nothing = Value.null(f"{reason} and nothing is rebuilt from the codes")
            return {row.name: values.get(row.name, nothing) for row in self.rows} | {"runs_in_place": in_place}
        changed = values["logit_difference"]
        is_finite = changed.value is not None
        return values | {"runs_in_place": Value.exact(1.0, n=self._n_images) if is_finite else changed}

    def _value(self, largest: float) -> Value:
        """The number over all images looked at; null where it is none."""
        if largest < float("inf"):
            return Value.exact(largest, n=self._n_images)
        return Value.null("numbers that are not finite", n_excluded=self._n_images)

"""What a metric is: rows in a catalogue, an update per batch, and values with intervals at the end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

# Not typing's: before Python 3.12 its isinstance computes every property, and a batch's are dear.
from typing_extensions import Protocol, runtime_checkable

from metrics.catalogue import MetricRow, Value
from metrics.codes import CodeSummary

T = TypeVar("T")


@runtime_checkable
class Rerun(Protocol):
    """What came of decomposing the same activations once more, with another seed."""

    @property
    def dictionary(self) -> Float[Tensor, "atoms width"] | None:
        """The atoms of the evaluated decomposition as directions; None where the method gives none."""
        ...

    @property
    def dictionary_again(self) -> Float[Tensor, "atoms_again width"] | None:
        """The atoms of the second decomposition as directions; None where the method gives none."""
        ...

    @property
    def unit_of_atom_again(self) -> Int[Tensor, " atoms_again"] | None:
        """The unit each atom of the second is part of, for methods that split units."""
        ...

    @property
    def gradient_steps(self) -> int:
        """Steps that optimizers took in the second decomposition."""
        ...

    @property
    def needs_labels(self) -> str | None:
        """How the method stopped where labels were withheld from it; None where it ran."""
        ...


@runtime_checkable
class EvaluationBatch(Protocol):
    """A few images of the evaluation split at one site, under one decomposition.

    Everything is computed when it is first asked for, so a metric pays only for what it reads. Tokens that are
    registers are already left out of `codes`, `outputs` and `reconstruction`; CLS and patch tokens are in.

    `images` is on the processor, everything else on one device, the backbone's. All floating-point numbers are float32
    (float64 under `in_float64`), whatever the precision of the forward pass; what is summed over the split is summed in
    float64 (which MPS does not have).

    From the second pass on nothing but `images`, `labels` and `outputs` exists: the backbone does not run again.
    """

    @property
    def images(self) -> Int[Tensor, " images"]:
        """Index of each image in the evaluation split, ascending over the pass."""
        ...

    @property
    def labels(self) -> Int[Tensor, " images"] | None:
        """True class of each image; None where the data set has no labels."""
        ...

    @property
    def outputs(self) -> Float[Tensor, "images tokens units"]:
        """Activations of the untouched site."""
        ...

    @property
    def codes(self) -> Float[Tensor, "images tokens atoms"]:
        """Value of every atom for every token."""
        ...

    @property
    def summary(self) -> CodeSummary:
        """Each image's extremes of every atom's code, which several metrics read; made in one go over the codes."""
        ...

    @property
    def reconstruction(self) -> Float[Tensor, "images tokens units"]:
        """Outputs rebuilt from the codes."""
        ...

    @property
    def logits(self) -> Float[Tensor, "images classes"]:
        """Logits of the untouched backbone."""
        ...

    @property
    def replaced_logits(self) -> Float[Tensor, "images classes"]:
        """Logits with the site's outputs replaced by the reconstruction."""
        ...

    @property
    def in_place_logits(self) -> Float[Tensor, "images classes"]:
        """Logits of the network in which the method's own layer stands in place of the site's, where it has one."""
        ...

    @property
    def embeddings(self) -> Float[Tensor, "images width"]:
        """What another network than the backbone, named by the suite, makes of each image; not of unit length."""
        ...

    @property
    def concepts(self) -> Bool[Tensor, "images tokens concepts"]:
        """Which of the known concepts are present at each token; of data sets that plant them."""
        ...

    def of_site(self, make: Callable[["EvaluationBatch"], T]) -> T:
        """What `make` gives for what is the same for all methods, computed once for those evaluated side by side.

        Args:
            make: Reads nothing but `images`, `labels`, `outputs`, `logits`, `embeddings` and `concepts`.
        """
        ...

    @property
    def in_float64(self) -> "EvaluationBatch":
        """The same images, with the backbone and the decomposition in float64."""
        ...


@runtime_checkable
class EvaluationFacts(Protocol):
    """What is known before the first batch."""

    @property
    def n_images(self) -> int:
        """Images in the evaluation split."""
        ...

    @property
    def n_units(self) -> int:
        """Units of the site."""
        ...

    @property
    def n_atoms(self) -> int:
        """Atoms of the decomposition."""
        ...

    @property
    def unit_of_atom(self) -> Int[Tensor, " atoms"] | None:
        """The unit each atom is part of, for methods that split units."""
        ...

    @property
    def codes_are_nonnegative(self) -> bool:
        """Whether codes cannot be negative by construction, so that zero means inactive (SAEs)."""
        ...

    @property
    def dictionaries(self) -> Mapping[str, Float[Tensor, "atoms width"]]:
        """The atoms as directions, one row each: "output" in the space of the site's outputs, "input" of its inputs.

        Those that the method has, made anew each time; none for methods whose atoms are no directions.
        """
        ...

    @property
    def truth(self) -> "Truth | None":
        """What is known of how the site was made; None where nothing is."""
        ...

    @property
    def is_explicit(self) -> bool:
        """Whether the atoms can stand in the network; virtual units stand beside it and replace nothing."""
        ...

    def again(self) -> Rerun:
        """What a second decomposition with another seed gives; as dear as the first, made once, when first asked."""
        ...

    def timings(self) -> "Mapping[str, Timing]":
        """What the network takes as it is and with the method in it, in each of the ways there are; made when asked.

        "backbone" is the untouched network, timed beside the others on the same machine.
        """
        ...


@runtime_checkable
class Truth(Protocol):
    """A site whose units were made of known parts."""

    @property
    def names(self) -> tuple[str, ...]:
        """The concepts, by name, in the order of `EvaluationBatch.concepts`."""
        ...

    @property
    def parts(self) -> Float[Tensor, "parts d_in"]:
        """The kernel rows of the parts that were planted: those of one unit sum to its kernel row."""
        ...

    @property
    def unit_of_part(self) -> Int[Tensor, " parts"]:
        """The unit that each part is of."""
        ...

    @property
    def concept_of_part(self) -> Int[Tensor, " parts"]:
        """The concept that each part answers to."""
        ...


@runtime_checkable
class Timing(Protocol):
    """How long one way of running the network took, batch by batch."""

    @property
    def milliseconds(self) -> tuple[float, ...]:
        """Of each timed batch."""
        ...

    @property
    def peak_bytes(self) -> int | None:
        """Most memory that was allocated on the GPU meanwhile; None where torch does not count it."""
        ...


@runtime_checkable
class Learner(Protocol):
    """A metric that also looks at images of the probing split, before the passes over the evaluation split.

    Attributes:
        n_training_images: How many of them at most, drawn at random with a fixed seed.
    """

    n_training_images: ClassVar[int]

    def learn(self, batch: EvaluationBatch) -> None:
        """Take in one batch of the probing split; `images` are its rows there."""
        ...


@dataclass(frozen=True, eq=False)
class Scores:
    """One number per atom.

    Attributes:
        values: In the unit of the row that they are averaged to; of no meaning for atoms that are left out.
        is_scored: Whether the atom has one.
    """

    values: Float64[Tensor, " atoms"]
    is_scored: Bool[Tensor, " atoms"]


@runtime_checkable
class AtomScorer(Protocol):
    """A metric that can say of each atom what it says of all: people look at single ones."""

    def atom_scores(self) -> Mapping[str, Scores]:
        """The numbers of every atom after `compute`, on the processor, by the name of the row they are averaged to."""
        ...


@runtime_checkable
class Metric(Protocol):
    """One streamed computation that yields one or more catalogue rows.

    Attributes:
        rows: The catalogue rows that `compute` fills, by name.
        version: Raised whenever the same codes would give other values than before.
        passes: How many times the evaluation split is streamed through `update`: 1 or 2; 0 where the facts are enough.

    A metric that measures time says so with a class attribute `runs_alone = True`: nothing else runs meanwhile. One
    that asks for a second decomposition says `runs_apart = True`: methods are then evaluated each by itself.
    """

    rows: ClassVar[tuple[MetricRow, ...]]
    version: ClassVar[int]
    passes: ClassVar[int]

    def __init__(self, facts: EvaluationFacts) -> None: ...

    def update(self, batch: EvaluationBatch, *, pass_index: int) -> None:
        """Take in one batch; `pass_index` counts from 0."""
        ...

    def compute(self) -> Mapping[str, Value]:
        """One value per row, null with a reason where there is none."""
        ...

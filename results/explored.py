"""What one can look at in a run beside its numbers: units, their parts, what drives them, and pairs that were judged.

These are the data behind galleries and the report's explorer, without torch and without the cache that they were made
from. An atom of a method that splits units is a part of one; an atom of any other method stands by itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Pictures:
    """Images of one site's evaluation split, each once, small.

    Attributes:
        site: Label of the site.
        files: PNG or JPEG files by index into the evaluation split.
        captions: What is known of an image, its class say, by the same index.
        grid: Patches of an image from top to bottom and from left to right; None where tokens have no places.
        n_prefix: Tokens before the patch tokens (CLS).
        licence: Of the images.
        is_embedded: Whether the data set ships with the program, so that its images may be shown to anybody.
    """

    site: str
    files: Mapping[int, bytes]
    captions: Mapping[int, str] = field(default_factory=dict)
    grid: tuple[int, int] | None = None
    n_prefix: int = 0
    licence: str = "not stated"
    is_embedded: bool = False

    def place_of(self, position: int) -> tuple[int, int] | None:
        """Row and column of a token's patch in the grid; None of a token that is no patch, and where there is no grid.

        Args:
            position: As in `Atom.positions`.
        """
        patch = position - self.n_prefix
        if self.grid is None or not 0 <= patch < self.grid[0] * self.grid[1]:
            return None
        return divmod(patch, self.grid[1])


@dataclass(frozen=True)
class Atom:
    """One element of a decomposition, as far as one can look at it.

    Attributes:
        index: In the decomposition; of a whole unit, the unit.
        images: Indices into the evaluation split, those that drive it most first.
        positions: The token of the largest code in each, CLS first, registers left out.
        codes: That code.
        scores: What metrics say of it alone, by metric name; None where a metric leaves it out.
        n_members: Instances in the cluster that it was made of; None for methods without clusters.
        inputs: Dimensions of the site's inputs with the largest weight in it, and that weight, largest first.
        n_inputs: How many dimensions it has weight on; None for methods that are not about inputs.
    """

    index: int
    images: tuple[int, ...]
    positions: tuple[int, ...]
    codes: tuple[float, ...]
    scores: Mapping[str, float | None] = field(default_factory=dict)
    n_members: int | None = None
    inputs: tuple[tuple[int, float], ...] = ()
    n_inputs: int | None = None


@dataclass(frozen=True)
class Unit:
    """A unit and the parts that a method splits it into; of a method that splits none, an atom by itself.

    Attributes:
        index: The unit; None where the atom belongs to none.
        whole: The unit itself, as the backbone has it; None where there is none or it was not looked at.
        parts: Its parts.
    """

    index: int | None
    whole: Atom | None
    parts: tuple[Atom, ...]


@dataclass(frozen=True)
class Explored:
    """One method at one site under one pair of seeds.

    Attributes:
        site: Label of the site.
        label: Label of the method.
        method: Its name in the registry.
        token_seed: Of the cell.
        init_seed: Of the cell.
        units: Those that are shown, in order.
        n_units: How many there are to show, shown or not.
        n_atoms: How many atoms the decomposition has.
        left_out: How those that are shown were chosen, and what is not there and why; empty where all are.
    """

    site: str
    label: str
    method: str
    token_seed: int
    init_seed: int
    units: tuple[Unit, ...]
    n_units: int
    n_atoms: int
    left_out: str = ""


@dataclass(frozen=True)
class Reply:
    """What one judge said of one presentation.

    Attributes:
        judge: Its name.
        choice: "A", "B", or None where its reply names neither.
        reasoning_a: What it said of the first grid.
        reasoning_b: What it said of the second.
        text: The reply as it came, whatever is in it.
    """

    judge: str
    choice: str | None
    reasoning_a: str
    reasoning_b: str
    text: str


@dataclass(frozen=True)
class Shown:
    """One grid of a presentation.

    Attributes:
        label: Label of the method, or what a planted grid is.
        atom: Index of the atom; None of a planted one.
        images: Indices into the evaluation split, in the order of the grid.
    """

    label: str
    atom: int | None
    images: tuple[int, ...]


@dataclass(frozen=True)
class Judged:
    """One presentation with all replies.

    Attributes:
        site: Label of the site.
        panel: Name of the panel.
        kind: "llm_panel" or "proxy_panel".
        id: Of the presentation.
        token_seed: Of the pair.
        first: Grid A.
        second: Grid B.
        replies: Of each judge that was asked.
        consensus: "A", "B", or None where no majority chose.
        rung: Which kind of planted pair it is; empty of a pair of methods.
        right: "A" or "B" where somebody knows the right answer, None where nobody does or neither is right.
    """

    site: str
    panel: str
    kind: str
    id: str
    token_seed: int
    first: Shown
    second: Shown
    replies: tuple[Reply, ...]
    consensus: str | None
    rung: str = ""
    right: str | None = None

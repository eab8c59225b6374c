"""What a judge is, what it is asked and what it answers: the words that every other file of this package speaks.

Bağcı et al. 2026, appendix B.1: two grids of nine exemplars, one question, one answer. A `Presentation` shows the grids
of one unit pair in one order; a judge's raw `Reply` is read into a `Verdict` (`judges.reading`); verdicts become votes
(`judges.votes`), and votes become win rates (`judges.ranking`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

Choice = Literal["A", "B", "none"]
JudgeKind = Literal["vlm", "proxy", "scripted"]
Attempt = Literal["first", "longer", "schema"]

PROMPT = """\
Each grid shows the 9 images that most strongly activate a neural network unit.

A COHERENT unit captures a single, nameable concept: most images share a common object category, object part, color, \
texture, material, shape, or other visual or semantic attribute.

An INCOHERENT unit shows images with no discernible shared property.

Grid A = first image. Grid B = second image.

Describe what concept each grid captures (or why it seems incoherent), then state which is more coherent.

Respond as JSON only:

{"reasoning_a": "...", "reasoning_b": "...", "answer": "A" or "B"}"""
"""The paper's prompt, the same for every judge (B.1)."""


@dataclass(frozen=True)
class Settings:
    """How methods are compared; the defaults are this project's, `PAPER` has those of appendix B.1.

    Attributes:
        unit_pairs: Unit pairs of each method pair and token seed.
        cell_px: Side of one cell of a grid, in pixels.
        eligible: "nine" leaves out units that fewer than nine images drive; "any" leaves out none.
        bootstrap: What is resampled: unit pairs, with both orders and all judges together, or single presentations.
        n_resamples: Resamples of the bootstrap.
        undecided: A presentation without a majority is dropped, or half a win for each side.
        reask: Ask once more with more tokens, then with a JSON schema, where a reply cannot be read.
        planted: Planted pairs of each rung, mixed among the real ones; 0 plants none.
        seed: Seed of all that is drawn.
    """

    unit_pairs: int = 50
    cell_px: int = 336
    eligible: Literal["nine", "any"] = "nine"
    bootstrap: Literal["unit_pair", "presentation"] = "unit_pair"
    n_resamples: int = 1000
    undecided: Literal["drop", "half"] = "drop"
    reask: bool = True
    planted: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("unit_pairs", 1), ("cell_px", 8), ("n_resamples", 1), ("planted", 0), ("seed", 0)):
            if getattr(self, name) < least:
                got = getattr(self, name)
                raise ValueError(f"{name}: received {got}; expected at least {least}; give {name} a larger value")


PAPER = Settings(bootstrap="presentation", reask=False, planted=0)


@dataclass(frozen=True)
class Presentation:
    """Two grids in one order.

    Attributes:
        id: Hash of all else that is here; what replies are kept under.
        comparison: Hash of the unit pair; both orders of it share this.
        methods: Ids of the methods of the first grid (A) and the second (B); empty for planted pairs.
        units: The unit of each, an index into its method's atoms; -1 for planted pairs.
        grids: Digests of the two grids in the order in which they are shown.
        site: Label of the site; planted pairs are of a site too.
        token_seed: Seed of the token data set; -1 for planted pairs.
        order: 0 for the order in which the pair was drawn, 1 for the swapped one.
        rung: Which kind of planted pair it is; empty for real ones.
        expected: The answer that is right for a planted pair; "none" where neither is, and for real ones.
    """

    id: str
    comparison: str
    methods: tuple[str, str]
    units: tuple[int, int]
    grids: tuple[str, str]
    site: str
    token_seed: int
    order: Literal[0, 1]
    rung: str = ""
    expected: Choice = "none"


@dataclass(frozen=True)
class Reply:
    """The raw answer to one request.

    Attributes:
        text: What came back, to the letter.
        attempt: Which of the requests it answers: the protocol's own, one with more tokens, one with a JSON schema.
        finish_reason: Why the judge stopped, in the server's word: "stop", "length", ...; None where it did not say.
        prompt_tokens: Tokens of the request as the server counts them; None where it did not say.
        cached_tokens: How many of them it had in its cache; None where it did not say.
        completion_tokens: Tokens of the reply; None where it did not say.
        seconds: From sending to the last byte.
    """

    text: str
    attempt: Attempt = "first"
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """What a reply says.

    Attributes:
        choice: The grid that is more coherent, or "none" where the reply names neither.
        rung: Which step of the reading ladder found it: "json", "embedded", "cut" or "invalid".
    """

    choice: Choice
    rung: Literal["json", "embedded", "cut", "invalid"]


@runtime_checkable
class Judge(Protocol):
    """Looks at two grids and says which one shows a single concept more clearly.

    One with options is a `Claimant` too, so that a change of them is noticed even where nothing is left to ask.
    """

    @property
    def name(self) -> str:
        """What people call it; names its replies."""
        ...

    @property
    def kind(self) -> JudgeKind:
        """A vision-language model, a proxy computed from pixels, or a script for tests."""
        ...

    @property
    def n_at_once(self) -> int:
        """Presentations that it is asked at the same time."""
        ...

    async def prepare(self) -> Mapping[str, Any]:
        """Make ready, and say all that the replies follow from: model, revision, server, flags; JSON values.

        Raises:
            JudgeError: It cannot judge; told before any presentation is asked.
        """
        ...

    async def compare(self, grid_a: bytes, grid_b: bytes) -> tuple[Reply, ...]:
        """The replies to one presentation, PNG by PNG; the last one counts, earlier ones could not be read.

        Raises:
            JudgeError: It cannot be asked any more.
        """
        ...


@runtime_checkable
class Claimant(Protocol):
    """A judge that can say without asking anybody what its replies follow from, as far as it knows."""

    def claims(self) -> Mapping[str, Any]:
        """The part of what `prepare` says that needs no server: its options and versions; JSON values."""
        ...


def claims_of(judge: Judge) -> dict[str, Any]:
    """What a judge says of itself without asking anybody: at least its name and kind."""
    said = judge.claims() if isinstance(judge, Claimant) else {}
    return {**said, "name": judge.name, "kind": judge.kind}


class JudgeError(Exception):
    """A judge cannot be used: says which, what came back, what was expected and the next step."""

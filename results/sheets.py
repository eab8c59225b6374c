"""A table between its numbers and its format: what stands where, marked how, with which notes.

Pure functions make a `Sheet` of a specification and what was measured; Markdown, LaTeX and HTML are written from it and
decide nothing but how it looks. Texts are plain: whoever writes a format escapes them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from string import ascii_lowercase
from typing import Literal

from results.layout import Site

DASH = "\u2014"
ABSENT = "\u2013"
"""What stands for a figure that the paper does not print, beside one that it does."""

Mark = Literal["", "best", "second", "reference", "strong", "code"]
"""How a text is set off; what is "strong" is bold without being the best of anything."""
Notes = dict[str, str]
"""The letter of every footnote, by its text, in the order in which they were first needed."""


@dataclass(frozen=True)
class Span:
    """Some words that are set off together.

    Attributes:
        text: The words.
        mark: How they are set off.
    """

    text: str
    mark: Mark = ""


Words = tuple[Span, ...]


@dataclass(frozen=True)
class Heading:
    """What stands above a column of numbers.

    Attributes:
        text: The words, with a percent sign where that is the unit.
        arrow: Which way is better.
        group: Words above this column and its neighbours of the same group; empty above none.
        notes: Letters of its footnotes.
        is_published: Whether the column holds figures of the paper.
    """

    text: str
    arrow: Literal["up", "down", "none"] = "none"
    group: str = ""
    notes: tuple[str, ...] = ()
    is_published: bool = False


@dataclass(frozen=True)
class Cell:
    """What stands in one place.

    Attributes:
        text: The number as it is shown, with its spread or its interval; a dash where there is none; never words that
            came from outside.
        mark: How the text is set off.
        before: What stands before it, not set off.
        notes: Letters of its footnotes.
        value: The number at full precision, None where there is none.
        published: The paper's figure, where it stands in the same cell; empty where it does not.
        difference: By how much ours is larger; empty where one of the two is missing.
    """

    text: str = ""
    mark: Mark = ""
    before: str = ""
    notes: tuple[str, ...] = ()
    value: float | None = None
    published: str = ""
    difference: str = ""

    @property
    def beside(self) -> str:
        """The paper's figure and the difference in brackets, after the number; empty where there is none."""
        told = ", ".join(one for one in (f"paper {self.published}", self.difference) if one)
        return f" ({told})" if self.published else ""


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        words: What it is called, under the last headings of words: the method, and more where there is more.
        cells: Its numbers.
        label: Label of the method in the suite, or key of the row in the paper's file.
        is_reference: Whether it is there to compare with, never ranked.
        site: What it was measured at; None where nobody measured.
        expansion: Atoms for each unit; None where that is not known.
    """

    words: tuple[str, ...]
    cells: tuple[Cell, ...]
    label: str
    is_reference: bool = False
    site: Site | None = None
    expansion: float | None = None


@dataclass(frozen=True)
class Group:
    """Rows that are ranked together.

    Attributes:
        names: What they have in common, under the first headings of words.
        rows: The rows.
    """

    names: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Sheet:
    """A table that is only to be written down.

    Attributes:
        name: Name of the table.
        caption: What the numbers are and what the marks mean.
        words: Headings of the columns of words: of the groups' names, then of the rows'.
        headings: Headings of the columns of numbers.
        groups: The rows.
        warnings: What has to be read before the numbers.
        remarks: What is said below the table.
        footnotes: The footnotes, by letter.
    """

    name: str
    caption: Words
    words: tuple[str, ...]
    headings: tuple[Heading, ...]
    groups: tuple[Group, ...]
    warnings: tuple[str, ...] = ()
    remarks: tuple[Words, ...] = ()
    footnotes: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_groups(self) -> bool:
        """Whether words stand above several headings."""
        return any(heading.group for heading in self.headings)

    def banner(self) -> str:
        """The warnings in one sentence after another; empty where there are none."""
        return f"Warning: these are no results. {'. '.join(self.warnings)}." if self.warnings else ""


def spans(text: str) -> Words:
    """Words of our own, in which what stands between backticks is code."""
    parts = text.split("`")
    return tuple(Span(part, "code" if at % 2 else "") for at, part in enumerate(parts) if part)


def noted(text: str, notes: Notes) -> tuple[str, ...]:
    """The letter of a footnote of that text, which is added if it is new; none for an empty text."""
    return (notes.setdefault(text, letters(len(notes))),) if text else ()


def letters(index: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    head, last = divmod(index, 26)
    return (letters(head - 1) if head else "") + ascii_lowercase[last]


def by_letter(notes: Notes) -> dict[str, str]:
    """The footnotes as a sheet has them."""
    return {letter: text for text, letter in notes.items()}


def grouped(rows: Iterable[tuple[tuple[str, ...], Row]]) -> tuple[Group, ...]:
    """The rows under their groups' names, in the order in which the names first come."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for names, row in rows:
        found.setdefault(names, []).append(row)
    return tuple(Group(names, tuple(own)) for names, own in found.items())

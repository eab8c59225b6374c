"""A sheet as GitHub markdown whose columns line up, so that it also reads well in a terminal."""

import re
from collections.abc import Sequence
from typing import Final

from results.sheets import Cell, Heading, Mark, Row, Sheet, Words

_ARROWS: Final = {"up": " ↑", "down": " ↓", "none": ""}
_MARKS: Final[dict[Mark, str]] = {
    "": "", "best": "**", "second": "<u>", "reference": "*", "strong": "**", "code": "`"
}  # fmt: skip


def to_markdown(sheet: Sheet) -> str:
    """Warnings, caption, table, remarks and footnotes; ends with a line end."""
    lines = [[*map(escape, sheet.words), *map(_heading, sheet.headings)]]
    n_names = max((len(group.names) for group in sheet.groups), default=0)
    last: tuple[str, ...] = ()
    for group in sheet.groups:
        names = tuple("" if group.names[: at + 1] == last[: at + 1] else name for at, name in enumerate(group.names))
        for at, row in enumerate(group.rows):
            lines.append([*(map(escape, names) if at == 0 else [""] * n_names), *_row(row)])
        last = group.names
    below = [f"- {_words(one)}" for one in sheet.remarks]
    below += [f"- ({letter}) {escape(text)}" for letter, text in sheet.footnotes.items()]
    table = aligned(lines, n_words=len(sheet.words))
    banner = [f"**{escape(sheet.banner())}**", ""] if sheet.warnings else []
    return "\n".join([*banner, _words(sheet.caption), "", *table, *([""] if below else []), *below]) + "\n"


def _heading(heading: Heading) -> str:
    """The words above a column, after those of its group, with the arrow."""
    group = f"{heading.group}: " if heading.group else ""
    return f"{escape(group + heading.text)}{_ARROWS[heading.arrow]}{_letters(heading.notes)}"


def _row(row: Row) -> list[str]:
    """What the row is called, the last word in italics where it is a reference, and its cells."""
    words = [escape(word) for word in row.words]
    words[:1] = [set_off(words[0], _MARKS["reference"] if row.is_reference else "")]
    return [*words, *map(_cell, row.cells)]


def _cell(cell: Cell) -> str:
    """One number with its mark, the letters of its footnotes and the paper's figure."""
    return f"{cell.before}{set_off(cell.text, _MARKS[cell.mark])}{_letters(cell.notes)}{cell.beside}"


def _letters(notes: Sequence[str]) -> str:
    """References to footnotes."""
    return "".join(f" ({letter})" for letter in notes)


def _words(words: Words) -> str:
    """Words as markdown; code stands as it is."""
    return "".join(set_off(one.text if one.mark == "code" else _escaped(one.text), _MARKS[one.mark]) for one in words)


def set_off(text: str, mark: str) -> str:
    """The text between the mark and its counterpart."""
    return f"{mark}{text}{mark.replace('<', '</')}" if text else ""


def aligned(lines: Sequence[Sequence[str]], n_words: int = 2) -> list[str]:
    """The lines of the markdown table, heading first; the first columns hold words, to the left, the rest numbers."""
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]  # GitHub wants a hyphen beside a colon

    def row(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if index < n_words else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if index < n_words else "-" * (width - 1) + ":" for index, width in enumerate(widths)]
    return [row(lines[0]), row(rule), *map(row, lines[1:])]


def escape(text: str) -> str:
    """The text in one line, without anything that markdown would read as its own."""
    return _escaped(" ".join(text.split()))


def _escaped(text: str) -> str:
    """The same of words whose spaces at the ends count."""
    plain = re.sub(r"\s", " ", text).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"[\\`*|\[\]]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", plain)

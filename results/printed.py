"""The paper's tables as the paper prints them, made of `results/published` alone.

Numbers stand as they are printed, digit for digit. Marks follow our one rule; where the paper's own differ from it, a
remark below the table says so.
"""

from collections.abc import Mapping, Sequence

from results import published
from results.digits import ranked
from results.layout import PaperForm, Printed
from results.sheets import (
    DASH,
    Cell,
    Group,
    Heading,
    Mark,
    Notes,
    Row,
    Sheet,
    Span,
    Words,
    by_letter,
    noted,
)

MARKS = "marks.csv"
"""Name of the file with the paper's own marks."""
_PRINTED: Mapping[Mark, str] = {"best": "bold", "second": "underlined"}
_RULE: Words = (
    Span(" Marks are ours; per group of rows, by the numbers as printed: "),
    Span("best", "best"),
    Span(", "),
    Span("second best", "second"),
    Span("; "),
    Span("references", "reference"),
    Span(" are not ranked."),
)

_Entries = Mapping[str, str]
_Place = tuple[tuple[str, ...], str, str]
"""The entries that tell a group apart, key of the row, column of the file."""


def printed_sheet(form: PaperForm, name: str) -> Sheet:
    """One of the paper's tables, of the numbers that it prints and nothing else."""
    notes: Notes = {}
    headings = tuple(Heading(one.heading, one.direction, one.group, noted(one.note, notes)) for one in form.columns)
    groups = _groups(form)
    marks = _marks(form, groups)
    found = []
    for entries, rows in groups.items():
        of_group = tuple(
            Row(
                words=(published.row_name(form, row[form.key], dict(zip(form.by, entries, strict=True))),),
                cells=tuple(_cell(form, one, row, marks.get((entries, row[form.key], one.column), ""), notes)
                            for one in form.columns),
                label=row[form.key],
                is_reference=row[form.key] == published.BACKBONE,
            )
            for row in rows
        )  # fmt: skip
        names = (form.name(entries[0]),) if entries else (form.model,) if form.model else ()
        found.append(Group(names, of_group))
    is_marked = any(one.direction != "none" for one in form.columns)
    caption = Span(f"{form.title}: Table {form.number} of Bağcı et al. 2026 as printed, from `{form.file}`.")
    return Sheet(
        name=name,
        caption=(*_code(caption.text), *(_RULE if is_marked else ())),
        words=form.words,
        headings=headings,
        groups=tuple(found),
        remarks=tuple((Span(one),) for one in (*form.remarks, *_differences(form, marks))),
        footnotes=by_letter(notes),
    )


def _code(text: str) -> Words:
    """Words with a file's name between backticks."""
    before, name, after = text.split("`")
    return Span(before), Span(name, "code"), Span(after)


def _groups(form: PaperForm) -> dict[tuple[str, ...], list[_Entries]]:
    """The rows of the file by what tells their groups apart, in the file's order."""
    found: dict[tuple[str, ...], list[_Entries]] = {}
    for row in published.rows_of(form.file):
        found.setdefault(tuple(row[name] for name in form.by), []).append(row)
    return found


def _cell(form: PaperForm, column: Printed, row: _Entries, mark: Mark, notes: Notes) -> Cell:
    """What the paper prints in one place."""
    if column.ends:
        low, high = (row[end] for end in column.ends)
        return Cell(f"[{low}, {high}]")
    text, spread = row[column.column], row[column.spread] if column.spread else ""
    if not text:
        return Cell(DASH, notes=noted("the paper prints none", notes))
    is_reference = row[form.key] == published.BACKBONE and column.direction != "none"
    return Cell(
        form.name(text) + (f" ± {spread}" if spread else ""), "reference" if is_reference else mark, value=_number(text)
    )


def _number(text: str) -> float | None:
    """The number that a text is; None where it is none."""
    try:
        return float(text)
    except ValueError:
        return None


def _marks(form: PaperForm, groups: Mapping[tuple[str, ...], Sequence[_Entries]]) -> dict[_Place, Mark]:
    """What our rule marks."""
    found: dict[_Place, Mark] = {}
    for entries, rows in groups.items():
        for column in form.columns:
            values = {
                row[form.key]: float(row[column.column])
                for row in rows
                if column.direction != "none" and row[form.key] != published.BACKBONE and row[column.column]
            }
            marks = ranked(values, column.direction)
            found |= {(entries, key, column.column): mark for key, mark in marks.items()}
    return found


def _differences(form: PaperForm, marks: Mapping[_Place, Mark]) -> list[str]:
    """Where the paper's own marks are others than ours, in one sentence after another; nothing where they are none."""
    theirs = {
        (row["group"], row["row"], row["column"]): row["mark"]
        for row in published.rows_of(MARKS)
        if row["table"] == str(form.number)
    }
    if not theirs:
        return []
    ours = {(entries[-1] if entries else "", *rest): _PRINTED[mark] for (entries, *rest), mark in marks.items()}
    headings = {one.column: one.heading for one in form.columns}

    def told(place: tuple[str, str, str]) -> str:
        group, row, column = place
        return f"{form.name(row)}, {headings[column]}{f', {form.name(group)}' if group else ''}"

    said = []
    for mark, meaning in (("bold", "the best"), ("underlined", "the second best")):
        wrong = [told(place) for place, one in theirs.items() if one == mark and ours.get(place) != mark]
        if wrong:
            said.append(f"{mark} there without being {meaning}: {'; '.join(wrong)}.")
        missing = sum(one == mark and place not in theirs for place, one in ours.items())
        if missing:
            said.append(f"not marked there although {meaning}: {missing} number{'s' if missing > 1 else ''}.")
    return (
        [f"The paper's own marks, in the text of it that we have, differ from these. {_sentences(said)}"]
        if said
        else []
    )


def _sentences(texts: Sequence[str]) -> str:
    """The texts with capitals."""
    return " ".join(text[0].upper() + text[1:] for text in texts)

"""A sheet as a fragment of a page: warnings, a table with its caption, and a list of what is to be said below it.

Everything is escaped. Rows and cells carry what they stand for as data, so that a page can sort and filter them.
"""

from collections.abc import Sequence
from html import escape
from itertools import groupby, zip_longest
from typing import Final

from results.sheets import Cell, Group, Heading, Mark, Row, Sheet, Words

_TAGS: Final[dict[Mark, str]] = {"best": "strong", "second": "u", "reference": "em", "strong": "b", "code": "code"}
_ARROWS: Final = {"up": "↑", "down": "↓"}
_BETTER: Final = {"up": "more is better", "down": "less is better"}


def to_html(sheet: Sheet) -> str:
    """The fragment; ends with a line end."""
    warned = [f'<p class="warning" role="note"><strong>{escape(sheet.banner())}</strong></p>'] if sheet.warnings else []
    n_names = max((len(group.names) for group in sheet.groups), default=0)
    lines = [
        *warned,
        f'<table class="sheet" data-table="{escape(sheet.name)}">',
        f"<caption>{_words(sheet.caption)}</caption>",
        "<thead>",
        *_heads(sheet, n_names),
        "</thead>",
        *(line for group in sheet.groups for line in _group(group, n_names)),
        "</table>",
    ]
    below = [f"<li>{_words(one)}</li>" for one in sheet.remarks]
    below += [f'<li class="footnote">({letter}) {escape(text)}</li>' for letter, text in sheet.footnotes.items()]
    lines += ['<ul class="notes">', *below, "</ul>"] if below else []
    return "\n".join(lines) + "\n"


def _heads(sheet: Sheet, n_names: int) -> list[str]:
    """The headings, with groups of columns above them where there are some; those of the rows' names are told apart."""
    kinds = [' class="group"'] * n_names + [' class="name"']
    words = "".join(
        f'<th scope="col"{kind}>{escape(one)}</th>' for one, kind in zip_longest(sheet.words, kinds, fillvalue="")
    )
    numbers = "".join(map(_heading, sheet.headings))
    if not sheet.has_groups:
        return [f"<tr>{words}{numbers}</tr>"]
    over = f'<td colspan="{len(sheet.words)}"></td>'
    for group, own in groupby(sheet.headings, key=lambda heading: heading.group):
        n = len(list(own))
        over += f'<th scope="colgroup" colspan="{n}">{escape(group)}</th>' if group else f'<td colspan="{n}"></td>'
    return [f'<tr class="groups">{over}</tr>', f"<tr>{words}{numbers}</tr>"]


def _heading(heading: Heading) -> str:
    """The words above a column with the arrow, which is told in words as well."""
    arrow = _ARROWS.get(heading.arrow, "")
    better = f' <span title="{_BETTER[heading.arrow]}">{arrow}</span>' if arrow else ""
    told = f' data-direction="{heading.arrow}"' + (' class="published"' if heading.is_published else "")
    return f'<th scope="col"{told}>{escape(heading.text)}{better}{_letters(heading.notes)}</th>'


def _group(group: Group, n_names: int) -> list[str]:
    """The rows that are ranked together; each has the group's names, so that sorting loses none."""
    names = "".join(f'<td class="group">{escape(one)}</td>' for one in (*group.names, *[""] * n_names)[:n_names])
    return ["<tbody>", *(f"<tr{_data(row)}>{names}{_row(row)}</tr>" for row in group.rows), "</tbody>"]


def _data(row: Row) -> str:
    """What the row stands for."""
    site = row.site
    told = {
        "site": site.label if site else "",
        "backbone": site.backbone if site else "",
        "dataset": site.dataset if site else "",
        "module": site.module if site else "",
        "label": row.label,
        "reference": "true" if row.is_reference else "false",
        "expansion": "" if row.expansion is None else repr(row.expansion),
    }
    return "".join(f' data-{name}="{escape(value)}"' for name, value in told.items())


def _row(row: Row) -> str:
    """What the row is called, and its cells."""
    first = f"<em>{escape(row.words[0])}</em>" if row.is_reference else escape(row.words[0])
    more = "".join(f"<td>{escape(word)}</td>" for word in row.words[1:])
    return f'<th scope="row">{first}</th>{more}{"".join(map(_cell, row.cells))}'


def _cell(cell: Cell) -> str:
    """One number with its mark, the letters of its footnotes and the paper's figure."""
    value = "" if cell.value is None else repr(cell.value)
    beside = f'<span class="published">{escape(cell.beside)}</span>' if cell.beside else ""
    text = _marked(cell.text, cell.mark)
    return f'<td class="number" data-value="{value}">{escape(cell.before)}{text}{_letters(cell.notes)}{beside}</td>'


def _letters(notes: Sequence[str]) -> str:
    """References to footnotes."""
    return f"<sup>({','.join(notes)})</sup>" if notes else ""


def _words(words: Words) -> str:
    """Words with their marks."""
    return "".join(_marked(one.text, one.mark) for one in words)


def _marked(text: str, mark: Mark) -> str:
    """The text, escaped, within the mark's element."""
    tag = _TAGS.get(mark)
    return f"<{tag}>{escape(text)}</{tag}>" if tag and text else escape(text)

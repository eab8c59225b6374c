r"""A sheet as a LaTeX table: booktabs rules, `\multirow` for groups of rows, `\multicolumn` for groups of columns.

A document that takes it in needs the packages of `PACKAGES`. Everything is escaped: a text can break no table and run
no command, and a character that pdfLaTeX has no letter for is written as its number.
"""

import re
import unicodedata
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from results.sheets import Cell, Group, Heading, Mark, Row, Sheet, Words

PACKAGES: Final = ("adjustbox", "amssymb", "booktabs", "multirow", "textcomp")
"""What a document needs, beside T1 as its font encoding."""
FITTED: Final = r"max width=\linewidth, max totalheight=0.55\textheight"
"""A table that is larger than the page is made smaller."""
_MARKS: Final[dict[Mark, str]] = {
    "": "%s", "best": r"\textbf{%s}", "second": r"\underline{%s}", "reference": r"\textit{%s}",
    "strong": r"\textbf{%s}", "code": r"\texttt{%s}",
}  # fmt: skip
_ARROWS: Final = {"up": r" ($\uparrow$)", "down": r" ($\downarrow$)", "none": ""}
_OWN: Final = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "'": r"\textquotesingle{}", "`": r"\textasciigrave{}",
    "[": "{[}", "]": "{]}", "±": r"$\pm$", "×": r"$\times$", "²": r"\textsuperscript{2}",
    "✓": r"$\checkmark$", "✗": r"$\times$", "—": r"\textemdash{}", "–": r"\textendash{}",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$",
    "≥": r"$\geq$", "≤": r"$\leq$", "’": r"\textquotesingle{}", "…": r"\ldots{}", "µ": r"\textmu{}",
}  # fmt: skip
_LETTERS: Final = frozenset("äöüÄÖÜßàáâãåæçèéêëìíîïñòóôõøùúûýÿÀÁÂÃÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕØÙÚÛÝğĞışŞčČšŠžŽłŁńśźżőűřěę")


def to_latex(sheet: Sheet) -> str:
    """A `table*` with warnings and caption above, and the notes below; ends with a line end."""
    n_words = len(sheet.words)
    lines = [
        "% needs: " + ", ".join(PACKAGES),
        r"\begin{table*}[t]",
        r"\centering\small",
        *([rf"\textbf{{{escape(sheet.banner())}}}\par\medskip"] if sheet.warnings else []),
        rf"\caption{{{_words(sheet.caption)}}}",
        rf"\label{{tab:{''.join(one for one in sheet.name if one.isalnum() or one == '-')}}}",
    ]
    lines += [
        rf"\begin{{adjustbox}}{{{FITTED}}}",
        rf"\begin{{tabular}}{{{'l' * n_words}{'r' * len(sheet.headings)}}}",
        r"\toprule",
    ]
    lines += [*_heads(sheet), r"\midrule", *_body(sheet), r"\bottomrule", r"\end{tabular}", r"\end{adjustbox}"]
    below = [_words(one) for one in sheet.remarks]
    below += [rf"\textsuperscript{{{letter}}} {escape(text)}" for letter, text in sheet.footnotes.items()]
    lines += [r"\par\smallskip\begin{minipage}{\linewidth}\footnotesize", *_paragraphs(below), r"\end{minipage}"]
    return "\n".join([*(lines if below else lines[:-2]), r"\end{table*}"]) + "\n"


def _paragraphs(texts: Sequence[str]) -> list[str]:
    """Each text in a paragraph of its own."""
    return [rf"{text}\par" for text in texts]


def _heads(sheet: Sheet) -> list[str]:
    """The headings, with groups of columns above them where there are some."""
    n_words = len(sheet.words)
    lines = []
    if sheet.has_groups:
        at, cells, rules = n_words + 1, [""] * n_words, []
        for group, own in groupby(sheet.headings, key=lambda heading: heading.group):
            n = len(list(own))
            cells.append(rf"\multicolumn{{{n}}}{{c}}{{{escape(group)}}}")
            rules += [rf"\cmidrule(lr){{{at}-{at + n - 1}}}"] if group else []
            at += n
        lines += [_line(cells), "".join(rules)]
    return [*lines, _line([*map(escape, sheet.words), *map(_heading, sheet.headings)])]


def _body(sheet: Sheet) -> list[str]:
    """The rows; a group's name spans its rows, and the first of several names spans its groups."""
    groups = sheet.groups
    n_names = max((len(group.names) for group in groups), default=0)
    lines: list[str] = []
    for at, group in enumerate(groups):
        same = at > 0 and n_names > 0 and groups[at - 1].names == group.names
        if at:
            last = n_names + len(group.rows[0].words) + len(group.rows[0].cells) if group.rows else n_names + 1
            lines.append(rf"\cmidrule(l){{{n_names + 1}-{last}}}" if same else r"\midrule")
        alike = [len(one.rows) for one in _from(groups, at)]
        for place, row in enumerate(group.rows):
            is_first = place == 0 and not same
            names = [rf"\multirow[t]{{{sum(alike)}}}{{*}}{{{escape(name)}}}" if name else "" for name in group.names]
            lines.append(_line([*(names if is_first else [""] * n_names), *_row(row)]))
    return lines


def _from(groups: Sequence[Group], at: int) -> list[Group]:
    """The group at a place and those after it of the same names."""
    found = []
    for group in groups[at:]:
        if group.names != groups[at].names:
            break
        found.append(group)
    return found


def _row(row: Row) -> list[str]:
    """What the row is called, and its cells."""
    words = [escape(word) for word in row.words]
    words[0] = _MARKS["reference" if row.is_reference else ""] % words[0]
    return [*words, *map(_cell, row.cells)]


def _heading(heading: Heading) -> str:
    """The words above a column with the arrow."""
    return f"{escape(heading.text)}{_ARROWS[heading.arrow]}{_letters(heading.notes)}"


def _cell(cell: Cell) -> str:
    """One number with its mark, the letters of its footnotes and the paper's figure."""
    text = _MARKS[cell.mark] % escape(cell.text) if cell.text else ""
    return f"{escape(cell.before)}{text}{_letters(cell.notes)}{escape(cell.beside)}"


def _letters(notes: Sequence[str]) -> str:
    """References to footnotes."""
    return rf"\textsuperscript{{{','.join(notes)}}}" if notes else ""


def _line(cells: Sequence[str]) -> str:
    """One line of the table."""
    return " & ".join(cells) + r" \\"


def _words(words: Words) -> str:
    """Words with their marks."""
    return "".join(_MARKS[one.mark] % escape(one.text) for one in words)


def escape(text: str) -> str:
    """The text in one line, without anything that LaTeX would read as its own or has no letter for."""
    plain = "".join(_character(one) for one in unicodedata.normalize("NFC", text))
    return re.sub("-(?=-)", "-{}", plain)  # two hyphens would become a dash


def _character(one: str) -> str:
    """One character as LaTeX writes it."""
    if one in _OWN:
        return _OWN[one]
    if one.isspace():
        return " "
    if (one.isascii() and one.isprintable()) or one in _LETTERS:
        return one
    return f"(U+{ord(one):04X})"

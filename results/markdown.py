"""A table as GitHub markdown whose columns line up, so that it also reads well in a terminal.

What is marked is decided on the numbers as they are shown: two methods that print the same number are equal. Per site
and column the best number is bold wherever it stands, and the next one down is underlined wherever it stands, also
where several share the first place. Reference rows take no part, and where fewer than two contestants have a value
nothing is marked.
"""

import re
from collections.abc import Mapping, Sequence
from string import ascii_lowercase

from results import published
from results.layout import PANELS, Column, Layout, Seeds, Site, TableSpec
from results.summaries import SEED_WORDS, Summaries, Summary

DASH = "—"

_ARROWS = {"up": " ↑", "down": " ↓", "none": ""}


def to_markdown(spec: TableSpec, summaries: Summaries, layout: Layout) -> str:
    """Caption, table, sites and footnotes; ends with a line end."""
    footnotes: dict[str, str] = {}
    columns = [column for column in spec.columns if not column.csv_only]
    ranks = {
        (site.label, column): _ranks(column, site.label, summaries, layout)
        for site in layout.sites
        for column in columns
    }
    headings = [one for column in columns for one in (heading(column), *_paper_heading(spec, column))]
    lines = [["site", "method", *headings]]
    seen: set[str] = set()
    for site, label in layout.rows():
        is_reference = label in layout.references
        line = [
            "" if site.label in seen else escape(site.label),
            set_off(escape(label), "*" if is_reference else ""),
        ]
        seen.add(site.label)
        for column in columns:
            summary = summaries[site.label, label, column]
            mark = "*" if is_reference else ranks[site.label, column].get(label, "")
            text = DASH if summary.mean is None else set_off(shown(column, summary), mark)
            line.append(text + footnote(summary, footnotes))
            line += [published.shown(spec.published, column, site.label, label) for _ in _paper_heading(spec, column)]  # type: ignore[arg-type]
        lines.append(line)
    says = [f"- paper: {spec.published.says}"] if spec.published else []
    caption = _caption(spec.title, columns, layout)
    return "\n".join([caption, "", *aligned(lines), "", *says, *below(layout, footnotes)]) + "\n"


def _paper_heading(spec: TableSpec, column: Column) -> list[str]:
    """The heading of the column with the paper's figures, where it has one."""
    figure = spec.published.figures.get(column.heading) if spec.published else None
    return [] if figure is None or figure.csv_only else [f"paper: {column.heading}"]


def below(layout: Layout, footnotes: Mapping[str, str]) -> list[str]:
    """What the sites are, and the footnotes."""
    present = {site.label for site, _ in layout.rows()}
    sites = [
        f"- {escape(site.label)}: `{site.module}` of {escape(site.backbone)} on {escape(site.dataset)}{_on(site)}"
        for site in layout.sites
        if site.label in present
    ]
    return sites + [f"- ({letter}) {escape(text)}" for text, letter in footnotes.items()]


def warned(layout: Layout) -> list[str]:
    """What has to be read before the numbers, in a paragraph of its own; nothing where there is nothing."""
    present = {site.label for site, _ in layout.rows()}
    said: dict[str, list[str]] = {}
    for site in layout.sites:
        if site.warnings and site.label in present:
            said.setdefault("; ".join(site.warnings), []).append(site.label)
    if not said:
        return []
    text = ". ".join(f"{escape(', '.join(sites))}: {escape(what)}" for what, sites in said.items())
    return [f"**Warning: these are no results. {text}.**", ""]


def _on(site: Site) -> str:
    """What its rows were measured on, where that is told."""
    return f"; measured on {escape(site.machine)}" if site.machine else ""


def _caption(title: str, columns: Sequence[Column], layout: Layout) -> str:
    """What the numbers are and what the marks mean, in one line."""
    kinds: dict[Seeds, list[str]] = {}
    for column in columns:
        kinds.setdefault(column.seeds, []).append(column.heading)
    if len(kinds) == 1:
        numbers = _averaged(next(iter(kinds)), layout)
    else:
        numbers = " ".join(f"{escape(', '.join(names))}: {_averaged(kind, layout)}" for kind, names in kinds.items())
    marks = "Per site, by the numbers as shown: **best**, <u>second best</u>; *references* are not ranked."
    return f"{title}. {numbers} {marks}"


def _averaged(kind: Seeds, layout: Layout) -> str:
    """What the numbers of columns of that kind are, in a sentence."""
    inits = ", ".join(map(str, layout.init_seeds))
    if kind in PANELS:
        return escape(layout.panels.get(kind, "Nothing was judged."))
    if kind == "comparison":
        return (
            f"All pairs of init seeds {inits} at token seed {layout.token_seeds[0]}, compared; "
            "the 95 % interval in brackets, unless exact."
        )
    varied, fixed = (layout.token_seeds, f"init seed {layout.init_seeds[0]}")
    if kind == "init_seeds":
        varied, fixed = (layout.init_seeds, f"token seed {layout.token_seeds[0]}")
    word, seeds = SEED_WORDS[kind], ", ".join(map(str, varied))
    if len(varied) > 1:
        return (
            f"Mean ± sample standard deviation over {word}s {seeds} at {fixed}; "
            f"from a single {word}, its 95 % interval in brackets, unless exact."
        )
    return f"{word.capitalize()} {seeds}, {fixed}; the 95 % interval in brackets, unless exact."


def heading(column: Column) -> str:
    """Heading with percent sign and arrow; of other units the heading itself tells."""
    return f"{column.heading}{' (%)' if column.unit == '%' else ''}{_ARROWS[column.direction]}"


def shown(column: Column, summary: Summary) -> str:
    """The number as it stands in the table, with its spread or its interval."""
    if summary.mean is None:
        return DASH
    text = number(column, summary.mean, column.decimals)
    if summary.std is not None:
        return f"{text} ± {number(column, summary.std, column.decimals)}"
    if summary.low is not None and summary.high is not None:
        ends = (number(column, end, column.interval_decimals) for end in (summary.low, summary.high))
        return f"{text} [{', '.join(ends)}]"
    return text


def number(column: Column, value: float, decimals: int) -> str:
    """The rounded number; zero has no sign."""
    text = f"{value:.{decimals}{'e' if column.is_scientific else 'f'}}"
    return text.removeprefix("-") if float(text) == 0 else text


def _ranks(column: Column, site: str, summaries: Summaries, layout: Layout) -> dict[str, str]:
    """The mark of each label that has one, in one column of one site."""
    shown: dict[str, float] = {}
    for label in layout.labels:
        summary = summaries.get((site, label, column))
        if summary and summary.mean is not None and label not in layout.references:
            shown[label] = float(number(column, summary.mean, column.decimals))
    if column.direction == "none" or len(shown) < 2:
        return {}
    ranking = sorted(set(shown.values()), reverse=column.direction == "up")
    marks = dict(zip(ranking, ("**", "<u>"), strict=False))
    return {label: marks[value] for label, value in shown.items() if value in marks}


def set_off(text: str, mark: str) -> str:
    """The text between the mark and its counterpart."""
    return f"{mark}{text}{mark.replace('<', '</')}"


def footnote(summary: Summary, footnotes: dict[str, str]) -> str:
    """The reference to the summary's footnote, if it needs one; a new footnote is added to `footnotes`."""
    text = summary.reason or ""
    if summary.n_seeds == summary.n_expected:
        if not text or summary.n_excluded:  # why things were left out stands in the records; only remarks stand here
            return ""
    elif summary.n_seeds:
        text = f"{summary.n_seeds} of {summary.n_expected} {SEED_WORDS.get(summary.seeds, 'panel')}s ({text})"
    return lettered(text, footnotes)


def lettered(text: str, footnotes: dict[str, str]) -> str:
    """The reference to a footnote of that text, which is added to `footnotes` if it is new."""
    return f" ({footnotes.setdefault(text, _letters(len(footnotes)))})"


def _letters(index: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    head, last = divmod(index, 26)
    return (_letters(head - 1) if head else "") + ascii_lowercase[last]


def aligned(lines: Sequence[Sequence[str]], n_words: int = 2) -> list[str]:
    """The lines of the markdown table, heading first; the first columns hold words, to the left, the rest numbers."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

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
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"[\\`*|\[\]]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", plain)

"""The tables that records are rendered into: what there is, what renders them, and what keeps a README true.

Every format but CSV is written from one `Sheet`; CSV is for programs and has every digit instead. Rendering is a pure
function of its arguments: the same records in any order give the same bytes.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Final

from results import published
from results.claims import PROPERTIES, ClaimsSpec, claimed, claims_sheet, claims_to_csv
from results.filling import EXPANSION, table_sheet
from results.latex import to_latex
from results.layout import Beside, Column, Layout, Site, TableSpec
from results.lines import Line, exact, to_csv
from results.machines import apart
from results.markdown import to_markdown
from results.paper import PAPER_TABLES
from results.printed import printed_sheet
from results.records import Record
from results.settings import SettingsSpec, settings_of, settings_sheet, settings_to_csv
from results.sheets import Sheet
from results.specs import (
    ABLATIONS,
    EFFICIENCY,
    GROUND_TRUTH,
    LEADERBOARD,
    PROBES,
    PROXY_VERDICTS,
    STRUCTURE,
    VERDICTS,
)
from results.subjects import NothingToShowError, check_claims, columns_of_run
from results.summaries import Summaries, summarise
from results.sweeps import SWEEPS, SweepSpec, sweep_rows, sweep_sheet, sweeps_to_csv
from results.ticks import ticks_sheet
from results.web_tables import to_html

__all__ = [
    "FORMATS", "TABLES", "Column", "Layout", "NothingToShowError", "Site", "TableSpec", "embed", "find_table",
    "heading_of", "render", "render_published", "sheet_of",
]  # fmt: skip

FORMATS: Final = ("md", "csv", "tex", "html")
_WRITERS: Final[Mapping[str, Callable[[Sheet], str]]] = {"md": to_markdown, "tex": to_latex, "html": to_html}

AnySpec = TableSpec | ClaimsSpec | SweepSpec | SettingsSpec

_ALL: tuple[AnySpec, ...] = (
    LEADERBOARD, VERDICTS, PROXY_VERDICTS, PROPERTIES, STRUCTURE, EFFICIENCY, ABLATIONS, GROUND_TRUTH, PROBES, SWEEPS,
    *PAPER_TABLES,
)  # fmt: skip
TABLES: dict[str, AnySpec] = {spec.name: spec for spec in _ALL}


@cache
def heading_of(metric: str) -> tuple[str, str]:
    """What tables call a metric, and its unit; one that no table shows is called by its name, without a unit."""
    columns = (column for spec in TABLES.values() if isinstance(spec, TableSpec) for column in spec.columns)
    found = next((column for column in columns if column.metric == metric and column.less is None), None)
    return (metric, "1") if found is None else (found.heading, found.unit)


def find_table(name: str) -> AnySpec:
    """The table of that name.

    Raises:
        LookupError: There is none.
    """
    if name not in TABLES:
        raise LookupError(f"table: got {name!r}; expected {_one_of(name, TABLES)}")
    return TABLES[name]


def render(
    spec: AnySpec, records: Iterable[Record], *, layout: Layout, format: str, beside: Beside | None = None
) -> str:
    """The table in one of the formats; ends with a line end.

    Args:
        spec: What the table shows.
        records: The rows of one closed group per cell (the values of `results.records.latest`), in any order.
        layout: Which rows the table has and which cells they stand for.
        format: "md" for GitHub markdown; "tex" for LaTeX; "html" for a fragment of a page; "csv" for one line per site,
            method label and metric, at full precision.
        beside: Where the paper's figures stand; None leaves that to the table. CSV has them in columns.

    Raises:
        ValueError: The format is unknown, a cell has a metric twice, a value has another unit than its column, or
            verdicts of two pools meet in one column; or the run has nothing of what the table is about
            (`NothingToShowError`).
    """
    _check_format(format)
    rows = list(records)
    return _csv(spec, rows, layout) if format == "csv" else _WRITERS[format](sheet_of(spec, rows, layout, beside))


def render_published(spec: AnySpec, format: str) -> str:
    """A table of the paper as the paper prints it, from `results/published` alone; as CSV, the file itself.

    Raises:
        ValueError: The format is unknown, or the table is not the paper's.
    """
    _check_format(format)
    form = None if isinstance(spec, SweepSpec) else spec.form
    if form is None:
        known = ", ".join(name for name, one in TABLES.items() if not isinstance(one, SweepSpec) and one.form)
        raise ValueError(f"table: got {spec.name!r}, which is not the paper's; expected one of {known}; choose one")
    if format == "csv":
        return (published.FOLDER / form.file).read_text(encoding="utf-8")
    return _WRITERS[format](printed_sheet(form, spec.name))


def sheet_of(spec: AnySpec, rows: list[Record], layout: Layout, beside: Beside | None = None) -> Sheet:
    """The table before it has a format.

    Raises:
        ValueError: As `render`.
    """
    if isinstance(spec, SweepSpec):
        return sweep_sheet(spec, sweep_rows(rows, layout), layout)
    if isinstance(spec, TableSpec):
        spec = columns_of_run(spec, rows, layout)
        layout = apart(layout, rows) if spec.by_machine else layout
    elif isinstance(spec, ClaimsSpec):
        check_claims(spec, layout)
    summaries = summarise(dict.fromkeys((*spec.columns, EXPANSION)), rows, layout)
    if isinstance(spec, SettingsSpec):
        return settings_sheet(spec, settings_of(spec, rows, layout), summaries, layout, beside or "cell")
    if isinstance(spec, TableSpec):
        return table_sheet(spec, summaries, layout, beside or spec.beside)
    if spec.form is not None:
        return ticks_sheet(spec, spec.form, summaries, layout, beside or "cell")
    return claims_sheet(spec, claimed(rows, layout), summaries, layout)


def _csv(spec: AnySpec, rows: list[Record], layout: Layout) -> str:
    """The table as CSV."""
    if isinstance(spec, SweepSpec):
        return sweeps_to_csv(sweep_rows(rows, layout))
    if isinstance(spec, TableSpec):
        spec = columns_of_run(spec, rows, layout)
        layout = apart(layout, rows) if spec.by_machine else layout
    elif isinstance(spec, ClaimsSpec):
        check_claims(spec, layout)
    summaries = summarise(spec.columns, rows, layout)
    if isinstance(spec, SettingsSpec):
        return settings_to_csv(spec, settings_of(spec, rows, layout), summaries)
    if isinstance(spec, ClaimsSpec):
        return claims_to_csv(spec, claimed(rows, layout), summaries, layout)
    return _to_csv(spec, summaries, layout)


def _check_format(format: str) -> None:
    """Refuse a format that there is not."""
    if format not in FORMATS:
        raise ValueError(f"format: got {format!r}; expected {_one_of(format, FORMATS)}")


def _to_csv(spec: TableSpec, summaries: Summaries, layout: Layout) -> str:
    """One line per site, method label and column, with what the paper prints where it prints something."""
    source = spec.published
    papers = [] if source is None else ["_".join(["paper", *where.values()]) for where in source.where]

    def texts(site: Site, label: str, column: Column) -> list[str]:
        found = published.figures(source, column, site.label, label) if source else ()
        numbers = [exact(None if one is None else float(one)) for one in found] or [""] * len(papers)
        return [*([site.machine] if spec.by_machine else []), *numbers]

    lines: list[Line] = [
        (site, label, texts(site, label, column), column) for site, label in layout.rows() for column in spec.columns
    ]
    return to_csv(
        lines,
        summaries,
        layout,
        own=[*(["machine"] if spec.by_machine else []), *papers],
    )


def embed(text: str, name: str, table: str) -> str:
    """The text with `table` between its lines `<!-- table: NAME -->` and `<!-- end table -->`.

    A text is true when this leaves it as it is.

    Raises:
        ValueError: The two lines are not there exactly once.
    """
    begin, end = f"<!-- table: {name} -->", "<!-- end table -->"
    block = re.compile(
        rf"^{re.escape(begin)}\n(?P<inside>(?:(?!<!-- (?:table: |end table)).*\n)*){re.escape(end)}$", re.MULTILINE
    )
    n_found = len(block.findall(text))
    if n_found != 1:
        raise ValueError(f"text: got {n_found} blocks {begin} ... {end}; expected one; write the two lines once")
    return block.sub(lambda _: f"{begin}\n{table.rstrip()}\n{end}", text)


def _one_of(got: str, known: Iterable[str]) -> str:
    """What could have been meant: the nearest name, then all of them."""
    names = sorted(known)
    nearest = get_close_matches(got, names, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "; choose one"
    return f"one of {', '.join(names)}{hint}"

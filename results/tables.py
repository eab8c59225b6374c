"""The tables that records are rendered into: what there is, one function that renders, one that keeps a README true.

Rendering is a pure function of its arguments: the same records in any order give the same bytes.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches

from results import published
from results.claims import PROPERTIES, ClaimsSpec, claimed, claims_to_csv, claims_to_markdown
from results.layout import Column, Layout, Site, TableSpec
from results.lines import Line, exact, to_csv
from results.machines import apart
from results.markdown import to_markdown, warned
from results.paper import PAPER_TABLES
from results.records import Record
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
from results.summaries import Summaries, summarise
from results.sweeps import SWEEPS, SweepSpec, render_sweeps

__all__ = ["FORMATS", "TABLES", "Column", "Layout", "Site", "TableSpec", "embed", "find_table", "render"]

FORMATS = ("md", "csv")

AnySpec = TableSpec | ClaimsSpec | SweepSpec

_ALL: tuple[AnySpec, ...] = (
    LEADERBOARD, VERDICTS, PROXY_VERDICTS, PROPERTIES, STRUCTURE, EFFICIENCY, ABLATIONS, GROUND_TRUTH, PROBES, SWEEPS,
    *PAPER_TABLES,
)  # fmt: skip
TABLES: dict[str, AnySpec] = {spec.name: spec for spec in _ALL}


def find_table(name: str) -> AnySpec:
    """The table of that name.

    Raises:
        LookupError: There is none.
    """
    if name not in TABLES:
        raise LookupError(f"table: got {name!r}; expected {_one_of(name, TABLES)}")
    return TABLES[name]


def render(spec: AnySpec, records: Iterable[Record], *, layout: Layout, format: str) -> str:
    """The table in the format "md" or "csv"; ends with a line end.

    Args:
        spec: What the table shows.
        records: The rows of one closed group per cell (the values of `results.records.latest`), in any order.
        layout: Which rows the table has and which cells they stand for.
        format: "md" for GitHub markdown; "csv" for one line per site, method label and metric, at full precision.

    Raises:
        ValueError: The format is unknown, a cell has a metric twice, or a value has another unit than its column.
    """
    if format not in FORMATS:
        raise ValueError(f"format: got {format!r}; expected {_one_of(format, FORMATS)}")
    text = _rendered(spec, list(records), layout, format)
    return "\n".join([*warned(layout), text]) if format == "md" else text


def _rendered(spec: AnySpec, rows: list[Record], layout: Layout, format: str) -> str:
    """The table in a format that there is, without its warnings."""
    if isinstance(spec, SweepSpec):
        return render_sweeps(spec, rows, layout, format)
    if isinstance(spec, ClaimsSpec):
        summaries = summarise(spec.columns, rows, layout)
        claims_to = claims_to_markdown if format == "md" else claims_to_csv
        return claims_to(spec, claimed(rows, layout), summaries, layout)
    spec = _of_run(spec, layout)
    if spec.by_machine:
        layout = apart(layout, rows)
    summaries = summarise(spec.columns, rows, layout)
    return to_markdown(spec, summaries, layout) if format == "md" else _to_csv(spec, summaries, layout)


def _of_run(spec: TableSpec, layout: Layout) -> TableSpec:
    """The table without columns that the run was not asked for, and with those that no table has.

    Raises:
        ValueError: The run was asked for none of them.
    """
    if layout.measured is None:
        return spec
    columns = tuple(column for column in spec.columns if column.metric in layout.measured)
    columns += layout.others if spec.takes_others else ()
    if not columns:
        wanted = ", ".join(dict.fromkeys(column.metric for column in spec.columns))
        raise ValueError(
            f"table: got {spec.name!r} of a run that measures none of its metrics; expected one of {wanted}; "
            "run a suite that names them, or choose another table"
        )
    return replace(spec, columns=columns)


def _to_csv(spec: TableSpec, summaries: Summaries, layout: Layout) -> str:
    """One line per site, method label and column, with what the paper prints where it prints something."""
    source = spec.published
    papers = [] if source is None else ["_".join(["paper", *where.values()]) for where in source.where]

    def texts(site: Site, label: str, column: Column) -> list[str]:
        found = published.figures(source, column, site.label, label) if source else ()
        numbers = [exact(one) for one in found] or [""] * len(papers)
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

"""The tables that records are rendered into: what there is, one function that renders, one that keeps a README true.

Rendering is a pure function of its arguments: the same records in any order give the same bytes.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from results.layout import Column, Layout, Site, TableSpec
from results.markdown import to_markdown
from results.records import Record
from results.summaries import Summary, summarise

__all__ = ["FORMATS", "TABLES", "Column", "Layout", "Site", "TableSpec", "embed", "find_table", "render"]

FORMATS = ("md", "csv")

LEADERBOARD = TableSpec(
    name="leaderboard",
    title="Interpretability and faithfulness of every method",
    columns=(
        Column("ms_score", "MS-Score", "up", 2, 1, "%"),
        Column("ms_excluded_share", "excluded", "none", 1, 1, "%"),
        Column("r2", "R2", "up", 2, 1, "%"),
        Column("top1", "top-1", "up", 2, 1, "%"),
        Column("agreement", "agreement", "up", 2, 1, "%"),
        Column("max_logit_difference", "max logit diff.", "none", 1, 1, "logits", is_scientific=True),
        Column("l0", "L0", "none", 1, 1, "atoms a token"),
        Column("expansion_factor", "expansion", "none", 2, 2, "1"),
    ),
)

TABLES: dict[str, TableSpec] = {spec.name: spec for spec in (LEADERBOARD,)}


def find_table(name: str) -> TableSpec:
    """The table of that name.

    Raises:
        LookupError: There is none.
    """
    if name not in TABLES:
        raise LookupError(f"table: got {name!r}; expected {_one_of(name, TABLES)}")
    return TABLES[name]


def render(spec: TableSpec, records: Iterable[Record], *, layout: Layout, format: str) -> str:
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
    summaries = summarise(spec.columns, records, layout)
    return to_markdown(spec, summaries, layout) if format == "md" else _to_csv(spec, summaries, layout)


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


def _to_csv(spec: TableSpec, summaries: Mapping[tuple[str, str, str], Summary], layout: Layout) -> str:
    """One line per site, method label and metric; what is missing is empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    place = ["site", "dataset", "backbone", "module", "label", "is_reference", "metric", "unit"]
    numbers = ["mean", "std", "n_seeds", "n_seeds_expected", "low", "high", "n", "n_excluded", "reason"]
    writer.writerow(place + numbers)
    for site, label in layout.rows():
        for column in spec.columns:
            summary = summaries[site.label, label, column.metric]
            where = [site.label, site.dataset, site.backbone, site.module, label, label in layout.references]
            counts = [summary.n_seeds, summary.n_expected]
            tail = [summary.n, summary.n_excluded, summary.reason]
            spread = [_exact(summary.mean), _exact(summary.std), *counts, _exact(summary.low), _exact(summary.high)]
            writer.writerow([*where, column.metric, column.unit, *spread, *tail])
    return file.getvalue()


def _exact(value: float | None) -> str:
    """The shortest text that reads back as the same number; empty for None."""
    return "" if value is None else repr(value)


def _one_of(got: str, known: Iterable[str]) -> str:
    """What could have been meant: the nearest name, then all of them."""
    names = sorted(known)
    nearest = get_close_matches(got, names, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "; choose one"
    return f"one of {', '.join(names)}{hint}"

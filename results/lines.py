"""A table as CSV: one line per site, method label and metric, at full precision; what is missing is empty."""

import csv
import io
from collections.abc import Iterable, Sequence

from results.layout import Column, Layout, Site
from results.summaries import Summaries

Line = tuple[Site, str, Sequence[str], Column]
"""Site, method label, the texts under the table's own headings, and the metric."""


def to_csv(lines: Iterable[Line], summaries: Summaries, layout: Layout, own: Sequence[str] = ()) -> str:
    """Place, the table's own texts, metric and numbers of each line.

    Args:
        lines: What stands in each line.
        summaries: The numbers, by site label, method label and column.
        layout: Which labels are references.
        own: Headings of what this table has and others have not.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    warned = any(site.warnings for site in layout.sites)
    place = ["site", "dataset", "backbone", "module", "label", "is_reference", *(["warnings"] if warned else [])]
    numbers = ["mean", "std", "n_seeds", "n_seeds_expected", "low", "high", "n", "n_excluded", "reason"]
    writer.writerow([*place, *own, "metric", "less", "unit", "seeds", *numbers])
    for site, label, texts, column in lines:
        summary = summaries[site.label, label, column]
        where = [site.label, site.dataset, site.backbone, site.module, label, label in layout.references]
        where += ["; ".join(site.warnings)] if warned else []
        counts = [summary.n_seeds, summary.n_expected]
        tail = [summary.n, summary.n_excluded, summary.reason]
        spread = [exact(summary.mean), exact(summary.std), *counts, exact(summary.low), exact(summary.high)]
        what = [column.metric, column.less or "", column.unit, column.seeds]
        writer.writerow([*where, *texts, *what, *spread, *tail])
    return file.getvalue()


def exact(value: float | None) -> str:
    """The shortest text that reads back as the same number; empty for None."""
    return "" if value is None else repr(value)

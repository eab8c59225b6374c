"""Which method is best at each site, in a sentence: what a reader of a wide table wants to know first.

The column is the first of the table that ranks, and the numbers are those that stand in it. Whether two methods are
told apart is read from what stands beside the numbers: the 95 % interval of one seed, the spread over several.
"""

from collections.abc import Iterable, Sequence

from results.digits import footnote, number, shown
from results.layout import Column, Layout, Site
from results.records import Record
from results.summaries import Summaries, Summary, summarise


def leaders(columns: Sequence[Column], records: Iterable[Record], layout: Layout) -> list[str]:
    """One sentence for each site with two contestants or more; references take no part.

    Args:
        columns: Of the table, from left to right.
        records: As for `results.tables.render`.
        layout: The rows of the table.
    """
    ranking = [column for column in columns if column.direction != "none" and column.less is None]
    summaries = summarise(ranking, records, layout)
    found = (_leader(site, ranking, summaries, layout) for site in layout.sites)
    return [sentence for sentence in found if sentence]


def _leader(site: Site, columns: Sequence[Column], summaries: Summaries, layout: Layout) -> str:
    """The sentence of one site; empty where no column ranks two contestants."""
    for column in columns:
        rows = {label: summaries.get((site.label, label, column)) for label in layout.labels}
        ranked = {
            label: (float(number(column, one.mean, column.decimals)), one)
            for label, one in rows.items()
            if one is not None and one.mean is not None and label not in layout.references
        }
        if len(ranked) > 1:
            return _sentence(site, column, ranked)
    return ""


def _sentence(site: Site, column: Column, ranked: dict[str, tuple[float, Summary]]) -> str:
    """Who is best there by that column, and whose interval reaches theirs."""
    values = [value for value, _ in ranked.values()]
    top = max(values) if column.direction == "up" else min(values)
    best = [label for label, (value, _) in ranked.items() if value == top]
    spans = {label: _span(one) for label, (_, one) in ranked.items()}
    low, high = min(spans[one][0] for one in best), max(spans[one][1] for one in best)
    near = [label for label, (start, end) in spans.items() if label not in best and start <= high and end >= low]
    one = ranked[best[0]][1]
    told = f"{shown(column, one)}{' %' if column.unit == '%' else ''}"
    is_one = len(best) == 1
    text = f"{site.label}: {' and '.join(best)} {'is' if is_one else 'are'} best by {column.heading}, {told}"
    its = "its" if is_one else "their"
    spread = "mean ± standard deviation" if one.std is not None else "95 % interval" if one.low is not None else ""
    if spread:
        text += f"; {its} {spread} overlaps " + (f"that of {', '.join(near)}" if near else "no other's")
    elif near:
        text += f"; within the interval of {', '.join(near)}"
    caveat = footnote(one)
    return f"{text} ({caveat})." if caveat else f"{text}."


def _span(one: Summary) -> tuple[float, float]:
    """From where to where a number may lie: its interval, or one standard deviation to both sides."""
    mean, spread = one.mean or 0.0, one.std or 0.0
    is_interval = one.std is None and one.low is not None and one.high is not None
    return (one.low or 0.0, one.high or 0.0) if is_interval else (mean - spread, mean + spread)

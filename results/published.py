"""The paper's own figures, as it prints them, to stand beside what was measured here (Bağcı et al. 2026).

The files in `results/published` are the paper's tables as text. Their numbers were measured on other backbones, data
and machines than ours: they stand in columns of their own, and are never ranked.
"""

import csv
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path

from results.digits import signed
from results.layout import Column, Figure, PaperForm, Published
from results.sheets import ABSENT

FOLDER = Path(__file__).parent / "published"
BACKBONE = "backbone"
"""The row of the paper's tables that is there to compare with."""


@cache
def rows_of(file: str) -> tuple[dict[str, str], ...]:
    """The rows of one of the paper's tables, by column."""
    with (FOLDER / file).open(encoding="utf-8", newline="") as lines:
        return tuple(csv.DictReader(lines))


def figures(published: Published, column: Column, site: str, label: str) -> tuple[Decimal | None, ...]:
    """What the paper prints for that column and row, one entry for each set of rows it is looked for in.

    None where it prints nothing; no entries where the column has no figure.
    """
    figure = published.figures.get(column.heading)
    if figure is None:
        return ()
    return tuple(_figure(published, figure, label, where) for where in places(published, site))


def entries(form: PaperForm, where: Mapping[str, str]) -> tuple[str, ...]:
    """What tells the group of the first row that holds all of `where` from others; empty where nothing does."""
    row = next((row for row in rows_of(form.file) if where.items() <= row.items()), {})
    return tuple(row[name] for name in form.by if name in row)


def row_name(form: PaperForm, key: str, where: Mapping[str, str]) -> str:
    """What the paper calls a row; the backbone's after the setting, where its group is called after an axis."""
    found = entries(form, where) if where else ()
    return f"{found[-1]} (backbone only)" if key == BACKBONE and len(found) > 1 else form.name(key)


def places(published: Published, site: str) -> list[dict[str, str] | None]:
    """Which rows of the file a site's figures are looked for in; None where the paper has none for that site."""
    if not published.sites:
        return [dict(where) for where in published.where]
    own = published.sites.get(site)
    return [None if own is None else {**where, **own} for where in published.where]


def shown(published: Published, column: Column, site: str, label: str) -> str:
    """The figures as they stand in the paper, digit for digit, those that are worked out of two rows rounded.

    Empty where the paper has none for that row.
    """
    found = figures(published, column, site, label)
    if all(one is None for one in found):
        return ""
    figure = published.figures[column.heading]
    texts = []
    for one, where in zip(found, places(published, site), strict=True):
        spread = _entry(published, figure.spread, label, where) if figure.spread else ""
        behind = f" ± {spread}" if spread else ""
        text = ABSENT if one is None else f"{rounded(one, column.decimals) if figure.over else one:f}"
        texts.append(text + behind)
    return " / ".join(texts)


def difference(ours: float, theirs: Decimal, decimals: int) -> str:
    """By how much a number of ours is larger than one of the paper's, rounded once, with its sign."""
    return signed(float(rounded(Decimal(repr(ours)) - theirs, decimals)), decimals)


def rounded(number: Decimal, decimals: int) -> Decimal:
    """The number with so many digits after the point; halves are rounded away from zero."""
    return number.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)


def _entry(published: Published, column: str, label: str, where: Mapping[str, str] | None) -> str:
    """What stands in a column of the row of that label; empty where there is nothing, or no such row."""
    if where is None:
        return ""
    wanted = {published.key: published.keys.get(label, label), **where}
    return next((row[column] for row in rows_of(published.file) if wanted.items() <= row.items()), "")


def _printed(published: Published, column: str, label: str, where: Mapping[str, str] | None) -> Decimal | None:
    """The number that stands there, with all digits that are printed; None where there is none."""
    text = _entry(published, column, label, where)
    return Decimal(text) if text else None


def _figure(published: Published, figure: Figure, label: str, where: Mapping[str, str] | None) -> Decimal | None:
    """One figure, in the unit of the column."""
    value = _printed(published, figure.column, label, where)
    if value is None:
        return None
    if figure.less is not None:
        taken_off = _printed(published, figure.column, figure.less, where)
        return None if taken_off is None else figure.scale * (value - taken_off)
    if figure.over is not None:
        divisor = _printed(published, figure.column, figure.over, where)
        return None if divisor is None else figure.scale * value / divisor
    return figure.scale * value

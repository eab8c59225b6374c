"""Verdicts are relative to the methods that they were measured against: those of two pools never share a column."""

from collections.abc import Iterable

from results.layout import PANELS, Column, Layout
from results.records import Record


def check_pools(columns: Iterable[Column], records: Iterable[Record], layout: Layout) -> None:
    """Refuse verdicts of different pools in the column of one site.

    Raises:
        ValueError: There are some.
    """
    kinds = {column.seeds for column in columns if column.seeds in PANELS}
    place = {cell: key for key, cell in layout.verdicts.items() if key[0] in kinds}
    pools: dict[tuple[str, str], dict[str, str]] = {}
    for record in records if place else ():
        pool = record.notes.get("pool")
        if record.cell in place and pool is not None:
            kind, site, label = place[record.cell]
            pools.setdefault((kind, site), {}).setdefault(str(pool), label)
    for (_, site), found in pools.items():
        if len(found) > 1:
            told = ", ".join(f"{pool[:12]} ({label})" for pool, label in sorted(found.items()))
            raise ValueError(
                f"pool: got verdicts of {len(found)} pools at {site}: {told}; expected one, as a rate is relative to "
                "the methods that it was measured against; judge the run again with `eludebench judge run`"
            )

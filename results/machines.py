"""Rows that were measured on different machines, kept apart: a time on one says nothing against a time on another."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import count

from results.layout import Layout, Site
from results.records import Record

ELSEWHERE = "measured on another machine"

_Key = tuple[str, str, int, int]


def apart(layout: Layout, records: Iterable[Record]) -> Layout:
    """The layout with one site for each machine that the site's cells were measured on; cells keep their hashes.

    A machine is what the records call the device, and the mark of its name in their notes. Cells without records stand
    with the first machine. Where a row was measured on several machines it stands with each, and lacks the seeds that
    were measured on the others.
    """
    device_of = {record.cell: machine_of(record) for record in records}
    machines = sorted({device_of[cell] for cell in layout.cells.values() if cell in device_of})
    names = {device: _name(device, at, len(machines)) for device, at in zip(machines, count(), strict=False)}
    sites: list[Site] = []
    cells: dict[_Key, str] = {}
    states = dict(layout.states)
    for site in layout.sites:
        own = {key: cell for key, cell in layout.cells.items() if key[0] == site.label}
        used = sorted({device_of[cell] for cell in own.values() if cell in device_of})
        if not used:
            sites.append(site)
            cells |= own
        for at, device in enumerate(used):
            here = replace(site, label=f"{site.label}, {names[device]}", machine=device)
            sites.append(here)
            found, missing = _of_machine(own, device, device_of, is_first=at == 0)
            states |= dict.fromkeys(missing.values(), ELSEWHERE)
            cells |= {(here.label, *key[1:]): cell for key, cell in (found | missing).items()}
    return replace(layout, sites=tuple(sites), cells=cells, states=states)


def machine_of(record: Record) -> str:
    """What tells the record's machine from others."""
    mark = record.notes.get("machine")
    return f"{record.device}, machine {mark}" if mark else str(record.device)


def _of_machine(
    cells: Mapping[_Key, str], device: str, device_of: Mapping[str, str], *, is_first: bool
) -> tuple[dict[_Key, str], dict[_Key, str]]:
    """A site's cells on one machine, and those of the same rows that were measured on others, under other hashes."""
    measured = {cell: device_of.get(cell) for cell in cells.values()}
    here = {key: cell for key, cell in cells.items() if measured[cell] == device}
    rows = {key[1] for key in here}
    known = {key[1] for key, cell in cells.items() if measured[cell] is not None}
    lost = {
        key: cell
        for key, cell in cells.items()
        if measured[cell] is None and (key[1] in rows or (is_first and key[1] not in known))
    }
    others = {
        key: f"{cell} elsewhere"
        for key, cell in cells.items()
        if key[1] in rows and measured[cell] not in (None, device)
    }
    return here | lost, others


def _name(device: str, at: int, n: int) -> str:
    """What the table calls a machine: what kind it is, and its number where there are several."""
    kind = device.split(",")[0].split(":")[0].strip()
    return kind if n == 1 else f"{kind} {at + 1}"

"""What a table of a run is about: the columns that the run has numbers for, and whether that leaves a table at all.

A run that measures only what stands beside a table's subject (the MS-Score of a table of planted concepts, say) has no
such table: a column of numbers under that title would be read as what it is not.
"""

from collections.abc import Iterable
from dataclasses import replace

from results.claims import ClaimsSpec
from results.layout import Layout, TableSpec
from results.records import Record


class NothingToShowError(ValueError):
    """A run that has nothing of what a table is about; the message says what it needs."""


def columns_of_run(spec: TableSpec, records: Iterable[Record], layout: Layout) -> TableSpec:
    """The table without columns that the run was not asked for, and with those that no table has.

    Raises:
        NothingToShowError: The run was asked for nothing that the table is about, or has no variants of the method
            that its differences are taken from.
    """
    if layout.measured is None:
        return spec
    columns = tuple(column for column in spec.columns if column.metric in layout.measured)
    own = replace(spec, columns=columns + (layout.others if spec.takes_others else ()))
    _check_measured(spec.name, spec.about or tuple(column.metric for column in (*spec.columns, *own.columns)), layout)
    for baseline in dict.fromkeys(column.less for column in own.columns if column.less):
        _check_variants(spec.name, baseline, records, layout)
    return own


def check_claims(spec: ClaimsSpec, layout: Layout) -> None:
    """Refuse a table of claims of a run that holds none of them against a number.

    Raises:
        NothingToShowError: The run was asked for none of its metrics.
    """
    _check_measured(spec.name, tuple(column.metric for column in spec.columns), layout)


def _check_measured(name: str, wanted: tuple[str, ...], layout: Layout) -> None:
    """Refuse a run that was asked for none of these metrics."""
    if layout.measured is None or not layout.measured.isdisjoint(wanted):
        return
    raise NothingToShowError(
        f"table: got {name!r} of a run that measures none of its metrics; expected one of "
        f"{', '.join(dict.fromkeys(wanted))}; run a suite that names them, or choose another table"
    )


def _check_variants(name: str, baseline: str, records: Iterable[Record], layout: Layout) -> None:
    """Refuse a run without the method of that label, or all of whose other labels are known to be other methods."""
    methods = {record.label: record.method for record in records}
    known = methods.get(baseline)
    may_vary = [label for label in layout.labels if label not in layout.references and label != baseline]
    if baseline in layout.labels and any(known in (None, methods.get(label, known)) for label in may_vary):
        return
    raise NothingToShowError(
        f"table: got {name!r} of a run without variants of {baseline!r}; expected that method under several "
        f"labels, {baseline!r} one of them; run a suite that has them, or choose another table"
    )

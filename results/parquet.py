"""Records as one Parquet file: a typed column for each field, nulls that are nulls.

The four mappings are JSON text. As columns of their own (`options.k`) they would differ from run to run, and one name
could hold numbers here and words there; as text, files of several runs have the same columns and can be stacked, and
`json.loads` gives back what the record held. `results.records.to_frame` has them as columns, for pandas.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin

from results.records import Record
from results.schema import descriptions

if TYPE_CHECKING:
    import pyarrow  # type: ignore[import-untyped]

COMPRESSION: Final = "zstd"


def column_types() -> dict[str, str]:
    """The type of each column in words, in order: "string", "int64", "double", "bool", or "JSON text"."""
    names = {str: "string", int: "int64", float: "double", bool: "bool"}
    found = {}
    for item in fields(Record):
        is_mapping = get_origin(item.type) is Mapping
        members = [one for one in get_args(item.type) if one is not type(None)] or [item.type]
        found[item.name] = "JSON text" if is_mapping else names[members[0]]
    return found


def nullable_columns() -> frozenset[str]:
    """The columns that may be null."""
    return frozenset(item.name for item in fields(Record) if type(None) in get_args(item.type))


def arrow_schema() -> "pyarrow.Schema":
    """The columns as Arrow knows them, each with its description."""
    import pyarrow

    types = {"string": pyarrow.string(), "int64": pyarrow.int64(), "double": pyarrow.float64(), "bool": pyarrow.bool_()}
    said, nullable = descriptions(), nullable_columns()
    return pyarrow.schema(
        [
            pyarrow.field(
                name, types.get(kind, pyarrow.string()), nullable=name in nullable, metadata={"description": said[name]}
            )
            for name, kind in column_types().items()
        ]
    )


def write_parquet(records: Sequence[Record], path: Path) -> None:
    """Write records, in their order, as the rows of a Parquet file.

    Raises:
        OSError: The file cannot be written.
    """
    import pyarrow
    from pyarrow import parquet

    kinds = column_types()
    columns: dict[str, list[Any]] = {
        name: [_cell(getattr(record, name), kind) for record in records] for name, kind in kinds.items()
    }
    table = pyarrow.Table.from_pydict(columns, schema=arrow_schema())
    parquet.write_table(table, path, compression=COMPRESSION)


def _cell(value: Any, kind: str) -> Any:
    """What stands in a column."""
    return json.dumps(value, allow_nan=False) if kind == "JSON text" else value

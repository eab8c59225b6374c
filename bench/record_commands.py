"""The commands about records themselves: what they look like, two runs or methods beside each other, copies of them."""

from typing import Annotated

import typer

from bench import UsageError

SchemaFormat = Annotated[str, typer.Option("--format", help="json or md.")]


def schema(form: SchemaFormat = "json") -> None:
    """Print the schema of a record: JSON Schema, or Markdown for people."""
    import json

    from results.schema import FORMATS, record_schema, schema_markdown

    if form not in FORMATS:
        raise UsageError(f"--format: got {form!r}; expected one of {', '.join(FORMATS)}; choose one")
    print(schema_markdown() if form == "md" else json.dumps(record_schema(), indent=1) + "\n", end="")

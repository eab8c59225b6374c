"""The commands about records themselves: what they look like, two runs or methods beside each other, copies of them."""

from pathlib import Path
from typing import Annotated

import typer

from bench import UsageError
from bench.terminal import tell

EVERY: list[str] = []

SchemaFormat = Annotated[str, typer.Option("--format", help="json or md.")]


def schema(form: SchemaFormat = "json") -> None:
    """Print the schema of a record: JSON Schema, or Markdown for people."""
    import json

    from results.schema import FORMATS, record_schema, schema_markdown

    if form not in FORMATS:
        raise UsageError(f"--format: got {form!r}; expected one of {', '.join(FORMATS)}; choose one")
    print(schema_markdown() if form == "md" else json.dumps(record_schema(), indent=1) + "\n", end="")


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Folder of a run; with --run, LABEL or SITE/LABEL.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The same, to be compared with A.")],
    run_dir: Annotated[Path | None, typer.Option("--run", help="Compare two methods of this run.")] = None,
    over: Annotated[str, typer.Option("--over", help="token-seeds or init-seeds: what is paired.")] = "token-seeds",
    metric: Annotated[list[str], typer.Option("--metric", help="This metric only; repeatable.")] = EVERY,
    form: Annotated[str, typer.Option("--format", help="md, csv or json.")] = "md",
) -> None:
    """Print what two runs, or two methods of one run, differ in: B less A, with intervals."""
    from bench.comparing import compared_methods, compared_runs
    from results.compare import OVER
    from results.compared import FORMATS, render_compared

    if form not in FORMATS:
        raise UsageError(f"--format: got {form!r}; expected one of {', '.join(FORMATS)}; choose one")
    kinds = {kind.replace("_", "-"): kind for kind in OVER}
    if over not in kinds:
        raise UsageError(f"--over: got {over!r}; expected one of {', '.join(kinds)}; choose one")
    for folder in (Path(a), Path(b)) if run_dir is None else (run_dir,):
        tell_unfinished(folder)
    if run_dir is None:
        found = compared_runs(Path(a), Path(b), over=kinds[over], metrics=metric)
    else:
        found = compared_methods(run_dir, a, b, over=kinds[over], metrics=metric)
    print(render_compared(found, form), end="")


def merge(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs of one suite.")],
    out: Annotated[Path, typer.Option("--out", help="A new folder.")],
) -> None:
    """Make one run of several: of one suite, from several machines. Contradictions are errors."""
    from bench.merging import merged

    for folder in runs:
        tell_unfinished(folder)
    merged(runs, out, tell)
    print(f"wrote {out}")


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    to: Annotated[Path, typer.Option("--to", help="A new folder.")],
    licence: Annotated[str, typer.Option("--license", help="Of the numbers, cc-by-4.0 say.")] = "",
) -> None:
    """Write a run's records as Parquet, with schema, plan, tables and card: a data set for the Hugging Face Hub."""
    from bench.published_runs import published

    tell_unfinished(run)
    published(run, to, licence, tell)
    print(f"wrote {to}")


def tell_unfinished(folder: Path) -> None:
    """Say on standard error where a run's records end in the middle of a cell."""
    from bench.folder import LEDGER
    from results.ledger import unfinished

    n_rows = unfinished(folder / LEDGER)
    if n_rows:
        tell(
            f"warning: {folder / LEDGER}: {n_rows} rows of an unfinished cell at its end are left out; "
            "the next `eludebench run` there does that cell again"
        )

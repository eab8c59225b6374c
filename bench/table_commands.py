"""The command `table`: print a table of a run or of the paper, or say whether a file of tables still holds."""

from pathlib import Path
from typing import Annotated, Final

import typer

from bench import UsageError
from bench.record_commands import tell_unfinished
from bench.terminal import tell
from results.layout import Beside as Aside

N_SHOWN = 20
"""So many lines of a difference are printed."""

Name = Annotated[str, typer.Argument(help="leaderboard, verdicts, structure, paper-table2, ...; README has them all.")]
RunDir = Annotated[Path | None, typer.Option("--run", help="Folder of a run.")]
Published = Annotated[bool, typer.Option("--published", help="The paper's own numbers, without a run.")]
Format = Annotated[str, typer.Option("--format", help="md, csv, tex or html.")]
Beside = Annotated[str, typer.Option("--beside", help="published: the paper's numbers in the cells; or nothing.")]
Check = Annotated[
    Path | None, typer.Option("--check", metavar="FILE", help="Fail where the tables in a file are others by now.")
]
ASIDE: Final[dict[str, Aside | None]] = {"": None, "published": "cell", "nothing": "nothing"}
"""Where the paper's figures stand, by what the command line says."""


def table(
    name: Name = "",
    run_dir: RunDir = None,
    published: Published = False,
    form: Format = "md",
    beside: Beside = "",
    check: Check = None,
) -> None:
    """Print a table of a run, or of the paper; or check the tables in a file."""
    from bench.committed import difference, made_again
    from bench.folder import rendered, rendered_published
    from results.tables import TABLES

    if beside not in ASIDE:
        raise UsageError(f"--beside: got {beside!r}; expected published or nothing; leave it out for the usual place")
    if published and (run_dir is not None or beside):
        other = "--beside" if beside else "--run"
        raise UsageError(f"--published: got {other} as well; expected one of them; leave one out")
    if check is not None:
        again = made_again(check, name, run_dir, published=published, beside=ASIDE[beside])
        lines = difference(check, again)
        if lines:
            print("\n".join(lines[:N_SHOWN]))
            tell(f"error: {check}: its tables no longer follow from the records; make them again")
            raise typer.Exit(3)
        print(f"{check}: its tables follow from the records")
        return
    if not name:
        raise UsageError(f"NAME: got none; expected one of {', '.join(sorted(TABLES))}; choose one, or --check a file")
    if published:
        print(rendered_published(name, form), end="")
    elif run_dir is None:
        raise UsageError("--run: got none; expected the folder of a run; give one, or --published for the paper's")
    else:
        tell_unfinished(run_dir)
        print(rendered(run_dir, name, form, ASIDE[beside]), end="")

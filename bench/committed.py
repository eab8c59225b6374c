"""Tables that are kept in files, and whether they still follow from the records: READMEs, and tables of one run.

A README has its tables in blocks, `<!-- table: NAME of FOLDER -->`, where FOLDER is one of `results`; the top-level
README leaves the folder out where `SHOWN` has it.
"""

import re
from difflib import unified_diff
from pathlib import Path
from typing import Final

from bench import UsageError
from bench.folder import PLAN, outcomes, read_plan, rendered, rendered_published
from results.layout import Beside
from results.tables import FORMATS, TABLES, embed

RESULTS: Final = Path(__file__).resolve().parent.parent / "results"
"""Where runs are kept in the repository."""
SHOWN: Final = {
    "leaderboard": "quick",
    "measured": "quick",
    "properties": "properties",
    "proxy_verdicts": "quick",
}
"""The folders of the blocks that the top-level README calls without one."""
LONG: Final = ("sweep",)
"""Tables that stand in no README: a row for every configuration."""
_BLOCKS: Final = re.compile(r"^<!-- table: (.*) -->$", re.MULTILINE)


def with_true_blocks(text: str, results: Path = RESULTS) -> str:
    """The text with every block made again.

    Raises:
        UsageError: A block is of nothing that is kept, or stands there twice.
    """
    for name in _BLOCKS.findall(text):
        try:
            text = embed(text, name, block(name, results))
        except ValueError as error:
            raise UsageError(str(error)) from error
    return text


def block(name: str, results: Path = RESULTS) -> str:
    """What stands in the block of that name.

    Raises:
        UsageError: There is no such table or folder.
    """
    table, _, folder = name.partition(" of ")
    if table not in (*TABLES, "measured") or not (folder or table in SHOWN):
        raise UsageError(
            f"table: got a block {name!r}; expected `TABLE of FOLDER`, where FOLDER is one of "
            f"{', '.join(kept_runs(results))}; write it so"
        )
    where = results / (folder or SHOWN[table])
    return measured(where) if table == "measured" else rendered(where, table, "md")


def measured(folder: Path) -> str:
    """How long a run took, and on what, in a sentence."""
    took = read_plan(folder)["took"]
    record = next(record for group in outcomes(folder).values() for record in group)
    versions = ", ".join(f"{name} {record.versions[name]}" for name in ("torch", "timm", "hdbscan", "overcomplete"))
    minutes = (took["seconds"] + took["judging_seconds"]) / 60
    return (
        f"After installation this took {minutes:.1f} minutes in {took['workers']} processes "
        f"({record.device}; Python {record.versions['python']}, {versions})."
    )


def kept_runs(results: Path = RESULTS) -> list[str]:
    """The folders of records that are kept."""
    return sorted(path.parent.name for path in results.glob(f"*/{PLAN}"))


def blocks_of(folder: str, results: Path = RESULTS) -> list[str]:
    """The tables of a folder of records, as blocks are called; none of a folder that the top-level README shows."""
    tables = read_plan(results / folder)["tables"] if folder not in SHOWN.values() else []
    return [f"{table} of {folder}" for table in tables if table not in LONG]


def with_all_blocks(text: str, blocks: dict[str, list[str]]) -> str:
    """The text of the results' README with a block, empty where it is new, for every table of every folder.

    Args:
        text: The README, with a section for each folder.
        blocks: What the blocks of each folder are called.
    """
    for folder, names in blocks.items():
        for name in names:
            begin = f"<!-- table: {name} -->"
            if begin not in text:
                before, heading, section = text.partition(f"\n## {folder}\n")
                own, following, rest = section.partition("\n## ")
                new = f"{begin}\n<!-- end table -->\n"
                text = f"{before}{heading}{own.rstrip()}\n\n{new}{following}{rest}"
    return text


def made_again(file: Path, name: str, run: Path | None, *, published: bool, beside: Beside | None) -> str:
    """What a file of tables should hold: its text with its blocks made again, or the one table that it is.

    Args:
        file: A text with blocks; or one table of a run, or of the paper, and nothing else.
        name: Of the table; empty takes the name of the file.
        run: The run; None takes the folder of the file.
        published: Whether it is a table of the paper.
        beside: Where the paper's figures stand.

    Raises:
        UsageError: The file cannot be read, or nothing says what it holds.
    """
    text = read(file)
    if _BLOCKS.search(text):
        return with_true_blocks(text)
    form, table = file.suffix.removeprefix("."), name or file.stem
    if form not in FORMATS or table not in TABLES:
        raise UsageError(
            f"--check: got {file}, which has no block `<!-- table: NAME -->`, and whose name is that of no table; "
            f"expected blocks, or a table's name with the ending of one of {', '.join(FORMATS)}; name the table first"
        )
    if published:
        return rendered_published(table, form)
    return rendered(run or file.parent, table, form, beside)


def read(file: Path) -> str:
    """The text of a file.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--check: got {file}, which cannot be read ({error}); expected a text; give another"
        ) from error


def difference(file: Path, again: str) -> list[str]:
    """The lines in which a file differs from what it should hold; none where it does not."""
    before = read(file).splitlines()
    return list(unified_diff(before, again.splitlines(), str(file), "from the records", n=0, lineterm=""))

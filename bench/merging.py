"""Runs of several machines of one suite as one run: plans, records and what judges left, each thing once.

Nothing is decided between two runs that say different things: that is an error which names them. What comes of it is
the folder of a run like any other, so that `status`, `table` and `run` go on from there.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

from bench import UsageError
from bench.folder import LEDGER, OUTCOMES, outcomes, read_plan, renderer, write_plan, write_text
from bench.judged import CONTEXT, FOLDER, REPLIES, Context
from bench.merged_plans import conflicts_of, merged_plan
from bench.new_folder import new_folder
from judges.manifest import load
from judges.replies import MAY_DIFFER, read_replies, stored_identity
from results.ledger import Ledger
from results.merging import united

N_TOLD = 10
"""Conflicts that are told one by one; of more, how many there are."""


def merged(folders: Sequence[Path], out: Path, say: Callable[[str], None]) -> None:
    """Write what several runs hold together into a new folder.

    Args:
        folders: The runs; where two of them hold the same, the first one's is kept.
        out: A new folder.
        say: Told what a person should know.

    Raises:
        UsageError: A folder holds no run, the same one is there twice, `out` is taken, or the runs contradict each
            other.
        StorageError, LedgerError: The new folder cannot be written.
    """
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise UsageError(f"RUN: got {', '.join(map(str, folders))}; expected two or more folders, each once; name them")
    plans = {str(folder): read_plan(folder, "RUN") for folder in folders}
    refuse(conflicts_of(plans))
    for folder in folders:
        if (folder / OUTCOMES).is_dir():
            say(f"{folder}: what lies in {OUTCOMES} is not recorded yet and is left out; run the suite there first")
    found = united({str(folder): outcomes(folder) for folder in folders})
    refuse(found.conflicts)
    judging = sources(folders)
    with new_folder(out, "--out") as aside:
        plan = merged_plan(plans)
        write_plan(aside, plan)
        with Ledger(aside / LEDGER) as ledger:
            for group in found.groups:
                ledger.append_cell(group)
        for where, source in judging.items():
            shutil.copytree(source, aside / FOLDER / where, ignore=shutil.ignore_patterns("*lock", "*.partial*"))
        made = renderer(aside)
        for name, form in product(plan["tables"], ("md", "csv")):
            with suppress(UsageError):  # of what no run has measured there is no table yet
                write_text(aside / f"{name}.{form}", made(name, form))
    say(f"{len(found.groups)} cells of {len(folders)} runs; {found.n_equal} were in several, with equal numbers")


def refuse(conflicts: Iterator[str] | Sequence[str]) -> None:
    """Stop where runs contradict each other.

    Raises:
        UsageError: They do; the first contradictions are told.
    """
    lines = list(dict.fromkeys(conflicts))
    if not lines:
        return
    told = [f"RUN: {line}; expected the same" for line in lines[:N_TOLD]]
    if len(lines) > N_TOLD:
        told.append(f"RUN: {len(lines) - N_TOLD} more")
    raise UsageError("\n".join([*told, "RUN: leave a run out; `eludebench compare` shows two of them side by side"]))


def sources(folders: Sequence[Path]) -> dict[Path, Path]:
    """Where the work of each panel at each site is taken from, by its place in a run.

    Raises:
        UsageError: Two runs have other work of one panel at one site.
    """
    found: dict[Path, Path] = {}
    conflicts: list[str] = []
    for folder in folders:
        root = folder / FOLDER
        for context in sorted(root.glob(f"*/*/{CONTEXT}")):
            where = context.parent.relative_to(root)
            first = found.setdefault(where, context.parent)
            if first != context.parent:
                conflicts += unlike_work(first, context.parent)
    refuse(conflicts)
    return found


def unlike_work(one: Path, other: Path) -> Iterator[str]:
    """What differs of two panels' work: who was compared, what was asked, who judged, and what was replied."""
    left, right = work_of(one), work_of(other)
    for what in dict.fromkeys([*left, *right]):
        if left.get(what) != right.get(what):
            yield f"{what} of {one} and of {other} differ"


def work_of(where: Path) -> Mapping[str, Any]:
    """All that a panel's findings at one site follow from, by what it is; times are left out."""
    manifest, context = load(where), Context.load(where)
    found: dict[str, Any] = {
        "the pools": (manifest.pool_id, manifest.pool),
        "the presentations": manifest.presentations,
        "the fingerprints of data and backbone": dict(manifest.fingerprints),
        "what is compared and who judges": json.loads((where / CONTEXT).read_text(encoding="utf-8")),
    }
    for judge in context.judges:
        path = where / REPLIES / f"{judge}.jsonl"
        if path.exists():
            identity = stored_identity(path.parent, judge)
            found[f"the identities of judge {judge}"] = {
                key: value for key, value in identity.items() if key not in MAY_DIFFER
            }
            found[f"the replies of judge {judge}"] = sorted(
                (each.presentation_id, each.reply.attempt, each.reply.text) for each in read_replies(path)
            )
    return found

"""The folder of a run: what was planned (`run.json`), what was measured (`records.jsonl`), and the tables.

`run.json` says which cells the last command asked for, so that `table` and `status` need neither the suite nor torch;
records of other cells stay in the ledger and come back when they are asked for again.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from bench import UsageError
from bench.cache import storage_error
from bench.changes import Changes
from metrics.catalogue import ROWS
from results.layout import PANELS, Beside, Column, Layout, Site, Sweep
from results.ledger import read
from results.records import Record, latest
from results.sweeps import SweepSpec
from results.tables import TABLES, find_table, render, render_published

PLAN, LEDGER, OUTCOMES = "run.json", "records.jsonl", "outcomes"
SCHEMA = 1
ABSENT = "absent"
"""The content of a data set that is not there: its site has not been run."""
TAKEN_OVER = {
    kind: frozenset(
        column.metric
        for spec in TABLES.values()
        if not isinstance(spec, SweepSpec)
        for column in spec.columns
        if column.seeds == kind
    )
    for kind in ("comparison", *PANELS)
}
"""Metrics of which a run has one value for all init seeds where it compares them, or one for each kind of panel."""


@runtime_checkable
class Renderer(Protocol):
    """Makes a table of one run: `bench.folder.renderer`."""

    def __call__(self, name: str, format: str, beside: Beside | None = None) -> str: ...  # noqa: D102


class FolderError(UsageError):
    """A run folder that cannot be used; one line with the next step."""


def read_plan(folder: Path, argument: str = "--run") -> dict[str, Any]:
    """What the last command asked for.

    Raises:
        FolderError: The folder holds no readable plan.
    """
    path = folder / PLAN
    try:
        plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if plan["schema"] != SCHEMA:
            raise ValueError(f"schema {plan['schema']}, not {SCHEMA}")
    except FileNotFoundError as error:
        usual = Path("runs") / folder
        how = f"make one with `eludebench run SUITE --out {folder}`"
        meant = f"did you mean {usual}?" if (usual / PLAN).exists() else how
        raise FolderError(
            f"{argument}: got {folder}, which holds no {PLAN}; expected the folder of a run; {meant}"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        message = f"{argument}: {path} cannot be read ({error}); expected a plan; run the suite again"
        raise FolderError(message) from error
    return plan


def changes_of(folder: Path) -> Changes:
    """What a run's command line said of its suite; nothing where there is no run yet."""
    return Changes.kept_in(read_plan(folder, "--out")) if (folder / PLAN).exists() else Changes()


def check_folder(folder: Path, plan: Mapping[str, Any]) -> None:
    """Refuse a folder that holds something else than a run of this plan's suite, with its changes, on its images.

    Raises:
        FolderError: It is a file, holds another run, or holds other things.
    """
    if folder.exists() and not folder.is_dir():
        raise FolderError(f"--out: got {folder}, which is a file; expected a folder; give another")
    if not folder.exists():
        return
    if not (folder / PLAN).exists():
        # A run that was killed in its first second leaves an empty ledger or half a plan: those are ours.
        if all(path.name.startswith((LEDGER, PLAN, OUTCOMES)) for path in folder.iterdir()):
            return
        raise FolderError(
            f"--out: got {folder}, which is not empty and holds no run; expected a new folder or a run's; give another"
        )
    before, suite, changes = read_plan(folder, "--out"), plan["suite"], Changes.kept_in(plan)
    found, kept = before["suite"], Changes.kept_in(before)
    if found != suite:
        raise FolderError(
            f"--out: got {folder}, which holds a run of suite {found!r}; expected one of {suite!r}; give another folder"
        )
    if not kept.alike(changes):
        raise FolderError(
            f"--out: got {folder}, which holds a run with {kept}; expected the same, not {changes}; give another folder"
        )
    listed = {site["label"]: site.get("content", ABSENT) for site in before.get("sites", [])}
    for site in plan["sites"]:
        was, now = listed.get(site["label"], ABSENT), site.get("content", ABSENT)
        if was != now and ABSENT not in (was, now):
            raise FolderError(
                f"--out: got {folder}, whose run read other files at {site['label']}: the hash of "
                f"their list was {was[:12]} and is {now[:12]}; expected the same; put them back, or give another folder"
            )


def make_folder(folder: Path) -> None:
    """Make the folder of a run.

    Raises:
        StorageError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error("--out", folder, error) from error


def write_text(path: Path, text: str, *, mark: str = "") -> None:
    """Write a file aside and rename it into place.

    Args:
        path: The file.
        text: What is in it.
        mark: Tells the file aside from others', where several processes may write the same one.

    Raises:
        StorageError: It cannot be written.
    """
    write_bytes(path, text.encode("utf-8"), mark=mark)


def write_bytes(path: Path, content: bytes, *, mark: str = "") -> None:
    """Write a file aside and rename it into place; see `write_text`.

    Raises:
        StorageError: It cannot be written.
    """
    aside = path.with_name(f"{path.name}{mark}.partial")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise storage_error("--out", path, error) from error


def write_plan(folder: Path, plan: Mapping[str, Any]) -> None:
    """Write `run.json`."""
    write_text(folder / PLAN, json.dumps({"schema": SCHEMA, **plan}, indent=1) + "\n")


def outcomes(folder: Path) -> dict[str, list[Record]]:
    """The last closed group of records of every cell; empty where nothing was measured yet."""
    path = folder / LEDGER
    return latest(read(path)) if path.exists() else {}


def layout_of(plan: Mapping[str, Any]) -> Layout:
    """Rows and cells of a table of this plan.

    Metrics of plugins that no table knows are columns of the leaderboard: the plan says their unit and direction. What
    the catalogue knows and no table shows is in the leaderboard's CSV.
    """
    shown = {column.metric for spec in TABLES.values() if not isinstance(spec, SweepSpec) for column in spec.columns}
    plugins = {row["name"]: row for row in plan.get("plugin_metrics", [])}
    others = [
        other_column(name, row["unit"], row["direction"], csv_only=name not in plugins)
        for name in plan["metrics"]
        if name not in shown and (row := plugins.get(name) or catalogued(name))
    ]
    return Layout(
        sites=tuple(site_of(site) for site in plan["sites"]),
        labels=tuple(plan["labels"]),
        token_seeds=tuple(plan["token_seeds"]),
        init_seeds=tuple(plan["init_seeds"]),
        cells={
            (cell["site"], cell["label"], cell["token_seed"], cell["init_seed"]): cell["id"] for cell in plan["cells"]
        },
        comparisons={(one["site"], one["label"]): one["id"] for one in plan.get("comparisons", [])},
        references=frozenset(plan["references"]),
        sweeps=tuple(Sweep(**sweep) for sweep in plan.get("sweeps", [])),
        verdicts={
            (one["kind"], one["site"], label): identity
            for one in plan.get("judged", [])
            for label, identity in one["verdicts"].items()
        },
        panels=captions(plan),
        measured=measured_in(plan),
        others=tuple(others),
    )


def site_of(kept: Mapping[str, Any]) -> Site:
    """A site as tables know it."""
    told = {name: kept[name] for name in ("label", "dataset", "backbone", "module")}
    return Site(**told, warnings=tuple(kept.get("warnings", ())))


def captions(plan: Mapping[str, Any]) -> dict[str, str]:
    """What is said of each kind of panel: who judged and how, and what a reader has to know, whatever the site."""
    found: dict[str, str] = {}
    for kind in dict.fromkeys(one["kind"] for one in plan.get("judged", [])):
        own = [one for one in plan["judged"] if one["kind"] == kind]
        said = [caveat for one in own for caveat in one["caveats"]]
        found[kind] = own[0]["caption"] + (f" Warning: {'; '.join(said)}." if said else "")
    return found


def measured_in(plan: Mapping[str, Any]) -> frozenset[str]:
    """The metrics of which a run of this plan has values."""
    kinds = {one["kind"] for one in plan.get("judged", [])} | ({"comparison"} if plan.get("comparisons") else set())
    return frozenset(plan["metrics"]).union(*(names for kind, names in TAKEN_OVER.items() if kind in kinds))


def catalogued(name: str) -> dict[str, Any] | None:
    """Unit and direction of a built-in metric; None of others."""
    row = ROWS.get(name)
    return None if row is None else {"unit": row.unit, "direction": row.direction}


def other_column(name: str, unit: str, direction: Any, *, csv_only: bool) -> Column:
    """A column for a metric that no table has: under its own name, with its unit where that is no percentage."""
    heading = name if unit in ("%", "1") else f"{name} ({unit})"
    return Column(name, heading, direction, 2 if unit == "%" else 3, 1 if unit == "%" else 3, unit, csv_only=csv_only)


def rendered(folder: Path, name: str, format: str, beside: Beside | None = None) -> str:
    """A table of a run, as text, with the paper's figures where that is said.

    Raises:
        UsageError: The folder holds no run, or there is no such table or format.
    """
    return renderer(folder)(name, format, beside)


def renderer(folder: Path) -> Renderer:
    """What makes table after table of a run, as text, whose records are read once.

    Raises:
        UsageError: The folder holds no run; when a table is made, there is no such table or format.
    """
    layout = layout_of(read_plan(folder))
    records = [record for group in outcomes(folder).values() for record in group]

    def made(name: str, format: str, beside: Beside | None = None) -> str:
        try:
            return render(find_table(name), records, layout=layout, format=format, beside=beside)
        except (LookupError, ValueError) as error:
            raise UsageError(str(error.args[0])) from error

    return made


def rendered_published(name: str, format: str) -> str:
    """A table of the paper, as text, of what the paper prints.

    Raises:
        UsageError: The paper has no such table, or there is no such format.
    """
    try:
        return render_published(find_table(name), format)
    except (LookupError, ValueError) as error:
        raise UsageError(str(error.args[0])) from error


def states(plan: Mapping[str, Any], groups: Mapping[str, Sequence[Record]]) -> list[tuple[str, str, str]]:
    """Name, id and state ("complete", "failed: why", "to do") of every cell and comparison of the plan."""
    named = [(cell["name"], cell["id"]) for cell in plan["cells"]]
    named += [(f"{one['site']}/{one['label']}/stability", one["id"]) for one in plan.get("comparisons", [])]
    rows = []
    for name, identity in named:
        closing = groups[identity][-1] if identity in groups else None
        state = "to do" if closing is None else str(closing.text)
        if closing is not None and closing.reason:
            state = f"{state}: {closing.reason}"
        rows.append((name, identity, state))
    return rows

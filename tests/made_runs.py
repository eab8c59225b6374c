"""Small runs made by hand, as folders: a plan, a ledger, and what a panel of judges said where it is asked for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.folder import LEDGER, write_plan
from results.ledger import Ledger
from results.records import Record

TOKEN_SEEDS = (1, 2, 3)
POOL = "a" * 32


def row(cell: str, label: str, seed: int, **changes: Any) -> Record:
    """A value row of the metric `r2`, unless said otherwise."""
    fields: dict[str, Any] = {
        "kind": "value", "suite": "tiny", "cell": cell, "site": "s", "dataset": "shapes", "backbone": "vit",
        "module": "blocks.0", "method": label, "label": label, "token_seed": seed, "init_seed": 7, "metric": "r2",
        "value": 50.0, "unit": "%", "interval": "exact", "n": 10, "options": {"k": 20},
        "site_options": {"dataset": {"n_train": 5}}, "notes": {"machine": "m1"}, "commit": "c1", "dirty": False,
        "versions": {"torch": "2.9"}, "device": "cpu", "seconds": 1.5, "time": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return Record(**fields | changes)


def ending(first: Record, text: str = "complete", reason: str | None = None) -> Record:
    """The row that closes the cell of another row."""
    nothing: dict[str, Any] = {"value": None, "low": None, "high": None, "unit": "", "interval": "", "n": 0}
    own = {"kind": "cell", "metric": "status", "text": text, "reason": reason, "n_excluded": 0}
    return Record(**{**vars(first), **nothing, **own})


def group(cell: str, label: str, seed: int, values: Mapping[str, float | None], **changes: Any) -> list[Record]:
    """A complete cell with these values; a null one has a reason."""
    rows = [
        row(cell, label, seed, metric=metric, value=value, reason=None if value is not None else "no atom", **changes)
        for metric, value in values.items()
    ]
    return [*rows, ending(rows[0])]


def plan_of(labels: Sequence[str], seeds: Sequence[int] = TOKEN_SEEDS, site: str = "s", **changes: Any) -> Any:
    """The plan of a suite with one site, one cell for each label and token seed."""
    return {
        "suite": "tiny",
        "description": "made by hand",
        "sites": [{"label": site, "dataset": "shapes", "backbone": "vit", "module": "blocks.0", "content": "c" * 64}],
        "labels": list(labels),
        "references": [],
        "site_options": {site: {"dataset": {"n_train": 5}}},
        "token_seeds": list(seeds),
        "init_seeds": [7],
        "metrics": ["r2", "ms_score"],
        "tables": ["leaderboard"],
        "sweeps": [],
        "comparisons": [],
        "plugin_metrics": [],
        "cells": [
            {
                "id": f"{label}{seed}",
                "name": f"{site}/{label}/t{seed}/i7",
                "site": site,
                "label": label,
                "token_seed": seed,
                "init_seed": 7,
            }
            for label in labels
            for seed in seeds
        ],
        **changes,
    }


def judged_entry(labels: Sequence[str], pool: str = POOL, site: str = "s", panel: str = "proxy") -> dict[str, Any]:
    """What the plan says of a panel."""
    return {
        "kind": "proxy_panel",
        "panel": panel,
        "site": site,
        "pool": pool,
        "caption": "Judged.",
        "caveats": [],
        "cells": [f"{label}{seed}" for label in labels for seed in TOKEN_SEEDS],
        "verdicts": {label: f"v{label}" for label in labels},
    }


def verdict(label: str, rate: float, pool: str = POOL, **changes: Any) -> list[Record]:
    """What a panel said of a method."""
    notes = {"machine": "m1", "pool": pool, "panel": "proxy", "judges": "pixels", "reader": 1}
    ends = {"low": rate - 1, "high": rate + 1, "interval": "bootstrap over unit pairs"}
    return group(f"v{label}", label, 1, {"proxy_win_rate": rate}, notes=notes, **ends, **changes)


def write_run(folder: Path, plan: Mapping[str, Any], groups: Sequence[Sequence[Record]]) -> Path:
    """A run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_plan(folder, plan)
    with Ledger(folder / LEDGER) as ledger:
        for rows in groups:
            ledger.append_cell(rows)
    return folder


def a_run(folder: Path, values: Mapping[str, Sequence[float | None]], **changes: Any) -> Path:
    """A run whose methods have these values of `r2`, one for each token seed."""
    groups = [
        group(f"{label}{seed}", label, seed, {"r2": value}, **changes)
        for label, own in values.items()
        for seed, value in zip(TOKEN_SEEDS, own, strict=False)
    ]
    return write_run(folder, plan_of(list(values)), groups)

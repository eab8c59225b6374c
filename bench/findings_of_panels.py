"""What the panels of a run found, for figures: read from the reports that they left beside the replies."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.folder import read_plan
from bench.judged import FOLDER
from results.panels import Finding, Share, Voter


def findings_of(folder: Path) -> tuple[Finding, ...]:
    """What each panel found at each site that the plan of the run knows; none where nobody judged.

    A run whose folder of replies is gone keeps its records, but has no findings.

    Raises:
        FolderError: The folder holds no run.
    """
    found = []
    for entry in read_plan(folder).get("judged", []):
        told = _told(folder / FOLDER / entry["panel"] / entry["site"], entry["site"])
        if told is not None:
            found.append(finding_of(told, entry["kind"]))
    return tuple(found)


def _told(where: Path, site: str) -> Mapping[str, Any] | None:
    """The report as JSON values; None where there are no replies."""
    path = where / "report.json"
    if path.exists():
        read: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return read
    if not where.is_dir():
        return None
    from bench.conclusions import concluded, told

    return told(concluded(where))


def finding_of(told: Mapping[str, Any], kind: str) -> Finding:
    """A report as `bench.conclusions.told` gives it, as figures need it."""
    from judges.markdown import letters

    standings, labels = told["ranking"]["standings"], told["labels"]
    voters = tuple(
        Voter(
            one["judge"],
            told["kinds"][one["judge"]],
            _share(one["position_bias"], offset=50.0),
            _share(one["follows_position"]),
        )
        for one in told["agreement"]["voters"]
    )
    return Finding(
        site=told["run"]["site"],
        panel=told["run"]["panel"],
        kind=kind,
        title=told["panel"],
        labels=tuple(labels.get(one["method"], one["method"]) for one in standings),
        groups=tuple(letters(one["groups"]) for one in standings),
        wins=tuple(tuple(row) for row in told["ranking"]["wins"]),
        flips=tuple(_share(one["flip_rate"]) for one in standings),
        voters=voters,
        kappas=tuple((*one["judges"], _share(one)) for one in told["agreement"]["kappas"]),
        alpha=_share(told["agreement"]["alpha"]),
        warnings=tuple(told["warnings"]),
    )


def _share(told: Mapping[str, Any], *, offset: float = 0.0) -> Share:
    """A number with its interval, `offset` added."""
    value, low, high = (None if told[name] is None else told[name] + offset for name in ("value", "low", "high"))
    return Share(value, low, high, told["reason"])

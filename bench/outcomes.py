"""What came of the tasks of a run, as files in its folder, until the ledger holds it.

A worker puts by what it found before it says so: written aside, then renamed. Whoever runs the suite may be killed
meanwhile; the same command again takes up what is there, records it, and removes the files. Failures are not put by,
since they are tried again, and neither is what the cache alone holds.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from bench.folder import OUTCOMES, make_folder, write_text
from bench.lanes import Failure
from bench.measuring import Found, Measurement, Skipped
from bench.provenance import provenance
from bench.sweeps import Trial
from metrics.catalogue import Value

KINDS: dict[str, Any] = {
    "found": Found,
    "measurement": Measurement,
    "skipped": Skipped,
    "trial": Trial,
    "value": Value,
}
"""What is told apart in the files; all else is numbers, texts, lists and mappings of these."""


def evaluated(cell: str) -> str:
    """The key of what was measured of one cell, whichever evaluation it was part of."""
    return f"evaluated {cell}"


@dataclass(frozen=True)
class Outcomes:
    """The outcomes that lie in the folder of a run; a `bench.lanes.Kept`.

    Attributes:
        run: The folder of the run.
    """

    run: Path

    def path(self, key: str) -> Path:
        """The file of what came of a task."""
        return self.run / OUTCOMES / f"{quote(key, safe=' ')}.json"

    def put(self, task: str, outcome: Any) -> None:
        """Put by what came of a task; of an evaluation, of each of its cells apart.

        Raises:
            StorageError: The folder cannot be written.
        """
        if isinstance(outcome, dict):
            for cell, own in outcome.items():
                self.put(evaluated(cell), own)
        elif outcome is not None and not isinstance(outcome, Failure):
            # What no record can hold is told as it is, and becomes the failure of its cell there.
            with suppress(TypeError):
                whole = {"of": task, "versions": provenance()["versions"], "outcome": encoded(outcome)}
                make_folder(self.run / OUTCOMES)
                write_text(self.path(task), json.dumps(whole) + "\n", mark=f".{uuid4().hex}")

    def get(self, task: str) -> Any:
        """What was put by for a task; None where nothing was, or by other versions of the packages."""
        try:
            whole = json.loads(self.path(task).read_text(encoding="utf-8"))
            if (whole["of"], whole["versions"]) != (task, provenance()["versions"]):
                return None
            return decoded(whole["outcome"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def drop(self, *keys: str) -> None:
        """Throw away what was put by under these keys."""
        for key in keys:
            self.path(key).unlink(missing_ok=True)

    def end(self, tasks: Sequence[str]) -> None:
        """Throw away what is left of tasks that are recorded, and what was half written when a worker died."""
        self.drop(*tasks)
        folder = self.run / OUTCOMES
        for path in folder.glob("*.partial"):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # others may still wait for their command
            folder.rmdir()


def encoded(outcome: Any) -> Any:
    """An outcome as JSON can hold it.

    Raises:
        TypeError: It cannot.
    """
    for kind, made in KINDS.items():
        if type(outcome) is made:
            return {"is": kind, "has": {one.name: encoded(getattr(outcome, one.name)) for one in fields(made)}}
    if outcome is None or isinstance(outcome, bool | str):
        return outcome
    if isinstance(outcome, Integral):
        return int(outcome)
    if isinstance(outcome, Real):
        return float(outcome)
    if isinstance(outcome, Mapping) and all(isinstance(key, str) for key in outcome):
        return {"is": "mapping", "has": {key: encoded(value) for key, value in outcome.items()}}
    if isinstance(outcome, list | tuple):
        return [encoded(one) for one in outcome]
    raise TypeError(f"outcome: got a {type(outcome).__name__}; expected what a record can hold; convert it first")


def decoded(data: Any) -> Any:
    """The outcome that was encoded so; tuples come back as lists."""
    if isinstance(data, list):
        return [decoded(one) for one in data]
    if not isinstance(data, dict):
        return data
    has = {key: decoded(value) for key, value in data["has"].items()}
    return has if data["is"] == "mapping" else KINDS[data["is"]](**has)

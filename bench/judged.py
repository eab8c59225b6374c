"""The folder of what a panel judges at one site: where things are, and what the run says of it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, cast

from bench import UsageError
from bench.folder import write_text
from judges.protocol import JudgeKind
from results.layout import Seeds

FOLDER: Final = "judging"
PICTURES: Final = "grids"
REPLIES: Final = "replies"
CONTEXT: Final = "context.json"


@dataclass(frozen=True)
class Context:
    """What is judged, in the words of the run.

    Attributes:
        suite: Name of the suite.
        site: Label of the site.
        panel: Name of the panel.
        kind: What kind of panel it is.
        judges: The kind of each judge.
        accepted: Judges that are used although they fail their calibration.
        cells: The cells of each label, one for every token seed.
        left_out: Why other labels of the suite are not compared.
    """

    suite: str
    site: str
    panel: str
    kind: Seeds
    judges: Mapping[str, JudgeKind]
    accepted: tuple[str, ...]
    cells: Mapping[str, tuple[str, ...]]
    left_out: Mapping[str, str]

    @property
    def prefix(self) -> str:
        """What the names of its values in the records begin with."""
        return "llm" if self.kind == "llm_panel" else "proxy"

    def save(self, folder: Path) -> None:
        """Write it into the folder of the site."""
        write_text(folder / CONTEXT, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Context":
        """What `save` wrote.

        Raises:
            UsageError: It is not there, or cannot be read.
        """
        path = folder / CONTEXT
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            raw["accepted"] = tuple(raw["accepted"])
            raw["cells"] = {label: tuple(cells) for label, cells in raw["cells"].items()}
            return cls(**{**raw, "kind": cast(Seeds, raw["kind"])})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path}: cannot be read ({error}); expected what `eludebench judge run` left; run it again"
            ) from error

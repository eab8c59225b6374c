"""The folder of what a panel judges at one site: where things are, and what the run says of it."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from bench import UsageError
from bench.folder import write_text
from judges.manifest import HEADER, Manifest, load
from judges.protocol import Judge, JudgeKind, Verdict, claims_of
from judges.reading import read
from judges.replies import StoredReply, check_claims, read_replies

FOLDER: Final = "judging"
PICTURES: Final = "grids"
REPLIES: Final = "replies"
CONTEXT: Final = "context.json"
LOCK: Final = "lock"


@dataclass(frozen=True)
class Context:
    """What is judged, in the words of the run.

    Attributes:
        suite: Name of the suite.
        site: Label of the site.
        panel: Name of the panel.
        judges: The kind of each judge.
        accepted: Judges that are used although they fail their calibration.
        cells: The cells of each label, one for every token seed.
        left_out: Why other labels of the suite are not compared.
    """

    suite: str
    site: str
    panel: str
    judges: Mapping[str, JudgeKind]
    accepted: tuple[str, ...]
    cells: Mapping[str, tuple[str, ...]]
    left_out: Mapping[str, str]

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
            return cls(**raw)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path}: cannot be read ({error}); expected what `eludebench judge run` left; run it again"
            ) from error


def check_judges(folder: Path, panel: str, judges: Iterable[Judge]) -> None:
    """See that judges which are not asked now are still those whose replies count, at every site.

    Raises:
        RepliesError: A judge's options are not what its replies follow from.
    """
    for where in sorted((folder / FOLDER / panel).glob(f"*/{REPLIES}")):
        for judge in judges:
            check_claims(where, judge.name, claims_of(judge))


def verdicts_in(folder: Path, judge: str, *, reask: bool) -> dict[str, Verdict]:
    """What a judge's stored replies say, by presentation."""
    return {identity: verdict for identity, (_, verdict) in counted(folder, judge, reask=reask).items()}


def counted(folder: Path, judge: str, *, reask: bool) -> dict[str, tuple[str, Verdict]]:
    """The text that counts of a judge's stored replies to each presentation, and what it says.

    Of several that is the first that can be read, else the last; without `reask` only first replies count.
    """
    found: dict[str, tuple[str, Verdict]] = {}
    for one in stored(folder, judge):
        if one.reply.attempt != "first" and not reask:
            continue
        if one.presentation_id not in found or found[one.presentation_id][1].rung == "invalid":
            found[one.presentation_id] = one.reply.text, read(one.reply.text)
    return found


def stored(folder: Path, judge: str) -> Iterator[StoredReply]:
    """A judge's replies; none where it was not asked yet."""
    path = folder / f"{judge}.jsonl"
    return read_replies(path) if path.exists() else iter(())


@contextmanager
def beside_others(where: Path, manifest: Manifest, context: Context) -> Iterator[None]:
    """While judges are asked at a site: its manifest and context are written, and nobody writes others.

    Several processes may ask the same, each its own judges; who would ask otherwise has to be alone. A judge that was
    accepted by name stays accepted.

    Raises:
        UsageError: Another process is asking something else there.
    """
    import fcntl  # not on every system

    where.mkdir(parents=True, exist_ok=True)
    with (where / LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        if (where / CONTEXT).exists():
            before = Context.load(where)
            context = replace(context, accepted=tuple(sorted({*before.accepted, *context.accepted})))
        is_same = (where / CONTEXT).exists() and (where / HEADER).exists()
        if not (is_same and before == context and load(where) == manifest):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    f"{where}: another process is asking judges there, of other methods or under other settings; "
                    "expected to be alone; wait until it is done or end it"
                ) from error
            manifest.save(where)
            context.save(where)
            fcntl.flock(file, fcntl.LOCK_SH)
        yield

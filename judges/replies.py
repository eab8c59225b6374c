"""The replies of one judge in one folder: `NAME.jsonl`, one line for each, only ever appended to.

A presentation's replies arrive in one write, and it counts as answered once its closing line, line end included, is
there. What a killed process leaves behind the last closed presentation is cut off when the file is next opened for
asking. `NAME.identity.json` says what the replies follow from; replies of another model, server or decoding never join
them. `NAME.lock` is held while a process asks, so that two never ask the same.
"""

import errno
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from judges.protocol import Reply

MAY_DIFFER = frozenset({"n_urls", "reader_version"})
"""What of an identity may change between two sittings: neither decides what a judge answers to a first request."""

_SYNC_SECONDS = 0.2


class RepliesError(Exception):
    """Replies that cannot be read, added to or locked; the message is one line and says what to do next."""


@dataclass(frozen=True)
class StoredReply:
    """One line of the file.

    Attributes:
        presentation_id: What it answers.
        judge: Who.
        reply: What came back.
        is_last: It closes its presentation, whose verdict it is.
        time: When it was written, ISO 8601, UTC.
    """

    presentation_id: str
    judge: str
    reply: Reply
    is_last: bool
    time: str


class Replies:
    """The replies of one judge, opened for asking; nobody else can ask until `close`.

    Attributes:
        path: The file.
        answered: Ids of the presentations that have their replies.
        n_dropped: How many lines of an unfinished presentation opening cut off, a torn one counting as one.
    """

    def __init__(self, folder: Path, judge: str) -> None:
        """Take the lock before anything is asked; `identify` comes next.

        Raises:
            RepliesError: Another process asks this judge into this folder, or what is there cannot be read.
        """
        self.path = folder / f"{judge}.jsonl"
        self.answered: set[str] = set()
        self.n_dropped = 0
        self._judge = judge
        self._identified = False
        self._synced_at = 0.0
        self._fd = self._lock = -1
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _acquire(folder / f"{judge}.lock")
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            self._end = 0
            for stored, end in _scan(self.path):
                self.answered.add(stored.presentation_id)
                self._end = end
            self.n_dropped = self._cut_tail()
        except OSError as error:
            self.close()
            raise _failure(self.path, "opened", error) from error
        except RepliesError:
            self.close()
            raise

    def identify(self, identity: Mapping[str, Any]) -> None:
        """Say what the replies to come follow from; the first time it is written down, later it must be the same.

        Raises:
            RepliesError: The replies that are there follow from something else; says what.
        """
        old = stored_identity(self.path.parent, self._judge)
        check_claims(self.path.parent, self._judge, {**dict.fromkeys(old), **identity})
        if not old:
            path = _identity_path(self.path.parent, self._judge)
            aside = path.with_suffix(".part")
            aside.write_text(json.dumps(dict(identity), indent=1, sort_keys=True) + "\n", encoding="utf-8")
            aside.replace(path)
        self._identified = True

    def add(self, presentation_id: str, replies: Sequence[Reply]) -> None:
        """Add all the replies to one presentation in the order in which they came.

        They are with the system when this returns, and on the disk at most 0.2 s of asking later.

        Raises:
            RepliesError: The disk is full or the file cannot be written; what was there is kept.
            ValueError: There is no reply, the presentation has its replies already, or nothing was identified.
        """
        if not replies or presentation_id in self.answered or not self._identified:
            raise ValueError(
                f"presentation_id: got {presentation_id!r} with {len(replies)} replies; expected one not answered yet, "
                "with replies; call `identify` first and add each once"
            )
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        lines = [
            {"id": presentation_id, "judge": self._judge, **asdict(reply), "is_last": last, "time": now}
            for reply, last in zip(replies, [False] * (len(replies) - 1) + [True], strict=True)
        ]
        data = "".join(json.dumps(line) + "\n" for line in lines).encode("ascii")
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            os.ftruncate(self._fd, self._end)
            raise _failure(self.path, "appended to", error) from error
        self._end += len(data)
        self.answered.add(presentation_id)
        if time.monotonic() - self._synced_at >= _SYNC_SECONDS:
            os.fsync(self._fd)
            self._synced_at = time.monotonic()

    def close(self) -> None:
        """Put everything on the disk and let go of the lock; may be called twice."""
        if self._fd >= 0:
            os.fsync(self._fd)
            os.close(self._fd)
        if self._lock >= 0:
            os.close(self._lock)
        self._fd = self._lock = -1

    def _cut_tail(self) -> int:
        """Cut off what lies behind the last closed presentation; how many lines that is."""
        with open(self.path, "rb") as file:
            file.seek(self._end)
            n_dropped = sum(1 for _ in file)
        if n_dropped:
            os.ftruncate(self._fd, self._end)
        return n_dropped

    def __enter__(self) -> "Replies":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def stored_identity(folder: Path, judge: str) -> dict[str, Any]:
    """What the stored replies of a judge follow from; empty where it was never asked.

    Args:
        folder: Where its replies are.
        judge: Its name.

    Raises:
        RepliesError: What is there cannot be read.
    """
    path = _identity_path(folder, judge)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _failure(path, "read", error) from error
    except ValueError:
        found = None
    if not isinstance(found, dict) or not found:
        raise RepliesError(f"{path}: got no JSON object; expected one with values; put it back or remove the folder")
    return found


def check_claims(folder: Path, judge: str, claims: Mapping[str, Any]) -> None:
    """See that a judge may be the one whose replies are there, by what it says of itself; no lock is taken.

    Args:
        folder: Where the replies are.
        judge: Its name.
        claims: Its identity, or the part of it that it knows itself (`judges.protocol.claims_of`).

    Raises:
        RepliesError: The replies that are there follow from something else; says what.
    """
    path, replies = _identity_path(folder, judge), folder / f"{judge}.jsonl"
    old, new = stored_identity(folder, judge), json.loads(json.dumps(dict(claims)))
    if not old and replies.exists() and replies.stat().st_size:
        raise RepliesError(f"{path}: got none; expected what the replies beside it follow from; put it back")
    changed = [key for key in sorted(new.keys() - MAY_DIFFER) if old and old.get(key) != new[key]]
    if changed:
        said = "; ".join(f"{key} is {new[key]!r} and was {old.get(key)!r}" for key in changed)
        raise RepliesError(
            f"{path}: got another judge of the name {judge!r} ({said}); expected the one that gave the replies there; "
            "serve that one, or give this one another name or folder"
        )


def _identity_path(folder: Path, judge: str) -> Path:
    """Where it stands what the replies of a judge follow from."""
    return folder / f"{judge}.identity.json"


def read_replies(path: Path) -> Iterator[StoredReply]:
    """The replies of every closed presentation in the order of the file, without a lock; a torn tail is passed over.

    Raises:
        RepliesError: The file cannot be read, or a whole line of it is no reply.
    """
    try:
        for stored, _ in _scan(path):
            yield stored
    except OSError as error:
        raise _failure(path, "read", error) from error


def _scan(path: Path) -> Iterator[tuple[StoredReply, int]]:
    """Each reply of the closed presentations, with the byte behind its presentation."""
    waiting: list[StoredReply] = []
    end = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            end += len(line)
            waiting.append(_stored(path, number, line))
            if waiting[0].presentation_id != waiting[-1].presentation_id:
                raise RepliesError(
                    f"{path}, line {number}: got a reply to another presentation; expected the one before it to be "
                    "closed; remove the lines before it that have no closing one"
                )
            if waiting[-1].is_last:
                yield from ((stored, end) for stored in waiting)
                waiting = []


def _stored(path: Path, number: int, line: bytes) -> StoredReply:
    """The reply on one line.

    Raises:
        RepliesError: The line is none.
    """
    try:
        row = json.loads(line)
        outer = {"presentation_id": row.pop("id"), **{key: row.pop(key) for key in ("judge", "is_last", "time")}}
        return StoredReply(reply=Reply(**row), **outer)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RepliesError(
            f"{path}, line {number}: got no reply ({error}); expected JSON with the fields of one; put the file back "
            "as it was, or remove that line, and its presentation is asked again"
        ) from error


def _acquire(path: Path) -> int:
    """The open lock file, which names its holder.

    Raises:
        RepliesError: Another process holds it.
        OSError: The file system has no locks, or refuses for a reason of its own.
    """
    import fcntl  # not on every system, and reading needs no lock

    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(fd, 200).decode("utf-8", "replace").strip() or "another process"
        os.close(fd)
        if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            raise
        raise RepliesError(
            f"{path}: {holder} is asking this judge; expected to be alone; wait until it is done or end it"
        ) from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
    return fd


def _failure(path: Path, done: str, error: OSError) -> RepliesError:
    """What to say when the system refuses."""
    said = (error.strerror or str(error)).lower()
    return RepliesError(
        f"{path}: could not be {done} ({said}); expected rights and room for it; check the path and disk"
    )

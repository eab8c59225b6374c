"""The file that records are kept in: `records.jsonl`, JSON lines, only ever appended to.

A cell's rows arrive in one write and count once their closing row, its line end included, is there. What a killed
process or a full disk leaves behind its last closed cell is ignored when reading and cut off when the file is next
opened for appending; anything else that cannot be read is an error that names the line.
"""

import errno
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from results.records import Record, from_line, to_line

_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


class LedgerError(Exception):
    """A ledger that cannot be read or written; the message is one line and says what to do next."""


@dataclass(frozen=True)
class _Contents:
    """What a ledger holds: the rows of its closed cells, the bytes these take, and how many rows lie behind them."""

    records: list[Record]
    end: int
    n_dropped: int


class Ledger:
    """A ledger opened for appending; nobody else can append to it until `close`.

    Opening creates the file where there is none and cuts off an incomplete tail.

    Attributes:
        path: The file.
        n_dropped: How many rows of an unfinished cell opening cut off, a torn line counting as one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as error:
            raise _failure(path, "opened for appending", error) from error
        self._lock: Path | None = None
        self._is_broken = False
        try:
            self._lock = _acquire(path, self._fd)
            with open(path, "rb") as file:
                contents = _scan(path, file)
            self.n_dropped = contents.n_dropped
            self._end = contents.end
            if self.n_dropped:
                os.ftruncate(self._fd, self._end)
        except OSError as error:
            self.close()
            raise _failure(path, "opened for appending", error) from error
        except LedgerError:
            self.close()
            raise

    def append_cell(self, rows: Sequence[Record]) -> None:
        """Add one cell: its value rows, then the row of kind "cell" that closes it; on disk when this returns.

        Where writing fails the file is cut back to the cells before, so that the ledger can still be used.

        Raises:
            LedgerError: The disk is full, the file cannot be written, or it could not be cut back after that.
            ValueError: The rows are no closed group of one cell.
        """
        is_closed = [row.kind for row in rows] == ["value"] * (len(rows) - 1) + ["cell"]
        if not is_closed or len({row.cell for row in rows}) > 1 or len({row.metric for row in rows}) < len(rows):
            got = [(row.cell, row.metric) for row in rows]
            raise ValueError(f"rows: got {got}; expected each metric once, then the status, of one cell; sort them")
        if self._is_broken:
            raise LedgerError(f"{self.path}: an earlier write was torn; expected a clean end; open the file again")
        data = "".join(to_line(row) + "\n" for row in rows).encode("ascii")
        try:
            _write(self._fd, data)
            os.fsync(self._fd)
        except BaseException as error:
            try:
                os.ftruncate(self._fd, self._end)
            except OSError:
                self._is_broken = True
            if isinstance(error, OSError):
                raise _failure(self.path, "appended to", error) from error
            raise
        self._end += len(data)

    def close(self) -> None:
        """Let go of the file and of its lock; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._lock is not None:
            self._lock.unlink(missing_ok=True)
            self._lock = None

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read(path: Path) -> list[Record]:
    """The rows of every closed cell, in the order of the file, which is left as it is.

    Raises:
        LedgerError: The file cannot be read, or a line of it is no record.
    """
    try:
        with open(path, "rb") as file:
            return _scan(path, file).records
    except OSError as error:
        raise _failure(path, "read", error) from error


def unfinished(path: Path) -> int:
    """How many rows lie behind the last closed cell of a ledger, which `read` leaves out; a torn line counts as one.

    Only the end of the file is looked at; where there is no file, or one that `read` refuses, nothing is said here.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return 0
    torn = int(bool(lines.pop()))  # a whole file ends with a line end
    for n_open, line in enumerate(reversed(lines)):
        try:
            is_closing = json.loads(line)["kind"] == "cell"
        except (ValueError, TypeError, LookupError):
            is_closing = False
        if is_closing:
            return n_open + torn
    return len(lines) + torn


def _write(fd: int, data: bytes) -> None:
    """Write all the bytes: one call, unless the system takes only a part of them."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _scan(path: Path, file: BinaryIO) -> _Contents:
    """What the file holds; an incomplete tail is counted and left out.

    Raises:
        LedgerError: A whole line is no record, or a cell begins before the one before it is closed.
    """
    records: list[Record] = []
    open_rows: list[Record] = []
    end = position = 0
    for number, line in enumerate(file, start=1):
        if not line.endswith(b"\n"):
            return _Contents(records, end, len(open_rows) + 1)
        position += len(line)
        try:
            row = from_line(line)
        except ValueError as error:
            raise LedgerError(f"{path}, line {number}: {' '.join(str(error).split())}") from error
        if open_rows and open_rows[0].cell != row.cell:
            raise LedgerError(
                f"{path}, line {number}: got a row of cell {row.cell}; expected cell {open_rows[0].cell} to be closed "
                "first; remove the rows before it that have no closing row"
            )
        open_rows.append(row)
        if row.kind == "cell":
            records += open_rows
            open_rows = []
            end = position
    return _Contents(records, end, len(open_rows))


def _acquire(path: Path, fd: int) -> Path | None:
    """Make this process the only one that appends; the lock file to remove afterwards, None where none is needed.

    Raises:
        LedgerError: Another run appends to the file.
        OSError: The file system refuses for a reason of its own.
    """
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                raise LedgerError(
                    f"{path}: another run is writing to it; expected to be alone; wait for that run or choose "
                    "another folder"
                ) from error
            if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
                raise
        else:
            return None
    return _acquire_beside(path)


def _acquire_beside(path: Path) -> Path:
    """The lock file beside a ledger whose file system has no locks; a killed run leaves it behind.

    Raises:
        LedgerError: It exists already.
    """
    lock = path.with_name(path.name + ".lock")
    try:
        with open(lock, "x", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
    except FileExistsError as error:
        raise LedgerError(
            f"{path}: another run is writing to it; expected no {lock.name}; wait for that run, or remove that file "
            "where no run is alive"
        ) from error
    return lock


def _failure(path: Path, done: str, error: OSError) -> LedgerError:
    """What to say when the system refuses."""
    next_steps = {
        errno.ENOSPC: "free space on the disk and run the same command again",
        errno.EDQUOT: "free space in your quota and run the same command again",
        errno.EROFS: "choose a folder that can be written",
        errno.EACCES: "choose a folder that can be written",
        errno.ENOENT: "check the path, or run a suite there first",
    }
    said = (error.strerror or str(error)).lower()
    next_step = next_steps.get(error.errno or 0, "check the path and the disk")
    return LedgerError(f"{path}: could not be {done} ({said}); expected rights and room for it; {next_step}")

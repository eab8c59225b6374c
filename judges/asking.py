"""Asks a panel what it has not answered yet; every reply is stored before its judge is asked for the next.

The order is made for the servers' caches. A server keeps what it computed for a picture only for a while, and what it
computed for a prompt only as far as the next prompt begins alike; so presentations with the same first grid are asked
one after the other. The groups are shuffled, so that a run that is cut short is a fair sample of all pairs, and no
judge sees the methods in the order of a table. Tasks and pictures are made as they are needed: memory does not grow
with the number of presentations.
"""

import asyncio
import random
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from judges.protocol import Judge, JudgeError, Presentation, Reply, claims_of
from judges.reading import read
from judges.replies import Replies, check_claims

_N_THREADS = 4
_N_AHEAD = 8


@dataclass(frozen=True)
class Asked:
    """What one sitting of one judge came to.

    Attributes:
        judge: Who.
        n_presentations: What there was to answer in all.
        n_before: How many of them had their replies already.
        n_answered: How many got theirs now.
        n_invalid: How many of these cannot be read.
        n_reasked: How many of these took more than one request.
        failed: Why the judge ended before it was through; None where it was.
        prompt_tokens: Tokens sent, as the server counts them; None where it does not.
        cached_tokens: How many of them it had in its cache; None where it does not say.
        faults: How often each kind of fault was met and tried again in this sitting.
        most_in_flight: The most presentations that it was asked at one time.
        seconds: How long the sitting took.
    """

    judge: str
    n_presentations: int
    n_before: int
    n_answered: int
    n_invalid: int
    n_reasked: int
    failed: str | None
    prompt_tokens: int | None
    cached_tokens: int | None
    faults: Mapping[str, int]
    most_in_flight: int
    seconds: float


def in_order(presentations: Sequence[Presentation], seed: int) -> list[Presentation]:
    """All of them, equal first grids side by side; `seed` draws the order of the groups and that inside each."""
    groups: dict[str, list[Presentation]] = {}
    for presentation in sorted(presentations, key=lambda presentation: presentation.id):
        groups.setdefault(presentation.grids[0], []).append(presentation)
    rng = random.Random(seed)
    keys = sorted(groups)
    rng.shuffle(keys)
    ordered: list[Presentation] = []
    for key in keys:
        rng.shuffle(groups[key])
        ordered += groups[key]
    return ordered


async def ask(
    judge: Judge,
    presentations: Sequence[Presentation],
    grid: Callable[[str], bytes],
    replies: Replies,
    report: Callable[[int, int], None],
    seed: int = 0,
) -> Asked:
    """Ask one judge all that has no reply yet; what is finished is stored whatever happens next.

    Where the judge fails, requests under way are still waited for. Where this is cancelled, they are given up.

    Args:
        judge: The judge, made ready.
        presentations: All that it is to answer.
        grid: The PNG of a digest; called from up to four threads at once.
        replies: Where its replies go, identified.
        report: Told how many presentations have their replies and how many there are, after each.
        seed: Seed of the order.

    Raises:
        RepliesError: A reply could not be stored.
    """
    todo = [one for one in in_order(presentations, seed) if one.id not in replies.answered]
    sitting = _Sitting(judge, replies, report, len(presentations), len(presentations) - len(todo))
    faults_before = Counter(getattr(judge, "faults", {}))  # of earlier sittings, and of the preflight
    began = time.monotonic()
    queue = iter(todo)
    threads = ThreadPoolExecutor(_N_THREADS, "grids")
    grids = _Grids(grid, threads, judge.n_at_once + _N_AHEAD)
    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(len(todo), judge.n_at_once + _N_AHEAD)):
                tasks.create_task(sitting.work(queue, grids))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        threads.shutdown(cancel_futures=True)
        await _close(judge)
    faults = Counter(getattr(judge, "faults", {})) - faults_before
    return sitting.asked(dict(faults), time.monotonic() - began)


async def ask_panel(
    judges: Sequence[Judge],
    presentations: Sequence[Presentation],
    grid: Callable[[str], bytes],
    folder: Path,
    report: Callable[[str, int, int], None],
    seed: int = 0,
    prepared: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Asked]:
    """Ask all judges side by side; where one fails the others go on, and its `Asked` says why.

    A judge that has answered everything is left alone, so that its server need not run; but what it says of itself must
    be what its replies follow from.

    Args:
        judges: The panel; names are distinct.
        presentations: All that each is to answer.
        grid: The PNG of a digest; called from up to four threads of each judge at once.
        folder: Where the replies go.
        report: Told the judge, how many presentations have their replies and how many there are, after each.
        seed: Seed of the order, which is the same for all judges, so that grids are made about once.
        prepared: What `preflight` gave for judges that are ready already; the others are made ready.

    Raises:
        RepliesError: Another process asks one of them, what is stored is another judge's, or the disk is full.
        JudgeError: Some are not ready; said of all of them at once, before any presentation is asked.
        ValueError: Two judges have one name.
    """
    names = [judge.name for judge in judges]
    if len(set(names)) < len(names):
        raise ValueError(f"judges: got the names {names}; expected distinct ones; rename one")
    ids = {presentation.id for presentation in presentations}
    with ExitStack() as stack:
        stores = {judge.name: stack.enter_context(Replies(folder, judge.name)) for judge in judges}
        busy = [judge for judge in judges if not ids <= stores[judge.name].answered]
        for judge in judges:
            check_claims(folder, judge.name, claims_of(judge))
        known = dict(prepared or {})
        known |= await preflight([judge for judge in busy if judge.name not in known])
        for judge in busy:
            stores[judge.name].identify({**known[judge.name], **claims_of(judge)})

        async def sit(judge: Judge) -> Asked:
            def told(n_done: int, n_all: int) -> None:
                report(judge.name, n_done, n_all)

            return await ask(judge, presentations, grid, stores[judge.name], told, seed)

        try:
            async with asyncio.TaskGroup() as tasks:
                sittings = [tasks.create_task(sit(judge)) for judge in judges]
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        return [sitting.result() for sitting in sittings]


async def preflight(judges: Sequence[Judge]) -> dict[str, Mapping[str, Any]]:
    """Make judges ready, side by side; the identity of each by its name, which `ask_panel` takes as `prepared`.

    Raises:
        JudgeError: Some are not ready: one line for each of them.
    """
    found = await asyncio.gather(*(judge.prepare() for judge in judges), return_exceptions=True)
    failed = [str(one) for one in found if isinstance(one, JudgeError)]
    others = [one for one in found if isinstance(one, BaseException) and not isinstance(one, JudgeError)]
    if others:
        raise others[0]
    if failed:
        raise JudgeError("\n".join(failed))
    return {judge.name: one for judge, one in zip(judges, found, strict=True) if isinstance(one, Mapping)}


async def _close(judge: Judge) -> None:
    """Let a judge go of its connections where it has any."""
    close = getattr(judge, "close", None)
    if close is not None:
        await close()


class _Sitting:
    """What is counted while one judge is asked."""

    def __init__(
        self, judge: Judge, replies: Replies, report: Callable[[int, int], None], n_all: int, n_before: int
    ) -> None:
        self._judge = judge
        self._replies = replies
        self._report = report
        self._n_all, self._n_before = n_all, n_before
        self._counts: Counter[str] = Counter()
        self._room = asyncio.Semaphore(judge.n_at_once)
        self._n_in_flight = self._most_in_flight = 0
        self._failed: str | None = None

    async def work(self, queue: Iterator[Presentation], grids: "_Grids") -> None:
        """Ask one presentation after another until none is left or the judge has failed."""
        for presentation in queue:
            pair = (await grids.get(presentation.grids[0]), await grids.get(presentation.grids[1]))
            async with self._room:
                if self._failed is not None:
                    return
                self._n_in_flight += 1
                self._most_in_flight = max(self._most_in_flight, self._n_in_flight)
                try:
                    replies = await self._judge.compare(*pair)
                except JudgeError as error:
                    self._failed = self._failed or str(error)
                    return
                finally:
                    self._n_in_flight -= 1
                self._replies.add(presentation.id, replies)
            self._count(replies)

    def _count(self, replies: Sequence[Reply]) -> None:
        """Count one presentation and tell of it."""
        self._counts["answered"] += 1
        self._counts["invalid"] += read(replies[-1].text).choice == "none"
        self._counts["reasked"] += len(replies) > 1
        for reply in replies:
            for key, tokens in (("prompt", reply.prompt_tokens), ("cached", reply.cached_tokens)):
                if tokens is not None:
                    self._counts[key] += tokens
        self._report(self._n_before + self._counts["answered"], self._n_all)

    def asked(self, faults: Mapping[str, int], seconds: float) -> Asked:
        """The sums."""
        counts = self._counts
        return Asked(
            judge=self._judge.name,
            n_presentations=self._n_all,
            n_before=self._n_before,
            n_answered=counts["answered"],
            n_invalid=counts["invalid"],
            n_reasked=counts["reasked"],
            failed=self._failed,
            prompt_tokens=counts.get("prompt"),
            cached_tokens=counts.get("cached"),
            faults=faults,
            most_in_flight=self._most_in_flight,
            seconds=seconds,
        )


class _Grids:
    """The pictures in use: made in a thread, each once while it is among the last that were asked for."""

    def __init__(self, grid: Callable[[str], bytes], threads: ThreadPoolExecutor, n_kept: int) -> None:
        self._grid = grid
        self._threads = threads
        self._n_kept = n_kept
        self._made: OrderedDict[str, asyncio.Future[bytes]] = OrderedDict()

    async def get(self, digest: str) -> bytes:
        """The PNG of a digest."""
        made = self._made.get(digest)
        if made is None:
            made = asyncio.get_running_loop().run_in_executor(self._threads, self._grid, digest)
            self._made[digest] = made
            if len(self._made) > self._n_kept:
                self._made.popitem(last=False)
        self._made.move_to_end(digest)
        return await asyncio.shield(made)

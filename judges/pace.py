"""How fast a judge is asked: requests in flight that shrink under load and grow back, pauses, and replicas in turn.

Jacobson 1988 for the requests in flight (halve on congestion, add one a round), "full jitter" for the pauses: uniform
between zero and a limit that doubles, so that requests that failed together do not return together.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_PAUSE_SECONDS = 30.0
LONGEST_RETRY_AFTER_SECONDS = 3600.0


class Pace:
    """How many requests may be in flight: at most `n_at_most`, halved on congestion, one more a round of successes.

    Attributes:
        n_at_most: The most that is ever allowed.
        limit: What is allowed now; its whole part counts.
        n_in_flight: What is under way.
        most_in_flight: The most that was ever under way.
    """

    def __init__(self, n_at_most: int) -> None:
        self.n_at_most = n_at_most
        self.limit = float(n_at_most)
        self.n_in_flight = self.most_in_flight = 0
        self._shrunk_at = -1.0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[float]:
        """Wait for room; gives the loop's time at which there was some, which `shrink` wants back."""
        loop = asyncio.get_running_loop()
        while self.n_in_flight >= int(self.limit):
            place = loop.create_future()
            self._waiting.append(place)
            try:
                await place
            except asyncio.CancelledError:
                self._wake()
                raise
            finally:
                if place in self._waiting:
                    self._waiting.remove(place)
        self.n_in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.n_in_flight)
        try:
            yield loop.time()
        finally:
            self.n_in_flight -= 1
            self._wake()

    def grow(self) -> None:
        """A request went well."""
        self.limit = min(float(self.n_at_most), self.limit + 1 / self.limit)
        self._wake()

    def shrink(self, sent_at: float) -> None:
        """A request sent at that time met congestion; what was sent before the last halving says nothing new."""
        if sent_at > self._shrunk_at:
            self.limit = max(1.0, self.limit / 2)
            self._shrunk_at = asyncio.get_running_loop().time()

    def _wake(self) -> None:
        """Let as many of the waiting go on as there is room for."""
        room = int(self.limit) - self.n_in_flight
        while room > 0 and self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                room -= 1


@dataclass
class Replica:
    """One of the servers that serve the same judge.

    Attributes:
        url: Its address, ending in /v1.
        free_at: The loop's time from which it may be asked again.
        n_failed: Requests that failed since the last one that went well.
        is_dying: It said that its engine is gone.
        is_dead: It said so and then refused to be reached; it is not asked again.
        is_strange: It may have been started anew since it was last looked at, as another one even.
        looking: Held while it is looked at.
    """

    url: str
    free_at: float = 0.0
    n_failed: int = 0
    is_dying: bool = False
    is_dead: bool = False
    is_strange: bool = False
    looking: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)


class Turn:
    """Which replica is asked next: each in turn, those that may not be asked yet passed over.

    Attributes:
        replicas: All of them.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.replicas = [Replica(url) for url in urls]
        self._next = 0

    def alive(self) -> list[Replica]:
        """Those that are not dead."""
        return [replica for replica in self.replicas if not replica.is_dead]

    async def take(self) -> Replica | None:
        """The next one that may be asked, waited for where none may yet; None where all are dead."""
        loop = asyncio.get_running_loop()
        while self.alive():
            for _ in self.replicas:
                replica = self.replicas[self._next % len(self.replicas)]
                self._next += 1
                if not replica.is_dead and replica.free_at <= loop.time():
                    return replica
            until = min(replica.free_at for replica in self.alive())
            await asyncio.sleep(max(0.0, until - loop.time()) * (1 + random.random() / 10) + 1e-3)
        return None


def pause_before(attempt: int, first_seconds: float) -> float:
    """Seconds to wait before try number `attempt` (the second is 1): full jitter below a limit that doubles."""
    return random.uniform(0.0, min(LONGEST_PAUSE_SECONDS, first_seconds * 2.0 ** (attempt - 1)))


def retry_after(value: str | None, now: datetime | None = None) -> float:
    """Seconds that a `Retry-After` header asks for, given as seconds or as an HTTP date; 0 where it cannot be read.

    At most an hour: what asks for more is polled hourly.
    """
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return 0.0
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = (date - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS) if seconds == seconds else 0.0

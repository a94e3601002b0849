"""The lease over an exchange: taken, waited for, kept alive by a thread, given back.

A lease is not a lock. It lapses under a holder that sleeps longer than it lasts, and a failover may forget it. It saves calls to
the server; what keeps a late writer from harm is the comparison in `save`. So nothing here tries to be safer than it can be:
`held` asks, waiters look for a newer record before they look at the lease, and a Redis that is gone when a lease should be
given back is left alone, for the lease lapses by itself.

A Redis that hangs answers too late for whoever has asked, and then gives a lease to somebody who has left. This process knows
those by their names, and takes such a lease away when it meets it; others wait until it lapses.
"""

import contextlib
import os
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from ..errors import StorageError
from ._record import OVERTAKEN, Lease, StorageBusy
from ._redis_client import Server
from ._redis_errors import Unreachable
from ._redis_scripts import EXTEND, RELEASE, TRY

__all__ = ["RedisLease", "Spot", "entered"]

_LOOK: Final = (
    1.0  # seconds at most between two looks at a lease that somebody else has: wake-ups can get lost
)
_RETRY: Final = 0.25  # seconds at most until a Redis that could not be asked is asked again
_BEATS: Final = 3  # extensions within the time of a lease
# Owners of this process that have left, and may have a lease all the same: what they were told last got lost.
_GONE: Final[deque[bytes]] = deque(maxlen=256)


class Spot(NamedTuple):
    """Where a lease lies, and what it depends on."""

    server: Server
    lease: str
    record: str
    channel: str
    lasting: float
    """Seconds after which a lease lapses that is not extended."""

    @property
    def milliseconds(self) -> int:
        """The same, as Redis counts."""
        return max(1, round(self.lasting * 1000))


class RedisLease:
    """See `Lease`. One object for each time that somebody is inside; of no use in a child forked meanwhile."""

    def __init__(self, spot: Spot) -> None:
        self._spot = spot
        self._pid = os.getpid()
        self._owner = f"{socket.gethostname()}/{self._pid}/{os.urandom(8).hex()}"
        self._over = threading.Event()

    def held(self) -> bool:
        """See `Lease.held`. Blocks on the network: it asks whether the lease is still this one, and extends it.

        Raises:
            StorageError: The Redis cannot be asked.
        """
        return not self._over.is_set() and self._pid == os.getpid() and self._extended()

    def tried(self, seen: int | None) -> Any:
        """Try to take it; return what the script says."""
        answer = self._asked(seen)
        if answer[0] == b"taken" and answer[1] in _GONE:
            with contextlib.suppress(StorageError):  # a user who may not take it away waits for it to lapse
                self._spot.server.run(RELEASE, [self._spot.lease], answer[1], self._spot.channel)
            answer = self._asked(seen)
        return answer

    def _asked(self, seen: int | None) -> Any:
        spot = self._spot
        looked = "" if seen is None else seen
        return spot.server.run(TRY, [spot.lease, spot.record], self._owner, spot.milliseconds, looked)

    def left(self) -> None:
        """Remember that nobody has it, whatever the Redis says later."""
        _GONE.append(self._owner.encode())

    def started(self) -> None:
        """Begin to extend it."""
        beating = threading.Thread(target=self._beat, name="tradovate_auth lease", daemon=True)
        with contextlib.suppress(RuntimeError):  # no thread to be had: `held` extends it too
            beating.start()

    def ended(self) -> None:
        """Give it back, or leave it to lapse. In a child forked meanwhile nothing happens: it is the parent's."""
        self._over.set()
        if self._pid == os.getpid():
            try:
                self._spot.server.run(RELEASE, [self._spot.lease], self._owner, self._spot.channel)
            except StorageError:
                self.left()

    def refusal(self, holder: bytes) -> StorageBusy:
        """Return the error for whoever has waited in vain."""
        host, _, rest = holder.decode("utf-8", "replace").rpartition("/")[0].rpartition("/")
        if (host, rest) == (socket.gethostname(), str(os.getpid())):
            who = "Another thread of this process"
        else:
            who = f"Process {rest} on {host}" if rest.isdigit() else "Somebody"
        return StorageBusy(
            f"{who} holds the stored session.",
            None,
            f"Valid tokens stay in use. If that process hangs, its lease lapses within {self._spot.lasting:g} s.",
        )

    def _extended(self) -> bool:
        spot = self._spot
        return bool(spot.server.run(EXTEND, [spot.lease], self._owner, spot.milliseconds))

    def _beat(self) -> None:
        pause = self._spot.lasting / _BEATS
        while not self._over.wait(pause):
            try:
                if not self._extended():
                    return
                pause = self._spot.lasting / _BEATS
            except StorageError:
                pause = min(_RETRY, self._spot.lasting / _BEATS)


@contextmanager
def entered(spot: Spot, timeout: float, seen: int | None) -> Iterator[Lease]:
    """Hold a lease, or none where something newer than `seen` is there.

    Raises:
        StorageError: On entering, as in `Storage.exclusive`.
    """
    lease = RedisLease(spot)
    try:
        had = _taken(lease, spot, max(timeout, 0.0), seen)
    except BaseException:
        lease.left()
        raise
    if not had:
        yield OVERTAKEN
        return
    try:
        lease.started()
        yield lease
    finally:
        lease.ended()


def _taken(lease: RedisLease, spot: Spot, timeout: float, seen: int | None) -> bool:
    """Wait for a lease; return whether it was had, and not overtaken by a newer record."""
    deadline = time.monotonic() + timeout
    answer = lease.tried(seen)  # whoever does not reach the Redis at all is told at once
    with contextlib.closing(_News(spot)) as news:
        while answer[0] == b"taken":
            left = deadline - time.monotonic()
            if left <= 0:
                raise lease.refusal(answer[1])
            news.wait(min(left, _LOOK * random.uniform(0.5, 1), answer[2] / 1000 + 0.001))  # noqa: S311
            answer = _tried_again(lease, news, deadline, seen)
    return bool(answer[0] == b"held")


def _tried_again(lease: RedisLease, news: "_News", deadline: float, seen: int | None) -> Any:
    """Try once more, and again while a Redis that was there a moment ago is not: a failover takes seconds."""
    while True:
        try:
            return lease.tried(seen)
        except Unreachable:
            news.close()  # its connection may be the one that was lacking
            left = deadline - time.monotonic()
            if left <= 0:
                raise
        time.sleep(min(left, _RETRY * random.uniform(0.5, 1)))  # noqa: S311  # so that a fleet does not ask at once


class _News:
    """Sleeps until something is published, or for a while. It never fails: without news it only sleeps."""

    def __init__(self, spot: Spot) -> None:
        self._spot = spot
        self._pubsub: Any = None

    def wait(self, seconds: float) -> None:
        """Return when there is news, also the news that the subscription holds from now on, and after `seconds` anyway."""
        deadline = time.monotonic() + seconds
        try:
            if self._pubsub is None:
                self._pubsub = self._spot.server.client.pubsub()
                self._pubsub.subscribe(self._spot.channel)
            while (left := deadline - time.monotonic()) > 0:
                if self._pubsub.get_message(timeout=left) is not None:
                    return
        except Exception:  # noqa: BLE001  # not allowed to listen, not reachable, or no text: it looks again in time
            self.close()
            time.sleep(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Give the connection back."""
        pubsub, self._pubsub = self._pubsub, None
        if pubsub is not None:
            with contextlib.suppress(Exception):
                pubsub.close()

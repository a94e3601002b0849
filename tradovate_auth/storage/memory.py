"""A storage that lives and dies with its process."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from .._clock import SYSTEM_CLOCK, Clock
from ._record import OWNED, Lease, Record, StorageBusy

__all__ = ["MemoryStorage"]


class MemoryStorage:
    """Keeps records in this process: shared by its threads and event loops, gone when it ends.

    A forked child starts with a copy and goes its own way from there; processes that are to share one session need a file
    or Redis. Any thread may use it; nothing in it blocks but the wait for a key that is held.

    Args:
        clock: Tells the time, for tests that move it.
        now: What its own clock shows at first, in seconds since the epoch. None: what the wall clock does.
    """

    private: ClassVar[bool] = True
    """It is lost with its process, and not before: nobody has to look after what is in it."""

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK, now: float | None = None) -> None:
        self._clock = clock
        self._epoch = (clock.time() if now is None else now) - clock.elapsed()
        self._records: dict[str, Record] = {}
        # By process too: a lock that another thread held when this process was forked is never given back here.
        self._locks: dict[tuple[int, str], threading.Lock] = {}
        self._writing: dict[int, threading.Lock] = {}

    @property
    def name(self) -> str:
        """See `Storage.name`."""
        return "memory"

    def now(self) -> float:
        """Return the seconds since the epoch by a clock that a change of the machine's wall clock does not move."""
        return self._epoch + self._clock.elapsed()

    def load(self, key: str) -> Record | None:
        """See `Storage.load`. Never blocks."""
        return self._records.get(key)

    def save(self, key: str, record: Record) -> bool:
        """See `Storage.save`. Never blocks on anything but another save."""
        with self._writing.setdefault(os.getpid(), threading.Lock()):
            kept = self._records.get(key)
            if record.revision != (kept.revision if kept is not None else 0) + 1:
                return False
            self._records[key] = record
            return True

    @contextmanager
    def exclusive(self, key: str, timeout: float, *, seen: int | None = None) -> Iterator[Lease]:  # noqa: ARG002
        """See `Storage.exclusive`. The wait never ends early: the ones ahead need no time."""
        lock = self._locks.setdefault((os.getpid(), key), threading.Lock())
        if not lock.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX)):
            raise StorageBusy("Another thread of this process is still at work on this session.")
        try:
            yield OWNED
        finally:
            lock.release()

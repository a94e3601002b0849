"""Who hears of what has happened: the log, the listener of the provider's user, and whoever asks for the last event.

Events are told after every lock has been given back, when those who waited have been woken. So the next flight may be over before
the events of the last one are told: they wait in a queue, and whoever comes first tells all that are in it, in their order.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from ._clock import Clock
from ._journal import Journal
from .events import Event, quiet

__all__ = ["Listener"]

_log: Final = logging.getLogger("tradovate_auth")
_log.addHandler(logging.NullHandler())


class Listener:
    """What one provider's events go to. Any thread.

    Args:
        on_event: The user's own function; its exceptions are logged.
        clock: By which the last event is dated.
    """

    def __init__(self, on_event: Callable[[Event], object] | None, clock: Clock) -> None:
        self._on_event = on_event
        self._clock = clock
        self.last: Event | None = None
        self.last_at: float | None = None
        """When that was, in seconds since the epoch by this machine's clock."""
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._waiting: deque[Event] = deque()
        self._telling = threading.Lock()

    def note(self, journal: Journal) -> None:
        """Take over a pass's events, before anybody who waits for it wakes up. Never blocks."""
        if self._process != os.getpid():
            self._begin()  # what was being told is the parent's, and so is the lock
        self._waiting.extend(journal.entries)
        if journal.entries:
            self.last, self.last_at = journal.entries[-1], self._clock.time()

    def tell(self) -> None:
        """Log what is waiting, and hand it to the user's function: here, or by another thread that is at it.

        Blocks as long as that does.
        """
        while self._ours() and (telling := self._telling).acquire(blocking=False):
            try:
                while self._ours() and self._telling is telling:
                    self._tell(self._waiting.popleft())
            finally:
                telling.release()

    def _ours(self) -> bool:
        """Return whether anything is waiting that this very process is to tell: a listener may fork."""
        return bool(self._waiting) and self._process == os.getpid()

    def _tell(self, event: Event) -> None:
        _log.log(logging.INFO if isinstance(event, quiet) else logging.WARNING, "%s", event)
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception:  # noqa: BLE001  # a listener's fault is the listener's
            _log.exception("a listener failed on %s", type(event).__name__)

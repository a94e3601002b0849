"""A clock that stands still until a test moves it."""

import threading
from typing import Final

from .._clock import Waitable

__all__ = ["FakeClock"]

_LOOK: Final = 0.002  # real seconds between two looks of somebody who waits


class FakeClock:
    """A clock for `TokenProvider(clock=...)` and for `Emulator(clock=...)`, which may share one.

    Any thread may read and move it.

    Args:
        now: Where its wall clock starts, in seconds since the epoch.
        boot: Which run of a machine it belongs to; clocks with the same one count their `elapsed` from one moment.
    """

    def __init__(self, now: float = 1_800_000_000.0, *, boot: str | None = None) -> None:
        self.boot = boot
        self._wall = now
        self._elapsed = 0.0
        self._moving = threading.Lock()

    def __call__(self) -> float:
        """Return the wall clock, for whoever wants a plain callable."""
        return self._wall

    def time(self) -> float:
        """Return the wall clock in seconds since the epoch."""
        return self._wall

    def elapsed(self) -> float:
        """Return the seconds that it was moved forward in all."""
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Let time pass, on both clocks; whoever waits for a moment that is over then wakes."""
        with self._moving:
            self._wall += seconds
            self._elapsed += seconds

    def jump(self, seconds: float) -> None:
        """Move the wall clock alone, forward or back, as an administrator or a time server would."""
        with self._moving:
            self._wall += seconds

    def wait(self, event: Waitable, seconds: float) -> bool:
        """Block until `event` is set (True) or the clock was moved so far (False)."""
        end = self._elapsed + seconds
        while self._elapsed < end:
            if event.wait(_LOOK):
                return True
        return event.wait(0)

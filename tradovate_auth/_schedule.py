"""The timer that keeps a session alive without traffic: one daemon thread per provider.

It wakes when the token is due, and at least every half minute, because a machine that was suspended wakes with a timer
that has slept too. It holds what it serves weakly, so a forgotten provider ends its timer.

Forking a process that has threads warns since Python 3.12, and rightly. So every timer is stopped and joined before a fork
and started again, in parent and child alike, by the next use of its provider.
"""

import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from typing import Final, Protocol

from ._clock import Clock, Wakeup
from ._flight import let_flights_land

__all__ = ["LONGEST_SLEEP", "Schedule"]

LONGEST_SLEEP: Final = 30.0
"""Seconds between two looks at the clock, at most."""


class _Ticking(Protocol):
    def tick(self) -> float | None:
        """Do what is due, without blocking for long; return the seconds until the next tick, or None to stop."""
        ...


_running: "dict[int, weakref.ref[Schedule]]" = {}


class Schedule:
    """Calls `target.tick()` when it is due, until `stop()` or the end of the target.

    Args:
        target: Held weakly.
        clock: What the waiting is done with.
        forked: Called before a fork, when the timer has been stopped: the next use has to start it again.
    """

    def __init__(self, target: _Ticking, clock: Clock, forked: Callable[[], None]) -> None:
        self._target = weakref.ref(target, lambda _: self.stop())
        self._forked = weakref.WeakMethod(forked)
        self._clock = clock
        self._thread: threading.Thread | None = None
        # Each start has its own: a timer that was stopped but still ends cannot mistake a new start for its own.
        self._wake: Wakeup | None = None

    @property
    def running(self) -> bool:
        """Whether the timer has been started and not stopped."""
        return self._wake is not None and self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the timer, if it does not run. Only flights call it, and of those there is one at a time."""
        if self.running or self._target() is None:
            return
        self._wake = wake = Wakeup()
        self._thread = threading.Thread(
            target=self._run, args=(wake,), name="tradovate_auth schedule", daemon=True
        )
        _running[id(self)] = weakref.ref(self)
        with contextlib.suppress(RuntimeError):  # no thread starts while the interpreter shuts down
            self._thread.start()

    def nudge(self) -> None:
        """Make the timer look again now, because something has changed."""
        if (wake := self._wake) is not None:
            wake.set()

    def stop(self) -> None:
        """End the timer. Does not wait for it; safe from a garbage collection."""
        _running.pop(id(self), None)
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.set()

    def join(self) -> None:
        """Wait for the timer to end; at once if this is the timer's own thread."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and thread.ident is not None:
            thread.join()

    def pause_for_fork(self) -> None:
        """Stop and join the timer, and say so."""
        self.stop()
        self.join()
        forked = self._forked()
        if forked is not None:
            forked()

    def _run(self, wake: Wakeup) -> None:
        while self._wake is wake:
            target = self._target()
            seconds = target.tick() if target is not None else None
            del target  # while asleep, nothing here keeps it alive
            if seconds is None:
                if self._wake is wake:
                    self.stop()
                return
            self._clock.wait(wake, min(max(seconds, 0.0), LONGEST_SLEEP))


def _before_fork() -> None:
    let_flights_land()  # first: one that lands starts its timer
    for reference in list(_running.values()):
        schedule = reference()
        if schedule is not None:
            schedule.pause_for_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch  # the other way on Windows
    os.register_at_fork(before=_before_fork)

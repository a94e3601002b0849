"""The clocks that everything else reads, in one place, so that a test can move time by hand."""

import contextlib
import functools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "SystemClock", "Waitable", "Wakeup"]


class Waitable(Protocol):
    """What a clock can wait for: a `threading.Event` or a `Wakeup`."""

    def wait(self, timeout: float) -> bool:
        """Block until it is set (True) or so many real seconds have passed (False)."""
        ...


class Wakeup:
    """Wakes one sleeper, once per `set`. Unlike an event it may be set from a garbage collection, in any thread."""

    def __init__(self) -> None:
        self._asleep = threading.Lock()
        self._asleep.acquire()
        self.called = False
        """Whether it has ever been set, also after the sleeper has woken."""

    def set(self) -> None:
        """Wake the sleeper, or keep it from falling asleep. Never blocks."""
        self.called = True
        with contextlib.suppress(RuntimeError):  # it was set already
            self._asleep.release()

    def wait(self, timeout: float) -> bool:
        """See `Waitable.wait`."""
        return self._asleep.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX))


class Clock(Protocol):
    """What the package asks of a clock. `SystemClock` is the real one; `tradovate_auth.testing.FakeClock` is not."""

    def time(self) -> float:
        """Wall clock in seconds since the epoch, UTC; it may jump."""
        ...

    def elapsed(self) -> float:
        """Seconds since some fixed moment; never jumps, and goes on while the machine is suspended."""
        ...

    def wait(self, event: Waitable, seconds: float) -> bool:
        """Block until `event` is set (True) or `seconds` have passed (False)."""
        ...


def _elapsed_clock() -> Callable[[], float]:
    """Return the platform's clock that neither jumps nor stops while the machine sleeps.

    Linux stops CLOCK_MONOTONIC during suspend, hence CLOCK_BOOTTIME; macOS and the BSDs let CLOCK_MONOTONIC run on, and
    so does Windows' `time.monotonic`.
    """
    for name in ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"):
        clock_id = getattr(time, name, None)
        if clock_id is not None:
            return functools.partial(time.clock_gettime, clock_id)
    return time.monotonic


def _boot() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip() or None
    except (OSError, UnicodeError):
        return None


class SystemClock:
    """The machine's own clocks."""

    boot: str | None
    """What tells this run of the machine from earlier ones, or None where the system has nothing of that kind."""

    def __init__(self) -> None:
        self.boot = _boot()
        self.time = time.time
        self.elapsed = _elapsed_clock()

    def wait(self, event: Waitable, seconds: float) -> bool:
        """Block the calling thread; see `Clock.wait`."""
        return event.wait(seconds)


SYSTEM_CLOCK = SystemClock()

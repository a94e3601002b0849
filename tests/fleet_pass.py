"""How a pass of `fleet_model` is made without threads: what stands in for the flight, and what throws a pass out."""

from collections.abc import Callable

from tradovate_auth._flight import Aftermath

__all__ = ["Asleep", "Busy", "Errand", "Foul", "Killed"]


class Busy(BaseException):
    """Somebody else holds the storage's lock: the pass begins anew when it is free."""


class Asleep(BaseException):
    """The pass has to wait outside the lock, and goes on in so many seconds by beginning anew."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Foul(BaseException):
    """A check has failed in the middle of a call: no `Exception`, which the machinery would take for the transport's."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class Killed(BaseException):
    """The process has died in the middle of what it did."""


class Errand:
    """Stands in for `SingleFlight`: the work is done by whoever waits for it, at once."""

    aboard = False

    def __init__(self, work: Callable[[], Aftermath], landed: Callable[[], None]) -> None:
        self._work = work
        self._landed = landed
        self.asked = False

    def join(self) -> "Errand":
        """Ask for the work; whoever waits does it."""
        self.asked = True
        return self

    def current(self) -> None:
        """Return no flight: none is under way when somebody asks."""
        return

    def wait(self, timeout: float | None = None) -> None:
        """Do the work, and raise what it raises."""
        error, aftermath = self._work()
        self.asked = False  # not if it was thrown out: then it begins anew
        aftermath()
        self._landed()
        if error is not None:
            raise error

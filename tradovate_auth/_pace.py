"""How fast the account may be worked: its minutes, and the pauses made of them. Pure."""

from dataclasses import dataclass

__all__ = ["Pace"]


@dataclass(frozen=True, slots=True)
class Pace:
    """The minutes of one account: they shrink with the hour on loopback, see `Environment.window`.

    Args:
        hour: Seconds in the window of every limit.
        lifetime: Seconds that the account's tokens live, or None before the first.
    """

    hour: float
    lifetime: float | None

    @property
    def minute(self) -> float:
        """A sixtieth of the hour, in seconds."""
        return self.hour / 60

    @property
    def between_renewals(self) -> float:
        """Least seconds between two planned renewals that were granted."""
        return self._shorter(5 * self.minute)

    @property
    def first_pause(self) -> float:
        """Seconds between the first and the second unscheduled renewal."""
        return self._shorter(self.minute)

    @property
    def longest_pause(self) -> float:
        """Seconds after which the pause between unscheduled renewals stops doubling."""
        return 10 * self.minute

    def backoff(self, failures: int) -> float:
        """Longest wait in seconds after so many failed renewals in a row; the real one is drawn below it."""
        return float(min(5 * self.minute, self.minute / 4 * 2 ** min(failures - 1, 16)))

    def _shorter(self, seconds: float) -> float:
        return seconds if self.lifetime is None else min(seconds, self.lifetime / 6)

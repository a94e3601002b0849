"""What the answers of the server teach about its clock.

Each has a `Date` in whole seconds. The storage's clock plus an offset is taken for the server's, and the median of what the
answers of a quarter of an hour say is that offset; it is written down with what the answer has brought. Logins and renewals
are further apart than that, so as a rule one answer decides. Hence a `Date` that is more than an hour away is believed only of an
answer that grants a token, and is held against its own `expirationTime`: a clock that was set makes both move.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ._clock import Clock
from .errors import StorageError
from .storage import Storage

__all__ = ["ServerClock", "Term", "clock_offset", "median_offset"]

_SAMPLED: Final = 900.0  # seconds for which what an answer has said may outvote a later one
_DAY: Final = 86_400.0
_WRONG: Final = 3600.0  # seconds of difference between two clocks that somebody should hear of


@dataclass(frozen=True, slots=True)
class Term:
    """When the token ends that an answer grants, by the server, and how many seconds the last one was to live."""

    ends: float
    lifetime: float | None

    def fits(self, now: float, other: float) -> bool:
        """Return whether a token that begins now lives more nearly as long as one that begins at another moment: or, if none is
        known, whether it lives at all, and for no more than a day.
        """
        if self.lifetime is None:
            return 0 < self.ends - now <= _DAY
        return abs(self.ends - now - self.lifetime) <= abs(self.ends - other - self.lifetime)


@dataclass(slots=True)
class ServerClock:
    """The server's clock, by what one process has been told. Not for two threads at once.

    Args:
        clock: The process's own.
    """

    clock: Clock
    learnt: float | None = None
    """The offset by the newest answers, if it is not written down yet."""
    oddities: list[str] = field(default_factory=list)
    """What somebody should hear of."""
    _samples: tuple[tuple[float, float], ...] = ()
    """When answers came, by the clock that never jumps, and what each said."""

    def read(
        self,
        date: float | None,
        storage: Storage,
        *,
        asked: float,
        begun: float,
        believed: float,
        term: Term | None,
    ) -> float:
        """Return the server's time at which an answer was read; learn from it.

        Never raises: the answer may hold a token that has been granted already.

        Args:
            date: The answer's `Date`.
            storage: Whose clock the offset is counted from.
            asked: What that showed when the call was made.
            begun: The same by the clock that never jumps.
            believed: The offset so far.
            term: The life of the token that the answer grants, if it does.
        """
        elapsed = self.clock.elapsed()
        try:
            read = storage.now()
        except StorageError:
            read = asked + elapsed - begun
        if date is None:
            return read + believed
        sample = clock_offset(date, asked, read, believed)
        hours = (sample - believed) / _WRONG
        if abs(hours) > 1 and (term is None or not term.fits(read + sample, read + believed)):
            against = "the server's clock as it is known" if term is None else "its own expirationTime"
            self.oddities.append(
                f"the Date of an answer is {hours:+.1f} h away from {against}, and is not believed"
            )
            return read + believed
        recent = [(at, kept) for at, kept in self._samples if elapsed - at < _SAMPLED][-2:]
        self._samples = (*recent, (elapsed, sample))
        self.learnt = median_offset([kept for _, kept in self._samples])
        hours = (self.learnt - believed) / _WRONG
        if abs(hours) > 1:
            self.oddities.append(f"the server's clock is {hours:+.1f} h away from where it was taken to be")
        return read + self.learnt


def clock_offset(date: float, sent: float, received: float, believed: float) -> float:
    """Return the server's clock minus ours, given the `Date` of an answer and when it was asked for and read.

    A `Date` has whole seconds, so it allows a range; what was believed stays if it lies within.
    """
    low, high = date - received, date + 1.0 - sent
    return believed if low <= believed <= high else (low + high) / 2


def median_offset(samples: Sequence[float]) -> float:
    """Return the median of what several answers say, the oldest first; of two in the middle the newer one."""
    ranked = sorted(range(len(samples)), key=lambda index: samples[index])
    middle = ranked[(len(ranked) - 1) // 2 : len(ranked) // 2 + 1]
    return samples[max(middle)]

"""What was spent in the rolling hour, what the server forbade, and when the next call may be made. Pure values.

A ledger belongs to one user of one environment and lies in the storage, so that every process, and every restart, counts
together. All moments are the server's, in seconds since the epoch. Every change returns a new ledger.

    failed_logins   refused logins, and those whose answer got lost: the server locks at 5 an hour (P§4.3), we stop at 3
    logins          granted logins: unlimited at the server, but each may close somebody's session
    renewals        all renewals sent: the server stops at 15 an hour, granted or not; we stop at 12
    unscheduled     the renewals among them that nobody had planned: after a 401, a probe, a human's wish

A call is entered *before* it is sent and corrected by its answer, so a process that dies in between has still been counted.
"""

from dataclasses import dataclass, field, replace
from typing import Final, Literal, Self

from .models import Budget

__all__ = ["MOST_RESENDS", "Hold", "HoldKind", "Latch", "Ledger", "Pace"]

MOST_RESENDS: Final = 2
"""How often in a row a penalty is worked off before it is held (P§9.11)."""

HoldKind = Literal["penalty", "captcha", "locked", "evicted", "lost", "protocol"]
_UNSCHEDULED_SHARE: Final = 2 / 3  # of the renewals: eight of the hour's twelve
_DAY_IN_HOURS: Final = 24


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


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing is sent before `until`."""

    kind: HoldKind
    until: float
    reason: str
    ticket: str | None = field(default=None, repr=False)
    """Only for a penalty: what the identical login body is sent again with (P§4.1)."""
    resends: int = 0
    """How often a ticket of this penalty was redeemed."""

    @property
    def passable(self) -> bool:
        """Whether the server only asked to wait, and has not asked again and again (P§9.11)."""
        return self.kind == "penalty" and self.resends < MOST_RESENDS


@dataclass(frozen=True, slots=True)
class Latch:
    """These credentials were refused. `fingerprint` is a salted scrypt hash of them, never the credentials."""

    fingerprint: str = field(repr=False)
    text: str
    until: float | None
    """The moment for one more try, where the refusal may have been throttling in disguise; else None."""
    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class Ledger:
    """See the top of this module."""

    failed_logins: tuple[float, ...] = ()
    logins: tuple[float, ...] = ()
    renewals: tuple[float, ...] = ()
    unscheduled: tuple[float, ...] = ()
    renewed_at: float | None = None
    """When a token was last granted, by login or renewal."""
    failures: int = 0
    """Renewals in a row that brought nothing."""
    retry_at: float = 0.0
    """No planned renewal before: back-off after failures."""
    unscheduled_at: float = 0.0
    """No unscheduled renewal before."""
    pause: float = 0.0
    """Seconds between unscheduled renewals; 0 while the last one helped."""
    lost: int = 0
    """Logins in a row that were sent and brought no answer."""
    evicted_at: float | None = None
    """The last eviction, or the login that followed it."""
    eviction_pause: float = 0.0
    hold: Hold | None = None
    latch: Latch | None = None
    proven: str | None = field(default=None, repr=False)
    """Fingerprint of the credentials that last worked."""

    def pruned(self, now: float, hour: float) -> Self:
        """Forget what has left the rolling hour. An entry from the future (a clock was set back) counts as now."""

        def recent(entries: tuple[float, ...]) -> tuple[float, ...]:
            return tuple(min(entry, now) for entry in entries if entry > now - hour)

        hold = self.hold if self.hold is not None and (self.hold.until > now or self.hold.ticket) else None
        return replace(
            self,
            failed_logins=recent(self.failed_logins),
            logins=recent(self.logins),
            renewals=recent(self.renewals),
            unscheduled=recent(self.unscheduled),
            hold=hold,
        )

    def hold_at(self, now: float) -> Hold | None:
        """Return the hold that forbids calls now, or None."""
        return self.hold if self.hold is not None and self.hold.until > now else None

    def login_wait(self, now: float, pace: Pace, budget: Budget) -> float:
        """Seconds until the budget lets a login go out; 0.0 for now."""
        return max(
            _wait(self.failed_logins, budget.failed_logins, now, pace.hour),
            _wait(self.logins, budget.logins, now, pace.hour),
        )

    def renewals_spent(self, now: float, pace: Pace, budget: Budget) -> float:
        """Seconds until the budget alone lets a renewal go out; 0.0 for now."""
        return _wait(self.renewals, budget.renewals, now, pace.hour)

    def renewal_wait(self, now: float, pace: Pace, budget: Budget, *, scheduled: bool) -> float:
        """Seconds until the budget and the pace let a renewal go out; 0.0 for now."""
        wait = self.renewals_spent(now, pace, budget)
        if scheduled:
            pause = 0.0 if self.renewed_at is None else self.renewed_at + pace.between_renewals - now
            return max(wait, pause, self.retry_at - now, 0.0)
        share = max(1, int(budget.renewals * _UNSCHEDULED_SHARE))
        return max(wait, _wait(self.unscheduled, share, now, pace.hour), self.unscheduled_at - now, 0.0)

    def with_renewal(self, now: float, pace: Pace, *, scheduled: bool) -> Self:
        """Enter a renewal that is about to be sent."""
        pruned = self.pruned(now, pace.hour)
        entered = replace(pruned, renewals=(*pruned.renewals, now))
        if scheduled:
            return entered
        pause = min(max(self.pause * 2, pace.first_pause), pace.longest_pause)
        return replace(
            entered, unscheduled=(*entered.unscheduled, now), unscheduled_at=now + pause, pause=pause
        )

    def without_last_renewal(self, *, scheduled: bool) -> Self:
        """Take back a renewal that never left this machine, and the pause after it."""
        back = replace(self, renewals=self.renewals[:-1])
        if scheduled:
            return back
        return replace(back, unscheduled=self.unscheduled[:-1], unscheduled_at=0.0, pause=self.pause / 2)

    def with_cure(self) -> Self:
        """Note that the last unscheduled renewal helped: the next one need not wait."""
        return replace(self, pause=0.0, unscheduled_at=0.0)

    def with_renewal_failed(self, now: float, wait: float) -> Self:
        """Note that a renewal brought nothing, and when the next may be tried."""
        return replace(self, failures=self.failures + 1, retry_at=now + wait)

    def with_grant(self, now: float) -> Self:
        """Note that a token was granted: whatever stood in its way is over."""
        return replace(self, renewed_at=now, failures=0, retry_at=0.0, lost=0, hold=None)

    def with_login(self, now: float, pace: Pace) -> Self:
        """Enter a login that is about to be sent: as failed, until it is granted."""
        pruned = self.pruned(now, pace.hour)
        return replace(pruned, failed_logins=(*pruned.failed_logins, now), hold=None)

    def without_last_login(self) -> Self:
        """Take back a login that never left this machine, or that the server did not process."""
        return replace(self, failed_logins=self.failed_logins[:-1])

    def with_login_granted(self, now: float, pace: Pace, fingerprint: str) -> Self:
        """Turn the entered login into a granted one."""
        watch = self.eviction_pause + 10 * pace.minute
        follows = self.evicted_at is not None and now - self.evicted_at < watch
        evicted_at = now if follows else self.evicted_at
        granted = replace(self.without_last_login(), logins=(*self.logins, now), evicted_at=evicted_at)
        latch = None if self.latch is not None and self.latch.fingerprint == fingerprint else self.latch
        return replace(granted.with_grant(now), latch=latch, proven=fingerprint)

    def with_login_lost(self, now: float, pace: Pace) -> Self:
        """Note that a sent login brought no answer: once more at once, then a hold of five minutes, doubling. P§9.37"""
        lost = self.lost + 1
        if lost == 1:
            return replace(self, lost=lost)
        seconds = min(5 * pace.minute * 2 ** min(lost - 2, 16), pace.hour)
        reason = "a login was sent and its answer got lost"
        return replace(self, lost=lost, hold=Hold("lost", now + seconds, reason))

    def with_login_refused(
        self, now: float, pace: Pace, fingerprint: str, text: str, *, disguised: bool
    ) -> Self:
        """Latch the refused credentials; for one more try in an hour if the refusal may have been throttling. P§9.7"""
        latch = Latch(fingerprint, text, None)
        if disguised and fingerprint == self.proven:
            earlier = (
                self.latch.pause if self.latch is not None and self.latch.fingerprint == fingerprint else 0.0
            )
            pause = min(max(earlier * 2, pace.hour), _DAY_IN_HOURS * pace.hour)
            latch = replace(latch, until=now + pause, pause=pause)
        return replace(self, latch=latch, lost=0, hold=None)

    def with_eviction(self, now: float, pace: Pace) -> Self:
        """Note that the server ended our session early. The second time within ten minutes is a hold, doubling."""
        if self.evicted_at is None or now - self.evicted_at >= 10 * pace.minute:
            return replace(self, evicted_at=now, eviction_pause=0.0)
        pause = min(max(self.eviction_pause * 2, 10 * pace.minute), pace.hour)
        reason = "another client keeps closing our session"
        return replace(self, evicted_at=now, eviction_pause=pause, hold=Hold("evicted", now + pause, reason))

    def with_hold(self, hold: Hold) -> Self:
        """Place a hold; a longer one of another kind stays."""
        keeps = self.hold is not None and self.hold.kind != hold.kind and self.hold.until > hold.until
        return self if keeps else replace(self, hold=hold)

    def forgiven(self) -> Self:
        """Forget holds, the latch and every pause: a human says so. What was spent stays spent."""
        return replace(
            self,
            hold=None,
            latch=None,
            retry_at=0.0,
            failures=0,
            unscheduled_at=0.0,
            pause=0.0,
            lost=0,
            evicted_at=None,
            eviction_pause=0.0,
        )


def _wait(entries: tuple[float, ...], limit: int, now: float, hour: float) -> float:
    """Seconds until fewer than `limit` of the entries lie in the hour before then."""
    counted = sorted(min(entry, now) for entry in entries if entry > now - hour)
    return 0.0 if len(counted) < limit else counted[-limit] + hour - now

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
from typing import Final, Self

from ._holds import Hold, Latch
from ._pace import Pace
from .models import Budget

__all__ = ["Ledger"]

_UNSCHEDULED_SHARE: Final = 2 / 3  # of the renewals: eight of the hour's twelve
_DAY_IN_HOURS: Final = 24
_MOST_CREDENTIALS: Final = 8  # of one user: API keys, and passwords that were mistyped


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
    puzzled: int = 0
    """Logins in a row that brought an answer which is neither a token nor a refusal."""
    evicted_at: float | None = None
    """The last eviction, or the login that followed it."""
    eviction_pause: float = 0.0
    hold: Hold | None = None
    latches: tuple[Latch, ...] = ()
    """One for each of the user's credentials that were refused, the newest last."""
    proven: tuple[str, ...] = field(default=(), repr=False)
    """Fingerprints of the credentials that have worked, the newest last."""

    def pruned(self, now: float, hour: float) -> Self:
        """Forget what has left the rolling hour. An entry from the future (a clock was set back) is one of now.

        Not one that is a moment ahead: somebody has entered it since `now` was looked up, and may take it back by its moment.
        """
        ahead = now + hour / 60

        def recent(entries: tuple[float, ...]) -> tuple[float, ...]:
            return tuple(now if entry > ahead else entry for entry in entries if entry > now - hour)

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

    def renewals_spent(self, now: float, pace: Pace, budget: Budget, *, scheduled: bool = True) -> float:
        """Seconds until the budget alone lets a renewal go out; 0.0 for now. Unplanned ones have a share of it."""
        wait = _wait(self.renewals, budget.renewals, now, pace.hour)
        if scheduled:
            return wait
        share = max(1, int(budget.renewals * _UNSCHEDULED_SHARE))
        return max(wait, _wait(self.unscheduled, share, now, pace.hour))

    def renewal_wait(self, now: float, pace: Pace, budget: Budget, *, scheduled: bool) -> float:
        """Seconds until the budget and the pace let a renewal go out; 0.0 for now."""
        wait = self.renewals_spent(now, pace, budget, scheduled=scheduled)
        if scheduled:
            pause = 0.0 if self.renewed_at is None else self.renewed_at + pace.between_renewals - now
            return max(wait, pause, self.retry_at - now, 0.0)
        return max(wait, self.unscheduled_at - now, 0.0)

    def with_renewal(self, now: float, pace: Pace, *, scheduled: bool) -> Self:
        """Enter a renewal that is about to be sent."""
        pruned = self.pruned(now, pace.hour)
        entered = replace(pruned, renewals=(*pruned.renewals, now))
        if scheduled:
            return entered
        quiet = now - self.unscheduled_at >= pace.longest_pause  # so long that it is another matter
        pause = min(max(0.0 if quiet else self.pause * 2, pace.first_pause), pace.longest_pause)
        return replace(
            entered, unscheduled=(*entered.unscheduled, now), unscheduled_at=now + pause, pause=pause
        )

    def without_last_renewal(self, *, scheduled: bool) -> Self:
        """Take back a renewal that never left this machine, and the pause after it."""
        back = replace(self, renewals=self.renewals[:-1])
        if scheduled:
            return back
        # Allowed from the moment at which it was entered, so that the next one doubles the pause as this one has.
        at = self.unscheduled_at - self.pause
        return replace(back, unscheduled=self.unscheduled[:-1], unscheduled_at=at, pause=self.pause / 2)

    def with_cure(self) -> Self:
        """Note that the last unscheduled renewal helped: the next one need not wait."""
        return replace(self, pause=0.0, unscheduled_at=0.0)

    def with_renewal_failed(self, now: float, wait: float) -> Self:
        """Note that a renewal brought nothing, and when the next may be tried."""
        return replace(self, failures=self.failures + 1, retry_at=now + wait)

    def with_grant(self, now: float) -> Self:
        """Note that a token was granted: whatever stood in its way is over."""
        hold = self._hold_of_others(now)
        return replace(self, renewed_at=now, failures=0, retry_at=0.0, lost=0, hold=hold)

    def with_login(self, now: float, pace: Pace) -> Self:
        """Enter a login that is about to be sent: as failed, until it is granted. A penalty is worked off by it."""
        pruned = self.pruned(now, pace.hour)
        return replace(pruned, failed_logins=(*pruned.failed_logins, now), hold=self.hold_at(now))

    def without_last_login(self) -> Self:
        """Take back a login that never left this machine, or that the server did not process."""
        return replace(self, failed_logins=self.failed_logins[:-1])

    def with_login_granted(self, now: float, pace: Pace, fingerprint: str) -> Self:
        """Turn the entered login into a granted one."""
        watch = self.eviction_pause + 10 * pace.minute
        follows = self.evicted_at is not None and now - self.evicted_at < watch
        evicted_at = now if follows else self.evicted_at
        granted = replace(self.without_last_login(), logins=(*self.logins, now), evicted_at=evicted_at)
        proven = (*(known for known in self.proven if known != fingerprint), fingerprint)
        latches = tuple(latch for latch in self.latches if latch.fingerprint != fingerprint)
        proven = proven[-_MOST_CREDENTIALS:]
        return replace(granted.with_grant(now), latches=latches, proven=proven, puzzled=0)

    def latch(self, fingerprint: str) -> Latch | None:
        """Return the latch on these credentials, or None."""
        return next((latch for latch in self.latches if latch.fingerprint == fingerprint), None)

    def with_login_lost(self, now: float, pace: Pace, why: str) -> Self:
        """Note that a sent login brought no answer: once more at once, then a hold of five minutes, doubling. P§9.37"""
        lost = self.lost + 1
        if lost == 1:
            return replace(self, lost=lost)
        seconds = min(5 * pace.minute * 2 ** min(lost - 2, 16), pace.hour)
        reason = f"a login may have been sent, and brought no answer that could be used ({why.rstrip('.')})"
        return replace(self, lost=lost, hold=Hold("lost", now + seconds, reason))

    def with_login_refused(
        self, now: float, pace: Pace, fingerprint: str, text: str, *, disguised: bool
    ) -> Self:
        """Latch the refused credentials; for one more try in an hour if the refusal may have been throttling. P§9.7"""
        latch, earlier = Latch(fingerprint, text, None), self.latch(fingerprint)
        if disguised and fingerprint in self.proven:
            pause = earlier.pause * 2 if earlier is not None else 0.0
            pause = min(max(pause, pace.hour), _DAY_IN_HOURS * pace.hour)
            latch = replace(latch, until=now + pause, pause=pause)
        others = tuple(known for known in self.latches if known is not earlier)
        latches = (*others, latch)[-_MOST_CREDENTIALS:]
        return replace(self, latches=latches, lost=0, puzzled=0, hold=self._hold_of_others(now))

    def with_login_not_understood(self, now: float, pace: Pace, reason: str) -> Self:
        """Note an answer that is neither a token nor a refusal. Each try may send somebody a code, or open a session that is
        thrown away: so the pause doubles up to a day. P§9.29
        """
        seconds = min(15 * pace.minute * 2 ** min(self.puzzled, 16), _DAY_IN_HOURS * pace.hour)
        hold = Hold("protocol", now + seconds, reason)
        return replace(self.with_hold(hold), puzzled=self.puzzled + 1)

    def with_eviction(self, now: float, pace: Pace) -> Self:
        """Note that the server ended our session early. The second time within ten minutes is a hold, doubling."""
        if self.evicted_at is None or now - self.evicted_at >= 10 * pace.minute:
            return replace(self, evicted_at=now, eviction_pause=0.0)
        pause = min(max(self.eviction_pause * 2, 10 * pace.minute), pace.hour)
        reason = "another client keeps closing our session"
        return replace(self, evicted_at=now, eviction_pause=pause, hold=Hold("evicted", now + pause, reason))

    def _hold_of_others(self, now: float) -> Hold | None:
        """Return the hold that somebody has placed while the answer that has just come was on its way: nothing is sent during
        one. What the server has forbidden stays so; whatever else there is, the answer has ended.
        """
        hold = self.hold_at(now)
        return hold if hold is not None and hold.kind in {"captcha", "locked"} else None

    def with_hold(self, hold: Hold) -> Self:
        """Place a hold; a longer one stays, unless both are penalties: the server's newer word counts, and its ticket."""
        penalties = self.hold is not None and self.hold.kind == hold.kind == "penalty"
        keeps = self.hold is not None and self.hold.until > hold.until and not penalties
        return self if keeps else replace(self, hold=hold)

    def joined(self, other: Self, since: Self) -> Self:
        """Add what has happened according to another ledger of the same account, kept while this one could not be reached.

        Args:
            other: That ledger.
            since: Where it has begun: what is there already has been in this one, or others have done away with it.
        """
        granted = [moment for moment in (self.renewed_at, other.renewed_at) if moment is not None]
        evicted = other if other.evicted_at != since.evicted_at else self
        latches = {latch.fingerprint: latch for latch in other.latches if latch not in since.latches}
        kept = tuple(latch for latch in self.latches if latch.fingerprint not in latches)
        proven = tuple(known for known in other.proven if known not in (*since.proven, *self.proven))
        holds = [hold for hold in (self.hold, other.hold if other.hold != since.hold else None) if hold]
        return replace(
            self,
            failed_logins=_union(self.failed_logins, other.failed_logins, since.failed_logins),
            logins=_union(self.logins, other.logins, since.logins),
            renewals=_union(self.renewals, other.renewals, since.renewals),
            unscheduled=_union(self.unscheduled, other.unscheduled, since.unscheduled),
            renewed_at=max(granted, default=None),
            retry_at=max(self.retry_at, other.retry_at),
            unscheduled_at=max(self.unscheduled_at, other.unscheduled_at),
            pause=max(self.pause, other.pause),
            lost=max(self.lost, other.lost),
            puzzled=max(self.puzzled, other.puzzled),
            evicted_at=evicted.evicted_at,
            eviction_pause=evicted.eviction_pause,
            hold=max(holds, key=lambda hold: hold.until, default=None),
            latches=(*kept, *latches.values())[-_MOST_CREDENTIALS:],
            proven=(*self.proven, *proven)[-_MOST_CREDENTIALS:],
        )

    def shifted(self, seconds: float) -> Self:
        """Return this ledger with every moment moved: the clock that they were taken from was wrong by that."""

        def moved(entries: tuple[float, ...]) -> tuple[float, ...]:
            return tuple(entry + seconds for entry in entries)

        def moment(value: float | None) -> float | None:
            return value + seconds if value else value

        return replace(
            self,
            failed_logins=moved(self.failed_logins),
            logins=moved(self.logins),
            renewals=moved(self.renewals),
            unscheduled=moved(self.unscheduled),
            renewed_at=moment(self.renewed_at),
            retry_at=moment(self.retry_at) or 0.0,
            unscheduled_at=moment(self.unscheduled_at) or 0.0,
            evicted_at=moment(self.evicted_at),
            hold=replace(self.hold, until=self.hold.until + seconds) if self.hold is not None else None,
            latches=tuple(replace(latch, until=moment(latch.until)) for latch in self.latches),
        )

    def forgiven(self) -> Self:
        """Forget holds, the latches and every pause: a human says so. What was spent stays spent."""
        return replace(
            self,
            hold=None,
            latches=(),
            retry_at=0.0,
            failures=0,
            unscheduled_at=0.0,
            pause=0.0,
            lost=0,
            puzzled=0,
            evicted_at=None,
            eviction_pause=0.0,
        )


def _union(one: tuple[float, ...], other: tuple[float, ...], since: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sorted({*one, *({*other} - {*since})}))


def _wait(entries: tuple[float, ...], limit: int, now: float, hour: float) -> float:
    """Seconds until fewer than `limit` of the entries lie in the hour before then."""
    counted = sorted(min(entry, now) for entry in entries if entry > now - hour)
    return 0.0 if len(counted) < limit else counted[-limit] + hour - now

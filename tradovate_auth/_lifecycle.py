"""One blocking pass over an account: look, decide, exchange, save.

The order: look at the storage and decide; if an exchange is needed, take the storage's lock, look again, decide *again*,
exchange, save, give the lock back. A penalty ends the pass, and the next one begins with waiting for it, outside the lock.
What is decided, and why, is in `_decision`; what an exchange does to the record, in `_exchange`.

A storage can lose what it held: it is restarted empty, or a replica takes over that had missed the last words. So whoever
holds a living token puts it back where there is no record at all, and the process that obtained it also over an older one.
That process looks for it more often than the schedule would have it.
"""

import datetime as dt
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, assert_never

from ._account import Account
from ._decision import Decision, Idle, Login, Pause, Renew, Stop, Use, decide
from ._exchange import Exchange, Journal
from ._ledger import Ledger
from ._view import Need, View, stale_moment
from .errors import StorageError, TradovateAuthError
from .events import Adopted
from .models import AccessToken, Budget
from .storage import Record, Storage

__all__ = ["Landing", "Lifecycle"]

_ROUNDS: Final = 24  # far above what the budgets allow; a bound against a storage that keeps changing
_SLICE: Final = (
    5.0  # seconds of a penalty between two looks: a human may have lifted it, or another process logged in
)
_RETURN: Final = (
    5.0  # seconds for which whoever has no token leaves a storage that is back to those who have one
)
_WATCH: Final = (
    30.0  # seconds between two looks of the process that obtained the token, where others could lose it
)


@dataclass(frozen=True, slots=True)
class Landing:
    """How a pass ended: with a token, or with an error, or (nobody needed one) with neither."""

    token: AccessToken | None = None
    again_in: float = 0.0
    """Seconds until the token is to be looked at again."""
    ends_in: float = 0.0
    """Seconds until the token ends."""
    error: TradovateAuthError | None = None
    pause: float = 0.0
    """Seconds that the server wants us to wait before the next pass goes on: those with less time leave now."""
    final: bool = False
    """The storage was read and says that no token can be used, rather than that it could not be read."""


class Lifecycle:
    """One account's passes. Not for two threads at once: a provider runs it on its one flight."""

    def __init__(self, account: Account, budget: Budget, may_login: Callable[[], bool]) -> None:
        self.account = account
        self._budget = budget
        self._may_login = may_login
        self._spread = random.random()  # noqa: S311  # spreads load, guards nothing
        self.known = Record()
        """The newest record that was seen: what a storage that has lost everything is given back."""
        self._seen = Record()
        """What the last look has found; empty where the storage is."""
        self._away = False
        self._returning = False
        """The storage could not be used the last time: what lies there may be behind what others hold in their hands."""
        self.lead = 0.0
        """The server's clock minus the one that never jumps, in seconds, as it was when the record was last seen."""
        self.queueing = False
        """Whether the last pass ended while it waited for the storage's lock: that is busy then, and not away."""
        self.own: tuple[int, AccessToken] | None = None
        """The token that this very process has obtained last, a fork of it not being it."""

    def owns(self, token: AccessToken | None) -> bool:
        """Return whether this process has obtained the token from the server."""
        return self.own is not None and self.own[0] == os.getpid() and self.own[1] is token

    def succeed(self, other: "Lifecycle", *, away: bool) -> None:
        """Take over what a lifecycle of the same account knows.

        Args:
            other: That one, on another storage.
            away: What it has spent is not in this one's storage yet.
        """
        self.known, self.own, self.lead = other.known, other.own, other.lead
        self._away = self._away or away

    def survey(
        self,
        record: Record,
        held: AccessToken | None,
        need: Need,
        *,
        machine: Ledger = Ledger(),  # noqa: B008  # frozen
        tried: bool = False,
    ) -> View:
        """Return the view of a record, and of the machine's ledger. Asks the storage for its clock."""
        now = self.account.now(record)
        token = self._newest(record, held, now)
        pace = self.account.pace(token)
        return View(
            now=now,
            token=token,
            stale_at=stale_moment(token, pace, self._spread) if token is not None else 0.0,
            ends_at=token.expires_at.timestamp() if token is not None else 0.0,
            need=need,
            pace=pace,
            budget=self._budget,
            ledger=record.ledger,
            machine=machine,
            here=self.account.here,
            offered=token is not None and token.generation <= record.offered.get(self.account.slot, 0),
            tried=tried,
            latch=record.ledger.latch(self.account.fingerprint()) if record.ledger.latches else None,
            may_login=self._may_login(),
        )

    def run(self, held: AccessToken | None, need: Need, journal: Journal) -> Landing:
        """Decide and act until there is a token, or nothing more can be done. Blocks; errors come in the landing.

        Raises:
            StorageError: The storage cannot be used.
        """
        self.queueing = False
        try:
            return self._run(held, need, journal)
        except StorageError as error:
            self._returning = not self.queueing
            if journal.obtained is None:
                raise
            self.own = os.getpid(), journal.obtained
            journal.warn(f"a token is in use that could not be stored: {error.message}")
            return self._unsaved(journal.obtained)

    def _run(self, held: AccessToken | None, need: Need, journal: Journal) -> Landing:
        exchanged, rounds = False, 0
        while rounds < _ROUNDS:
            view = self._look(held, need, journal)
            decision = self._deferred(view, decide(view))
            if isinstance(decision, Renew | Login):
                rounds += 1
                self.queueing = True
                with self.account.exclusive(self._seen.generation) as lease:
                    self.queueing = False
                    if not lease.held():
                        continue  # a newer token has come meanwhile, or the lease was lost as soon as it was had
                    exchanged = True
                    view, decision = self._settle(held, need, Exchange(self.account, journal, lease))
            match decision:
                case Use(token, again_in):
                    self._note_adoption(token, held, journal)
                    watch = _WATCH if self.owns(token) and self.account.shared else again_in
                    return Landing(token, min(again_in, watch), view.ends_at - view.now)
                case Stop(error):
                    return Landing(error=error, final=True)
                case Idle():
                    return Landing()
                case Pause(seconds) if exchanged:
                    return Landing(pause=seconds)
                case Pause(seconds):
                    self.account.sit_out(min(seconds, _SLICE))
                case Renew() | Login():
                    pass  # it could not be made or saved: somebody else has been there
                case _:
                    assert_never(decision)
        raise StorageError("The stored session keeps changing.")

    def _deferred(self, view: View, decision: Decision) -> Decision:
        """Return a pause instead of the first exchange without a token after an outage; others may put one back."""
        if not (self._returning and view.living is None and isinstance(decision, Renew | Login)):
            return decision
        self._returning = False
        return Pause(_RETURN)

    def _settle(self, held: AccessToken | None, need: Need, exchange: Exchange) -> tuple[View, Decision]:
        """Exchange, under the storage's lock, until no further exchange is due."""
        tried = False
        for _ in range(_ROUNDS):
            view = self._look(held, need, exchange.journal, tried=tried)
            decision = decide(view)
            if not isinstance(decision, Renew | Login) or not exchange.lease.held():
                break
            if isinstance(decision, Renew):
                granted = exchange.renew(self._seen, decision.token, view, scheduled=decision.scheduled)
                tried = True
            else:
                granted = exchange.login(self._seen, decision.ticket, view)
            if granted is not None:
                held, self.own = granted, (os.getpid(), granted)
        return view, decision

    def _look(self, held: AccessToken | None, need: Need, journal: Journal, *, tried: bool = False) -> View:
        """Return the view of what is stored now, put right if the storage has lost it."""
        record = self.account.load()
        lost = self._misses(record, held)
        if lost:
            journal.warn("the storage had lost what was last known of the session; it was put back")
        if lost or self._away:
            record = self._put_back(held)
            self._away = False
        self._seen = record
        if record.revision:
            self.known = record
        view = self.survey(record, held, need, tried=tried)
        self.lead = view.now - self.account.clock.elapsed()
        if isinstance(decide(view), Use | Idle):
            return view
        return replace(view, machine=self.account.machine.load())

    def _misses(self, record: Record, held: AccessToken | None) -> bool:
        """Return whether the storage has lost what this process knows, rather than that others have done away with it."""
        if not record.revision:
            return self.known.revision > 0 or held is not None
        slot = self.account.slot
        if held is None or not self.owns(held) or held.generation <= record.refused.get(slot, 0):
            return False
        stored = record.tokens.get(slot)
        return stored is None or _order(stored) < _order(held)

    def _put_back(self, held: AccessToken | None) -> Record:
        known, slot = self.known, self.account.slot

        def restoring(found: Record) -> Record:
            if not found.revision:
                base = replace(known, offset=self.offset(self.account.storage))
            else:
                base = replace(found, ledger=found.ledger.joined(known.ledger))
            stored = base.tokens.get(slot)
            if held is None or not self._misses(found, held) or (stored and _order(stored) >= _order(held)):
                return base
            tokens = {**base.tokens, slot: held}
            return replace(base, generation=max(base.generation, held.generation), tokens=tokens)

        return self.account.update(restoring)

    def offset(self, storage: Storage) -> float:
        """Return the server's clock minus a storage's own, by what is known without that storage's record."""
        return self.account.clock.elapsed() + self.lead - storage.now()

    def _unsaved(self, token: AccessToken) -> Landing:
        """Return the landing of a token that was granted a moment ago, without asking the storage for the time."""
        issued = token.issued_at.timestamp()
        stale_at = stale_moment(token, self.account.pace(token), self._spread)
        return Landing(token, stale_at - issued, token.lifetime)

    def _newest(self, record: Record, held: AccessToken | None, now: float) -> AccessToken | None:
        stored = record.tokens.get(self.account.slot)
        refused = record.refused.get(self.account.slot, 0)
        known = [token for token in (held, stored) if token is not None and token.generation > refused]
        # One that lives before one that has ended: a login without the storage starts to count anew.
        return max(
            known,
            key=lambda token: (token.expires_at.timestamp() > now, token.generation, token.issued_at),
            default=None,
        )

    def _note_adoption(self, token: AccessToken, held: AccessToken | None, journal: Journal) -> None:
        if token is held or journal.obtained is token:
            return
        journal.add(
            Adopted(account=journal.account, generation=token.generation, expires_at=token.expires_at)
        )
        device = self.account.credentials.device_id
        if device is not None and token.device_id not in (None, device):
            journal.warn("the session was opened for another device id; live orders may be refused")


def _order(token: AccessToken) -> tuple[int, dt.datetime]:
    """Return what the tokens of one account are ordered by: the generation, then the server's moment of issue."""
    return token.generation, token.issued_at

"""One blocking pass over an account: look, decide, exchange, save.

The order: look at the storage and decide; if an exchange is needed, take the storage's lock, look again, decide *again*,
exchange, save, give the lock back. A penalty ends the pass, and the next one begins with waiting for it, outside the lock.
What is decided, and why, is in `_decision`; what an exchange does to the record, in `_exchange`.

A storage can lose what it held: it is restarted empty, or a replica takes over that had missed the last words. So whoever
holds a living token puts it back where there is no record at all, and the process that obtained it also over an older one.
That process looks for it more often than the schedule would have it.
"""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, assert_never

from ._account import Account
from ._decision import Decision, Idle, Login, Pause, Renew, Stop, Use, decide
from ._exchange import Exchange, Journal
from ._ledger import Ledger
from ._restoring import Left, rank
from ._view import Need, View, stale_moment
from .errors import StorageError, TradovateAuthError
from .events import Adopted
from .models import AccessToken, Budget
from .storage import Record, StorageBusy

__all__ = ["Landing", "Lifecycle"]

_ROUNDS: Final = 24  # far above what the budgets allow; a bound against a storage that keeps changing
_SLICE: Final = (
    5.0  # seconds of a penalty between two looks: a human may have lifted it, or another process logged in
)
_RETURN: Final = (
    5.0  # seconds for which whoever has no token leaves a storage that is back to those who have one
)
_SOON: Final = 1.0  # seconds until a token that could not be stored is put back
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
        self._away: Left | None = None
        """What was known when the storage went away, if it has not been told what was spent since."""
        self._returning = False
        """The storage could not be used the last time: what lies there may be behind what others hold in their hands."""
        self.machine = Record()
        """The newest record of this machine that was seen."""
        self.skew = account.clock.time() - account.clock.elapsed()
        """The storage's clock minus the one that never jumps, in seconds, as it was when the record was last seen."""
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
        if away:
            self._away = self._away or Left(self.known, self.machine.ledger)
        # Revisions are each storage's own.
        self.known = replace(other.known, revision=self.known.revision) if away else other.known
        self.machine, self.own, self.skew = other.machine, other.own, other.skew
        self.account.saved = None  # older than what is known now

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
        now, hold = self.account.now(record), record.ledger.hold
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
            scope=self.account.ticket_scope() if hold is not None and hold.ticket else "",
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
        try:
            return self._run(held, need, journal)
        except StorageError as error:
            self._returning = not isinstance(error, StorageBusy)
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
                with self.account.exclusive(self._seen.generation) as lease:
                    if lease.held():
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
                case Pause(seconds) if view.hold is not None and (exchanged or not need.told):
                    return Landing(pause=seconds)
                case Pause(seconds):
                    self.account.sit_out(min(seconds, _SLICE))
                case Renew() | Login():
                    rounds += 1  # it could not be made or saved: somebody else has been there
                case _:
                    assert_never(decision)
        raise StorageBusy("The stored session keeps changing.")

    def _deferred(self, view: View, decision: Decision) -> Decision:
        """Return what to do instead of the first exchange after an outage: whoever obtained the token may have renewed it
        meanwhile, and be about to put that back.
        """
        returning, self._returning = self._returning, False
        if not returning or self.owns(view.token) or not isinstance(decision, Renew | Login):
            return decision
        if view.living is None:
            return Pause(_RETURN)
        return Use(view.living, min(_RETURN, (view.ends_at - view.now) / 4))

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
        self.machine = self.account.machine.load()
        return view, decision

    def _look(self, held: AccessToken | None, need: Need, journal: Journal, *, tried: bool = False) -> View:
        """Return the view of what is stored now, put right if the storage has lost it."""
        record = self.account.load()
        if self.account.saved is not None and self.account.saved.revision > self.known.revision:
            self.known = self.account.saved
        lost = self._misses(record, held)
        if lost:
            journal.warn("the storage had lost what was last known of the session; it was put back")
        if lost or self._away is not None:
            record = self._put_back(held)
        self._seen = record
        if record.revision:
            self.known = record
        view = self.survey(record, held, need, tried=tried)
        self.skew = view.now - record.offset - self.account.clock.elapsed()
        if isinstance(decide(view), Use | Idle):
            return view
        self.machine = self.account.machine.load()
        return replace(view, machine=self.machine.ledger.shifted(record.offset))

    def _misses(self, record: Record, held: AccessToken | None) -> bool:
        """Return whether the storage has lost what this process knows, rather than that others have done away with it."""
        if record.revision < self.known.revision:  # they only ever rise
            return True
        if not record.revision:
            return held is not None
        return self.owns(held) and self._better(record, held)

    def _better(self, record: Record, token: AccessToken | None) -> bool:
        """Return whether a token belongs in the place of what a record holds."""
        slot, now = self.account.slot, self.account.now(record)
        if token is None or token.generation <= record.refused.get(slot, 0):
            return False
        stored, own = record.tokens.get(slot), rank(token, now)
        return own > rank(stored, now) if stored is not None else own[0]

    def _put_back(self, held: AccessToken | None) -> Record:
        """Give the storage what it does not have; that is also told what was spent while it was away."""
        known, machine = self.known, self.machine
        left = self._away or Left()

        def restoring(found: Record) -> Record:
            base = found
            if not found.revision:
                base = replace(known, offset=self._offset())
            elif self._away is not None or found.revision < known.revision:  # it was away, or has gone back
                base = left.joined(found, known)
                if known.offset != left.record.offset:
                    base = replace(base, offset=self._offset())
            if held is None or not self._better(base, held) or (found.revision and not self.owns(held)):
                return base
            tokens = {**base.tokens, self.account.slot: held}
            return replace(base, generation=max(base.generation, held.generation), tokens=tokens)

        record = self.account.update(restoring)
        self.account.saved = None  # the storage counts anew
        if machine.revision and (self._away is not None or not self.account.machine.load().revision):
            self.account.machine.change(lambda ledger: ledger.joined(machine.ledger, left.machine))
        self._away = None
        return record

    def _offset(self) -> float:
        """Return the server's clock minus the storage's, which may be another one than it was."""
        return self.known.offset + self.account.clock.elapsed() + self.skew - self.account.storage.now()

    def _unsaved(self, token: AccessToken) -> Landing:
        """Return the landing of a token that was granted a moment ago, without asking the storage for anything."""
        issued = token.issued_at.timestamp()
        known, slot = self.known, self.account.slot
        self.known = replace(
            known,
            revision=max(known.revision, 1),
            generation=max(known.generation, token.generation),
            tokens={**known.tokens, slot: token},
            offset=issued - self.account.clock.elapsed() - self.skew,
        )
        stale_at = stale_moment(token, self.account.pace(token), self._spread)
        return Landing(token, min(stale_at - issued, _SOON), token.lifetime)

    def _newest(self, record: Record, held: AccessToken | None, now: float) -> AccessToken | None:
        stored = record.tokens.get(self.account.slot)
        refused = record.refused.get(self.account.slot, 0)
        known = [token for token in (held, stored) if token is not None and token.generation > refused]
        return max(known, key=lambda token: rank(token, now), default=None)

    def _note_adoption(self, token: AccessToken, held: AccessToken | None, journal: Journal) -> None:
        if token is held or journal.obtained is token:
            return
        journal.add(
            Adopted(account=journal.account, generation=token.generation, expires_at=token.expires_at)
        )
        device = self.account.credentials.device_id
        if device is not None and token.device_id not in (None, device):
            journal.warn("the session was opened for another device id; live orders may be refused")

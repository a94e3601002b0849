"""One blocking pass over an account: look, decide, exchange, save.

The order: look at the storage and decide; if an exchange is needed, take the storage's lock, look again, decide *again*,
exchange, save, give the lock back. A penalty ends the pass, and the next one begins with waiting for it, outside the lock.
What is decided, and why, is in `_decision`; what an exchange does to the record, in `_exchange`.
"""

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, assert_never

from ._account import Account
from ._decision import Decision, Idle, Login, Pause, Renew, Stop, Use, decide
from ._exchange import Exchange
from ._journal import Journal
from ._ledger import Ledger
from ._recollection import Recollection
from ._restoring import rank
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
        self.recollection = Recollection(account)
        self._seen = Record()
        """What the last look has found; empty where the storage is."""
        self._returning = False
        """The storage could not be used the last time: what lies there may be behind what others hold in their hands."""

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

    def glance(self, held: AccessToken | None, need: Need) -> tuple[Record, View]:
        """Return the record and the view of it as they are now; any thread. Blocks on the storage, and changes nothing.

        Raises:
            StorageError: The storage cannot be read.
        """
        record = self.account.load()
        spent = self.account.machine.load().ledger.shifted(record.offset)
        return record, self.survey(record, held, need, machine=spent)

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
            journal.warn(f"a token is in use that could not be stored: {error.message}")
            return self._unsaved(journal.obtained)

    def _run(self, held: AccessToken | None, need: Need, journal: Journal) -> Landing:
        exchanged, rounds = False, 0
        while rounds < _ROUNDS:
            view = self._look(held, need, journal)
            decision = self._at_once(view, held, self._deferred(view, decide(view)))
            if isinstance(decision, Renew | Login):
                self.recollection.writing = True
                with self.account.exclusive(self._seen.generation) as lease:
                    if lease.held():
                        exchanged = True
                        view, decision = self._settle(held, need, Exchange(self.account, journal, lease))
            match decision:
                case Use(token, again_in):
                    self._note_adoption(token, held, journal)
                    again_in = min(again_in, self.recollection.look_again_in(token))
                    return Landing(token, again_in, view.ends_at - view.now)
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
        if not returning or self.recollection.owns(view.token) or not isinstance(decision, Renew | Login):
            return decision
        if view.living is None:
            return Pause(_RETURN)
        return Use(view.living, min(_RETURN, (view.ends_at - view.now) / 4))

    @staticmethod
    def _at_once(view: View, held: AccessToken | None, decision: Decision) -> Decision:
        """Return what to do instead of a planned renewal by whoever has just found the token: nobody waits for that, or
        for whoever holds the lock meanwhile. The next pass renews it, beside the callers.
        """
        living = view.living
        if isinstance(decision, Renew) and living is not None and living != held and not view.unwanted:
            return Use(living, 0.0)
        return decision

    def _settle(self, held: AccessToken | None, need: Need, exchange: Exchange) -> tuple[View, Decision]:
        """Exchange, under the storage's lock, until no further exchange is due."""
        tried = False
        for _ in range(_ROUNDS):
            view = self._look(held, need, exchange.journal, tried=tried)
            decision = decide(view)
            if not isinstance(decision, Renew | Login) or not exchange.lease.held():
                break
            self.recollection.writing = True
            if isinstance(decision, Renew):
                granted = exchange.renew(self._seen, decision.token, view, scheduled=decision.scheduled)
                tried = True
            else:
                granted = exchange.login(self._seen, decision.ticket, view)
            if granted is not None:
                held = granted
                self.recollection.obtained(granted)
        # What was known of it stays; what has been exchanged lies in the storage.
        with suppress(StorageError):
            self.recollection.machine = self.account.machine.load()
        return view, decision

    def _look(self, held: AccessToken | None, need: Need, journal: Journal, *, tried: bool = False) -> View:
        """Return the view of what is stored now, put right if the storage has lost it."""
        record = self._seen = self.recollection.record(held, journal)
        view = self.survey(record, held, need, tried=tried)
        self.recollection.read_at(record, view.now)
        if isinstance(decide(view), Use | Idle):
            return view
        machine = self.recollection.machine = self.account.machine.load()
        return replace(view, machine=machine.ledger.shifted(record.offset))

    def _unsaved(self, token: AccessToken) -> Landing:
        """Return the landing of a token that was granted a moment ago, without asking the storage for anything."""
        self.recollection.unsaved(token)
        stale_at = stale_moment(token, self.account.pace(token), self._spread)
        return Landing(token, min(stale_at - token.issued_at.timestamp(), _SOON), token.lifetime)

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

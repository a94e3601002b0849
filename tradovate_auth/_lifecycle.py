"""One blocking pass over an account: look, decide, exchange, save.

The order: look at the storage and decide; if an exchange is needed, take the storage's lock, look again, decide *again*,
exchange, save, give the lock back. A penalty ends the pass, and the next one begins with waiting for it, outside the lock. What is decided, and why, is in `_decision`;
what an exchange does to the record, in `_exchange`.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, assert_never

from ._account import Account
from ._decision import Decision, Idle, Login, Need, Pause, Renew, Stop, Use, View, decide, stale_moment
from ._exchange import Exchange, Journal
from .errors import StorageError, TradovateAuthError
from .events import Adopted
from .models import AccessToken, Budget
from .storage import Record

__all__ = ["Landing", "Lifecycle"]

_ROUNDS: Final = 24  # far above what the budgets allow; a bound against a storage that keeps changing
_SLICE: Final = (
    5.0  # seconds of a penalty between two looks: a human may have lifted it, or another process logged in
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

    def survey(self, record: Record, held: AccessToken | None, need: Need, *, tried: bool = False) -> View:
        """Return the view of a record. Asks the storage for its clock."""
        now = self.account.now(record)
        token = self._newest(record, held, now)
        pace = self.account.pace(token)
        latch = record.ledger.latch
        return View(
            now=now,
            token=token,
            stale_at=stale_moment(token, pace, self._spread) if token is not None else 0.0,
            ends_at=token.expires_at.timestamp() if token is not None else 0.0,
            need=need,
            pace=pace,
            budget=self._budget,
            ledger=record.ledger,
            offered=token is not None and token.generation <= record.offered.get(self.account.slot, 0),
            tried=tried,
            latch=latch if latch is not None and latch.fingerprint == self.account.fingerprint() else None,
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
            if journal.obtained is None:
                raise
            journal.warn(f"a token is in use that could not be stored: {error.message}")
            return self._unsaved(journal.obtained)

    def _run(self, held: AccessToken | None, need: Need, journal: Journal) -> Landing:
        exchanged, rounds = False, 0
        while rounds < _ROUNDS:
            record = self.account.load()
            view = self.survey(record, held, need)
            decision = decide(view)
            if isinstance(decision, Renew | Login):
                exchanged = True
                with self.account.exclusive():
                    view, decision = self._settle(held, need, journal)
            match decision:
                case Use(token, again_in):
                    self._note_adoption(token, held, journal)
                    return Landing(token, again_in, view.ends_at - view.now)
                case Stop(error):
                    return Landing(error=error, final=True)
                case Idle():
                    return Landing()
                case Pause(seconds) if exchanged:
                    return Landing(pause=seconds)
                case Pause(seconds):
                    self.account.sit_out(min(seconds, _SLICE))
                case Renew() | Login():
                    rounds += 1  # the exchange could not be saved: somebody else has been there
                case _:
                    assert_never(decision)
        raise StorageError("The stored session keeps changing.")

    def _settle(self, held: AccessToken | None, need: Need, journal: Journal) -> tuple[View, Decision]:
        """Exchange, under the storage's lock, until no further exchange is due."""
        exchange, tried = Exchange(self.account, journal), False
        for _ in range(_ROUNDS):
            record = self.account.load()
            view = self.survey(record, held, need, tried=tried)
            decision = decide(view)
            if isinstance(decision, Renew):
                held = exchange.renew(record, decision.token, view, scheduled=decision.scheduled) or held
                tried = True
            elif isinstance(decision, Login):
                held = exchange.login(record, decision.ticket, view) or held
            else:
                break
        return view, decision

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

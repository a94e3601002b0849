"""The two calls of an account: enter them into the ledger, send them, and write down what came of it.

Both return the token if one was granted, else None; what stands in the way of the next try then lies in the record.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, assert_never

from . import events
from ._account import Account
from ._dispatch import Dispatch
from ._grant import ended_already, foreign_hosts, merged_hosts, oddities, token_from
from ._holds import MOST_RESENDS, Hold
from ._journal import Journal
from ._ledger import Ledger
from ._pace import Pace
from ._view import View
from ._wire import Captcha, Faulty, Granted, LockedOut, Penalty, Refused, scrub
from .errors import StorageError, TransportError
from .models import AccessToken
from .storage import Lease, Record

__all__ = ["Exchange"]

_PENALTY_JITTER: Final = 1.0  # seconds at most after a penalty's end, so that machines do not ask in step
_SLOW_DOWN: Final = "the server asked to slow down"
_CAPTCHA: Final = "the server asks for a captcha"


@dataclass(slots=True)
class Exchange:
    """The exchanges of one pass, made while the storage's lock is held. Everything in here blocks."""

    account: Account
    journal: Journal
    lease: Lease
    """On the storage's lock."""
    gone: str = ""
    """An assigned host that is not the one to ask any more, by the last answer: forgotten, unless that names it again."""

    def renew(
        self,
        record: Record,
        token: AccessToken,
        view: View,
        *,
        scheduled: bool,
    ) -> AccessToken | None:
        """Ask for a renewal and write down the outcome.

        Raises:
            TransportError: The server cannot be reached, and nobody has a living token.
        """
        pace, living = view.pace, view.living is not None
        try:
            answer = Dispatch(self.account, self.lease, record, view).renewal(token, scheduled=scheduled)
        except TransportError as error:
            if not error.sent and not living:
                raise
            self._renewal_failed(token, error.message, view.now, pace)
            return None
        if answer is None:
            return None
        verdict, at, self.gone = answer
        match verdict:
            case Granted() if living and token.known_expiry and ended_already(verdict, at):
                self._renewal_failed(token, "the new token's end lies in the past", at, pace)
            case Granted():
                return self._grant(record, verdict, at, token)
            case Refused(text, ends_session=True):
                self._renewal_refused(token, text, at, pace)
            case Refused(reason) | Faulty(reason):
                self._renewal_failed(token, self._scrubbed(reason, token.value), at, pace)
            case Penalty():
                # A ticket belongs to a body, and a renewal has none: it is repeated plain (P§9.13).
                plain = replace(verdict, ticket=None)
                exhausted = self._penalised(plain, at, view, lambda ledger: ledger)
                self._renewal_failed(token, _SLOW_DOWN, at, pace, answered=exhausted)
            case Captcha() | LockedOut():
                self._stop(verdict, at, pace)
                self._renewal_failed(token, "the server forbade it for now", at, pace, answered=False)
            case _:
                assert_never(verdict)
        return None

    def login(self, record: Record, ticket: str | None, view: View) -> AccessToken | None:
        """Ask for a session and write down the outcome.

        Raises:
            TransportError: The server cannot be reached.
            ProviderClosed: The provider was closed before anything was sent.
        """
        pace = view.pace
        dispatch = Dispatch(self.account, self.lease, record, view)
        try:
            answer = dispatch.login(ticket)
        except TransportError as error:
            if not error.sent:
                raise
            self._login_lost(error.message, self.account.now(record), pace)
            return None
        if answer is None:
            return None
        verdict, at, _ = answer
        match verdict:
            case Granted():
                token = self._grant(record, verdict, at, None)
                with contextlib.suppress(
                    StorageError
                ):  # it then counts as failed, which is the cautious side
                    self.account.machine.login_not_failed(dispatch.entered)
                return token
            case Refused(text):
                said = replace(verdict, text=self._scrubbed(text, ticket))
                self._login_refused(said, at, pace)
            case Penalty():
                self._penalised(verdict, at, view, Ledger.without_last_login)
                self.account.machine.login_not_failed(dispatch.entered)
            case Captcha() | LockedOut():
                self._stop(verdict, at, pace)
            case Faulty(reason, known=True):
                self._login_lost(self._scrubbed(reason, ticket), at, pace)
            case Faulty(reason):
                self._not_understood(self._scrubbed(reason, ticket), at, pace)
            case _:
                assert_never(verdict)
        return None

    def _grant(
        self, seen: Record, granted: Granted, at: float, renewed: AccessToken | None
    ) -> AccessToken | None:
        token, unsaved = None, ""

        def granting(record: Record) -> Record:
            nonlocal token
            changed, token = self._booked(record, seen, granted, at, renewed)
            return changed

        try:
            stored = self.account.update(granting)
        except StorageError as error:
            stored = granting(seen)  # a granted token is used, come what may
            unsaved = f"a token was granted but could not be stored: {error.message}"
        if token is None:
            self.journal.warn("a grant came so late that another process had got a newer one; that is used")
            return None
        self.journal.obtained = token
        self.gone = ""
        event = events.Renewed if renewed else events.LoggedIn
        self.journal.add(
            event(account=self.journal.account, generation=token.generation, expires_at=token.expires_at)
        )
        if stored.hosts != seen.hosts:
            self.journal.add(events.HostsMoved(account=self.journal.account, hosts=dict(token.hosts)))
        for reason in filter(
            None, (unsaved, *oddities(token, renewed), *foreign_hosts(granted, self.account.environment))
        ):
            self.journal.warn(scrub(reason, (*self.account.credentials.secrets(), granted.value)))
        return token

    def _booked(
        self, record: Record, seen: Record, granted: Granted, at: float, renewed: AccessToken | None
    ) -> tuple[Record, AccessToken | None]:
        """Return a record with a grant in it, and the token; that is None where another process has got a newer one since
        this one looked, by the server's own word.
        """
        slot = self.account.slot
        hosts = merged_hosts(self._reachable(record), granted, self.account.environment)
        token = token_from(
            granted,
            issued_at=at,
            generation=max(record.generation, renewed.generation if renewed else 0) + 1,
            previous=renewed,
            hosts=hosts,
            device_id=renewed.device_id if renewed else self.account.credentials.device_id,
        )
        if renewed:
            ledger = record.ledger.with_grant(at)
        else:
            fingerprint = self.account.fingerprint()
            ledger = record.ledger.with_login_granted(at, self.account.pace(token), fingerprint)
        stored = record.tokens.get(slot)
        if stored and stored.generation > seen.generation and stored.expires_at >= token.expires_at:
            return replace(record, ledger=ledger), None
        tokens = {**record.tokens, slot: token}
        return replace(record, generation=token.generation, tokens=tokens, hosts=hosts, ledger=ledger), token

    def _renewal_refused(self, token: AccessToken, text: str, at: float, pace: Pace) -> None:
        """Nobody uses this token again. If it should have lived on, its session was ended by somebody else (P§5.1)."""
        ahead = token.known_expiry and token.expires_at.timestamp() > at
        evicted = False
        text = self._scrubbed(text, token.value)

        def refusing(record: Record) -> Record:
            nonlocal evicted
            own = self.account.slot
            stored = record.tokens.get(own)
            # Where somebody else has renewed it meanwhile, that is why it was refused.
            evicted = ahead and (stored is None or stored.generation <= token.generation)
            kept = {
                slot: t for slot, t in record.tokens.items() if slot != own or t.generation > token.generation
            }
            ledger = record.ledger.with_eviction(at, pace) if evicted else record.ledger
            refused = {**record.refused, own: max(record.refused.get(own, 0), token.generation)}
            return replace(record, refused=refused, tokens=kept, ledger=ledger, hosts=self._reachable(record))

        hold = self.account.update(refusing).ledger.hold_at(at)
        if not evicted:
            self.journal.failed(text, 0.0)
            return
        self.journal.add(
            events.Evicted(account=self.journal.account, reason=text, generation=token.generation)
        )
        self.journal.held(hold, at)

    def _renewal_failed(
        self, token: AccessToken, reason: str, at: float, pace: Pace, *, answered: bool = True
    ) -> None:
        # A lapsed token is offered once; where the server did not look at it, that was not it.
        lapsed = answered and token.expires_at.timestamp() <= at

        def failing(record: Record) -> Record:
            wait = self.account.jitter(pace.backoff(record.ledger.failures + 1))
            ledger = record.ledger.with_renewal_failed(at, wait)
            if not lapsed:
                return replace(record, ledger=ledger)
            own = self.account.slot
            offered = max(record.offered.get(own, 0), token.generation)
            return replace(record, ledger=ledger, offered={**record.offered, own: offered})

        ledger = self.account.update(failing).ledger
        self.journal.failed(reason, ledger.retry_at - at)

    def _login_lost(self, reason: str, at: float, pace: Pace) -> None:
        """P§9.37: the lost answer may have opened a session, so once more, and then not for a while."""
        record = self.account.change_ledger(lambda ledger: ledger.with_login_lost(at, pace, reason))
        hold = record.ledger.hold_at(at)
        self.journal.warn(f"a login was sent but brought no answer that could be used: {reason}")
        if hold is None:
            self.account.sit_out(self.account.jitter(pace.minute / 60))
        self.journal.held(hold, at)

    def _not_understood(self, reason: str, at: float, pace: Pace) -> None:
        record = self.account.change_ledger(lambda ledger: ledger.with_login_not_understood(at, pace, reason))
        self.journal.held(record.ledger.hold, at)

    def _login_refused(self, refused: Refused, at: float, pace: Pace) -> None:
        text, fingerprint = refused.text, self.account.fingerprint()
        self.account.change_ledger(
            lambda ledger: ledger.with_login_refused(at, pace, fingerprint, text, disguised=refused.disguised)
        )
        self.journal.add(events.Refused(account=self.journal.account, reason=text))

    def _penalised(
        self, penalty: Penalty, at: float, view: View, answered: Callable[[Ledger], Ledger]
    ) -> bool:
        """P§4.1: the call was not processed. It is sent again, twice in a row at most; return whether it has been."""
        earlier, pace = view.ledger.hold, view.pace
        again = earlier is not None and earlier.kind == "penalty" and at - earlier.until < pace.hour
        resends = earlier.resends + 1 if earlier is not None and again else 0
        exhausted = resends >= MOST_RESENDS
        asked = max(penalty.seconds, penalty.retry_after.seconds(at))
        seconds = max(asked, 15 * pace.minute) if exhausted else asked
        seconds += self.account.jitter(min(_PENALTY_JITTER, seconds / 10))
        ticket = None if exhausted else penalty.ticket
        scope = self.account.ticket_scope() if ticket else ""
        hold = Hold("penalty", at + seconds, _SLOW_DOWN, ticket, resends, scope)
        self.account.change_ledger(lambda ledger: answered(ledger).with_hold(hold))
        self.journal.held(hold, at)
        return exhausted

    def _reachable(self, record: Record) -> dict[str, str]:
        return {key: host for key, host in record.hosts.items() if host != self.gone}

    def _stop(self, verdict: Captcha | LockedOut, at: float, pace: Pace) -> None:
        """P§4.2, P§9.16: an hour without any call, because calls may start the hour anew; longer if the server says so.

        For every account of this machine: the server locks addresses too, and does not say which it was.
        """
        until = at + max(pace.hour, verdict.retry_after.seconds(at))
        if isinstance(verdict, Captcha):
            hold = Hold("captcha", until, _CAPTCHA)
        else:
            hold = Hold("locked", until, f"the server locked us out with {verdict.status}")
        self._hold(hold, at)
        self.account.machine.hold(hold, hold.until - at)

    def _hold(self, hold: Hold, at: float) -> None:
        self.account.change_ledger(lambda ledger: ledger.with_hold(hold))
        self.journal.held(hold, at)

    def _scrubbed(self, text: str, sent: str | None) -> str:
        """Return what the server said, without the secrets that it was sent."""
        return scrub(text, (*self.account.credentials.secrets(), *filter(None, (sent,))))

"""Sending one of the two calls: enter it, make sure that it is still ours to make, send it, take it back if it never left.

A call is entered before it is sent, in the ledger of the account and in that of the machine, so that a process that dies in
between has been counted. The lease is asked right before: it can be lost while its holder sleeps, and a login by somebody
who has been asleep could close the session that another one has opened meanwhile.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from ._account import Account
from ._delivery import deliver, deliver_renewal
from ._ledger import Ledger
from ._view import View
from ._wire import Verdict, login_call
from .errors import ProviderClosed, StorageError, TransportError
from .models import AccessToken
from .storage import Lease, Record

__all__ = ["Dispatch"]

Answer = tuple[Verdict, float, str]
"""What an answer means, the server's time at which it was read, and the assigned host that is not the one to ask any more."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Sends one call while a lease on the account is held. Everything in here blocks, and may raise `StorageError`.

    Args:
        account: Whose call it is.
        lease: On the account.
        record: The newest record.
        view: What was decided on.
    """

    account: Account
    lease: Lease
    record: Record
    view: View

    @property
    def entered(self) -> float:
        """Under which of the storage's moments the machine's ledger has the call."""
        return self.view.now - self.record.offset

    def renewal(self, token: AccessToken, *, scheduled: bool) -> Answer | None:
        """Send a renewal; return the answer, or None if it is not ours to make any more.

        Raises:
            TransportError: No answer came. One that was not `sent` has been taken back.
            ProviderClosed: The provider was closed before it was sent.
        """
        view, machine = self.view, self.account.machine

        def take_back(*, everywhere: bool) -> None:
            self.account.change_ledger(lambda ledger: ledger.without_last_renewal(scheduled=scheduled))
            if everywhere:
                machine.renewal_not_sent(self.entered)

        entered = self.account.change_ledger(
            lambda ledger: ledger.with_renewal(view.now, view.pace, scheduled=scheduled)
        )

        def enter() -> bool:
            return machine.renewal(self.entered, view.pace, view.budget, scheduled=scheduled)

        if not self._ours(entered, enter, take_back):
            return None
        try:
            return deliver_renewal(self.account, self.record, token, patient=view.living is None)
        except (TransportError, ProviderClosed) as error:
            if not (isinstance(error, TransportError) and error.sent):
                take_back(everywhere=True)
            raise

    def login(self, ticket: str | None) -> Answer | None:
        """Send a login; return the answer, or None if it is not ours to make any more.

        Raises:
            TransportError: No answer came. One that was not `sent` has been taken back.
            ProviderClosed: The provider was closed between two tries, of which none was sent.
        """
        view, machine = self.view, self.account.machine

        def taken_back(ledger: Ledger) -> Ledger:
            # With the ticket that it was to redeem: that is still good.
            return replace(ledger.without_last_login(), hold=ledger.hold or view.ledger.hold)

        def take_back(*, everywhere: bool) -> None:
            self.account.change_ledger(taken_back)
            if everywhere:
                machine.login_not_failed(self.entered)

        call = login_call(self.account.credentials, self.account.environment.url, ticket)
        entered = self.account.change_ledger(lambda ledger: ledger.with_login(view.now, view.pace))
        if not self._ours(entered, lambda: machine.login(self.entered, view.pace, view.budget), take_back):
            return None
        try:
            return (*deliver(self.account, call, self.record, patient=True), "")
        except (TransportError, ProviderClosed) as error:
            if not (isinstance(error, TransportError) and error.sent):
                take_back(everywhere=True)
            raise

    def _ours(self, record: Record, enter: Callable[[], bool], take_back: Callable[..., None]) -> bool:
        """Enter the call for the machine; return whether it may be made. If not it has been taken back.

        Raises:
            ProviderClosed: Nobody waits for it any more.
        """
        entered = False
        try:
            # A hold that was not there when this was decided: whoever placed it knows more.
            entered = record.ledger.hold_at(self.view.now) is None and enter()
            if entered and self.lease.held():
                self.account.check_open()
                return True
        except (StorageError, ProviderClosed):
            with contextlib.suppress(StorageError):
                take_back(everywhere=entered)
            raise
        take_back(everywhere=entered)
        return False

"""Sending one of the two calls: enter it, make sure that it is still ours to make, send it, take it back if it never left.

A call is entered before it is sent, in the ledger of the account and in that of the machine, so that a process that dies in
between has been counted. The lease is asked right before: it can be lost while its holder sleeps, and a login by somebody
who has been asleep could close the session that another one has opened meanwhile.
"""

from dataclasses import dataclass

from ._account import Account
from ._ledger import Ledger
from ._view import View
from ._wire import Verdict, login_call
from .errors import ProviderClosed, TransportError
from .models import AccessToken
from .storage import Lease, Record

__all__ = ["Dispatch"]

Answer = tuple[Verdict, float]
"""What an answer means, and the server's time at which it was read."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Sends calls while a lease on the account is held. Everything in here blocks, and may raise `StorageError`."""

    account: Account
    lease: Lease

    def renewal(self, record: Record, token: AccessToken, view: View, *, scheduled: bool) -> Answer | None:
        """Send a renewal; return the answer, or None if it is not ours to make any more.

        Raises:
            TransportError: No answer came. One that was not `sent` has been taken back.
        """
        self.account.change_ledger(
            lambda ledger: ledger.with_renewal(view.now, view.pace, scheduled=scheduled)
        )
        self.account.machine.renewal(view.now, view.pace)
        if not self.lease.held():
            self._take_renewal_back(view.now, scheduled=scheduled)
            return None
        try:
            return self.account.send_renewal(record, token, patient=view.living is None)
        except TransportError as error:
            if not error.sent:
                self._take_renewal_back(view.now, scheduled=scheduled)
            raise

    def login(self, record: Record, ticket: str | None, view: View) -> Answer | None:
        """Send a login; return the answer, or None if it is not ours to make any more.

        Raises:
            TransportError: No answer came. One that was not `sent` has been taken back.
            ProviderClosed: The provider was closed between two tries, of which none was sent.
        """
        call = login_call(self.account.credentials, self.account.environment.url, ticket)
        self.account.change_ledger(lambda ledger: ledger.with_login(view.now, view.pace))
        self.account.machine.login(view.now, view.pace)
        if not self.lease.held():
            self._take_login_back(view.now)
            return None
        try:
            return self.account.send(call, record, patient=True)
        except (TransportError, ProviderClosed) as error:
            if not (isinstance(error, TransportError) and error.sent):
                self._take_login_back(view.now)
            raise

    def _take_renewal_back(self, entered: float, *, scheduled: bool) -> None:
        self.account.change_ledger(lambda ledger: ledger.without_last_renewal(scheduled=scheduled))
        self.account.machine.renewal_not_sent(entered)

    def _take_login_back(self, entered: float) -> None:
        self.account.change_ledger(Ledger.without_last_login)
        self.account.machine.login_not_failed(entered)

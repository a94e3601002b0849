"""Where the session lives while the storage that processes share cannot be used.

The process that obtained the token renews it, so that an outage longer than a token's life ends no session: on a copy of the
record as it was last seen, budgets and holds included. What that brings is put back when the storage returns (see
`_lifecycle`). All other processes serve theirs until it ends. Nobody logs in, unless `login_without_storage` says so.

A storage that is only busy is no outage, and neither is a record that this process cannot read: others can, and look after
the session in it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ._exchange import Journal
from ._lifecycle import Landing, Lifecycle
from ._view import Need
from .errors import LoginRequired, StorageError
from .models import AccessToken, Budget
from .storage import MemoryStorage, Record, StorageBusy, UnreadableRecord

__all__ = ["Refuge"]

_MINUTE: Final = 60.0


class Refuge:
    """The passes of one provider while its storage is away. Not for two threads at once.

    Args:
        lifecycle: The provider's own, on the storage that is away.
        budget: What may be spent in a rolling hour.
        may_login: Whether a session may be opened without the storage.
    """

    def __init__(self, lifecycle: Lifecycle, budget: Budget, may_login: Callable[[], bool]) -> None:
        self._main = lifecycle
        self._budget = budget
        self._may_login = may_login
        self._inner: Lifecycle | None = None

    def run(
        self, held: AccessToken | None, need: Need, journal: Journal, cause: StorageError, *, living: bool
    ) -> Landing:
        """Do what may be done without the storage. Blocks, as `Lifecycle.run` does.

        Args:
            held: The token in hand.
            need: Why somebody asks.
            journal: Where events go.
            cause: Why the storage cannot be used.
            living: Whether the token in hand can still be used.

        Raises:
            StorageError: The cause, where nothing may be done.
            TransportError: The server cannot be reached either, and no token lives.
            ProviderClosed: The provider was closed meanwhile.
        """
        owner = self._main.owns(held)
        outage = not isinstance(cause, StorageBusy | UnreadableRecord)
        if not outage or not (owner or (self._may_login() and not living)):
            raise cause
        inner = self._inner = self._inner or self._entered()
        if not owner:
            journal.warn("logging in without the storage, if need be")
        try:
            landing = inner.run(held, need, journal)
        finally:
            inner.known, inner.machine = inner.account.load(), inner.account.machine.load()
            self._main.succeed(inner, away=True)
        if isinstance(landing.error, LoginRequired):
            return replace(landing, error=cause)
        return landing

    def leave(self) -> None:
        """Forget the copy: the storage is back."""
        self._inner = None

    def _entered(self) -> Lifecycle:
        main, account = self._main, self._main.account
        # Its clock goes on where the storage's was, so that every moment in the copy stays what it is.
        storage = MemoryStorage(clock=account.clock, now=account.clock.elapsed() + main.skew)
        known = main.known
        if not known.revision:
            # Above whatever others may have counted up to: nobody makes so many tokens a day. Otherwise one that is
            # opened without them would count as one of theirs, refused long ago.
            known = Record(generation=int(storage.now() // _MINUTE))
        for key, record in ((account.key, known), (account.machine.key, main.machine)):
            storage.save(key, replace(record, revision=1))
        inner = Lifecycle(replace(account, storage=storage, saved=None), self._budget, self._may_login)
        inner.succeed(main, away=False)
        inner.known = replace(known, revision=1)
        return inner

"""Where the session lives while the storage that processes share cannot be used.

The process that obtained the token renews it, so that an outage longer than a token's life ends no session: on a copy of the
record as it was last seen, budgets and holds included. What that brings is put back when the storage returns (see
`_lifecycle`). All other processes serve theirs until it ends. Nobody logs in, unless `login_without_storage` says so.

A storage that is only busy is no outage, and neither is a record that this process cannot read: others can, and look after
the session in it.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Final

from ._journal import Journal
from ._lifecycle import Landing, Lifecycle
from ._view import Need
from .errors import LoginRequired, StorageError
from .events import StorageBack, StorageLost
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
        self.entered = False
        """Whether the storage is taken to be away."""
        self._writable = True
        self._left = (0, 0)
        """How much had been saved when it was found that nothing can be, by this process and by all."""

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
        self._enter(cause, journal)
        owner = self._main.recollection.owns(held)
        outage = not isinstance(cause, StorageBusy | UnreadableRecord)
        if not outage or not (owner or (self._may_login() and not living)):
            raise cause
        inner = self._inner = self._inner or self._entered()
        if not owner:
            journal.warn("logging in without the storage, if need be")
        try:
            landing = inner.run(held, need, journal)
        finally:
            recalled = inner.recollection
            recalled.known, recalled.machine = inner.account.load(), inner.account.machine.load()
            self._main.recollection.succeed(recalled, away=True)
        if isinstance(landing.error, LoginRequired):
            return replace(landing, error=cause)
        return landing

    def leave(self, journal: Journal) -> None:
        """Forget the copy, if the storage is back. One that could be read all the time is back when somebody has saved."""
        saves, revision = self._saved()
        if not self.entered or not (self._writable or saves > self._left[0] or revision > self._left[1]):
            return
        self.entered, self._inner = False, None
        journal.add(StorageBack(account=journal.account))

    def _enter(self, cause: StorageError, journal: Journal) -> None:
        writable = not self._main.recollection.writing
        if not self.entered:
            journal.add(StorageLost(account=journal.account, reason=cause.message))
        if not self.entered or self._writable:
            self._left = self._saved()
        self.entered, self._writable = True, writable

    def _saved(self) -> tuple[int, int]:
        return self._main.account.saves, self._main.recollection.known.saves

    def _entered(self) -> Lifecycle:
        main, account = self._main, self._main.account
        # Its clock goes on where the storage's was, so that every moment in the copy stays what it is.
        storage = MemoryStorage(clock=account.clock, now=account.clock.elapsed() + main.recollection.skew)
        known = main.recollection.known
        if not known.revision:
            # Above whatever others may have counted up to: nobody makes so many tokens a day. Otherwise one that is
            # opened without them would count as one of theirs, refused long ago.
            known = Record(generation=int(storage.now() // _MINUTE))
        for key, record in ((account.key, known), (account.machine.key, main.recollection.machine)):
            storage.save(key, replace(record, revision=1))
        inner = Lifecycle(
            replace(account, storage=storage, saved=None, server=copy(account.server)),
            self._budget,
            self._may_login,
        )
        inner.recollection.succeed(main.recollection, away=False)
        inner.recollection.known = replace(known, revision=1)
        return inner

"""Where the session lives while the storage that processes share cannot be used.

The process that obtained the token renews it, so that an outage longer than a token's life ends no session: on a copy of the
record as it was last seen, budgets and holds included. What that brings is put back when the storage returns (see
`_lifecycle`). All other processes serve theirs until it ends. Nobody logs in, unless `login_without_storage` says so, and
never where a record is there that cannot be read: somebody's session is in it.
"""

from collections.abc import Callable
from dataclasses import replace

from ._exchange import Journal
from ._lifecycle import Landing, Lifecycle
from ._view import Need
from .errors import LoginRequired, StorageError
from .models import AccessToken, Budget
from .storage import MemoryStorage, UnreadableRecord

__all__ = ["Refuge"]


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
        self._readable = True
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
        """
        self._readable = not isinstance(cause, UnreadableRecord)
        owner = self._main.owns(held)
        if self._main.queueing or not (owner or (self._allowed() and not living)):
            raise cause
        inner = self._inner = self._inner or self._entered()
        if not owner:
            journal.warn("logging in without the storage, if need be")
        landing = inner.run(held, need, journal)
        self._main.succeed(inner, away=True)
        if isinstance(landing.error, LoginRequired):
            return replace(landing, error=cause)
        return landing

    def leave(self) -> None:
        """Forget the copy: the storage is back."""
        self._inner = None

    def _allowed(self) -> bool:
        return self._readable and self._may_login()

    def _entered(self) -> Lifecycle:
        main = self._main
        storage = MemoryStorage(clock=main.account.clock)
        if main.known.revision:
            copy = replace(main.known, revision=1, offset=main.offset(storage))
            storage.save(main.account.key, copy)
        inner = Lifecycle(replace(main.account, storage=storage), self._budget, self._allowed)
        inner.succeed(main, away=False)
        return inner

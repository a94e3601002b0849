"""What a storage keeps, and the protocol that every storage follows."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final, Protocol

from .._ledger import Ledger
from ..errors import StorageError
from ..models import AccessToken

__all__ = [
    "OVERTAKEN",
    "OWNED",
    "Lease",
    "Overtaken",
    "Owned",
    "Record",
    "Storage",
    "StorageBusy",
    "UnreadableRecord",
]


class StorageBusy(StorageError):
    """The storage is there, but others are at work on the session. That is no outage: they see to it."""

    __module__ = "tradovate_auth.storage"  # as users catch it, and see it in a traceback
    default_advice = "Valid tokens stay in use; try again. If one process hangs, end it."


class UnreadableRecord(StorageError):
    """There is a record, and this process cannot read it: a newer version has written it, or its seal's key is missing.

    It stays where it is. Unlike a storage that is away it never justifies a login, whatever `login_without_storage` says:
    somebody's session is in it.
    """

    __module__ = "tradovate_auth.storage"
    default_advice = "Give this process the version, or the key, of the others. Nothing was changed; nobody logs in meanwhile."


@dataclass(frozen=True, slots=True)
class Record:
    """All that processes share about one user of one environment. Moments are the server's."""

    revision: int = 0
    """One more with every save: a save is granted only to whoever has seen the newest."""
    generation: int = 0
    """Of the newest token ever granted, also after that token is gone."""
    tokens: Mapping[str, AccessToken] = field(default_factory=dict)
    """By the `cid` of the API key that obtained it."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """By the same key: up to which generation an auth endpoint has refused tokens. Nobody uses those any more."""
    offered: Mapping[str, int] = field(default_factory=dict)
    """By the same key: up to which generation a lapsed token has been offered for renewal."""
    hosts: Mapping[str, str] = field(default_factory=dict)
    """The hosts that the server assigned, by key (P§1.2)."""
    ledger: Ledger = field(default_factory=Ledger)
    offset: float = 0.0
    """The server's clock minus the storage's own, in seconds."""
    strangers: Mapping[str, float] = field(default_factory=dict)
    """Tokens of other users, which instrumentation must not replace: their digests, and when each was seen, by the
    storage's own clock. Only in the record that is for them alone."""
    earlier: int = 0
    """Saves under this key that the storage has lost with what they had saved: whoever puts a record back begins to count anew."""
    set_aside: str | None = field(default=None, compare=False)
    """Set by a `load` that found something else than a record, put it aside and starts anew: where it lies and why, in
    words. Never stored."""

    @property
    def saves(self) -> int:
        """How often a record was saved under this key, as far as anybody remembers: it only ever rises."""
        return self.earlier + self.revision


class Lease(Protocol):
    """What whoever has entered `Storage.exclusive` holds."""

    def held(self) -> bool:
        """Return whether the key is still held, by nobody else. May ask the storage, and may block on it.

        Raises:
            StorageError: The storage cannot be asked.
        """
        ...


class Owned:
    """The lease of a lock that nobody else can have before it is given back: a kernel's, or a thread's."""

    def held(self) -> bool:
        """See `Lease.held`. Never blocks."""
        return True


OWNED: Final = Owned()


class Overtaken:
    """The lease of somebody who need not wait any longer: a newer record is there."""

    def held(self) -> bool:
        """See `Lease.held`. Never blocks."""
        return False


OVERTAKEN: Final = Overtaken()


class Storage(Protocol):
    """What a storage can do. Every method may block and may be called from any thread.

    The order of a pass over it: `load` → `exclusive` → `load` again → decide → call the server → `save` → give the lock
    back. The lock saves calls; what keeps a late writer from harm is `save`, which compares.
    """

    @property
    def name(self) -> str:
        """What kind of storage this is and where, without any secret, for `Status`."""
        ...

    def now(self) -> float:
        """Return the storage's own clock in seconds since the epoch: the same for everybody who shares it.

        Raises:
            StorageError: The storage cannot be asked.
        """
        ...

    def load(self, key: str) -> Record | None:
        """Return the newest record under the key, or None if there is none.

        Something else than a record is put aside by whoever finds it, and told once: an empty record with `set_aside`.

        Raises:
            StorageError: The storage cannot be read, or a newer version of this package has written the record.
        """
        ...

    def save(self, key: str, record: Record) -> bool:
        """Keep a record if its `revision` is one above the kept one's (1 where there is none); return whether it was.

        Raises:
            StorageError: The storage cannot be written; nothing was changed.
        """
        ...

    def exclusive(
        self, key: str, timeout: float, *, seen: int | None = None
    ) -> AbstractContextManager[Lease]:
        """Return a context in which nobody else holds this key, in any process that shares the storage.

        What it yields says whether that is still so: a lease in a distant storage can be lost while its holder sleeps.

        Args:
            timeout: Longest wait for it in seconds.
            seen: The generation that the caller has looked at. The wait may then end early, with a lease that is not
                held, when a newer one has been stored: there is something to look at instead of something to wait for.

        Raises:
            StorageBusy: On entering: it was not free in time.
            StorageError: On entering: the storage cannot be reached, or nobody can hold anything in it.
        """
        ...

"""One account as the machinery sees it: its storage, its transport, its clock.

Each change of the record is a pure function of the newest record, saved with compare-and-swap: whoever writes in between, a
spent call stays counted and a newer token is never overwritten by an older one.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from ._clock import Clock, Wakeup
from ._ledger import Ledger
from ._machine import Machine, machine_id, machine_key
from ._pace import Pace
from ._server_clock import ServerClock
from ._shared_record import SharedRecord
from .environments import Environment
from .errors import ProviderClosed
from .models import AccessToken, Credentials
from .storage import Lease, Record, Storage, StorageBusy
from .transport import Transport

__all__ = ["Account"]

_LOCK_CALLS: Final = 4  # calls that the holder of the storage's lock may make before others give up
_LOCK_SLICE: Final = 5.0  # seconds of the wait for it between two looks: the provider may have been closed


class _Session(SharedRecord):
    called = "the stored session"


@dataclass(slots=True)
class Account:
    """One user of one environment, with what it is reached through. Everything in it may block."""

    credentials: Credentials = field(repr=False)
    environment: Environment
    storage: Storage
    key: str = field(repr=False)
    slot: str = field(repr=False)
    """Under which of the record's keys this API key's token lies."""
    transport: Transport
    clock: Clock
    server: ServerClock
    timeout: float
    closing: Wakeup = field(default_factory=Wakeup)
    set_aside: list[str] = field(default_factory=list)
    """What the storage found to be no record, and put aside, since it was last told."""
    here: str = field(default_factory=machine_id)
    """Which machine this is, for what the server counts by address."""
    silent: str = ""
    """The assigned host whose answer got lost, if that was the last renewal that this process has sent it."""
    busy: str = ""
    """While others hold the storage's lock: who, in words."""
    saves: int = 0
    """How often a record was saved through this object."""
    saved: Record | None = field(default=None, repr=False)
    """The newest record that was saved through this object, by its revision."""
    _fingerprint: str | None = field(default=None, repr=False)

    @property
    def label(self) -> str:
        """Environment and user, for events."""
        return f"{self.credentials.name} at {self.environment.host}"

    @property
    def machine(self) -> Machine:
        """The ledger of this machine, in the same storage."""
        return Machine(self.storage, machine_key(self.environment, self.here), self.set_aside)

    def now(self, record: Record) -> float:
        """Return the server's time."""
        return self.storage.now() + record.offset

    def load(self) -> Record:
        """Return the newest record."""
        return self._trusted(self._stored.load())

    @property
    def _stored(self) -> SharedRecord:
        return _Session(self.storage, self.key, self.set_aside)

    def _trusted(self, record: Record) -> Record:
        """Return a record with those of its hosts that may be trusted: whoever can write it is no authority."""
        hosts = {key: host for key, host in record.hosts.items() if self.environment.admit(host) == host}
        return record if len(hosts) == len(record.hosts) else replace(record, hosts=hosts)

    @property
    def shared(self) -> bool:
        """Whether the record lies where others could lose it."""
        return not getattr(self.storage, "private", False)

    @contextmanager
    def exclusive(self, seen: int) -> Iterator[Lease]:
        """Hold the lock of this account over all processes that share the storage; see `Storage.exclusive`.

        Raises:
            ProviderClosed: The provider was closed while others held it.
        """
        with ExitStack() as stack:
            try:
                lease = self._entered(stack, seen)
            finally:
                self.busy = ""
            yield lease

    def _entered(self, stack: ExitStack, seen: int) -> Lease:
        left = self.timeout * _LOCK_CALLS
        while True:
            part = min(left, _LOCK_SLICE)
            try:
                return stack.enter_context(self.storage.exclusive(self.key, part, seen=seen))
            except StorageBusy as error:
                left -= part
                if left <= 0:
                    raise
                self.busy = error.message
            self.check_open()

    def check_open(self) -> None:
        """Do nothing, while the provider is open.

        Raises:
            ProviderClosed: It is not.
        """
        if self.closing.called:
            raise ProviderClosed("The provider was closed before anything was sent.")

    def pace(self, token: AccessToken | None) -> Pace:
        """Return the account's minutes."""
        lifetime = token.lifetime if token is not None else None
        return Pace(self.environment.window(lifetime), lifetime)

    def fingerprint(self) -> str:
        """Return a salted scrypt hash of the credentials, made once: what the refused ones are known by."""
        if self._fingerprint is None:
            who = self.credentials
            fields = [
                who.name,
                who.password,
                who.app_id,
                who.app_version,
                str(who.cid),
                who.sec,
                who.organization,
            ]
            salt = hashlib.sha256(f"{self.environment.origin} {who.name}".encode()).digest()
            self._fingerprint = hashlib.scrypt(
                json.dumps(fields).encode(), salt=salt, n=2**14, r=8, p=1
            ).hex()
        return self._fingerprint

    def ticket_scope(self) -> str:
        """Return for what a penalty's ticket is good: this machine (P§4.1), and the body that it was given for."""
        parts = [self.here, self.fingerprint(), self.credentials.device_id]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def sit_out(self, seconds: float) -> None:
        """Block for so long.

        Raises:
            ProviderClosed: The provider was closed meanwhile.
        """
        if self.clock.wait(self.closing, seconds):
            raise ProviderClosed("The provider was closed while it waited for the server.")

    @staticmethod
    def jitter(seconds: float) -> float:
        """Return a random wait up to so many seconds (full jitter), so that a fleet does not try in step."""
        return random.uniform(0, seconds)  # noqa: S311  # spreads load, guards nothing

    def update(self, change: Callable[[Record], Record]) -> Record:
        """Apply a change to the newest record and save it; return what is stored then.

        Raises:
            StorageError: The storage failed, or others kept writing.
        """

        def changing(found: Record) -> Record:
            basis = _in_server_time(self._trusted(found), learnt)
            changed = change(basis)
            if changed is basis:
                return found
            return changed if learnt is None else replace(changed, offset=learnt)

        learnt = self.server.learnt  # another thread may learn more meanwhile
        record, saved = self._stored.update(changing)
        if not saved:
            return self._trusted(record)
        if self.server.learnt == learnt:
            self.server.learnt = None
        self.saves += 1
        if self.saved is None or record.saves > self.saved.saves:
            self.saved = record
        return record

    def change_ledger(self, change: Callable[[Ledger], Ledger]) -> Record:
        """Apply a change to the newest ledger; see `update`."""
        return self.update(lambda record: replace(record, ledger=change(record.ledger)))


def _in_server_time(record: Record, learnt: float | None) -> Record:
    """Return a record whose first moments were taken when nothing was known yet of the server's clock, now it is."""
    if learnt is None or record.offset or record.generation:
        return record
    return replace(record, ledger=record.ledger.shifted(learnt))

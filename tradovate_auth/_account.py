"""One account as the machinery sees it: its storage, its transport, its clock.

Each change of the record is a pure function of the newest record, saved with compare-and-swap: whoever writes in between, a
spent call stays counted and a newer token is never overwritten by an older one.
"""

import hashlib
import json
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Final

from ._clock import Clock, Wakeup
from ._grant import clock_offset, median_offset
from ._ledger import Ledger
from ._machine import Machine, machine_id, machine_key
from ._pace import Pace
from ._wire import Faulty, LockedOut, Verdict, read_reply, renewal_call, server_time
from .environments import Environment
from .errors import ProviderClosed, StorageError, TradovateAuthError, TransportError
from .models import AccessToken, Credentials
from .storage import Lease, Record, Storage, StorageBusy
from .transport import Call, Reply, Transport

__all__ = ["Account"]

_PATIENCE: Final = 10.0  # seconds for a server that cannot even be connected to, while nobody has a token
_FIRST_BACKOFF: Final = 0.1
_LONGEST_BACKOFF: Final = 2.0
_LOCK_CALLS: Final = 4  # calls that the holder of the storage's lock may make before others give up
_SAMPLED: Final = (
    900.0  # seconds for which what an answer has taught about the server's clock may outvote a later one
)
_MOST_TRIES: Final = 16  # how often a change is tried anew when others save in between
_WRONG: Final = 3600.0  # seconds of difference between two clocks that somebody should hear of


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
    timeout: float
    closing: Wakeup = field(default_factory=Wakeup)
    set_aside: list[str] = field(default_factory=list)
    """What the storage found to be no record, and put aside, since it was last told."""
    oddities: list[str] = field(default_factory=list)
    """What else somebody should hear of."""
    here: str = field(default_factory=machine_id)
    """Which machine this is, for what the server counts by address."""
    saved: Record | None = field(default=None, repr=False)
    """The newest record that was saved through this object, by its revision."""
    _fingerprint: str | None = field(default=None, repr=False)
    _offset: float | None = None
    """What the last answer has taught about the server's clock: written down with what it has brought."""
    _samples: list[tuple[float, float]] = field(default_factory=list)
    """When answers came, by the clock that never jumps, and what each said of the server's."""

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
        """Return the newest record, with those of its hosts that may be trusted: whoever can write it is no authority."""
        record = self.storage.load(self.key)
        if record is None:
            return Record()
        if record.set_aside is not None:
            self.set_aside.append(record.set_aside)
        hosts = {key: host for key, host in record.hosts.items() if self.environment.admit(host) == host}
        return replace(record, set_aside=None, hosts=hosts)

    @property
    def shared(self) -> bool:
        """Whether the record lies where others could lose it."""
        return not getattr(self.storage, "private", False)

    def exclusive(self, seen: int) -> AbstractContextManager[Lease]:
        """Return the lock of this account over all processes that share the storage; see `Storage.exclusive`."""
        return self.storage.exclusive(self.key, self.timeout * _LOCK_CALLS, seen=seen)

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
        for _ in range(_MOST_TRIES):
            record = self.load()
            basis = self._in_server_time(record)
            changed = change(basis)
            if changed is basis:
                return record
            offset = changed.offset if self._offset is None else self._offset
            changed = replace(changed, revision=record.revision + 1, offset=offset)
            if self.storage.save(self.key, changed):
                self._offset = None
                if self.saved is None or changed.revision > self.saved.revision:
                    self.saved = changed
                return changed
        raise StorageBusy("Other processes keep changing the stored session.")

    def _in_server_time(self, record: Record) -> Record:
        """Return a record whose first moments were taken when nothing was known yet of the server's clock, now it is."""
        if self._offset is None or record.offset or record.generation:
            return record
        return replace(record, ledger=record.ledger.shifted(self._offset))

    def change_ledger(self, change: Callable[[Ledger], Ledger]) -> Record:
        """Apply a change to the newest ledger; see `update`."""
        return self.update(lambda record: replace(record, ledger=change(record.ledger)))

    def send_renewal(self, record: Record, token: AccessToken, *, patient: bool) -> tuple[Verdict, float]:
        """Send a renewal to the host that the server assigned; see `send`."""
        here = self.environment
        assigned = here.base(record.hosts.get(here.kind, here.host))
        try:
            return self.send(renewal_call(token, assigned), record, patient=patient and assigned == here.url)
        except TransportError as error:
            # P§9.23: an assigned host that is gone; the one that everybody starts from may still know us.
            if error.sent or assigned == here.url:
                raise
            return self.send(renewal_call(token, here.url), record, patient=patient)

    def send(self, call: Call, record: Record, *, patient: bool) -> tuple[Verdict, float]:
        """Send a call; return what the answer means, and the server's time at which it was read.

        Args:
            call: What to send.
            record: The newest record, for the clock offset in it.
            patient: Try again for about ten seconds while no connection can be made.

        Raises:
            TransportError: No answer came.
            ProviderClosed: The provider was closed between two tries.
        """
        started, pause = self.clock.elapsed(), _FIRST_BACKOFF
        while True:
            asked, begun = self.storage.now(), self.clock.elapsed()
            try:
                reply = self._send_once(call)
                break
            except TransportError as error:
                late = self.clock.elapsed() - started + pause > _PATIENCE
                if error.sent or late or not patient:
                    raise
            self.sit_out(self.jitter(pause))
            pause = min(pause * 2, _LONGEST_BACKOFF)
        verdict = read_reply(reply)
        # A gateway's error page has a clock too: only what is recognised as the server's answer tells the server's time.
        date = None if isinstance(verdict, Faulty | LockedOut) else server_time(reply)
        return verdict, self._server_now(date, asked, begun, record)

    def _send_once(self, call: Call) -> Reply:
        try:
            return self.transport.send(call, self.timeout)
        except TradovateAuthError:
            raise
        except Exception as error:  # noqa: BLE001  # a transport of the user's own may raise anything
            kind = type(error).__name__
        # Raised out here, not even as context: a foreign exception may hold the request, and with it the password.
        raise TransportError(f"The transport failed with {kind}.", None, None, True)

    def _server_now(self, date: float | None, asked: float, started: float, record: Record) -> float:
        """Return the server's time, given an answer's `Date` and when it was asked for; learn from it.

        Never raises: the answer may hold a token that has been granted already.
        """
        elapsed = self.clock.elapsed()
        try:
            read = self.storage.now()
        except StorageError:
            read = asked + elapsed - started
        if date is None:
            return read + record.offset
        sample = clock_offset(date, asked, read, record.offset)
        self._samples = [(at, kept) for at, kept in self._samples if elapsed - at < _SAMPLED][-2:]
        self._samples.append((elapsed, sample))
        self._offset = median_offset([kept for _, kept in self._samples])
        if abs(self._offset - record.offset) > _WRONG:
            hours = (self._offset - record.offset) / _WRONG
            self.oddities.append(f"the server's clock is {hours:+.1f} h away from where it was taken to be")
        return read + self._offset

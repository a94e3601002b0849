"""A storage in a Redis, or a Valkey: every process of every host that names it shares the session.

What lies where, and the scripts that change it, is in `_redis_scripts`; the lease over an exchange in `_redis_lease`. A save is
one script that compares the revision, stores, and wakes who waits; the wake-up carries the generation, never the token. The
clock is the server's: each `load` measures how far this machine's is from it, so `now` costs no call and goes on while the
server is away.
"""

import contextlib
import hashlib
import math
import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple

from .._clock import SYSTEM_CLOCK, Clock
from .._guarded import Guarded
from ..errors import ConfigurationError, StorageError
from ._codec import NotARecord
from ._discreet import discreet
from ._packing import pack, unpack
from ._record import Lease, Record
from ._redis_client import Client, Server
from ._redis_lease import Spot, entered
from ._redis_scripts import ASIDE, LOAD, NOW, PUT_ASIDE, SAVE
from ._seal import KeyRing

__all__ = ["RedisStorage"]

_READABLE: Final = 48  # characters of a key in the names of what lies under it
_PREFIX: Final = re.compile(r"[!-z|~]{1,64}")  # printable, and no braces: those mark what a cluster goes by
_SLOW: Final = 0.5  # seconds of a first answer beyond which the clock in it is asked for again
_ROUNDS: Final = 8  # looks at what lies there, while somebody keeps changing it by hand


class _Found(NamedTuple):
    """What lies in the place of a record: the type, and the fields of a hash."""

    kind: bytes
    data: bytes | None
    revision: bytes | None
    generation: bytes | None
    nonce: bytes | None


class RedisStorage(Guarded):
    """Keeps records in a Redis 7 or Valkey 8 and newer: shared by all processes and hosts that reach it.

    Any thread may use it, any number of objects may name the same place, and it lives through a fork. Nothing is touched
    before it is first used. Everything blocks on the network, as long as the client's own time-outs and retries let it:
    `from_url` makes clients with 2 s.

    Args:
        client: A synchronous client of redis-py: `Redis`, `RedisCluster`, or one that a `Sentinel` made. It stays yours:
            it is never closed. Give it time-outs, and three connections or more.
        prefix: What the names of all keys and channels begin with: printable ASCII without braces.
        keys: Seals what is stored, see `KeyRing`.
        lease: Seconds after which the place of a process that died in mid-exchange is free again.
        clock: Measures seconds that have passed, for tests that move it.

    Raises:
        ConfigurationError: An argument is none of these.
    """

    def __init__(
        self,
        client: Client,
        *,
        prefix: str = "tradovate_auth",
        keys: KeyRing | None = None,
        lease: float = 10.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise ConfigurationError(
                "RedisStorage's prefix is 1 to 64 characters of printable ASCII, and none of them a brace."
            )
        if not 0 < lease < math.inf:
            raise ConfigurationError("RedisStorage's lease is a positive number of seconds.")
        if keys is not None and not isinstance(keys, KeyRing):
            raise ConfigurationError(
                "RedisStorage needs a KeyRing as keys.", None, "Make one of text with KeyRing.parse()."
            )
        self._server = Server(client)
        self._prefix = prefix
        self._keys = keys
        self._lease = lease
        self._clock = clock
        self._skew: float | None = None
        self._readable: dict[str, bytes] = {}  # by key: the nonce of the last record that could be read

    @property
    def name(self) -> str:
        """See `Storage.name`. Never blocks."""
        return f"redis {self._server.place}" + (", sealed" if self._keys is not None else "")

    def __repr__(self) -> str:
        return f"<RedisStorage {self._server.place}>"

    def now(self) -> float:
        """Return the server's clock. Blocks on the network only if nothing has been loaded yet.

        Raises:
            StorageError: Nothing has been loaded yet, and the server cannot be asked.
        """
        if self._skew is None:
            self._timed(NOW, "")
        return self._clock.elapsed() + (self._skew or 0.0)

    @discreet
    def load(self, key: str) -> Record | None:
        """See `Storage.load`. Blocks for one round trip.

        Raises:
            StorageError: The server cannot be asked, or the record is one that cannot be read here (`UnreadableRecord`).
        """
        for _ in range(_ROUNDS):
            found = _Found(*self._timed(LOAD, key))
            try:
                return self._recorded(key, found)
            except NotARecord as error:
                reason = error.reason
            if self._put_aside(key, found):
                return Record(set_aside=f"{self._name(key, 'set-aside:1')}: {reason}")
        raise StorageError(f"What lies in {self._name(key, 'record')} is no record, and keeps changing.")

    @discreet
    def save(self, key: str, record: Record) -> bool:
        """See `Storage.save`. Blocks for one round trip, or two where this object has not seen the newest record.

        A generation below the stored one is refused too.

        Raises:
            StorageError: The server cannot be asked or accepts no writes; nothing was changed, or (the answer got lost) all
                of it. Or what lies there is a record that cannot be read here (`UnreadableRecord`).
        """
        nonce = os.urandom(8).hex()
        for _ in range(_ROUNDS):
            answer, *kept = self._server.run(
                SAVE,
                [self._name(key, "record")],
                record.revision,
                record.generation,
                nonce,
                self._readable.get(key, b""),
                pack(record, key, self._keys),
                self._name(key, "news"),
            )
            if answer != b"unseen":
                break
            try:
                self._recorded(key, _Found(*kept))
            except NotARecord:
                return False  # the saver loads again, which puts it aside and says so
        if answer == b"saved":
            self._readable[key] = nonce.encode()
        return bool(answer == b"saved")

    def exclusive(
        self, key: str, timeout: float, *, seen: int | None = None
    ) -> AbstractContextManager[Lease]:
        """See `Storage.exclusive`. Blocks on the network and while another process or thread holds the key.

        A thread extends the lease for as long as somebody is inside. One that died or lost its way to the server keeps the
        others waiting until it lapses. Not reentrant.

        Raises:
            StorageBusy: On entering: it was not free in time (the text names host and process).
            StorageError: On entering: the server cannot be asked. One that goes away while this waits is asked again until
                the time is over.
        """
        lease, record, news = (self._name(key, what) for what in ("lease", "record", "news"))
        return entered(Spot(self._server, lease, record, news, self._lease), timeout, seen)

    def _name(self, key: str, what: str) -> str:
        readable = re.sub(r"[^a-z0-9]+", "-", key.lower().partition("://")[2] or key.lower())
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return f"{self._prefix}:{{{readable[:_READABLE].strip('-')}-{digest}}}:{what}"

    def _timed(self, script: str, key: str) -> Sequence[Any]:
        """Run a script whose answer begins with the server's time; return the rest."""
        before = self._clock.elapsed()
        answer: Sequence[bytes] = self._server.run(script, [self._name(key, "record")])
        after = self._clock.elapsed()
        seconds, microseconds, *rest = answer
        server, known = int(seconds) + int(microseconds) / 1e6, self._skew
        # At first as if both ways had taken equally long. Later what was known is kept as far as it can be true: an answer may
        # have taken an hour, while the machine slept.
        skew = known if known is not None else server - (before + after) / 2
        self._skew = min(max(skew, server - after), server - before)
        if known is None and after - before > _SLOW:
            with contextlib.suppress(StorageError):
                self._timed(NOW, key)
        return rest

    def _recorded(self, key: str, found: _Found) -> Record | None:
        """Return the record in what was found, and remember that it could be read."""
        if found.kind == b"none":
            return None
        if found.data is None or found.nonce is None:
            raise NotARecord("no hash with data and nonce")
        record = unpack(found.data, key, self._keys)
        # What the scripts go by must be what was sealed, or no save would ever be granted.
        if (found.revision, found.generation) != (b"%d" % record.revision, b"%d" % record.generation):
            raise NotARecord("wrong revision or generation beside the data")
        self._readable[key] = found.nonce
        return record

    def _put_aside(self, key: str, found: _Found) -> bool:
        """Put aside what was found; return whether it was still there."""
        places = [self._name(key, f"set-aside:{number}") for number in range(1, ASIDE + 1)]
        seen = [field if field is not None else b"" for field in found]
        return bool(self._server.run(PUT_ASIDE, [self._name(key, "record"), *places], *seen))

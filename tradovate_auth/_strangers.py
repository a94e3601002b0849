"""Which tokens belong to other users, so that nobody replaces them by ours: the orders would be placed in our account.

A client that logs in for another user is let pass, and the token that it is given is remembered, by a digest of it. The
client may hand the token to a process that it starts, or keep it in a file until its next run. So the digests lie in the
provider's storage, in a record of their own, and each process asks there once for each token that it has not seen before.
A token is remembered before its client has it, so whatever was once known as nobody's stays so.

What asks and what saves is a flight (see `_flight`), so that no event loop ever waits for a storage.
"""

import hashlib
import math
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import replace
from typing import Final, Literal, Self, TypeVar

from ._clock import SYSTEM_CLOCK
from ._defaults import PROCESS_STORAGE
from ._flight import Aftermath, Flight, SingleFlight
from ._instrument_child import VARIABLE
from ._own_logins import same_user
from ._shared_record import SharedRecord
from ._source import TokenSource
from .environments import Environment
from .errors import StorageError
from .models import AccessToken
from .provider import TokenProvider
from .storage import Record

__all__ = [
    "HANDED_DOWN",
    "Strangers",
    "Whose",
    "alanded",
    "digest_of",
    "landed",
    "strangers_key",
    "values_of",
]

T = TypeVar("T")
Whose = Literal["ours", "stranger", "unknown"]

HANDED_DOWN: Final = "TRADOVATE_STRANGERS"
"""Names the environment variable that hands the digests to the children of an instrumented program, where no storage does."""

_DAY: Final = 86_400.0  # seconds; no token lives longer
_MOST: Final = 1024  # digests that are kept: a bot that logs in for each of its calls makes hundreds of them
_MOST_HANDED_DOWN: Final = 256
_PAUSE: Final = 15.0  # seconds for which a storage that could not be asked is not asked again
_STUCK: Final = 120.0
_GIVEN: Final[dict[str, str]] = {}
"""By digest: whose token clients of this process were given, by whichever source. Two may be at work in it."""
_UNASKED: Final = (
    "the storage cannot be asked for the tokens of other users, whose logins were let pass: "
    "until it can, only those of this process are left alone"
)


def strangers_key(environment: Environment) -> str:
    """Return the key of the record for an environment. No account's key begins like that."""
    return f"strangers at {environment.origin}{environment.path}"


def digest_of(token: str) -> str:
    """Return what a token is known by."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


class Strangers:
    """Whose tokens are whose, as far as a storage knows and this process has seen. Any thread, any loop.

    Args:
        record: Where they are kept.
        ours: Returns the tokens that are ours in that storage; called on a flight's thread, and may block there.
        warn: Told once, and again, of what somebody should hear of.
        elapsed: A clock that never jumps, in seconds.
    """

    def __init__(
        self,
        record: SharedRecord,
        *,
        ours: Callable[[], Iterable[str]],
        warn: Callable[[str], None],
        elapsed: Callable[[], float],
    ) -> None:
        self._record = record
        self._ours = ours
        self._warn = warn
        self._elapsed = elapsed
        self._flight = SingleFlight(self._work, ceiling=_STUCK)
        self._private = getattr(record.storage, "private", False)
        self._judged: dict[str, Whose] = {}
        self._asked: dict[str, None] = {}
        self._unsaved: dict[str, None] = {}
        self._away_until = -math.inf
        if self._private:
            self._unsaved.update(dict.fromkeys(filter(None, os.environ.get(HANDED_DOWN, "").split(","))))

    @classmethod
    def of(cls, source: TokenSource, warn: Callable[[str], None]) -> Self:
        """Return what a source's storage knows; of a source that has none, what this process does."""
        if not isinstance(source, TokenProvider):
            record = SharedRecord(PROCESS_STORAGE, strangers_key(source.environment))
            return cls(record, ours=lambda: (), warn=warn, elapsed=SYSTEM_CLOCK.elapsed)
        account = source._account  # noqa: SLF001
        record = SharedRecord(account.storage, strangers_key(account.environment), account.set_aside)

        def ours() -> Iterable[str]:
            return values_of(*account.load().tokens.values())

        return cls(record, ours=ours, warn=warn, elapsed=account.clock.elapsed)

    def claim(self, tokens: Iterable[str], owner: str) -> None:
        """Note tokens of this user that we have given to a client. Never blocks."""
        digests = [digest_of(token) for token in tokens]
        self._judge(dict.fromkeys(digests, "ours"))
        _GIVEN.update(dict.fromkeys(digests, owner))
        for oldest in list(_GIVEN)[:-_MOST]:
            _GIVEN.pop(oldest, None)

    def asking(self, token: str, owner: str, *, admitted: bool = True) -> Generator[Flight, None, Whose]:
        """Yield the flights to wait for, if any; return whose a token is.

        Args:
            token: Its text.
            owner: Whose token ours is; empty where that is not known.
            admitted: Whether ours may be sent with the request that carries it. What another source has given away in this
                process is a stranger's to whoever may send it, and as good as ours to whoever may not.
        """
        digest = digest_of(token)
        given_to = _GIVEN.get(digest)
        if given_to is not None and not same_user(given_to, owner):
            return "stranger" if admitted else "ours"
        while digest not in self._unsaved:
            found = self._judged.get(digest)
            if found is not None:
                return found
            if self._away:
                return "unknown"
            self._asked[digest] = None
            yield self._flight.join()
        if not self._away:
            self._flight.join()  # the storage may be back
        return "stranger"

    def remembering(self, tokens: Iterable[str]) -> Generator[Flight, None, None]:
        """Remember the tokens of other users; yield the flights to wait for until all who share the storage know them.

        In this process they are known before the first of these.
        """
        digests = [digest_of(token) for token in tokens]
        self._unsaved.update(dict.fromkeys(digests))
        for oldest in list(self._unsaved)[:-_MOST]:
            self._unsaved.pop(oldest, None)
        while not self._away and any(digest in self._unsaved for digest in digests):
            yield self._flight.join()

    @property
    def _away(self) -> bool:
        return self._elapsed() < self._away_until

    def _work(self) -> Aftermath:
        # Looked at before the storage is: who comes later waits for another flight.
        asked, unsaved = list(self._asked), list(self._unsaved)
        try:
            record = self._written(unsaved) if unsaved else self._record.load()
            ours = {digest_of(token) for token in self._ours()} if asked else set()
        except StorageError:
            self._away_until = self._elapsed() + _PAUSE
            self._warn(_UNASKED)
            return None, lambda: None
        if unsaved and self._private and VARIABLE in os.environ:
            newest = sorted(record.strangers, key=record.strangers.__getitem__)[-_MOST_HANDED_DOWN:]
            os.environ[HANDED_DOWN] = ",".join(newest)
        strangers = {*record.strangers, *unsaved}
        self._judge(dict.fromkeys(unsaved, "stranger"))
        self._judge({digest: _whose(digest, ours, strangers) for digest in asked})
        for digest in unsaved:
            self._unsaved.pop(digest, None)
        for digest in asked:
            self._asked.pop(digest, None)
        return None, lambda: None

    def _written(self, digests: Iterable[str]) -> Record:
        now = self._record.storage.now()

        def change(record: Record) -> Record:
            known = {digest: at for digest, at in record.strangers.items() if abs(now - at) < _DAY}
            newest = sorted({**known, **dict.fromkeys(digests, now)}.items(), key=lambda entry: entry[1])
            return replace(record, strangers=dict(newest[-_MOST:]))

        return self._record.update(change)[0]

    def _judge(self, judged: Mapping[str, Whose]) -> None:
        self._judged.update(judged)
        for oldest in list(self._judged)[:-_MOST]:
            self._judged.pop(oldest, None)


def values_of(*tokens: AccessToken) -> list[str]:
    """Return what is secret in tokens: a client may send either."""
    return [value for token in tokens for value in (token.value, token.md_value) if value is not None]


def _whose(digest: str, ours: Iterable[str], strangers: Iterable[str]) -> Whose:
    if digest in ours:
        return "ours"
    return "stranger" if digest in strangers else "unknown"


def landed(steps: Generator[Flight, None, T]) -> T:
    """Wait for the flights that a generator yields, one after the other; return what it returns. Blocks."""
    try:
        while True:
            next(steps).wait(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # what the generator returns


async def alanded(steps: Generator[Flight, None, T]) -> T:
    """Wait for them as `landed` does, without blocking the loop: asyncio or trio."""
    try:
        while True:
            await next(steps).await_landing()
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # as above

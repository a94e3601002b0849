"""Which tokens belong to other users, so that nobody replaces them by ours: the orders would be placed in our account.

A client that logs in for another user is let pass, and the token that it is given is remembered, by a digest of it. The
client may hand the token to a process that it starts, or keep it in a file until its next run. So the digests lie in the
provider's storage, in a record of their own, and each process asks there once for each token that it has not seen before.
A token is remembered before its client has it, unless the storage is away at that moment: so what was found to be nobody's is
asked for again now and then, and what could not be saved is saved with the next request, whichever, when the storage is back.

What asks and what saves is a flight (see `_flight`), so that no event loop ever waits for a storage; and nobody waits long.
"""

import math
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import replace
from typing import Final, Literal, Self, TypeVar

from ._clock import SYSTEM_CLOCK
from ._defaults import PROCESS_STORAGE
from ._flight import Aftermath, Flight, SingleFlight
from ._given import GIVEN, digest_of, give, values_of
from ._instrument_child import VARIABLE
from ._own_logins import same_user
from ._patience import in_time
from ._shared_record import SharedRecord
from ._source import TokenSource
from .environments import Environment
from .errors import TokenTimeout
from .provider import TokenProvider
from .storage import Record

__all__ = [
    "HANDED_DOWN",
    "Strangers",
    "Whose",
    "alanded",
    "landed",
    "strangers_key",
]

T = TypeVar("T")
Whose = Literal["ours", "stranger", "unknown"]

HANDED_DOWN: Final = "TRADOVATE_STRANGERS"
"""Names the environment variable that hands the digests to the children of an instrumented program, where no storage does."""

_DAY: Final = 86_400.0  # seconds; no token lives longer
_MOST: Final = 1024  # digests that are kept: a bot that logs in for each of its calls makes hundreds of them
_MOST_HANDED_DOWN: Final = 256
_PAUSE: Final = 15.0  # seconds for which a storage that could not be asked is not asked again
_PATIENCE: Final = 5.0  # seconds that a client's request waits for a storage
_UNKNOWN: Final = 60.0  # seconds for which what the storage does not know counts as nobody's
_STUCK: Final = 120.0
_UNASKED: Final = (
    "the storage cannot be asked for the tokens of other users, whose logins were let pass: "
    "until it can, only those of this process are left alone"
)


def strangers_key(environment: Environment) -> str:
    """Return the key of the record for an environment. No account's key begins like that."""
    return f"strangers at {environment.origin}{environment.path}"


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
        self._judged: dict[str, tuple[Whose, float]] = {}
        self._asked: dict[str, None] = {}
        self._unsaved: dict[str, None] = {}
        self._away_until = -math.inf
        self._given_up: Flight | None = None
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
        self._judge(dict.fromkeys(give(tokens, owner), "ours"))

    def asking(self, token: str, owner: str, *, admitted: bool = True) -> Generator[Flight, None, Whose]:
        """Yield the flights to wait for, if any; return whose a token is.

        Args:
            token: Its text.
            owner: Whose token ours is; empty where that is not known.
            admitted: Whether ours may be sent with the request that carries it. What another source has, or has
                given away, in this process is a stranger's to whoever may send it, and as good as ours to whoever may not.
        """
        digest = digest_of(token)
        given_to = GIVEN.get(digest)
        if given_to is not None and not same_user(given_to, owner):
            return "stranger" if admitted else "ours"
        while digest not in self._unsaved:
            found, until = self._judged.get(digest, ("unknown", -math.inf))
            if self._away or self._elapsed() < until:
                return found
            self._asked[digest] = None
            yield from self._look()
        return "stranger"

    def catch_up(self) -> None:
        """Save what could not be saved, if the storage may be back. Never blocks."""
        if self._unsaved and not self._away:
            self._flight.join()

    def remembering(self, tokens: Iterable[str]) -> Generator[Flight, None, None]:
        """Remember the tokens of other users; yield the flights to wait for until all who share the storage know them.

        In this process they are known before the first of these.
        """
        digests = [digest_of(token) for token in tokens]
        self._unsaved.update(dict.fromkeys(digests))
        for oldest in list(self._unsaved)[:-_MOST]:
            self._unsaved.pop(oldest, None)
        while not self._away and any(digest in self._unsaved for digest in digests):
            yield from self._look()

    def _look(self) -> Generator[Flight, None, None]:
        flight = self._flight.join()
        if flight is not self._given_up:  # one request has waited for that; others need not
            try:
                yield flight
            except TokenTimeout:
                self._given_up = flight
        if flight is self._given_up:
            self._put_off()

    def _put_off(self) -> None:
        self._away_until = self._elapsed() + _PAUSE
        self._warn(_UNASKED)

    @property
    def _away(self) -> bool:
        return self._elapsed() < self._away_until

    def _work(self) -> Aftermath:
        # Looked at before the storage is: who comes later waits for another flight.
        asked, unsaved = list(self._asked), list(self._unsaved)
        try:
            record = self._written(unsaved) if unsaved else self._record.load()
            ours = {digest_of(token) for token in self._ours()} if asked else set()
        except Exception:  # noqa: BLE001  # whatever a storage of somebody's raises, it is not the clients'
            self._put_off()
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
        later = self._elapsed() + _UNKNOWN
        self._judged.update(
            {digest: (whose, later if whose == "unknown" else math.inf) for digest, whose in judged.items()}
        )
        for oldest in list(self._judged)[:-_MOST]:
            self._judged.pop(oldest, None)


def _whose(digest: str, ours: Iterable[str], strangers: Iterable[str]) -> Whose:
    if digest in ours:
        return "ours"
    return "stranger" if digest in strangers else "unknown"


def landed(steps: Generator[Flight, None, T]) -> T:
    """Wait for the flights that a generator yields, one after the other; return what it returns. Blocks.

    One that does not land in a few seconds is a `TokenTimeout` in the generator.
    """
    try:
        flight = next(steps)
        while True:
            try:
                flight.wait(_PATIENCE)
            except TokenTimeout as late:
                flight = steps.throw(late)
            else:
                flight = next(steps)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # what the generator returns


async def alanded(steps: Generator[Flight, None, T]) -> T:
    """Wait for them as `landed` does, without blocking the loop: asyncio or trio."""
    try:
        flight = next(steps)
        while True:
            if await in_time(flight.await_landing(), _PATIENCE):
                flight = next(steps)
            else:
                flight = steps.throw(TokenTimeout())
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # as above

"""What lies over instrumented clients: whose token they get, what happens to their own logins, and who is told.

The hooks in the client libraries ask `overlay_for` at every request, so switching instrumentation off is one assignment, and
a hook that cannot be removed, because somebody else's lies on top of it, lets everything pass.

Three kinds of request are never touched, although they go to our own hosts: those that the package itself makes for a token,
those of a user whose own login was let pass, and those of a client without certificate checks where that is refused.
"""

import hashlib
import importlib
import logging
import math
import weakref
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal

from ._bearer import Bearer
from ._exchange import Journal
from ._flight import SingleFlight
from ._own_calls import Quiet, on_own_business
from ._own_logins import AuthCall, bearer_of, complete_answer, granted_tokens, same_user
from ._source import TokenSource
from .errors import ConfigurationError, TradovateAuthError
from .events import Warned
from .models import AccessToken
from .provider import TokenProvider

__all__ = [
    "CLIENTS",
    "EVERYWHERE",
    "LIBRARIES",
    "Covered",
    "Insecure",
    "Logins",
    "Outcome",
    "Overlay",
    "overlay_for",
    "trusts",
]

Logins = Literal["answer", "pass"]
Insecure = Literal["warn", "refuse"]

LIBRARIES: Final = ("requests", "httpx", "httpx2", "aiohttp")

_log: Final = logging.getLogger("tradovate_auth")
_REMEMBERED: Final = 256
_RENEW_FROM: Final = 1 / 2
"""A client that asks for a renewal gets a token with this part of its life ahead, if one may be had: it asks because its own
token is old, and most would ask again at once if the answer were no newer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of an auth call that a client makes: it is answered, or it passes."""

    answer: bytes | None = field(repr=False)
    """The body of the answer; None lets the call pass."""
    stranger: bool = False
    """Whether what the server answers to it are the tokens of somebody else, which we never replace."""


class Overlay:
    """One source and the manner in which clients share it. Any thread, any loop.

    Args:
        source: Whose token the clients get.
        logins: "answer" their own logins and renewals from the source, or let them "pass".
        insecure: What a client without certificate checks gets: the token and a "warn"ing, or nothing ("refuse").
        own: What `close` closes.

    Raises:
        ConfigurationError: An argument is none of these.
    """

    def __init__(
        self, source: TokenSource, *, logins: Logins, insecure: Insecure, own: TokenProvider | None = None
    ) -> None:
        if logins not in ("answer", "pass"):
            raise ConfigurationError("logins is 'answer' or 'pass'.")
        if insecure not in ("warn", "refuse"):
            raise ConfigurationError("insecure is 'warn' or 'refuse'.")
        if not hasattr(source, "aget"):
            raise ConfigurationError(
                f"The source is {type(source).__name__}.",
                None,
                "Pass a TokenProvider, or None for the environment's.",
            )
        self.source: TokenSource = source if isinstance(source, TokenProvider) else Quiet(source)
        self.given = source
        self._own = own
        self._logins = logins
        self._insecure = insecure
        self._auths: dict[str, Bearer] = {}
        self._strangers: dict[bytes, None] = {}
        self._told: dict[str, object] = {}

    def close(self) -> None:
        """Close the provider that was made for this. See its `close`."""
        if self._own is not None:
            self._own.close()

    def auth(self, library: str) -> Any:
        """Return the `TradovateAuth` for a library, made at its first request."""
        found = self._auths.get(library)
        if found is None:
            adapter = importlib.import_module(f"{__package__}.{library}")
            found = self._auths.setdefault(library, adapter.TradovateAuth(self.source))
        return found

    def touches(self, library: str, kind: AuthCall | None, scheme: str, netloc: str) -> bool:
        """Return whether a request goes to a trusted origin; tell of a login that goes elsewhere."""
        if self._trusts(self.auth(library), scheme, netloc):
            return True
        if kind == "login":
            origin = f"{scheme}://{netloc.rpartition('@')[2]}"
            self.warn(f"a client logs in at {origin}, which is not our environment: it is left alone")
        return False

    def _trusts(self, auth: Bearer, scheme: str, netloc: str) -> bool:
        if trusts(auth, scheme, netloc):
            return True
        # An assigned host is known to whoever has seen the token it came with; another library may have.
        held = self.source._keeper.held.token if isinstance(self.source, TokenProvider) else None  # noqa: SLF001
        if held is None or held is auth._routes.token:  # noqa: SLF001
            return False
        auth._routes_for(held)  # noqa: SLF001
        return trusts(auth, scheme, netloc)

    def admits(self, library: str, *, checked: bool) -> bool:
        """Return whether a client may have the token; tell of one that does not check certificates."""
        if checked:
            return True
        refused = self._insecure == "refuse"
        self.warn(
            f"a client of {library} does not check certificates: "
            + ("it gets no token" if refused else "whoever sits in between can read the token")
        )
        return not refused

    def is_stranger(self, header: object) -> bool:
        """Return whether an `Authorization` header holds the token of a user whose own login was let pass."""
        value = bearer_of(header) if self._strangers else None
        return value is not None and _digest(value) in self._strangers

    def remember_stranger(self, body: bytes) -> None:
        """Remember the tokens in the answer to a call that was let pass, by their digests."""
        for value in granted_tokens(body):
            self._strangers[_digest(value)] = None
        for oldest in list(self._strangers)[:-_REMEMBERED]:
            self._strangers.pop(oldest, None)

    def settle(self, kind: AuthCall, user: str | None, header: object) -> Outcome:
        """Return what becomes of an auth call. Blocks like `TokenProvider.get`, and raises what it raises.

        Args:
            kind: Which call.
            user: The name that a login is for, or None if it cannot be read.
            header: The call's own `Authorization`.
        """
        steps = self._settling(kind, user, header)
        try:
            wanted = next(steps)
            while True:
                try:
                    token = self.source.get(min_ttl=wanted)
                except TradovateAuthError as error:
                    wanted = steps.throw(error)
                else:
                    wanted = steps.send(token)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # what the generator returns

    async def asettle(self, kind: AuthCall, user: str | None, header: object) -> Outcome:
        """Return what becomes of an auth call, as `settle` does, without blocking the loop."""
        steps = self._settling(kind, user, header)
        try:
            wanted = next(steps)
            while True:
                try:
                    token = await self.source.aget(min_ttl=wanted)
                except TradovateAuthError as error:
                    wanted = steps.throw(error)
                else:
                    wanted = steps.send(token)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # as above

    def _settling(
        self, kind: AuthCall, user: str | None, header: object
    ) -> Generator[float, AccessToken, Outcome]:
        """Yield how long a token should still live, get it or the error that there is none, and return the outcome."""
        if kind == "renewal" and self.is_stranger(header):
            return Outcome(None, stranger=True)
        if kind == "login":
            owner = self._owner or (yield 0.0).name
            if user is None or not same_user(user, owner):
                self._tell_of_stranger(user, owner)
                return Outcome(None, stranger=True)
        if self._logins == "pass":
            return Outcome(None)
        token = yield 0.0
        if kind == "renewal":
            with suppress(TradovateAuthError):  # then the one in hand is the answer
                token = yield max(token.lifetime * _RENEW_FROM, 0.0)
        # So that every library knows the hosts in the answer as ours, before the client comes with one of them.
        for auth in list(self._auths.values()):
            auth._routes_for(token)  # noqa: SLF001
        return Outcome(complete_answer(token))

    @property
    def _owner(self) -> str:
        source = self.source
        return source._account.credentials.name if isinstance(source, TokenProvider) else ""  # noqa: SLF001

    def _tell_of_stranger(self, user: str | None, owner: str) -> None:
        if user is None:
            self.warn("a client's login does not say for whom in a way that can be read: it is left alone")
        else:
            shown = "".join(filter(str.isprintable, user))[:64]
            self.warn(f"a client logs in as {shown}, not as {owner}: it is left alone, and so is its token")

    def warn(self, reason: str) -> None:
        """Emit a `Warned` event, once for each reason. Never blocks: the listener is called on another thread."""
        mine = object()
        if len(self._told) >= _REMEMBERED or self._told.setdefault(reason, mine) is not mine:
            return
        source = self.source
        if isinstance(source, TokenProvider):
            journal = Journal(source._account.label)  # noqa: SLF001
            journal.warn(reason)
            keeper = source._keeper  # noqa: SLF001
            keeper.last_event = journal.entries[-1]
            tell = partial(keeper._tell, journal)  # noqa: SLF001
            SingleFlight(lambda: (None, tell), ceiling=math.inf).join()
        else:
            _log.warning("%s", Warned(account=source.environment.host, reason=reason))


def trusts(auth: Bearer, scheme: str, netloc: str) -> bool:
    """Return whether an origin is one that an adapter signs requests to."""
    return auth._routes.find(scheme, netloc.rpartition("@")[2]) is not None  # noqa: SLF001


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest()


class Covered:
    """What lies over single clients, by identity: a client of somebody else's may compare equal to another, or have no hash.

    Changed under the lock of `_instrument_state`, read without one.
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Any], Overlay]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, client: object, overlay: Overlay) -> None:
        """Lay an overlay over a client, which is held weakly."""
        key, entries = id(client), self._entries
        entries[key] = (weakref.ref(client, lambda _: entries.pop(key, None)), overlay)

    def get(self, client: object) -> Overlay | None:
        """Return what lies over a client."""
        entry = self._entries.get(id(client))
        return entry[1] if entry is not None and entry[0]() is client else None

    def drop(self, overlay: Overlay, client: object) -> None:
        """Take an overlay away from a client, if it is still that one."""
        if client is not None and self.get(client) is overlay:
            self._entries.pop(id(client), None)

    def drop_all(self, overlay: Overlay | None = None) -> None:
        """Take an overlay away from every client, or all overlays."""
        for key, (_, over) in list(self._entries.items()):
            if overlay in (None, over):
                self._entries.pop(key, None)


EVERYWHERE: Final[dict[str, Overlay]] = {}
"""By library: what lies over all of its clients."""

CLIENTS: Final = {library: Covered() for library in LIBRARIES}
"""By library: what lies over single clients."""


def overlay_for(library: str, client: Any) -> Overlay | None:
    """Return what lies over a client, or None: at this moment, and for whoever is calling."""
    single = CLIENTS[library]
    overlay = (single.get(client) if single else None) or EVERYWHERE.get(library)
    if overlay is None or on_own_business():
        return None
    return overlay

"""What lies over instrumented clients: whose token they get, what happens to their own logins, and who is told.

The hooks in the client libraries ask `overlay_for` at every request, so switching instrumentation off is one assignment, and
a hook that cannot be removed, because somebody else's lies on top of it, lets everything pass.

Three kinds of request are never touched, although they go to our own hosts: those that the package itself makes for a token,
those of a user whose own login was let pass, and those of a client without certificate checks where that is refused.
"""

import importlib
import ssl
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Any, Final, Literal

from ._bearer import Bearer
from ._covered import Covered
from ._flight import Flight
from ._given import GIVEN, digest_of, values_of
from ._outcome import Outcome, Steps, asettled, settled
from ._own_calls import Quiet, on_own_business
from ._own_logins import AuthCall, bearer_of, complete_answer, granted_tokens, headers_of, same_user
from ._source import TokenSource
from ._strangers import Strangers, Whose, alanded, landed
from ._telling import tell_of
from .errors import ConfigurationError, ProviderClosed, TradovateAuthError
from .models import AccessToken
from .provider import TokenProvider

__all__ = [
    "CLIENTS",
    "EVERYWHERE",
    "LIBRARIES",
    "Insecure",
    "Logins",
    "Outcome",
    "Overlay",
    "answer_headers",
    "checks_names",
    "overlay_for",
    "trusts",
]

Logins = Literal["answer", "pass"]
Insecure = Literal["warn", "refuse"]

LIBRARIES: Final = ("requests", "httpx", "httpx2", "aiohttp")

_REMEMBERED: Final = 256
_RENEW_FROM: Final = 1 / 2
"""A client that asks for a renewal gets a token with this part of its life ahead, if one may be had: it asks because its own
token is old, and most would ask again at once if the answer were no newer."""


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
        self._shared: dict[None, Strangers] = {}
        self._told: dict[str, object] = {}
        self._seen = ""
        self.ended = False

    def close(self) -> None:
        """Close the provider that was made for this. See its `close`."""
        self.ended = True
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
        held = self._held
        if held is None or held is auth._routes.token:  # noqa: SLF001
            return False
        auth._routes_for(held)  # noqa: SLF001
        return trusts(auth, scheme, netloc)

    def admits(self, library: str, *, checked: bool | None) -> bool:
        """Return whether a client may have the token; tell of one that does not check certificates, or of which that cannot
        be seen (None).
        """
        if checked:
            return True
        refused = self._insecure == "refuse"
        how = f"a client of {library} does not check certificates"
        if checked is None:
            how = f"whether a client of {library} checks certificates cannot be seen"
        self.warn(
            f"{how}: " + ("it gets no token" if refused else "whoever sits in between can read the token")
        )
        return not refused

    def whose(self, header: object, *, admitted: bool = True) -> Whose:
        """Return whose token is in an `Authorization` header: ours, or of a user whose own login was let pass; of anybody
        else, and of no token, it is unknown.

        Blocks on the storage, the first time a token is seen.

        Args:
            header: Its value.
            admitted: Whether the request may carry our token.
        """
        if self._must_name(header):
            with suppress(Exception):  # whoever signs with the source's token hears of it
                self._seen = self.source.get().name
        return landed(self._whose(header, admitted=admitted))

    async def awhose(self, header: object, *, admitted: bool = True) -> Whose:
        """Return the same without blocking the loop."""
        if self._must_name(header):
            with suppress(Exception):
                self._seen = (await self.source.aget()).name
        return await alanded(self._whose(header, admitted=admitted))

    def _must_name(self, header: object) -> bool:
        """Whether a token that was given away in this process may be our own user's, whose name is not known yet."""
        value = bearer_of(header)
        return not (self._owner or self._seen) and value is not None and digest_of(value) in GIVEN

    def _whose(self, header: object, *, admitted: bool) -> Generator[Flight, None, Whose]:
        self._strangers.catch_up()
        value = bearer_of(header)
        if value is None:
            return "unknown"
        if any(value in (token.value, token.md_value) for token in self._in_hand()):
            return "ours"
        return (yield from self._strangers.asking(value, self._owner or self._seen, admitted=admitted))

    def _in_hand(self) -> Iterator[AccessToken]:
        held = self._held
        if held is not None:
            yield held
        for auth in list(self._auths.values()):
            yield from list(auth._sent.values())  # noqa: SLF001

    def strange_elsewhere(self, kind: AuthCall | None, user: str | None, netloc: str) -> bool:
        """Return whether an auth call at an origin that is not ours brings the token of another user. Never blocks.

        A token that one of the vendor's hosts has granted is good at others.
        """
        if kind not in ("login", "oauth"):
            return False
        kin = self.source.environment.admit(netloc.rpartition("@")[2]) is not None
        return kin and (user is None or not same_user(user, self._owner or self._seen))

    def remember_stranger(self, body: bytes) -> None:
        """Remember the tokens in the answer to a call that was let pass, for all who share the storage. Blocks on that."""
        landed(self._strangers.remembering(granted_tokens(body)))

    async def aremember_stranger(self, body: bytes) -> None:
        """Remember them without blocking the loop."""
        await alanded(self._strangers.remembering(granted_tokens(body)))

    @property
    def _strangers(self) -> Strangers:
        found = self._shared.get(None)
        return found or self._shared.setdefault(None, Strangers.of(self.source, self.warn))

    def settle(self, kind: AuthCall, user: str | None, header: object, *, admitted: bool = True) -> Outcome:
        """Return what becomes of an auth call. Blocks like `TokenProvider.get`, and raises what it raises.

        Args:
            kind: Which call.
            user: The name that a login is for, or None if it cannot be read.
            header: The call's own `Authorization`.
            admitted: Whether the client may have our token; otherwise it gets no answer from us.
        """
        whose = self.whose(header) if kind == "renewal" else "unknown"
        steps = self._settling(kind, user, whose, admitted=admitted)
        try:
            return settled(self.source, steps)
        except ProviderClosed:
            if self.ended:  # since the call began: it passes, like those that begin now
                return Outcome(None)
            raise

    async def asettle(
        self, kind: AuthCall, user: str | None, header: object, *, admitted: bool = True
    ) -> Outcome:
        """Return what becomes of an auth call, as `settle` does, without blocking the loop."""
        whose = await self.awhose(header) if kind == "renewal" else "unknown"
        steps = self._settling(kind, user, whose, admitted=admitted)
        try:
            return await asettled(self.source, steps)
        except ProviderClosed:
            if self.ended:
                return Outcome(None)
            raise

    def _settling(self, kind: AuthCall, user: str | None, whose: Whose, *, admitted: bool) -> Steps:
        if kind == "renewal" and whose == "stranger":
            return Outcome(None, stranger=True)
        if kind != "renewal":
            owner = self._owner or (yield 0.0).name
            if user is None or not same_user(user, owner):
                self._tell_of_stranger(user, owner)
                return Outcome(None, stranger=True)
        if self._logins == "pass" or not admitted:
            return Outcome(None)
        token = yield 0.0
        if kind == "renewal":
            with suppress(TradovateAuthError):  # then the one in hand is the answer
                token = yield max(token.lifetime * _RENEW_FROM, 0.0)
        # So that every library knows the hosts in the answer as ours, before the client comes with one of them.
        for auth in list(self._auths.values()):
            auth._routes_for(token)  # noqa: SLF001
        self._seen = token.name
        self._strangers.claim(values_of(token), self._owner or token.name)
        return Outcome(complete_answer(token))

    @property
    def _held(self) -> AccessToken | None:
        return self.source._keeper.held.token if isinstance(self.source, TokenProvider) else None  # noqa: SLF001

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
        tell_of(self.source, reason)


def trusts(auth: Bearer, scheme: str, netloc: str) -> bool:
    """Return whether an origin is one that an adapter signs requests to."""
    return auth._routes.find(scheme, netloc.rpartition("@")[2]) is not None  # noqa: SLF001


def answer_headers(body: bytes) -> dict[str, str]:
    """Return the headers of an answer of ours, which is sent now."""
    return headers_of(body, time.time())


def checks_names(context: ssl.SSLContext) -> bool:
    """Return whether a context checks certificates, and that they are of the host that was asked for."""
    return context.verify_mode != ssl.CERT_NONE and context.check_hostname


EVERYWHERE: Final[dict[str, Overlay]] = {}
"""By library: what lies over all of its clients."""

CLIENTS: Final[dict[str, Covered[Overlay]]] = {library: Covered() for library in LIBRARIES}
"""By library: what lies over single clients."""


def overlay_for(library: str, client: Any) -> Overlay | None:
    """Return what lies over a client, or None: at this moment, and for whoever is calling."""
    single = CLIENTS[library]
    overlay = (single.get(client) if single else None) or EVERYWHERE.get(library)
    if overlay is None or on_own_business():
        return None
    return overlay

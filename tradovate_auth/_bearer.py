"""What all adapters share: what an answer says of the token and of the host that gave it, and when a request is sent again.

Nothing but a trusted origin ever sees the token, on no hop of a redirect; which those are, and where requests to them go, is in
`_routes`. An answer counts only if the request that it belongs to really carried the token: hooks, transports and netrc files
may have put something else in its place.
"""

import math
import time
from collections.abc import Mapping
from typing import Final, NamedTuple, Self, Unpack

from ._closing import Closing
from ._defaults import options_from_env
from ._guarded import Guarded
from ._held import NOTHING, ONE_SHOT_TTL, Held
from ._keeper import Keeper
from ._options import AdapterOptions, ProviderOptions
from ._patience import PATIENCE, token_within
from ._routes import Routes, location
from ._source import TokenSource
from .errors import ConfigurationError
from .models import AccessToken, Credentials
from .provider import TokenProvider
from .transport import Transport

__all__ = ["ONE_SHOT_TTL", "PATIENCE", "READING", "RENEW", "RESEND_LIMIT", "Bearer", "Seen"]

RESEND_LIMIT: Final = 8 * 2**20
"""Bytes of a body that an httpx adapter reads ahead, at most, to be able to send it again."""

RENEW: Final = math.inf
"""As `min_ttl`: longer than any token lives, so a renewal is asked for, if the allowance permits one."""

READING: Final = frozenset({"GET", "HEAD"})
"""What may be sent again although it may have been processed."""

_MOVED: Final = frozenset({307, 308})
_REMEMBERED: Final = 8


class Seen(NamedTuple):
    """A request as it went out, and its answer, in the words of no library."""

    method: str
    scheme: str
    netloc: str
    path: str
    carried: str | None
    """Its Authorization header, whoever put that there."""
    status: int
    headers: Mapping[str, str]


class _Bare:
    """What the hot path sees of a source that is no `TokenProvider`: never a fresh token, so the source is asked."""

    held: Held = NOTHING
    elapsed = staticmethod(time.monotonic)


class Bearer(Guarded, Closing):
    """The part of an adapter that does not depend on its HTTP library.

    Args:
        source: A `TokenProvider` or another `TokenSource`, which may serve many adapters; or `Credentials`, for a provider
            of the adapter's own.
        route: Send requests for well-known hosts to the ones that the server assigned.
        resend_limit: Bytes of a body that may be held in memory to send it again after a 401.
        patience: Seconds that a call waits for a token, None for as long as it takes. Where the library tells the call's own
            time-outs it waits no longer than their sum. Whoever cannot outlast a penalty gets `Throttled` at once.
        provider_options: Only with `Credentials`: the keyword arguments of `TokenProvider`.

    Raises:
        ConfigurationError: The arguments do not fit together.
    """

    def __init__(
        self,
        source: TokenSource | Credentials,
        *,
        route: bool = True,
        resend_limit: int = RESEND_LIMIT,
        patience: float | None = PATIENCE,
        **provider_options: Unpack[ProviderOptions],
    ) -> None:
        if patience is not None and not (isinstance(patience, int | float) and patience >= 0):
            raise ConfigurationError("patience is a number of seconds, or None.")
        if isinstance(source, Credentials):
            provider_options.setdefault("transport", self._own_transport())
            self._own: TokenProvider | None = TokenProvider(source, **provider_options)
            self.provider: TokenSource = self._own
        elif provider_options:
            names = ", ".join(sorted(provider_options))
            raise ConfigurationError(f"These options belong to the provider that was handed in: {names}.")
        elif not hasattr(source, "aget"):
            raise ConfigurationError(
                f"The first argument is {type(source).__name__}.",
                None,
                "Pass Credentials, or a TokenProvider.",
            )
        else:
            self._own, self.provider = None, source
        self._route = route
        self._resend_limit = resend_limit
        self._patience = math.inf if patience is None else patience
        # Of a provider, the hot path sees the token without asking; any other source is asked each time.
        provider = self.provider
        self._keeper = provider._keeper if type(provider) is TokenProvider else None  # noqa: SLF001
        self._shelf: Keeper | _Bare = self._keeper or _Bare()
        self._elapsed = self._shelf.elapsed
        self._routes = Routes(self.provider.environment, route=route)
        self._sent: dict[str, AccessToken] = {}

    @classmethod
    def from_env(cls, **options: Unpack[AdapterOptions]) -> Self:
        """Return an adapter for the credentials, environment and storage in the `TRADOVATE_` variables.

        Args:
            options: As for the class; see `TokenProvider.from_env`.

        Raises:
            ConfigurationError: See `Credentials.from_env`.
            ImportError: As `TokenProvider.from_env`.
        """
        return cls(Credentials.from_env(), **options_from_env(options))

    def close(self) -> None:
        """Close the provider that this adapter made for itself; one that was handed in stays open. See its `close`."""
        if self._own is not None:
            self._own.close()

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} of {self.provider!r}>"

    def _own_transport(self) -> Transport:
        raise NotImplementedError

    def _get(self, patience: float, min_ttl: float = 0.0) -> AccessToken:
        """Return a token, as `TokenProvider.get` does. Blocks for so many seconds at most."""
        return self.provider.get(None if patience == math.inf else patience, min_ttl=min_ttl)

    async def _aget(self, patience: float, min_ttl: float = 0.0) -> AccessToken:
        """Return a token, as `TokenProvider.aget` does, within so many seconds."""
        return await token_within(self.provider, self._keeper, patience, min_ttl)

    def _routes_for(self, token: AccessToken) -> Routes:
        """Return the routes of a token; remember the token, to know its header when an answer comes."""
        held, routes = self._shelf.held, self._routes
        if held.token is not token:
            held = NOTHING
        if routes.token is token and routes.held is held:
            return routes
        # What a host has said about itself counts until the server assigns another one.
        stays = routes.token is not None and routes.token.hosts == token.hosts
        self._sent[token.authorization] = token
        for oldest in list(self._sent)[:-_REMEMBERED]:  # a copy: other threads may be in here too
            self._sent.pop(oldest, None)
        return self._reroute_all(token, routes, held, routes.sent_on if stays else {})

    def _reroute_all(
        self, token: AccessToken | None, before: Routes, held: Held, sent_on: Mapping[str, str]
    ) -> Routes:
        routes = Routes(
            self.provider.environment, token, before.earlier, held=held, route=self._route, sent_on=sent_on
        )
        self._routes = routes
        return routes

    def _unclear(self, token: AccessToken, seen: Seen) -> bool:
        """Return whether an answer may be the mark of a host that is ours no more, which its body alone can tell.

        A 404 to a GET that does not say how long it is. (A HEAD never has a body.)
        """
        return (
            seen.status == 404
            and seen.method == "GET"
            and seen.carried == token.authorization
            and "Content-Length" not in seen.headers
            and self._route
            and bool(token.hosts)
            and not token.strikes.moved
        )

    def _moved(self, token: AccessToken, seen: Seen, *, empty: bool = False) -> bool:
        """Return whether an answer says that the account has moved, so that its hosts are asked for and it is sent again.

        Once per token, and for a GET or HEAD alone. P§1.2: a host that is ours no more answers with a redirect to another
        one, with 421, or with a 404 without a body.

        Args:
            token: The one that the request carried.
            seen: The request and the answer.
            empty: Whether a look at the answer's body found nothing.
        """
        moved = self._wrong_host(token, seen, empty=empty)
        if not moved or seen.method not in READING or token.strikes.moved:
            return False
        token.strikes.moved = True
        return True

    def _wrong_host(self, token: AccessToken, seen: Seen, *, empty: bool) -> bool:
        """Return whether a host says that it is not the one, and heed where it sends us instead.

        A redirect to a host that we would send back here is no other redirect: following it would never end. The server's
        word is newer than what it once assigned, so requests go there from now on.
        """
        if not self._route:
            return False
        asked, routes = Routes.plain(seen.scheme, seen.netloc.lower()), self._routes
        if seen.status in _MOVED:
            to, here = location(seen.scheme, seen.headers.get("Location", "")), self.provider.environment
            target = routes.find(seen.scheme, to)
            if to == asked or target not in (None, asked):
                return False
            if target == asked:
                self._reroute_all(routes.token, routes, routes.held, routes.overruled(asked, to))
            return here.admit(to) is not None and to.partition(":")[2] == str(here.port or "")
        bare = empty or seen.headers.get("Content-Length") == "0"
        wrong = seen.status == 421 or (seen.status == 404 and bare and bool(token.hosts))
        if wrong and asked in routes.sent_on.values():
            self._reroute_all(routes.token, routes, routes.held, routes.overruled(asked, None))
        return wrong

    def _rejected(self, token: AccessToken, seen: Seen) -> bool:
        """Report a 401; return whether asking for another token is worth while."""
        return self.provider.reject(token, method=seen.method, path=seen.path)

    def _conclude(self, token: AccessToken, seen: Seen) -> None:
        """Draw what conclusions there are from the answer to a request that was sent again; the answer is the caller's."""
        if seen.carried != token.authorization:
            return
        if seen.status == 401:
            self._rejected(token, seen)
        else:
            self.provider.report(token, seen.status)
            self._wrong_host(token, seen, empty=False)

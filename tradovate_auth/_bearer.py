"""What all adapters share: which origins get the header, to which host a request goes, and when it is sent again.

A request is *ours* if its origin is trusted: a well-known host of the environment, or one that the server assigned. Nothing
else ever sees the token, on no hop of a redirect. Where the server has assigned another host, requests to the well-known
one, or to one that was assigned before, go there (P§1.2).
"""

import math
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from ._defaults import options_from_env
from ._guarded import Guarded
from ._held import NOTHING, ONE_SHOT_TTL, Held
from ._keeper import Keeper
from ._source import TokenSource
from .environments import Environment
from .errors import ConfigurationError
from .models import AccessToken, Credentials
from .provider import TokenProvider
from .transport import Transport

__all__ = ["ONE_SHOT_TTL", "READING", "RENEW", "RESEND_LIMIT", "Bearer", "Routes", "split_host"]

RESEND_LIMIT: Final = 8 * 2**20
"""Bytes of a body that an httpx adapter reads ahead, at most, to be able to send it again."""

RENEW: Final = math.inf
"""As `min_ttl`: longer than any token lives, so a renewal is asked for, if the allowance permits one."""

READING: Final = frozenset({"GET", "HEAD"})
"""What may be sent again although it may have been processed."""

_REMEMBERED: Final = 8


class Routes:
    """Where requests may go with a token, and where they are sent: for one environment and one token's hosts.

    Args:
        environment: Whose hosts these are.
        token: Whose assigned hosts count; None for none.
        earlier: Names that were assigned before, by key.
        held: How long the token is good for any request, if its provider is one of ours. The hot path looks there alone.
        route: False sends every request where its URL says.
    """

    __slots__ = ("earlier", "held", "hosts", "netlocs", "origins", "prefixes", "scheme", "targets", "token")

    def __init__(
        self,
        environment: Environment,
        token: AccessToken | None = None,
        earlier: Mapping[str, tuple[str, ...]] | None = None,
        *,
        held: Held = NOTHING,
        route: bool = True,
    ) -> None:
        assigned = {
            key: self.plain(environment.scheme, admitted)
            for key, host in (token.hosts if token is not None else {}).items()
            if environment.owns(key) and (admitted := environment.admit(host)) is not None
        }
        own = {key: self.plain(environment.scheme, host) for key, host in environment.hosts.items()}
        known = dict(earlier or {})
        for key, host in assigned.items():
            known[key] = (*(name for name in known.get(key, ()) if name != host), host)[-_REMEMBERED:]
        for key, host in own.items():  # never forgotten, however many were assigned since
            known[key] = (host, *(name for name in known.get(key, ()) if name != host))
        current = {key: assigned.get(key, own.get(key, names[-1])) for key, names in known.items()}
        self.token, self.held = token, held
        self.earlier: Mapping[str, tuple[str, ...]] = known
        self.targets = {
            name: current[key]
            for key, names in known.items()
            for name in names
            if route and name not in current.values()
        }
        trusted = {name for names in known.values() for name in names}
        self.scheme = environment.scheme
        self.origins = frozenset((self.scheme, name) for name in trusted)
        # Requests that go where they say, in the shape in which each library names an origin at the least cost.
        straight = sorted(trusted - self.targets.keys())
        self.prefixes = tuple(f"{self.scheme}://{name}/" for name in straight)
        self.netlocs = frozenset(straight)
        self.hosts = frozenset(split_host(name) for name in straight)

    def find(self, scheme: str, netloc: str) -> str | None:
        """Return the host that a request to this origin goes to, or None if the origin is not ours."""
        netloc = self.plain(scheme, netloc.lower())
        return self.targets.get(netloc, netloc) if (scheme, netloc) in self.origins else None

    @staticmethod
    def plain(scheme: str, netloc: str) -> str:
        """Return host and port without a port that the scheme implies."""
        return netloc.removesuffix(":443" if scheme == "https" else ":80")


def split_host(netloc: str) -> tuple[str, int | None]:
    """Return host and port of a network location; the port is None where none is named."""
    parts = urlsplit(f"//{netloc}")
    return parts.hostname or "", parts.port


def _netloc(url: str) -> str:
    """Return host and port of a URL that somebody else wrote; nothing if it is none."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


class _Bare:
    """What the hot path sees of a source that is no `TokenProvider`: never a fresh token, so the source is asked."""

    held: Held = NOTHING
    elapsed = staticmethod(time.monotonic)


class Bearer(Guarded):
    """The part of an adapter that does not depend on its HTTP library.

    Args:
        source: A `TokenProvider` or another `TokenSource`, which may serve many adapters; or `Credentials`, for a provider
            of the adapter's own.
        route: Send requests for well-known hosts to the ones that the server assigned.
        resend_limit: Bytes of a body that may be held in memory to send it again after a 401.
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
        **provider_options: Any,
    ) -> None:
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
        self._get = self.provider.get
        # Of a provider, the hot path sees the token without asking; any other source is asked each time.
        provider = self.provider
        self._shelf: Keeper | _Bare = provider._keeper if type(provider) is TokenProvider else _Bare()  # noqa: SLF001
        self._elapsed = self._shelf.elapsed
        self._routes = Routes(self.provider.environment, route=route)
        self._sent: dict[str, AccessToken] = {}

    @classmethod
    def from_env(cls, **provider_options: Any) -> Self:
        """Return an adapter for the credentials, environment and storage in the `TRADOVATE_` variables.

        Raises:
            ConfigurationError: See `Credentials.from_env`.
        """
        return cls(Credentials.from_env(), **options_from_env(provider_options))

    def close(self) -> None:
        """Close the provider that this adapter made for itself; one that was handed in stays open. See its `close`."""
        if self._own is not None:
            self._own.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} of {self.provider!r}>"

    def _own_transport(self) -> Transport:
        raise NotImplementedError

    def _routes_for(self, token: AccessToken) -> Routes:
        """Return the routes of a token; remember the token, to know its header when an answer comes."""
        held, routes = self._shelf.held, self._routes
        if held.token is not token:
            held = NOTHING
        if routes.token is token and routes.held is held:
            return routes
        routes = Routes(self.provider.environment, token, routes.earlier, held=held, route=self._route)
        self._sent[token.authorization] = token
        for oldest in list(self._sent)[:-_REMEMBERED]:  # a copy: other threads may be in here too
            self._sent.pop(oldest, None)
        self._routes = routes
        return routes

    def _moved(
        self, token: AccessToken, origin: tuple[str, str], status: int, headers: Mapping[str, str]
    ) -> bool:
        """Return whether an answer says that the account has moved, and its hosts should be asked for: once per token.

        P§1.2: a host that is ours no more answers with a redirect to another one, with 421, or with a 404 without a body.
        A redirect to one that we would send back here is no other redirect: following it would never end.
        """
        scheme, asked = origin
        if not self._route or token.strikes.moved:
            return False
        if status == 307:
            to, here = _netloc(headers.get("Location", "")), self.provider.environment
            kin = here.admit(to) not in (None, asked) and to.partition(":")[2] == str(here.port or "")
            moved = kin and self._routes.find(scheme, to) in (None, asked)
        else:
            moved = status == 421 or (
                status == 404 and headers.get("Content-Length") == "0" and bool(token.hosts)
            )
        if moved:
            token.strikes.moved = True
        return moved

    def _rejected(self, token: AccessToken, method: str, path: str) -> bool:
        """Report a 401; return whether asking for another token is worth while."""
        return self.provider.reject(token, method=method, path=path)

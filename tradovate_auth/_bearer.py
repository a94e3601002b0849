"""What all adapters share: which origins get the header, to which host a request goes, and when it is sent again.

A request is *ours* if its origin is trusted: a well-known host of the environment, or one that the server assigned. Nothing
else ever sees the token, on no hop of a redirect. Where the server has assigned another host, requests to the well-known
one, or to one that was assigned before, go there (P§1.2).
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from ._defaults import options_from_env
from ._source import TokenSource
from .environments import Environment
from .errors import ConfigurationError
from .models import AccessToken, Credentials
from .provider import TokenProvider
from .transport import Transport

__all__ = ["ONE_SHOT_TTL", "RESEND_LIMIT", "Bearer", "Routes", "split_host"]

RESEND_LIMIT: Final = 8 * 2**20
"""Bytes of a body that an httpx adapter reads ahead, at most, to be able to send it again."""

ONE_SHOT_TTL: Final = 2.0
"""Seconds that a token must still live to go out with a body that cannot be sent again."""

_REMEMBERED: Final = 8


class Routes:
    """Where requests may go with a token, and where they are sent: for one environment and one token's hosts.

    Args:
        environment: Whose hosts these are.
        token: Whose assigned hosts count; None for none.
        earlier: Names that were assigned before, by key.
        route: False sends every request where its URL says.
    """

    __slots__ = ("earlier", "netlocs", "origins", "prefixes", "targets", "token", "triples")

    def __init__(
        self,
        environment: Environment,
        token: AccessToken | None = None,
        earlier: Mapping[str, tuple[str, ...]] | None = None,
        *,
        route: bool = True,
    ) -> None:
        assigned = {
            key: admitted
            for key, host in (token.hosts if token is not None else {}).items()
            if environment.owns(key) and (admitted := environment.admit(host)) is not None
        }
        known = {
            key: (*names, assigned[key]) if key in assigned else names
            for key, names in (earlier or {}).items()
        }
        for key, host in (*environment.hosts.items(), *assigned.items()):
            known[key] = tuple(dict.fromkeys((*known.get(key, ()), host)))[-_REMEMBERED:]
        current = {
            key: assigned.get(key, environment.hosts.get(key, names[-1])) for key, names in known.items()
        }
        self.token = token
        self.earlier: Mapping[str, tuple[str, ...]] = known
        self.targets = {
            name: current[key]
            for key, names in known.items()
            for name in names
            if route and name not in current.values()
        }
        trusted = {name for names in known.values() for name in names}
        self.origins = frozenset((environment.scheme, name) for name in trusted)
        # Requests that go where they say, in the shape in which each library names an origin at the least cost.
        straight = sorted(trusted - self.targets.keys())
        self.prefixes = tuple(f"{environment.scheme}://{name}/" for name in straight)
        self.netlocs = frozenset((environment.scheme, name) for name in straight)
        self.triples = frozenset((environment.scheme, *split_host(name)) for name in straight)

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


class Bearer:
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
        else:
            self._own, self.provider = None, source
        self._route = route
        self._resend_limit = resend_limit
        self._get = self.provider.get
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
        routes = Routes(self.provider.environment, token, self._routes.earlier, route=self._route)
        self._sent[token.authorization] = token
        while len(self._sent) > _REMEMBERED:
            self._sent.pop(next(iter(self._sent)), None)
        self._routes = routes
        return routes

    def _rejected(self, token: AccessToken, method: str, path: str) -> bool:
        """Report a 401; return whether asking for another token is worth while."""
        return self.provider.reject(token, method=method, path=path)

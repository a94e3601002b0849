"""Which origins get the header, and to which host a request goes: for one environment and the hosts of one token.

A request is *ours* if its origin is trusted: a well-known host of the environment, or one that the server assigned. Where the
server has assigned another host, requests to the well-known one, or to one that was assigned before, go there (P§1.2). Where
that host sends us on to another one of ours, the server's last word counts, and requests go to that one.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from ._held import NOTHING, Held
from .environments import Environment
from .models import AccessToken

__all__ = ["Routes", "location", "split_host"]

_REMEMBERED: Final = 8


class Routes:
    """Where requests may go with a token, and where they are sent.

    Args:
        environment: Whose hosts these are.
        token: Whose assigned hosts count; None for none.
        earlier: Names that were assigned before, by key.
        held: How long the token is good for any request, if its provider is one of ours. The hot path looks there alone.
        route: False sends every request where its URL says.
        sent_on: Hosts that have sent us on to another one since they were assigned, and to which.
    """

    __slots__ = (
        "earlier",
        "held",
        "hosts",
        "netlocs",
        "origins",
        "prefixes",
        "scheme",
        "sent_on",
        "targets",
        "token",
    )

    def __init__(
        self,
        environment: Environment,
        token: AccessToken | None = None,
        earlier: Mapping[str, tuple[str, ...]] | None = None,
        *,
        held: Held = NOTHING,
        route: bool = True,
        sent_on: Mapping[str, str] | None = None,
    ) -> None:
        self.sent_on: Mapping[str, str] = sent_on or {}
        assigned = {
            key: self.sent_on.get(plain := self.plain(environment.scheme, admitted), plain)
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

    def overruled(self, asked: str, to: str | None) -> Mapping[str, str]:
        """Return `sent_on` after a host of ours has said that it is not the one, and named the one it is, or none."""
        if to is None:
            return {host: now for host, now in self.sent_on.items() if now != asked}
        moves = {asked: asked, **self.sent_on}
        return {host: to if now == asked else now for host, now in moves.items()}

    @staticmethod
    def plain(scheme: str, netloc: str) -> str:
        """Return host and port without a port that the scheme implies."""
        return netloc.removesuffix(":443" if scheme == "https" else ":80")


def split_host(netloc: str) -> tuple[str, int | None]:
    """Return host and port of a network location; the port is None where none is named."""
    parts = urlsplit(f"//{netloc}")
    return parts.hostname or "", parts.port


def location(scheme: str, url: str) -> str:
    """Return host and port that a redirect leads to; nothing if it stays, leads to another scheme, or is no URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    here = parts.scheme in ("", scheme)
    return Routes.plain(scheme, parts.netloc.rpartition("@")[2].lower()) if here else ""

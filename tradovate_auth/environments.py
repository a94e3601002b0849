"""Where a session lives: the vendor's demo and live systems, or a server of one's own such as the emulator."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

from .errors import ConfigurationError

__all__ = ["VENDOR_DOMAINS", "Environment", "Kind"]

Kind = Literal["demo", "live"]
"""Of which kind a system is: simulated money, or real."""

VENDOR_DOMAINS: Final = ("tradovateapi.com", "ninjatrader.com")
"""The domains in which the vendor may assign hosts, if an environment names no others."""
_HOUR: Final = 3600.0
# P§1.1. A token is good for one kind of system (P§9.21), so the header goes to the hosts of that kind alone.
_VENDOR_HOSTS: Final[Mapping[Kind, Mapping[str, str]]] = {
    "demo": {
        "demo": "demo.tradovateapi.com",
        "mdDemo": "md-demo.tradovateapi.com",
        "replay": "replay.tradovateapi.com",
    },
    "live": {
        "live": "live.tradovateapi.com",
        "mdLive": "md.tradovateapi.com",
        "replay": "replay.tradovateapi.com",
    },
}
_HOST = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?::[0-9]{1,5})?"
)
_HOST_LIMIT = 64  # P§1.2: the schema's limit for a host name
_LIFETIMES_PER_HOUR = 6
_PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443}
_LAST_PORT = 65_535


def _is_loopback(host: str) -> bool:
    """Return whether a host name or address means this machine."""
    import ipaddress  # five milliseconds that `import tradovate_auth` need not wait for

    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


@dataclass(frozen=True, slots=True)
class Environment:
    """One Tradovate system and what may be trusted in it.

    Args:
        url: Base URL of its REST interface, ending in `/v1`. Plain `http` only on loopback.
        kind: Which of the server's host keys count here: `demo` or `live`.
        hosts: Further well-known hosts by key, as bare names; they get the token too.
        domains: The server may only assign hosts in these. For a URL outside them: that URL's host, and on loopback all
            of loopback.
        hour: Seconds in the window of every limit. Only on loopback; elsewhere it is the server's 3,600.

    Raises:
        ConfigurationError: The URL, a host or the hour is not acceptable.
    """

    url: str
    kind: Kind = field(default="demo", kw_only=True)
    hosts: Mapping[str, str] = field(default_factory=dict, kw_only=True, hash=False)
    domains: tuple[str, ...] = field(default=VENDOR_DOMAINS, kw_only=True)
    hour: float | None = field(default=None, kw_only=True)
    scheme: str = field(init=False, repr=False)
    host: str = field(init=False, repr=False)
    path: str = field(init=False, repr=False)
    loopback: bool = field(init=False, repr=False)
    port: int | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        parts = _split(self.url)
        for kind, known in _VENDOR_HOSTS.items():
            if parts.host == known[kind] and self.kind != kind:
                raise ConfigurationError(
                    f"{parts.host} is a {kind} host, and the environment's kind is {self.kind!r}."
                )
        loopback = _is_loopback(parts.host)
        if parts.scheme == "http" and not loopback:
            raise ConfigurationError("A token is never sent over plain http, except to this machine itself.")
        if self.hour is not None and not (loopback and self.hour > 0):
            raise ConfigurationError(
                "The hour is the server's; only on loopback may it be another, above 0 seconds."
            )
        if self.kind not in ("demo", "live"):
            raise ConfigurationError("Environment.kind is 'demo' or 'live'.")
        bare = f"[{parts.host}]" if ":" in parts.host else parts.host
        netloc = bare if parts.port is None else f"{bare}:{parts.port}"
        outside = self.domains == VENDOR_DOMAINS and not _within(bare, VENDOR_DOMAINS)
        derived = {
            "url": f"{parts.scheme}://{netloc}{parts.path}",
            "scheme": parts.scheme,
            "host": netloc,
            "path": parts.path,
            "loopback": loopback,
            "port": parts.port,
            "domains": (bare,) if outside else self.domains,
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "hosts", MappingProxyType({self.kind: netloc, **self._admitted_hosts()}))

    def _admitted_hosts(self) -> dict[str, str]:
        admitted = {key: self.admit(name) for key, name in self.hosts.items()}
        for key, name in admitted.items():
            if name is None:
                raise ConfigurationError(
                    f"Environment.hosts[{key!r}] is no bare host name inside its domains."
                )
        return {key: name for key, name in admitted.items() if name is not None}

    @classmethod
    def of(cls, value: "str | Environment") -> "Environment":
        """Return the environment that a name, a base URL or an environment stands for.

        Raises:
            ConfigurationError: It stands for none.
        """
        if isinstance(value, Environment):
            return value
        if not isinstance(value, str):
            raise ConfigurationError(f"An environment is text or an Environment, not {type(value).__name__}.")
        for kind, hosts in _VENDOR_HOSTS.items():
            # A URL of the vendor's own is the same system, with the same hosts beside it.
            if value.lower() == kind or _is_base_of(value, hosts[kind]):
                return cls(f"https://{hosts[kind]}/v1", kind=kind, hosts=hosts)
        if value.isalnum():
            raise ConfigurationError(
                f"{value!r} is no environment; it is 'demo', 'live' or a URL such as https://host/v1."
            )
        return cls(value)

    @property
    def origin(self) -> str:
        """Scheme, host and port: what separates the sessions of one server from those of another."""
        return f"{self.scheme}://{self.host}"

    def owns(self, key: str) -> bool:
        """Return whether a host key (P§1.2) belongs to this kind of system, or to both kinds."""
        other = "live" if self.kind == "demo" else "demo"
        return key != other and not key.endswith(other.capitalize())

    def admit(self, name: object) -> str | None:
        """Return an assigned host as `host` or `host:port` of this environment, or None if it must not be trusted."""
        if not isinstance(name, str) or len(name) > _HOST_LIMIT or not _HOST.fullmatch(name.lower()):
            return None
        name = name.lower()
        bare, _, port = name.partition(":")
        if not (_within(bare, self.domains) or (self.loopback and _is_loopback(bare))):
            return None
        if port and not (self._may_name_a_port() and 0 < int(port) <= _LAST_PORT):
            return None
        number = int(port) if port else self.port
        implied = number is None or (self.port is None and number == _PORTS[self.scheme])
        return bare if implied else f"{bare}:{number}"

    def base(self, host: str) -> str:
        """Return the base URL on another host of this environment, as `admit` returned it."""
        return f"{self.scheme}://{host}{self.path}"

    def window(self, lifetime: float | None) -> float:
        """Return the seconds in this environment's hour, for tokens of that lifetime.

        The vendor's hour is an hour. A server on loopback whose tokens live seconds is meant to show in a minute what
        takes a day in production, so there six lifetimes make the hour, and every limit shrinks with it.
        """
        if self.hour is not None:
            return self.hour
        if self.loopback and lifetime is not None:
            return min(_HOUR, _LIFETIMES_PER_HOUR * lifetime)
        return _HOUR

    def _may_name_a_port(self) -> bool:
        # P§1.2: the vendor's values are bare names; a port there is no host name that we know.
        return self.domains != VENDOR_DOMAINS


class _Parts(NamedTuple):
    scheme: str
    host: str
    port: int | None
    path: str


def _split(url: str) -> _Parts:
    try:
        parts = urlsplit(url)
        port = None if parts.port == _PORTS.get(parts.scheme) else parts.port
    except ValueError:
        raise ConfigurationError("The environment's URL has an impossible host or port.") from None
    host = (parts.hostname or "").lower()
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigurationError("An environment is 'demo', 'live' or a base URL such as https://host/v1.")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError("The environment's URL must hold no user, query or fragment.")
    path = parts.path.rstrip("/")
    if not path.endswith("/v1"):
        raise ConfigurationError("The environment's URL must end in /v1.")
    return _Parts(parts.scheme, host, port, path)


def _is_base_of(url: str, host: str) -> bool:
    return url.lower().rstrip("/") in (f"https://{host}/v1", f"https://{host}:443/v1")


def _within(host: str, domains: tuple[str, ...]) -> bool:
    return any(host == domain or host.endswith("." + domain) for domain in domains)

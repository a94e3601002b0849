"""Redis URLs of every kind, as clients with short time-outs.

    redis://[user:password@]host[:port][/db]                                        rediss:// over TLS
    unix://[user:password@]/path/to.sock
    redis+sentinel://[user:password@]host[:port],host[:port].../service[/db]        rediss+sentinel://
    redis+cluster://[user:password@]host[:port],host[:port]...                      rediss+cluster://

They are taken apart here and not by the client, whose errors quote what they stumble over, and which knows only the first
two. No error of ours repeats any part of a URL: with one character that is not encoded, each may be a part of the password.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from .._missing import missing_extra
from ..errors import ConfigurationError
from ._redis_client import Client, LazyClient

__all__ = ["SCHEMES", "Target", "from_redis_url", "parsed"]

SCHEMES: Final = frozenset(
    {"redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"}
)
_PORTS: Final = {"sentinel": 26379}
_PORT: Final = 6379
_TIMEOUT: Final = 2.0  # seconds to connect, and for an answer
_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+)(?::([0-9]{1,5}))?")
_TLS: Final = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
_SENTINEL: Final = frozenset({"sentinel_username", "sentinel_password"})
_OPTIONS: Final = frozenset({"db", "lease", "prefix", "timeout"})
_FORMS: Final = (
    "Write redis://[user:password@]host[:port][/db], unix:///path, redis+sentinel://host,host/service[/db] or "
    "redis+cluster://host,host, with rediss for TLS, and everything in user and password that is no letter or digit "
    f"percent-encoded. Options behind a question mark: {', '.join(sorted(_OPTIONS | _TLS | _SENTINEL))}."
)


class Target(NamedTuple):
    """What a URL says. Holds a password: never shown."""

    kind: str
    """One of "", "unix", "sentinel" and "cluster"."""
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    path: str
    """Of the socket, or the name of the service."""
    db: int
    login: Mapping[str, str]
    options: Mapping[str, str]

    @property
    def place(self) -> str:
        """Where that is, without a secret."""
        if self.kind == "unix":
            return f"{self.path} db {self.db}"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        if self.kind == "sentinel":
            return f"{self.path}/{self.db} by sentinel {hosts}"
        return f"cluster {hosts}" if self.kind else f"{hosts}/{self.db}"


def from_redis_url(url: str) -> tuple[LazyClient, dict[str, Any]]:
    """Return the client that a URL names, and the arguments for `RedisStorage` in it. Does not block, connects to nothing.

    Raises:
        ConfigurationError: It is no Redis URL of a form that is known.
        ImportError: The extra `redis` is not installed.
    """
    target = _checked(url)
    try:
        import redis  # noqa: F401  # said at once rather than when it is first used
    except ImportError:
        raise missing_extra("redis") from None
    arguments: dict[str, Any] = {}
    if "prefix" in target.options:
        arguments["prefix"] = target.options["prefix"]
    if "lease" in target.options:
        arguments["lease"] = float(target.options["lease"])
    return LazyClient(target.place, _maker(target)), arguments


def _checked(url: str) -> Target:
    try:
        return parsed(url)
    except ValueError:
        pass
    del url  # from here: reports of an error may show the local variables on its way
    raise ConfigurationError("The Redis URL is not of a form that is known.", None, _FORMS)


def parsed(url: str) -> Target:
    """Return what a URL says.

    Raises:
        ValueError: It is of no form that is known. May quote the URL: not to be shown or chained.
    """
    scheme, _, rest = url.partition("://")
    scheme, _, kind = scheme.lower().partition("+")
    if scheme == "unix":
        kind = "unix"
    where, _, query = rest.partition("?")
    authority, _, path = where.partition("/")
    account, _, hosts = authority.rpartition("@")
    options = _options(query, kind, tls=scheme == "rediss")
    if "#" in url or (kind != "unix" and "@" in path):
        raise ValueError
    name, db = _named(kind, path)
    if "db" in options:
        if db:
            raise ValueError
        db = options["db"]
    return Target(
        kind,
        scheme == "rediss",
        () if kind == "unix" and not hosts else _hosts(kind, hosts),
        name,
        _whole(db),
        _login(account),
        options,
    )


def _named(kind: str, path: str) -> tuple[str, str]:
    """Return the socket or service, and the database, that a path names."""
    if kind == "unix":
        socket = unquote("/" + path, errors="surrogateescape")
        if socket == "/" or "\0" in socket:
            raise ValueError
        return socket, ""
    if kind == "sentinel":
        service, _, db = path.partition("/")
        if not re.fullmatch(r"[\w.-]+", service):
            raise ValueError
        return service, db
    if kind == "cluster" and path:
        raise ValueError
    return "", path


def _hosts(kind: str, text: str) -> tuple[tuple[str, int], ...]:
    found = [_HOST.fullmatch(each) for each in (text or "localhost").split(",")]
    if kind == "unix" or (not kind and len(found) > 1):
        raise ValueError
    hosts = []
    for host in found:
        if host is None:
            raise ValueError
        port = int(host[2] or _PORTS.get(kind, _PORT))
        if not 0 < port < 65536:
            raise ValueError
        hosts.append((host[1].strip("[]"), port))
    return tuple(hosts)


def _login(account: str) -> dict[str, str]:
    name, colon, password = account.partition(":")
    found = {"username": unquote(name, errors="strict")} if name else {}
    if colon:
        found["password"] = unquote(password, errors="strict")
    if "username" in found and not found.get("password"):
        raise ValueError  # a password without its colon, or the other way round: a client would leave both out
    return found


def _options(query: str, kind: str, *, tls: bool) -> dict[str, str]:
    allowed = _OPTIONS | (_TLS if tls else set()) | (_SENTINEL if kind == "sentinel" else set())
    if kind == "cluster":
        allowed -= {"db"}
    options: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        name, _, value = pair.partition("=")
        if name not in allowed or name in options or not value:
            raise ValueError
        options[name] = unquote(value, errors="strict")
    for name in ("timeout", "lease"):
        if name in options and not 0 < float(options[name]) < math.inf:
            raise ValueError
    return options


def _whole(text: str) -> int:
    if text and not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError
    return int(text or 0)


def _maker(target: Target) -> Callable[[], Client]:
    makers = {"sentinel": _of_sentinel, "cluster": _of_cluster}
    return lambda: makers.get(target.kind, _of_one)(target, _common(target))


def _common(target: Target) -> dict[str, Any]:
    """Return what clients of every kind are made with."""
    from redis.backoff import ExponentialWithJitterBackoff
    from redis.exceptions import ConnectionError as Disconnected
    from redis.retry import Retry

    timeout = float(target.options.get("timeout", _TIMEOUT))
    # A connection that was idle while the server restarted is noticed when it is used. A server that hangs is not asked twice.
    retry = Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.2), 1, (Disconnected,))
    common = {"socket_timeout": timeout, "socket_connect_timeout": timeout, "retry": retry, **target.login}
    if target.tls:
        common |= {"ssl": True, **{name: target.options[name] for name in _TLS & target.options.keys()}}
    return common


def _of_one(target: Target, common: dict[str, Any]) -> Client:
    from redis import Redis

    if target.kind == "unix":
        return Redis(unix_socket_path=target.path, db=target.db, **common)
    host, port = target.hosts[0]
    return Redis(host=host, port=port, db=target.db, **common)


def _of_sentinel(target: Target, common: dict[str, Any]) -> Client:
    from redis.sentinel import Sentinel

    # The sentinels have users of their own, or none; whether they speak TLS is as with the servers.
    theirs = {name: value for name, value in common.items() if name not in ("username", "password")}
    theirs |= {name.partition("_")[2]: target.options[name] for name in _SENTINEL & target.options.keys()}
    sentinel: Any = Sentinel(target.hosts, sentinel_kwargs=theirs, **common)  # type: ignore[no-untyped-call]
    client: Client = sentinel.master_for(target.path, db=target.db)
    return client


def _of_cluster(target: Target, common: dict[str, Any]) -> Client:
    from redis import RedisCluster
    from redis.cluster import ClusterNode

    # An account lies on one node: what the others' slots do is not its business.
    nodes = [ClusterNode(*host) for host in target.hosts]  # type: ignore[no-untyped-call]
    return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **common)

"""A Redis of whatever kind, as the storage talks to it: scripts out, plain answers or our own errors back."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ..errors import ConfigurationError
from ._redis_errors import explained

__all__ = ["Client", "LazyClient", "Server", "place_of"]


class Client(Protocol):
    """What the storage asks of a client: `redis.Redis` and `redis.RedisCluster` have it."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command; return its answer."""
        ...

    def pubsub(self, **kwargs: Any) -> Any:
        """Return what listens to channels, on a connection of its own."""
        ...


class LazyClient:
    """A client that is made when it is first needed: that of a cluster connects at once, and a URL touches nothing.

    Args:
        place: Where its Redis is, without a secret.
        make: Makes it. What that raises, comes out of the call that needed it, and the next one tries again.
    """

    def __init__(self, place: str, make: Callable[[], Client]) -> None:
        self.place = place
        self._make = make
        self._made: Client | None = None

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """See `Client.execute_command`."""
        return self._client().execute_command(*args, **options)

    def pubsub(self, **kwargs: Any) -> Any:
        """See `Client.pubsub`."""
        return self._client().pubsub(**kwargs)

    def _client(self) -> Client:
        if (
            self._made is None
        ):  # two threads may make one each: the one that is kept does no harm to the other
            self._made = self._make()
        return self._made


class Server:
    """One Redis, one Sentinel service or one cluster, through the client that reaches it.

    Any thread may use it. Connections belong to the client, which opens new ones after a fork.

    Args:
        client: The user's own, or a `LazyClient`.

    Raises:
        ConfigurationError: It is no client, or an asynchronous one.
    """

    def __init__(self, client: Client) -> None:
        execute = getattr(client, "execute_command", None)
        if not callable(execute) or not callable(getattr(client, "pubsub", None)):
            raise ConfigurationError("RedisStorage needs a client of redis-py, or use from_url() with a URL.")
        if inspect.iscoroutinefunction(execute):
            raise ConfigurationError(
                "RedisStorage needs a synchronous client, such as redis.Redis.",
                None,
                "It is used on a thread of its own and never blocks an event loop.",
            )
        self.client = client
        self.place = place_of(client)

    def run(self, script: str, keys: Sequence[str], *arguments: str | int | bytes) -> Any:
        """Run a script and return its answer, texts as bytes.

        Raises:
            StorageError: It could not be run; `Unreachable` if that may pass.
        """
        try:
            # Bytes also from clients that decode: what lies in the place of a record may be no text at all.
            return self.client.execute_command(
                "EVAL", script, len(keys), *keys, *arguments, NEVER_DECODE=True
            )
        except Exception as error:  # noqa: BLE001  # clients, and what they are built from, have errors of many families
            problem = explained(error, self.place)
        del arguments  # reports of an error may show the local variables on its way
        raise problem  # outside of the handler: the client's exception is no context of it


def place_of(client: object) -> str:
    """Return where a client's Redis is, without a secret: it is looked up, not asked."""
    if isinstance(client, LazyClient):
        return client.place
    nodes = getattr(getattr(client, "nodes_manager", None), "startup_nodes", None)
    if isinstance(nodes, Mapping):
        return f"cluster {','.join(sorted(str(name) for name in nodes))}"
    pool = getattr(client, "connection_pool", None)
    options = getattr(pool, "connection_kwargs", None)
    if not isinstance(options, Mapping):
        return "client"
    database = options.get("db") or 0
    service = getattr(pool, "service_name", None)
    if service is not None:
        return f"{service}/{database} by sentinel"
    if options.get("path") is not None:
        return f"{options['path']} db {database}"
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}/{database}"

"""What goes wrong between us and a Redis, in our own words.

The client's own texts are not repeated, and its exceptions not kept: a server's complaint may quote what it was sent, and a
connection's may hold the password. They are told apart by the names of their classes, so that any client of this shape will do.
"""

from typing import Final, NamedTuple

from ..errors import StorageError

__all__ = ["Unreachable", "explained"]

_COMFORT: Final = "Valid tokens stay in use until they end; nobody logs in meanwhile."


class Unreachable(StorageError):
    """What may pass by itself: a restart, a failover, a network that comes back."""


class _Case(NamedTuple):
    """What one kind of exception means."""

    text: str
    advice: str
    passing: bool = False


_FAILOVER: Final = "A failover or a restart may be under way: look again in a few seconds."
_BY_CLASS: Final = {
    "SSLError": _Case(
        "cannot be reached over TLS",
        "Check its certificate and the CA: rediss:// URLs take ssl_ca_certs, ssl_certfile and ssl_keyfile.",
    ),
    "AuthenticationError": _Case(
        "refuses the user name or the password", "Correct them, percent-encoded if they stand in a URL."
    ),
    "NoPermissionError": _Case(
        "does not allow its user everything that the storage does",
        "Give that user the ACL that the how-to page shows.",
    ),
    "ReadOnlyError": _Case(
        "is a replica, which cannot be written",
        "Name the master, or use redis+sentinel:// to have it found.",
        True,
    ),
    "OutOfMemoryError": _Case(
        "has no memory left", "Raise its maxmemory, or remove what is not needed there.", True
    ),
    "BusyLoadingError": _Case("is still loading its data", _FAILOVER, True),
    "MasterNotFoundError": _Case(
        "has no master that its sentinels know", f"Check the name of the service. {_FAILOVER}", True
    ),
    "MaxConnectionsError": _Case(
        "was not asked: the client's connections are all in use", "Let the client have three and more.", True
    ),
    "MasterDownError": _Case("is a replica that has lost its master", _FAILOVER, True),
    "AskError": _Case(
        "is one node of a cluster", "Use redis+cluster://, or hand in a client that knows clusters."
    ),
    "ClusterError": _Case("is a cluster that cannot answer", _FAILOVER, True),
    "RedisClusterException": _Case(
        "is no cluster, or one that cannot answer", f"Check that cluster mode is on. {_FAILOVER}", True
    ),
    "TryAgainError": _Case("is a cluster that moves its data", _FAILOVER, True),
    "TimeoutError": _Case("does not answer in time", "Check that host, its load and the network.", True),
    "ConnectionError": _Case("cannot be reached", "Check that it runs, and the network.", True),
    "OSError": _Case("cannot be reached", "Check that it runs, and the network.", True),
}
# By how the server's text begins.
_BY_TEXT: Final = {
    "The user executing the script can't": _BY_CLASS["NoPermissionError"],  # Redis 7.0
    "ACL failure in script": _BY_CLASS["NoPermissionError"],
    "WRONGTYPE": _Case(
        "has something else in the place of a lease",
        "Another program uses the same names: remove its keys, or give the storage a prefix of its own.",
    ),
    "MISCONF": _Case("accepts no writes because it cannot save them to its disk", "Look into its log.", True),
    "NOREPLICAS": _Case("accepts no writes because too few replicas follow", _FAILOVER, True),
    "BUSY": _Case("is busy with somebody's script", "Wait, or end it with SCRIPT KILL.", True),
}


def explained(error: Exception, place: str) -> StorageError:
    """Return what is raised instead of a client's exception.

    Args:
        error: What the client raised.
        place: Which Redis, in words without a secret.
    """
    case = _case(error)
    if case is None:
        return StorageError(
            f"The Redis at {place} failed: {type(error).__name__}.", None, f"Look into its log. {_COMFORT}"
        )
    kind = Unreachable if case.passing else StorageError
    return kind(f"The Redis at {place} {case.text}.", None, f"{case.advice} {_COMFORT}")


def _case(error: Exception) -> _Case | None:
    if any(kind.__name__ == "SSLError" for cause in _causes(error) for kind in type(cause).__mro__):
        return _BY_CLASS["SSLError"]
    for kind in type(error).__mro__:
        if kind.__name__ in _BY_CLASS:
            return _BY_CLASS[kind.__name__]
    text = str(error)
    return next((case for beginning, case in _BY_TEXT.items() if text.startswith(beginning)), None)


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found

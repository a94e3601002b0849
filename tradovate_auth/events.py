"""What happened to the session, for `TokenProvider(on_event=...)`. No event holds a secret.

Events come one at a time, in the order in which things happened, on the thread of a flight, after every lock has been given
back: a listener may call the provider. A listener's exception is logged, and nothing else comes of it.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "Adopted",
    "Event",
    "Evicted",
    "Held",
    "HostsMoved",
    "LoggedIn",
    "RecordSetAside",
    "Refused",
    "RenewalFailed",
    "Renewed",
    "StorageBack",
    "StorageLost",
    "Warned",
    "quiet",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The base of all events; `str()` of one is a line for a log."""

    account: str
    """Environment and user name."""

    def __str__(self) -> str:
        return f"{type(self).__name__} ({self.account})"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Granted(Event):
    generation: int
    """Of the token; one more with each grant."""
    expires_at: dt.datetime
    """Aware, UTC, by the server's clock."""

    def __str__(self) -> str:
        ends = self.expires_at.isoformat(timespec="seconds")
        return f"{type(self).__name__} generation {self.generation}, ends {ends} ({self.account})"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedIn(_Granted):
    """A login was granted: a session was opened, and the server may have closed the user's oldest one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed(_Granted):
    """A renewal was granted: the same session, a later end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted(_Granted):
    """Another process, or an earlier run, had obtained this token; it was taken from the storage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Explained(Event):
    reason: str
    """In words, without any secret."""

    def __str__(self) -> str:
        return f"{type(self).__name__}: {self.reason} ({self.account})"


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalFailed(_Explained):
    """A renewal was not granted; the token in hand, if it still lives, stays in use."""

    retry_in: float
    """Seconds until the next try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(_Explained):
    """The server refused the credentials; nobody tries them again until they change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evicted(_Explained):
    """The server ended our session before its time: most likely somebody else logged in with this user."""

    generation: int
    """Of the token that it refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held(_Explained):
    """Nothing is sent for a while; whoever holds a living token notices nothing."""

    seconds: float
    """For how long, from now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostsMoved(Event):
    """The server assigned other hosts (P§1.2)."""

    hosts: Mapping[str, str]
    """All that it has assigned, by key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSetAside(_Explained):
    """What lay in the storage was no record: it was kept under another name, and counts as absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageLost(_Explained):
    """The storage that processes share cannot be used; the token in hand stays in use. Told once, until `StorageBack`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageBack(Event):
    """The storage can be used again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned(_Explained):
    """Something is odd, and was dealt with."""


quiet = (LoggedIn, Renewed, Adopted, HostsMoved, StorageBack)
"""The events that are the ordinary course of things; all others are logged as warnings."""

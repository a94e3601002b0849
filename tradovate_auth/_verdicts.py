"""What an answer to a login or a renewal can mean: a closed set of pure values.

Granted     a token with the moment it ends
Refused     the server understood and said no
Penalty     wait so many seconds, then send the same again with this ticket
Captcha     only a human can go on
LockedOut   the account or the address is locked
Faulty      anything else; `known` tells a server in trouble from an answer that is not in the protocol
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["Captcha", "Faulty", "Granted", "LockedOut", "Penalty", "Refused", "RetryAfter", "Verdict"]

_DAY: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """For how long the server wants to be left alone, by the header of that name; not at all where there is none."""

    named: float = 0.0
    """Seconds."""
    until: float | None = None
    """The moment, if the server names one and does not say what its clock shows."""

    def seconds(self, now: float) -> float:
        """Return the wait, a day at most; `now` is the server's time."""
        left = self.until - now if self.until is not None else 0.0
        return min(max(self.named, left), _DAY)


@dataclass(frozen=True, slots=True)
class Granted:
    """A token. Moments are the server's, in seconds since the epoch."""

    value: str = field(repr=False)
    md_value: str | None = field(repr=False)
    expires_at: float
    user_id: int | None
    name: str
    hosts: Mapping[str, object]
    details: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """The server understood the call and said no."""

    text: str
    disguised: bool
    """Whether the text may hide throttling (P§9.7)."""
    ends_session: bool = False
    """Whether a renewal that gets this has lost its session. Only 401, and 200 with a text, are known to say that (P§3.1):
    to believe it of another answer would cost a login, and somebody his session."""
    elsewhere: bool = False
    """Whether the host may mean that it is not the one to ask (P§1.2)."""


@dataclass(frozen=True, slots=True)
class Penalty:
    """Wait `seconds`, or longer if the header says so, then send the identical body with the ticket (P§4.1)."""

    seconds: float
    ticket: str | None = field(repr=False)
    retry_after: RetryAfter = RetryAfter()


@dataclass(frozen=True, slots=True)
class Captcha:
    """Stop for an hour (P§4.1), or longer if the server says so."""

    retry_after: RetryAfter = RetryAfter()


@dataclass(frozen=True, slots=True)
class LockedOut:
    """Stop for an hour, or longer if the server says so (P§4.2)."""

    status: int
    retry_after: RetryAfter = RetryAfter()


@dataclass(frozen=True, slots=True)
class Faulty:
    """No usable answer. `known`: a server in trouble, as opposed to an answer that the protocol does not have."""

    reason: str
    known: bool
    elsewhere: bool = False
    """Whether the host says that it is not the one to ask (P§1.2)."""


Verdict = Granted | Refused | Penalty | Captcha | LockedOut | Faulty

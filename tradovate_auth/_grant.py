"""From a granted answer to a token: what is believed of it, and what is odd about it. Pure."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Final

from ._wire import Granted
from .environments import Environment
from .models import AccessToken

__all__ = ["clock_offset", "ended_already", "median_offset", "merged_hosts", "oddities", "token_from"]

_DAY: Final = 86_400.0
_MOST_HOSTS: Final = 64


def clock_offset(date: float, sent: float, received: float, believed: float) -> float:
    """Return the server's clock minus ours, given the `Date` of an answer and when it was asked for and read.

    A `Date` has whole seconds, so it allows a range; what was believed stays if it lies within.
    """
    low, high = date - received, date + 1.0 - sent
    return believed if low <= believed <= high else (low + high) / 2


def median_offset(samples: Sequence[float]) -> float:
    """Return the median of what several answers say, the oldest first; of two in the middle the newer one.

    So a single answer with a wrong clock changes little, and a clock that was set is believed the second time at the latest.
    """
    ranked = sorted(range(len(samples)), key=lambda index: samples[index])
    middle = ranked[(len(ranked) - 1) // 2 : len(ranked) // 2 + 1]
    return samples[max(middle)]


def ended_already(granted: Granted, issued_at: float) -> bool:
    """Return whether the answer says that its token had ended before it was granted."""
    return granted.expires_at - issued_at < 1e-6  # less than a datetime can tell apart


def merged_hosts(known: Mapping[str, str], granted: Granted, environment: Environment) -> dict[str, str]:
    """Return the assigned hosts after this answer: key by key, and only those that may be trusted (P§1.2)."""
    assigned = {key: environment.admit(name) for key, name in granted.hosts.items()}
    merged = {**known, **{key: name for key, name in assigned.items() if name is not None}}
    return dict(sorted(merged.items())[:_MOST_HOSTS])


def token_from(
    granted: Granted,
    *,
    issued_at: float,
    generation: int,
    previous: AccessToken | None,
    hosts: Mapping[str, str],
    device_id: str | None,
) -> AccessToken:
    """Return the token that was granted at `issued_at` by the server's clock.

    An end in the past counts as unknown, one more than a day ahead as a day (P§5: the longest that anybody claims).
    """
    known = not ended_already(granted, issued_at)
    lifetime = min(granted.expires_at - issued_at, _DAY) if known else _DAY
    issued = dt.datetime.fromtimestamp(issued_at, dt.UTC)
    return AccessToken(
        value=granted.value,
        md_value=granted.md_value or (previous.md_value if previous is not None else None),
        expires_at=issued + dt.timedelta(seconds=lifetime),
        issued_at=issued,
        generation=generation,
        user_id=granted.user_id or (previous.user_id if previous is not None else None),
        name=granted.name or (previous.name if previous is not None else ""),
        device_id=device_id,
        known_expiry=known,
        hosts=hosts,
        details=granted.details,
    )


def oddities(token: AccessToken, previous: AccessToken | None) -> list[str]:
    """Return what a trader should hear about an answer that is good all the same."""
    found = []
    if not token.known_expiry:
        found.append(
            "the server says that the new token ended before it was granted; it is used until it is refused"
        )
    elif previous is not None and previous.known_expiry and token.expires_at <= previous.expires_at:
        found.append("the new token ends no later than the one before it")
    status = token.details.get("userStatus")
    if status not in (None, "Active"):
        found.append(f"the server calls this user {str(status)!r}")
    if hint := token.details.get("hibpHint"):
        found.append(f"the server says that the password is known from a leak ({str(hint)!r})")
    return found

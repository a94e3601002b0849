"""From a granted answer to a token: what is believed of it, and what is odd about it. Pure."""

import datetime as dt
from collections.abc import Mapping
from typing import Final

from ._wire import Granted
from .environments import Environment
from .models import AccessToken

__all__ = ["ended_already", "foreign_hosts", "merged_hosts", "oddities", "token_from"]

_DAY: Final = 86_400.0
_MOST_HOSTS: Final = 64


def ended_already(granted: Granted, issued_at: float) -> bool:
    """Return whether the answer says that its token had ended before it was granted."""
    return granted.expires_at - issued_at < 1e-6  # less than a datetime can tell apart


def merged_hosts(known: Mapping[str, str], granted: Granted, environment: Environment) -> dict[str, str]:
    """Return the assigned hosts after this answer: key by key, and only those that may be trusted (P§1.2)."""
    assigned = {key: environment.admit(name) for key, name in granted.hosts.items()}
    merged = {**known, **{key: name for key, name in assigned.items() if name is not None}}
    return dict(sorted(merged.items())[:_MOST_HOSTS])


def foreign_hosts(granted: Granted, environment: Environment) -> list[str]:
    """Return what somebody should hear of: hosts that the server assigned and that may not be trusted."""
    return [
        f"the server assigned {str(name)[:64]!r} as {str(key)[:64]!r}, which is outside Environment.domains: it is not used"
        for key, name in granted.hosts.items()
        if environment.admit(name) is None
    ]


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

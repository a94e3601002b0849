"""What a test reads back from the emulator: snapshots that change no more, and show no secret when printed."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

DEFAULT_USER: Mapping[str, Any] = {
    "name": "trader",
    "password": "correct horse",
    "app_id": "Emulated App",
    "app_version": "1.0",
    "cid": 4711,
    "sec": "b5b4f7a2-0d6c-4a6e-8f0e-7d2f1c9e3a55",
    "device_id": "5f0f6a3e-2d1b-4f57-9c55-0a6d1e7b9c11",
}


def short_hash(token: str) -> str:
    """Ten hex digits by which a token can be told from others without being shown."""
    return hashlib.sha256(token.encode()).hexdigest()[:10]


def mint(kind: str = "") -> str:
    """A new token: URL-safe text of about 130 characters behind a prefix that marks it as no real one (P§1.3)."""
    return f"TEST-{kind}{base64.urlsafe_b64encode(os.urandom(96)).decode()}"


@dataclass(frozen=True)
class User:
    """Somebody who may log in. Fields that are None are not checked."""

    id: int
    name: str
    password: str = field(repr=False)
    app_id: str | None = None
    app_version: str | None = None
    cid: int | str | None = None
    sec: str | None = field(default=None, repr=False)
    device_id: str | None = None

    @property
    def credentials(self) -> dict[str, Any]:
        """The arguments of ``tradovate_auth.Credentials`` for this user, secrets included."""
        return {name: getattr(self, name) for name in DEFAULT_USER}


@dataclass(frozen=True)
class Counts:
    """What has happened since the start or the last ``reset()``.

    Attributes:
        logins: Login requests received, faults and lock-outs included.
        logins_granted: Logins that opened a session.
        logins_refused: Logins refused for their credentials or their form.
        renewals: Renewal requests received, faults and lock-outs included.
        renewals_granted: Renewals that extended a session.
        renewals_refused: Renewals refused for their token.
        penalties: Requests answered with a ``p-ticket``.
        lockouts: Requests answered 423 or 429 for a lock-out.
        calls: Ordinary requests received.
        calls_ok: Those that were let in and answered below 400.
        calls_unauthorized: Those turned away for a missing, wrong or lapsed token.
        calls_evicted: Those turned away because another login had closed their session.
        calls_forbidden: Those turned away with a good token, for want of a permission.
        evictions: Sessions closed by a login above the limit.
        orders: Orders placed.
    """

    logins: int = 0
    logins_granted: int = 0
    logins_refused: int = 0
    renewals: int = 0
    renewals_granted: int = 0
    renewals_refused: int = 0
    penalties: int = 0
    lockouts: int = 0
    calls: int = 0
    calls_ok: int = 0
    calls_unauthorized: int = 0
    calls_evicted: int = 0
    calls_forbidden: int = 0
    evictions: int = 0
    orders: int = 0


@dataclass(frozen=True)
class SessionInfo:
    """One session. Moments are seconds by the emulator's clock, without ``clock_offset``.

    Attributes:
        id: Kept through renewals; counts up from 1.
        user: The user's name.
        token_hash: :func:`short_hash` of its current token.
        alive: Whether its current token is good.
        opened_at: When the login was granted.
        renewed_at: When it was last renewed, None if never.
        expires_at: When its current token lapses, or would have.
        renewals: How often it was renewed.
        device_id: The device that the login named.
        ended_because: "evicted", "revoked", "expired", or None while it is alive.
    """

    id: int
    user: str
    token_hash: str
    alive: bool
    opened_at: float
    renewed_at: float | None
    expires_at: float
    renewals: int
    device_id: str | None
    ended_because: str | None


@dataclass(frozen=True)
class OrderInfo:
    """One order that was placed: its number, the session it came from, and the body to the byte."""

    id: int
    session: int
    body: bytes = field(repr=False)
    content_type: str | None
    placed_at: float


class RequestInfo:
    """One request, recorded on arrival; ``status`` follows with the answer.

    Attributes:
        method: As sent.
        path: Decoded, without the query.
        query_string: Raw.
        headers: As sent, looked up in any case. The values are real, ``repr`` hides the token.
        received_at: Seconds by the emulator's clock.
        status: The status answered; None before, and where the connection was closed without one.
        body: Of logins and renewals as received, b"" otherwise.
    """

    __slots__ = ("body", "headers", "method", "path", "query_string", "received_at", "status")

    def __init__(
        self, method: str, path: str, query_string: str, headers: Mapping[str, str], at: float
    ) -> None:
        self.method = method
        self.path = path
        self.query_string = query_string
        self.headers = headers
        self.received_at = at
        self.status: int | None = None
        self.body = b""

    @property
    def authorization(self) -> str | None:
        """The Authorization header, None if there was none."""
        return self.headers.get("Authorization")

    @property
    def query(self) -> dict[str, str]:
        """The query parsed; of a repeated name the last value."""
        return {
            name: values[-1] for name, values in parse_qs(self.query_string, keep_blank_values=True).items()
        }

    def __repr__(self) -> str:
        shown = {
            name: "[hidden]" if name.lower() == "authorization" else v for name, v in self.headers.items()
        }
        return f"<RequestInfo {self.method} {self.path} status={self.status} headers={shown}>"

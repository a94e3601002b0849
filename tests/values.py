"""Values that many tests start from: credentials, tokens, answers and views, each with its secrets by name."""

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tradovate_auth import AccessToken, Budget, Credentials, Environment
from tradovate_auth._account import Account
from tradovate_auth._clock import SYSTEM_CLOCK
from tradovate_auth._ledger import Ledger
from tradovate_auth._pace import Pace
from tradovate_auth._server_clock import ServerClock
from tradovate_auth._view import Need, View
from tradovate_auth._wire import Granted
from tradovate_auth.storage import MemoryStorage
from tradovate_auth.transport import Call, Reply

__all__ = [
    "DAY",
    "HOUR",
    "LIFETIME",
    "MINUTE",
    "NOW",
    "PACE",
    "SECRETS",
    "NoTransport",
    "account",
    "at",
    "credentials",
    "granted",
    "json_reply",
    "reply",
    "token",
    "view",
]

NOW = 1_800_000_000.0
MINUTE = 60.0
HOUR = 3600.0
DAY = 86_400.0
LIFETIME = 4800.0
PACE = Pace(HOUR, LIFETIME)

PASSWORD = "hunter2-password"
SEC = "8a7b-api-secret"
VALUE = "token-value-4711"
MD_VALUE = "md-token-value-4712"
TICKET = "ticket-4713"
SECRETS = (PASSWORD, SEC, VALUE, MD_VALUE, TICKET)


def at(seconds: float) -> dt.datetime:
    """Return a moment as an aware UTC datetime."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def credentials(**changes: Any) -> Credentials:
    """Return complete credentials."""
    fields: dict[str, Any] = {
        "name": "trader",
        "password": PASSWORD,
        "app_id": "bot",
        "app_version": "1.0",
        "cid": "8",
        "sec": SEC,
        "device_id": "device-1",
    }
    return Credentials(**{**fields, **changes})


class NoTransport:
    """A transport that must not be used."""

    def send(self, call: Call, timeout: float) -> Reply:
        """Fail."""
        raise NotImplementedError(call.method, timeout)


def account(**changes: Any) -> Account:
    """Return a demo account with a memory storage of its own, and no way to the server."""
    fields: dict[str, Any] = {
        "credentials": credentials(),
        "environment": Environment.of("demo"),
        "storage": MemoryStorage(),
        "key": "key",
        "slot": "",
        "transport": NoTransport(),
        "clock": SYSTEM_CLOCK,
        "server": ServerClock(SYSTEM_CLOCK),
        "timeout": 20.0,
    }
    return Account(**{**fields, **changes})


def token(**changes: Any) -> AccessToken:
    """Return a token that was granted at NOW and lives for 80 minutes."""
    fields: dict[str, Any] = {
        "value": VALUE,
        "md_value": MD_VALUE,
        "issued_at": at(NOW),
        "expires_at": at(NOW + LIFETIME),
    }
    return AccessToken(**{**fields, **changes})


def granted(**changes: Any) -> Granted:
    """Return a grant of NOW for 80 minutes."""
    fields: dict[str, Any] = {
        "value": VALUE,
        "md_value": MD_VALUE,
        "expires_at": NOW + LIFETIME,
        "user_id": 7,
        "name": "trader",
        "hosts": {},
        "details": {},
    }
    return Granted(**{**fields, **changes})


def reply(status: int = 200, body: bytes | str = b"", headers: Mapping[str, str] | None = None) -> Reply:
    """Return an answer with this body."""
    return Reply(status, headers or {}, body.encode() if isinstance(body, str) else body)


def json_reply(answer: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Return an answer with this body as JSON."""
    return reply(status, json.dumps(answer), headers)


def view(*, now: float = NOW, held: AccessToken | None = None, **changes: Any) -> View:
    """Return the view of an account that holds this token, or none, and where nobody asks for anything."""
    base = View(
        now=now,
        token=held,
        stale_at=held.expires_at.timestamp() - 900.0 if held is not None else 0.0,
        ends_at=held.expires_at.timestamp() if held is not None else 0.0,
        need=Need(),
        pace=PACE,
        budget=Budget(),
        ledger=Ledger(),
        machine=Ledger(),
        scope="",
        offered=False,
        tried=False,
        latch=None,
        may_login=True,
    )
    return replace(base, **changes)

"""What the server says: answers as plain data, built from the rules, sent by the server module."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from functools import cache
from http import HTTPStatus
from math import floor
from typing import Any

from tradovate_auth.testing.emulator._limits import Barrier
from tradovate_auth.testing.emulator._rules import Rules
from tradovate_auth.testing.emulator._sessions import Session

JSON = "application/json"
TEXT = "text/plain"
HTML = "text/html"
PAGE = b"<html><h1>Scheduled maintenance</h1></html>"


@dataclass
class Answer:
    """One answer. ``cut`` is how many bytes of it leave before the connection is closed, None for all of it."""

    status: int
    body: bytes = field(default=b"", repr=False)
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    chunks: int = 0  # how often the body is sent, chunked; 0: once, with its length
    pause: float = 0.0  # seconds between chunks
    cut: int | None = None

    def raw(self, date: str | None) -> bytes:
        """The answer as it goes over the wire, for the cases in which a server library would be in the way."""
        body = self.body * (self.chunks or 1)
        lines = [
            f"HTTP/1.1 {self.status} {reason(self.status)}",
            "Connection: close",
            f"Content-Length: {len(body)}",
        ]
        if self.content_type is not None:
            lines.append(f"Content-Type: {self.content_type}")
        if date is not None:
            lines.append(f"Date: {date}")
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    def halved(self) -> Answer:
        """The same answer, of which half the body arrives."""
        self.cut = -(len(self.body) * (self.chunks or 1) + 1) // 2
        return self


def reason(status: int) -> str:
    """The phrase of a status line."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def json_answer(payload: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer of JSON."""
    return Answer(status, json.dumps(payload).encode(), JSON, headers or {})


def closed() -> Answer:
    """The connection closed without a byte."""
    return Answer(0, cut=0)


def not_found() -> Answer:
    """No such endpoint. It has a body: an empty 404 is the mark of a wrong host (P§1.2)."""
    return Answer(404, b"Not Found", TEXT)


def expiry_text(moment: float, rules: Rules) -> str:
    """A moment as the rules write it: digits of the second, or none, and the mark of UTC (P§9.32)."""
    whole = floor(moment)
    stamp = datetime.fromtimestamp(whole, UTC)
    mark = "" if rules.expiry_offset_style == "naive" else rules.expiry_offset_style
    if rules.fraction_digits < 0:
        return f"{stamp:%Y-%m-%dT%H:%M}{mark}"
    if rules.fraction_digits == 0:
        return f"{stamp:%Y-%m-%dT%H:%M:%S}{mark}"
    fraction = floor((moment - whole) * 10**rules.fraction_digits)
    return f"{stamp:%Y-%m-%dT%H:%M:%S}.{fraction:0{rules.fraction_digits}d}{mark}"


def grant(session: Session, rules: Rules, *, renewal: bool) -> Answer:
    """A login or renewal granted, with every field that P§3 lists."""
    offset = rules.clock_offset
    fields: dict[str, Any] = {
        "accessToken": session.token.value,
        "mdAccessToken": session.md_token,
        "expirationTime": expiry_text(session.token.expires_at + offset, rules),
        "passwordExpirationTime": expiry_text(session.opened_at + offset + 365 * 86400, rules),
        "userStatus": rules.user_status,
        "userId": session.user.id,
        "name": session.user.name,
        "hasLive": True,
        "hasSimPlus": False,
        "hasFunded": True,
        "hasMarketData": True,
        "outdatedTaC": False,
        "outdatedLiquidationPolicy": False,
    }
    left_out = set(rules.omit_fields)
    if renewal and not rules.md_token_on_renewal:
        left_out.add("mdAccessToken")
    if renewal and not rules.token_in_renewal:
        left_out.add("accessToken")
    if rules.api_hosts is not None:
        fields["apiHosts"] = dict(rules.api_hosts)
    if rules.hibp_hint is not None:
        fields["hibpHint"] = rules.hibp_hint
    return json_answer(
        {name: value for name, value in (fields | dict(rules.extra_fields)).items() if name not in left_out}
    )


def tokenless(rules: Rules) -> Answer:
    """A request without an Authorization header where one is needed (P§9.9)."""
    return not_found() if rules.missing_header_status == 404 else unauthorized(rules)


def login_refused(rules: Rules) -> Answer:
    """Wrong credentials, in any style (P§9.6)."""
    if rules.refusal_style == "401":
        return json_answer(
            {"error": "Invalid credentials", "message": "Name, password or key is wrong."}, 401
        )
    return json_answer({"errorText": "Incorrect username or password."}, int(rules.refusal_style))


def renewal_refused() -> Answer:
    """A renewal with a token that is good no more (P§5)."""
    return json_answer({"error": "Token expired", "message": "Log in again."}, 401)


def forbidden() -> Answer:
    """A good token without the permission (P§3.2)."""
    return json_answer({"errorText": "Access is denied"}, 401)


def other_environment(kind: str) -> Answer:
    """A call that only the other environment serves (P§3.1)."""
    return json_answer({"errorText": f"This endpoint should be called on {kind}.tradovateapi.com"})


def unauthorized(rules: Rules) -> Answer:
    """An ordinary call with a token that is no good, with the body the rules ask for (P§9.10)."""
    style = rules.unauthorized_body
    if style == "json":
        return json_answer({"error": "Unauthorized", "message": "The access token is not valid."}, 401)
    if style == "text":
        return Answer(401, b"Access denied", TEXT)
    return Answer(401, _large_body(), TEXT) if style == "large" else Answer(401)


@cache
def _large_body() -> bytes:
    return b"The access token is not valid.\n" * (4 * 2**20 // 31)


def evicted(rules: Rules) -> Answer:
    """A call whose session was closed by a later login (P§9.19)."""
    if rules.evicted_style == "401":
        return unauthorized(rules)
    if rules.evicted_style == "500":
        return Answer(500, f"Internal Server Error, error id: {uuid.uuid4()}".encode(), TEXT)
    if rules.evicted_style == "502":
        return Answer(502, b"<html><h1>502 Bad Gateway</h1></html>", HTML)
    return Answer(int(rules.evicted_style))


def barred(barrier: Barrier, rules: Rules, now: float) -> Answer:
    """A penalty, a lock-out, or a refusal that is a limit in disguise (P§4)."""
    if barrier.kind == "disguised":
        return login_refused(rules)
    if barrier.kind == "penalty":
        payload: dict[str, Any] = {"p-ticket": barrier.ticket, "p-time": round(barrier.seconds, 3)}
        if barrier.captcha is not None:
            payload["p-captcha"] = barrier.captcha
        return json_answer(payload, barrier.status)
    headers = {}
    if rules.retry_after == "seconds":
        headers["Retry-After"] = str(max(1, round(barrier.seconds)))
    elif rules.retry_after == "date":
        headers["Retry-After"] = formatdate(now + rules.clock_offset + barrier.seconds, usegmt=True)
    return Answer(barrier.status, headers=headers)

"""What a client that logs in for itself sends, and what it expects to hear: bytes in, values out, no I/O.

Clients of all kinds spell the two paths as they like (P§1.3), send JSON or a form, and read whatever the server's answer has.
"""

import datetime as dt
import json
import re
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any, Final, Literal
from urllib.parse import parse_qs, unquote

from .models import AccessToken

__all__ = [
    "AuthCall",
    "auth_call",
    "bearer_of",
    "complete_answer",
    "granted_tokens",
    "headers_of",
    "named_user",
    "same_user",
]

AuthCall = Literal["login", "renewal", "oauth"]
"""A login names its user. What brings a token by OAuth does not, so it is never answered."""

_PATH: Final = re.compile(r"/auth/+(accesstokenrequest|renewaccesstoken|oauthtoken)/*\Z", re.IGNORECASE)
_METHODS: Final[Mapping[str, tuple[AuthCall, tuple[str, ...]]]] = {
    "accesstokenrequest": ("login", ("POST",)),
    "renewaccesstoken": ("renewal", ("GET", "POST")),
    "oauthtoken": ("oauth", ("POST",)),
}


def auth_call(method: str, path: str) -> AuthCall | None:
    """Return which auth call a request is, if it is one; any case, with or without doubled slashes and escapes.

    Args:
        method: In upper case.
        path: Without the query.
    """
    match = _PATH.search(unquote(path) if "%" in path else path)
    if match is None:
        return None
    kind, methods = _METHODS[match[1].lower()]
    return kind if method in methods else None


def named_user(body: bytes) -> str | None:
    """Return the user name in the body of a login, JSON or form; None if none can be read."""
    try:
        fields = json.loads(body)  # from the bytes: it knows UTF-16, and a byte order mark
    except (ValueError, RecursionError):
        return _named_in_form(body)
    name = fields.get("name") if isinstance(fields, dict) else None
    return name if isinstance(name, str) and name.strip() else None


def _named_in_form(body: bytes) -> str | None:
    try:
        names = set(parse_qs(body.decode()).get("name", []))
    except UnicodeDecodeError:
        return None
    # Two names in one form: which of them the server would take is not ours to guess.
    return names.pop() if len(names) == 1 else None


def same_user(name: str, other: str) -> bool:
    """Return whether two user names are one user's."""
    return name.strip().casefold() == other.strip().casefold()


def bearer_of(header: object) -> str | None:
    """Return the token in an `Authorization` header, or None."""
    if isinstance(header, bytes):
        header = header.decode("latin-1")
    if not isinstance(header, str):
        return None
    scheme, value = [*header.split(maxsplit=1), "", ""][:2]
    return value.strip() or None if scheme.lower() == "bearer" else None


def complete_answer(token: AccessToken) -> bytes:
    """Return the body with which the server would have granted this token (P§3)."""
    answer: dict[str, Any] = {"accessToken": token.value, **token.details}
    answer["expirationTime"] = _moment(token.expires_at)
    answer["name"] = token.name
    if token.md_value is not None:
        answer["mdAccessToken"] = token.md_value
    if token.user_id is not None:
        answer["userId"] = token.user_id
    if token.hosts:
        answer["apiHosts"] = dict(token.hosts)
    return json.dumps(answer).encode()


def headers_of(body: bytes, now: float) -> dict[str, str]:
    """Return the headers with which the server would have sent a body, at a moment in seconds since the epoch.

    There are clients that set their clock by the date.
    """
    return {
        "Date": formatdate(now, usegmt=True),
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
    }


def _moment(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def granted_tokens(body: bytes) -> frozenset[str]:
    """Return the tokens in the server's answer to an auth call."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return frozenset()
    fields = answer if isinstance(answer, dict) else {}
    found = (fields.get("accessToken"), fields.get("mdAccessToken"), fields.get("access_token"))
    return frozenset(value for value in found if isinstance(value, str) and value)

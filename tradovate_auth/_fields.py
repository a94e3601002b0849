"""The fields of an answer, read one by one: texts, moments, and whatever else a server may put into them. Pure; never raises.

What these functions return may still hold what the server was sent: `_wire.scrub` is for whoever shows it.
"""

import datetime as dt
import json
import re
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any, Final

from ._verdicts import RetryAfter
from .transport import Reply

__all__ = [
    "details",
    "is_true",
    "object_in",
    "parse_moment",
    "plain_text",
    "printable",
    "retry_after",
    "server_time",
    "text_of",
    "user_status",
    "violated",
]

_DAY: Final = 86_400.0
_LAST_DATE: Final = 4_102_444_800.0  # 2100: far from the end of what a datetime can hold
_LONGEST_TEXT: Final = 2048  # bytes of a body that is shown as it stands
_DEEPEST: Final = (
    64  # levels of nesting that are kept of an answer's other fields: JSON is read deeper than it is walked
)
_MOMENT = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?\s*([Zz]|[+-]\d{2}:?\d{2})?",
    re.ASCII,
)
_STATUS = re.compile(r"[A-Za-z]{1,40}")
_OWN_FIELDS: Final = frozenset({"accessToken", "mdAccessToken", "apiHosts", "errorText", "p-ticket"})
_SECRET_FIELD = re.compile(r"token$|secret|password$|ticket|^sec$", re.IGNORECASE)


def object_in(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object that a body is, or None."""
    try:
        answer = json.loads(body, parse_constant=lambda _: None)  # NaN and Infinity are no JSON
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def text_of(answer: dict[str, Any] | None, *names: str) -> str:
    """Return the first of these fields that says something, printable and in full, or an empty text."""
    for name in names:
        value = (answer or {}).get(name)
        if isinstance(value, str) and (text := printable(value)):
            return text  # whole: cut before it is scrubbed, it could end in half a secret
    return ""


def plain_text(body: bytes) -> str:
    """Return a short body that is text for a human, or an empty text for a page, for JSON whole or broken, for anything else.

    Broken JSON may hold a token that nobody knows yet, and could not be scrubbed from it.
    """
    try:
        text = printable(body[: _LONGEST_TEXT + 1].decode())
    except UnicodeDecodeError:
        return ""
    return "" if len(body) > _LONGEST_TEXT or text.startswith(("<", "{", "[", '"')) else text


def printable(text: str) -> str:
    """Return the text on one line, without what cannot be printed."""
    return "".join(filter(str.isprintable, text)).strip()


def is_true(value: object) -> bool:
    """Return whether a value means yes, in whatever form it was written."""
    if isinstance(value, str):
        return value.strip().lower() not in ("", "false", "0", "no")
    return bool(value)


def user_status(answer: dict[str, Any] | None) -> str | None:
    """Return what the server says of the user (P§3), or None where there is nothing to say."""
    status = text_of(answer, "userStatus")
    return status if _STATUS.fullmatch(status) and status.casefold() != "active" else None


def violated(violations: object) -> Iterator[str]:
    """Yield which fields are called invalid. Only their names: a violation's value may be the password."""
    for violation in violations if isinstance(violations, list) else ():
        if isinstance(violation, dict) and (name := text_of(violation, "constraint")):
            yield name


def details(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer's other fields, without any that may be a secret, however deep it lies."""
    return {name: _harmless(value) for name, value in answer.items() if _shown(name)}


def _harmless(value: Any, levels: int = _DEEPEST) -> Any:
    if not isinstance(value, dict | list):
        return value
    if not levels:
        return None
    if isinstance(value, dict):
        return {name: _harmless(inner, levels - 1) for name, inner in value.items() if _shown(name)}
    return [_harmless(inner, levels - 1) for inner in value]


def _shown(name: str) -> bool:
    return name not in _OWN_FIELDS and not _SECRET_FIELD.search(name)


def parse_moment(value: object) -> float | None:
    """Return a date-time of the server's in seconds since the epoch, or None. All formats of P§3: naive means UTC."""
    if not isinstance(value, str) or not (match := _MOMENT.fullmatch(value.strip())):
        return None
    day, minute, second, fraction, zone = match.groups()
    offset = "+00:00" if zone in (None, "Z", "z") else zone
    try:
        moment = dt.datetime.fromisoformat(f"{day}T{minute}:{second or '00'}{offset}").timestamp()
    except (ValueError, OverflowError):
        return None
    return moment + float(f"0.{fraction or 0}")


def server_time(reply: Reply) -> float | None:
    """Return the moment in the answer's `Date` header, or None where there is none that a clock could show."""
    moment = _http_date(reply.header("date"))
    return moment if moment is not None and 0.0 <= moment < _LAST_DATE else None


def retry_after(reply: Reply) -> RetryAfter:
    """Return what the answer's `Retry-After` header asks for, in either of its forms."""
    value = (reply.header("retry-after") or "").strip()
    if value.isascii() and value.isdigit():
        return RetryAfter(min(float(value), _DAY))
    moment, now = _http_date(value), server_time(reply)
    if moment is None or now is None:
        return RetryAfter(until=moment)
    return RetryAfter(min(max(moment - now, 0.0), _DAY))


def _http_date(value: str | None) -> float | None:
    try:
        moment = parsedate_to_datetime(value or "")
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)).timestamp()

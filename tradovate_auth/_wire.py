"""The two calls we make and what every answer to them means: bytes in, verdicts out, no I/O and no clock.

A verdict is one of a closed set, and reading never raises:

    Granted     a token with the moment it ends
    Refused     the server understood and said no
    Penalty     wait so many seconds, then send the same again with this ticket
    Captcha     only a human can go on
    LockedOut   the account or the address is locked
    Faulty      anything else; `known` tells a server in trouble from an answer that is not in the protocol

Order matters. The status alone never decides, because the server reports both penalties and refusals with status 200
(P§3.1), and a penalty is looked for in every JSON body whatever its status (P§9.15).
"""

import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final

from .models import AccessToken, Credentials
from .transport import Call, Reply

__all__ = [
    "Captcha",
    "Faulty",
    "Granted",
    "LockedOut",
    "Penalty",
    "Refused",
    "Verdict",
    "login_call",
    "parse_moment",
    "read_reply",
    "renewal_call",
    "scrub",
    "server_time",
]

_DAY: Final = 86_400.0
_LAST_DATE: Final = 4_102_444_800.0  # 2100: far from the end of what a datetime can hold
_DEFAULT_PENALTY: Final = 15.0  # P§4.3: the server's own back-off for both auth endpoints
_PENALTY_FLOOR: Final = 1.0
_PENALTY_CEILING: Final = 3600.0
_TOKEN = re.compile(r"[\x21-\x7e]{1,8192}")  # P§1.3: the schema's maximum; nothing that could break a header
_TEXT_LIMIT: Final = 200
_DEEPEST: Final = (
    64  # levels of nesting that are kept of an answer's other fields: JSON is read deeper than it is walked
)
_MOMENT = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?\s*([Zz]|[+-]\d{2}:?\d{2})?",
    re.ASCII,
)
_OWN_FIELDS: Final = frozenset({"accessToken", "mdAccessToken", "apiHosts", "errorText", "p-ticket"})
_SECRET_FIELD = re.compile(r"token$|secret|password$|ticket|^sec$", re.IGNORECASE)


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
    """The server understood the call and said no. `disguised` where the text may hide throttling (P§9.7)."""

    text: str
    disguised: bool


@dataclass(frozen=True, slots=True)
class Penalty:
    """Wait `seconds`, then send the identical body with the ticket (P§4.1)."""

    seconds: float
    ticket: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Captcha:
    """Stop for an hour (P§4.1)."""


@dataclass(frozen=True, slots=True)
class LockedOut:
    """Stop for an hour, or longer if the server says so (P§4.2)."""

    status: int
    retry_after: float | None
    """Seconds, if the server says so."""
    until: float | None = None
    """The moment, if the server names one and does not say what its clock shows."""

    def seconds(self, now: float) -> float:
        """Return for how long the server wants to be left alone, a day at most; `now` is the server's time."""
        named = self.until - now if self.until is not None else 0.0
        return min(max(self.retry_after or 0.0, named), _DAY)


@dataclass(frozen=True, slots=True)
class Faulty:
    """No usable answer. `known`: a server in trouble, as opposed to an answer that the protocol does not have."""

    reason: str
    known: bool


Verdict = Granted | Refused | Penalty | Captcha | LockedOut | Faulty


def login_call(credentials: Credentials, base: str, ticket: str | None = None) -> Call:
    """Return the call that opens a session (P§2), with a penalty's ticket if there is one to redeem."""
    cid: str | int | None = credentials.cid
    if isinstance(cid, str) and cid.isascii() and cid.isdigit():
        cid = int(cid)
    fields = {
        "name": credentials.name,
        "password": credentials.password,
        "appId": credentials.app_id,
        "appVersion": credentials.app_version,
        "cid": cid,
        "sec": credentials.sec,
        "deviceId": credentials.device_id,
        "organization": credentials.organization,
        "hibpCheck": credentials.hibp_check,
        "p-ticket": ticket,
    }
    body = json.dumps({name: value for name, value in fields.items() if value is not None})
    headers = {"Accept": "application/json", "Content-Type": "application/json"}
    return Call("POST", f"{base}/auth/accesstokenrequest", headers, body.encode())


def renewal_call(token: AccessToken, base: str) -> Call:
    """Return the call that extends the token's session (P§1.3: a GET without a body)."""
    headers = {"Accept": "application/json", "Authorization": token.authorization}
    return Call("GET", f"{base}/auth/renewaccesstoken", headers)


def read_reply(reply: Reply) -> Verdict:
    """Return what an answer to either call means. Never raises."""
    answer = _parse(reply.body)
    if answer is not None:
        if _truthy(answer.get("p-captcha")):
            return Captcha()
        if answer.get("p-ticket") or answer.get("p-time") is not None:
            return _penalty(answer)
    if reply.status in (423, 429):
        return _locked_out(reply)
    if reply.status == 401:
        return Refused(
            _text(answer, "message", "error", "errorText") or "the server answered 401", disguised=False
        )
    if not 200 <= reply.status < 300:
        return Faulty(f"the server answered {reply.status}", known=reply.status == 408 or reply.status >= 500)
    if answer is None:
        return Faulty("the answer is no JSON object", known=True)
    return _read_answer(answer)


def scrub(text: str, secrets: tuple[str, ...]) -> str:
    """Return the text, cut to what fits a line, without any of the secrets: a server may echo what it was sent."""
    for secret in secrets:
        text = text.replace(_printable(secret) or secret, "***")
    return text[:_TEXT_LIMIT]


def server_time(reply: Reply) -> float | None:
    """Return the moment in the answer's `Date` header, or None where there is none that a clock could show."""
    moment = _http_date(reply.header("date"))
    return moment if moment is not None and 0.0 <= moment < _LAST_DATE else None


def _parse(body: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(body, parse_constant=lambda _: None)  # NaN and Infinity are no JSON
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _read_answer(answer: dict[str, Any]) -> Verdict:
    if text := _text(answer, "errorText"):
        return Refused(text, disguised=True)
    if violations := answer.get("violations"):
        named = ", ".join(sorted(_violated(violations))) or "unnamed"
        return Refused(f"the server calls these fields invalid: {named}", disguised=False)
    value = answer.get("accessToken")
    if not value:
        return Faulty("the answer holds neither a token nor an error", known=False)
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        return Faulty("the answer's token cannot be put into a header", known=False)
    expires_at = parse_moment(answer.get("expirationTime"))
    if expires_at is None:
        return Faulty("the answer does not say when its token ends", known=False)
    md_value = answer.get("mdAccessToken")
    user_id = answer.get("userId")
    name = answer.get("name")
    hosts = answer.get("apiHosts")
    return Granted(
        value=value,
        md_value=md_value if isinstance(md_value, str) and _TOKEN.fullmatch(md_value) else None,
        expires_at=expires_at,
        user_id=user_id if isinstance(user_id, int) and not isinstance(user_id, bool) else None,
        name=name if isinstance(name, str) else "",
        hosts=hosts if isinstance(hosts, dict) else {},
        details=_details(answer),
    )


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


def _penalty(answer: dict[str, Any]) -> Penalty:
    try:
        seconds = float(answer.get("p-time", _DEFAULT_PENALTY))
    except (TypeError, ValueError, OverflowError):
        seconds = _DEFAULT_PENALTY
    ticket = answer.get("p-ticket")
    bounded = min(max(seconds, _PENALTY_FLOOR), _PENALTY_CEILING) if seconds == seconds else _DEFAULT_PENALTY  # noqa: PLR0124  # NaN
    return Penalty(bounded, ticket if isinstance(ticket, str) and ticket else None)


def _truthy(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().lower() not in ("", "false", "0", "no")
    return bool(value)


def _text(answer: dict[str, Any] | None, *names: str) -> str:
    for name in names:
        value = (answer or {}).get(name)
        if isinstance(value, str) and (text := _printable(value)):
            return text  # whole: cut before it is scrubbed, it could end in half a secret
    return ""


def _printable(text: str) -> str:
    return "".join(filter(str.isprintable, text)).strip()


def _violated(violations: object) -> Iterator[str]:
    # Only the names: a violation's value may be the password.
    for violation in violations if isinstance(violations, list) else ():
        if isinstance(violation, dict) and (name := _text(violation, "constraint")):
            yield name


def _details(answer: dict[str, Any]) -> dict[str, Any]:
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


def _locked_out(reply: Reply) -> LockedOut:
    value = (reply.header("retry-after") or "").strip()
    if value.isascii() and value.isdigit():
        return LockedOut(reply.status, min(float(value), _DAY))
    moment, now = _http_date(value), server_time(reply)
    if moment is None or now is None:
        return LockedOut(reply.status, None, moment)
    return LockedOut(reply.status, min(max(moment - now, 0.0), _DAY))


def _http_date(value: str | None) -> float | None:
    try:
        moment = parsedate_to_datetime(value or "")
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)).timestamp()

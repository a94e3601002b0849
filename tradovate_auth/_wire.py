"""The two calls we make and what every answer to them means: bytes in, verdicts out, no I/O and no clock.

A verdict is one of a closed set, see `_verdicts`, and reading never raises. Order matters. The status alone never decides,
because the server reports both penalties and refusals with status 200 (P§3.1), and a penalty is looked for in every JSON body
whatever its status (P§9.15); but a token that was granted is one, whatever stands beside it.

A login that was refused is not sent again, so under any status that blames the request (4xx) an answer that says why in JSON
is a refusal. A page is not: that is the word of a proxy on the way. A 400 says by itself that the request is badly formed
(P§3.2), if it comes with no page.
"""

import json
import re
from dataclasses import replace
from typing import Any, Final

from ._advice import BADLY_FORMED, INVALID_FIELDS, USER_STATUS
from ._fields import (
    details,
    is_true,
    object_in,
    parse_moment,
    plain_text,
    printable,
    retry_after,
    server_time,
    text_of,
    user_status,
    violated,
)
from ._verdicts import Captcha, Faulty, Granted, LockedOut, Penalty, Refused, RetryAfter, Verdict
from .models import AccessToken, Credentials
from .transport import Call, Reply

__all__ = [
    "Captcha",
    "Faulty",
    "Granted",
    "LockedOut",
    "Penalty",
    "Refused",
    "RetryAfter",
    "Verdict",
    "login_call",
    "parse_moment",
    "read_reply",
    "renewal_call",
    "scrub",
    "server_time",
]

_DEFAULT_PENALTY: Final = 15.0  # P§4.3: the server's own back-off for both auth endpoints
_PENALTY_FLOOR: Final = 1.0
_PENALTY_CEILING: Final = 3600.0
_TOKEN = re.compile(r"[\x21-\x7e]{1,8192}")  # P§1.3: the schema's maximum; nothing that could break a header
_TEXT_LIMIT: Final = 200
_NOT_THE_REQUEST: Final = (407, 408)  # of 4xx: a proxy's own, and a server that has waited too long
_OTHER_HOST: Final = (307, 308, 404, 421)  # P§1.2


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
    answer = object_in(reply.body)
    verdict = _read_success(answer) if 200 <= reply.status < 300 else _read_failure(reply, answer)
    if answer is None or isinstance(verdict, Granted):
        return verdict
    if is_true(answer.get("p-captcha")):
        return Captcha(retry_after(reply))
    if answer.get("p-ticket") or answer.get("p-time") is not None:
        return _penalty(answer, retry_after(reply))
    return verdict


def scrub(text: str, secrets: tuple[str, ...]) -> str:
    """Return the text, cut to what fits a line, without any of the secrets: a server may echo what it was sent."""
    for secret in secrets:
        for sent in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
            text = text.replace(printable(sent) or sent, "***")
    return text[:_TEXT_LIMIT]


def _read_success(answer: dict[str, Any] | None) -> Verdict:
    if answer is None:
        return Faulty("the answer is no JSON object", known=True)
    if said := text_of(answer, "errorText"):
        return Refused(_of_the_user(answer, said), disguised=True, ends_session=True)
    if answer.get("violations"):
        return _violations(answer)
    value = answer.get("accessToken")
    if not value:
        reason = "the answer holds neither a token nor an error"
        said = text_of(answer, "message", "error")
        return Faulty(_of_the_user(answer, f"{reason}: {said}" if said else reason), known=False)
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
        details=details(answer),
    )


def _read_failure(reply: Reply, answer: dict[str, Any] | None) -> Verdict:
    status, elsewhere = reply.status, reply.status in _OTHER_HOST
    if status in (423, 429):
        return LockedOut(status, retry_after(reply))
    said = text_of(answer, "errorText", "message", "error")
    words = said or plain_text(reply.body)
    answered = f"the server answered {status}: {words}" if words else f"the server answered {status}"
    if status == 401:
        return Refused(_of_the_user(answer, said or answered), disguised=False, ends_session=True)
    if 400 <= status < 500 and status not in _NOT_THE_REQUEST:
        if said:
            return Refused(_of_the_user(answer, said), disguised=False, elsewhere=elsewhere)
        if answer is not None and answer.get("violations"):
            return replace(_violations(answer), elsewhere=elsewhere)
        if status == 400 and (answer is not None or words or not reply.body.strip()):
            return Refused(
                _of_the_user(answer, f"{BADLY_FORMED}: {words}" if words else BADLY_FORMED), disguised=False
            )
    return Faulty(_of_the_user(answer, answered), status == 408 or status >= 500, elsewhere)


def _violations(answer: dict[str, Any]) -> Refused:
    named = ", ".join(sorted(violated(answer.get("violations")))) or "unnamed"
    return Refused(_of_the_user(answer, f"{INVALID_FIELDS}: {named}"), disguised=False)


def _of_the_user(answer: dict[str, Any] | None, text: str) -> str:
    """Return the text, behind what the server says of the user if that is not in order: it explains the rest."""
    status = user_status(answer)
    return f"{USER_STATUS} '{status}': {text}" if status else text


def _penalty(answer: dict[str, Any], after: RetryAfter) -> Penalty:
    try:
        seconds = float(answer.get("p-time", _DEFAULT_PENALTY))
    except (TypeError, ValueError, OverflowError):
        seconds = _DEFAULT_PENALTY
    ticket = answer.get("p-ticket")
    bounded = min(max(seconds, _PENALTY_FLOOR), _PENALTY_CEILING) if seconds == seconds else _DEFAULT_PENALTY  # noqa: PLR0124  # NaN
    return Penalty(bounded, ticket if isinstance(ticket, str) and ticket else None, after)

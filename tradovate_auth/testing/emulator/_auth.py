"""Login and renewal: what the two endpoints decide. Neither waits nor reads; the server module does that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from tradovate_auth.testing.emulator import _answers as answers
from tradovate_auth.testing.emulator._answers import Answer, json_answer
from tradovate_auth.testing.emulator._limits import Attempt
from tradovate_auth.testing.emulator._names import LOGIN, RENEWAL
from tradovate_auth.testing.emulator._records import User
from tradovate_auth.testing.emulator._rules import Rules
from tradovate_auth.testing.emulator._sessions import Standing
from tradovate_auth.testing.emulator._state import State

_TEXT_LIMITS = {"name": 64, "password": 64, "appId": 64, "appVersion": 64, "deviceId": 64, "sec": 8192}


def login(state: State, body: bytes, content_type: str, address: str) -> Answer:
    """Decides about a login: the limits first, then its form, then its credentials (P§2, P§3.1)."""
    with state.lock:
        rules = state.rules
        fields = _fields(body, content_type, rules)
        name = str(fields.get("name")) if fields is not None else None
        key = state.limit_key(address, name)
        ticket = fields.pop("p-ticket", None) if fields is not None else None
        answer = _gate(state, Attempt(LOGIN, key, _digest(fields), None if ticket is None else str(ticket)))
        if answer is not None:
            return answer
        return _decide_login(state, fields, key)


def _decide_login(state: State, fields: dict[str, Any] | None, key: str) -> Answer:
    """A login that no limit stopped."""
    rules = state.rules
    faulty = (
        json_answer({"errorText": "The request is badly formed"}, 400)
        if fields is None
        else _violations(fields)
    )
    if fields is None or faulty is not None:
        state.tally["logins_refused"] += 1
        return faulty or Answer(400)
    user = state.users.get(fields["name"])
    if user is not None and _unregistered(user, fields):
        state.tally["logins_refused"] += 1
        state.limits.spend(LOGIN, key, state.clock())
        return json_answer({"errorText": "The app is not registered"})
    if user is None or not _matches(user, fields):
        state.tally["logins_refused"] += 1
        state.limits.spend(LOGIN, key, state.clock())
        return answers.login_refused(rules)
    if rules.login_step != "none":
        return _step(rules)
    device_id = fields.get("deviceId")
    session = state.open(user, None if device_id is None else str(device_id))
    state.tally["logins_granted"] += 1
    return answers.grant(session, rules, renewal=False)


def renew(state: State, token: str | None, address: str, ticket: str | None) -> Answer:
    """Decides about a renewal: the limits first, which count successes too, then the token (P§4.3, P§5)."""
    now = state.clock()
    with state.lock:
        rules = state.rules
        if token is None:
            state.tally["renewals_refused"] += 1
            return answers.tokenless(rules)
        standing, session = state.sessions.judge(token, now)
        key = state.limit_key(address, None if session is None else session.user.name)
        answer = _gate(state, Attempt(RENEWAL, key, _digest(token), ticket))
        if answer is not None:
            return answer
        state.limits.spend(RENEWAL, key, now)
        if session is None or standing is not Standing.GOOD:
            state.tally["renewals_refused"] += 1
            like_calls = standing is Standing.EVICTED and rules.evicted_renewals == "like calls"
            return answers.evicted(rules) if like_calls else answers.renewal_refused()
        state.sessions.renew(session, now, rules)
        state.tally["renewals_granted"] += 1
        return answers.grant(session, rules, renewal=True)


def _gate(state: State, attempt: Attempt) -> Answer | None:
    now = state.clock()
    barrier = state.limits.gate(attempt, now, state.rules)
    if barrier is None:
        return None
    state.tally[
        {"lockout": "lockouts", "penalty": "penalties", "disguised": "logins_refused"}[barrier.kind]
    ] += 1
    return answers.barred(barrier, state.rules, now)


def _fields(body: bytes, content_type: str, rules: Rules) -> dict[str, Any] | None:
    """The body's fields; None if it is neither a JSON object nor, where accepted, a form (P§9.27)."""
    if content_type.startswith("application/x-www-form-urlencoded"):
        return dict(parse_qsl(body.decode("latin-1"))) if rules.accept_form else None
    try:
        fields = json.loads(body)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _violations(fields: Mapping[str, Any]) -> Answer | None:
    """The answer to fields that break the schema (P§2, P§3.1)."""
    wrong = [
        {"constraint": "string", "value": name, "description": f"up to {limit} characters"}
        for name, limit in _TEXT_LIMITS.items()
        if fields.get(name) is not None and not (isinstance(fields[name], str) and len(fields[name]) <= limit)
    ]
    wrong += [
        {"constraint": "required", "value": name, "description": "is missing"}
        for name in ("name", "password")
        if fields.get(name) is None
    ]
    return json_answer({"violations": wrong}) if wrong else None


def _unregistered(user: User, fields: Mapping[str, Any]) -> bool:
    """Whether the app's fields are missing where the user has an API key (P§2)."""
    needed = [name for name, value in (("appId", user.app_id), ("cid", user.cid)) if value is not None]
    return any(fields.get(name) in (None, "") for name in needed)


def _matches(user: User, fields: Mapping[str, Any]) -> bool:
    """Whether name, password and key are right; a cid may come as number or as string (P§9.26)."""
    wanted = {"password": user.password, "appId": user.app_id, "cid": user.cid, "sec": user.sec}
    return all(value is None or str(fields.get(name)) == str(value) for name, value in wanted.items())


def _step(rules: Rules) -> Answer:
    """A correct login that is not finished: no token, no error (P§9.29)."""
    if rules.login_step == "violations":
        return json_answer(
            {"violations": [{"constraint": "email", "value": "", "description": "approve the device"}]}
        )
    return json_answer({"name": "", "userStatus": rules.user_status, "mfaChallenge": "code"})

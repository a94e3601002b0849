"""Ordinary endpoints under ``/v1``: what a client that was let in gets. All but the order book are there to be probed."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from tradovate_auth.testing.emulator import _answers as answers
from tradovate_auth.testing.emulator._answers import JSON, TEXT, Answer, json_answer
from tradovate_auth.testing.emulator._records import RequestInfo
from tradovate_auth.testing.emulator._sessions import Session
from tradovate_auth.testing.emulator._state import State

_ACCOUNTS = json.dumps(
    [{"id": 1, "name": "TEST0001", "active": True}, {"id": 2, "name": "TEST0002", "active": False}]
).encode()


@dataclass(frozen=True)
class Call:
    """An ordinary request that was let in."""

    state: State
    request: RequestInfo
    body: bytes
    session: Session


Handler = Callable[[Call], Awaitable[Answer]]


async def _accounts(_call: Call) -> Answer:
    return Answer(200, _ACCOUNTS, JSON)


async def _place_order(call: Call) -> Answer:
    return call.state.place_order(call.session, call.body, call.request.headers.get("Content-Type"))


async def _me(call: Call) -> Answer:
    if call.state.rules.kind == "demo":
        return answers.other_environment("live")
    user = call.session.user
    email = f"{user.name}@example.org"
    return json_answer(
        {
            "userId": user.id,
            "name": user.name,
            "fullName": user.name.title(),
            "email": email,
            "emailVerified": True,
        }
    )


async def _echo(call: Call) -> Answer:
    return json_answer(
        {
            "method": call.request.method,
            "query": call.request.query,
            "headers": dict(call.request.headers),
            "length": len(call.body),
            "sha256": hashlib.sha256(call.body).hexdigest(),
        }
    )


async def _stream(call: Call) -> Answer:
    query = call.request.query
    size = int(query.get("size", "1024"))
    chunks, pause = int(query.get("chunks", "4")), float(query.get("delay", "0"))
    return Answer(200, b"x" * size, TEXT, chunks=chunks, pause=pause)


async def _slow(call: Call) -> Answer:
    await asyncio.sleep(float(call.request.query.get("seconds", "1")))
    return json_answer({"slow": True})


def _status(argument: str) -> Answer:
    if not (argument.isdigit() and 200 <= int(argument) <= 599):
        return answers.not_found()
    status = int(argument)
    return Answer(status) if status in (204, 304) else json_answer({"status": status}, status)


async def _redirect(call: Call) -> Answer:
    return redirect(call.request)


def redirect(request: RequestInfo) -> Answer:
    """A redirect to where the query says. With ``open=1`` it is answered without a look at the token."""
    status, to = request.query.get("status", "302"), request.query.get("to")
    if to is None or not status.isdigit():
        return json_answer({"errorText": "a redirect needs to=URL, and status as a number"}, 400)
    return Answer(int(status), headers={"Location": to})


_READ = frozenset({"GET", "HEAD"})
_ANY = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
_HANDLERS: Mapping[str, tuple[frozenset[str], Handler]] = {
    "account/list": (_READ, _accounts),
    "order/placeorder": (frozenset({"POST"}), _place_order),
    "auth/me": (_READ, _me),
    "echo": (_ANY, _echo),
    "stream": (_READ, _stream),
    "slow": (_READ, _slow),
    "redirect": (_ANY, _redirect),
}


async def serve(call: Call, name: str) -> Answer:
    """The answer of an endpoint to a call that was let in: 404 where there is none, 400 for unusable arguments."""
    if name.startswith("status/"):
        return _status(name.removeprefix("status/"))
    methods, handler = _HANDLERS.get(name, (_ANY, None))
    if handler is None or call.request.method not in methods:
        return answers.not_found()
    try:
        return await handler(call)
    except ValueError as error:
        return json_answer({"errorText": str(error)}, 400)


def is_open(name: str, request: RequestInfo) -> bool:
    """Whether this request is served without a look at its token."""
    return name == "redirect" and request.query.get("open") == "1"


def wrong_host(call_host: str, path: str, state: State) -> Answer | None:
    """The answer to an ordinary call under a host name that is not ours; None where it is, or nobody cares (P§1.2)."""
    rules = state.rules
    if rules.wrong_host is None:
        return None
    ours = rules.own_hosts or tuple((rules.api_hosts or {}).values())
    bare, _, port = call_host.partition(":")
    if not ours or call_host in ours or bare in ours:
        return None
    if rules.wrong_host != "307":
        return Answer(int(rules.wrong_host))
    right = ours[0] if ":" in ours[0] or not port else f"{ours[0]}:{port}"
    return Answer(307, headers={"Location": f"http://{right}{path}"})

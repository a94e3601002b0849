"""The WebSocket as far as the authorize frame: who may open it, and that it stays open (P§1.4)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from tradovate_auth.testing.emulator._aiohttp import WSMessage, WSMsgType, web
from tradovate_auth.testing.emulator._answers import PAGE
from tradovate_auth.testing.emulator._faults import Fault
from tradovate_auth.testing.emulator._names import AUTHORIZE
from tradovate_auth.testing.emulator._state import State

_FIELDS = 4
Wait = Callable[[float | None], Awaitable[None]]


async def serve_socket(request: web.BaseRequest, state: State, wait: Wait) -> web.WebSocketResponse:
    """Serves one socket until the client leaves or the server stops.

    The token may be raw or quoted, and of either kind; any id is taken (P§9.34). Once authorised the socket stays so,
    whatever becomes of the token (P§9.35).
    """
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.send_str("o")
    talk = _Talk(state, wait)
    async for message in socket:
        fields = _fields(message)
        if fields is None:
            continue
        answer = await talk.answer(fields)
        if answer is not None:
            await socket.send_str(answer)
        elif request.transport is not None:
            request.transport.close()
    return socket


class _Talk:
    """What one socket has said so far, and what is answered."""

    def __init__(self, state: State, wait: Wait) -> None:
        self._state = state
        self._wait = wait
        self._authorized = False

    async def answer(self, fields: list[str]) -> str | None:
        """The answer to a frame; None closes the connection in its place."""
        if fields[0] != AUTHORIZE:
            return self._usual(fields)
        with self._state.lock:
            fault = self._state.faults.take(AUTHORIZE)
        if fault is None:
            return self._authorize(fields)
        if fault.kind == "hang":
            await self._wait(fault.seconds)
            return None if fault.then == "close" else self._authorize(fields)
        if fault.kind in ("drop_after", "truncate", "late"):
            text = self._authorize(fields)
            if fault.kind == "late":
                await self._wait(fault.seconds)
                return text
            return text[: len(text) // 2] if fault.kind == "truncate" else None
        return None if fault.kind == "drop" else _planned(fields, fault)

    def _authorize(self, fields: list[str]) -> str:
        token = fields[3].strip()
        if token.startswith('"'):
            token = token.strip('"')
        with self._state.lock:
            self._authorized = self._state.sessions.opens_socket(token, self._state.clock())
        return self._usual(fields)

    def _usual(self, fields: list[str]) -> str:
        return _item(fields, 200) if self._authorized else _item(fields, 401, "Invalid access token")


def _fields(message: WSMessage) -> list[str] | None:
    """The fields of a frame; None of anything else."""
    if message.type is not WSMsgType.TEXT or message.data == "[]":
        return None
    fields = message.data.split("\n", _FIELDS - 1)
    return None if len(fields) < _FIELDS - 1 else fields + [""] * (_FIELDS - len(fields))


def _item(fields: list[str], status: int, detail: Any = None) -> str:
    """A message with one answer in it."""
    number = int(fields[1]) if fields[1].isdigit() else fields[1]
    item = {"s": status, "i": number, "d": detail}
    return f"a[{json.dumps({name: value for name, value in item.items() if value is not None})}]"


def _planned(fields: list[str], fault: Fault) -> str:
    """What a fault says in place of the server."""
    if fault.kind in ("status", "json"):
        return _item(fields, fault.status or 200, fault.payload)
    payload = PAGE if fault.kind == "html" else fault.payload
    return payload.decode("latin-1") if isinstance(payload, bytes) else str(payload)

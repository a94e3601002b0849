"""The WebSocket as far as the authorize frame: who may open it, and that it stays open (P§1.4)."""

from __future__ import annotations

import json

from tradovate_auth.testing.emulator._aiohttp import WSMsgType, web
from tradovate_auth.testing.emulator._state import State

_FIELDS = 4


async def serve_socket(request: web.BaseRequest, state: State) -> web.WebSocketResponse:
    """Serves one socket until the client leaves or the server stops.

    The token may be raw or quoted, and of either kind; any id is taken (P§9.34). Once authorised the socket stays so,
    whatever becomes of the token (P§9.35).
    """
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.send_str("o")
    authorized = False
    async for message in socket:
        if message.type is not WSMsgType.TEXT or message.data == "[]":
            continue
        fields = message.data.split("\n", _FIELDS - 1)
        if len(fields) < _FIELDS - 1:
            continue
        fields += [""] * (_FIELDS - len(fields))
        if fields[0] == "authorize":
            authorized = _opens(state, fields[3])
        await socket.send_str(f"a[{json.dumps(_reply(fields, authorized=authorized))}]")
    return socket


def _opens(state: State, text: str) -> bool:
    token = text.strip()
    if token.startswith('"'):
        token = token.strip('"')
    with state.lock:
        return state.sessions.opens_socket(token, state.clock())


def _reply(fields: list[str], *, authorized: bool) -> dict[str, object]:
    number = int(fields[1]) if fields[1].isdigit() else fields[1]
    if authorized:
        return {"s": 200, "i": number}
    return {"s": 401, "i": number, "d": "Invalid access token"}

"""Faults that meet the authorize frame of a WebSocket, seen from a client over a real socket."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from core_tools import eventually
from test_emulator import Client, Ticker, client, clock, server

from tradovate_auth.testing.emulator import Emulator, Fault

__all__ = ["client", "clock", "server"]  # fixtures


async def talk(server: Emulator, *frames: str) -> list[Any]:
    """What a socket answers to these frames, one each, until it is closed."""
    answers: list[Any] = []
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}/websocket") as ws:
        await ws.receive_str()
        for frame in frames:
            await ws.send_str(frame)
            answer = await ws.receive()
            answers.append(answer.data if answer.type is aiohttp.WSMsgType.TEXT else "closed")
    return answers


def authorize(token: str, number: int = 1) -> str:
    """The frame."""
    return f"authorize\n{number}\n\n{token}"


OK = 'a[{"s": 200, "i": 1}]'
REFUSED = 'a[{"s": 401, "i": 1, "d": "Invalid access token"}]'


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault("authorize", "status", status=429), 'a[{"s": 429, "i": 1}]'),
        (Fault("authorize", "status", status=503, payload="busy"), 'a[{"s": 503, "i": 1, "d": "busy"}]'),
        (
            Fault("authorize", "json", payload={"p-ticket": "x", "p-time": 15}),
            'a[{"s": 200, "i": 1, "d": {"p-ticket": "x", "p-time": 15}}]',
        ),
        (Fault("authorize", "body", payload="anot json"), "anot json"),
        (Fault("authorize", "body", payload=b'a["x"]'), 'a["x"]'),
        (Fault("authorize", "html"), "<html><h1>Scheduled maintenance</h1></html>"),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
def test_planned_answers(client: Client, server: Emulator, fault: Fault, text: str) -> None:
    """The frame is answered as planned, once, and has opened nothing; the next one is decided upon."""
    server.inject(fault)
    frames = (authorize(client.token()), "user/list\n1\n\n", authorize(client.token()))
    assert asyncio.run(talk(server, *frames)) == [text, REFUSED, OK]


def test_half_an_answer(client: Client, server: Emulator) -> None:
    """Half of the answer arrives, and the socket was authorised."""
    server.inject(Fault("authorize", "truncate"))
    answers = asyncio.run(talk(server, authorize(client.token()), "user/list\n1\n\n"))
    assert answers == [OK[: len(OK) // 2], OK]


@pytest.mark.parametrize("kind", ["drop", "drop_after"])
def test_a_dropped_socket(client: Client, server: Emulator, kind: Any) -> None:
    """The connection is closed in place of an answer, and the next socket is served."""
    server.inject(Fault("authorize", kind))
    token = client.token()
    assert asyncio.run(talk(server, authorize(token))) == ["closed"]
    assert asyncio.run(talk(server, authorize(token))) == [OK]


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        (Fault("authorize", "hang", seconds=0.02), OK),
        (Fault("authorize", "hang", seconds=0.02, then="close"), "closed"),
        (Fault("authorize", "late", seconds=0.02), OK),
    ],
    ids=["hang", "hang, then close", "late"],
)
def test_an_answer_that_takes_its_time(client: Client, server: Emulator, fault: Fault, answer: str) -> None:
    """A frame that hangs is decided upon afterwards, or never; a late one is answered in the end."""
    server.inject(fault)
    assert asyncio.run(talk(server, authorize(client.token()))) == [answer]


@pytest.mark.parametrize(("kind", "answer"), [("hang", REFUSED), ("late", OK)])
def test_when_a_frame_that_waits_is_decided_upon(
    client: Client, server: Emulator, clock: Ticker, kind: Any, answer: str
) -> None:
    """After the wait of a hang, and before that of a late answer: the session that ends meanwhile tells."""
    token = client.token()
    server.inject(Fault("authorize", kind))
    asked: list[float] = []
    server._state.clock = lambda: asked.append(0.0) or clock.now  # type: ignore[func-returns-value]

    def waits() -> bool:
        return not server._state.faults and (kind == "hang" or bool(asked))

    async def ended_meanwhile() -> str:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}/websocket") as ws:
            await ws.receive_str()
            await ws.send_str(authorize(token))
            await asyncio.to_thread(eventually, waits)
            server.revoke()
            server.release()
            return await ws.receive_str()

    assert asyncio.run(ended_meanwhile()) == answer


def test_only_the_frame_is_met(client: Client, server: Emulator) -> None:
    """Faults for the frame meet no request, and those for calls, or for everything, meet no frame."""
    server.inject(Fault("authorize", "status", status=503))
    token = client.token()
    assert client.call(token).status == 200
    assert asyncio.run(talk(server, "user/list\n1\n\n", authorize(token)))[-1] == 'a[{"s": 503, "i": 1}]'
    server.inject(Fault("calls", "status", status=503, skip=1, times=None))
    server.inject(Fault("*", "status", status=503, skip=1, times=None))
    assert asyncio.run(talk(server, authorize(token))) == [OK]


def test_a_planned_answer_is_json(client: Client, server: Emulator) -> None:
    """Any JSON value may be the answer's detail."""
    server.inject(Fault("authorize", "json", payload=[1, {"a": None}]))
    (text,) = asyncio.run(talk(server, authorize(client.token())))
    assert json.loads(text[1:]) == [{"s": 200, "i": 1, "d": [1, {"a": None}]}]


def test_a_client_that_has_left(client: Client, server: Emulator) -> None:
    """A frame whose client has gone meanwhile gets its turn, has nobody to be closed for, and the server serves on."""
    token = client.token()
    server.inject(Fault("authorize", "hang", then="close", times=2))

    async def leave() -> None:
        async with aiohttp.ClientSession() as session:
            ws = await session.ws_connect(f"{server.url}/websocket")
            await ws.send_str(authorize(token))
            await ws.send_str(authorize(token))
            await asyncio.to_thread(eventually, lambda: server._state.faults._planned[0].left == 1)

    asyncio.run(leave())

    def took_the_second() -> bool:
        server.release()
        return not server._state.faults

    eventually(took_the_second)
    assert asyncio.run(talk(server, authorize(token))) == [OK]

"""The ordinary endpoints of the emulator, and its WebSocket."""

import asyncio
import hashlib
import socket
from contextlib import closing

import aiohttp
import pytest
from test_emulator import Client, client, clock, server

from tradovate_auth.testing.emulator import Emulator

__all__ = ["client", "clock", "server"]  # fixtures


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=x"])
def test_order_keeps_body_and_type(client: Client, server: Emulator, content_type: str) -> None:
    """An order is recorded with its exact bytes, its content type and its session, and gets a number."""
    body = b"--x\r\n\x00\xff\r\n--x--\r\n"
    path, headers = "/v1/order/placeOrder", {"Content-Type": content_type}
    token = client.token()
    assert client.ask(path, token, method="POST", body=body, headers=headers).json == {"orderId": 1}
    assert client.ask(path, "TEST-bad", method="POST", body=body, headers=headers).status == 401
    (order,) = server.orders
    assert (order.id, order.session, order.body, order.content_type) == (1, 1, body, content_type)
    assert server.counts.orders == 1


def test_me_names_the_user(client: Client) -> None:
    """The profile belongs to the token's user, whose token the path of auth/me needs as any call does."""
    me = client.ask("/v1/auth/me", client.token()).json
    assert (me["name"], me["userId"]) == (client.user["name"], 1001)
    assert client.ask("/v1/auth/me").status == 404


def test_me_is_served_live_only(client: Client, server: Emulator) -> None:
    """The demo environment sends whoever asks for his profile to the live one, as it does other such calls (P§1.3, P§3.1)."""
    token = client.token()
    server.configure(kind="demo")
    reply = client.ask("/v1/auth/me", token)
    assert (reply.status, reply.json) == (
        200,
        {"errorText": "This endpoint should be called on live.tradovateapi.com"},
    )
    assert client.ask("/v1/auth/me").status == 404
    server.configure(kind="live")
    assert client.ask("/v1/auth/me", token).json["name"] == client.user["name"]


def test_echo_tells_what_arrived(client: Client) -> None:
    """Headers, query, length and digest of a body of megabytes come back."""
    body = b"z" * 3_000_000
    told = client.ask("/v1/echo?a=1", client.token(), method="POST", body=body, headers={"X-One": "1"}).json
    assert (told["method"], told["query"], told["length"]) == ("POST", {"a": "1"}, len(body))
    assert (told["headers"]["X-One"], told["sha256"]) == ("1", hashlib.sha256(body).hexdigest())


def test_stream_comes_in_chunks(client: Client) -> None:
    """A stream is chunked, of the asked number and size."""
    reply = client.ask("/v1/stream?chunks=3&size=10&delay=0.001", client.token())
    assert (reply.body, reply.headers["Transfer-Encoding"]) == (b"x" * 30, "chunked")


def test_slow_answers_later(client: Client) -> None:
    """A slow call is answered after its seconds."""
    assert client.ask("/v1/slow?seconds=0.01", client.token()).json == {"slow": True}


@pytest.mark.parametrize("status", [200, 204, 304, 418, 500, 503])
def test_status_answers_any_status(client: Client, server: Emulator, status: int) -> None:
    """A call can ask for a status; only below 400 does it count as one that went well."""
    reply = client.ask(f"/v1/status/{status}", client.token())
    assert (reply.status, reply.body == b"") == (status, status in (204, 304))
    assert server.counts.calls_ok == (status < 400)


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/v1/status/99", "GET", 404),
        ("/v1/status/x", "GET", 404),
        ("/v1/no/such", "GET", 404),
        ("/v1/account/list", "POST", 404),
        ("/v1/redirect", "GET", 400),
        ("/v1/stream?size=many", "GET", 400),
        ("/v1/websocket", "GET", 400),
    ],
)
def test_what_there_is_not(client: Client, path: str, method: str, status: int) -> None:
    """Unknown paths and methods are a 404 with a body, unusable arguments a 400."""
    reply = client.ask(path, client.token(), method=method)
    assert (reply.status, reply.status == 404 and not reply.body) == (status, False)


def test_redirect_checks_the_token_unless_open(client: Client) -> None:
    """A redirect goes where it is told with the status it is told; ``open=1`` serves it without a token."""
    reply = client.ask("/v1/redirect?to=http://127.0.0.1:1/x&status=307", client.token(), method="POST")
    assert (reply.status, reply.headers["Location"]) == (307, "http://127.0.0.1:1/x")
    assert client.ask("/v1/redirect?to=/x").status == 404
    assert client.ask("/v1/redirect?to=/x&open=1").status == 302
    assert client.ask("/v1/redirect?to=/x&open=1&status=many").status == 400
    assert client.ask("/v1/auth/me?open=1").status == 404


def test_open_redirects_to_nowhere_else(client: Client) -> None:
    """The switch concerns the redirect alone."""
    assert client.ask("/v1/order/placeorder?open=1", method="POST", body=b"{}").status == 404


def test_forbidden_path(client: Client, server: Emulator) -> None:
    """A forbidden path answers 401 with a good token, until it is allowed again; other paths are open."""
    token = client.token()
    server.forbid("/Account/list")
    reply = client.call(token)
    assert (reply.status, reply.json["errorText"]) == (401, "Access is denied")
    assert client.ask("/v1/auth/me", token).status == 200
    server.allow("account/list")
    assert (client.call(token).status, server.counts.calls_forbidden) == (200, 1)


@pytest.mark.parametrize("early", [False, True])
def test_401_of_an_upload(client: Client, server: Emulator, early: bool) -> None:
    """Early, the 401 is there before the body was sent; otherwise only with its last byte."""
    server.configure(early_401=early)
    head = "POST /v1/echo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer bad\r\nContent-Length: 100000\r\n\r\n"
    with closing(socket.create_connection((server.host, server.port), timeout=10)) as raw:
        raw.sendall(head.encode() + b"x" * 50_000)
        if not early:
            raw.sendall(b"x" * 50_000)
        assert raw.recv(12) == b"HTTP/1.1 401"
    assert client.ask("/v1/echo", client.token(), method="POST", body=b"12").json["length"] == 2


def test_expect_continue_is_answered(client: Client, server: Emulator) -> None:
    """A client that asks before it uploads is told to go on."""
    token = client.token()
    head = f"POST /v1/echo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    head += "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    with closing(socket.create_connection((server.host, server.port), timeout=10)) as raw:
        raw.sendall(head.encode())
        assert raw.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(b"ok")
        assert raw.recv(12) == b"HTTP/1.1 200"


def test_body_beyond_the_limit(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body above the limit is refused with 413."""
    token = client.token()
    monkeypatch.setattr("tradovate_auth.testing.emulator._dispatch.BODY_LIMIT", 10)
    assert client.ask("/v1/echo", token, method="POST", body=b"x" * 11).status == 413


async def talk(server: Emulator, frames: list[str]) -> list[str]:
    """What a socket answers to these frames, each of which has one answer, and its greeting."""
    answers = []
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}/websocket") as ws:
        answers.append(await ws.receive_str())
        await ws.send_bytes(b"ignored")
        await ws.send_str("[]")
        await ws.send_str("no\nframe")
        for frame in frames:
            await ws.send_str(frame)
            answers.append(await ws.receive_str())
    return answers


def test_socket_is_authorized_by_a_frame(client: Client, server: Emulator) -> None:
    """Raw, quoted and market data tokens authorise under any id; a wrong one gets 401, as do calls before (P§9.34)."""
    granted = client.login().json
    token, md_token = granted["accessToken"], granted["mdAccessToken"]
    frames = ["user/list\n7\n", "authorize\n0\n\nbad", f"authorize\n1\n\n{token}", "user/list\n2\n\n"]
    refused = '"d": "Invalid access token"'
    expected = ["o", f'a[{{"s": 401, "i": 7, {refused}}}]', f'a[{{"s": 401, "i": 0, {refused}}}]']
    expected += ['a[{"s": 200, "i": 1}]', 'a[{"s": 200, "i": 2}]']
    assert asyncio.run(talk(server, frames)) == expected
    frames = [f'authorize\nabc\n\n"{md_token}"']
    assert asyncio.run(talk(server, frames)) == ["o", 'a[{"s": 200, "i": "abc"}]']


def test_socket_stays_open_after_the_end_of_its_token(client: Client, server: Emulator) -> None:
    """A socket that was authorised stays so when the sessions end (P§9.35)."""
    token = client.token()

    async def talk_on() -> str:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}/websocket") as ws:
            await ws.receive_str()
            await ws.send_str(f"authorize\n1\n\n{token}")
            await ws.receive_str()
            server.revoke()
            await ws.send_str("user/list\n2\n\n")
            return await ws.receive_str()

    assert asyncio.run(talk_on()) == 'a[{"s": 200, "i": 2}]'


def test_stop_closes_sockets(server: Emulator) -> None:
    """The end of the server is the end of its sockets."""

    async def outlive() -> aiohttp.WSMsgType:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}/websocket") as ws:
            await ws.receive_str()
            await asyncio.to_thread(server.stop)
            return (await ws.receive()).type

    assert asyncio.run(outlive()) in (
        aiohttp.WSMsgType.CLOSED,
        aiohttp.WSMsgType.CLOSE,
        aiohttp.WSMsgType.ERROR,
    )


def test_socket_on_a_wrong_host_is_misdirected(client: Client, server: Emulator) -> None:
    """A socket under a foreign host name gets 421, whatever calls get there (P§1.2)."""
    server.configure(api_hosts={"live": "localhost"}, wrong_host="307")
    assert client.ask("/v1/websocket", headers={"Upgrade": "websocket"}).status == 421

"""The transports of the auth calls: what they send, what they believe, and which one is taken."""

import importlib.util
import json
from typing import Any

import pytest
from stacks import AIOHTTP, HTTPX, HTTPX2, REQUESTS, Stack, plain_environment
from transport_tools import SECRET, TOKEN, RawServer, answering, call_to, every_transport

from tradovate_auth import ConfigurationError, Credentials, TokenProvider
from tradovate_auth._wire import Granted, login_call, read_reply, renewal_call
from tradovate_auth.storage import MemoryStorage
from tradovate_auth.testing import Emulator
from tradovate_auth.transport import Reply, first_installed

__all__ = ["plain_environment"]  # a fixture


@every_transport
def test_login_and_renewal(stack: Stack, tradovate_emulator: Emulator) -> None:
    """Both auth calls arrive as they were made and their answers as they were sent."""
    credentials = Credentials(**tradovate_emulator.credentials)
    transport = stack.transport()
    reply = transport.send(login_call(credentials, tradovate_emulator.url), 5.0)
    verdict = read_reply(reply)
    assert isinstance(verdict, Granted)
    assert (reply.status, reply.header("content-type")) == (200, "application/json")
    token = TokenProvider(
        credentials, environment=tradovate_emulator.url, storage=MemoryStorage(), transport=transport
    )
    with token as provider:
        renewal = transport.send(renewal_call(provider.get(), tradovate_emulator.url), 5.0)
        assert isinstance(read_reply(renewal), Granted)
    login = tradovate_emulator.requests[0]
    assert (login.method, login.headers["Content-Type"], login.authorization) == (
        "POST",
        "application/json",
        None,
    )
    assert json.loads(login.body)["password"] == credentials.password
    asked = tradovate_emulator.requests[-1]
    assert (asked.method, asked.headers["Accept"], asked.headers.get("Content-Length")) == (
        "GET",
        "application/json",
        None,
    )


@every_transport
def test_redirects_are_not_followed(stack: Stack) -> None:
    """A redirect is an answer, whatever its status: nothing is sent to where it points."""
    with RawServer(lambda _: None) as trap:
        for status in (301, 302, 303, 307, 308):
            head = (
                f"HTTP/1.1 {status} Moved\r\nLocation: {trap.url}\r\nContent-Length: 0\r\nConnection: close"
            )
            with RawServer(answering(head.encode())) as server:
                reply = stack.transport().send(call_to(server.url), 5.0)
            assert (reply.status, reply.header("location")) == (status, trap.url)
        assert trap.arrived == []


@every_transport
def test_compressed_answers_are_unpacked(stack: Stack) -> None:
    """A gzip answer is read as what it holds, chunked or not."""
    import gzip

    packed = gzip.compress(b'{"errorText": "no"}' * 100)
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(packed), packed)
    for head, body in (
        (f"Content-Length: {len(packed)}".encode(), packed),
        (b"Transfer-Encoding: chunked", chunked),
    ):
        answer = answering(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Encoding: gzip\r\n" + head, body)
        with RawServer(answer) as server:
            reply = stack.transport().send(call_to(server.url), 5.0)
        assert reply.body == b'{"errorText": "no"}' * 100


@pytest.mark.parametrize(
    ("missing", "stack"),
    [
        ((), HTTPX2),
        (("httpx2",), HTTPX),
        (("httpx2", "httpx"), REQUESTS),
        (("httpx2", "httpx", "requests"), AIOHTTP),
    ],
)
def test_the_first_installed_library_carries_a_bare_provider(
    missing: tuple[str, ...], stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is httpx2, httpx, requests, aiohttp."""
    _hide(monkeypatch, *missing)
    assert type(first_installed()) is stack.transport


def test_without_any_library_the_advice_is_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """No client library at all is a configuration error that says what to install."""
    _hide(monkeypatch, "httpx2", "httpx", "requests", "aiohttp")
    with pytest.raises(ConfigurationError, match="pip install"):
        first_installed()


def _hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str) -> Any:
        return None if name in names else real(name)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


def test_replies_and_calls_show_no_secret() -> None:
    """Neither a call nor a reply shows headers or bodies."""
    reply = Reply(200, {"X-Token": TOKEN, "Date": "now"}, SECRET.encode())
    shown = repr(call_to("http://127.0.0.1/v1/x")) + repr(reply)
    assert (SECRET in shown, TOKEN in shown) == (False, False)
    assert (reply.header("date"), reply.header("absent")) == ("now", None)

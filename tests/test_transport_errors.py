"""When an auth call fails: whether the request may have arrived, when it ends, and what the error says."""

import contextlib
import socket
import threading
import time
from typing import Any

import pytest
from stacks import Stack, plain_environment
from transport_tools import SECRET, RawServer, answering, call_to, every_transport, fails, free_port

from tradovate_auth import TransportError
from tradovate_auth._sending import look_up, root_cause, within
from tradovate_auth.testing import Emulator
from tradovate_auth.testing.emulator import Fault
from tradovate_auth.transport import ANSWER_LIMIT, Call, Reply

__all__ = ["plain_environment"]  # a fixture


@every_transport
def test_refused_connections_were_not_sent(stack: Stack) -> None:
    """Nobody listens: not sent, and the error says what it was."""
    error = fails(stack, f"http://127.0.0.1:{free_port()}/v1/x")
    assert error.sent is False
    assert "refused" in error.message.lower() or "connection" in error.message.lower()


@every_transport
def test_unknown_names_were_not_sent(stack: Stack) -> None:
    """A name that does not resolve: not sent."""
    assert fails(stack, "http://no-such-host.invalid/v1/x", timeout=20.0).sent is False


@every_transport
def test_a_connection_that_never_comes_was_not_sent(stack: Stack) -> None:
    """A host that swallows connection attempts: not sent, and given up before the whole time is over."""
    with contextlib.ExitStack() as opened:
        full = opened.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        assert fails(stack, f"http://127.0.0.1:{full.getsockname()[1]}/v1/x", timeout=0.6).sent is False


@every_transport
@pytest.mark.parametrize("kind", ["drop_after", "truncate", "hang"])
def test_lost_answers_may_have_been_sent(stack: Stack, kind: Any, tradovate_emulator: Emulator) -> None:
    """A connection that breaks, an answer cut short, none at all: the login may have opened a session."""
    tradovate_emulator.inject(Fault("login", kind))
    error = fails(stack, f"{tradovate_emulator.url}/auth/accesstokenrequest", timeout=0.6)
    assert error.sent is True
    tradovate_emulator.release()


@every_transport
def test_an_answer_that_is_no_http(stack: Stack) -> None:
    """Garbage for an answer: sent, and an error."""
    with RawServer(answering(b"\x00\x01 what?")) as server:
        assert fails(stack, server.url).sent is True


@every_transport
def test_an_unpackable_answer(stack: Stack) -> None:
    """An answer that says gzip and is none: sent, and an error."""
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Encoding: gzip\r\nContent-Length: 4"
    with RawServer(answering(head, b"none")) as server:
        assert fails(stack, server.url).sent is True


@every_transport
@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"], ids=["head", "body"]
)
def test_the_whole_exchange_has_one_deadline(stack: Stack, head: bytes) -> None:
    """A server that sends a byte now and then, in the head or in the body, does not hold a call beyond its time."""

    def trickle(connection: socket.socket) -> None:
        connection.sendall(head or b"HTTP/1.1 200 OK\r\n")
        while not server.over.wait(0.02):
            connection.sendall(b"x" if head else b"X: y\r\n")

    with RawServer(trickle) as server:
        started = time.monotonic()
        assert fails(stack, server.url, timeout=0.5).sent is True
        assert time.monotonic() - started < 0.5 * 6  # it would be twenty seconds


@every_transport
@pytest.mark.parametrize("chunked", [True, False])
def test_answers_beyond_the_limit_are_not_read(stack: Stack, chunked: bool) -> None:
    """An answer of more than a megabyte is given up on the way, whether its length was announced or not."""

    def flood(connection: socket.socket) -> None:
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 999999999"
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
        piece = b"10000\r\n" + b"x" * 65536 + b"\r\n" if chunked else b"x" * 65536
        for _ in range(64 * ANSWER_LIMIT // 65536):
            sent.append(len(piece))
            connection.sendall(piece)

    sent: list[int] = []
    with RawServer(flood) as server:
        assert fails(stack, server.url).sent is True
    assert sum(sent) < 32 * ANSWER_LIMIT


@every_transport
def test_an_answer_of_just_the_limit_is_read(stack: Stack) -> None:
    """A megabyte is still an answer."""
    head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {ANSWER_LIMIT}".encode()
    with RawServer(answering(head, b"x" * ANSWER_LIMIT)) as server:
        assert len(stack.transport().send(call_to(server.url), 10.0).body) == ANSWER_LIMIT


@every_transport
def test_a_name_that_cannot_be_found_in_time_was_not_sent(
    stack: Stack, tradovate_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver that hangs longer than the call may take costs no login: nothing was sent, nor is it when it comes back."""
    hanging, back, found = threading.Event(), threading.Event(), threading.Event()
    real = socket.getaddrinfo

    def resolve(*args: Any, **options: Any) -> Any:
        hanging.set()
        back.wait(20)
        found.set()
        return real(*args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    url = f"http://localhost:{tradovate_emulator.port}/v1/auth/accesstokenrequest"
    with pytest.raises(TransportError) as caught:
        stack.transport().send(Call("POST", url, {}, SECRET.encode()), 0.2)
    assert not caught.value.sent
    assert hanging.is_set()
    assert not found.is_set(), "the call has its own end of time"
    back.set()
    for thread in threading.enumerate():
        if thread.name == "tradovate_auth call":
            thread.join(20)
    assert tradovate_emulator.counts.logins == 0


def test_what_is_given_up_does_not_begin_and_what_has_begun_was_sent() -> None:
    """Either the exchange begins, or its end of time says that it was not sent: never both, never neither."""
    back, begun = threading.Event(), threading.Event()

    def exchange() -> Reply:
        begun.set()
        back.wait(20)
        return Reply(200, {}, b"")

    with pytest.raises(TransportError, match="could not be found") as caught:
        within(0.05, exchange, lambda: back.wait(20))
    assert not caught.value.sent
    back.set()
    for thread in threading.enumerate():
        if thread.name == "tradovate_auth call":
            thread.join(20)
    assert not begun.is_set()
    back.clear()
    with pytest.raises(TransportError, match="did not answer") as caught:
        within(1.0, exchange)
    assert caught.value.sent
    assert begun.is_set()
    back.set()


def test_names_are_looked_up_by_whoever_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that a proxy will resolve is not asked for here: that may take long, or be seen where it should not."""
    asked: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: asked.append(host))
    look_up("http://name.invalid/v1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "other.invalid")
    look_up("http://name.invalid/v1")
    look_up("http://other.invalid/v1")
    assert asked == ["name.invalid", "other.invalid"]
    monkeypatch.undo()
    look_up("http://no-such-host.invalid/v1")  # a failure is for the library to tell


def test_within_hands_on_what_is_no_transport_error() -> None:
    """A fault of the code in an exchange comes out of it as it is, not as a time-out."""

    def broken() -> Reply:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        within(5.0, broken)


def test_within_needs_no_thread_at_the_end_of_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started any more, the exchange is made on the caller's."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    here = threading.get_ident()
    assert within(5.0, lambda: Reply(threading.get_ident(), {}, b"")).status == here


def test_root_cause_names_the_bottom_and_no_text() -> None:
    """Of a chain only the innermost type and the system's own words are told; loops end."""
    inner = OSError(111, "Connection refused")
    outer = ValueError(f"while sending {SECRET}")
    outer.__cause__ = RuntimeError(SECRET, inner)
    assert root_cause(outer) == "ConnectionRefusedError (Connection refused)"
    assert root_cause(ValueError(SECRET)) == "ValueError"
    outer.__cause__ = None
    outer.__context__ = outer
    assert root_cause(outer) == "ValueError"

"""What the tests of the transports share: a server that answers as it is told, a call with secrets, and what its errors may show."""

import contextlib
import gc
import json
import re
import socket
import ssl
import threading
import traceback
from collections.abc import Callable
from typing import Any, Self

import pytest
from stacks import AIOHTTP, HTTPX, HTTPX2, REQUESTS, Stack

from tradovate_auth import LoginRefused, TransportError
from tradovate_auth.transport import Call

__all__ = [
    "SECRET",
    "STACKS",
    "TOKEN",
    "RawServer",
    "answering",
    "assert_discreet",
    "call_to",
    "every_transport",
    "fails",
    "free_port",
]

STACKS = (REQUESTS, HTTPX, HTTPX2, AIOHTTP)
every_transport = pytest.mark.parametrize("stack", STACKS, ids=str)
SECRET = "s3cret-in-the-body"
TOKEN = "t0ken-in-the-header"


class RawServer:
    """A server that does with a connection whatever its function does; it keeps what arrived on each."""

    def __init__(
        self, answer: Callable[[socket.socket], None], context: ssl.SSLContext | None = None
    ) -> None:
        self.arrived: list[bytes] = []
        self._answer = answer
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            connection = opened.enter_context(plain)
            connection.settimeout(20)
            if self._context is not None:
                connection = opened.enter_context(self._context.wrap_socket(connection, server_side=True))
            received, missing = b"", 1
            while (
                missing > 0
            ):  # closing with something unread would reset the connection, and the answer with it
                piece = connection.recv(65536)
                if not piece:
                    return
                received += piece
                head, end, body = received.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: *([0-9]+)", head)
                missing = (int(length[1]) - len(body) if length else 0) if end else 1
            self.arrived.append(received)
            self._answer(connection)

    @property
    def url(self) -> str:
        """Where it listens, without TLS."""
        return f"http://127.0.0.1:{self.port}/v1/auth/accesstokenrequest"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._accepting.join()
        for thread in self._threads:
            thread.join()


def answering(head: bytes, body: bytes = b"") -> Callable[[socket.socket], None]:
    """Answer with these bytes."""
    return lambda connection: connection.sendall(head + b"\r\n\r\n" + body)


def call_to(url: str) -> Call:
    """A call with a secret in its body and another in a header."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    return Call("POST", url, headers, json.dumps({"password": SECRET}).encode())


def fails(stack: Stack, url: str, *, timeout: float = 5.0, **options: Any) -> TransportError:
    """The error of a call that must fail."""
    with pytest.raises(TransportError) as caught:
        stack.transport(**options).send(call_to(url), timeout)
    assert_discreet(caught.value)
    gc.collect()  # a socket that nobody has closed is a ResourceWarning, and that an error
    return caught.value


def assert_discreet(error: BaseException) -> None:
    """No secret in any text of the error, nor in any object that hangs on it or on what came before it."""
    shown = [str(error), repr(error), *traceback.format_exception(error, chain=True)]
    waiting: list[BaseException | None] = [error]
    seen: list[BaseException] = []
    while waiting:
        each = waiting.pop()
        if each is None or each in seen:
            continue
        seen.append(each)
        waiting += [each.__cause__, each.__context__]
        shown.append(repr(each.args))
        for value in vars(each).values():
            shown.append(repr(value))
            shown.append(repr(vars(value)) if hasattr(value, "__dict__") else "")
    assert all(isinstance(each, TransportError | LoginRefused) for each in seen)
    for secret in (SECRET, TOKEN):
        assert not [text for text in shown if secret in text]


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port

"""One interface over the client libraries, for what must be the same in all of them.

A `Stack` opens clients; a `Client` makes calls and returns plain `Answer`s. Asynchronous clients run on an event loop in a
thread of their own, so that a test is written once, without colour, and can make many calls at once with `submit`.
"""

import contextlib
import hashlib
import io
import os
import ssl
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import ModuleType, TracebackType
from typing import Any, Final, Self

import aiohttp
import anyio.from_thread
import httpx
import httpx2
import pytest
import requests
from requests.adapters import HTTPAdapter

import tradovate_auth.aiohttp
import tradovate_auth.httpx
import tradovate_auth.httpx2
import tradovate_auth.requests
from tradovate_auth import Credentials, TokenProvider
from tradovate_auth.storage import MemoryStorage
from tradovate_auth.testing import Emulator
from tradovate_auth.transport import Transport

__all__ = [
    "ALL",
    "ASYNC",
    "Answer",
    "Body",
    "Client",
    "Stack",
    "every_stack",
    "plain_environment",
    "tradovate_provider",
]

PATIENCE = 60.0  # seconds for any one call: a hang is a failure, not a wait
WORKERS = 24
NO_ROOTS: Final = ssl.SSLContext(
    ssl.PROTOCOL_TLS_CLIENT
)  # nothing here speaks TLS, and loading roots takes longer than a test


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the machine's own proxies, netrc and credentials out of a test, and the price of a hash off its time."""
    scrypt = hashlib.scrypt
    monkeypatch.setattr(hashlib, "scrypt", lambda *args, **options: scrypt(*args, **{**options, "n": 2}))
    for name in tuple(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("TRADOVATE_") or name == "NETRC":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/nonexistent")


@pytest.fixture
def tradovate_provider(
    tradovate_emulator: Emulator, tradovate_credentials: Credentials
) -> Iterator[TokenProvider]:
    """Yield a provider for the emulator's user whose auth calls load no trusted roots."""
    with TokenProvider(
        tradovate_credentials,
        environment=tradovate_emulator.url,
        storage=MemoryStorage(),
        transport=tradovate_auth.requests.RequestsTransport(),
    ) as provider:
        yield provider


@dataclass(frozen=True)
class Answer:
    """What a caller sees of a response."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    history: tuple[int, ...] = ()
    was_read: bool = True
    """Whether the library had read the body before the caller asked for it."""
    elapsed: float = 0.0
    url: str = ""


@dataclass
class Body:
    """A request's body, of a kind that each library is given in its own way.

    Attributes:
        kind: "json", "bytes", "text", "form", "multipart" (bytes), "multipart-file", "multipart-pipe", "file" and
            "bytesio" (both at an offset), "generator" (asynchronous where the client is), "pipe".
        payload: What the server is to get, inside a form or a multipart where it is one.
    """

    kind: str
    payload: bytes = b'{"symbol": "ESZ6", "orderQty": 1}'
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, repr=False)

    def opened(self) -> Any:
        """The object behind "file", "bytesio", "pipe" and their multiparts."""
        if self.kind.endswith("pipe"):
            return self._pipe()
        stream: Any
        if self.kind == "bytesio":
            stream = io.BytesIO()
        else:
            stream = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the rest
            self._open.callback(stream.close)
        offset = 0 if self.kind.startswith("multipart") else 4
        stream.write(b"HEAD"[:offset] + self.payload)
        stream.seek(offset)
        return stream

    def _pipe(self) -> Any:
        reading, writing = os.pipe()
        os.write(writing, self.payload)
        os.close(writing)
        return self._open.enter_context(os.fdopen(reading, "rb"))

    def generator(self) -> Iterator[bytes]:
        """The payload in two pieces, once."""
        middle = len(self.payload) // 2
        yield self.payload[:middle]
        yield self.payload[middle:]

    async def agenerator(self) -> AsyncIterator[bytes]:
        """The same, asynchronously."""
        for piece in self.generator():
            yield piece

    def close(self) -> None:
        """Close what was opened."""
        self._open.close()


@dataclass(frozen=True)
class _Asked:
    method: str
    url: str
    body: Body | None
    headers: dict[str, str]
    follow: bool
    stream: bool
    options: dict[str, Any]


class Client(ABC):
    """One session or client of a library, with the auth object under test."""

    def submit(
        self,
        method: str,
        url: str,
        *,
        body: Body | None = None,
        follow: bool = True,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        **options: Any,
    ) -> "Future[Answer]":
        """Start a call; its outcome is in the future. With `stream`, the body is read only after the call."""
        return self._submit(_Asked(method, url, body, dict(headers or {}), follow, stream, options))

    def call(self, method: str, url: str, **options: Any) -> Answer:
        """Make a call and wait for it; arguments as for `submit`."""
        return self.submit(method, url, **options).result(PATIENCE)

    def get(self, url: str, **options: Any) -> Answer:
        """Make a GET."""
        return self.call("GET", url, **options)

    def post(self, url: str, body: Body, **options: Any) -> Answer:
        """Make a POST, and close what the body has opened."""
        with contextlib.closing(body):
            return self.call("POST", url, body=body, **options)

    @abstractmethod
    def _submit(self, asked: "_Asked") -> "Future[Answer]": ...

    @property
    @abstractmethod
    def cookies(self) -> Mapping[str, str]:
        """What lies in the cookie jar."""

    @abstractmethod
    def close(self) -> None:
        """Close the library's object and the threads behind it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Sync(Client):
    def __init__(self) -> None:
        self._workers = ThreadPoolExecutor(WORKERS)

    def _submit(self, asked: "_Asked") -> "Future[Answer]":
        return self._workers.submit(self._send, asked)

    @abstractmethod
    def _send(self, asked: "_Asked") -> Answer: ...

    def close(self) -> None:
        self._workers.shutdown()


class RequestsClient(_Sync):
    """A `requests.Session`."""

    def __init__(self, auth: Any, pool: int | None, options: dict[str, Any]) -> None:
        super().__init__()
        self.session = requests.Session()
        self.session.auth = auth
        for name, value in options.items():
            setattr(self.session, name, value)
        for prefix in ("http://", "https://"):
            self.session.mount(prefix, HTTPAdapter(pool_maxsize=pool or WORKERS, pool_block=pool is not None))

    def _send(self, asked: "_Asked") -> Answer:
        response = self.session.request(
            asked.method,
            asked.url,
            headers=asked.headers,
            allow_redirects=asked.follow,
            stream=asked.stream,
            **_requests_body(asked.body),
            **asked.options,
        )
        with response:
            was_read = response._content_consumed
            return Answer(
                response.status_code,
                {name.lower(): value for name, value in response.headers.items()},
                response.content,
                tuple(each.status_code for each in response.history),
                was_read,
                response.elapsed.total_seconds(),
                response.url,
            )

    @property
    def cookies(self) -> Mapping[str, str]:
        return {each.name: str(each.value) for each in self.session.cookies}

    def close(self) -> None:
        super().close()
        self.session.close()


def _requests_body(body: Body | None) -> dict[str, Any]:
    if body is None:
        return {}
    if body.kind == "generator":
        return {"data": body.generator()}
    return _common_body(body, "data") or {"data": body.opened()}


def _common_body(body: Body, content: str) -> dict[str, Any]:
    """What requests and httpx are given alike; `content` is the name of the argument for bytes."""
    if body.kind == "json":
        return {"json": {"text": body.payload.decode()}}
    if body.kind == "bytes":
        return {content: body.payload}
    if body.kind == "text":
        return {content: body.payload.decode()}
    if body.kind == "form":
        return {"data": {"text": body.payload.decode(), "qty": "1"}}
    if body.kind == "multipart":
        return {"files": {"order": ("order.json", body.payload)}, "data": {"qty": "1"}}
    if body.kind.startswith("multipart"):
        return {"files": {"order": ("order.json", body.opened())}, "data": {"qty": "1"}}
    return {}


class HttpxClient(_Sync):
    """A synchronous client of httpx or httpx2."""

    def __init__(self, library: ModuleType, auth: Any, pool: int | None, options: dict[str, Any]) -> None:
        super().__init__()
        limits = library.Limits(max_connections=pool or WORKERS)
        options = {"verify": NO_ROOTS, "timeout": PATIENCE, **options}
        self.client = library.Client(auth=auth, limits=limits, **options)

    def _send(self, asked: "_Asked") -> Answer:
        content = _httpx_body(asked.body, asynchronous=False)
        if not asked.stream:
            response = self.client.request(
                asked.method,
                asked.url,
                headers=asked.headers,
                follow_redirects=asked.follow,
                **content,
                **asked.options,
            )
            return _httpx_answer(response, was_read=True)
        with self.client.stream(
            asked.method,
            asked.url,
            headers=asked.headers,
            follow_redirects=asked.follow,
            **content,
            **asked.options,
        ) as response:
            was_read = response.is_stream_consumed
            response.read()
        return _httpx_answer(response, was_read=was_read)

    @property
    def cookies(self) -> Mapping[str, str]:
        return dict(self.client.cookies)

    def close(self) -> None:
        super().close()
        self.client.close()


def _httpx_body(body: Body | None, *, asynchronous: bool) -> dict[str, Any]:
    if body is None:
        return {}
    if body.kind == "generator":
        return {"content": body.agenerator() if asynchronous else body.generator()}
    return _common_body(body, "content") or {"content": body.opened()}


def _httpx_answer(response: Any, *, was_read: bool) -> Answer:
    return Answer(
        response.status_code,
        {name.lower(): value for name, value in response.headers.items()},
        response.content,
        tuple(each.status_code for each in response.history),
        was_read,
        response.elapsed.total_seconds(),
        str(response.url),
    )


class _Async(Client):
    """A client on an event loop in a thread of its own."""

    def __init__(self, backend: str, opening: Callable[[], Any]) -> None:
        self._portals = anyio.from_thread.start_blocking_portal(backend)
        self.portal = self._portals.__enter__()
        self.client = self.portal.call(_awaiting(opening))

    def _submit(self, asked: "_Asked") -> "Future[Answer]":
        return self.portal.start_task_soon(self._send, asked)

    @abstractmethod
    async def _send(self, asked: "_Asked") -> Answer: ...

    @abstractmethod
    async def _close(self) -> None: ...

    def close(self) -> None:
        self.portal.call(self._close)
        self._portals.__exit__(None, None, None)


def _awaiting(opening: Callable[[], Any]) -> Callable[[], Any]:
    async def opened() -> Any:
        return opening()

    return opened


class HttpxAsyncClient(_Async):
    """An asynchronous client of httpx or httpx2, on asyncio or trio."""

    def __init__(
        self, library: ModuleType, backend: str, auth: Any, pool: int | None, options: dict[str, Any]
    ) -> None:
        limits = library.Limits(max_connections=pool or WORKERS)
        options = {"verify": NO_ROOTS, "timeout": PATIENCE, **options}
        super().__init__(backend, lambda: library.AsyncClient(auth=auth, limits=limits, **options))

    async def _send(self, asked: "_Asked") -> Answer:
        content = _httpx_body(asked.body, asynchronous=True)
        if not asked.stream:
            response = await self.client.request(
                asked.method,
                asked.url,
                headers=asked.headers,
                follow_redirects=asked.follow,
                **content,
                **asked.options,
            )
            return _httpx_answer(response, was_read=True)
        async with self.client.stream(
            asked.method,
            asked.url,
            headers=asked.headers,
            follow_redirects=asked.follow,
            **content,
            **asked.options,
        ) as response:
            was_read = response.is_stream_consumed
            await response.aread()
        return _httpx_answer(response, was_read=was_read)

    @property
    def cookies(self) -> Mapping[str, str]:
        return dict(self.client.cookies)

    async def _close(self) -> None:
        await self.client.aclose()


class AiohttpClient(_Async):
    """An `aiohttp.ClientSession`."""

    def __init__(self, auth: Any, pool: int | None, options: dict[str, Any]) -> None:
        super().__init__(
            "asyncio",
            lambda: aiohttp.ClientSession(
                **{
                    "middlewares": (auth,),
                    "connector": aiohttp.TCPConnector(limit=pool or WORKERS),
                    "cookie_jar": aiohttp.CookieJar(unsafe=True),
                    "timeout": aiohttp.ClientTimeout(total=PATIENCE),
                    **options,
                }
            ),
        )

    async def _send(self, asked: "_Asked") -> Answer:
        async with self.client.request(
            asked.method,
            asked.url,
            headers=asked.headers,
            allow_redirects=asked.follow,
            **_aiohttp_body(asked.body),
            **asked.options,
        ) as response:
            was_read = response._body is not None
            return Answer(
                response.status,
                {name.lower(): value for name, value in response.headers.items()},
                await response.read(),
                tuple(each.status for each in response.history),
                was_read if asked.stream else True,
                1.0,  # aiohttp does not measure it
                str(response.url),
            )

    @property
    def cookies(self) -> Mapping[str, str]:
        return {each.key: each.value for each in self.client.cookie_jar}

    async def _close(self) -> None:
        await self.client.close()


def _aiohttp_body(body: Body | None) -> dict[str, Any]:
    if body is None:
        return {}
    if body.kind == "generator":
        return {"data": body.agenerator()}
    if body.kind.startswith("multipart"):
        form = aiohttp.FormData()
        form.add_field("qty", "1")
        content = body.payload if body.kind == "multipart" else body.opened()
        form.add_field("order", content, filename="order.json")
        return {"data": form}
    return _common_body(body, "data") or {"data": body.opened()}


@dataclass(frozen=True)
class Stack:
    """One library in one of its colours.

    Attributes:
        name: As it stands in the id of a test.
        adapter: The module of this package.
        transport: Its transport's class.
        open_client: Called with an auth object, a pool size and options of the library.
        error: The root of the library's own errors.
        asynchronous: Whether its clients are.
        keeps_refused: Whether its history shows the 401.
    """

    name: str
    adapter: ModuleType
    transport: Callable[..., Transport]
    open_client: Callable[[Any, int | None, dict[str, Any]], Client]
    error: type[Exception]
    asynchronous: bool
    keeps_refused: bool = True

    def auth(self, source: Any, **options: Any) -> Any:
        """Return the adapter's auth object."""
        return self.adapter.TradovateAuth(source, **options)

    def client(self, auth: Any, *, pool: int | None = None, **options: Any) -> Client:
        """Open a client with this auth object.

        Args:
            auth: From `auth()`.
            pool: How many connections it may have.
            options: As the library's session or client takes them.
        """
        return self.open_client(auth, pool, options)

    def __str__(self) -> str:
        return self.name


def _httpx(library: ModuleType) -> Callable[[Any, int | None, dict[str, Any]], Client]:
    return lambda auth, pool, options: HttpxClient(library, auth, pool, options)


def _httpx_async(library: ModuleType, backend: str) -> Callable[[Any, int | None, dict[str, Any]], Client]:
    return lambda auth, pool, options: HttpxAsyncClient(library, backend, auth, pool, options)


REQUESTS = Stack(
    "requests",
    tradovate_auth.requests,
    tradovate_auth.requests.RequestsTransport,
    RequestsClient,
    requests.RequestException,
    asynchronous=False,
)
HTTPX = Stack(
    "httpx",
    tradovate_auth.httpx,
    tradovate_auth.httpx.HttpxTransport,
    _httpx(httpx),
    httpx.HTTPError,
    asynchronous=False,
)
HTTPX_ASYNC = Stack(
    "httpx-asyncio",
    tradovate_auth.httpx,
    tradovate_auth.httpx.HttpxTransport,
    _httpx_async(httpx, "asyncio"),
    httpx.HTTPError,
    asynchronous=True,
)
HTTPX_TRIO = Stack(
    "httpx-trio",
    tradovate_auth.httpx,
    tradovate_auth.httpx.HttpxTransport,
    _httpx_async(httpx, "trio"),
    httpx.HTTPError,
    asynchronous=True,
)
HTTPX2 = Stack(
    "httpx2",
    tradovate_auth.httpx2,
    tradovate_auth.httpx2.Httpx2Transport,
    _httpx(httpx2),
    httpx2.HTTPError,
    asynchronous=False,
)
HTTPX2_ASYNC = Stack(
    "httpx2-asyncio",
    tradovate_auth.httpx2,
    tradovate_auth.httpx2.Httpx2Transport,
    _httpx_async(httpx2, "asyncio"),
    httpx2.HTTPError,
    asynchronous=True,
)
AIOHTTP = Stack(
    "aiohttp",
    tradovate_auth.aiohttp,
    tradovate_auth.aiohttp.AiohttpTransport,
    AiohttpClient,
    aiohttp.ClientError,
    asynchronous=True,
    keeps_refused=False,
)
ALL = (REQUESTS, HTTPX, HTTPX_ASYNC, HTTPX_TRIO, HTTPX2, HTTPX2_ASYNC, AIOHTTP)
ASYNC = tuple(each for each in ALL if each.asynchronous)

every_stack = pytest.mark.parametrize("stack", ALL, ids=str)

"""Instrumentation in one process with others that reach into the same libraries: tracers, mocks and recorders. None breaks the
other, in whatever order they come and go, and at the end the libraries are as they were.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import aiohttp
import httpx
import httpx2
import pytest
import requests
import requests_mock
import responses
import respx
import vcr
from aioresponses import aioresponses
from core_tools import SocketTransport
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor, HTTPXClientInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from vcr.record_mode import RecordMode

from tradovate_auth import Credentials, TokenProvider
from tradovate_auth.instrumentation import instrument, uninstrument
from tradovate_auth.requests import RequestsTransport
from tradovate_auth.storage import MemoryStorage
from tradovate_auth.testing import Emulator

T = TypeVar("T")
DEAD: Final = {"Authorization": "Bearer of no good"}
TOUCHED: Final[list[tuple[type, str]]] = [
    (requests.Session, "get_adapter"),
    (requests.Session, "request"),
    (requests.Session, "send"),
    (requests.Session, "__init__"),
    (requests.adapters.HTTPAdapter, "send"),
    (requests.adapters.HTTPAdapter, "cert_verify"),
    (requests.adapters.HTTPAdapter, "add_headers"),
    *(
        (kind, name)
        for library in (httpx, httpx2)
        for kind, name in (
            (library.Client, "send"),
            (library.AsyncClient, "send"),
            (library.Client, "_send_single_request"),
            (library.AsyncClient, "_send_single_request"),
            (library.HTTPTransport, "handle_request"),
            (library.AsyncHTTPTransport, "handle_async_request"),
        )
    ),
    (aiohttp.ClientSession, "__init__"),
    (aiohttp.ClientSession, "_request"),
]
"""What we or one of the others replace."""


def attributes() -> list[object]:
    """Return what stands there now."""
    return [vars(kind).get(name) for kind, name in TOUCHED]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """See that everything is as it was, by identity, when a test is over."""
    before = attributes()
    yield
    uninstrument()
    after = attributes()
    assert [name for name, one, other in zip(TOUCHED, before, after, strict=True) if one is not other] == []


@pytest.fixture
def provider(tradovate_emulator: Emulator) -> Iterator[TokenProvider]:
    """Yield a provider that has its token already, and whose calls no mock can see."""
    with TokenProvider(
        Credentials(**tradovate_emulator.credentials),
        environment=tradovate_emulator.url,
        storage=MemoryStorage(),
        transport=SocketTransport(),
    ) as made:
        made.get()
        yield made


def of_requests(method: str, url: str, **options: Any) -> tuple[int, Any]:
    """Make a call by requests."""
    answer = requests.request(method, url, timeout=20, **options)
    return answer.status_code, answer.json()


def of_httpx(method: str, url: str, **options: Any) -> tuple[int, Any]:
    """Make a call by httpx."""
    answer = httpx.request(method, url, **options)
    return answer.status_code, answer.json()


def of_async_httpx(method: str, url: str, **options: Any) -> tuple[int, Any]:
    """Make a call by httpx's other client."""

    async def call() -> tuple[int, Any]:
        async with httpx.AsyncClient() as client:
            answer = await client.request(method, url, **options)
            return answer.status_code, answer.json()

    return asyncio.run(call())


def of_httpx2(method: str, url: str, **options: Any) -> tuple[int, Any]:
    """Make a call by httpx2."""
    answer = httpx2.request(method, url, **options)
    return answer.status_code, answer.json()


def of_aiohttp(method: str, url: str, **options: Any) -> tuple[int, Any]:
    """Make a call by aiohttp."""

    async def call() -> tuple[int, Any]:
        async with aiohttp.ClientSession() as session, session.request(method, url, **options) as answer:
            return answer.status, await answer.json()

    return asyncio.run(call())


Calling = Callable[..., tuple[int, Any]]
EVERY: Final[tuple[Calling, ...]] = (of_requests, of_httpx, of_async_httpx, of_httpx2, of_aiohttp)


def statuses(url: str, every: tuple[Calling, ...] = EVERY) -> list[int]:
    """Make a call by each library, with a token that is no good; return what came."""
    return [call("GET", url, headers=DEAD)[0] for call in every]


@pytest.fixture
def url(tradovate_emulator: Emulator) -> str:
    """Return the address of a call that needs a token."""
    return f"{tradovate_emulator.url}/account/list"


class Telemetry:
    """OpenTelemetry's instrumentations, and the spans that they make."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._provider = TracerProvider()
        self._provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._instrumentors = (
            RequestsInstrumentor(),
            HTTPXClientInstrumentor(),
            HTTPX2ClientInstrumentor(),
            AioHttpClientInstrumentor(),
        )

    def install(self) -> None:
        """Instrument every library."""
        for each in self._instrumentors:
            each.instrument(tracer_provider=self._provider)

    def uninstall(self) -> None:
        """Undo it."""
        for each in self._instrumentors:
            each.uninstrument()

    def spans(self) -> list[int]:
        """Return the statuses that were traced since the last time."""
        found = [
            span.attributes["http.status_code"]
            for span in self._exporter.get_finished_spans()
            if span.attributes
        ]
        self._exporter.clear()
        return [int(str(status)) for status in found]


class Order(NamedTuple):
    """In which order we and somebody else come and go."""

    ours_first: bool
    ours_leaves_first: bool


@pytest.fixture(
    params=[Order(*both) for both in itertools.product((True, False), repeat=2)],
    ids=["first in, first out", "first in, last out", "last in, first out", "last in, last out"],
)
def order(request: pytest.FixtureRequest) -> Order:
    """Return one of the four."""
    return request.param  # type: ignore[no-any-return]  # one of those above


def test_opentelemetry(provider: TokenProvider, url: str, order: Order) -> None:
    """While both are there each call is signed, and traced once; when one of them has gone, the other still works."""
    telemetry = Telemetry()
    assert statuses(url) == [401] * len(EVERY)
    install = [lambda: instrument(provider), telemetry.install]
    uninstall = [uninstrument, telemetry.uninstall]
    for each in install if order.ours_first else reversed(install):
        each()
    assert (statuses(url), telemetry.spans()) == ([200] * len(EVERY), [200] * len(EVERY))
    uninstall.pop(not order.ours_leaves_first)()
    left = ([401] * len(EVERY), [401] * len(EVERY)) if order.ours_leaves_first else ([200] * len(EVERY), [])
    assert (statuses(url), telemetry.spans()) == left
    uninstall.pop()()
    assert (statuses(url), telemetry.spans()) == ([401] * len(EVERY), [])


@contextmanager
def together(provider: TokenProvider, other: AbstractContextManager[T], order: Order) -> Iterator[T]:
    """Be instrumented, and in another context, both entered and left in the order that is asked for."""
    ours, theirs = ExitStack(), ExitStack()
    try:
        if order.ours_first:
            ours.enter_context(instrument(provider))
        entered = theirs.enter_context(other)
        if not order.ours_first:
            ours.enter_context(instrument(provider))
        yield entered
    finally:
        for stack in (ours, theirs) if order.ours_leaves_first else (theirs, ours):
            stack.close()


def test_responses(provider: TokenProvider, url: str, order: Order) -> None:
    """A mock of requests gets our requests signed, foreign ones as they are, and no login; what it lets through arrives."""
    with together(provider, responses.RequestsMock(), order) as mock:
        mock.get(url, json={"mocked": True})
        mock.get("https://example.com/", json={})
        mock.add_passthru(url.replace("account/list", "auth/me"))
        assert of_requests("GET", url, headers=DEAD) == (200, {"mocked": True})
        assert of_requests("GET", "https://example.com/", headers=DEAD)[0] == 200
        sent = [call.request.headers["Authorization"] for call in mock.calls]
        assert sent == [provider.get().authorization, DEAD["Authorization"]]
        login = url.replace("account/list", "auth/accesstokenrequest")
        assert of_requests("POST", login, json={"name": "trader"})[1]["accessToken"] == provider.get().value
        assert of_requests("GET", url.replace("account/list", "auth/me"), headers=DEAD)[0] == 200
        assert len(mock.calls) == 2
    assert statuses(url) == [401] * len(EVERY)


def test_requests_mock(provider: TokenProvider, url: str, order: Order, tradovate_emulator: Emulator) -> None:
    """This one takes the place of the adapters: what it answers itself is not signed, be it a login, and what it lets through
    is ours if we were there first. Whoever stays works alone.
    """
    mocked, login = f"{url}/mocked", url.replace("account/list", "auth/accesstokenrequest")
    with together(provider, requests_mock.Mocker(real_http=True), order) as mock:
        mock.get(mocked, json={"mocked": True})
        assert of_requests("GET", mocked, headers=DEAD) == (200, {"mocked": True})
        assert mock.last_request.headers["Authorization"] == DEAD["Authorization"]
        assert of_requests("GET", url, headers=DEAD)[0] == (200 if order.ours_first else 401)
        mock.post(login, json={"accessToken": "mocked"})
        assert of_requests("POST", login, json={"name": "trader"})[1] == {"accessToken": "mocked"}
    assert tradovate_emulator.counts.logins == 1
    assert statuses(url) == [401] * len(EVERY)
    with instrument(provider):
        assert statuses(url) == [200] * len(EVERY)


@pytest.mark.parametrize("call", [of_httpx, of_async_httpx], ids=["sync", "async"])
def test_respx(provider: TokenProvider, url: str, call: Calling, order: Order) -> None:
    """So does a mock of httpx, in both clients."""
    with together(provider, respx.mock(), order) as mock:
        ours = mock.get(url).respond(json={"mocked": True})
        foreign = mock.get("https://example.com/").respond(json={})
        through = mock.get(url.replace("account/list", "auth/me")).pass_through()
        assert call("GET", url, headers=DEAD) == (200, {"mocked": True})
        assert call("GET", "https://example.com/", headers=DEAD)[0] == 200
        assert ours.calls.last.request.headers["Authorization"] == provider.get().authorization
        assert foreign.calls.last.request.headers["Authorization"] == DEAD["Authorization"]
        login = url.replace("account/list", "auth/accesstokenrequest")
        assert call("POST", login, json={"name": "trader"})[1]["accessToken"] == provider.get().value
        assert call("GET", url.replace("account/list", "auth/me"), headers=DEAD)[0] == 200
        assert through.called
    assert statuses(url) == [401] * len(EVERY)


RECORDED: Final = (of_requests, of_httpx, of_async_httpx, of_aiohttp)
"""What vcrpy can record; it knows nothing of httpx2."""


def test_vcrpy(tmp_path: Path, order: Order) -> None:
    """What instrumented clients do is recorded, our one login with it; with the server gone it is played to others."""
    cassette = str(tmp_path / "cassette.yaml")
    recorder = vcr.VCR(record_mode=RecordMode.ONCE)

    def told(url: str, who: dict[str, Any]) -> list[tuple[int, str]]:
        login = url.replace("account/list", "auth/accesstokenrequest")
        with (
            TokenProvider(
                Credentials(**who),
                environment=url.removesuffix("/account/list"),
                storage=MemoryStorage(),
                transport=RequestsTransport(),
            ) as provider,
            together(provider, recorder.use_cassette(cassette), order),
        ):
            good = statuses(url, RECORDED)
            tokens = [call("POST", login, json={"name": "trader"})[1]["accessToken"] for call in RECORDED]
            assert set(tokens) == {provider.get().value}
            return list(zip(good, tokens, strict=True))

    with Emulator() as server:
        recorded = told(f"{server.url}/account/list", server.credentials)
        assert [status for status, _ in recorded] == [200] * len(RECORDED)
        counts = server.counts
        assert (counts.logins, counts.calls_ok) == (1, len(RECORDED))
    assert told(f"{server.url}/account/list", server.credentials) == recorded


def outcome(call: Calling, *arguments: Any, **options: Any) -> object:
    """Return what a call returned, or the words of the error that it raised."""
    try:
        return call(*arguments, **options)
    except (aiohttp.ClientError, TypeError) as error:
        return repr(error)


def test_aioresponses(provider: TokenProvider, url: str, order: Order) -> None:
    """A mock of aiohttp lets our requests through signed. What it answers itself is what it answers without us, and with
    the aiohttp that we support that is an error of its own: its answers lack an argument that aiohttp wants by now.
    """

    def mocked() -> object:
        mock.get("https://example.com/", payload={"mocked": True})
        return outcome(of_aiohttp, "GET", "https://example.com/", headers=DEAD)

    with aioresponses() as mock:
        alone = mocked()
    with together(provider, aioresponses(passthrough=[url]), order) as mock:
        assert of_aiohttp("GET", url, headers=DEAD)[0] == 200
        assert mocked() == alone
        assert outcome(of_aiohttp, "GET", "https://example.net/") == repr(
            aiohttp.ClientConnectionError("Connection refused: GET https://example.net/")
        )
    assert statuses(url) == [401] * len(EVERY)


def test_everybody_at_once(provider: TokenProvider, url: str) -> None:
    """Tracers, mocks and we, in one process: each call is signed, traced, and lands where it should."""
    telemetry = Telemetry()
    telemetry.install()
    try:
        with (
            instrument(provider),
            respx.mock as router,
            responses.RequestsMock() as mock,
            aioresponses(passthrough=[url]),
        ):
            routed = router.get(url).respond(json={})
            mock.get(url, json={})
            assert statuses(url) == [200] * len(EVERY)
            assert telemetry.spans() == [200] * len(EVERY)
            seen = [mock.calls[0].request.headers, *(call.request.headers for call in routed.calls)]
            assert {headers["Authorization"] for headers in seen} == {provider.get().authorization}
            assert (
                len(seen) == len(EVERY) - 2
            )  # nobody mocks httpx2, and what passes aioresponses goes to the server
    finally:
        telemetry.uninstall()
    assert statuses(url) == [401] * len(EVERY)

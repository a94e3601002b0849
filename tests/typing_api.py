"""How users write it, for the type checker alone: checked by mypy in strict mode, never run.

What must not type-check carries an ignore with its error code; mypy fails on an ignore that is not needed.
"""

from typing import Any, Self, Unpack, assert_type

import aiohttp
import httpx
import httpx2
import requests

import tradovate_auth.aiohttp
import tradovate_auth.httpx
import tradovate_auth.httpx2
import tradovate_auth.requests
from tradovate_auth import AccessToken, Budget, Credentials, Environment, Status, TokenProvider, TokenSource
from tradovate_auth.events import Event
from tradovate_auth.provider import ProviderOptions
from tradovate_auth.requests import RequestsTransport
from tradovate_auth.storage import MemoryStorage, Storage, from_url
from tradovate_auth.testing import Emulator, FakeClock
from tradovate_auth.transport import Call, Reply, Transport


class OwnTransport:
    """A transport is anything that sends."""

    def send(self, call: Call, timeout: float) -> Reply:
        """Return an empty answer."""
        return Reply(int(timeout), call.headers, b"")


class OwnSource:
    """A source is anything with these five."""

    environment = Environment("http://127.0.0.1:1/v1")

    def __init__(self, token: AccessToken) -> None:
        self._token = token

    def get(self, timeout: float | None = 30.0, *, min_ttl: float = 0.0) -> AccessToken:
        """Return the token."""
        return self._token

    async def aget(self, *, min_ttl: float = 0.0) -> AccessToken:
        """Return the token."""
        return self._token

    def reject(self, token: AccessToken, *, method: str = "", path: str = "") -> bool:
        """Give up."""
        return False

    def report(self, token: AccessToken, status: int) -> None:
        """Shrug."""


class OwnProvider(TokenProvider):
    """A provider with an option of its own."""

    def __init__(
        self, credentials: Credentials, *, colour: str = "red", **options: Unpack[ProviderOptions]
    ) -> None:
        super().__init__(credentials, **options)
        self.colour = colour


class LooseProvider(TokenProvider):
    """A provider whose maker takes anything."""

    @classmethod
    def from_env(cls, **options: Any) -> Self:
        """Return a provider."""
        return super().from_env(**options)


def handed_on(**options: Unpack[ProviderOptions]) -> TokenProvider:
    """Whoever hands options on has them typed."""
    return TokenProvider.from_env(**options)


def listen(event: Event) -> None:
    """Take events of any kind."""
    str(event)


def providers(credentials: Credentials) -> TokenProvider:
    """Every option of a provider has its type."""
    storage: Storage = MemoryStorage(clock=FakeClock())
    transport: Transport = OwnTransport()
    TokenProvider(
        credentials, environment="live", storage=from_url("memory://"), transport=RequestsTransport()
    )
    TokenProvider(credentials, renewal="sometimes")  # type: ignore[arg-type]
    TokenProvider(credentials, login="twice")  # type: ignore[arg-type]
    TokenProvider("name", "password")  # type: ignore[call-arg, arg-type]
    TokenProvider.from_env(login="perhaps")  # type: ignore[arg-type]
    TokenProvider.from_env(storge="memory://")  # type: ignore[call-arg]
    assert_type(OwnProvider.from_env(timeout=5.0, login="once"), OwnProvider)
    handed_on(timeout="soon")  # type: ignore[arg-type]
    Budget(3)  # type: ignore[call-arg]
    return TokenProvider(
        credentials,
        environment=Environment("https://example.com/v1", kind="live", hosts={"md": "md.example.com"}),
        storage=storage,
        transport=transport,
        timeout=5.0,
        renewal="on-demand",
        login="never",
        login_without_storage=True,
        budget=Budget(renewals=10),
        on_event=listen,
    )


async def tokens(provider: TokenProvider) -> None:
    """What comes out of a provider has its type."""
    assert_type(provider.get(), AccessToken)
    assert_type(await provider.aget(min_ttl=60.0), AccessToken)
    assert_type(provider.get(None).authorization, str)
    assert_type(provider.reject(provider.get(), method="GET", path="/v1/account/list"), bool)
    assert_type(provider.status(), Status)
    assert_type(provider.url("demo", "/account/list"), str)
    async with provider as entered:
        assert_type(entered, TokenProvider)
    provider.get().value = "other"  # type: ignore[misc]


def adapters(source: TokenSource, credentials: Credentials, token: AccessToken) -> None:
    """Each adapter goes where its library wants one, and nowhere else."""
    session = requests.Session()
    session.auth = tradovate_auth.requests.TradovateAuth(source)
    httpx.Client(auth=tradovate_auth.httpx.TradovateAuth(credentials, environment="demo"))
    httpx.AsyncClient(auth=tradovate_auth.httpx.TradovateAuth(OwnSource(token), route=False))
    httpx2.Client(auth=tradovate_auth.httpx2.TradovateAuth(source, resend_limit=0))
    httpx2.AsyncClient(auth=tradovate_auth.httpx2.TradovateAuth.from_env(storage=MemoryStorage()))
    aiohttp.ClientSession(middlewares=(tradovate_auth.aiohttp.TradovateAuth(source),))
    tradovate_auth.requests.TradovateAuth.from_env(route=False, timeout=5.0)
    tradovate_auth.aiohttp.TradovateAuth.from_env(storge="file:///x")  # type: ignore[call-arg]
    tradovate_auth.requests.TradovateAuth(credentials, enviroment="live")  # type: ignore[call-arg]
    tradovate_auth.httpx.TradovateAuth(credentials, renewal="sometimes")  # type: ignore[arg-type]
    httpx.Client(auth=tradovate_auth.httpx2.TradovateAuth(source))  # type: ignore[arg-type]
    httpx2.Client(auth=tradovate_auth.httpx.TradovateAuth(source))  # type: ignore[arg-type]
    tradovate_auth.requests.TradovateAuth("trader")  # type: ignore[arg-type]


def emulator() -> None:
    """The test kit has types too."""
    with Emulator(lifetime=6.0) as server:
        assert_type(server.url, str)
        assert_type(server.live_sessions, int)

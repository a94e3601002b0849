"""The auth calls over a session or client of the user's own, and what hangs on an error of theirs."""

from pathlib import Path
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest
import requests
from stacks import AIOHTTP, HTTPX, HTTPX2, REQUESTS, Stack, plain_environment
from transport_tools import SECRET, RawServer, assert_discreet, every_transport

from tradovate_auth import ConfigurationError, Credentials, TokenProvider, TransportError
from tradovate_auth.storage import MemoryStorage
from tradovate_auth.testing import Emulator
from tradovate_auth.transport import Call, Reply

__all__ = ["plain_environment"]  # a fixture


def own_session(stack: Stack, auth: Any = None, marker: str = "mine") -> Any:
    """A session or client of the user's own with a header, or the factory of one; with the auth object if given."""
    headers = {"X-Mine": marker}
    if stack is REQUESTS:
        session = requests.Session()
        session.headers.update(headers)
        session.auth = auth
        return session
    if stack is AIOHTTP:
        middlewares = () if auth is None else (auth,)
        return lambda: aiohttp.ClientSession(
            headers=headers, middlewares=middlewares, trust_env=True, raise_for_status=True
        )
    library = httpx if stack is HTTPX else httpx2
    return library.Client(headers=headers, auth=auth, follow_redirects=True)


@every_transport
def test_calls_go_through_the_users_own_session(
    stack: Stack, tradovate_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that was handed in is used, with its headers; a netrc is not, and a requests or httpx one stays open."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    session = own_session(stack)
    credentials = Credentials(**tradovate_emulator.credentials)
    with TokenProvider(
        credentials,
        environment=tradovate_emulator.url,
        storage=MemoryStorage(),
        transport=stack.transport(session),
    ) as provider:
        provider.renew()
    if stack is not AIOHTTP:
        assert session.get(f"{tradovate_emulator.url}/nothing").status_code in (401, 404)
        session.close()
    login, renewal = tradovate_emulator.requests[:2]
    assert [login.headers.get("X-Mine"), renewal.headers.get("X-Mine")] == ["mine", "mine"]
    assert login.authorization is None
    assert str(renewal.authorization).startswith("Bearer ")


@pytest.mark.parametrize("stack", [HTTPX, HTTPX2], ids=str)
def test_a_client_of_ones_own_brings_its_own_options(stack: Stack) -> None:
    """What only a new client could heed is refused beside a finished one, rather than ignored."""
    client = own_session(stack)
    for options in ({"proxy": "http://127.0.0.1:9"}, {"verify": False}, {"cert": "x"}):
        with pytest.raises(ConfigurationError, match="handed in"):
            stack.transport(client, **options)
    client.close()


@every_transport
def test_the_authenticated_session_itself_does_not_recurse(
    stack: Stack, tradovate_emulator: Emulator
) -> None:
    """Even where the transport is given the very session that it authenticates, auth calls are not authenticated."""
    holder: list[Any] = []

    class Late:
        """An auth object that exists only after its own transport."""

        def __init__(self) -> None:
            self.used = 0

        def __call__(self, *arguments: Any) -> Any:
            self.used += 1
            return holder[0](*arguments)

    late = Late()
    session = own_session(stack, late if stack in (REQUESTS, AIOHTTP) else None)
    auth = stack.auth(
        Credentials(**tradovate_emulator.credentials),
        environment=tradovate_emulator.url,
        storage=MemoryStorage(),
        transport=stack.transport(session),
    )
    holder.append(auth)
    if stack in (HTTPX, HTTPX2):
        session.auth = auth
    with auth:
        assert auth.provider.get().generation == 1
        assert auth.provider.renew().generation == 2
    if stack is not AIOHTTP:
        session.close()
    assert late.used == 0
    assert (tradovate_emulator.counts.logins, tradovate_emulator.counts.renewals) == (1, 1)


@every_transport
def test_no_password_hangs_on_a_providers_error(stack: Stack) -> None:
    """Nor on the error that finally comes out of `get`, or on what it carries along."""
    wrong = Credentials("trader", SECRET)
    with RawServer(lambda _: None) as server:
        provider = TokenProvider(
            wrong,
            environment=f"http://127.0.0.1:{server.port}/v1",
            storage=MemoryStorage(),
            transport=stack.transport(),
        )
        with provider, pytest.raises(TransportError) as caught:
            provider.get()
    assert_discreet(caught.value)


def test_no_password_hangs_on_the_error_of_a_foreign_transport() -> None:
    """A transport of the user's own may raise what it likes: only its type's name is told."""

    class Leaky:
        """A transport that fails with everything it knows."""

        def send(self, call: Call, timeout: float) -> Reply:
            """Raise it."""
            raise RuntimeError(call.body, timeout)

    provider = TokenProvider(
        Credentials("trader", SECRET),
        environment="http://127.0.0.1:9/v1",
        storage=MemoryStorage(),
        transport=Leaky(),
    )
    with provider, pytest.raises(TransportError) as caught:
        provider.get()
    assert_discreet(caught.value)

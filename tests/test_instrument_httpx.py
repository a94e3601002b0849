"""Instrumentation and what only httpx and httpx2 do: auth around redirects, event hooks, transports of one's own."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest
from instrumented import Scene, login_fields, scene
from stacks import NO_ROOTS, plain_environment

from tradovate_auth.httpx import HttpxTransport
from tradovate_auth.instrumentation import instrument
from tradovate_auth.testing import Emulator
from tradovate_auth.testing.emulator import Fault

__all__ = ["plain_environment", "scene"]  # fixtures

both = pytest.mark.parametrize("library", [httpx, httpx2], ids=lambda module: module.__name__)


@pytest.fixture
def foreign() -> Iterator[Emulator]:
    """A server that is not ours."""
    with Emulator() as server:
        yield server


def client(library: ModuleType, **options: Any) -> Any:
    """A synchronous client."""
    return library.Client(verify=NO_ROOTS, timeout=30, **options)


def run(library: ModuleType, scenario: Any, **options: Any) -> Any:
    """Run a scenario with an asynchronous client."""

    async def with_client() -> Any:
        async with library.AsyncClient(verify=NO_ROOTS, timeout=30, **options) as opened:
            return await scenario(opened)

    return asyncio.run(with_client())


@both
def test_calls_of_the_module(library: Any, scene: Scene) -> None:
    """`httpx.get` and `httpx.post`, as scripts make them."""
    with instrument(scene.provider):
        token = library.post(scene.login, json=login_fields(scene.server)).json()["accessToken"]
        assert library.get(scene.accounts, headers={"Authorization": f"Bearer {token}"}).status_code == 200
        with library.stream("GET", scene.accounts) as response:
            assert (response.status_code, response.is_stream_consumed) == (200, False)
    assert scene.exchanges == (1, 0)


@both
@pytest.mark.parametrize("kind", ["pair", "function", "object", "none"])
def test_auth_of_the_clients_own(library: Any, kind: str, scene: Scene, foreign: Emulator) -> None:
    """Whatever a client or a call has for an auth loses to ours here, and does its work elsewhere, on redirects too."""

    def sign(request: Any) -> Any:
        request.headers["Authorization"] = "Theirs"
        return request

    auth, theirs = {
        "pair": (("a", "b"), "Basic YTpi"),
        "function": (sign, "Theirs"),
        "object": (library.BasicAuth("a", "b"), "Basic YTpi"),
        "none": (None, None),
    }[kind]
    there = f"{foreign.url}/redirect?open=1&to={scene.accounts}"
    with instrument(scene.provider), client(library, auth=auth, follow_redirects=True) as opened:
        assert opened.get(scene.accounts).status_code == 200
        assert opened.get(there).status_code == 200
        with client(library) as other:
            assert other.get(scene.accounts, auth=auth).status_code == 200
            other.get(f"{foreign.url}/account/list", auth=auth)
            assert other.get(there, auth=auth, follow_redirects=True).status_code == 200
    assert [each.authorization for each in foreign.requests] == [theirs] * 3
    assert scene.carried == [scene.provider.get().authorization] * 4


@both
def test_auth_in_a_url(library: Any, scene: Scene, foreign: Emulator) -> None:
    """A name and a password in a foreign URL work as ever; in ours they do no harm."""
    with instrument(scene.provider), client(library, follow_redirects=True) as opened:
        opened.get(f"{foreign.url}/account/list".replace("://", "://a:b@"))
        assert opened.get(scene.accounts.replace("://", "://a:b@")).status_code == 200
    assert [each.authorization for each in foreign.requests] == ["Basic YTpi"]


@both
def test_an_auth_with_a_flow_of_its_own(library: Any, scene: Scene, foreign: Emulator) -> None:
    """An auth that sends again and reads the answers does so; it sees one answer for a whole chain of redirects."""
    statuses: list[int] = []

    class Stubborn(library.Auth):  # type: ignore[misc]  # of whichever library
        requires_response_body = True

        def auth_flow(self, request: Any) -> Any:
            for attempt in range(2):
                request.headers["Attempt"] = str(attempt)
                response = yield request
                statuses.append(response.status_code)
                assert response.content

    url = f"{foreign.url}/redirect?open=1&to={scene.accounts}"
    with instrument(scene.provider), client(library, auth=Stubborn(), follow_redirects=True) as opened:
        answer = opened.get(url)
    assert statuses == [200, 200]
    assert answer.status_code == 200
    run_statuses = run_with(library, scene, url, Stubborn())
    assert run_statuses == 200
    assert statuses == [200] * 4
    assert [each.headers["Attempt"] for each in scene.server.requests if "/auth/" not in each.path] == [
        "0",
        "1",
    ] * 2


def run_with(library: Any, scene: Scene, url: str, auth: Any) -> int:
    """The status of an asynchronous GET with an auth."""

    async def scenario(opened: Any) -> int:
        with instrument(scene.provider):
            return int((await opened.get(url)).status_code)

    return int(run(library, scenario, auth=auth, follow_redirects=True))


@both
def test_what_the_library_refuses_it_still_refuses(library: Any, scene: Scene) -> None:
    """A wrong auth, a closed client and something that is no request: the library's own errors come out."""
    with instrument(scene.provider), client(library) as opened:
        with pytest.raises(TypeError, match="auth"):
            opened.get(scene.accounts, auth="wrong")
        with pytest.raises((TypeError, AttributeError)):
            opened.send("no request")
        opened.close()
        with pytest.raises(RuntimeError, match="closed"):
            opened.get(scene.accounts)
        with pytest.raises(RuntimeError, match="closed"):
            opened.post(scene.login, json=login_fields(scene.server))
    assert scene.exchanges == (0, 0)


@both
def test_too_many_redirects(library: Any, scene: Scene) -> None:
    """The limit of redirects is the client's, whether instrumented or not."""
    again = f"{scene.server.url}/redirect?to="
    two_hops = f"{again}{again}{scene.accounts}"
    counts = []
    with client(library, follow_redirects=True, max_redirects=1) as opened:
        with instrument(scene.provider), pytest.raises(library.TooManyRedirects):
            opened.get(two_hops)
        counts.append(len(scene.carried))
        with pytest.raises(library.TooManyRedirects):
            opened.get(two_hops, headers={"Authorization": scene.provider.get().authorization})
        counts.append(len(scene.carried))
    assert counts == [2, 4]


@both
@pytest.mark.parametrize("follow", [True, False])
def test_a_redirect_to_nowhere(library: Any, follow: bool, scene: Scene) -> None:
    """A redirect that cannot be followed fails as it does without us, or is the answer."""
    scene.server.inject(
        Fault("/account/list", "status", status=302, headers={"Location": "https://:x"}, times=2)
    )
    outcomes: list[object] = []
    for instrumented in (True, False):
        with client(library, follow_redirects=follow) as opened:
            try:
                if instrumented:
                    with instrument(scene.provider):
                        outcomes.append(opened.get(scene.accounts).status_code)
                else:
                    outcomes.append(opened.get(scene.accounts).status_code)
            except library.HTTPError as error:
                outcomes.append(type(error))
    assert outcomes[0] == outcomes[1]


@both
def test_hooks_of_the_client_see_an_answered_login(library: Any, scene: Scene) -> None:
    """Event hooks are called for it as for any call, before and after, synchronous and asynchronous."""
    seen: list[object] = []

    def before(request: Any) -> None:
        seen.append(request.method)

    def after(response: Any) -> None:
        seen.append((response.status_code, response.is_stream_consumed, response.request.method))

    async def abefore(request: Any) -> None:
        before(request)

    async def aafter(response: Any) -> None:
        after(response)

    with (
        instrument(scene.provider),
        client(library, event_hooks={"request": [before], "response": [after]}) as opened,
    ):
        opened.post(scene.login, json=login_fields(scene.server))

        async def scenario(asynchronous: Any) -> None:
            await asynchronous.post(scene.login, json=login_fields(scene.server))

        run(library, scenario, event_hooks={"request": [abefore], "response": [aafter]})
    assert seen == ["POST", (200, False, "POST")] * 2


@both
def test_an_answered_login_as_raw_bytes(library: Any, scene: Scene) -> None:
    """A client may stream it raw, as it came over the wire; it says how long it took and how it was spoken."""
    with instrument(scene.provider), client(library) as opened:
        with opened.stream("POST", scene.login, json=login_fields(scene.server)) as response:
            assert scene.provider.get().value.encode() in b"".join(response.iter_raw())
        assert (response.http_version, response.reason_phrase) == ("HTTP/1.1", "OK")
        assert response.elapsed.total_seconds() > 0
        response.raise_for_status()

        async def scenario(asynchronous: Any) -> bytes:
            async with asynchronous.stream("POST", scene.login, json=login_fields(scene.server)) as answer:
                return b"".join([chunk async for chunk in answer.aiter_raw()])

        assert scene.provider.get().value.encode() in run(library, scenario)


@both
def test_a_login_that_comes_piece_by_piece(library: Any, scene: Scene) -> None:
    """A body out of a generator is read to know whose login it is; if it passes, the server gets it whole."""

    def pieces(name: str) -> Iterator[bytes]:
        yield b'{"name": '
        yield f'"{name}"}}'.encode()

    async def apieces(name: str) -> AsyncIterator[bytes]:
        for piece in pieces(name):
            yield piece

    async def scenario(asynchronous: Any) -> list[Any]:
        ours = await asynchronous.post(scene.login, content=apieces(scene.user))
        theirs = await asynchronous.post(scene.login, content=apieces("somebody"))
        form = await asynchronous.post(scene.login, files={"name": b"somebody"})
        return [ours.json(), theirs.json(), form.json()]

    with instrument(scene.provider), client(library) as opened:
        found = run(library, scenario)
        found += [opened.post(scene.login, content=pieces(name)).json() for name in (scene.user, "somebody")]
    assert [each.get("accessToken") for each in found] == [
        scene.provider.get().value,
        None,
        None,
        scene.provider.get().value,
        None,
    ]
    bodies = [each.body for each in scene.server.requests if each.method == "POST"]
    assert bodies[1] == bodies[3] == b'{"name": "somebody"}'


@both
def test_checks_that_a_context_or_a_transport_lacks(library: Any, scene: Scene) -> None:
    """An SSL context that checks nothing is found out, of a client or of a transport; what leads to no network needs none."""
    careless = ssl.create_default_context()
    careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE
    secure = {"transport": library.MockTransport(lambda _: library.Response(200))}
    with instrument(scene.provider, insecure="refuse"):
        for options in ({"verify": careless}, {"transport": library.HTTPTransport(verify=False)}):
            with library.Client(**options) as opened:
                assert opened.get(scene.accounts).status_code == 404
        with library.Client(**secure) as opened:
            answer = opened.get(scene.accounts)
            assert answer.request.headers["Authorization"] == scene.provider.get().authorization


@both
def test_a_fault_of_the_network(library: Any, scene: Scene) -> None:
    """It comes out as it is, and the client goes on."""
    with instrument(scene.provider), client(library, auth=("a", "b")) as opened:
        scene.server.inject(Fault("/account/list", "drop"))
        with pytest.raises(library.RemoteProtocolError):
            opened.get(scene.accounts)
        assert opened.get(scene.accounts).status_code == 200

        async def scenario(asynchronous: Any) -> int:
            scene.server.inject(Fault("/account/list", "drop"))
            with pytest.raises(library.RemoteProtocolError):
                await asynchronous.get(scene.accounts)
            return int((await asynchronous.get(scene.accounts)).status_code)

        assert run(library, scenario, auth=("a", "b")) == 200


def test_the_providers_own_client_may_be_instrumented(scene: Scene) -> None:
    """A provider that sends over an ordinary client gets its token, although that client is instrumented."""
    with (
        client(httpx) as opened,
        scene.another(transport=HttpxTransport(opened)) as provider,
        instrument(provider),
    ):
        assert opened.get(scene.accounts).status_code == 200
        assert provider.renew().generation == 2
    assert scene.exchanges == (1, 1)

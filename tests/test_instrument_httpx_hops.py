"""Instrumentation and what a client of httpx or httpx2 does on its way to the server: auth flows that make calls of their own, event
hooks and transports that write headers. What counts is what leaves the client.
"""

import asyncio
import contextvars
import io
import json
import ssl
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import ExitStack
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest
import wrapt
from core_tools import eventually
from instrumented import DEAD, Scene, bare, login_fields, parsed, scene
from stacks import (
    HTTPX,
    HTTPX2,
    HTTPX2_ASYNC,
    HTTPX_ASYNC,
    HTTPX_TRIO,
    NO_ROOTS,
    Body,
    Stack,
    plain_environment,
)

from tradovate_auth._httpx_checks import Checks
from tradovate_auth._instrument_httpx import points
from tradovate_auth.instrumentation import instrument
from tradovate_auth.testing import Emulator
from tradovate_auth.testing.emulator import Fault

__all__ = ["plain_environment", "scene"]  # fixtures

KINDS = (HTTPX, HTTPX_ASYNC, HTTPX_TRIO, HTTPX2, HTTPX2_ASYNC)
each_kind = pytest.mark.parametrize("stack", KINDS, ids=str)


def library(stack: Stack) -> Any:
    """Return the module."""
    return httpx2 if stack.name.startswith("httpx2") else httpx


def login_flow(
    stack: Stack, url: str, fields: dict[str, Any], answers: list[Any], *, reads: bool = True
) -> Any:
    """Return an auth as httpx's own pages show it: it gets itself a token, and then uses it."""

    class LogsIn(library(stack).Auth):  # type: ignore[misc]  # of whichever library
        requires_response_body = reads

        def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            if not answers:
                answer = yield library(stack).Request("POST", url, json=fields)
                answers.append(answer.json() if reads else answer.status_code)
            token = answers[0].get("accessToken") if reads else "none"
            request.headers["Authorization"] = f"Bearer {token}"
            yield request

    return LogsIn()


def hooks(stack: Stack, **found: Callable[[Any], None]) -> dict[str, Any]:
    """Return `event_hooks` of the client's colour."""

    def coloured(hook: Callable[[Any], None]) -> Any:
        async def ahook(message: Any) -> None:
            hook(message)

        return ahook if stack.asynchronous else hook

    return {"event_hooks": {name: [coloured(hook)] for name, hook in found.items()}}


@each_kind
@pytest.mark.parametrize("spelling", ["json", "streamed"])
def test_a_login_out_of_an_auth_flow_is_answered(stack: Stack, spelling: str, scene: Scene) -> None:
    """It opens no session, whatever its password is; hooks of the client see it as they see any request."""
    answers: list[Any] = []
    seen: list[tuple[str, int]] = []
    auth = login_flow(stack, scene.login, {"name": scene.user, "password": "anything"}, answers)
    options = hooks(stack, response=lambda each: seen.append((each.request.url.path, each.status_code)))
    with instrument(scene.provider), stack.client(auth, **options) as client:
        assert client.get(scene.accounts, stream=spelling == "streamed").status == 200
        assert client.get(scene.accounts).status == 200
    assert answers[0]["accessToken"] == scene.provider.get().value
    assert scene.exchanges == (1, 0)
    assert [path.rpartition("/")[2] for path, _ in seen] == ["accessTokenRequest", "list", "list"]
    assert {status for _, status in seen} == {200}


@each_kind
def test_a_flow_that_does_not_read_its_login(stack: Stack, scene: Scene) -> None:
    """An auth that looks at nothing but the status of its login gets one, and its client the answer to the call."""
    answers: list[Any] = []
    auth = login_flow(stack, scene.login, {"name": scene.user}, answers, reads=False)
    with instrument(scene.provider), stack.client(auth) as client:
        assert client.get(scene.accounts).status == 200
    assert (answers, scene.exchanges) == ([200], (1, 0))


@each_kind
def test_a_flow_that_logs_in_as_somebody_else(stack: Stack, scene: Scene) -> None:
    """It logs in there, with one warning, and its orders are placed in its own account, also by clients that it hands the
    token to.
    """
    scene.server.add_user("colleague", "secret")
    answers: list[Any] = []
    auth = login_flow(stack, scene.login, {"name": "colleague", "password": "secret"}, answers)
    me = f"{scene.server.url}/auth/me"
    with instrument(scene.provider), stack.client(auth) as client:
        assert json.loads(client.get(me).body)["name"] == "colleague"
        assert client.post(f"{scene.server.url}/order/placeorder", Body("json")).status == 200
        assert scene.carried == [f"Bearer {answers[0]['accessToken']}"]
        with bare(stack) as other:
            headers = {"Authorization": f"Bearer {answers[0]['accessToken']}"}
            assert json.loads(other.get(me, headers=headers).body)["name"] == "colleague"
            assert json.loads(other.get(me, headers=DEAD).body)["name"] == scene.user
    eventually(lambda: scene.warnings)
    assert ["logs in as colleague" in reason for reason in scene.warnings] == [True]
    assert scene.server.counts.logins == 2


@each_kind
def test_a_flow_whose_login_is_refused(stack: Stack, scene: Scene) -> None:
    """Somebody else's login that the server refuses is refused to the flow; nothing of it is taken for a token."""
    answers: list[Any] = []
    auth = login_flow(stack, scene.login, {"name": "colleague", "password": "wrong"}, answers)
    with instrument(scene.provider), stack.client(auth) as client:
        assert client.get(scene.accounts).status == 200
    assert "errorText" in answers[0]
    assert scene.carried == [scene.provider.get().authorization]


@each_kind
def test_a_flow_that_ends_with_its_login(stack: Stack, scene: Scene) -> None:
    """A flow may let the answer to a login of its own be the answer to the call."""

    class Only(library(stack).Auth):  # type: ignore[misc]  # of whichever library
        def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            yield library(stack).Request("POST", scene.login, json=login_fields(scene.server))

    with instrument(scene.provider), stack.client(Only()) as client:
        assert parsed(client.get(scene.accounts))["accessToken"] == scene.provider.get().value
        assert parsed(client.get(scene.accounts, stream=True))["accessToken"] == scene.provider.get().value
    assert (scene.exchanges, scene.carried) == ((1, 0), [])


@each_kind
def test_a_flow_that_renews_after_a_401(stack: Stack, scene: Scene) -> None:
    """A flow of several steps: call, renewal, call. Ours cures the 401 first; where it stays, the renewal is answered."""
    steps: list[int] = []

    class Renews(library(stack).Auth):  # type: ignore[misc]  # of whichever library
        def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            request.headers.update(DEAD)
            response = yield request
            steps.append(response.status_code)
            if response.status_code == 401:
                response = yield library(stack).Request("GET", scene.renewal, headers=DEAD)
                steps.append(response.status_code)
                yield request

    with instrument(scene.provider), stack.client(Renews()) as client:
        assert client.get(scene.accounts).status == 200
        assert steps == [200]
        scene.server.inject(Fault("/account/list", "status", status=401, times=2))
        assert client.get(scene.accounts).status == 200
    assert steps == [200, 401, 200]
    assert scene.server.counts.logins == 1


@each_kind
def test_a_flow_for_a_foreign_place_that_logs_in_here(stack: Stack, scene: Scene) -> None:
    """What counts is where each request of a flow goes: here its login is answered, there its call is its own."""
    answers: list[Any] = []
    auth = login_flow(stack, scene.login, {"name": scene.user}, answers)
    with Emulator() as foreign, instrument(scene.provider), stack.client(auth) as client:
        client.get(f"{foreign.url}/account/list")
        assert [each.authorization for each in foreign.requests] == [scene.provider.get().authorization]
    assert scene.exchanges == (1, 0)


@each_kind
def test_digest(stack: Stack, scene: Scene) -> None:
    """A flow that waits for a challenge answers it at the place that makes one, and has none to answer here."""
    challenge = {"WWW-Authenticate": 'Digest realm="r", nonce="n", qop="auth", algorithm=MD5'}
    auth = library(stack).DigestAuth("user", "password")
    with Emulator() as foreign, instrument(scene.provider), stack.client(auth) as client:
        foreign.inject(Fault("/account/list", "status", status=401, headers=challenge))
        client.get(f"{foreign.url}/account/list")
        first, second = [each.authorization for each in foreign.requests]
        assert (first, str(second).partition(" ")[0]) == (None, "Digest")
        assert client.get(scene.accounts).status == 200
    assert scene.carried == [scene.provider.get().authorization]


@each_kind
def test_a_redirect_to_a_login_is_answered(stack: Stack, scene: Scene) -> None:
    """A hop that ends at the login or the renewal is one like any other: it does not reach the server."""
    with Emulator() as foreign, instrument(scene.provider), bare(stack) as client:
        renewal = client.get(f"{foreign.url}/redirect?open=1&to={scene.renewal}")
        assert parsed(renewal)["accessToken"] == scene.provider.get().value
        login = client.call(
            "POST",
            f"{foreign.url}/redirect?open=1&status=307&to={scene.login}",
            json=login_fields(scene.server),
        )
        assert parsed(login)["accessToken"] == scene.provider.get().value
        assert (renewal.history, login.history) == ((302,), (307,))
    assert scene.exchanges == (1, 0)


@each_kind
@pytest.mark.parametrize("place", ["login", "call"])
def test_an_answer_that_cannot_be_read(stack: Stack, place: str, scene: Scene) -> None:
    """Where we have to read an answer and cannot, the library's own error comes out, and the connection is given back."""
    module = library(stack)
    closed: list[bool] = []

    class Breaks(module.SyncByteStream, module.AsyncByteStream):  # type: ignore[misc, name-defined]  # as above
        def __iter__(self) -> Iterator[bytes]:
            raise module.ReadError("broken")

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in iter(self):
                yield piece

        def close(self) -> None:
            closed.append(True)

        async def aclose(self) -> None:
            closed.append(True)

    made = {"transport": module.MockTransport(lambda _: module.Response(401, stream=Breaks()))}
    method, url = ("POST", scene.login) if place == "login" else ("GET", scene.accounts)
    with instrument(scene.provider), bare(stack, **made) as client:
        with pytest.raises(module.ReadError):
            client.call(method, url, content=b'{"name": "colleague"}')
        assert closed == [True]


@pytest.mark.parametrize("stack", [HTTPX, HTTPX2], ids=str)
def test_a_body_of_the_other_colour(stack: Stack, scene: Scene) -> None:
    """An asynchronous body in a synchronous client is the client's to refuse, also in a login."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"{}"

    with instrument(scene.provider), bare(stack) as client:
        for url in (scene.login, scene.accounts):
            with pytest.raises(RuntimeError, match="async"):
                client.call("POST", url, content=pieces())


@each_kind
def test_a_login_out_of_a_file(stack: Stack, scene: Scene) -> None:
    """A file is a synchronous body in either client; it is read to know whose login it is."""
    body = json.dumps(login_fields(scene.server)).encode()
    with instrument(scene.provider), bare(stack) as client:
        answer = client.call("POST", scene.login, content=io.BytesIO(body))
    assert parsed(answer)["accessToken"] == scene.provider.get().value
    assert scene.exchanges == (1, 0)


@each_kind
@pytest.mark.parametrize("follow", [True, False])
def test_a_header_out_of_an_event_hook_is_replaced(stack: Stack, follow: bool, scene: Scene) -> None:
    """The hook sees what the client has made, and what else it writes stays; on each hop, and on the resend after a 401."""
    seen: list[str | None] = []

    def inject(request: Any) -> None:
        seen.append(request.headers.get("Authorization"))
        request.headers.update({**DEAD, "Attempt": str(len(seen))})

    url = f"{scene.server.url}/redirect?to={scene.accounts}" if follow else scene.accounts
    with instrument(scene.provider), stack.client(None, **hooks(stack, request=inject)) as client:
        assert client.get(url, follow=follow, headers={"Authorization": "Theirs"}).status == 200
        scene.server.inject(Fault("/account/list", "status", status=401))
        assert client.get(scene.accounts, follow=follow).status == 200
    assert seen[0] == "Theirs"
    assert seen[-1] is None
    assert {*scene.carried} - {scene.provider.get().authorization, f"Bearer {first_token(scene)}"} == set()
    attempts = [each.headers["Attempt"] for each in scene.server.requests if "/auth/" not in each.path]
    assert attempts == (["1", "2", "3", "3"] if follow else ["1", "2", "2"])
    assert scene.exchanges == (1, 1)


def first_token(scene: Scene) -> str:
    """The first token that the server has granted, taken from the first call that carried it."""
    return str(scene.carried[0]).removeprefix("Bearer ")


@each_kind
def test_a_hook_that_raises_sees_the_cured_answer(stack: Stack, scene: Scene) -> None:
    """`raise_for_status` in a hook, as httpx's own pages show it, does not see the 401 that is cured; one that stays it does."""
    options = hooks(stack, response=lambda response: response.raise_for_status())
    with instrument(scene.provider), stack.client(None, **options) as client:
        scene.server.inject(Fault("/account/list", "status", status=401))
        assert client.get(scene.accounts).status == 200
        scene.server.inject(Fault("/account/list", "status", status=401, times=None))
        with pytest.raises(library(stack).HTTPStatusError):
            client.get(scene.accounts)


@each_kind
def test_a_hook_with_the_token_of_somebody_else(stack: Stack, scene: Scene) -> None:
    """A token that a hook puts on is somebody else's as well as one that a flow puts on: his orders are his own."""
    scene.server.add_user("colleague", "secret")
    token: list[str] = []

    def inject(request: Any) -> None:
        if token:
            request.headers["Authorization"] = f"Bearer {token[0]}"

    with instrument(scene.provider), stack.client(None, **hooks(stack, request=inject)) as client:
        token.append(scene.log_in(client, name="colleague", password="secret")["accessToken"])
        me = client.get(f"{scene.server.url}/auth/me")
    assert json.loads(me.body)["name"] == "colleague"


@each_kind
def test_a_hook_that_sends_a_request_elsewhere(stack: Stack, scene: Scene) -> None:
    """A hook may turn a request to us into one to somebody else, which carries no token of ours, and the other way round."""
    with Emulator() as foreign, instrument(scene.provider):
        for start, end in ((scene.server, foreign), (foreign, scene.server)):

            def move(request: Any, *, to: int = end.port) -> None:
                request.url = request.url.copy_with(port=to)
                request.headers["Host"] = f"127.0.0.1:{to}"

            with stack.client(None, **hooks(stack, request=move)) as client:
                client.get(f"{start.url}/account/list")
        assert [each.authorization for each in foreign.requests] == [None]
        assert scene.carried == [scene.provider.get().authorization]


@each_kind
def test_a_hook_that_makes_a_call_itself(stack: Stack, scene: Scene) -> None:
    """A call from within a call of a client with a `TradovateAuth` is one like any other: it is signed by us, and the outer one
    by that.
    """
    nested: list[int] = []

    def ask(_: Any) -> None:
        with library(stack).Client(verify=NO_ROOTS) as other:
            nested.append(other.get(scene.accounts, headers=DEAD).status_code)

    options = hooks(stack, request=ask)
    with (
        scene.another() as own,
        instrument(scene.provider),
        stack.client(stack.auth(own), **options) as client,
    ):
        assert client.get(scene.accounts).status == 200
        assert scene.carried == [scene.provider.get().authorization, own.get().authorization]
    assert nested == [200]


@each_kind
def test_hooks_are_the_clients_alone(stack: Stack, scene: Scene) -> None:
    """Nothing of ours is in the client's hooks, while a call is under way or afterwards."""
    found: list[int] = []
    client_of: list[Any] = []

    def count(_: Any) -> None:
        found.append(sum(map(len, client_of[0].event_hooks.values())))

    with instrument(scene.provider), stack.client(None, **hooks(stack, request=count)) as client:
        client_of.append(client.client)  # type: ignore[attr-defined]  # of these stacks
        client.get(scene.accounts)
        count(None)
    assert found == [1, 1]


def transport(stack: Stack, send: Callable[[Any], None], **options: Any) -> Any:
    """Return a transport of somebody's own, over the library's."""
    base = library(stack).AsyncHTTPTransport if stack.asynchronous else library(stack).HTTPTransport

    class Theirs(base):  # type: ignore[misc, valid-type]  # of whichever library
        def handle_request(self, request: Any) -> Any:
            send(request)
            return super().handle_request(request)

        async def handle_async_request(self, request: Any) -> Any:
            send(request)
            return await super().handle_async_request(request)

    return Theirs(verify=NO_ROOTS, **options)


@each_kind
def test_a_transport_that_sets_the_header_is_told_of(stack: Stack, scene: Scene) -> None:
    """What lies below the client is not reached; it is told of once, and costs neither a renewal nor a second call."""
    made = {"transport": transport(stack, lambda request: request.headers.update(DEAD))}
    with instrument(scene.provider), bare(stack, **made) as client:
        assert [client.get(scene.accounts).status for _ in range(2)] == [401, 401]
    eventually(lambda: scene.warnings)
    assert ["transport" in reason for reason in scene.warnings] == [True]
    assert scene.carried == [DEAD["Authorization"]] * 2
    assert scene.exchanges == (1, 0)


def wrapper(stack: Stack, inner: Any, keep: Callable[[Any], object]) -> Any:
    """Return a transport that hands on to another one, which it keeps somewhere."""
    bases = (library(stack).BaseTransport, library(stack).AsyncBaseTransport)

    class Around(*bases):  # type: ignore[misc]  # of whichever library
        def __init__(self) -> None:
            self.kept = keep(inner)
            self.itself = self

        def handle_request(self, request: Any) -> Any:
            return inner.handle_request(request)

        async def handle_async_request(self, request: Any) -> Any:
            return await inner.handle_async_request(request)

        def close(self) -> None:
            inner.close()

        async def aclose(self) -> None:
            await inner.aclose()

    return Around()


def nameless() -> ssl.SSLContext:
    """A context that takes any valid certificate for the one that was wanted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    return context


KEPT: dict[str, Callable[[Any], object]] = {
    "itself": lambda inner: inner,
    "listed": lambda inner: [inner],
    "named": lambda inner: {"a": inner},
}


@each_kind
@pytest.mark.parametrize("keep", KEPT)
@pytest.mark.parametrize("checks", [True, False])
def test_a_transport_around_another(stack: Stack, keep: str, checks: bool, scene: Scene) -> None:
    """One that tries again, or caches, checks certificates if that one does which it hands its requests to."""
    base = library(stack).AsyncHTTPTransport if stack.asynchronous else library(stack).HTTPTransport
    inner = base(verify=NO_ROOTS if checks else False)
    made = {"transport": wrapper(stack, wrapper(stack, inner, KEPT[keep]), KEPT[keep])}
    with instrument(scene.provider, insecure="refuse"), bare(stack, **made) as client:
        assert client.get(scene.accounts, headers=DEAD).status == (200 if checks else 401)
        scene.log_in(client)
    assert scene.exchanges == (1, 0)
    assert (scene.server.counts.logins_granted, bool(eventual_warnings(scene, none=checks))) == (
        1,
        not checks,
    )


@each_kind
def test_a_transport_around_two(stack: Stack, scene: Scene) -> None:
    """Of several that a request may go by, one that does not check is enough."""
    base = library(stack).AsyncHTTPTransport if stack.asynchronous else library(stack).HTTPTransport
    careless = base(verify=False)
    made = {"transport": wrapper(stack, base(verify=NO_ROOTS), lambda inner: [inner, careless])}
    with instrument(scene.provider, insecure="refuse"), bare(stack, **made) as client:
        assert client.get(scene.accounts, headers=DEAD).status == 401
    assert scene.carried == [DEAD["Authorization"]]


def eventual_warnings(scene: Scene, *, none: bool) -> list[str]:
    """The warnings, waited for if there must be some."""
    if not none:
        eventually(lambda: scene.warnings)
    return scene.warnings


@each_kind
@pytest.mark.parametrize("insecure", ["warn", "refuse"])
def test_a_client_that_checks_no_names(stack: Stack, insecure: Any, scene: Scene) -> None:
    """A client that takes any valid certificate for ours is one without checks."""
    with instrument(scene.provider, insecure=insecure), bare(stack, verify=nameless()) as client:
        assert client.get(scene.accounts, headers=DEAD).status == (200 if insecure == "warn" else 401)
    eventually(lambda: scene.warnings)
    assert ["does not check certificates" in reason for reason in scene.warnings] == [True]


@each_kind
@pytest.mark.parametrize("insecure", ["warn", "refuse"])
def test_a_transport_that_shows_nothing(stack: Stack, insecure: Any, scene: Scene) -> None:
    """Whether a transport of another make checks anything cannot be seen: it is told of, or refused, like one that does not."""
    base = library(stack).AsyncHTTPTransport if stack.asynchronous else library(stack).HTTPTransport
    made = {"transport": wrapper(stack, base(verify=NO_ROOTS), lambda _: None)}
    with instrument(scene.provider, insecure=insecure), bare(stack, **made) as client:
        assert client.get(scene.accounts, headers=DEAD).status == (200 if insecure == "warn" else 401)
    eventually(lambda: scene.warnings)
    assert ["cannot be seen" in reason for reason in scene.warnings] == [True]


@each_kind
def test_transports_without_a_network_need_no_checks(stack: Stack, scene: Scene) -> None:
    """The library's own transports to a function or an application lead nowhere."""
    module = library(stack)
    for kind in (module.MockTransport, type("Derived", (module.MockTransport,), {})):
        made = {"transport": kind(lambda _: module.Response(200, stream=module.ByteStream(b"mocked")))}
        with instrument(scene.provider, insecure="refuse"), bare(stack, **made) as client:
            assert client.get(scene.accounts).body == b"mocked"
            assert scene.log_in(client)["accessToken"] == scene.provider.get().value
    assert scene.warnings == []


@each_kind
def test_a_pool_with_the_librarys_own_checks(stack: Stack, scene: Scene) -> None:
    """A pool without a context takes the library's default one, which checks."""
    base = library(stack).AsyncHTTPTransport if stack.asynchronous else library(stack).HTTPTransport
    made = base(verify=NO_ROOTS)
    made._pool._ssl_context = None
    with instrument(scene.provider, insecure="refuse"), bare(stack, transport=made) as client:
        assert client.get(scene.accounts).status == 200


@pytest.mark.parametrize("module", [httpx, httpx2], ids=lambda module: module.__name__)
def test_names_that_are_not_there(module: ModuleType) -> None:
    """A later version that keeps its transports elsewhere is one whose checks cannot be seen."""

    class Later:
        """A client of it."""

    assert Checks(module).of(Later(), None) is None


@each_kind
def test_a_transport_with_a_store_is_not_searched(stack: Stack, scene: Scene) -> None:
    """What a transport keeps a lot of are no transports: a cache of thousands is not looked through at each request."""
    base = library(stack).AsyncHTTPTransport if stack.asynchronous else library(stack).HTTPTransport
    inner = base(verify=NO_ROOTS)
    made = {"transport": wrapper(stack, inner, lambda one: dict.fromkeys(range(65), one))}
    with instrument(scene.provider), bare(stack, **made) as client:
        client.get(scene.accounts)
    eventually(lambda: scene.warnings)
    assert ["cannot be seen" in reason for reason in scene.warnings] == [True]


@pytest.mark.parametrize("module", [httpx, httpx2], ids=lambda module: module.__name__)
def test_a_call_that_is_given_up_in_another_context(module: ModuleType, scene: Scene) -> None:
    """A call that nobody awaits to its end may be closed from anywhere, without an error."""
    stopped: list[str] = []

    class Waits(module.AsyncBaseTransport):  # type: ignore[misc, name-defined]  # of whichever library
        async def handle_async_request(self, request: Any) -> Any:
            try:
                await Never()
            finally:
                stopped.append(request.headers["Authorization"])

    class Never:
        """Is never done."""

        def __await__(self) -> Generator[None, None, None]:
            yield

    async def scenario() -> None:
        call = module.AsyncClient(transport=Waits()).get(scene.accounts)
        contextvars.copy_context().run(call.send, None)
        call.close()

    with instrument(scene.provider), module.Client(verify=NO_ROOTS) as opened:
        opened.get(scene.accounts)
        asyncio.run(scenario())
        token = scene.provider.get()
    assert stopped == [token.authorization]


def test_both_names_for_one_library(scene: Scene) -> None:
    """Where an application has made httpx another name of httpx2, one call is signed once."""
    with ExitStack() as stack:
        stack.enter_context(instrument(scene.provider))
        for target, name, wrapper_of in points(httpx2):
            handle = wrapt.wrap_function_wrapper(target, name, wrapper_of)
            stack.callback(wrapt.unwrap_object, target, name, handle)
        scene.server.inject(Fault("/account/list", "status", status=401, times=None))
        assert httpx2.get(scene.accounts).status_code == 401
    assert len(scene.carried) == 2

"""Instrumentation and what only aiohttp does: middlewares of a session and of a call, sockets, answers from its own parser."""

import asyncio
import gc
import json
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
import pytest
from instrumented import DEAD, Scene, login_fields, scene
from stacks import plain_environment

from tradovate_auth.aiohttp import AiohttpTransport, TradovateAuth
from tradovate_auth.instrumentation import instrument
from tradovate_auth.testing import Emulator
from tradovate_auth.testing.emulator import Fault

__all__ = ["plain_environment", "scene"]  # fixtures

T = TypeVar("T")


def run(scenario: Callable[[aiohttp.ClientSession], Awaitable[T]], **options: Any) -> T:
    """Run a scenario with a session, on a loop that looks closely."""

    async def with_session() -> T:
        async with aiohttp.ClientSession(**options) as session:
            return await scenario(session)

    return asyncio.run(with_session(), debug=True)


async def status(session: aiohttp.ClientSession, url: str, **options: Any) -> int:
    """The status of a GET."""
    async with session.get(url, **options) as response:
        await response.read()
        return response.status


async def log_in(session: aiohttp.ClientSession, scene: Scene, **options: Any) -> Any:
    """The fields of the answer to a login."""
    async with session.post(scene.login, **{"json": login_fields(scene.server), **options}) as response:
        return await response.json()


def spy(seen: list[str]) -> Any:
    """A middleware that notes what goes by."""

    async def middleware(request: Any, handler: Any) -> Any:
        seen.append(request.headers.get("Authorization", ""))
        return await handler(request)

    return middleware


def test_calls_with_middlewares_of_their_own(scene: Scene) -> None:
    """They are signed like all others: with none, with some, and with the session's; ours is the innermost, and once."""
    session_saw: list[str] = []
    call_saw: list[str] = []

    async def scenario(session: aiohttp.ClientSession) -> list[int]:
        return [
            await status(session, scene.accounts, headers=DEAD),
            await status(session, scene.accounts, headers=DEAD, middlewares=()),
            await status(session, scene.accounts, headers=DEAD, middlewares=[spy(call_saw)]),
            await status(session, scene.accounts, headers=DEAD, middlewares=session._middlewares),
        ]

    with instrument(scene.provider):
        scene.server.inject(Fault("/account/list", "status", status=401))
        assert run(scenario, middlewares=(spy(session_saw),)) == [200] * 4
    assert (session_saw, call_saw) == ([DEAD["Authorization"]] * 2, [DEAD["Authorization"]])
    assert len(scene.carried) == 5


def test_a_session_that_was_made_before(scene: Scene) -> None:
    """It is reached, and keeps its middlewares; afterwards it is what it was."""
    seen: list[str] = []

    async def scenario(session: aiohttp.ClientSession) -> list[int]:
        with instrument(scene.provider):
            first = await status(session, scene.accounts)
            own = await log_in(session, scene)
        assert own["accessToken"] == scene.provider.get().value
        return [first, await status(session, scene.accounts)]

    assert run(scenario, middlewares=(spy(seen),)) == [200, 404]
    assert len(seen) == 3


def test_middlewares_that_change(scene: Scene) -> None:
    """A session that was given a list goes by what is in it at the moment, as it does without us."""
    seen: list[str] = []
    middlewares: list[Any] = []

    async def scenario(session: aiohttp.ClientSession) -> list[int]:
        first = await status(session, scene.accounts, headers=DEAD)
        middlewares.append(spy(seen))
        return [first, await status(session, scene.accounts, headers=DEAD)]

    with instrument(scene.provider):
        assert run(scenario, middlewares=middlewares) == [200, 200]
    assert seen == [DEAD["Authorization"]]
    assert len(middlewares) == 1


def test_a_session_that_outlives_instrumentation(scene: Scene) -> None:
    """A session that was made while it lasted is afterwards a plain one, and signed again if it begins again."""

    async def scenario(session: aiohttp.ClientSession) -> list[int]:
        found = [await status(session, scene.accounts)]
        given.uninstrument()
        found.append(await status(session, scene.accounts))
        with instrument(scene.provider):
            found.append(await status(session, scene.accounts))
        return found

    given = instrument(scene.provider)
    assert run(scenario) == [200, 404, 200]


def test_a_session_of_a_later_version(scene: Scene) -> None:
    """If what a session was given cannot be seen, nothing of it is replaced."""

    async def scenario(session: aiohttp.ClientSession) -> int:
        del session._middlewares
        with instrument(scene.provider), pytest.raises(AttributeError, match="_middlewares"):
            await status(session, scene.accounts)
        session._middlewares = ()
        return await status(session, scene.accounts)

    assert run(scenario) == 404


def test_the_function_of_the_module(scene: Scene) -> None:
    """`aiohttp.request` makes a session for itself, and that is one like any other."""

    async def scenario() -> int:
        async with aiohttp.request("GET", scene.accounts, headers=DEAD) as response:
            return response.status

    with instrument(scene.provider):
        assert asyncio.run(scenario()) == 200


@pytest.mark.parametrize("own", [False, True])
def test_calls_of_a_client_of_ours(own: bool, scene: Scene) -> None:
    """A `TradovateAuth` that only some calls bring does their work there; instrumentation does the rest."""
    auth = TradovateAuth(scene.provider)

    async def scenario(session: aiohttp.ClientSession) -> list[int]:
        scene.server.inject(Fault("/account/list", "status", status=401, times=2))
        return [
            await status(session, scene.accounts, **({"middlewares": (auth,)} if own else {})),
            await status(session, scene.accounts, middlewares=()),
        ]

    with instrument(scene.provider):
        assert run(scenario) == [401, 200]
    assert len(scene.carried) == 3


@pytest.mark.parametrize(("scheme", "signed"), [("ws", False), ("http", True)])
def test_sockets(scheme: str, signed: bool, scene: Scene) -> None:
    """A handshake over http:// is signed like any call, over ws:// it is left alone: there the token goes in a frame."""
    url = f"{scheme}{scene.server.url.removeprefix('http')}/websocket"

    async def scenario(session: aiohttp.ClientSession) -> tuple[str, str]:
        token = (await log_in(session, scene))["accessToken"]
        async with session.ws_connect(url) as socket:
            opened = await socket.receive_str()
            await socket.send_str(f"authorize\n0\n\n{token}")
            return opened, await socket.receive_str()

    with instrument(scene.provider):
        assert run(scenario) == ("o", 'a[{"s": 200, "i": 0}]')
    assert scene.carried == [scene.provider.get().authorization if signed else None]


def context(*, checked: bool, names: bool = True) -> ssl.SSLContext:
    """An SSL context that checks certificates, or does not, or any but their names."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = checked and names
    if not checked:
        made.verify_mode = ssl.CERT_NONE
    return made


@pytest.mark.parametrize(
    ("of_connector", "of_call", "expected"),
    [
        (True, None, 200),
        (False, None, 404),
        ("checked", None, 200),
        ("careless", None, 404),
        ("nameless", None, 404),
        (True, "nameless", 404),
        (False, "checked", 200),
        (True, "careless", 404),
        (True, False, 404),
        ("fingerprint", None, 200),
        (True, "fingerprint", 200),
    ],
)
def test_what_counts_as_a_check(of_connector: Any, of_call: Any, expected: int, scene: Scene) -> None:
    """What a call says about certificates counts, else what its connector says; a fingerprint is a check."""
    named: dict[Any, Any] = {
        "checked": context(checked=True),
        "careless": context(checked=False),
        "nameless": context(checked=True, names=False),
        "fingerprint": aiohttp.Fingerprint(b"0" * 32),
    }

    async def scenario() -> int:
        connector = aiohttp.TCPConnector(ssl=named.get(of_connector, of_connector))
        options = {} if of_call is None else {"ssl": named.get(of_call, of_call)}
        async with aiohttp.ClientSession(connector=connector) as session:
            return await status(session, scene.accounts, **options)

    with instrument(scene.provider, insecure="refuse"):
        assert asyncio.run(scenario()) == expected


class Answer(aiohttp.ClientResponse):
    """A response class of a user's own."""


def test_an_answer_from_the_parser(scene: Scene) -> None:
    """An answered login is a response of the session's own class, in every respect like one from a server."""
    told: list[str] = []
    tracing = aiohttp.TraceConfig()

    async def tell(_session: object, _context: object, params: Any) -> None:
        told.append(type(params).__name__)

    tracing.on_request_start.append(tell)
    tracing.on_request_chunk_sent.append(tell)
    tracing.on_request_end.append(tell)

    async def scenario(session: aiohttp.ClientSession) -> None:
        kinds: list[dict[str, Any]] = [
            {},
            {"expect100": True},
            {"chunked": True},
            {"data": {"name": scene.user}, "json": None},
        ]
        for options in kinds:
            for close in (True, False):
                response = await session.post(scene.login, **{"json": login_fields(scene.server), **options})
                assert type(response) is Answer
                assert (response.status, response.reason, response.version) == (
                    200,
                    "OK",
                    aiohttp.HttpVersion11,
                )
                assert (response.content_type, response.history, response.url.path) == (
                    "application/json",
                    (),
                    "/v1/auth/accessTokenRequest",
                )
                assert response.request_info.method == response.method == "POST"
                if close:
                    response.release()
                else:
                    fields = json.loads(await response.content.read())
                    assert fields["accessToken"] == scene.provider.get().value
                assert response.connection is None
                assert response.closed
        assert (await log_in(session, scene))["name"] == scene.user

    with instrument(scene.provider):
        run(scenario, response_class=Answer, raise_for_status=True, trace_configs=[tracing])
    assert (told[0], told[-1]) == ("TraceRequestStartParams", "TraceRequestEndParams")
    assert "TraceRequestChunkSentParams" in told
    assert told.count("TraceRequestEndParams") == 9
    assert scene.exchanges == (1, 0)
    gc.collect()  # what was not closed would be a warning, and that an error


def test_many_logins_at_once(scene: Scene) -> None:
    """Answered logins need no connection: a pool of one, taken, does not make them wait."""

    async def scenario(session: aiohttp.ClientSession) -> set[str]:
        async with session.get(f"{scene.server.url}/stream?size=4000000&chunks=2&delay=0.2"):
            found = await asyncio.gather(*(log_in(session, scene) for _ in range(20)))
        return {each["accessToken"] for each in found}

    async def with_session() -> set[str]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
            return await scenario(session)

    with instrument(scene.provider):
        assert asyncio.run(with_session()) == {scene.provider.get().value}


def test_logins_of_every_kind_of_body(scene: Scene) -> None:
    """A multipart names nobody; a body out of a generator is read, and arrives whole if it passes; none at all passes."""

    async def pieces() -> Any:
        yield b'{"name": '
        yield b'"somebody"}'

    async def scenario(session: aiohttp.ClientSession) -> list[Any]:
        form = aiohttp.FormData({"name": scene.user})
        form.add_field("file", b"x", filename="x")
        return [await log_in(session, scene, json=None, data=data) for data in (form, pieces(), None)]

    with instrument(scene.provider):
        found = run(scenario)
    assert ["accessToken" in each for each in found] == [False] * 3
    assert scene.server.requests[1].body == b'{"name": "somebody"}'


def test_credentials_in_a_url(scene: Scene) -> None:
    """A name and a password in the URL lose to ours."""

    async def scenario(session: aiohttp.ClientSession) -> int:
        return await status(session, scene.accounts.replace("://", "://a:b@"))

    with instrument(scene.provider):
        assert run(scenario) == 200


def test_the_providers_own_session_may_be_instrumented(scene: Scene) -> None:
    """A provider that sends over an ordinary session gets its token, although that session is instrumented."""

    async def scenario(session: aiohttp.ClientSession) -> int:
        return await status(session, scene.accounts)

    with scene.another(transport=AiohttpTransport(aiohttp.ClientSession)) as provider, instrument(provider):
        assert run(scenario) == 200
        assert provider.renew().generation == 2
    assert scene.exchanges == (1, 1)


def test_a_client_of_ours_that_checks_nothing(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """Who gives a session a `TradovateAuth` and no checks has asked for it: its token goes out, with renewals too; and
    nobody is told that a request of it gets none.
    """
    told: list[bool] = []

    async def scenario(session: aiohttp.ClientSession) -> list[int]:
        first = await status(session, scene.accounts, ssl=False)
        told.append("does not check" in caplog.text)
        return [first, await status(session, scene.renewal, ssl=False)]

    with instrument(scene.provider, insecure="refuse"):
        assert run(scenario, middlewares=(TradovateAuth(scene.provider),)) == [200, 200]
    assert told == [False]


def test_a_retry_of_aiohttps_own(scene: Scene) -> None:
    """A connection that breaks while it is kept alive is tried again by aiohttp, signed as before."""

    async def scenario(session: aiohttp.ClientSession) -> list[int]:
        first = await status(session, scene.accounts)
        scene.server.inject(Fault("/account/list", "drop"))
        return [first, await status(session, scene.accounts)]

    with instrument(scene.provider):
        assert run(scenario) == [200, 200]
    assert scene.carried == [scene.provider.get().authorization] * 3


def test_a_foreign_session(scene: Scene) -> None:
    """Middlewares of a session that talks to somebody else are as they were."""
    seen: list[str] = []

    async def scenario(session: aiohttp.ClientSession) -> int:
        with Emulator() as foreign:
            return await status(session, f"{foreign.url}/account/list", headers=DEAD)

    with instrument(scene.provider):
        assert run(scenario, middlewares=[spy(seen)]) == 401
    assert seen == [DEAD["Authorization"]]

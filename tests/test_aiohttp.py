"""What only aiohttp does: middlewares on every hop, a total time-out around them, WebSockets, traces."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
import pytest
from stacks import plain_environment, tradovate_provider

from tradovate_auth import TokenProvider
from tradovate_auth.aiohttp import TradovateAuth
from tradovate_auth.testing import Emulator
from tradovate_auth.testing.emulator import Fault

__all__ = ["plain_environment", "tradovate_provider"]  # fixtures

T = TypeVar("T")


def accounts(emulator: Emulator) -> str:
    """A page that answers with 200 to a good token."""
    return f"{emulator.url}/account/list"


def refuse(emulator: Emulator, path: str = "/account/list") -> None:
    """Answer the next call with 401."""
    emulator.inject(Fault(path, "status", status=401))


def run(scenario: Callable[[aiohttp.ClientSession], Awaitable[T]], auth: TradovateAuth, **options: Any) -> T:
    """Run a scenario with a session that uses this auth."""

    async def with_session() -> T:
        async with aiohttp.ClientSession(**{"middlewares": (auth,), **options}) as session:
            return await scenario(session)

    return asyncio.run(with_session())


async def status(session: aiohttp.ClientSession, url: str, **options: Any) -> int:
    """The status of a GET."""
    async with session.get(url, **options) as response:
        await response.read()
        return response.status


def test_middlewares_of_a_call_replace_the_sessions(
    tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A call with middlewares of its own goes without ours, as aiohttp says; listed there, ours works alone."""
    auth = TradovateAuth(tradovate_provider)

    async def scenario(session: aiohttp.ClientSession) -> list[int]:
        url = accounts(tradovate_emulator)
        return [
            await status(session, url),
            await status(session, url, middlewares=()),
            await status(session, url, middlewares=(auth,)),
        ]

    assert run(scenario, auth) == [200, 404, 200]
    assert tradovate_emulator.requests[2].authorization is None


def test_other_middlewares_before_and_after(
    tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A middleware outside ours sees one good answer, one inside sees both attempts, signed."""
    outside: list[int] = []
    inside: list[tuple[int, bool]] = []

    async def outer(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(request)
        outside.append(response.status)
        return response

    async def inner(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(request)
        inside.append((response.status, request.headers["Authorization"].startswith("Bearer ")))
        return response

    refuse(tradovate_emulator)
    auth = TradovateAuth(tradovate_provider)
    assert (
        run(
            lambda session: status(session, accounts(tradovate_emulator)),
            auth,
            middlewares=(outer, auth, inner),
        )
        == 200
    )
    assert (outside, inside) == ([200], [(401, True), (200, True)])


def test_the_total_timeout_covers_the_wait_for_a_token(
    tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A call whose time runs out while it waits for a login is a `TimeoutError`; the login lands and serves the next."""
    tradovate_emulator.configure(login_delay=0.4)

    async def scenario(session: aiohttp.ClientSession) -> int:
        with pytest.raises(TimeoutError):
            await status(session, accounts(tradovate_emulator), timeout=aiohttp.ClientTimeout(total=0.05))
        return await status(session, accounts(tradovate_emulator))

    assert run(scenario, TradovateAuth(tradovate_provider)) == 200
    assert tradovate_emulator.counts.logins == 1


@pytest.mark.parametrize("scheme", ["ws", "http"])
def test_web_sockets_pass(
    scheme: str, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A handshake goes through the middleware: as ws:// it is left alone, as http:// it is signed like any call."""
    url = f"{scheme}{tradovate_emulator.url.removeprefix('http')}/websocket"
    token = tradovate_provider.get()

    async def scenario(session: aiohttp.ClientSession) -> list[str]:
        async with session.ws_connect(url) as socket:
            opened = await socket.receive_str()
            await socket.send_str(f"authorize\n1\n\n{token.value}")
            return [opened, await socket.receive_str()]

    assert run(scenario, TradovateAuth(tradovate_provider)) == ["o", 'a[{"s": 200, "i": 1}]']
    assert (tradovate_emulator.requests[-1].authorization is None) == (scheme == "ws")


def test_raise_for_status_sees_the_good_answer(
    tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """With `raise_for_status=True` a 401 that was cured raises nothing; one that stays raises, without the token."""
    refuse(tradovate_emulator)
    tradovate_emulator.forbid("/auth/me")

    async def scenario(session: aiohttp.ClientSession) -> str:
        assert await status(session, accounts(tradovate_emulator)) == 200
        with pytest.raises(aiohttp.ClientResponseError) as caught:
            await status(session, f"{tradovate_emulator.url}/auth/me")
        return str(caught.value)

    text = run(scenario, TradovateAuth(tradovate_provider), raise_for_status=True)
    assert text.startswith("401")
    assert tradovate_provider.get().value not in text


def test_traces_see_one_call(tradovate_emulator: Emulator, tradovate_provider: TokenProvider) -> None:
    """A call that was sent twice starts and ends once for a trace."""
    seen: list[str] = []
    trace = aiohttp.TraceConfig()

    async def started(*_: object) -> None:
        seen.append("start")

    async def ended(_: object, __: object, parameters: aiohttp.TraceRequestEndParams) -> None:
        seen.append(f"end {parameters.response.status}")

    trace.on_request_start.append(started)
    trace.on_request_end.append(ended)
    refuse(tradovate_emulator)
    auth = TradovateAuth(tradovate_provider)
    assert (
        run(lambda session: status(session, accounts(tradovate_emulator)), auth, trace_configs=[trace]) == 200
    )
    assert seen == ["start", "end 200"]


def test_a_file_through_a_401_and_a_redirect(
    tradovate_emulator: Emulator, tradovate_provider: TokenProvider, tmp_path: Any
) -> None:
    """A file that is refused at the first hop and redirected at the second attempt arrives whole, once."""
    path = tmp_path / "order"
    path.write_bytes(b"HEADorder")
    refuse(tradovate_emulator, "/redirect")
    url = f"{tradovate_emulator.url}/redirect?status=307&to=/v1/order/placeorder"

    async def scenario(session: aiohttp.ClientSession) -> int:
        with path.open("rb") as file:
            file.seek(4)
            async with session.post(url, data=file) as response:
                return response.status

    assert run(scenario, TradovateAuth(tradovate_provider)) == 200
    assert [order.body for order in tradovate_emulator.orders] == [b"order"]


def test_a_multipart_with_a_generator_is_not_sent_twice(
    tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A multipart with an asynchronous generator in it gets its 401; its part is never left out in a second attempt."""

    async def field() -> Any:
        yield b"order"

    async def scenario(session: aiohttp.ClientSession) -> list[int]:
        found = []
        for _ in range(2):
            with aiohttp.MultipartWriter("form-data") as parts:
                parts.append("plain")
                parts.append(field())
            async with session.post(f"{tradovate_emulator.url}/order/placeorder", data=parts) as response:
                found.append(response.status)
        return found

    refuse(tradovate_emulator, "/order/placeorder")
    assert run(scenario, TradovateAuth(tradovate_provider)) == [401, 200]
    assert [b"order" in order.body for order in tradovate_emulator.orders] == [True]


def test_a_dropped_connection_is_retried_by_aiohttp_itself(
    tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A GET on a kept connection that broke is repeated by the library, which runs us again for it: signed, and no exchange."""

    async def scenario(session: aiohttp.ClientSession) -> int:
        assert await status(session, accounts(tradovate_emulator)) == 200
        tradovate_emulator.inject(Fault("/account/list", "drop"))
        return await status(session, accounts(tradovate_emulator))

    assert run(scenario, TradovateAuth(tradovate_provider)) == 200
    calls = tradovate_emulator.requests[1:]
    assert [each.status for each in calls] == [200, None, 200]
    assert len({each.authorization for each in calls}) == 1
    assert (tradovate_emulator.counts.logins, tradovate_emulator.counts.renewals) == (1, 0)


def test_a_callers_own_header_gives_way(
    tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """An Authorization header of the call or the session is replaced on our origins, never doubled."""

    async def scenario(session: aiohttp.ClientSession) -> int:
        return await status(session, accounts(tradovate_emulator), headers={"Authorization": "Basic eDp5"})

    assert run(scenario, TradovateAuth(tradovate_provider), headers={"authorization": "Basic eDp6"}) == 200
    sent = tradovate_emulator.requests[-1].headers.items()
    assert [value for name, value in sent if name.lower() == "authorization"] == [
        tradovate_provider.get().authorization
    ]


def test_a_middleware_that_signs_by_itself_is_left_alone(
    tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A 401, or a fault, for a header that a middleware behind ours put over ours is held against no token."""
    auth = TradovateAuth(tradovate_provider)

    async def theirs(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        request.headers["Authorization"] = "Bearer theirs"
        return await handler(request)

    async def scenario(session: aiohttp.ClientSession) -> list[int]:
        return [await status(session, accounts(tradovate_emulator)) for _ in range(4)]

    tradovate_emulator.inject(Fault("/account/list", "status", status=500, times=3))
    assert run(scenario, auth, middlewares=(auth, theirs)) == [500, 500, 500, 401]
    assert tradovate_emulator.counts.renewals == 0
    assert not tradovate_provider._keeper.held.doubted


def test_a_middleware_that_takes_over_after_a_401(
    tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """What a middleware puts over ours when a call is sent again is held against no token either."""
    auth = TradovateAuth(tradovate_provider)
    seen: list[str] = []

    async def theirs(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if seen:
            request.headers["Authorization"] = "Bearer theirs"
        seen.append(request.headers["Authorization"])
        return await handler(request)

    refuse(tradovate_emulator)
    assert (
        run(
            lambda session: status(session, accounts(tradovate_emulator)),
            auth,
            middlewares=(auth, theirs),
        )
        == 401
    )
    assert [each == "Bearer theirs" for each in seen] == [False, True]
    assert not tradovate_provider._keeper.held.doubted
    assert tradovate_emulator.counts.renewals == 1

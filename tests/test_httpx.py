"""What only httpx and httpx2 do: flows that are abandoned, base classes of their own, event hooks, two colours."""

import asyncio
import io
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from types import ModuleType
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from stacks import HTTPX, HTTPX2, NO_ROOTS, Stack, plain_environment, tradovate_provider

from tradovate_auth import TokenProvider
from tradovate_auth.testing import Emulator
from tradovate_auth.testing.emulator import Fault

__all__ = ["plain_environment", "tradovate_provider"]  # fixtures

both = pytest.mark.parametrize(
    ("stack", "library"), [(HTTPX, httpx), (HTTPX2, httpx2)], ids=["httpx", "httpx2"]
)
everywhere = pytest.mark.parametrize(
    ("stack", "library", "backend"),
    [
        (HTTPX, httpx, "asyncio"),
        (HTTPX, httpx, "trio"),
        (HTTPX2, httpx2, "asyncio"),
        (HTTPX2, httpx2, "trio"),
    ],
    ids=["httpx-asyncio", "httpx-trio", "httpx2-asyncio", "httpx2-trio"],
)


def accounts(emulator: Emulator) -> str:
    """A page that answers with 200 to a good token."""
    return f"{emulator.url}/account/list"


def refuse(emulator: Emulator, path: str = "/account/list") -> None:
    """Answer the next call with 401."""
    emulator.inject(Fault(path, "status", status=401))


@both
def test_each_library_takes_its_own_class_only(
    stack: Stack, library: ModuleType, tradovate_provider: TokenProvider
) -> None:
    """The other library's client refuses the auth object loudly, instead of sending without it."""
    other = httpx2 if library is httpx else httpx
    auth: Any = stack.auth(tradovate_provider)
    assert isinstance(auth, library.Auth)
    with pytest.raises(TypeError):
        other.Client(auth=auth)
    assert not callable(auth)


@both
def test_no_lock_is_held_where_a_flow_may_be_abandoned(
    stack: Stack, library: ModuleType, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A flow that is closed at any of its yields leaves nothing behind: the next calls go through, with one login."""
    auth = stack.auth(tradovate_provider)
    for refused in (False, True):
        flow = auth.sync_auth_flow(library.Request("GET", accounts(tradovate_emulator)))
        request = next(flow)
        if refused:
            flow.send(library.Response(401, request=request))
        flow.close()
    with library.Client(auth=auth, verify=NO_ROOTS) as client:
        assert client.get(accounts(tradovate_emulator)).status_code == 200
    assert (tradovate_emulator.counts.logins, tradovate_emulator.counts.renewals) == (1, 1)


@everywhere
def test_no_lock_is_held_where_an_asynchronous_flow_may_be_abandoned(
    stack: Stack,
    library: ModuleType,
    backend: str,
    tradovate_emulator: Emulator,
    tradovate_provider: TokenProvider,
) -> None:
    """The same for the asynchronous flow: closed before and after the resend, it leaves nothing behind."""
    auth = stack.auth(tradovate_provider)

    async def scenario() -> int:
        for refused in (False, True):
            flow = auth.async_auth_flow(library.Request("GET", accounts(tradovate_emulator)))
            request = await anext(flow)
            if refused:
                await flow.asend(library.Response(401, request=request))
            await flow.aclose()
        async with library.AsyncClient(auth=auth, verify=NO_ROOTS) as client:
            status: int = (await client.get(accounts(tradovate_emulator))).status_code
        return status

    assert anyio.run(scenario, backend=backend) == 200
    assert (tradovate_emulator.counts.logins, tradovate_emulator.counts.renewals) == (1, 1)


@everywhere
def test_a_caller_who_gives_up_wastes_no_login(
    stack: Stack,
    library: ModuleType,
    backend: str,
    tradovate_emulator: Emulator,
    tradovate_provider: TokenProvider,
) -> None:
    """A call that is cancelled while it waits for the first token leaves; the login goes on, and serves the next call."""
    tradovate_emulator.configure(login_delay=0.3)
    auth = stack.auth(tradovate_provider)

    async def scenario() -> int:
        async with library.AsyncClient(auth=auth, verify=NO_ROOTS) as client:
            with anyio.move_on_after(0.05) as scope:
                await client.get(accounts(tradovate_emulator))
            assert scope.cancelled_caught
            status: int = (await client.get(accounts(tradovate_emulator))).status_code
            return status

    assert anyio.run(scenario, backend=backend) == 200
    assert tradovate_emulator.counts.logins == 1
    assert [each.path.rpartition("/")[2] for each in tradovate_emulator.requests] == [
        "accesstokenrequest",
        "list",
    ]


@everywhere
def test_a_loop_is_never_blocked(
    stack: Stack,
    library: ModuleType,
    backend: str,
    tradovate_emulator: Emulator,
    tradovate_provider: TokenProvider,
) -> None:
    """While calls wait for a login of half a second, the loop turns on."""
    tradovate_emulator.configure(login_delay=0.5)
    auth = stack.auth(tradovate_provider)
    turns = 0

    async def tick(scope: anyio.CancelScope) -> None:
        nonlocal turns
        with scope:
            while True:
                await anyio.sleep(0.01)
                turns += 1

    async def scenario() -> None:
        async with (
            library.AsyncClient(auth=auth, verify=NO_ROOTS) as client,
            anyio.create_task_group() as tasks,
        ):
            scope = anyio.CancelScope()
            tasks.start_soon(tick, scope)
            await client.get(accounts(tradovate_emulator))
            scope.cancel()

    anyio.run(scenario, backend=backend)
    assert turns >= 10  # fifty, on an idle machine; a blocked loop would have made none or one


@both
def test_the_auth_of_one_call(
    stack: Stack, library: ModuleType, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """`auth=` of a call wins over the client's, in both directions."""
    auth = stack.auth(tradovate_provider)
    with library.Client(verify=NO_ROOTS) as client:
        assert client.get(accounts(tradovate_emulator), auth=auth).status_code == 200
    with library.Client(verify=NO_ROOTS, auth=auth) as client:
        assert client.get(accounts(tradovate_emulator), auth=None).status_code == 404
    assert tradovate_emulator.requests[-1].authorization is None


@both
def test_a_built_request_is_signed_each_time(
    stack: Stack, library: ModuleType, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A request that was built once and is sent again after a renewal carries the new token at once."""
    with library.Client(verify=NO_ROOTS, auth=stack.auth(tradovate_provider)) as client:
        request = client.build_request("POST", f"{tradovate_emulator.url}/order/placeorder", json={})
        assert client.send(request).status_code == 200
        tradovate_provider.renew()
        assert client.send(request).status_code == 200
    assert (tradovate_emulator.counts.orders, tradovate_emulator.counts.calls_unauthorized) == (2, 0)


@both
def test_event_hooks_see_both_answers(
    stack: Stack, library: ModuleType, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """The hooks of httpx see every answer; the caller gets the good one, and the auth calls are not among them."""
    seen: list[int] = []
    hooks: dict[str, list[Callable[..., Any]]] = {"response": [lambda each: seen.append(each.status_code)]}
    refuse(tradovate_emulator)
    auth = stack.auth(tradovate_provider)
    with library.Client(verify=NO_ROOTS, auth=auth, event_hooks=hooks) as client:
        answer = client.get(accounts(tradovate_emulator))
    assert (answer.status_code, seen) == (200, [401, 200])


@both
def test_a_hook_that_signs_by_itself_is_left_alone(
    stack: Stack, library: ModuleType, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A 401 for a header that somebody else put in the place of ours costs nothing."""
    tradovate_emulator.configure(missing_header_status=401)

    def sign(request: Any) -> None:
        request.headers["Authorization"] = "Basic c29tZWJvZHk6ZWxzZQ=="

    auth = stack.auth(tradovate_provider)
    with library.Client(verify=NO_ROOTS, auth=auth, event_hooks={"request": [sign]}) as client:
        assert client.get(accounts(tradovate_emulator)).status_code == 401
        assert client.post(f"{tradovate_emulator.url}/order/placeorder").status_code == 401
    assert (tradovate_emulator.counts.calls, tradovate_emulator.counts.renewals) == (2, 0)


@both
def test_more_than_was_announced_is_not_sent_twice(
    stack: Stack, library: ModuleType, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A file that turns out longer than it said did not know itself: it goes out whole, once."""

    class Growing(io.BytesIO):
        """Says that it ends after two bytes, as a file does that somebody still writes."""

        def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
            return 2 if whence == io.SEEK_END else super().seek(offset, whence)

    refuse(tradovate_emulator, "/order/placeorder")
    url = f"{tradovate_emulator.url}/order/placeorder"
    with library.Client(verify=NO_ROOTS, auth=stack.auth(tradovate_provider)) as client:
        for status in (401, 200):
            assert client.post(url, content=Growing(b"order")).status_code == status
    assert [order.body for order in tradovate_emulator.orders] == [b"order"]


def test_two_loops_after_one_another(tradovate_emulator: Emulator, tradovate_provider: TokenProvider) -> None:
    """One auth object serves one `asyncio.run` after another."""
    auth = HTTPX.auth(tradovate_provider)

    async def once() -> int:
        async with httpx.AsyncClient(auth=auth, verify=NO_ROOTS) as client:
            return (await client.get(accounts(tradovate_emulator))).status_code

    assert [asyncio.run(once()) for _ in range(3)] == [200] * 3
    assert tradovate_emulator.counts.logins == 1


@both
def test_a_generator_with_a_length_is_sent_once_and_never_shortened(
    stack: Stack, library: ModuleType, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A generator that breaks off is httpx's own error, not a shorter order; a whole one is not sent twice."""
    order = f"{tradovate_emulator.url}/order/placeorder"
    with library.Client(auth=stack.auth(tradovate_provider), verify=NO_ROOTS) as client:
        refuse(tradovate_emulator, "/order/placeorder")
        for status in (401, 200):
            whole = client.post(order, content=iter([b"whole"]), headers={"Content-Length": "5"})
            assert whole.status_code == status
        with pytest.raises(Exception, match="Too little data"):  # of httpx, or of h11 beneath it
            client.post(order, content=iter([b"broken"]), headers={"Content-Length": "100"})
    assert [placed.body for placed in tradovate_emulator.orders] == [b"whole"]


@both
def test_a_look_at_a_body_takes_nothing_away(
    stack: Stack, library: ModuleType, tradovate_provider: TokenProvider
) -> None:
    """Empty pieces before the first real one are no end of a body, in both colours; what was looked at is read and closed."""
    auth = stack.auth(tradovate_provider)

    async def pieces(*given: bytes) -> AsyncGenerator[bytes, None]:
        for piece in given:
            yield piece

    async def scenario() -> None:
        response = library.Response(404, content=pieces(b"", b"go", b"ne"))
        assert await auth._apeek(response) == b"go"
        assert await response.aread() == b"gone"
        for given in ((), (b"",)):
            response = library.Response(404, content=pieces(*given))
            assert await auth._apeek(response) is None
            assert await response.aread() == b""
        async with aclosing(pieces(b"go", b"ne")) as inner:
            left = library.Response(404, content=inner)
            assert await auth._apeek(left) == b"go"
            await left.aclose()

    response = library.Response(404, content=iter([b"", b"go", b"ne"]))
    assert auth._peek(response) == b"go"
    assert response.read() == b"gone"
    response = library.Response(404, content=iter([b""]))
    assert auth._peek(response) is None
    assert response.read() == b""
    for backend in ("asyncio", "trio"):
        anyio.run(scenario, backend=backend)

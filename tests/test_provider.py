"""The public face: arguments, the two ways of asking, URLs, status, and closing."""

import asyncio
import copy
import gc
import pickle
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from core_tools import GatedTransport, World, at_once, eventually

import tradovate_auth
from tradovate_auth import (
    ConfigurationError,
    Credentials,
    Environment,
    LoginRefused,
    ProviderClosed,
    Throttled,
    TokenProvider,
    TransportError,
)
from tradovate_auth import _flight as flight_module
from tradovate_auth._flight import SingleFlight
from tradovate_auth.events import RenewalFailed, Renewed
from tradovate_auth.requests import TradovateAuth as RequestsAuth
from tradovate_auth.storage import MemoryStorage
from tradovate_auth.testing import Emulator
from tradovate_auth.transport import Call, Reply


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"renewal": "sometimes"}, "renewal"),
        ({"login": "twice"}, "login"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"storage": "carrier-pigeon://loft"}, "storage"),
        ({"environment": "paper"}, "environment"),
    ],
)
def test_wrong_arguments_are_found_before_any_call(options: dict[str, Any], complaint: str) -> None:
    """A wrong argument is a `ConfigurationError` that names it, and a `ValueError`; nothing is sent."""
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        TokenProvider(Credentials("trader", "password"), **options)
    assert isinstance(caught.value, ValueError)


def test_building_a_provider_sends_nothing(world: World) -> None:
    """Nothing happens before somebody asks for a token; `repr` names the account and no secret."""
    provider = world.provider()
    assert repr(provider) == f"<TokenProvider trader at 127.0.0.1:{world.server.port}>"
    assert world.transport.calls == []


def test_a_provider_of_the_environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """`from_env` takes credentials, environment and storage from the variables; arguments win."""
    for name, value in world.server.credentials.items():
        monkeypatch.setenv(f"TRADOVATE_{name.upper()}", str(value))
    monkeypatch.setenv("TRADOVATE_ENVIRONMENT", world.server.url)
    monkeypatch.setenv("TRADOVATE_STORAGE", "memory://")
    with TokenProvider.from_env(renewal="on-demand") as provider:
        assert provider.get().generation == 1
        assert provider.status().storage == "memory"
    with TokenProvider.from_env(environment="live") as provider:
        assert provider.environment.kind == "live"


def test_equal_credentials_share_a_session_of_the_process(world: World) -> None:
    """Without a storage of its own, a second provider of the same credentials adopts; other credentials do not."""
    options: dict[str, Any] = {"storage": None, "clock": tradovate_auth._clock.SYSTEM_CLOCK}
    real = Emulator()
    with real:
        options["environment"] = real.url
        assert world.provider(**options).get() is world.provider(**options).get()
        assert real.counts.logins == 1
        world.provider(**options, who={"device_id": "another"}).get()
        assert real.counts.logins == 2


def test_a_fresh_token_takes_no_flight_and_no_lock(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fresh token neither `get` nor `aget` joins a flight, asks the storage or touches a lock."""
    provider = world.provider()
    token = provider.get()
    world.settled(provider)
    world.storage.broken = {"now", "load", "save", "exclusive"}

    def bomb(*_: object) -> None:
        raise AssertionError("the hot path went to the flight")

    monkeypatch.setattr(SingleFlight, "join", bomb)
    monkeypatch.setattr(flight_module, "Flight", bomb)
    called: list[str] = []
    before = sys.getprofile()
    sys.setprofile(
        lambda frame, event, argument: called.append(
            getattr(argument, "__name__", "") if "c_" in event else frame.f_code.co_name
        )
    )
    try:
        served = provider.get()
    finally:
        sys.setprofile(before)
    assert served is token
    assert [name for name in called if name != "setprofile"] == ["get", "elapsed", "elapsed", "get"]
    assert asyncio.run(_aget(provider)) is token


async def _aget(provider: TokenProvider, **options: float) -> object:
    return await provider.aget(**options)


def test_a_fresh_token_costs_little_more_than_the_time() -> None:
    """`get` with a fresh token costs about three looks at the clock, best of many rounds; four where it is busy."""
    with (
        Emulator() as server,
        TokenProvider(
            Credentials(**server.credentials), environment=server.url, storage=MemoryStorage()
        ) as provider,
    ):
        provider.get()
        rounds, get, now = range(10_000), provider.get, time.time

        def cost(call: Any) -> float:
            started = time.perf_counter()
            for _ in rounds:
                call()
            return time.perf_counter() - started

        tracer = sys.gettrace()
        sys.settrace(None)  # coverage is not what is measured here
        gc.disable()
        try:
            best, cheapest = float("inf"), float("inf")
            for count in range(400):
                cheapest, best = min(cheapest, cost(now)), min(best, cost(get))
                if count >= 10 and best < 3 * cheapest:
                    break
        finally:
            gc.enable()
            sys.settrace(tracer)
        assert best < 4 * cheapest


@pytest.mark.anyio
async def test_awaiting_a_token(world: World) -> None:
    """`aget` logs in without a thread of the loop's executor, on asyncio and trio, and serves what it got at once."""
    provider = world.provider()
    token = await provider.aget()
    assert await provider.aget() is token
    assert provider.get() is token
    assert world.server.counts.logins == 1


@pytest.mark.anyio
async def test_awaiting_tells_of_errors(world: World) -> None:
    """What stands in the way of a token is raised in the task, and in each task its own."""
    provider = world.provider(who={"password": "wrong horse"})
    errors: list[Exception] = []

    async def ask() -> None:
        try:
            await provider.aget()
        except tradovate_auth.LoginRefused as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(ask)
    assert len({id(error) for error in errors}) == 5
    assert world.server.counts.logins == 1


@pytest.mark.anyio
async def test_a_cancelled_task_leaves_its_login_to_the_others(world: World) -> None:
    """The leader and then every waiter is cancelled: the login is finished, kept and used, on asyncio and trio."""
    world.server.configure(login_delay=0.2)
    provider = world.provider()
    with anyio.move_on_after(0.05) as scope:
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(provider.aget)
    assert scope.cancelled_caught
    assert (await provider.aget()).generation == 1
    assert world.server.counts.logins == 1


def test_a_second_event_loop_uses_what_the_first_began(world: World) -> None:
    """The login outlives the `asyncio.run` that began it, and the next one, under any backend, is served by it."""
    world.server.configure(login_delay=0.2)
    provider = world.provider()

    async def impatient() -> None:
        with anyio.move_on_after(0.02):
            await provider.aget()

    asyncio.run(impatient())
    first = asyncio.run(_aget(provider))
    assert anyio.run(_aget, provider, backend="trio") is first
    assert world.server.counts.logins == 1


def test_a_token_that_should_live_longer_is_renewed_first(world: World) -> None:
    """`min_ttl` asks for a longer one if the token ends sooner; if none is to be had, what there is is returned."""
    provider = world.provider()
    token = provider.get()
    assert provider.get(min_ttl=4000) is token
    world.clock.advance(3000)
    assert provider.get() is token
    newer = provider.get(min_ttl=4000)
    assert newer.generation == 2
    assert provider.get(min_ttl=9000) is newer  # the allowance's minute is not over
    assert asyncio.run(_aget(provider, min_ttl=4000)) is newer
    assert world.server.counts.renewals == 1


def test_a_stale_token_is_served_beside_its_renewal(world: World) -> None:
    """Between stale and ended, `get` and `aget` return at once; the flight that they launch renews beside them."""
    provider = world.provider()
    token = provider.get()
    world.clock.advance(4200)
    world.server.configure(renewal_delay=0.2)
    assert provider.get() is token
    assert asyncio.run(_aget(provider)) is token
    world.events.wait_for(Renewed)
    assert provider.get().generation == 2
    assert world.server.counts.renewals == 1


def test_the_wall_clock_may_jump(world: World) -> None:
    """A day forward or back on the machine's wall clock: no call, the same token, and the renewal when it is due."""
    provider = world.provider()
    token = provider.get()
    for jump in (86_400, -172_800, 86_400):
        world.clock.jump(jump)
        assert provider.get() is token
        assert provider.status().state == "fresh"
    assert len(world.transport.calls) == 1
    world.clock.advance(4200)
    assert provider.get() is token
    world.events.wait_for(Renewed)


def test_status_reads_only(world: World) -> None:
    """What `status` tells in each state, without a call to the server in any."""
    provider = world.provider()
    absent = provider.status()
    assert (absent.state, absent.expires_at, absent.renews_at, absent.last_event) == (
        "absent",
        None,
        None,
        None,
    )
    assert (absent.generation, absent.logins, absent.storage) == (0, 0, "memory")
    token = provider.get()
    fresh = provider.status()
    assert (fresh.state, fresh.expires_at, fresh.generation, fresh.logins) == (
        "fresh",
        token.expires_at,
        1,
        1,
    )
    assert fresh.renews_at is not None
    assert 3890 < fresh.renews_at.timestamp() - world.clock.time() < 4100
    assert str(fresh.last_event).startswith("LoggedIn generation 1")
    assert fresh.hosts == {"demo": f"127.0.0.1:{world.server.port}"}
    world.clock.advance(4200)
    assert provider.status().state == "stale"
    world.clock.advance(700)
    assert provider.status().state == "absent"
    world.server.lock_out()
    with pytest.raises(tradovate_auth.LockedOut):
        provider.get()
    held = provider.status()
    assert (held.state, held.hold) == ("held", "the server locked us out with 429")
    assert held.hold_until is not None
    assert held.hold_until.timestamp() - world.clock.time() == pytest.approx(3600, abs=2)
    calls = len(world.transport.calls)
    provider.close()
    assert provider.status().state == "closed"
    assert len(world.transport.calls) == calls


def test_status_names_the_newest_event_when_waiters_wake(world: World) -> None:
    """The status of a caller that was just served already tells of the login that served it."""
    for _ in range(20):
        provider = world.provider(storage=MemoryStorage(clock=world.clock))
        provider.get()
        assert "LoggedIn" in str(provider.status().last_event)


def test_status_tells_of_refused_credentials(world: World) -> None:
    """A latch shows as a hold without an end."""
    provider = world.provider(who={"password": "wrong horse"})
    with pytest.raises(tradovate_auth.LoginRefused):
        provider.get()
    status = provider.status()
    assert status.state == "held"
    assert "Incorrect username or password" in str(status.hold)
    assert status.hold_until is None


def test_urls_go_to_the_assigned_host(world: World) -> None:
    """By the key of `apiHosts`: first the well-known host, after a grant the assigned one; sockets likewise."""
    port = world.server.port
    provider = world.provider()
    assert provider.url("demo", "/order/place") == f"http://127.0.0.1:{port}/v1/order/place"
    assert provider.websocket_url("demo") == f"ws://127.0.0.1:{port}/v1/websocket"
    with pytest.raises(ConfigurationError, match="'mdDemo'; known are: demo"):
        provider.url("mdDemo", "/")
    world.server.configure(api_hosts={"demo": "localhost", "mdDemo": "md.localhost", "evil": "evil.example"})
    provider.get()
    assert provider.url("demo", "order/place") == f"http://localhost:{port}/v1/order/place"
    assert provider.websocket_url("mdDemo") == f"ws://md.localhost:{port}/v1/websocket"
    with pytest.raises(ConfigurationError, match="'evil'"):
        provider.url("evil", "/")
    assert len(world.transport.calls) == 1


def test_urls_of_the_vendor() -> None:
    """Known before any call, over TLS."""
    provider = TokenProvider(Credentials("trader", "password"), environment="live", storage=MemoryStorage())
    assert provider.url("live", "/account/list") == "https://live.tradovateapi.com/v1/account/list"
    assert provider.websocket_url("mdLive") == "wss://md.tradovateapi.com/v1/websocket"


def test_renewing_by_hand(world: World) -> None:
    """`renew` brings the next generation at once; `reset` lifts its pause."""
    provider = world.provider()
    first = provider.get()
    second = provider.renew()
    assert second.generation == first.generation + 1
    provider.reset()
    assert provider.renew(timeout=None).generation == 3
    assert provider.status().renewals == 2


def test_resetting_lifts_a_hold(world: World) -> None:
    """A human says that the lock-out is over: the next caller asks again at once; what was spent stays spent."""
    world.server.lock_out()
    provider = world.provider()
    with pytest.raises(tradovate_auth.LockedOut):
        provider.get()
    world.server.lock_out(seconds=0)
    provider.reset()
    assert provider.get().generation == 1
    assert provider.status().failed_logins == 1


def test_both_kinds_of_context_close(world: World) -> None:
    """`with` and `async with` end with a closed provider, whose session another one adopts without a login."""
    with world.provider() as provider:
        token = provider.get()
    with pytest.raises(ProviderClosed):
        provider.get()

    async def use() -> TokenProvider:
        async with world.provider() as other:
            assert await other.aget() is token
        return other

    for backend in ("asyncio", "trio"):
        other = anyio.run(use, backend=backend)
        with pytest.raises(ProviderClosed):
            asyncio.run(_aget(other))
    assert world.server.counts.logins == 1
    assert world.server.live_sessions == 1


@pytest.mark.anyio
async def test_closing_does_not_stall_the_loop(world: World) -> None:
    """`aclose` waits for a login in the air while the loop goes on."""
    transport, closed = GatedTransport(), False
    provider = world.provider(transport=transport)

    async def let_it_through() -> None:
        for _ in range(5):
            await anyio.sleep(0.005)
        assert not closed
        transport.gate.set()

    with anyio.move_on_after(0.02):
        await provider.aget()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(let_it_through)
        await provider.aclose()
        closed = True
    assert transport.gate.is_set()
    assert world.server.counts.logins_granted == 1
    assert world.provider().get().generation == 1


@pytest.mark.parametrize("policy", ["never", "once"])
def test_the_login_policy(world: World, policy: str) -> None:
    """`never` shares what others have opened and opens nothing; `once` opens one session in this process."""
    provider = world.provider(login=policy)
    if policy == "never":
        with pytest.raises(tradovate_auth.LoginRequired):
            provider.get()
        world.clock.advance(2)
        world.provider().get()
    assert provider.get().generation == 1
    assert world.server.counts.logins == 1
    token = provider.renew()
    assert token.generation == 2
    world.server.revoke()
    world.clock.advance(61)
    assert provider.reject(token)
    with pytest.raises(tradovate_auth.LoginRequired):
        provider.get()
    with pytest.raises(tradovate_auth.LoginRequired):
        world.provider(login=policy).get()
    assert world.server.counts.logins == 1


def test_the_default_transport_is_the_first_installed(world: World) -> None:
    """A bare provider sends over the libraries that are there, and says when none is."""
    provider = world.provider(transport=None)
    assert provider.get().generation == 1
    assert type(provider._account.transport).__name__ == "Httpx2Transport"


def test_an_environment_object_is_taken_as_it_is(world: World) -> None:
    """The provider's `environment` is what adapters read their origins from."""
    environment = Environment(world.server.url, hour=60.0)
    assert world.provider(environment=environment).environment is environment


def test_callers_without_a_token_share_the_wait_for_a_server(world: World) -> None:
    """Ten callers of an unreachable server wait for one attempt, and each gets its own error."""
    world.server.stop()
    provider = world.provider()
    with world.time_flies(0.05):
        outcomes = at_once(10, lambda: provider.get(timeout=None))
    assert {type(outcome) for outcome in outcomes} == {TransportError}
    assert not any(getattr(outcome, "sent", True) for outcome in outcomes)
    assert len({id(outcome) for outcome in outcomes}) == 10


def test_a_failure_in_the_background_reaches_nobody(world: World) -> None:
    """The timer's failed renewal is an event; no caller and no thread sees an exception."""
    provider = world.provider(renewal="background")
    token = provider.get()
    world.server.stop()
    world.clock.advance(4200)
    with world.time_flies():
        world.events.wait_for(RenewalFailed)
    assert provider.get() is token
    world.server.start()
    with world.time_flies():
        world.events.wait_for(Renewed)
    eventually(lambda: provider.get().generation == 2)


def test_each_key_of_a_user_has_its_own_session(world: World) -> None:
    """Two API keys of one user share the ledger; the refusal of one key's token leaves the other's in use."""
    one, two = world.provider(), world.provider(who={"cid": None, "sec": None})
    first = one.get()
    record = one._account.load()
    other = replace(first, generation=2)
    tokens = {**record.tokens, two._account.slot: other}
    refused = {two._account.slot: 2}
    changed = replace(record, revision=record.revision + 1, generation=2, tokens=tokens, refused=refused)
    assert world.storage.save(one._account.key, changed)
    world.clock.advance(first.lifetime * 0.9)
    assert one.get() is first
    world.settled(one)
    assert one.get().generation == 3
    assert world.server.counts.logins == 1


def test_a_corrected_password_shares_the_ledger(tradovate_emulator: Emulator) -> None:
    """Without a storage too, failed logins of one user add up whatever password they had; the right one works at once."""
    known = tradovate_emulator.credentials

    def attempt(password: str) -> TokenProvider:
        credentials = Credentials(**{**known, "password": password})
        return TokenProvider(credentials, environment=tradovate_emulator.url, renewal="on-demand")

    for guess in ("one", "two"):
        with attempt(guess) as provider, pytest.raises(LoginRefused):
            provider.get()
    with attempt(known["password"]) as right:
        assert right.get().generation == 1
        assert right.status().failed_logins == 2
    for guess in ("three", "four", "five"):
        with attempt(guess) as provider, pytest.raises((LoginRefused, Throttled)):
            provider.get()
    assert tradovate_emulator.counts.logins_refused == 3


def test_a_storage_that_fails_behind_the_answer_loses_no_token(world: World) -> None:
    """The clock of the storage, and its disk, may fail while the login is on its way: the granted token is used."""
    world.server.configure(clock_offset=300.0)
    provider = world.provider()
    send = world.transport.send

    def breaking(call: Call, timeout: float) -> Reply:
        reply = send(call, timeout)
        world.storage.broken |= {"now", "save"}
        return reply

    provider._account.transport = SimpleNamespace(send=breaking)
    assert provider.get().generation == 1
    assert world.server.counts.logins == 1


def test_reset_lifts_a_penalty(world: World) -> None:
    """A human who says so need not wait: the next caller asks at once."""
    world.server.penalize("login", seconds=600)
    provider = world.provider()
    with pytest.raises(Throttled):
        provider.get(timeout=1)
    provider.reset()
    world.server.reset()
    assert provider.get(timeout=20).generation == 1


@pytest.mark.parametrize("make", ["provider", "adapter"])
def test_what_holds_a_secret_is_not_pickled(tradovate_provider: TokenProvider, make: str) -> None:
    """Providers and adapters say how a child process gets one, and a copy is the object itself."""
    thing: object = tradovate_provider if make == "provider" else RequestsAuth(tradovate_provider)
    with pytest.raises(TypeError, match="build it in the child process"):
        pickle.dumps(thing)
    assert copy.copy(thing) is copy.deepcopy(thing) is thing


def test_closing_between_two_tries_spends_nothing(world: World) -> None:
    """A login that never left is not counted, also when the provider is closed while it waits for the next try."""
    tries = threading.Event()

    def unreachable(_call: Call, _timeout: float) -> Reply:
        tries.set()
        raise TransportError("refused", None, None, False)

    provider = world.provider(transport=SimpleNamespace(send=unreachable))
    outcome: list[Exception] = []

    def ask() -> None:
        try:
            provider.get(timeout=None)
        except ProviderClosed as error:
            outcome.append(error)

    waiter = threading.Thread(target=ask)
    waiter.start()
    assert tries.wait(20)
    provider.close()
    waiter.join(20)
    assert len(outcome) == 1
    assert provider._account.load().ledger.failed_logins == ()

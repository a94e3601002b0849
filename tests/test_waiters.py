"""Those who wait for a token: what they get when the attempt fails, hangs, or the provider closes under them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from core_tools import FrailStorage, GatedTransport, World, at_once, eventually, logins, renewals

from tradovate_auth import (
    LockedOut,
    ProviderClosed,
    StorageError,
    TokenProvider,
    TokenTimeout,
)
from tradovate_auth.events import Warned
from tradovate_auth.storage import Record
from tradovate_auth.testing.emulator import Fault
from tradovate_auth.transport import Call, Reply


def test_a_failure_is_remembered_for_a_second(world: World) -> None:
    """Callers of the next second hear of the last failure without asking anybody; their waits shrink with time."""
    world.server.lock_out(429)
    provider = world.provider()
    with pytest.raises(LockedOut):
        provider.get()
    loads = world.storage.loads
    world.clock.advance(0.9)
    with pytest.raises(LockedOut) as caught:
        provider.get()
    assert world.storage.loads == loads
    assert caught.value.retry_after == pytest.approx(3599, abs=1)
    world.clock.advance(0.2)
    with pytest.raises(LockedOut):
        provider.get()
    assert world.storage.loads > loads
    assert logins(world) == 1


def test_a_failure_without_an_end_is_remembered_too(world: World) -> None:
    """An error that no wait cures keeps its `retry_after` of None when it is told again."""
    provider = world.provider(login="never")
    for _ in range(2):
        with pytest.raises(Exception, match="no session to share") as caught:
            provider.get()
        assert getattr(caught.value, "retry_after", 0) is None


def test_a_stuck_flight_is_replaced_and_lands_late_in_vain(world: World) -> None:
    """A flight above the ceiling is given up; when it comes back with an older token, the newer one stays."""
    gate, hold = threading.Event(), threading.Event()

    class Sticky(FrailStorage):
        def now(self) -> float:
            if hold.is_set():
                hold.clear()
                assert gate.wait(20)
            return super().now()

    provider = world.provider(storage=Sticky(clock=world.clock))
    token = provider.get()
    world.settled(provider)
    hold.set()
    provider._keeper._forked()  # as if a fork had come between: the next use looks at the storage
    world.clock.advance(1)
    assert provider.get() is token
    stuck = provider._keeper.flight.current()
    eventually(lambda: not hold.is_set())
    assert stuck is not None
    stuck.born -= 10_000
    assert provider.renew().generation == 2
    assert not stuck.landed
    gate.set()
    stuck.wait(10)
    assert provider.get().generation == 2


def test_a_stuck_login_that_comes_back_is_used(world: World) -> None:
    """What a late flight brings is published if it is the newest there is."""
    provider = world.provider()
    token = provider.get()
    keeper = provider._keeper
    held = keeper.held
    assert not keeper._overtaken(held, None)
    keeper.held = type(held)(token, 10.0, 10.0)
    assert keeper._overtaken(held, None)
    assert keeper._overtaken(held, token)
    world.storage.broken.clear()
    newer = world.provider().renew()
    assert not keeper._overtaken(held, newer)


@contextmanager
def gated(world: World) -> Iterator[tuple[TokenProvider, GatedTransport]]:
    """Yield a provider whose login stands at a gate, with a first waiter that has already given up."""
    transport = GatedTransport()
    provider = world.provider(transport=transport)
    with pytest.raises(TokenTimeout):
        provider.get(timeout=0.01)
    assert transport.arrived.wait(10)
    yield provider, transport
    transport.gate.set()


def test_a_login_whose_only_waiter_has_left_is_kept(world: World) -> None:
    """`TokenTimeout` is the caller's alone: the login is finished, saved and used."""
    with gated(world) as (provider, transport):
        transport.gate.set()
        eventually(lambda: provider.status().generation == 1)
        assert provider.get(timeout=5).generation == 1
    assert logins(world) == 1


def test_closing_waits_for_a_login_and_saves_it(world: World) -> None:
    """A login in the air lands in the storage; the closed provider serves it to nobody, another one adopts it."""
    with gated(world) as (provider, transport):
        closer = threading.Thread(target=provider.close)
        closer.start()
        eventually(lambda: provider._keeper.closed)
        assert closer.is_alive()
        transport.gate.set()
        closer.join(10)
        assert not closer.is_alive()
        with pytest.raises(ProviderClosed):
            provider.get()
        assert provider.status().state == "closed"
    other = world.provider()
    assert other.get().generation == 1
    assert logins(world) == 1


def test_a_waiter_of_a_provider_that_closes_gets_no_token(world: World) -> None:
    """Whoever waits while it is closed hears `ProviderClosed` when the login has landed."""
    with gated(world) as (provider, transport):
        outcomes: list[object] = []
        waiter = threading.Thread(target=lambda: outcomes.extend(at_once(1, provider.get)))
        waiter.start()
        eventually(lambda: provider._keeper.flight.current() is not None)
        closer = threading.Thread(target=provider.close)
        closer.start()
        eventually(lambda: provider._keeper.closed)
        transport.gate.set()
        waiter.join(10)
        closer.join(10)
        eventually(lambda: outcomes)
        assert [type(outcome) for outcome in outcomes] == [ProviderClosed]


def test_a_closed_provider_asks_nobody(world: World) -> None:
    """After `close` nothing is sent: not by `get`, nor by `reject` or `report`, nor by a flight that starts too late."""
    provider = world.provider()
    token = provider.get()
    provider.close()
    provider.close()
    calls = len(world.transport.calls)
    with pytest.raises(ProviderClosed):
        provider.get()
    assert not provider.reject(token)
    for _ in range(3):
        provider.report(token, 500)
    with pytest.raises(ProviderClosed):
        provider._keeper.flight.join().wait(10)
    assert provider._keeper.tick() is None
    assert len(world.transport.calls) == calls


def test_a_token_lives_on_without_its_storage(world: World) -> None:
    """A storage that fails costs nobody a token that lives, fresh or due; without one it is `StorageError`.

    A process that has adopted the token does not renew it meanwhile: all of them would.
    """
    world.provider(on_event=None).get()
    provider = world.provider()
    token = provider.get()
    world.storage.broken = {"load", "save", "now", "exclusive"}
    for seconds in (4000, 200, 200, 200, 199):
        world.clock.advance(seconds)
        assert provider.get() is token
        world.settled(provider)
    world.clock.advance(2)
    with pytest.raises(StorageError):
        provider.get()
    assert (logins(world), renewals(world)) == (1, 0)
    world.storage.broken = set()
    world.clock.advance(2)
    with world.time_flies():
        assert provider.get().generation >= 2
    world.events.expect("Adopted", "StorageLost", "RenewalFailed", "LoggedIn", "StorageBack")
    assert str(world.events.all[-1]) == f"StorageBack (trader at 127.0.0.1:{world.server.port})"


def test_no_login_without_the_storage_unless_allowed(world: World) -> None:
    """An unreachable storage means no session; `login_without_storage` opens one all the same, and warns."""
    world.storage.broken = {"load", "save", "now", "exclusive"}
    with pytest.raises(StorageError):
        world.provider().get()
    assert logins(world) == 0
    daring = world.provider(login_without_storage=True)
    token = daring.get()
    assert daring.get() is token
    assert logins(world) == 1
    world.events.expect("StorageLost", "StorageLost", "Warned", "LoggedIn")
    assert "logging in without the storage" in world.events.wait_for(Warned).reason


def test_a_token_that_could_not_be_saved_is_used(world: World) -> None:
    """A storage that fails between the grant and the save: the session is open, so its token is used, and warned of."""

    class FailsAtGrant(GatedTransport):
        def send(self, call: Call, timeout: float) -> Reply:
            reply = super().send(call, timeout)
            world.storage.broken = {"load", "save", "now"} - ({"now"} if once else set())
            return reply

    once = True
    transport = FailsAtGrant()
    transport.gate.set()
    provider = world.provider(transport=transport)
    token = provider.get()
    assert token.generation == 1
    assert provider.get() is token
    world.events.expect("LoggedIn", "Warned", "Warned")
    assert "could not be stored" in world.events.wait_for(Warned).reason
    assert logins(world) == 1


def test_a_lost_race_is_not_an_error(world: World) -> None:
    """Two providers of one storage: the second adopts what the first has, renewed or new, without a call."""
    first, second = world.provider(), world.provider()
    assert first.get() is second.get()
    world.events.expect("LoggedIn", "Adopted")
    newer = first.renew()
    assert second.reject(second.get())
    assert second.get() is newer
    assert (logins(world), renewals(world)) == (1, 1)


def test_a_token_is_asked_for_as_often_as_flights_allow(world: World) -> None:
    """A token that is doubted again whenever it was renewed ends in `TokenTimeout`, not in an endless wait."""
    provider = world.provider()
    provider.get()

    approach = provider._keeper.approach(0.0, 30.0)
    provider.reject(provider._keeper.held.token)
    flights = 0

    def doubting() -> None:
        nonlocal flights
        for flight in approach:
            flight.settle(10)
            flights += 1
            provider._keeper.held.doubted = True
            provider._keeper.held.fresh_until = 0.0

    with pytest.raises(TokenTimeout, match="as often as it was renewed"):
        doubting()
    assert flights == 4
    world.settled(provider)
    token, flights = provider._keeper.held.token, 0
    for flight in provider._keeper.renewing(token):
        flight.settle(10)
        flights += 1
        provider._keeper._replace = token.generation  # somebody asks again and again
    assert flights == 4


def test_a_record_stays_whole_under_contention(world: World) -> None:
    """Somebody else who writes in between is not overwritten: the change is applied anew to what he wrote."""
    interfered: list[int] = []

    class Contended(FrailStorage):
        def save(self, key: str, record: Record) -> bool:
            if len(interfered) < 3:
                interfered.append(record.revision)
                return False
            return super().save(key, record)

    provider = world.provider(storage=Contended(clock=world.clock))
    assert provider.get().generation == 1
    assert len(interfered) == 3


def test_a_remembered_failure_counts_down(world: World) -> None:
    """Whoever asks half a second after somebody else is told of the same failure, and of half a second less to wait."""
    world.server.inject(Fault("login", "status", status=429))
    provider = world.provider()
    waits = []
    for _ in range(2):
        with pytest.raises(LockedOut) as caught:
            provider.get()
        waits.append(caught.value.retry_after or 0.0)
        world.clock.advance(0.5)
    assert waits[0] == pytest.approx(3600, abs=2)
    assert waits[1] == pytest.approx(waits[0] - 0.5)


def test_a_failure_is_not_remembered_beyond_its_own_end(world: World) -> None:
    """Four tenths of a second are left of a lock-out: half a second later nobody is told of it any more."""
    world.server.inject(Fault("login", "status", status=429))
    provider = world.provider()
    with pytest.raises(LockedOut) as caught:
        provider.get()
    world.clock.advance((caught.value.retry_after or 0.0) - 0.4)
    with pytest.raises(LockedOut) as caught:
        provider.get()
    assert caught.value.retry_after == pytest.approx(0.4)
    world.clock.advance(0.5)
    assert provider.get().generation == 1

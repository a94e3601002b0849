"""Who waits for whom: nobody for a renewal while a token lives, and nobody for ever; and what those who wait are told."""

import threading
from contextlib import suppress

import pytest
from core_tools import GatedTransport, World, eventually
from shared_storage import Shared, logins, renewals, step
from values import MINUTE

from tradovate_auth import (
    AccessToken,
    LockedOut,
    ProviderClosed,
    StorageError,
    Throttled,
    TokenProvider,
    TokenTimeout,
)
from tradovate_auth.events import Evicted, RenewalFailed, Renewed, Warned
from tradovate_auth.testing.emulator import Fault


def due(world: World) -> AccessToken:
    """Let a process obtain a token and end, and time pass until that is due; return it."""
    with world.provider(on_event=None) as owner:
        token = owner.get()
    world.clock.advance(4200)
    return token


def test_a_newcomer_gets_a_due_token_at_once(world: World) -> None:
    """Whoever renews it may be asleep: the living token in the storage is for everybody, and the renewal waits beside."""
    token = due(world)
    newcomer = world.provider()
    with world.storage.exclusive(newcomer._account.key, 1.0):
        assert newcomer.get(timeout=20) is token
        assert newcomer.get(timeout=0) is token
        assert renewals(world) == 0
    eventually(lambda: newcomer.get() is not token)
    world.events.expect("Adopted", "Renewed")
    assert logins(world) == 1


def test_a_newcomer_gets_a_due_token_from_a_storage_that_cannot_be_written(world: World) -> None:
    """A disk that is full or read-only keeps nobody from the token that lies on it, and leads to no login."""
    token = due(world)
    storage = Shared(world)
    storage.broken = {"save", "exclusive"}
    newcomer = world.provider(storage=storage, login_without_storage=True)
    assert newcomer.get(timeout=20) is token
    world.settled(newcomer)
    assert newcomer.get() is token
    assert (logins(world), renewals(world)) == (1, 0)


def test_a_newcomer_who_wants_a_longer_life_waits(world: World) -> None:
    """`min_ttl` is longer than the due token lives: that is renewed first, as by anybody."""
    token = due(world)
    renewed = world.provider().get(min_ttl=20 * MINUTE)
    assert renewed.generation == token.generation + 1


def test_whoever_gives_up_is_told_who_holds_the_session(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No token lives, another process holds the lock: the caller's own time ends first, and the error names that process."""
    monkeypatch.setattr("tradovate_auth._account._LOCK_SLICE", 0.05)
    provider = world.provider()
    with world.storage.exclusive(provider._account.key, 1.0):
        with pytest.raises(TokenTimeout) as caught:
            provider.get(timeout=0.5)
        assert caught.value.message.endswith(provider._account.busy)
        assert "still at work" in provider._account.busy
    assert provider.get().generation == 1
    assert provider._account.busy == ""


def test_a_closed_provider_waits_for_no_lock(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its flight ends soon after `close`, and the login that it was to make is never sent."""
    monkeypatch.setattr("tradovate_auth._account._LOCK_SLICE", 0.05)
    provider = world.provider()
    with world.storage.exclusive(provider._account.key, 1.0):
        with pytest.raises(TokenTimeout):
            provider.get(timeout=0.2)
        provider.close()
        world.settled(provider)
    assert logins(world) == 0


def test_a_provider_that_is_closed_in_its_pass_sends_nothing(world: World) -> None:
    """The lock was free at last, the provider is closed: what has been entered for the call is taken back."""

    class Closing(Shared):
        closing: TokenProvider | None = None

        def now(self) -> float:
            if self.closing is not None:
                self.closing._account.closing.set()
            return super().now()

    storage = Closing(world)
    provider = world.provider(storage=storage, on_event=None)
    storage.closing = provider
    with pytest.raises(ProviderClosed):
        provider.get()
    storage.closing = None
    assert logins(world) == 0
    record = provider._account.load()
    assert record.ledger.failed_logins == ()
    assert provider._account.machine.load().ledger.failed_logins == ()


def test_a_renewal_says_when_the_next_may_be_asked_for(world: World) -> None:
    """`retry_after` is the pause that the allowance wants, not when the token is looked at again; waiting it out is enough."""
    provider = world.provider()
    provider.get()
    pauses = []
    for _ in range(6):
        world.clock.advance(61)
        with suppress(Throttled):
            provider.renew()
            continue
        with pytest.raises(Throttled) as caught:
            provider.renew()
        pauses.append(round(caught.value.retry_after or 0))
        world.clock.advance((caught.value.retry_after or 0) + 0.01)
        provider.renew()
    assert len(pauses) == len(set(pauses)) >= 2
    assert max(pauses) > MINUTE
    world.server.inject(Fault("renewal", "status", status=429))
    world.clock.advance(700)
    with pytest.raises(Throttled) as caught:
        provider.renew()
    assert caught.value.retry_after == pytest.approx(3600, abs=5)


def test_a_renewal_in_an_outage_says_when_the_storage_is_asked_again(world: World) -> None:
    """Where the ledger cannot be read, nobody knows more."""
    storage = Shared(world)
    provider = world.provider(storage=storage, on_event=None)
    provider.get()
    storage.broken = {"now", "load", "save", "exclusive"}
    world.clock.advance(61)
    with suppress(Throttled):
        provider.renew()
    with pytest.raises(Throttled) as caught:
        provider.renew()
    assert caught.value.retry_after is not None
    assert caught.value.retry_after <= 1


def test_a_storage_that_can_only_be_read_is_lost_once(world: World) -> None:
    """Reading goes well again and again: that is not the end of the outage, and nothing is said to have been put back."""
    storage, theirs = Shared(world), Shared(world)
    owner = world.provider(storage=storage, on_event=None)
    other = world.provider(storage=theirs)
    owner.get()
    other.get()
    world.clock.advance(4000)
    storage.broken = theirs.broken = {"save", "exclusive"}
    for _ in range(8):
        step(world, other, 20)
    world.events.expect("Adopted", "StorageLost")
    assert step(world, owner, 1).generation == 2
    storage.broken = theirs.broken = set()
    assert step(world, owner, 2).generation == 2
    assert step(world, other, 20).generation == 2
    world.settled(other)
    world.events.expect("Adopted", "StorageLost", "Adopted", "StorageBack")


def test_an_owner_whose_storage_can_only_be_read_warns_of_nothing(world: World) -> None:
    """It renews by itself and looks every second whether that can be stored: one word at either end."""
    storage = Shared(world)
    owner = world.provider(storage=storage)
    owner.get()
    world.clock.advance(4000)
    storage.broken = {"save", "exclusive"}
    for _ in range(100):
        step(world, owner, 2)
    storage.broken = set()
    step(world, owner, 2)
    world.settled(owner)
    world.events.expect("LoggedIn", "StorageLost", "Renewed", "StorageBack")


def test_a_second_outage_knows_what_was_spent_before_it(world: World) -> None:
    """What was spent between two outages counts in the second: the copy is made anew."""
    storage = Shared(world)
    owner = world.provider(storage=storage, on_event=None)
    owner.get()
    every = {"now", "load", "save", "exclusive"}
    storage.broken = every
    step(world, owner, 75 * MINUTE)
    step(world, owner, 2 * MINUTE)
    storage.broken = set()
    step(world, owner, 2)
    for _ in range(12):
        step(world, owner, 4 * MINUTE)
        with suppress(Throttled):
            owner.renew()
    storage.broken = every
    for _ in range(4):
        step(world, owner, 3)
        with pytest.raises(Throttled):
            owner.renew()


@pytest.mark.parametrize("status", [408, 500, 502])
def test_a_probe_that_meets_the_same_fault_is_told(world: World, status: int) -> None:
    """Three faults, and the renewal that should find out meets one too: once for each probe somebody hears what it may mean."""
    provider = world.provider()
    token = provider.get()
    for _ in range(2):
        world.server.inject(Fault("renewal", "status", status=status))
        for _ in range(3):
            provider.report(token, status)
        world.settled(provider)
        provider.get()
        world.settled(provider)
        world.clock.advance(700)
        provider.get()
        world.settled(provider)
    warned = [event.reason for event in world.events.of(Warned)]
    assert warned
    assert all("another login has closed the session" in reason for reason in warned)
    assert len(warned) <= 2
    assert logins(world) == 1
    assert not world.events.of(Evicted)


def test_a_renewal_that_fails_by_itself_is_no_probe(world: World) -> None:
    """A planned renewal meets a fault: that is a `RenewalFailed`, and nothing more is said."""
    provider = world.provider()
    provider.get()
    world.server.inject(Fault("renewal", "status", status=503))
    step(world, provider, 4200)
    world.events.wait_for(RenewalFailed)
    world.clock.advance(400)
    provider.get()
    world.events.wait_for(Renewed)
    assert not world.events.of(Warned)


def test_the_status_tells_when(world: World) -> None:
    """The last event has its moment, and an eviction is known to every process, also those that have met none."""
    provider = world.provider()
    provider.get()
    status = provider.status()
    assert status.last_event_at is not None
    assert status.last_event_at.timestamp() == world.clock.time()
    assert status.evicted_at is None
    world.clock.advance(1000)
    world.server.revoke()
    provider.reject(provider.get())
    assert provider.get().generation == 2
    other = world.provider(on_event=None)
    assert (other.status().last_event, other.status().last_event_at) == (None, None)
    evicted = other.status().evicted_at
    assert evicted is not None
    assert evicted.timestamp() == pytest.approx(world.clock.time(), abs=2)


def test_a_gate_of_another_process_is_no_wait_for_those_with_a_token(world: World) -> None:
    """While one process renews, which takes long, a newcomer works with the old token."""
    token = due(world)
    gated = GatedTransport()
    renewing = world.provider(transport=gated, on_event=None)
    gated.gate.clear()
    renewing.get()
    threading.Thread(target=renewing.get).start()
    eventually(gated.arrived.is_set)
    assert world.provider(on_event=None).get(timeout=20) is token
    gated.gate.set()
    world.settled(renewing)
    assert (logins(world), renewals(world)) == (1, 1)
    with suppress(StorageError):
        renewing.close()


def test_others_ask_a_lost_storage_every_ten_seconds_or_so(world: World) -> None:
    """Their token lives: a thousand of them, each asking every second, would not let it get up again."""
    world.provider(on_event=None).get()
    storage = Shared(world)
    other = world.provider(storage=storage, on_event=None)
    other.get()
    storage.broken = {"now", "load", "save", "exclusive"}
    step(world, other, 601)
    looks = 0
    for _ in range(60):
        before = storage.loads
        step(world, other, 1)
        looks += storage.loads > before
    assert 4 <= looks <= 6


def test_each_probe_is_for_three_faults(world: World) -> None:
    """A probe that has brought nothing is not repeated at the next fault: they are counted anew."""
    provider = world.provider()
    token = provider.get()
    world.server.inject(Fault("renewal", "status", status=503, times=2))
    probes = []
    for _ in range(6):
        provider.report(token, 500)
        world.settled(provider)
        probes.append(renewals(world))
        world.clock.advance(301)
    assert probes == [0, 0, 1, 1, 1, 2]


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

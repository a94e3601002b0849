"""Three faults in a row lead to a probe; what is told of one that was not answered either way, and what `Status` says when."""

import pytest
from core_tools import World, logins, renewals
from shared_storage import step

from tradovate_auth.events import Evicted, RenewalFailed, Renewed, Warned
from tradovate_auth.testing.emulator import Fault


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


def test_a_probe_that_was_never_sent_is_not_told(world: World) -> None:
    """Others are at work on the session: nothing was asked, so nothing is said of it."""
    provider = world.provider()
    token = provider.get()
    world.clock.advance(600)
    sent = len(world.transport.calls)
    provider._account.timeout = 0.01
    with world.storage.exclusive(provider._account.key, 1.0):
        for _ in range(3):
            provider.report(token, 503)
        world.settled(provider)
    assert len(world.transport.calls) == sent
    world.events.wait_for(RenewalFailed)
    assert not world.events.of(Warned)


def test_a_success_ends_what_a_probe_was_to_find_out(world: World) -> None:
    """The allowance did not permit the probe, and then a call succeeded: a renewal that fails an hour later is only that."""
    provider = world.provider()
    provider.get()
    world.clock.advance(600)
    token = provider.renew()
    for _ in range(3):
        provider.report(token, 503)
    world.settled(provider)
    provider.report(token, 200)
    world.server.inject(Fault("renewal", "status", status=503))
    world.clock.advance(4200)
    provider.get()
    world.events.wait_for(RenewalFailed)
    world.settled(provider)
    assert not world.events.of(Warned)

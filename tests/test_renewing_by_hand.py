"""`TokenProvider.renew`: when it may, what it says when it may not, and how long it waits."""

import threading
from contextlib import suppress

import pytest
from core_tools import GatedTransport, World, at_once, eventually
from values import MINUTE

from tradovate_auth import (
    AccessToken,
    Throttled,
    TokenTimeout,
)
from tradovate_auth.events import Renewed
from tradovate_auth.testing.emulator import Fault


def test_a_renewal_beyond_the_allowance_is_throttled(world: World) -> None:
    """`renew` within the first minute after one says how long to wait; the old token stays."""
    provider = world.provider()
    provider.get()
    token = provider.renew()
    assert token.generation == 2
    with pytest.raises(Throttled, match="no more may be asked for") as caught:
        provider.renew()
    assert caught.value.retry_after == pytest.approx(60, abs=2)
    assert provider.get() is token


def test_a_renewal_that_fails_says_why(world: World) -> None:
    """`renew` names what the server did, this time and not some earlier time."""
    provider = world.provider()
    provider.get()
    world.server.inject(Fault("renewal", "status", status=503))
    with pytest.raises(Throttled, match="the server answered 503"):
        provider.renew()
    with pytest.raises(Throttled, match="no more may be asked for"):
        provider.renew()


def test_a_renewal_that_meets_a_flight_waits_for_its_own(world: World) -> None:
    """A flight that set out before the wish was known is not the answer to it."""
    provider, _, gate = world.failing_renewal()
    outcomes: list[object] = []
    caller = threading.Thread(target=lambda: outcomes.extend(at_once(1, provider.renew)))
    caller.start()
    eventually(lambda: provider._keeper._replace)
    gate.set()
    caller.join(10)
    assert [type(outcome) for outcome in outcomes] == [AccessToken]
    assert provider.get().generation == 2


def test_renewing_obeys_one_time_limit(world: World) -> None:
    """The timeout of `renew` is for all of it, and the renewal goes on after it."""
    transport = GatedTransport()
    transport.gate.set()
    provider = world.provider(transport=transport)
    provider.get()
    transport.gate.clear()
    with pytest.raises(TokenTimeout):
        provider.renew(timeout=0.02)
    transport.gate.set()
    world.events.wait_for(Renewed)
    world.settled(provider)
    world.clock.advance(61)
    assert provider.renew(timeout=None).generation == 3


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

"""What is told of a storage that is away, and how often it is asked meanwhile."""

from contextlib import suppress

import pytest
from core_tools import World
from shared_storage import Shared, step
from values import MINUTE

from tradovate_auth import (
    Throttled,
)


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

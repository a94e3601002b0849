"""What is told of a storage that is away, and how often it is asked meanwhile."""

from contextlib import suppress

import pytest
from core_tools import World
from shared_storage import Shared, step, stored
from values import MINUTE

from tradovate_auth import (
    StorageError,
    Throttled,
)
from tradovate_auth.storage import Record


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


def test_a_record_that_could_not_be_read_once(world: World) -> None:
    """One read fails, of whatever record: the next good look is the end of that."""

    class Blinking(Shared):
        blinks = False

        def load(self, key: str) -> Record | None:
            if self.blinks and key.startswith("machine"):
                self.blinks = False
                raise StorageError("blip")
            return super().load(key)

    storage = Blinking(world)
    world.provider(storage=Shared(world), on_event=None).get()
    other = world.provider(storage=storage)
    token = other.get()
    storage.blinks = True
    world.clock.advance(600)
    other.reject(token, method="GET", path="/x")
    other.get()
    world.settled(other)
    step(world, other, 20)
    names = world.events.names
    assert names.count("StorageLost") == names.count("StorageBack") == 1


def test_a_token_that_was_stored_is_not_told_to_be_unstored(world: World) -> None:
    """The machine's record cannot be read just after the login was saved, neither time that it is looked at: that is nobody's concern."""

    class Blinking(Shared):
        granted, blinks = False, 0

        def load(self, key: str) -> Record | None:
            if self.granted and self.blinks < 2 and key != owner._account.key:
                self.blinks += 1
                raise StorageError("blip")
            return super().load(key)

        def save(self, key: str, record: Record) -> bool:
            saved = super().save(key, record)
            self.granted = self.granted or bool(record.tokens)
            return saved

    storage = Blinking(world)
    owner = world.provider(storage=storage)
    token = owner.get()
    world.settled(owner)
    assert storage.blinks == 2
    assert stored(world, owner).tokens == {owner._account.slot: token}
    assert str(owner.status().last_event).startswith("LoggedIn ")
    world.events.expect("LoggedIn")

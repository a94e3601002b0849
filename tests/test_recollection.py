"""What a process remembers is given back to a storage that has lost it; who looks for that, and how often."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from core_tools import World, eventually, logins
from shared_storage import Shared, step, stored

from tradovate_auth._holds import Hold
from tradovate_auth.events import Renewed, Warned
from tradovate_auth.storage import FileStorage, MemoryStorage, Record


@pytest.fixture
def storage(world: World) -> Shared:
    """Return the way of the first process to the world's storage."""
    return Shared(world)


class TestWatch:
    """The owner looks for its record twice a minute, where others could lose it."""

    def test_a_record_that_disappears_without_any_outage(self, world: World, storage: Shared) -> None:
        """It is back within half a minute, and a newcomer adopts: one login in all."""
        owner = world.provider(storage=storage)
        token = owner.get()
        world.storage._records.clear()
        assert step(world, owner, 29) is token
        assert not world.storage._records
        assert step(world, owner, 1) is token
        assert stored(world, owner).tokens == {owner._account.slot: token}
        world.events.expect("LoggedIn", "Warned")
        assert world.provider().get() is token
        assert logins(world) == 1

    def test_a_file_that_was_deleted(self, world: World, tmp_path: Path) -> None:
        """The same with files, and with the timer of a background provider."""
        shared = [FileStorage(tmp_path / "sessions", clock=world.clock) for _ in range(2)]
        owner = world.provider(storage=shared[0], renewal="background")
        token = owner.get()
        path = shared[0]._path(owner._account.key, "json")
        path.unlink()
        with world.time_flies():
            eventually(path.exists)
        assert world.provider(storage=shared[1]).get() == token
        assert logins(world) == 1

    def test_others_watch_less_often(self, world: World, storage: Shared) -> None:
        """Whoever adopted it looks within ten minutes, not in step; nobody whose storage cannot lose it to others looks."""
        world.provider(storage=storage, on_event=None).get()
        others = [world.provider(storage=Shared(world), on_event=None) for _ in range(8)]
        private = world.provider(storage=MemoryStorage(clock=world.clock))
        for provider in (*others, private):
            provider.get()
        looks = {provider._keeper.held.again_at - world.clock.elapsed() for provider in others}
        assert len(looks) == 8
        assert all(300 <= look <= 600 for look in looks)
        assert private._keeper.held.again_at - world.clock.elapsed() > 3000

    def test_without_its_owner_it_is_back_within_ten_minutes(self, world: World, storage: Shared) -> None:
        """The process that logged in has ended, the storage is restarted empty: a later newcomer adopts all the same."""
        with world.provider(storage=storage, on_event=None) as owner:
            token = owner.get()
            other = world.provider(storage=Shared(world), on_event=None)
            assert other.get() is token
        world.storage._records.clear()
        assert step(world, other, 600) is token
        assert world.provider(storage=Shared(world), on_event=None).get() is token
        assert logins(world) == 1

    def test_a_holder_of_the_token_puts_back_what_is_gone(self, world: World, storage: Shared) -> None:
        """Not only its owner: where there is nothing at all, whoever knows more puts back what it knows."""
        owner = world.provider(storage=storage)
        token = owner.get()
        other = world.provider(storage=Shared(world), on_event=None)
        other.get()
        owner.close()
        world.storage._records.clear()
        assert step(world, other, 4200).generation == 2
        assert stored(world, other).tokens[other._account.slot] == other.get()
        assert (other.get().generation, logins(world)) == (token.generation + 1, 1)

    def test_what_is_known_to_be_refused_is_not_put_back(self, world: World, storage: Shared) -> None:
        """The record is gone, and with it that the token in hand was refused; this process remembers."""
        owner = world.provider(storage=storage)
        token = owner.get()
        lifecycle = owner._lifecycle
        lifecycle.recollection.known = replace(
            lifecycle.recollection.known, refused={owner._account.slot: 1}, tokens={}
        )
        world.storage._records.clear()
        world.clock.advance(31)
        assert owner.get(timeout=5).generation in (1, 2)
        world.settled(owner)
        record = stored(world, owner)
        assert record.refused == {owner._account.slot: 1}
        assert token not in record.tokens.values()

    def test_a_token_that_has_ended_is_not_put_back(self, world: World, storage: Shared) -> None:
        """The record is another one, in which nobody has a token in this place: the storage has lost nothing of use."""
        world.server.add_user("trader", world.server.credentials["password"])  # any API key, or none
        owner = world.provider(storage=storage)
        owner.get()
        world.storage._records.clear()
        other = world.provider(storage=Shared(world), on_event=None, who={"cid": 4712})
        other.get()
        world.clock.advance(4800 + 3601)
        other.get()
        assert owner.get().generation > 1
        world.settled(owner)
        world.events.expect("LoggedIn", "LoggedIn")


class TestGoneBack:
    """A replica took over that had missed the last words: what lies there is an earlier state of what is known."""

    def test_whoever_adopted_the_newer_token_puts_it_back(self, world: World, storage: Shared) -> None:
        """Its owner has ended; the older token is dead at the server, so nobody may be given it."""
        with world.provider(storage=storage, on_event=None) as owner:
            owner.get()
            earlier = dict(world.storage._records)
            world.clock.advance(61)
            newer = owner.renew()
            other = world.provider(storage=Shared(world))
            assert other.get() is newer
        world.storage._records.update(earlier)
        assert step(world, other, 600) is newer
        assert stored(world, other).tokens == {other._account.slot: newer}
        assert world.provider(storage=Shared(world), on_event=None).get() is newer
        assert logins(world) == 1
        world.events.expect("Adopted", "Warned")

    def test_what_was_refused_stays_refused(self, world: World, storage: Shared) -> None:
        """The refusal was among the last words: the token that lies there again is not used."""
        owner = world.provider(storage=storage, on_event=None)
        token = owner.get()
        earlier = dict(world.storage._records)
        world.clock.advance(61)
        world.server.revoke()
        owner.reject(token)
        newer = owner.get()
        assert (newer.generation, logins(world)) == (2, 2)
        world.storage._records.update(earlier)
        step(world, owner, 31)
        record = stored(world, owner)
        assert record.refused == {owner._account.slot: 1}
        assert record.tokens == {owner._account.slot: newer}

    def test_others_have_gone_on_from_there(self, world: World, storage: Shared) -> None:
        """Somebody has obtained a token since: that one stays, whatever was known here."""
        owner = world.provider(storage=storage, on_event=None)
        owner.get()
        earlier = dict(world.storage._records)
        world.clock.advance(61)
        owner.renew()
        other = world.provider(storage=Shared(world), on_event=None)
        other.get()
        owner.close()
        world.storage._records.update(earlier)
        world.clock.advance(300)
        theirs = world.provider(storage=Shared(world), on_event=None).renew()
        assert theirs.generation == 2
        step(world, other, 300)
        assert stored(world, other).tokens == {other._account.slot: theirs}

    def test_others_have_gone_on_with_an_older_token(self, world: World, storage: Shared) -> None:
        """What they have obtained since counts less than what is in hand here: it stays all the same, as it is not ours."""
        owner = world.provider(storage=storage, on_event=None)
        owner.get()
        earlier = dict(world.storage._records)
        for _ in range(3):
            world.clock.advance(301)
            owner.renew()
        other = world.provider(storage=Shared(world), on_event=None)
        assert other.get().generation == 4
        owner.close()
        world.storage._records.update(earlier)
        world.clock.advance(300)
        theirs = world.provider(storage=Shared(world), on_event=None).renew()
        assert theirs.generation == 2
        assert stored(world, other).revision < other._lifecycle.recollection.known.revision
        step(world, other, 300)
        assert stored(world, other).tokens == {other._account.slot: theirs}

    def test_who_comes_after_whoever_put_it_back_has_nothing_to_do(
        self, world: World, storage: Shared
    ) -> None:
        """A record that was put back begins to count anew, and is no earlier state of itself: a hold that a human has lifted
        stays lifted, and nobody says again that something was lost.
        """
        owner = world.provider(storage=storage)
        owner.get()
        others = [world.provider(storage=Shared(world), on_event=world.events) for _ in range(3)]
        hold = Hold("captcha", world.clock.time() + 7200, "the server asks for a captcha")
        owner._account.change_ledger(lambda ledger: ledger.with_hold(hold))
        for other in others:
            step(world, other, 0)
            step(world, other, 601)
        others[0].reset()
        step(world, owner, 31)
        world.storage._records.clear()
        step(world, owner, 31)
        saves = stored(world, owner).revision
        for other in others:
            step(world, other, 601)
        record = stored(world, owner)
        assert (record.ledger.hold, record.revision) == (None, saves)
        assert len([event for event in world.events.of(Warned) if "lost" in event.reason]) == 1


def test_a_reset_in_the_midst_of_a_look_is_no_loss(world: World) -> None:
    """A human calls `reset()` just after a flight has read the record: what it saves is newer than that, not lost."""
    meanwhile: list[Callable[[], object]] = []

    class Racing(Shared):
        def load(self, key: str) -> Record | None:
            found = super().load(key)
            if meanwhile:
                other = threading.Thread(target=meanwhile.pop())
                other.start()
                other.join()
            return found

    owner = world.provider(storage=Racing(world))
    owner.get()
    world.clock.advance(61)
    meanwhile.append(owner.reset)
    assert owner.renew().generation == 2
    world.events.wait_for(Renewed)
    assert not meanwhile
    assert not world.events.of(Warned)

"""While the storage is away: the owner renews, the others serve theirs, nobody logs in; and what is put back afterwards."""

import os
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from core_tools import GatedTransport, SocketTransport, World, eventually, logins, renewals
from shared_storage import Shared, full, step, stored
from values import HOUR, MINUTE

from tradovate_auth import (
    LockedOut,
    LoginRefused,
    StorageError,
    TransportError,
)
from tradovate_auth._holds import Hold, Latch
from tradovate_auth.events import Adopted, Evicted, StorageBack, StorageLost, Warned
from tradovate_auth.storage import FileStorage, KeyRing, Record, UnreadableRecord
from tradovate_auth.testing.emulator import Fault
from tradovate_auth.transport import Call, Reply

ALL = {"now", "load", "save", "exclusive"}
LATCH = Latch("somebody's", "wrong password", None)


@pytest.fixture
def storage(world: World) -> Shared:
    """Return the way of the first process to the world's storage."""
    return Shared(world)


class TestOwner:
    """The process that obtained the token keeps its session alive through any outage."""

    def test_an_outage_longer_than_the_tokens_life(self, world: World, storage: Shared) -> None:
        """Five hours without the storage: no call without a token, no login; then everybody has the newest again."""
        owner, other = world.provider(storage=storage), world.provider(on_event=None)
        first = owner.get()
        assert other.get() is first
        storage.broken = world.storage.broken = ALL
        for _ in range(5 * 60):
            assert step(world, owner, MINUTE).expires_at.timestamp() > world.clock.time()
        assert logins(world) == 1
        assert 3 <= renewals(world) <= 6
        with pytest.raises(StorageError):
            other.get()
        newest = owner.get()
        storage.broken = world.storage.broken = set()
        assert step(world, owner, 2) is newest
        world.clock.advance(20)
        assert other.get() == newest
        assert (logins(world), stored(world, owner).tokens) == (1, {owner._account.slot: newest})
        eventually(lambda: world.events.names[-1] == "StorageBack")
        names = [name for name in world.events.names if name.startswith("Storage")]
        assert names == ["StorageLost", "StorageBack"]

    def test_the_others_serve_theirs_until_it_ends(self, world: World) -> None:
        """Who has adopted the token neither renews it nor logs in; `StorageError` begins with its end."""
        world.provider(on_event=None).get()
        other = world.provider()
        token = other.get()
        world.storage.broken = ALL
        for _ in range(79):
            assert step(world, other, MINUTE) is token
        world.clock.advance(MINUTE + 1)
        for _ in range(3):
            with pytest.raises(StorageError):
                other.get()
            world.clock.advance(2)
        assert (logins(world), renewals(world)) == (1, 0)
        world.events.expect("Adopted", "StorageLost")

    def test_what_it_has_spent_counts_afterwards(self, world: World, storage: Shared) -> None:
        """Renewals of the outage, granted or not, are in the ledgers of the account and of the machine."""
        owner = world.provider(storage=storage)
        owner.get()
        storage.broken = ALL
        world.server.inject(Fault("renewal", "status", status=503, times=2))
        for _ in range(30):
            step(world, owner, 2.5 * MINUTE)
        spent = renewals(world)
        assert spent >= 3
        storage.broken = set()
        step(world, owner, 2)
        assert owner.status().renewals == spent
        assert len(owner._account.machine.load().ledger.renewals) == spent
        step(world, owner, 40)
        assert owner.status().renewals == spent

    def test_it_keeps_the_budget(self, world: World, storage: Shared) -> None:
        """What was spent before the outage, by this account or by others of this machine, counts in it."""
        owner = world.provider(storage=storage)
        token = owner.get()
        account = owner._account
        account.change_ledger(lambda ledger: replace(ledger, renewals=(world.clock.time() + 3800,) * 9))
        account.machine.change(lambda ledger: replace(ledger, renewals=(world.clock.time() + 3800,) * 10))
        world.server.inject(Fault("renewal", "status", status=503, times=None))
        world.clock.advance(3800)
        storage.broken = {"save", "exclusive"}
        for _ in range(15):
            assert step(world, owner, MINUTE) is token
        assert renewals(world) == 2

    def test_it_heeds_the_machines_hold(self, world: World, storage: Shared) -> None:
        """A lock-out of this machine that was seen before the outage forbids renewals in it."""
        owner = world.provider(storage=storage)
        token = owner.get()
        owner._account.machine.hold(Hold("locked", 0.0, "locked"), 2 * HOUR)
        assert step(world, owner, 4100) is token
        storage.broken = ALL
        for _ in range(10):
            assert step(world, owner, MINUTE) is token
        assert renewals(world) == 0

    def test_a_storage_that_can_only_be_read(self, world: World, storage: Shared) -> None:
        """A disk that was remounted, a replica: nobody can take the lock, so nobody else renews; the owner does."""
        owner = world.provider(storage=storage)
        owner.get()
        storage.broken = {"save", "exclusive"}
        for _ in range(100):
            step(world, owner, MINUTE)
        assert (logins(world), owner.get().generation) == (1, 1 + renewals(world))
        assert renewals(world) >= 1
        storage.broken = set()
        step(world, owner, 2)
        assert stored(world, owner).generation == owner.get().generation

    def test_it_never_logs_in(self, world: World, storage: Shared) -> None:
        """When the session is over at the server, so is its part: `StorageError`, and one login when the storage is back."""
        owner = world.provider(storage=storage)
        token = owner.get()
        storage.broken = ALL
        world.server.revoke()
        world.clock.advance(61)
        assert owner.reject(token)
        with pytest.raises(StorageError):
            owner.get()
        world.clock.advance(2)
        with pytest.raises(StorageError):
            owner.get()
        assert (logins(world), renewals(world)) == (1, 1)
        world.events.wait_for(Evicted)
        storage.broken = set()
        world.clock.advance(2)
        with world.time_flies():
            newer = owner.get(timeout=None)
        assert (newer.generation, logins(world), renewals(world)) == (2, 2, 1)

    def test_a_refused_token_is_not_put_back(self, world: World, storage: Shared) -> None:
        """What an auth endpoint refused in the outage is handed to nobody afterwards, though it lies there unrefused."""
        owner = world.provider(storage=storage)
        token = owner.get()
        storage.broken = ALL
        world.server.revoke()
        world.clock.advance(61)
        assert owner.reject(token)
        with pytest.raises(StorageError):
            owner.get()
        storage.broken = set()
        world.clock.advance(2)
        with world.time_flies():
            owner.get(timeout=None)
        assert stored(world, owner).refused == {owner._account.slot: 1}
        newcomer = world.provider()
        assert newcomer.get().generation == 2
        assert logins(world) == 2

    def test_a_hold_of_the_outage_outlives_it(self, world: World, storage: Shared) -> None:
        """The server locked us out while the storage was away: nobody calls for the rest of the hour, on this machine."""
        owner = world.provider(storage=storage)
        owner.get()
        storage.broken = ALL
        world.server.inject(Fault("renewal", "status", status=429))
        step(world, owner, 4100)
        storage.broken = set()
        step(world, owner, 61)
        newcomer = world.provider(who=world.server.add_user("another", "password"))
        calls = len(world.transport.calls)
        for provider in (newcomer, world.provider()):
            shown = provider.status()
            assert shown.hold == "the server locked us out with 429"
        with pytest.raises(LockedOut):
            newcomer.get()
        assert len(world.transport.calls) == calls

    def test_a_fork_does_not_own(self, world: World, storage: Shared) -> None:
        """The child of the process that obtained the token serves it and leaves the renewing to its parent."""
        owner = world.provider(storage=storage)
        token = owner.get()
        assert owner._lifecycle.recollection.owns(token)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            os._exit(owner._lifecycle.recollection.owns(token))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert owner._lifecycle.recollection.owns(token)

    def test_a_lock_that_somebody_holds_is_no_outage(self, world: World, storage: Shared) -> None:
        """Another process is at work on this very session: the owner waits, serves its token, and sends nothing."""
        owner = world.provider(storage=storage, timeout=0.02)
        token = owner.get()
        with storage.exclusive(owner._account.key, 1):
            assert step(world, owner, 4200) is token
            assert step(world, owner, 20) is token
        assert renewals(world) == 0
        world.clock.advance(20)
        assert owner._account.timeout == 0.02
        owner._account.timeout = 20.0
        assert step(world, owner, 20).generation == 2

    def test_its_time_is_the_storages(self, world: World, storage: Shared) -> None:
        """The storage's clock is two hours off the wall clock: what was learnt by the one is not mixed with the other."""
        storage._epoch -= 2 * HOUR
        owner = world.provider(storage=storage)
        owner.get()
        world.clock.advance(61)
        owner.renew()
        storage.broken = ALL
        world.clock.advance(61)
        token = owner.renew()
        assert token.issued_at.timestamp() == pytest.approx(world.clock.time(), abs=2)
        assert owner._keeper.held.usable_until - world.clock.elapsed() == pytest.approx(4800, abs=2)
        storage.broken = set()
        assert step(world, owner, 2) is token
        assert not [event for event in world.events.of(Warned)[1:] if "clock" in event.reason]

    def test_what_it_has_learnt_of_the_servers_clock_stays(self, world: World, storage: Shared) -> None:
        """The server's clock was set by two hours in the outage: the others need not find that out anew."""
        owner = world.provider(storage=storage)
        owner.get()
        storage.broken = ALL
        world.server.configure(clock_offset=7200.0)
        assert step(world, owner, 4200).lifetime == pytest.approx(4800, abs=2)
        storage.broken = set()
        token = step(world, owner, 2)
        newcomer = world.provider()
        assert newcomer._account.now(newcomer._account.load()) == pytest.approx(
            world.clock.time() + 7200, abs=2
        )
        assert newcomer.get() is token
        assert newcomer._keeper.held.usable_until - world.clock.elapsed() == pytest.approx(4800, abs=5)
        assert logins(world) == 1

    def test_what_the_first_answer_taught_is_known_without_the_storage(
        self, world: World, storage: Shared
    ) -> None:
        """The storage goes away before the first token, and the server's clock with it, is written down."""

        class FailsAtGrant(GatedTransport):
            def send(self, call: Call, timeout: float) -> Reply:
                reply = super().send(call, timeout)
                storage.broken = ALL
                return reply

        world.server.configure(clock_offset=7200.0)
        transport = FailsAtGrant()
        transport.gate.set()
        owner = world.provider(storage=storage, transport=transport)
        token = owner.get()
        assert step(world, owner, 2) is token
        assert owner._keeper.held.usable_until - world.clock.elapsed() == pytest.approx(4800, abs=5)
        storage.broken = set()
        assert step(world, owner, 2) is token
        assert world.provider().get() is token
        assert (logins(world), renewals(world)) == (1, 0)

    def test_a_login_that_got_lost_counts_afterwards(self, world: World, storage: Shared) -> None:
        """Sent without the storage, no answer, then no connection: it counts when the storage is back."""

        class Losing(GatedTransport):
            sent = 0

            def send(self, call: Call, timeout: float) -> Reply:
                self.sent += 1
                raise TransportError("no answer", None, None, self.sent == 1)

        provider = world.provider(storage=storage, transport=Losing(), login_without_storage=True)
        storage.broken = ALL
        with world.time_flies(), pytest.raises(TransportError):
            provider.get(timeout=None)
        storage.broken = set()
        world.clock.advance(2)
        provider._keeper.want_newer(0)
        with world.time_flies(), pytest.raises(TransportError):
            provider.get(timeout=None)
        assert len(provider._account.load().ledger.failed_logins) == 1
        assert len(provider._account.machine.load().ledger.failed_logins) == 1


class TestReturn:
    """What is put back, and what is not."""

    def test_it_comes_back_as_it_was(self, world: World, storage: Shared) -> None:
        """Nothing was due, nothing was renewed: the record stays what it was but for its revision."""
        owner = world.provider(storage=storage)
        token = owner.get()
        before = stored(world, owner)
        storage.broken = ALL
        assert step(world, owner, 60) is token
        storage.broken = set()
        assert step(world, owner, 2) is token
        after = stored(world, owner)
        assert replace(after, revision=0) == replace(before, revision=0)
        world.events.expect("LoggedIn", "StorageLost", "StorageBack")

    def test_it_comes_back_empty(self, world: World, storage: Shared) -> None:
        """Everything is put back: generation, hosts, counts, latches, hold and offset; a newcomer adopts."""
        world.server.configure(clock_offset=600.0, api_hosts={"demo": "localhost"})
        owner = world.provider(storage=storage)
        owner.get()
        world.clock.advance(61)
        owner.renew()
        hold = Hold("locked", world.clock.time() + HOUR, "locked")
        owner._account.change_ledger(lambda ledger: replace(ledger, latches=(LATCH,), hold=hold))
        step(world, owner, 31)
        before = stored(world, owner)
        storage.broken = ALL
        step(world, owner, 31)
        world.storage._records.clear()
        storage.broken = set()
        step(world, owner, 2)
        after = stored(world, owner)
        assert replace(after, revision=0, earlier=0) == replace(before, revision=0, offset=after.offset)
        assert after.saves > before.saves
        assert after.offset == pytest.approx(before.offset)
        assert (after.generation, len(after.ledger.renewals), after.ledger.hold) == (2, 1, hold)
        eventually(lambda: world.events.names[-2:] == ["Warned", "StorageBack"])
        assert "put back" in world.events.of(Warned)[-1].reason
        assert world.provider().get() is owner.get()
        assert logins(world) == 1

    def test_what_was_renewed_is_put_back_into_an_empty_one(self, world: World, storage: Shared) -> None:
        """The newest token, with what it cost."""
        owner = world.provider(storage=storage)
        owner.get()
        storage.broken = ALL
        newest = step(world, owner, 4200)
        assert newest.generation == 2
        world.storage._records.clear()
        storage.broken = set()
        step(world, owner, 2)
        record = stored(world, owner)
        assert (record.tokens[owner._account.slot], record.generation) == (newest, 2)
        assert len(record.ledger.renewals) == renewals(world) == 1
        assert len(owner._account.machine.load().ledger.renewals) == 1

    def test_it_comes_back_with_another_clock(self, world: World, storage: Shared) -> None:
        """A Redis that moved to a host whose clock is an hour off: the server's time is what it was, and nobody logs in."""
        owner = world.provider(storage=storage)
        token = owner.get()
        world.storage._records.clear()
        storage._epoch += HOUR
        assert step(world, owner, 31) is token
        assert owner._account.now(owner._account.load()) == pytest.approx(world.clock.time(), abs=1)
        newcomer = world.provider(storage=storage)
        assert newcomer.get() is token
        assert logins(world) == 1

    @pytest.mark.parametrize("renewed", [False, True])
    def test_others_have_renewed_meanwhile(self, world: World, storage: Shared, *, renewed: bool) -> None:
        """Whatever the owner did on its own, a newer token in the storage is adopted, and nothing is overwritten."""
        world.server.configure(old_token_grace=None)
        owner, other = world.provider(storage=storage), world.provider(on_event=None)
        owner.get()
        other.get()
        storage.broken = ALL
        if renewed:
            step(world, owner, 4200)
            assert owner.get().generation == 2
        world.clock.advance(61)
        other.renew()
        world.clock.advance(61)
        newest = other.renew()
        kept = stored(world, other).tokens
        storage.broken = set()
        assert step(world, owner, 2) is newest
        assert stored(world, other).tokens == kept
        assert stored(world, other).generation == newest.generation == 3
        eventually(lambda: [event.generation for event in world.events.of(Adopted)] == [3])
        assert logins(world) == 1
        assert len(stored(world, other).ledger.renewals) == renewals(world)

    def test_two_that_renewed_the_same_token(self, world: World, storage: Shared) -> None:
        """Both have made a second generation: the later one by the server's clock wins, wherever it lies."""
        world.server.configure(old_token_grace=None)
        owner, other = world.provider(storage=storage), world.provider(on_event=None)
        owner.get()
        other.get()
        storage.broken = ALL
        world.clock.advance(61)
        theirs = other.renew()
        step(world, owner, 4200)
        ours = owner.get()
        assert (ours.generation, theirs.generation) == (2, 2)
        storage.broken = set()
        assert step(world, owner, 2) is ours
        assert stored(world, owner).tokens[owner._account.slot] is ours
        assert step(world, other, 3000) is ours
        assert logins(world) == 1

    def test_a_save_that_failed_after_a_grant(self, world: World, storage: Shared) -> None:
        """The session is open but nobody knows: as soon as the storage takes it, it is there, and a newcomer adopts it."""

        class FailsAtGrant(GatedTransport):
            def send(self, call: Call, timeout: float) -> Reply:
                reply = super().send(call, timeout)
                storage.broken = {"save"}
                return reply

        transport = FailsAtGrant()
        transport.gate.set()
        owner = world.provider(storage=storage, transport=transport)
        token = owner.get()
        assert step(world, owner, 1.5) is token
        assert not stored(world, owner).tokens
        world.events.wait_for(StorageLost)
        storage.broken = set()
        assert step(world, owner, 1.5) is token
        assert stored(world, owner).tokens == {owner._account.slot: token}
        world.events.wait_for(StorageBack)
        assert world.provider().get() is token
        assert logins(world) == 1

    def test_a_renewal_that_could_not_be_saved_reaches_the_others_soon(
        self, world: World, storage: Shared
    ) -> None:
        """The others hold its dead predecessor: before they learn that the hard way, the new one lies there."""
        owner, other = world.provider(storage=storage), world.provider(on_event=None)
        owner.get()
        old = other.get()
        world.clock.advance(61)
        with full(storage, generation=2):
            newer = owner.renew()
        assert stored(world, owner).generation == 1
        assert step(world, owner, 1.5) is newer
        assert other.reject(old)
        assert other.get() is newer
        assert (logins(world), renewals(world)) == (1, 1)

    def test_what_the_storage_had_put_by_is_not_worse(self, world: World, storage: Shared) -> None:
        """Somebody wakes whose token ended long ago; the others began anew meanwhile: theirs stays."""
        sleeper = world.provider(storage=storage)
        sleeper.get()
        for _ in range(3):
            world.clock.advance(1000)
            sleeper.renew()
        world.storage._records.clear()
        world.clock.advance(2 * 4800)
        other = world.provider()
        token = other.get()
        assert (token.generation, logins(world)) == (1, 2)
        assert sleeper.get() is token
        assert stored(world, other).tokens == {other._account.slot: token}
        assert world.provider().get() is token
        assert logins(world) == 2

    def test_the_machines_record_is_put_back_too(self, world: World, storage: Shared) -> None:
        """A lock-out that concerns the machine does not end with the storage that was emptied."""
        owner = world.provider(storage=storage)
        owner.get()
        world.clock.advance(4100)
        world.server.inject(Fault("renewal", "status", status=429))
        step(world, owner, 1)
        step(world, owner, 61)
        world.storage._records.clear()
        step(world, owner, 61)
        another = world.provider(who=world.server.add_user("another", "password"))
        with pytest.raises(LockedOut):
            another.get()

    def test_a_storage_that_has_gone_back(self, world: World, storage: Shared) -> None:
        """A replica took over that had missed the last words: what the owner knows beyond it is put back, counts included."""
        owner = world.provider(storage=storage)
        owner.get()
        earlier = dict(world.storage._records)
        world.clock.advance(61)
        newer = owner.renew()
        hold = Hold("locked", world.clock.time() + HOUR, "locked")
        owner._account.change_ledger(lambda ledger: replace(ledger, hold=hold))
        step(world, owner, 31)
        world.storage._records.update(earlier)
        assert step(world, owner, 31) is newer
        record = stored(world, owner)
        assert (record.tokens, record.generation) == ({owner._account.slot: newer}, 2)
        assert (len(record.ledger.renewals), record.ledger.hold) == (1, hold)
        assert world.provider().get() is newer
        assert logins(world) == 1

    def test_one_that_has_not_gone_back_knows_better(self, world: World, storage: Shared) -> None:
        """A renewal could not be saved, and a human has lifted a hold meanwhile: the token is put back, the hold is not."""
        owner = world.provider(storage=storage)
        owner.get()
        world.clock.advance(61)
        hold = Hold("penalty", world.clock.time() + 5, "slow down", "a ticket")
        owner._account.change_ledger(lambda ledger: replace(ledger, hold=hold))
        world.clock.advance(10)
        with full(storage, generation=2):
            newer = owner.renew()
        world.provider().reset()
        assert step(world, owner, 1.5) is newer
        assert stored(world, owner).tokens == {owner._account.slot: newer}
        assert stored(world, owner).ledger.hold is None

    def test_a_pause_lets_the_owner_be_first(self, world: World, storage: Shared) -> None:
        """Both saw the outage, the storage is back empty, the one without a token asks first: it waits, and adopts."""
        owner = world.provider(storage=storage)
        token = owner.get()
        poor = world.provider(on_event=None, login="always")
        storage.broken = world.storage.broken = ALL
        with pytest.raises(StorageError):
            poor.get()
        step(world, owner, 31)
        world.storage._records.clear()
        storage.broken = world.storage.broken = set()
        world.clock.advance(2)
        with world.time_flies(0.05):
            owner.get()
            assert poor.get(timeout=None) == token
        assert logins(world) == 1

    def test_no_generation_is_given_twice(self, world: World, storage: Shared) -> None:
        """Tokens of the outage are gone with their session, and the login after it goes on counting above them."""
        owner = world.provider(storage=storage)
        owner.get()
        storage.broken = ALL
        assert [step(world, owner, 4200).generation for _ in range(2)] == [2, 3]
        world.server.revoke()
        owner.reject(owner.get())
        world.settled(owner)
        with pytest.raises(StorageError):
            owner.get()
        storage.broken = set()
        world.clock.advance(2)
        with world.time_flies():
            assert owner.get().generation == 4
        assert logins(world) == 2

    def test_a_due_token_is_left_to_its_owner_at_first(self, world: World, storage: Shared) -> None:
        """Another process looks first when the storage is back: it does not renew what the owner has renewed meanwhile."""
        owner, other = world.provider(storage=storage), world.provider(on_event=None)
        owner.get()
        other.get()
        storage.broken = world.storage.broken = ALL
        newest = step(world, owner, 4200)
        assert step(world, other, 0).generation == 1
        storage.broken = world.storage.broken = set()
        assert step(world, other, 16).generation == 1
        assert step(world, owner, 2) is newest
        assert step(world, other, 6) == newest
        assert (logins(world), renewals(world)) == (1, 1)

    def test_its_owner_waits_for_nobody(self, world: World, storage: Shared) -> None:
        """A token that came due in a short outage is renewed by whoever obtained it at its first look afterwards."""
        owner = world.provider(storage=storage)
        owner.get()
        storage.broken = ALL
        assert step(world, owner, 3000).generation == 1
        storage.broken = set()
        assert step(world, owner, 1200).generation == 2
        assert (logins(world), renewals(world)) == (1, 1)

    def test_without_its_owner_it_is_renewed_soon(self, world: World, storage: Shared) -> None:
        """The owner has not come back: some seconds later whoever looks renews."""
        world.provider(storage=storage).get()
        other = world.provider(on_event=None)
        other.get()
        world.storage.broken = ALL
        step(world, other, 4200)
        world.storage.broken = set()
        assert step(world, other, 16).generation == 1
        assert step(world, other, 6).generation == 2
        assert (logins(world), renewals(world)) == (1, 1)

    def test_the_pause_is_for_the_first_look_alone(self, world: World, storage: Shared) -> None:
        """A token lived through the outage: a login much later, which is needed, waits for nobody."""
        world.provider(storage=storage).get()
        other = world.provider(on_event=None)
        other._lifecycle._spread = 0.0  # due in the outage, from 3900 s on
        other.get()
        world.storage.broken = ALL
        step(world, other, 3950)
        world.storage.broken = set()
        step(world, other, 16)
        world.clock.advance(2 * HOUR)
        assert other.get(timeout=20).generation == 2
        assert logins(world) == 2

    def test_a_storage_that_is_emptied_within_an_exchange(self, world: World) -> None:
        """What was counted, also the call under way, and what others have stored is in the record again soon."""

        class Emptying(SocketTransport):
            armed = False

            def send(self, call: Call, timeout: float) -> Reply:
                """See `Transport.send`."""
                if self.armed:
                    world.storage._records.clear()
                return super().send(call, timeout)

        world.storage.private = False  # type: ignore[misc]  # on this object alone
        world.server.add_user("trader", world.server.credentials["password"])  # any API key, or none
        transport = Emptying()
        owner, key = world.provider(transport=transport), world.provider(who={"cid": 9})
        owner.get()
        world.clock.advance(1)
        second = key.get()
        world.clock.advance(61)
        transport.armed = True
        newer = owner.renew()
        transport.armed = False
        assert step(world, owner, 31) is newer
        record = stored(world, owner)
        assert (len(record.ledger.logins), len(record.ledger.renewals)) == (2, 1)
        assert sorted(record.tokens.values(), key=lambda each: each.generation) == [second, newer]
        saves = record.revision
        step(world, owner, 31)
        assert stored(world, owner).revision == saves, "it is put back once"


def newer_schema(storage: FileStorage, key: str) -> None:
    """Replace a record by one of a version to come."""
    storage._path(key, "json").write_bytes(b'{"checksum":"x","record":{},"schema":99}')


class TestWithoutStorage:
    """`login_without_storage`: the one way to a login without knowing what others hold."""

    def test_it_logs_in_only_when_no_token_lives(self, world: World, storage: Shared) -> None:
        """An adopted token is served to its end; then one login, which is renewed like any other."""
        world.provider(on_event=None).get()
        daring = world.provider(storage=storage, login_without_storage=True)
        token = daring.get()
        storage.broken = ALL
        for _ in range(79):
            assert step(world, daring, MINUTE) is token
        assert (logins(world), renewals(world)) == (1, 0)
        world.clock.advance(MINUTE + 1)
        assert daring.get() is not token
        assert logins(world) == 2
        assert step(world, daring, 4200).generation >= 2
        assert (logins(world), renewals(world)) == (2, 2)

    def test_what_it_obtained_is_put_back(self, world: World, storage: Shared) -> None:
        """Its token is the newest, also for those who had counted further and refused more, and costs no second login."""
        veteran = world.provider(on_event=None)
        for _ in range(3):
            veteran.reset()
            veteran.get()
            world.server.revoke()
            veteran.reject(veteran.get())
            world.clock.advance(HOUR)
        veteran._keeper.flight.join().settle(10)
        world.clock.advance(4 * HOUR)
        before = logins(world)
        assert stored(world, veteran).refused
        storage.broken = ALL
        daring = world.provider(storage=storage, login_without_storage=True)
        token = daring.get()
        storage.broken = set()
        assert step(world, daring, 2) is token
        assert stored(world, daring).tokens[daring._account.slot] is token
        assert world.provider().get() is token
        assert logins(world) == before + 1

    def test_its_budget_is_kept(self, world: World, storage: Shared) -> None:
        """A wrong password is tried once, outage or not, and is latched when the storage is back."""
        daring = world.provider(storage=storage, login_without_storage=True, who={"password": "no horse"})
        storage.broken = ALL
        for _ in range(5):
            with pytest.raises(LoginRefused):
                daring.get()
            world.clock.advance(5)
        assert logins(world) == 1
        storage.broken = set()
        with pytest.raises(LoginRefused):
            daring.get()
        assert len(stored(world, daring).ledger.latches) == 1
        with pytest.raises(LoginRefused):
            world.provider(who={"password": "no horse"}).get()
        assert logins(world) == 1

    def test_never_over_a_record_of_a_newer_version(self, world: World, tmp_path: Path) -> None:
        """Somebody's session is in it: it stays where it is, and nobody logs in."""
        storage = FileStorage(tmp_path / "sessions", clock=world.clock)
        daring = world.provider(storage=storage, login_without_storage=True)
        key = daring._account.key
        storage.save(key, Record(revision=1))
        newer_schema(storage, key)
        kept = storage._path(key, "json").read_bytes()
        for _ in range(3):
            with pytest.raises(UnreadableRecord):
                daring.get()
            world.clock.advance(5)
        assert logins(world) == 0
        assert storage._path(key, "json").read_bytes() == kept

    def test_never_over_a_sealed_record(self, world: World, tmp_path: Path) -> None:
        """The seal's key is missing here: the same."""
        sealed = FileStorage(
            tmp_path / "sessions", keys=KeyRing.parse(f"one:{KeyRing.generate_key()}"), clock=world.clock
        )
        world.provider(storage=sealed, on_event=None).get()
        open_ = FileStorage(tmp_path / "sessions", clock=world.clock)
        daring = world.provider(storage=open_, login_without_storage=True)
        for _ in range(2):
            with pytest.raises(UnreadableRecord):
                daring.get()
            world.clock.advance(5)
        assert logins(world) == 1

    def test_an_owner_leaves_it_to_those_who_can_read_it(self, world: World, tmp_path: Path) -> None:
        """That is no outage: others go on with this very session, so its token is served to its end, and no longer."""
        storage = FileStorage(tmp_path / "sessions", clock=world.clock)
        owner = world.provider(storage=storage, login_without_storage=True)
        token = owner.get()
        newer_schema(storage, owner._account.key)
        for _ in range(79):
            assert step(world, owner, MINUTE) is token
        world.clock.advance(MINUTE + 1)
        with pytest.raises(UnreadableRecord):
            owner.get()
        assert (logins(world), renewals(world)) == (1, 0)


def test_a_copy_is_left_with_the_outage(world: World, storage: Shared) -> None:
    """The second outage starts from what the storage held in between."""
    owner, other = world.provider(storage=storage), world.provider(on_event=None)
    owner.get()
    for generation in (2, 3):
        storage.broken = ALL
        assert step(world, owner, 4200).generation == generation
        storage.broken = set()
        step(world, owner, 2)
        assert other.get() is not None
        assert stored(world, owner).generation == generation
    assert (logins(world), renewals(world)) == (1, 2)

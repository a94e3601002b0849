"""Sending a call: it is entered, it must still be ours to make, and it is taken back if it never left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from core_tools import FrailStorage, World

from tradovate_auth import Budget, ProviderClosed, StorageError, Throttled, TokenProvider, TransportError
from tradovate_auth._dispatch import Dispatch
from tradovate_auth._holds import Hold
from tradovate_auth._ledger import Ledger
from tradovate_auth._view import Need
from tradovate_auth.events import RenewalFailed
from tradovate_auth.storage import Lease, Record, StorageBusy
from tradovate_auth.storage._record import OWNED
from tradovate_auth.testing import Emulator, FakeClock
from tradovate_auth.transport import Call, Reply

Say = bool | Callable[[], bool]


class Answering:
    """A lease that says what it was told to say, one thing after another, and yes in the end."""

    def __init__(self, says: list[Say]) -> None:
        self._says = says

    def held(self) -> bool:
        """See `Lease.held`."""
        say = self._says.pop(0) if self._says else True
        return say() if callable(say) else say


class Leasing(FrailStorage):
    """A storage whose leases can be lost. `held` is asked on entering, before an exchange, and before it is sent."""

    def __init__(self, *, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.says: list[Say] = []
        self.seen: list[int | None] = []
        self.private = False  # type: ignore[misc]  # of this object alone

    @contextmanager
    def exclusive(self, key: str, timeout: float, *, seen: int | None = None) -> Iterator[Lease]:
        """See `Storage.exclusive`."""
        self.seen.append(seen)
        with super().exclusive(key, timeout, seen=seen):
            yield Answering(self.says)


@pytest.fixture
def storage(world: World) -> Leasing:
    """Return a storage whose leases can be lost; the world's own shows the same records, with locks of its own."""
    storage = Leasing(clock=world.clock)
    storage._records = world.storage._records
    return storage


def spent(provider: TokenProvider) -> tuple[Ledger, Ledger]:
    """Return the ledgers of the account and of the machine."""
    return provider._account.load().ledger, provider._account.machine.load().ledger


def calls(world: World) -> int:
    """Return how many auth calls were sent."""
    return len(world.transport.calls)


def other_logs_in(world: World) -> Callable[[], bool]:
    """Return a lease's no, because another process has logged in while this one slept."""

    def say() -> bool:
        world.provider(on_event=None).get()
        return False

    return say


class TestLogin:
    """A login that is not ours to make any more could close the session that another one has opened."""

    def test_a_lease_lost_before_sending(self, world: World, storage: Leasing) -> None:
        """Nothing is sent, the entries are taken back, and the token of whoever was faster is adopted."""
        storage.says = [True, True, other_logs_in(world)]
        provider = world.provider(storage=storage)
        token = provider.get()
        assert (token.generation, world.server.counts.logins) == (1, 1)
        world.events.expect("Adopted")
        account, machine = spent(provider)
        assert (account.failed_logins, len(account.logins), machine.failed_logins) == ((), 1, ())

    def test_a_lease_lost_before_deciding(self, world: World, storage: Leasing) -> None:
        """The same when it is noticed a step earlier: under the lock, with a login decided on."""
        storage.says = [True, other_logs_in(world)]
        assert world.provider(storage=storage).get().generation == 1
        assert world.server.counts.logins == 1

    def test_a_wait_that_ends_because_there_is_something_newer(self, world: World, storage: Leasing) -> None:
        """The storage lets whoever has seen less in without the lease: it looks, adopts, and nobody is called."""
        storage.says = [other_logs_in(world)]
        provider = world.provider(storage=storage)
        assert provider.get().generation == 1
        assert storage.seen == [0]
        world.clock.advance(60)
        provider.renew()
        assert storage.seen == [0, 1]
        assert (world.server.counts.logins, world.server.counts.renewals) == (1, 1)

    def test_a_lease_that_is_never_held(self, world: World, storage: Leasing) -> None:
        """`StorageError` after some rounds, no endless loop; nothing was sent, and nothing is left in the ledger."""
        storage.says = [False] * 1000
        provider = world.provider(storage=storage)
        with pytest.raises(StorageBusy, match="keeps changing"):
            provider.get()
        assert calls(world) == 0
        assert len(storage.seen) == 24
        storage.says = [lambda: not spent(provider)[0].failed_logins] * 10_000  # no, as soon as it is entered
        world.clock.advance(2)
        with pytest.raises(StorageBusy, match="keeps changing"):
            provider.get()
        assert calls(world) == 0
        assert [ledger.failed_logins for ledger in spent(provider)] == [(), ()]
        storage.says = []
        world.clock.advance(2)
        assert provider.get().generation == 1

    def test_a_lease_that_cannot_be_asked(self, world: World, storage: Leasing) -> None:
        """The storage goes away right before the sending: nothing is sent, and nothing counts as sent."""

        def fail() -> bool:
            raise StorageError("held failed")

        storage.says = [True, True, fail]
        provider = world.provider(storage=storage)
        with pytest.raises(StorageError, match="held failed"):
            provider.get()
        assert calls(world) == 0
        assert [ledger.failed_logins for ledger in spent(provider)] == [(), ()]

    def test_a_storage_that_is_gone_altogether(self, world: World, storage: Leasing) -> None:
        """If what was entered cannot be taken back either it counts, and the first error is the one that is told."""

        def fail() -> bool:
            storage.broken = {"load", "save"}
            raise StorageError("held failed")

        storage.says = [True, True, fail]
        provider = world.provider(storage=storage)
        with pytest.raises(StorageError, match="held failed"):
            provider.get()
        storage.broken = set()
        assert calls(world) == 0
        assert [len(ledger.failed_logins) for ledger in spent(provider)] == [1, 1]

    def test_a_machine_that_cannot_be_entered(self, world: World, storage: Leasing) -> None:
        """The account's entry is taken back where the machine's could not be made."""
        original = storage.save

        def save(key: str, record: Record) -> bool:
            if key.startswith("machine"):
                raise StorageError("the machine's record cannot be saved")
            return original(key, record)

        storage.save = save  # type: ignore[method-assign]
        provider = world.provider(storage=storage)
        with pytest.raises(StorageError, match="the machine's record"):
            provider.get()
        assert calls(world) == 0
        assert spent(provider)[0].failed_logins == ()

    def test_a_ticket_outlives_a_login_that_never_left(self, world: World) -> None:
        """P§4.1: no connection could be made, so the ticket is still good, and is redeemed by the next try."""
        provider = world.provider()
        world.server.penalize("login", seconds=15)
        with pytest.raises(Throttled):
            provider.get(timeout=1)
        ticket = spent(provider)[0].hold
        world.clock.advance(20)
        world.server.stop()
        with world.time_flies(), pytest.raises(TransportError):
            provider.get(timeout=None)
        assert spent(provider)[0].hold == ticket
        world.server.start()
        world.clock.advance(2)
        assert provider.get(timeout=60).generation == 1
        assert ticket is not None
        assert f'"p-ticket":"{ticket.ticket}"' in (world.transport.calls[-1].body or b"").decode().replace(
            ": ", ":"
        )

    def test_a_login_that_closing_kept_from_leaving(self, world: World) -> None:
        """`close` between two tries, of which none was sent: taken back, and the hold that came meanwhile stays."""

        class Closing:
            def send(self, call: Call, timeout: float) -> Reply:
                provider._account.closing.set()
                raise TransportError("no way", None, None, False)

        provider = world.provider(transport=Closing())
        with pytest.raises(ProviderClosed):
            provider.get()
        assert [ledger.failed_logins for ledger in spent(provider)] == [(), ()]


class TestRenewal:
    """The same for renewals, whose token lives on."""

    def test_a_lease_lost_before_sending(self, world: World, storage: Leasing) -> None:
        """Nothing is sent, the entries are taken back, the token is served; the next pass renews it."""
        provider = world.provider(storage=storage)
        token = provider.get()
        world.clock.advance(4200)
        storage.says = [True, True, False]
        assert provider.get() is token
        world.settled(provider)
        assert [ledger.renewals for ledger in spent(provider)] == [(), ()]
        assert world.server.counts.renewals == 0
        world.clock.advance(61)
        assert provider.get() is token
        world.settled(provider)
        assert provider.get().generation == 2

    def test_an_unscheduled_one_costs_no_pause(self, world: World, storage: Leasing) -> None:
        """A renewal that somebody wished for and that was not sent leaves the allowance as it was."""
        provider = world.provider(storage=storage)
        provider.get()
        storage.says = [True, True, False]
        with pytest.raises(Throttled):
            provider.renew()
        account, machine = spent(provider)
        assert (account.unscheduled, account.renewals, machine.renewals) == ((), (), ())
        assert account.unscheduled_at <= world.clock.time()
        assert provider.renew().generation == 2

    def test_a_machine_without_a_place_left(self, world: World) -> None:
        """Another account takes the last renewal of the hour in the moment between the look and the entry."""
        provider = world.provider()
        token = provider.get()
        world.clock.advance(4200)
        machine, original = provider._account.machine, world.storage.save

        def save(key: str, record: Record) -> bool:
            if key == provider._account.key and record.ledger.renewals:
                for _ in range(12):
                    machine.renewal(world.storage.now(), provider._account.pace(None), Budget())
            return original(key, record)

        world.storage.save = save  # type: ignore[method-assign]
        assert provider.get() is token
        world.settled(provider)
        assert world.server.counts.renewals == 0
        assert spent(provider)[0].renewals == ()
        assert len(spent(provider)[1].renewals) == 12

    def test_one_that_never_left_counts_nowhere(self, world: World) -> None:
        """No connection: neither the account nor the machine has spent anything."""
        provider = world.provider()
        provider.get()
        world.clock.advance(4200)
        world.server.stop()
        provider.get()
        world.settled(provider)
        assert [ledger.renewals for ledger in spent(provider)] == [(), ()]

    @pytest.mark.parametrize("ahead", [7200.0, -7200.0])
    def test_it_is_entered_for_the_machine_by_the_storages_clock(self, ahead: float) -> None:
        """Accounts of one machine need not agree on the server's clock, of which some have learnt and others have not."""
        clock = FakeClock()
        with Emulator(clock=FakeClock(clock.time() + ahead)) as server:
            world = World(clock, server, FrailStorage(clock=clock))
            with world.provider() as provider:
                provider.get()
                clock.advance(61)
                provider.renew()
                account, machine = spent(provider)
                assert account.renewals == pytest.approx((clock.time() + ahead,), abs=62)
                assert machine.renewals == machine.unscheduled == (clock.time(),)

    def test_a_lapsed_one_whose_lease_is_lost(self, world: World, storage: Leasing) -> None:
        """The offer of a lapsed token is not used up by a try that was not sent."""
        world.server.configure(lifetime=4800)
        provider = world.provider(storage=storage)
        provider.get()
        world.clock.advance(4900)
        storage.says = [True, True, False]
        provider.get()
        assert world.server.counts.renewals == 1
        assert len(spent(provider)[1].renewals) == 1


def test_a_busy_storage_is_no_outage(world: World, storage: Leasing) -> None:
    """A lease that is never held does not send the owner of a due token elsewhere to renew it."""
    provider = world.provider(storage=storage)
    token = provider.get()
    world.clock.advance(4200)
    storage.says = [False] * 1000
    assert provider.get() is token
    assert "keeps changing" in world.events.wait_for(RenewalFailed).reason
    world.settled(provider)
    assert world.server.counts.renewals == 0
    storage.says = []
    world.clock.advance(20)
    provider.get()
    world.settled(provider)
    assert provider.get().generation == 2
    world.events.expect("LoggedIn", "RenewalFailed", "Renewed")


@pytest.mark.parametrize("lapsed", [True, False])
def test_a_hold_that_came_meanwhile_is_heeded_and_kept(world: World, *, lapsed: bool) -> None:
    """A leader slept between deciding and entering: what another process was told meanwhile stands, and nothing is sent."""
    provider = world.provider()
    account = provider._account
    if lapsed:
        token = provider.get()
    view = provider._lifecycle.survey(account.load(), None, Need(login=True))
    hold = Hold("locked", view.now + 3600, "the server locked us out with 429")
    account.change_ledger(lambda ledger: ledger.with_hold(hold))
    sent = len(world.transport.calls)
    dispatch = Dispatch(account, OWNED, account.load(), view)
    assert (dispatch.renewal(token, scheduled=False) if lapsed else dispatch.login(None)) is None
    ledger = account.load().ledger
    assert (ledger.hold, ledger.failed_logins, ledger.renewals) == (hold, (), ())
    assert len(world.transport.calls) == sent


def test_a_renewal_of_a_provider_that_closes_between_two_tries(world: World) -> None:
    """The token has lapsed, the server cannot be reached, the provider is closed: nothing was sent, and nothing counts."""
    provider = world.provider()
    provider.get()
    world.clock.advance(4900)
    world.server.stop()
    provider._account.closing.set()
    with pytest.raises(ProviderClosed):
        provider.get()
    account, machine = spent(provider)
    assert (account.renewals, account.unscheduled, machine.renewals) == ((), (), ())

"""One ledger for all accounts of a machine: what the server counts by address."""

import hashlib
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from core_tools import FrailStorage, World, at_once
from values import HOUR, MINUTE, NOW, PACE

from tradovate_auth import (
    AccessToken,
    Budget,
    CaptchaRequired,
    Environment,
    LockedOut,
    LoginRefused,
    Throttled,
    TokenProvider,
)
from tradovate_auth._decision import Login, decide
from tradovate_auth._holds import Hold
from tradovate_auth._ledger import Ledger
from tradovate_auth._machine import Machine, machine_id, machine_key
from tradovate_auth._view import Need
from tradovate_auth.events import Held, RecordSetAside
from tradovate_auth.storage import FileStorage, MemoryStorage, Record, StorageBusy
from tradovate_auth.testing import FakeClock
from tradovate_auth.testing.emulator import Fault

KEY = "machine here at https://demo.tradovateapi.com/v1"
LOCKED = Hold("locked", 0.0, "the server locked us out with 429")


@pytest.fixture
def machine(fake_clock: FakeClock) -> Machine:
    """Return the ledger of a machine, in a storage of its own whose clock stands at NOW."""
    return Machine(MemoryStorage(clock=fake_clock), KEY)


def accounts(world: World, count: int, **options: object) -> list[TokenProvider]:
    """Return providers of so many users of one machine."""
    made = []
    for number in range(count):
        who = world.server.add_user(f"trader{number}", f"horse {number}")
        made.append(world.provider(**{"who": who, **options}))
    return made


def wrong(world: World, count: int) -> list[TokenProvider]:
    """Return providers of so many users, each with a password that is not theirs."""
    made = []
    for number in range(count):
        who = world.server.add_user(f"trader{number}", f"horse {number}")
        made.append(world.provider(who={**who, "password": "no horse"}))
    return made


def elsewhere(provider: TokenProvider) -> TokenProvider:
    """Let a provider run on another machine."""
    provider._account.here = "another machine"
    return provider


class TestIdentity:
    """What tells machines apart."""

    @pytest.fixture(autouse=True)
    def anew(self) -> None:
        """Forget what this machine was known by."""
        machine_id.cache_clear()

    def test_it_is_the_systems_own_id(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A hash of it, for it is not to be shown around; asked for once."""
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_text", lambda *_: "0123abcd\n")
            found = machine_id()
        assert found == hashlib.sha256(b"0123abcd").hexdigest()[:12] == machine_id()
        machine_id.cache_clear()

    @pytest.mark.parametrize(
        "content", ["", " \n", FileNotFoundError(), UnicodeDecodeError("ascii", b"", 0, 1, "")]
    )
    def test_without_one_it_is_the_name(
        self, monkeypatch: pytest.MonkeyPatch, content: str | Exception
    ) -> None:
        """Where there is no such file, or nothing in it: a container may have none."""

        def read(*_: object) -> str:
            if isinstance(content, Exception):
                raise content
            return content

        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_text", read)
            patch.setattr(platform, "node", lambda: "host-7")
            assert machine_id() == hashlib.sha256(b"host-7").hexdigest()[:12]
        machine_id.cache_clear()

    def test_demo_and_live_are_apart(self) -> None:
        """The server counts for each of its environments, and no account's key looks like a machine's."""
        keys = {machine_key(Environment.of(kind), name) for kind in ("demo", "live") for name in ("a", "b")}
        assert len(keys) == 4
        assert all(key.startswith("machine ") for key in keys)

    def test_servers_behind_one_host_are_apart(self) -> None:
        """A gateway may lead to several by the path: each counts for itself."""
        keys = {
            machine_key(Environment(f"http://127.0.0.1{path}/v1"), "a") for path in ("", "/demo", "/live")
        }
        assert len(keys) == 3


class TestLedger:
    """Changes of the record, each with compare-and-swap."""

    def test_nothing_yet(self, machine: Machine) -> None:
        """Where nothing was saved there is an empty record of revision 0."""
        assert machine.load() == Record()

    def test_logins_are_entered_and_taken_back(self, machine: Machine) -> None:
        """As failed until somebody says otherwise; only that very entry is taken back."""
        for moment in (NOW - 2, NOW - 1):
            assert machine.login(moment, PACE, Budget())
        machine.login_not_failed(NOW - 2)
        assert machine.load().ledger.failed_logins == (NOW - 1,)
        machine.login_not_failed(NOW - 2)
        assert machine.load().ledger.failed_logins == (NOW - 1,)

    def test_renewals_are_entered_and_taken_back(self, machine: Machine) -> None:
        """The same of renewals; the allowance is the account's own business."""
        for moment in (NOW - 2, NOW - 1):
            assert machine.renewal(moment, PACE, Budget())
        machine.renewal_not_sent(NOW - 1)
        ledger = machine.load().ledger
        assert (ledger.renewals, ledger.unscheduled) == ((NOW - 2,), ())

    @pytest.mark.parametrize("call", ["login", "renewal"])
    def test_what_the_budget_forbids_is_not_entered(self, machine: Machine, call: str) -> None:
        """Looked at in the moment of the change: two accounts cannot both take the last place."""
        budget, enter = Budget(failed_logins=2, renewals=2), getattr(machine, call)
        assert [enter(NOW, PACE, budget) for _ in range(3)] == [True, True, False]
        assert not enter(NOW + HOUR - 1, PACE, budget)
        assert enter(NOW + HOUR, PACE, budget)
        ledger = machine.load().ledger
        assert ledger.failed_logins + ledger.renewals == (NOW + HOUR,)

    def test_only_so_many_of_a_crowd_are_entered(self, machine: Machine) -> None:
        """Threads that enter at the same moment: three logins and twelve renewals, and not one more."""
        entered = at_once(20, lambda: machine.login(NOW, PACE, Budget()))
        assert entered.count(True) == 3
        assert len(machine.load().ledger.failed_logins) == 3
        assert at_once(20, lambda: machine.renewal(NOW, PACE, Budget())).count(True) == 12

    def test_a_hold_lasts_by_the_storages_clock(self, machine: Machine, fake_clock: FakeClock) -> None:
        """Whatever an account takes the server's time for: a hold is placed for so many seconds from now."""
        fake_clock.advance(50)
        machine.hold(replace(LOCKED, until=NOW + 99_999), 100.0)
        assert machine.load().ledger.hold == replace(LOCKED, until=NOW + 150)

    def test_a_change_that_changes_nothing_is_not_saved(self, machine: Machine) -> None:
        """The same ledger back means: nothing to write."""
        assert not machine.change(lambda ledger: ledger)
        assert machine.load().revision == 0
        assert machine.change(Ledger.forgiven)
        assert machine.load().revision == 1

    def test_a_storage_that_never_agrees_is_busy(self, fake_clock: FakeClock) -> None:
        """After many refused saves: an error, no endless loop; and no outage either."""

        class Refusing(MemoryStorage):
            tries = 0

            def save(self, key: str, record: Record) -> bool:
                self.tries += 1
                return False

        storage = Refusing(clock=fake_clock)
        with pytest.raises(StorageBusy, match="keep changing this machine's record"):
            Machine(storage, KEY).login(NOW, PACE, Budget())
        assert storage.tries == 64

    def test_what_was_put_aside_is_told(self, fake_clock: FakeClock) -> None:
        """Whoever finds that there was no record says so, once, and begins anew."""

        class Rotten(MemoryStorage):
            def load(self, key: str) -> Record | None:
                return super().load(key) or Record(set_aside="it was no JSON")

        told: list[str] = []
        machine = Machine(Rotten(clock=fake_clock), KEY, told)
        assert machine.login(NOW, PACE, Budget())
        assert told == ["it was no JSON"]
        record = machine.load()
        assert (record.revision, record.set_aside) == (1, None)

    def test_an_accounts_view_of_it(self) -> None:
        """For an account that knows the server's clock, every moment is moved by the difference."""
        ledger = Ledger(failed_logins=(NOW,), renewals=(NOW, NOW + 1), hold=replace(LOCKED, until=NOW + HOUR))
        moved = ledger.shifted(-7200.0)
        assert (moved.failed_logins, moved.renewals) == ((NOW - 7200,), (NOW - 7200, NOW - 7199))
        assert moved.hold == replace(LOCKED, until=NOW + HOUR - 7200)
        assert Ledger().shifted(5.0) == Ledger()


FORBIDDING: dict[str, tuple[Callable[[World], None], type[Throttled]]] = {
    "captcha": (lambda world: world.server.penalize("login", captcha=True), CaptchaRequired),
    "423": (lambda world: world.server.inject(Fault("login", "status", status=423)), LockedOut),
    "429": (lambda world: world.server.inject(Fault("login", "status", status=429)), LockedOut),
}


class TestHolds:
    """A captcha or a lock-out of one account stops the others too: it may be the address."""

    @pytest.mark.parametrize("name", FORBIDDING)
    def test_it_holds_the_others_of_this_machine(self, world: World, name: str) -> None:
        """No call of theirs reaches the server for an hour; those on another machine, and living tokens, notice nothing."""
        forbid, error = FORBIDDING[name]
        living, first, second, third = accounts(world, 4)
        token = living.get()
        elsewhere(third)
        forbid(world)
        with pytest.raises(error):
            first.get()
        calls = len(world.transport.calls)
        with pytest.raises(error) as caught:
            second.get()
        assert caught.value.retry_after == pytest.approx(HOUR, abs=2)
        assert living.get() is token
        assert len(world.transport.calls) == calls
        assert third.get().generation == 1
        world.clock.advance(HOUR + 2)
        assert second.get().generation == 1

    def test_a_due_token_of_another_account_is_not_renewed_meanwhile(self, world: World) -> None:
        """It stays in use, and is renewed when the hold is over."""
        living, locked = accounts(world, 2)
        token = living.get()
        world.clock.advance(3000)
        world.server.inject(Fault("login", "status", status=429))
        with pytest.raises(LockedOut):
            locked.get()
        for _ in range(17):
            world.clock.advance(100)
            assert living.get() is token
            world.settled(living)
        assert world.server.counts.renewals == 0

    def test_the_status_shows_it_and_a_human_lifts_it(self, world: World) -> None:
        """`status` of any account of the machine says what is forbidden until when; `reset` of any lifts it for all."""
        first, second, third = accounts(world, 3)
        world.server.inject(Fault("login", "status", status=429))
        with pytest.raises(LockedOut):
            first.get()
        shown = second.status()
        assert (shown.state, shown.hold) == ("held", "the server locked us out with 429")
        assert shown.hold_until is not None
        assert shown.hold_until.timestamp() == pytest.approx(world.clock.time() + HOUR, abs=2)
        second.reset()
        assert second.status().state == third.status().state == "absent"
        assert second.get().generation == third.get().generation == 1

    @pytest.mark.parametrize("offset", [7200.0, -7200.0])
    def test_its_length_is_the_same_for_those_who_know_the_clock_and_those_who_do_not(
        self, world: World, offset: float
    ) -> None:
        """One account has learnt that the server's clock is two hours off, another has never asked: an hour for both."""
        world.server.configure(clock_offset=offset)
        knows, other, new = accounts(world, 3)
        knows.get()
        other.get()
        world.clock.advance(4000)
        world.server.penalize("renewal", captcha=True)
        with pytest.raises(Throttled):
            knows.renew()
        world.events.wait_for(Held)
        with pytest.raises(CaptchaRequired) as caught:
            new.get()
        assert caught.value.retry_after == pytest.approx(HOUR, abs=5)
        hold_until = other.status().hold_until
        assert hold_until is not None
        assert hold_until.timestamp() == pytest.approx(world.clock.time() + offset + HOUR, abs=5)


class TestBudgets:
    """The server counts failed logins and renewals by address (P§4.3)."""

    def test_failed_logins_of_several_accounts_stop_at_three(self, world: World) -> None:
        """The fourth account's wrong password is not even sent, nor is a right one; another machine's is."""
        for provider in wrong(world, 3):
            with pytest.raises(LoginRefused):
                provider.get()
            world.clock.advance(MINUTE + 1)
        good = world.provider()
        with pytest.raises(Throttled, match="3 failed over all accounts of this machine"):
            good.get()
        assert world.server.counts.logins == 3
        assert elsewhere(world.provider(who=world.server.add_user("x", "y"))).get().generation == 1
        world.clock.advance(HOUR)
        assert good.get().generation == 1

    def test_accounts_that_fail_at_the_same_moment_stop_at_three_too(self, world: World) -> None:
        """Ten accounts with wrong passwords in ten threads: each has its own lock, and still only three are sent."""
        providers = wrong(world, 10)

        def one() -> AccessToken:
            return providers.pop().get(timeout=20)

        with world.time_flies(0.05):
            outcomes = at_once(10, one)
        kinds = sorted(type(outcome).__name__ for outcome in outcomes)
        assert kinds == ["LoginRefused"] * 3 + ["Throttled"] * 7
        assert world.server.counts.logins == 3

    def test_renewals_of_several_accounts_that_nobody_planned_stop_at_eight(self, world: World) -> None:
        """With four accounts that each stay within their own allowance: what is left is for the planned ones."""
        world.server.configure(lifetime=90 * MINUTE)
        providers = accounts(world, 4)
        for provider in providers:
            provider.get()
        for wait in (0, 61, 121, 241):
            world.clock.advance(wait)
            for provider in providers:
                with suppress(Throttled):
                    provider.renew()
        assert world.server.counts.renewals == 8
        assert [provider.get().generation for provider in providers] == [3] * 4
        assert elsewhere(providers[0]).renew().generation == 4

    def test_planned_renewals_have_a_share_of_their_own(self, world: World) -> None:
        """Calls that one account may never make cost the others no planned renewal: a third of the hour's is for those."""
        machine = world.provider()._account.machine
        unplanned = [machine.renewal(NOW, PACE, Budget(), scheduled=False) for _ in range(9)]
        assert unplanned == [True] * 8 + [False]
        assert [machine.renewal(NOW, PACE, Budget()) for _ in range(5)] == [True] * 4 + [False]
        machine.renewal_not_sent(NOW)
        ledger = machine.load().ledger
        assert (len(ledger.renewals), len(ledger.unscheduled)) == (11, 7)

    def test_a_granted_login_counts_for_nobody_else(self, world: World) -> None:
        """Twenty accounts in a row, each granted: none of them is in the way of the next."""
        for provider in accounts(world, 20):
            assert provider.get().generation == 1

    def test_twenty_cold_accounts_at_once_all_get_in(self, world: World) -> None:
        """Three at a time: the others wait for a moment, and every one of them has a token in the end."""
        providers = accounts(world, 20)
        world.server.configure(login_delay=0.02)
        with world.time_flies(0.01), ThreadPoolExecutor(20) as pool:
            tokens = list(pool.map(lambda provider: provider.get(timeout=None), providers))
        assert [token.generation for token in tokens] == [1] * 20
        assert world.server.counts.logins == 20
        world.events.expect(*["LoggedIn"] * 20)
        machine = providers[0]._account.machine.load().ledger
        assert machine.failed_logins == ()

    def test_a_login_that_never_left_counts_for_nobody(self, world: World) -> None:
        """The server cannot be reached: nothing is entered for the machine, by any account."""
        world.server.stop()
        with world.time_flies():
            for provider in accounts(world, 4):
                with pytest.raises(Exception, match="no connection"):
                    provider.get()
        assert world.provider()._account.machine.load().ledger.failed_logins == ()


def test_a_ticket_is_redeemed_on_its_machine_alone(world: World) -> None:
    """P§4.1: another machine waits as long and asks without; the one that was given the ticket redeems it."""
    world.server.penalize("login", seconds=15)
    first = world.provider()
    with pytest.raises(Throttled):
        first.get(timeout=1)
    hold = first._account.load().ledger.hold
    assert hold is not None
    assert hold.scope == first._account.ticket_scope()
    other = elsewhere(world.provider())
    world.clock.advance(20)
    for provider, redeems in ((other, False), (first, True)):
        view = provider._lifecycle.survey(first._account.load(), None, Need(login=True))
        assert (decide(view) == Login(hold.ticket)) is redeems
    assert first.get(timeout=20).generation == 1
    assert hold.ticket is not None
    assert hold.ticket in (world.transport.calls[-1].body or b"").decode()


def test_what_rots_in_the_machines_file_is_told(world: World, tmp_path: Path) -> None:
    """Bytes that are no record are put aside and reported, as an account's are, and the machine begins anew."""
    storage = FileStorage(tmp_path / "sessions", clock=world.clock)
    provider = world.provider(storage=storage)
    provider.get()
    storage._path(provider._account.machine.key, "json").write_bytes(b"rubbish")
    world.clock.advance(4200)
    provider.get()
    world.settled(provider)
    assert "no JSON" in world.events.wait_for(RecordSetAside).reason
    assert provider.get().generation == 2
    assert provider._account.machine.load().revision == 1


def test_a_machines_record_that_cannot_be_read_stops_logins(world: World) -> None:
    """Without it nobody knows what the address has spent: `StorageError`, and nothing is sent."""

    class Half(FrailStorage):
        def load(self, key: str) -> Record | None:
            if key.startswith("machine"):
                self._check("machine")
            return super().load(key)

    storage = Half(clock=world.clock)
    storage.broken = {"machine"}
    provider = world.provider(storage=storage)
    with pytest.raises(Exception, match="machine failed"):
        provider.get()
    assert world.server.counts.logins == 0

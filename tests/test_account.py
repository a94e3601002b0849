"""One account: its storage under contention, its patience with a server, its clock, and what identifies it."""

import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from core_tools import FrailStorage, SocketTransport, World, eventually

from tradovate_auth import ProviderClosed, StorageError, TransportError
from tradovate_auth._account import Account
from tradovate_auth._clock import SystemClock
from tradovate_auth._wire import login_call
from tradovate_auth.events import Renewed, Warned
from tradovate_auth.storage import MemoryStorage, Record
from tradovate_auth.testing.emulator import Fault
from tradovate_auth.transport import Call, Reply


def account(world: World, **options: object) -> Account:
    """Return the account of a new provider."""
    return world.provider(**options)._account


def test_changes_are_applied_to_the_newest_record(world: World) -> None:
    """Twenty threads change one counter at once: compare-and-swap loses none of them."""
    mine = account(world)

    def more(record: Record) -> Record:
        return Record(
            revision=record.revision,
            generation=record.generation + 1,
            offset=record.offset,
            ledger=record.ledger,
        )

    threads = [threading.Thread(target=lambda: [mine.update(more) for _ in range(5)]) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert mine.load().generation == mine.load().revision == 100


def test_a_change_that_changes_nothing_is_not_saved(world: World) -> None:
    """The same record back means: nothing to write."""
    mine = account(world)
    assert mine.update(lambda record: record).revision == 0
    assert mine.storage.load(mine.key) is None


def test_a_storage_that_never_agrees_is_an_error(world: World) -> None:
    """Sixteen refused saves are enough: `StorageError`."""

    class Refusing(FrailStorage):
        tries = 0

        def save(self, key: str, record: Record) -> bool:
            self.tries += 1
            return False

    storage = Refusing(clock=world.clock)
    with pytest.raises(StorageError, match="keep changing"):
        account(world, storage=storage).change_ledger(lambda ledger: ledger.forgiven())
    assert storage.tries == 16


def test_the_lock_of_an_account_is_waited_for_in_vain_only_so_long(world: World) -> None:
    """Whoever finds the storage's lock held gives up after a few calls' time."""
    mine = account(world, timeout=0.02)
    with mine.exclusive(0), pytest.raises(StorageError, match="still at work"), mine.exclusive(0):
        pass


def test_patience_ends_with_the_provider(world: World) -> None:
    """`close` ends the wait between two tries of a server that cannot be reached."""
    mine = account(world)
    world.server.stop()
    mine.closing.set()
    with pytest.raises(ProviderClosed):
        mine.send(Call("GET", f"{world.server.url}/x", {}), Record(), patient=True)


def test_whoever_is_in_a_hurry_tries_once(world: World) -> None:
    """Without patience a connection that cannot be made is an error at once; one that broke is never repeated."""
    mine = account(world)
    world.server.stop()
    with pytest.raises(TransportError) as caught:
        mine.send(Call("GET", f"{world.server.url}/x", {}), Record(), patient=False)
    assert not caught.value.sent
    assert len(world.transport.calls) == 1


@pytest.mark.parametrize("offset", [0.0, 600.0, -600.0])
def test_the_servers_clock_is_learnt_from_its_date(world: World, offset: float) -> None:
    """A difference is stored for all processes; one that a `Date` of whole seconds allows is left as it is."""
    world.server.configure(clock_offset=offset)
    mine = account(world)
    call = login_call(mine.credentials, world.server.url)
    _, at = mine.send(call, Record(), patient=False)
    assert at == pytest.approx(world.clock.time() + offset, abs=1)
    assert mine.update(lambda record: replace(record, generation=1)).offset == pytest.approx(offset, abs=1)
    learnt = mine.load().offset
    mine.send(call, mine.load(), patient=False)
    assert mine.update(lambda record: replace(record, generation=2)).offset == learnt
    assert mine.now(mine.load()) == pytest.approx(world.clock.time() + offset, abs=1)


def ask(world: World, mine: Account, offset: float) -> float:
    """Log in while the server's clock is that wrong, and write down what that taught; return the offset then."""
    world.server.configure(clock_offset=offset)
    mine.send(login_call(mine.credentials, world.server.url), mine.load(), patient=False)
    return mine.update(lambda record: replace(record, generation=record.generation + 1)).offset


def test_one_odd_date_is_outvoted(world: World) -> None:
    """Of the answers of a quarter of an hour the median counts: one with a wrong clock changes nothing for anybody."""
    mine = account(world)
    assert ask(world, mine, 600.0) == pytest.approx(600, abs=1)
    assert ask(world, mine, 600.0) == pytest.approx(600, abs=1)
    assert ask(world, mine, -7200.0) == pytest.approx(600, abs=1)
    assert mine.oddities == []
    assert ask(world, mine, 600.0) == pytest.approx(600, abs=1)


def test_a_clock_that_was_set_is_believed_the_second_time(world: World) -> None:
    """However often the old time was told before; and from the next answer on nothing is left of it."""
    mine = account(world)
    for _ in range(5):
        ask(world, mine, 0.0)
    assert ask(world, mine, 7200.0) == pytest.approx(0, abs=1)
    assert ask(world, mine, 7200.0) == pytest.approx(7200, abs=1)
    assert ask(world, mine, 7200.0) == pytest.approx(7200, abs=1)


@pytest.mark.parametrize(("later", "offset"), [(899.0, 0.0), (901.0, 7200.0)])
def test_old_answers_do_not_vote(world: World, later: float, offset: float) -> None:
    """What was said more than fifteen minutes ago outvotes nothing: a clock that has been set since is believed at once."""
    mine = account(world)
    for _ in range(2):
        ask(world, mine, 0.0)
    world.clock.advance(later)
    assert ask(world, mine, 7200.0) == pytest.approx(offset, abs=1)


@pytest.mark.parametrize(
    ("offset", "told"), [(7200.0, ["+2.0 h"]), (-7200.0, ["-2.0 h"]), (3000.0, []), (-3000.0, [])]
)
def test_a_clock_that_is_far_off_is_reported(world: World, offset: float, told: list[str]) -> None:
    """More than an hour is believed, and said: once, not with every answer. The token's end is right."""
    world.server.configure(clock_offset=offset)
    provider = world.provider()
    token = provider.get()
    world.clock.advance(61)
    provider.renew()
    world.events.wait_for(Renewed)
    world.settled(provider)
    eventually(lambda: len(world.events.all) >= 2 + len(told))
    warned = [event.reason for event in world.events.of(Warned)]
    assert len(warned) == len(told)
    assert all(text in reason for text, reason in zip(told, warned, strict=True))
    assert token.issued_at.timestamp() == pytest.approx(world.clock.time() - 61 + offset, abs=2)
    assert provider.get().lifetime == pytest.approx(4800, abs=2)


def test_other_accounts_have_offsets_of_their_own(world: World) -> None:
    """What one account has learnt of the server's clock is in its own record: another learns it with its first answer."""
    world.server.configure(clock_offset=7200.0)
    knows, new = account(world), account(world, who=world.server.add_user("another", "password"))
    ask(world, knows, 7200.0)
    assert new.now(new.load()) == world.clock.time()
    ask(world, new, 7200.0)
    assert new.now(new.load()) == pytest.approx(knows.now(knows.load()), abs=1)


def test_a_storage_whose_clock_fails_costs_no_answer(world: World) -> None:
    """The answer may hold a token: what the storage's clock would have said is reckoned."""

    class FailsMeanwhile(SocketTransport):
        def send(self, call: Call, timeout: float) -> Reply:
            reply = super().send(call, timeout)
            world.clock.advance(5)
            world.storage.broken = {"now"}
            return reply

    mine = account(world, transport=FailsMeanwhile())
    started = world.clock.time()
    _, at = mine.send(login_call(mine.credentials, world.server.url), Record(), patient=False)
    assert at == pytest.approx(started + 5, abs=6)


@pytest.mark.parametrize(
    "fault", [{"kind": "html"}, {"kind": "status", "status": 503}, {"kind": "status", "status": 429}]
)
def test_an_error_page_teaches_nothing_about_the_clock(world: World, fault: dict[str, Any]) -> None:
    """A gateway has a clock of its own: only what is really the auth server's answer moves ours."""
    world.server.configure(clock_offset=7200.0)
    world.server.inject(Fault("login", **fault))
    mine = account(world)
    _, at = mine.send(login_call(mine.credentials, world.server.url), Record(), patient=False)
    assert at == pytest.approx(world.clock.time(), abs=1)
    assert mine.update(lambda record: replace(record, generation=1)).offset == 0.0


def test_credentials_are_known_by_a_fingerprint(world: World) -> None:
    """Equal credentials have one, others another; the device does not matter; nothing of them can be read in it."""
    mine = account(world)
    print_ = mine.fingerprint()
    assert print_ == mine.fingerprint() == account(world, who={"device_id": "another"}).fingerprint()
    others = {
        account(world, who={field: "x"}).fingerprint() for field in ("password", "sec", "app_id", "cid")
    }
    assert len(others - {print_}) == 4
    assert world.server.credentials["password"] not in print_


def test_an_account_shows_no_secret(world: World) -> None:
    """Neither `repr` nor the label holds more than the user's name and the host."""
    mine = account(world)
    mine.fingerprint()
    assert mine.label == f"trader at 127.0.0.1:{world.server.port}"
    for secret in (world.server.credentials["password"], world.server.credentials["sec"], mine.fingerprint()):
        assert secret not in repr(mine)


def test_time_that_passes_is_measured_on_any_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    """Preferably by a clock that goes on while the machine sleeps, else by the best there is; it never goes back."""
    for name in ("", "CLOCK_BOOTTIME", "CLOCK_MONOTONIC"):
        monkeypatch.delattr(time, name, raising=False)
        clock = SystemClock()
        first = clock.elapsed()
        assert clock.wait(threading.Event(), 0.002) is False
        assert clock.elapsed() - first >= 0.001
        assert abs(clock.time() - time.time()) < 5


def test_an_error_of_our_own_passes_through(world: World) -> None:
    """What a transport raises of this package's errors is not dressed up."""

    class Locked:
        def send(self, call: Call, timeout: float) -> Reply:
            raise StorageError("a transport with a storage of its own")

    with pytest.raises(StorageError, match="of its own"):
        world.provider(transport=Locked(), storage=MemoryStorage(clock=world.clock)).get()

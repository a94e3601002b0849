"""One account: its storage under contention, its patience with a server, its clock, and what identifies it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from core_tools import FrailStorage, World

from tradovate_auth import ProviderClosed, StorageError
from tradovate_auth._account import Account
from tradovate_auth._clock import SystemClock
from tradovate_auth.storage import Lease, Record, StorageBusy


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
    assert storage.tries == 64


def test_the_lock_of_an_account_is_waited_for_in_vain_only_so_long(world: World) -> None:
    """Whoever finds the storage's lock held gives up after a few calls' time."""
    mine = account(world, timeout=0.02)
    with mine.exclusive(0), pytest.raises(StorageError, match="still at work"), mine.exclusive(0):
        pass


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


@pytest.mark.parametrize("first", [None, 100.0])
def test_what_is_learnt_during_a_save_is_saved_with_the_next(world: World, first: float | None) -> None:
    """An answer comes while another thread saves, say `reset()`: that one writes down what was known before, and forgets no more."""

    class Slow(FrailStorage):
        def save(self, key: str, record: Record) -> bool:
            saved = super().save(key, record)
            if record.revision == 1:
                mine.server.learnt = 7200.0
            return saved

    mine = account(world, storage=Slow(clock=world.clock))
    mine.server.learnt = first
    assert mine.change_ledger(lambda ledger: ledger.forgiven()).offset == (first or 0.0)
    assert mine.change_ledger(lambda ledger: ledger.forgiven()).offset == 7200.0
    assert mine.load().offset == 7200.0
    assert mine.server.learnt is None


@pytest.mark.parametrize("end", [StorageError, StorageBusy, ProviderClosed])
def test_who_holds_the_lock_is_known_only_while_it_is_waited_for(world: World, end: type[Exception]) -> None:
    """However the wait ends - the storage fails, stays locked, or the provider is closed - nobody is named afterwards."""
    named: list[str] = []

    class Locked(FrailStorage):
        @contextmanager
        def exclusive(self, key: str, timeout: float, *, seen: int | None = None) -> Iterator[Lease]:
            named.append(mine.busy)
            if len(named) == 2 and end is StorageError:
                raise StorageError("gone")
            if len(named) == 2 and end is ProviderClosed:
                mine.closing.set()
            raise StorageBusy("Process 4711 holds the session.")
            yield  # type: ignore[unreachable]  # makes it a generator

    mine = account(world, storage=Locked(clock=world.clock), timeout=3.0)
    with pytest.raises(end), mine.exclusive(0):
        pass
    assert named[:2] == ["", "Process 4711 holds the session."]
    assert mine.busy == ""


def test_first_moments_are_put_right_once(world: World) -> None:
    """An answer comes between two looks of a change that was under way: what is written down then stays by the old clock."""

    class Slow(FrailStorage):
        def load(self, key: str) -> Record | None:
            if self.loads == 1:
                mine.server.learnt = 7200.0
            return super().load(key)

    mine = account(world, storage=Slow(clock=world.clock))
    mine.change_ledger(lambda ledger: replace(ledger, failed_logins=(1000.0,)))
    found = mine.change_ledger(lambda ledger: replace(ledger, lost=1))
    assert (found.offset, found.ledger.failed_logins) == (0.0, (1000.0,))
    found = mine.change_ledger(lambda ledger: replace(ledger, lost=2))
    assert (found.offset, found.ledger.failed_logins) == (7200.0, (8200.0,))

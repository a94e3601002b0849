"""One account: its storage under contention, its patience with a server, its clock, and what identifies it."""

import threading
import time

import pytest
from core_tools import FrailStorage, World

from tradovate_auth import StorageError
from tradovate_auth._account import Account
from tradovate_auth._clock import SystemClock
from tradovate_auth.storage import Record


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

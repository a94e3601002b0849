"""What every storage does, and the memory storage in particular.

The tests over the `storage` fixture hold for every storage; each of them needs an entry in `STORAGES`.
"""

import math
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest
from forks import in_a_fork
from values import DAY, NOW, SECRETS
from values import token as some_token

from tradovate_auth import ConfigurationError, StorageError
from tradovate_auth._holds import Hold, Latch
from tradovate_auth._ledger import Ledger
from tradovate_auth.storage import MemoryStorage, Record, Storage, from_url
from tradovate_auth.testing import FakeClock

KEY = "https://demo.tradovateapi.com/v1 trader"
OTHER = "https://live.tradovateapi.com/v1 trader"
PATIENCE = 30.0

STORAGES: dict[str, Callable[[], Storage]] = {"memory": MemoryStorage}


@pytest.fixture(params=STORAGES)
def storage(request: pytest.FixtureRequest) -> Storage:
    """Return an empty storage of each kind."""
    return STORAGES[request.param]()


def full_record() -> Record:
    """Return a record in which every field has something to keep."""
    ledger = Ledger(
        failed_logins=(NOW - 3.5,),
        logins=(NOW - 2.25, NOW - 1),
        renewals=(NOW,),
        unscheduled=(NOW,),
        renewed_at=NOW,
        failures=2,
        retry_at=NOW + 1,
        unscheduled_at=NOW + 2,
        pause=120.0,
        lost=1,
        evicted_at=NOW - 9,
        eviction_pause=600.0,
        hold=Hold("penalty", NOW + 15, "slow down", "ticket-4713", 1),
        latches=(Latch("fingerprint", "no", None, 3600.0),),
        proven=("fingerprint",),
    )
    tokens = {
        "": some_token(generation=3),
        "8": some_token(
            generation=4,
            user_id=7,
            name="tr\u00e4der",
            device_id="device-1",
            known_expiry=False,
            hosts={"demo": "d2.tradovateapi.com"},
            details={"hasLive": True, "nested": [1, None, {"x": 1.5}]},
        ),
    }
    return Record(1, 4, tokens, {"8": 2}, {"8": 1}, {"demo": "d2.tradovateapi.com"}, ledger, -0.25)


def filled(storage: Storage, key: str = KEY) -> Record:
    """Save the first record under a key and return it."""
    record = Record(revision=1, generation=1)
    assert storage.save(key, record)
    return record


def test_an_unknown_key_has_no_record(storage: Storage) -> None:
    """Nothing was saved, so nothing is there; that is no error."""
    assert storage.load(KEY) is None


def test_what_was_saved_is_loaded(storage: Storage) -> None:
    """A record comes back whole: tokens with every field, hosts, ledger, hold and latch."""
    record = full_record()
    assert storage.save(KEY, record)
    loaded = storage.load(KEY)
    assert loaded == record
    assert loaded is not None
    assert loaded.ledger == record.ledger
    for cid, token in record.tokens.items():
        assert loaded.tokens[cid] == token
        assert loaded.tokens[cid].hosts == token.hosts
        assert loaded.tokens[cid].details == token.details
        assert loaded.tokens[cid].authorization == token.authorization


@pytest.mark.parametrize("revision", [-1, 0, 2, 3])
def test_the_first_revision_is_one(storage: Storage, revision: int) -> None:
    """Where there is no record, only revision 1 is taken; anything else is a writer who has seen something else."""
    assert not storage.save(KEY, Record(revision=revision))
    assert storage.load(KEY) is None


@pytest.mark.parametrize("revision", [0, 1, 2, 4, 99])
def test_a_save_is_granted_to_whoever_has_seen_the_newest(storage: Storage, revision: int) -> None:
    """A revision that is not one above the kept one is refused, and changes nothing."""
    first = filled(storage)
    second = replace(first, revision=2, generation=2)
    assert storage.save(KEY, second)
    assert not storage.save(KEY, replace(second, revision=revision, generation=99))
    assert storage.load(KEY) == second


def test_records_are_kept_per_key(storage: Storage) -> None:
    """What happens under one key has nothing to do with any other."""
    record = filled(storage)
    assert storage.load(OTHER) is None
    other = replace(filled(storage, OTHER), revision=2, generation=7)
    assert storage.save(OTHER, other)
    assert (storage.load(KEY), storage.load(OTHER)) == (record, other)


def test_of_many_writers_one_wins_each_revision(storage: Storage) -> None:
    """Threads that add to a record with compare-and-swap lose nothing."""
    filled(storage)

    def add() -> int:
        refused = 0
        for _ in range(25):
            while True:
                record = storage.load(KEY)
                assert record is not None
                changed = replace(record, revision=record.revision + 1, generation=record.generation + 1)
                if storage.save(KEY, changed):
                    break
                refused += 1
        return refused

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(add) for _ in range(4)]:
            done.result(PATIENCE)
    assert storage.load(KEY) == Record(revision=101, generation=101)


def test_only_one_is_inside(storage: Storage) -> None:
    """Nobody else holds a key while somebody does."""
    inside: list[int] = []

    def visit(number: int) -> None:
        for _ in range(20):
            with storage.exclusive(KEY, PATIENCE):
                inside.append(number)
                storage.load(KEY)  # a moment in which others could come in
                assert inside.pop() == number
                assert not inside

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(visit, number) for number in range(4)]:
            done.result(PATIENCE)


@pytest.mark.parametrize("timeout", [0.0, 0.01, -1.0])
def test_waiting_for_a_key_has_an_end(storage: Storage, timeout: float) -> None:
    """Whoever cannot have the key in time gets a StorageError; the holder notices nothing."""

    def enter() -> None:
        with storage.exclusive(KEY, timeout):
            raise AssertionError("two are inside")

    with ThreadPoolExecutor() as pool, storage.exclusive(KEY, PATIENCE):
        with pytest.raises(StorageError):
            pool.submit(enter).result(PATIENCE)
        assert storage.load(KEY) is None
    with storage.exclusive(KEY, 0.0):
        filled(storage)


def test_a_free_key_does_not_block(storage: Storage) -> None:
    """A key that nobody holds is had at once, with no time to wait, and with all of it."""
    for timeout in (0.0, math.inf):
        with storage.exclusive(KEY, timeout):
            assert storage.load(KEY) is None


def test_other_keys_are_free(storage: Storage) -> None:
    """Holding one key keeps nobody from another."""
    with storage.exclusive(KEY, PATIENCE), storage.exclusive(OTHER, 0.0):
        filled(storage)
    assert storage.load(KEY) is not None


def test_the_key_is_given_back_after_an_error(storage: Storage) -> None:
    """Whatever goes wrong inside comes out, and the key is free again."""
    with pytest.raises(ZeroDivisionError), storage.exclusive(KEY, PATIENCE):
        raise ZeroDivisionError
    with storage.exclusive(KEY, 0.0):
        filled(storage)


def test_loading_and_saving_need_no_key(storage: Storage) -> None:
    """The lock saves calls; what keeps a late writer from harm is the revision. So neither waits for the lock."""
    with ThreadPoolExecutor() as pool, storage.exclusive(KEY, PATIENCE):
        record = pool.submit(filled, storage).result(PATIENCE)
        assert pool.submit(storage.load, KEY).result(PATIENCE) == record


def test_the_clock_goes_forward(storage: Storage) -> None:
    """The storage's own clock shows seconds since the epoch and never goes back."""
    readings = [storage.now() for _ in range(50)]
    assert readings == sorted(readings)
    assert readings[0] > 1_700_000_000


def test_the_name_is_no_secret(storage: Storage) -> None:
    """A storage has a name for the status, and shows no secret in its repr."""
    storage.save(KEY, full_record())
    assert storage.name
    assert not [secret for secret in SECRETS if secret in repr(storage) + storage.name]


forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@contextmanager
def held_by_a_thread(storage: Storage) -> Iterator[None]:
    """Hold the key in another thread of this process."""
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with storage.exclusive(KEY, PATIENCE):
            held.set()
            done.wait(PATIENCE)

    with ThreadPoolExecutor() as pool:
        holding = pool.submit(hold)
        assert held.wait(PATIENCE)
        try:
            yield
        finally:
            done.set()
        holding.result(PATIENCE)


def enter_and_save(storage: Storage, timeout: float) -> None:
    """Enter and save the second revision, which is kept."""
    with storage.exclusive(KEY, timeout):
        assert storage.save(KEY, Record(revision=2))


@forking
def test_a_fork_leaves_no_lock_behind(storage: Storage) -> None:
    """A child gets a key that another thread of its parent held at the fork, as soon as the parent gives it back."""
    filled(storage)
    with held_by_a_thread(storage):
        child = in_a_fork(lambda: enter_and_save(storage, PATIENCE))
    assert child.wait() == 0


class TestMemoryStorage:
    """What holds for the memory storage alone."""

    @forking
    def test_a_child_need_not_wait_for_its_parent(self) -> None:
        """The child has locks of its own, so it does not wait for threads that only its parent has."""
        storage = MemoryStorage()
        filled(storage)
        with held_by_a_thread(storage):
            assert in_a_fork(lambda: enter_and_save(storage, 0.0)).wait() == 0

    @forking
    def test_a_child_goes_its_own_way(self) -> None:
        """A forked child sees the parent's records and changes nothing in the parent."""
        storage = MemoryStorage()
        record = filled(storage)

        def work() -> None:
            assert storage.load(KEY) == record
            assert storage.save(KEY, Record(revision=2))

        assert in_a_fork(work).wait() == 0
        assert storage.load(KEY) == record

    def test_the_wall_clock_does_not_move_it(self) -> None:
        """Setting the machine's clock changes nothing; time that passes does."""
        clock = FakeClock(NOW)
        storage = MemoryStorage(clock=clock)
        clock.jump(-7 * DAY)
        assert storage.now() == NOW
        clock.advance(5.0)
        assert storage.now() == NOW + 5.0

    def test_its_clock_may_begin_elsewhere(self) -> None:
        """Where another storage's was; from there it goes on as any."""
        clock = FakeClock(NOW)
        clock.advance(7.0)
        storage = MemoryStorage(clock=clock, now=NOW - DAY)
        assert storage.now() == NOW - DAY
        clock.advance(5.0)
        assert storage.now() == NOW - DAY + 5.0

    def test_it_is_private(self) -> None:
        """Two memory storages share nothing."""
        filled(MemoryStorage())
        assert MemoryStorage().load(KEY) is None


class TestFromUrl:
    """Storages by URL."""

    def test_memory(self) -> None:
        """memory:// is a new private storage each time."""
        one, two = from_url("memory://"), from_url("memory://")
        assert isinstance(one, MemoryStorage)
        assert one is not two

    @pytest.mark.parametrize("url", ["", "nosuch://user:hunter2@host", "://", "C:\\hunter2"])
    def test_unknown_schemes(self, url: str) -> None:
        """Another scheme is a ConfigurationError that does not repeat the URL, for it may hold a password."""
        with pytest.raises(ConfigurationError, match="No storage goes by that URL's scheme") as caught:
            from_url(url)
        assert "hunter2" not in str(caught.value)
        assert "memory" in caught.value.advice


class TestRecord:
    """The record itself."""

    def test_an_empty_record(self) -> None:
        """A new record has nothing in it, and revision 0, which no storage keeps."""
        record = Record()
        assert (record.revision, record.generation, record.offset) == (0, 0, 0.0)
        assert not record.refused
        assert (record.tokens, record.hosts, record.ledger) == ({}, {}, Ledger())

    def test_it_is_not_pickled_by_accident(self) -> None:
        """A record with a token in it cannot be pickled: a storage writes what it means to write."""
        with pytest.raises(TypeError, match="holds a secret"):
            pickle.dumps(full_record())

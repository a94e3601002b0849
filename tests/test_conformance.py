"""The storages of this package pass the suite that it offers for others, and that suite tells a storage that is wrong."""

import inspect
import os
import signal
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tradovate_auth import StorageError
from tradovate_auth.storage import (
    FileStorage,
    Lease,
    MemoryStorage,
    Record,
    Storage,
    StorageBusy,
    pack,
    unpack,
)
from tradovate_auth.testing._conforming import differences, full_record, in_threads
from tradovate_auth.testing._forking import forked, in_processes
from tradovate_auth.testing.conformance import StorageConformance

KEY = "key"


class TestMemoryStorage(StorageConformance):
    """One process's memory."""

    shared = False

    @pytest.fixture
    def make_storage(self) -> Callable[[], Storage]:
        """Return the class."""
        return MemoryStorage


class TestFileStorage(StorageConformance):
    """A folder."""

    @pytest.fixture
    def make_storage(self, tmp_path: Path) -> Callable[[], Storage]:
        """Return a maker of storages over one folder that is not there yet."""
        return lambda: FileStorage(tmp_path / "deep" / "sessions")

    @pytest.fixture
    def overwrite(self, storage: FileStorage) -> Callable[[str, bytes], None]:
        """Return what puts bytes in the place of a record."""

        def put(key: str, data: bytes) -> None:
            storage._path(key, "json").write_bytes(data)

        return put

    @pytest.fixture
    def unreachable(self, tmp_path: Path) -> Storage:
        """Return a storage whose folder is a file."""
        folder = tmp_path / "file"
        folder.touch()
        return FileStorage(folder)


class Amnesiac(MemoryStorage):
    """Keeps nothing."""

    def load(self, key: str) -> Record | None:
        """See `Storage.load`."""
        return None


class Careless(MemoryStorage):
    """Overwrites whatever is there, and keeps neither hosts nor details of tokens nor the clock's offset."""

    name = ""

    def save(self, key: str, record: Record) -> bool:
        """See `Storage.save`."""
        tokens = {cid: replace(token, hosts={}, details={}) for cid, token in record.tokens.items()}
        self._records[key] = replace(record, tokens=tokens, offset=0.0)
        return True

    def now(self) -> float:
        """See `Storage.now`."""
        return 0.0


class Lost:
    """A lease that is never held."""

    def held(self) -> bool:
        """See `Lease.held`."""
        return False


class Open(MemoryStorage):
    """Lets everybody in, and shows what it holds."""

    @contextmanager
    def exclusive(self, key: str, timeout: float, *, seen: int | None = None) -> Iterator[Lease]:
        """See `Storage.exclusive`."""
        yield Lost()

    def __repr__(self) -> str:
        return str([token.value for record in self._records.values() for token in record.tokens.values()])


class Foreign(MemoryStorage):
    """Does what it should, but its errors are not ours, and whoever stumbles inside keeps the key."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: list[AbstractContextManager[Lease]] = []

    @contextmanager
    def exclusive(self, key: str, timeout: float, *, seen: int | None = None) -> Iterator[Lease]:
        """See `Storage.exclusive`."""
        try:
            held = super().exclusive(key, min(timeout, 0.05))
            lease = held.__enter__()
            self.lost.append(held)  # else it would be given back when it is collected
        except StorageError:
            raise TimeoutError from None
        yield lease
        held.__exit__(None, None, None)


class Broken(MemoryStorage):
    """Answers with errors of its own."""

    def now(self) -> float:
        """See `Storage.now`."""
        raise OSError

    def load(self, key: str) -> Record | None:
        """See `Storage.load`."""
        raise OSError

    def save(self, key: str, record: Record) -> bool:
        """See `Storage.save`."""
        raise OSError


class Held:
    """A lease that is always held."""

    def held(self) -> bool:
        """See `Lease.held`."""
        return True


class Local:
    """Selects, compares and updates, in a folder, under a lock that is this object's, or this process's: not enough."""

    locks: ClassVar = defaultdict[str, threading.Lock](threading.Lock)

    def __init__(self, folder: Path, *, by_object: bool) -> None:
        self.name = str(folder)
        self._folder = folder
        self._locks = defaultdict[str, threading.Lock](threading.Lock) if by_object else self.locks

    def now(self) -> float:
        """See `Storage.now`."""
        return time.time()

    def load(self, key: str) -> Record | None:
        """See `Storage.load`."""
        path = self._folder / key
        return unpack(path.read_bytes(), key) if path.exists() else None

    def save(self, key: str, record: Record) -> bool:
        """See `Storage.save`."""
        with self._locks[f"save {self.name} {key}"]:
            kept = self.load(key) or Record()
            time.sleep(0.002)  # others come in between
            if record.revision != kept.revision + 1:
                return False
            draft = self._folder / uuid.uuid4().hex
            draft.write_bytes(pack(record, key))
            draft.replace(self._folder / key)
            return True

    @contextmanager
    def exclusive(self, key: str, timeout: float, *, seen: int | None = None) -> Iterator[Lease]:
        """See `Storage.exclusive`."""
        with self._locks[f"exclusive {self.name} {key}"]:
            yield Held()


class Impatient(MemoryStorage):
    """Lets everybody in, and says to everybody that he has the key."""

    @contextmanager
    def exclusive(self, key: str, timeout: float, *, seen: int | None = None) -> Iterator[Lease]:
        """See `Storage.exclusive`."""
        yield Held()


class Permanent(FileStorage):
    """Its lock is only a file."""

    @contextmanager
    def exclusive(self, key: str, timeout: float, *, seen: int | None = None) -> Iterator[Lease]:
        """See `Storage.exclusive`."""
        path = self._folder / "lock"
        if path.exists():
            raise StorageBusy("Somebody holds it.")
        path.touch()
        yield Held()


RUBBISH = Record(revision=99)


class Tidy(MemoryStorage):
    """Throws away whatever it cannot read."""

    def load(self, key: str) -> Record | None:
        """See `Storage.load`."""
        record = super().load(key)
        return record if record is not RUBBISH else None

    def save(self, key: str, record: Record) -> bool:
        """See `Storage.save`."""
        if self._records.get(key) is RUBBISH:
            self._records[key] = record
            return True
        return super().save(key, record)


def run(name: str, storage: Storage, **more: Any) -> None:
    """Run one test of the suite by hand."""
    test = getattr(StorageConformance, name)
    given = {
        "storage": storage,
        "other": storage,
        "ways": [storage] * 4,
        "key": KEY,
        "unreachable": storage,
        "make_storage": lambda: storage,
        "make_mortal": lambda: storage,
        **more,
    }
    test(
        StorageConformance(),
        **{name: given[name] for name in inspect.signature(test).parameters if name != "self"},
    )


@pytest.mark.parametrize(
    ("storage", "name", "more", "truth"),
    [
        (Amnesiac, "test_a_record_comes_back_whole", {}, "everything"),
        (Amnesiac, "test_others_see_what_was_saved", {}, "everything"),
        (Careless, "test_a_record_comes_back_whole", {}, "offset, hosts, details"),
        (Careless, "test_a_first_save_has_revision_one", {"revision": 9}, "refuses 9 as the first"),
        (Careless, "test_a_save_compares", {"revision": 9}, "refuses 9 on 2"),
        (Careless, "test_one_writer_wins_each_revision", {}, "one save is granted"),
        (Careless, "test_others_see_what_was_saved", {}, "loads the record at once"),
        (Careless, "test_the_clock_is_plausible", {}, "away from this machine's clock"),
        (Careless, "test_nothing_secret_is_shown", {}, "has a name"),
        (Open, "test_waiting_has_an_end", {"timeout": 0.0}, "raises StorageBusy, not None"),
        (Open, "test_others_are_kept_out", {}, "not None"),
        (Open, "test_whoever_is_inside_knows_it", {}, "the lease is held"),
        (Open, "test_nothing_secret_is_shown", {}, "show no secret"),
        (Foreign, "test_waiting_has_an_end", {"timeout": 0.0}, "not TimeoutError"),
        (Foreign, "test_the_key_is_given_back_after_an_error", {}, "free after an error"),
        (Broken, "test_what_cannot_be_reached_says_so", {}, "raises StorageError, not OSError"),
    ],
)
def test_the_suite_tells_what_is_wrong(
    storage: type[MemoryStorage], name: str, more: dict[str, Any], truth: str
) -> None:
    """A storage that breaks a rule fails the test of that rule, with the rule as the text."""
    with pytest.raises(AssertionError, match=truth):
        run(name, storage(), **more)


@pytest.mark.parametrize(
    ("name", "truth"),
    [
        ("test_one_writer_wins_each_revision", "one save is granted for each revision"),
        ("test_no_change_is_lost", "40 additions make"),
        ("test_one_is_inside", "inside together"),
    ],
)
def test_a_lock_of_one_object_is_not_enough(tmp_path: Path, name: str, truth: str) -> None:
    """A storage that guards its saves, or its key, within one object fails: processes would have one each."""
    ways = [Local(tmp_path, by_object=True) for _ in range(4)]
    with pytest.raises(AssertionError, match=truth):
        run(name, ways[0], ways=ways)


@pytest.mark.parametrize(
    ("name", "truth"),
    [
        ("test_no_change_is_lost_between_processes", "24 additions by processes make"),
        ("test_one_process_is_inside", "24 visits of processes leave|saves were overtaken"),
    ],
)
def test_a_lock_of_one_process_is_not_enough(tmp_path: Path, name: str, truth: str) -> None:
    """Nor is a lock that all objects of one process share."""
    storage = Local(tmp_path, by_object=False)
    for passed in ("test_no_change_is_lost", "test_one_is_inside"):
        run(passed, storage, key=passed)
    with pytest.raises(AssertionError, match=truth):
        run(name, storage)


def test_a_key_that_stays_with_the_dead(tmp_path: Path) -> None:
    """A lock that outlives its holder fails the suite."""
    with pytest.raises(AssertionError, match="free in the end, and does not raise StorageBusy"):
        run("test_the_key_of_a_killed_process_is_free", Permanent(tmp_path))


@pytest.mark.parametrize(
    ("name", "more", "truth"),
    [
        ("test_a_wait_may_end_early", {}, "a lease not held"),
        ("test_other_waits_do_not", {"seen": None}, "seen=None does not end"),
        ("test_other_waits_do_not", {"seen": 2}, "seen=2 does not end"),
    ],
)
def test_waits_that_end_too_early(
    monkeypatch: pytest.MonkeyPatch, name: str, more: dict[str, Any], truth: str
) -> None:
    """A wait that ends while the holder is inside needs a reason, and must say that the key is not held."""
    monkeypatch.setattr("tradovate_auth.testing.conformance._MOMENT", 20.0)
    with pytest.raises(AssertionError, match=truth):
        run(name, Impatient(), **more)


@pytest.mark.parametrize(
    ("name", "truth"),
    [
        ("test_what_is_no_record_is_put_aside", "leaves what is no record to load"),
        ("test_what_cannot_be_read_stays", "raises UnreadableRecord, not None"),
    ],
)
def test_what_is_thrown_away(name: str, truth: str) -> None:
    """A storage that throws away what it cannot read fails, where the suite can put such a thing there."""
    storage = Tidy()

    def overwrite(key: str, _: bytes) -> None:
        storage._records[key] = RUBBISH

    with pytest.raises(AssertionError, match=truth):
        run(name, storage, overwrite=overwrite)


def test_a_process_that_comes_to_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """An error in one of the suite's processes is no success; what it was is printed."""

    def fail() -> int:
        raise ZeroDivisionError("in a child")

    with pytest.raises(AssertionError, match="every process comes to an end"):
        in_processes(fail, 2)
    assert "ZeroDivisionError: in a child" in capfd.readouterr().err


def test_a_process_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a child longer than the suite is patient, and it does not outlive its test."""
    monkeypatch.setattr("tradovate_auth.testing._forking.PATIENCE", 0.05)
    with forked(lambda _: signal.pause()) as child:
        assert child.hear() == ""
    with pytest.raises(ProcessLookupError):
        os.kill(child._pid, 0)


def test_the_suite_wants_a_storage() -> None:
    """Without a `make_storage` of its own a suite says what to do, rather than test nothing."""
    fixture: Any = StorageConformance.__dict__["make_storage"]
    with pytest.raises(NotImplementedError, match="override"):
        fixture.__wrapped__(StorageConformance())


def test_a_coarse_clock_passes() -> None:
    """A clock that shows the same moment for a while goes on all the same."""

    class Coarse(MemoryStorage):
        asked = 0

        def now(self) -> float:
            """See `Storage.now`."""
            self.asked += 1
            return float(self._clock.time() // 1000 * 1000 + self.asked // 3)

    run("test_the_clock_is_plausible", Coarse())


def test_nobody_alone_inside_is_told() -> None:
    """A lock that lets a second thread in while the first is inside fails the suite, whenever that happens."""

    class Meeting(Open):
        def load(self, key: str) -> Record | None:
            """Let the others come in."""
            barrier.wait(10)
            return None

    barrier = threading.Barrier(4)
    with pytest.raises(AssertionError, match="4 were inside together"):
        run("test_one_is_inside", Meeting())


def test_every_field_is_compared() -> None:
    """The suite's record has something in every field, so that a storage that leaves one out is found."""
    record = full_record()
    empty = Record()
    assert set(differences(record, empty)) >= {
        name for name in Record.__dataclass_fields__ if name != "set_aside"
    }
    for value in (record.ledger, record.ledger.hold, record.ledger.latches[-1], record.tokens["8"]):
        assert value is not None
        same = [
            each.name for each in fields(value) if each.init and getattr(value, each.name) == each.default
        ]
        assert same == []


def test_work_in_threads_is_returned() -> None:
    """Helpers of the suite hand back what each thread came to, in order."""
    assert in_threads(lambda number: number * 2, 3) == [0, 2, 4]

"""The part of the storage conformance suite in which others use the same place: other objects, processes, versions."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Final

import pytest

from ..storage import Record, Storage, StorageBusy, UnreadableRecord
from ._conforming import PATIENCE, differences, enter, failure, full_record, held, insist
from ._forking import forked, in_processes

__all__ = ["AmongOthers"]

_PROCESSES: Final = 3
_ROUNDS: Final = 8
_ALL: Final = _PROCESSES * _ROUNDS


class AmongOthers:
    """What others can do to whoever uses a storage, and to its records."""

    shared: ClassVar[bool] = True
    """Whether two storages from `make_storage()` show each other's records, as two processes must see them."""
    forks: ClassVar[bool] = hasattr(os, "fork")
    """Whether `make_storage()` makes a storage that works also in a forked child of the test's process."""

    @pytest.fixture
    def make_mortal(self, make_storage: Callable[[], Storage]) -> Callable[[], Storage]:
        """Override where the key of a killed process is free after a while: a maker with which that is a second or so."""
        return make_storage

    @pytest.fixture
    def overwrite(self) -> Callable[[str, bytes], None] | None:
        """Override where records are kept as bytes: what puts other bytes in the place of those saved under a key."""
        return None

    @pytest.fixture
    def other(self, make_storage: Callable[[], Storage]) -> Storage:
        """Return a second storage over the same place, as another process would have it."""
        if not self.shared:
            pytest.skip("this storage is not shared")
        return make_storage()

    @pytest.fixture
    def processes(self) -> None:
        """Leave a test out where there are no processes to test."""
        if not (self.shared and self.forks):
            pytest.skip("this storage is not shared, or not by forks")

    def test_others_see_what_was_saved(self, storage: Storage, other: Storage, key: str) -> None:
        """What one saved, the other loads at once, and whoever was overtaken is refused."""
        record = full_record()
        storage.save(key, record)
        wrong = differences(other.load(key), record)
        insist(not wrong, f"another storage loads the record at once; these differ: {', '.join(wrong)}")
        second = Record(revision=2, generation=7)
        insist(other.save(key, second), "another storage may save the next revision")
        insist(not storage.save(key, Record(revision=2, generation=8)), "whoever was overtaken is refused")
        insist(storage.load(key) == second, "the first one sees the newest record")

    def test_others_are_kept_out(self, storage: Storage, other: Storage, key: str) -> None:
        """While one is inside, the other is not; then it is."""
        with held(storage, key):
            error = failure(lambda: enter(other, key, 0.05))
            insist(
                isinstance(error, StorageBusy),
                f"another storage is kept out, by StorageBusy, not {error!r}",
            )
        insist(failure(lambda: enter(other, key, PATIENCE)) is None, "another storage may enter afterwards")

    @pytest.mark.usefixtures("processes")
    def test_no_change_is_lost_between_processes(
        self, make_storage: Callable[[], Storage], storage: Storage, key: str
    ) -> None:
        """Processes that load, add and save again where they were overtaken lose nothing."""

        def add() -> int:
            mine, done = make_storage(), 0
            while done < _ROUNDS:
                done += _added(mine, key)
            return done

        in_processes(add, _PROCESSES)
        made = (storage.load(key) or Record()).generation
        insist(made == _ALL, f"{_ALL} additions by processes make {made}")

    @pytest.mark.usefixtures("processes")
    def test_one_process_is_inside(
        self, make_storage: Callable[[], Storage], storage: Storage, key: str
    ) -> None:
        """Of processes that save only inside, none is ever overtaken."""

        def visit() -> int:
            mine, overtaken = make_storage(), 0
            for _ in range(_ROUNDS):
                with mine.exclusive(key, PATIENCE):
                    overtaken += not _added(mine, key)
            return overtaken

        overtaken = sum(in_processes(visit, _PROCESSES))
        insist(overtaken == 0, f"one process is inside at a time; {overtaken} saves were overtaken")
        made = (storage.load(key) or Record()).generation
        insist(
            made == _ALL,
            f"one process is inside at a time; {_ALL} visits of processes leave {made} additions",
        )

    @pytest.mark.usefixtures("processes")
    def test_the_key_of_a_killed_process_is_free(self, make_mortal: Callable[[], Storage], key: str) -> None:
        """A process that is killed inside keeps nobody out for good."""

        def hold(tell: Callable[[str], None]) -> None:  # pragma: no cover  # in a process that is killed
            with make_mortal().exclusive(key, PATIENCE):
                tell("inside")
                signal.pause()

        with forked(hold) as holder:
            insist(holder.hear() == "inside", "a process enters a free key")
            holder.kill()
            error = failure(lambda: enter(make_mortal(), key, PATIENCE / 2))
            insist(
                error is None, f"the key of a killed process is free in the end, and does not raise {error!r}"
            )

    def test_what_is_no_record_is_put_aside(
        self, storage: Storage, key: str, overwrite: Callable[[str, bytes], None] | None
    ) -> None:
        """Damaged bytes are not saved over; whoever loads them is told, once, and a first record follows."""
        _spoil(storage, key, overwrite, b"rubbish")
        insist(
            not storage.save(key, Record(revision=2, generation=9)),
            "save() leaves what is no record to load()",
        )
        found = storage.load(key)
        told = found is not None and found == Record() and bool(found.set_aside)
        insist(
            told, "load() puts aside what is no record: an empty record says where it lies, in `set_aside`"
        )
        insist(storage.load(key) is None, "load() says that once: then there is no record")
        insist(storage.save(key, Record(revision=1)), "a first record may follow")

    def test_what_cannot_be_read_stays(
        self, storage: Storage, key: str, overwrite: Callable[[str, bytes], None] | None
    ) -> None:
        """A record that a newer version of this package has written is an error for all, and is not saved over."""
        _spoil(storage, key, overwrite, json.dumps({"schema": 1_000_000}).encode())
        for revision in (1, 2):
            for way, go in (
                ("load", lambda: storage.load(key)),
                (
                    "save",
                    lambda revision=revision: storage.save(key, Record(revision=revision, generation=9)),
                ),
            ):
                error = failure(go)
                insist(isinstance(error, UnreadableRecord), f"{way}() raises UnreadableRecord, not {error!r}")


def _added(storage: Storage, key: str) -> bool:
    record = storage.load(key) or Record()
    return storage.save(key, replace(record, revision=record.revision + 1, generation=record.generation + 1))


def _spoil(storage: Storage, key: str, overwrite: Callable[[str, bytes], None] | None, data: bytes) -> None:
    if overwrite is None:
        pytest.skip("no way to put other bytes in the place of a record")
    storage.save(key, full_record())
    overwrite(key, data)

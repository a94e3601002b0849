"""What every storage must do, as tests: for a storage of your own, in a database or wherever your processes can reach.

    import pytest
    from tradovate_auth.testing.conformance import StorageConformance

    class TestSqlStorage(StorageConformance):
        @pytest.fixture
        def make_storage(self, tmp_path):
            return lambda: SqlStorage(tmp_path / "sessions.db")

pytest then runs every test of the class on it. Each test uses keys of its own, so the place need not be empty. Whatever is
shared is tested through several storages, in threads and in forked processes. A storage for one process alone sets
`shared = False`; one that does not work in a fork, though it was made there, `forks = False`.

Three more fixtures may be overridden. `unreachable` returns a storage whose server, disk or network is gone. `overwrite` returns a
function of a key and bytes that puts these in the place of the record. `make_mortal` is a `make_storage` whose key is free about
a second after its holder was killed, where that takes longer otherwise.
"""

import math
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as done
from dataclasses import replace
from typing import Final

import pytest

from ..errors import StorageError
from ..storage import Record, Storage, StorageBusy
from ._conforming import (
    PATIENCE,
    SECRETS,
    differences,
    enter,
    failure,
    full_record,
    held,
    in_threads,
    insist,
)
from ._conforming_others import AmongOthers

__all__ = ["StorageConformance"]

_DAY: Final = 86_400.0
_WRITERS: Final = 4
_MOMENT: Final = 0.2  # seconds in which a wait that may end early could do so


class StorageConformance(AmongOthers):
    """Derive from it, override `make_storage`, and let pytest collect the class."""

    @pytest.fixture
    def make_storage(self) -> Callable[[], Storage]:
        """Override: return what makes a storage. All that it makes in one test must share one place."""
        raise NotImplementedError("override the fixture make_storage")

    @pytest.fixture
    def unreachable(self) -> Storage | None:
        """Override: return a storage whose place cannot be reached, or None to leave that test out."""
        return None

    @pytest.fixture
    def storage(self, make_storage: Callable[[], Storage]) -> Storage:
        """Return the storage under test."""
        return make_storage()

    @pytest.fixture
    def ways(self, make_storage: Callable[[], Storage], storage: Storage) -> list[Storage]:
        """Return several storages over the same place, as so many processes would have them; or one again and again."""
        return [make_storage() if self.shared else storage for _ in range(_WRITERS)]

    @pytest.fixture
    def key(self) -> str:
        """Return a key that nobody has used."""
        return f"https://demo.tradovateapi.com/v1 {uuid.uuid4()}"

    def test_what_was_never_saved_is_absent(self, storage: Storage, key: str) -> None:
        """An unknown key has no record, and that is no error."""
        insist(storage.load(key) is None, "load() of an unknown key returns None")

    def test_a_record_comes_back_whole(self, storage: Storage, key: str) -> None:
        """Tokens with all their fields, hosts, ledger, hold and latch come back as they were saved."""
        record = full_record()
        insist(storage.save(key, record), "save() grants revision 1 where there is no record")
        wrong = differences(storage.load(key), record)
        insist(not wrong, f"load() returns what was saved; these differ: {', '.join(wrong)}")

    def test_an_emptied_record_comes_back_empty(self, storage: Storage, key: str) -> None:
        """A later record replaces the earlier one as a whole: nothing of that shines through."""
        full = full_record()
        storage.save(key, full)
        empty = Record(revision=2, generation=full.generation)
        insist(storage.save(key, empty), "save() grants the next revision")
        wrong = differences(storage.load(key), empty)
        insist(not wrong, f"nothing is left of the record before; these differ: {', '.join(wrong)}")

    @pytest.mark.parametrize("revision", [-1, 0, 2, 9])
    def test_a_first_save_has_revision_one(self, storage: Storage, key: str, revision: int) -> None:
        """Where there is no record, whoever brings another revision than 1 has seen something else: nothing is kept."""
        insist(not storage.save(key, Record(revision=revision)), f"save() refuses {revision} as the first")
        insist(storage.load(key) is None, "a refused save keeps nothing")

    @pytest.mark.parametrize("revision", [0, 1, 2, 4, 9])
    def test_a_save_compares(self, storage: Storage, key: str, revision: int) -> None:
        """A revision that is not one above the kept one is refused, and nothing changes."""
        storage.save(key, Record(revision=1))
        second = Record(revision=2, generation=2)
        storage.save(key, second)
        insist(
            not storage.save(key, Record(revision=revision, generation=9)), f"save() refuses {revision} on 2"
        )
        insist(storage.load(key) == second, "a refused save changes nothing")

    def test_one_writer_wins_each_revision(self, ways: list[Storage], key: str) -> None:
        """Of writers that save the same revision at the same moment exactly one is granted it."""
        barrier = threading.Barrier(_WRITERS)

        def write(writer: int) -> list[bool]:
            granted = []
            for revision in range(1, 11):
                barrier.wait(PATIENCE)
                granted.append(ways[writer].save(key, Record(revision=revision, generation=revision)))
                barrier.wait(PATIENCE)
            return granted

        winners = [sum(granted) for granted in zip(*in_threads(write, _WRITERS), strict=True)]
        insist(winners == [1] * 10, f"one save is granted for each revision, not {winners}")

    def test_no_change_is_lost(self, ways: list[Storage], storage: Storage, key: str) -> None:
        """Writers that load, add and save again where they were overtaken lose nothing."""

        def add(writer: int) -> None:
            done = 0
            while done < 10:
                record = ways[writer].load(key) or Record()
                changed = replace(record, revision=record.revision + 1, generation=record.generation + 1)
                done += ways[writer].save(key, changed)

        in_threads(add, _WRITERS)
        newest = storage.load(key)
        total = newest.generation if newest is not None else 0
        insist(total == 10 * _WRITERS, f"{10 * _WRITERS} additions make {total}")

    @pytest.mark.parametrize(
        "suffix", ["X", "/../x", "\x00", "\u00e4\u4e2d\U0001f600", " ", "%2e", "y" * 2000, "{hash}", "'; --"]
    )
    def test_keys_are_independent(self, storage: Storage, key: str, suffix: str) -> None:
        """Any text is a key, and what happens under one has nothing to do with another."""
        one, two = Record(revision=1, generation=1), Record(revision=1, generation=2)
        insist(storage.save(key, one), "save() grants revision 1 under the one key")
        insist(storage.save(key + suffix, two), "save() grants revision 1 under the other key")
        insist(storage.load(key) == one and storage.load(key + suffix) == two, "each key has its own record")
        with storage.exclusive(key, PATIENCE), storage.exclusive(key + suffix, PATIENCE):
            pass

    def test_one_is_inside(self, ways: list[Storage], key: str) -> None:
        """Of visitors that enter the same key only one is inside at a time."""
        inside: list[int] = []
        together: list[int] = []

        def visit(visitor: int) -> None:
            for _ in range(5):
                with ways[visitor].exclusive(key, PATIENCE):
                    inside.append(visitor)
                    ways[visitor].load(key)
                    time.sleep(0.005)  # a moment in which others could come in
                    together.append(len(inside))
                    inside.remove(visitor)

        in_threads(visit, _WRITERS)
        insist(max(together) == 1, f"{max(together)} were inside together")

    def test_whoever_is_inside_knows_it(self, storage: Storage, key: str) -> None:
        """The lease is held inside, also by a caller who has seen the newest generation."""
        with storage.exclusive(key, PATIENCE) as lease:
            insist(lease.held(), "the lease is held by whoever is inside")
        storage.save(key, full_record())
        with storage.exclusive(key, PATIENCE, seen=full_record().generation) as lease:
            insist(lease.held(), "a wait for a free key that has nothing newer ends with the lease held")

    def test_a_wait_may_end_early(self, ways: list[Storage], key: str) -> None:
        """Whoever waits need not have the key when something newer was saved than he has seen; he then does not hold it."""
        ways[0].save(key, Record(revision=1, generation=1))
        left = threading.Event()

        def wait() -> bool:
            with ways[1].exclusive(key, PATIENCE, seen=1) as lease:
                return left.is_set() or not lease.held()

        with ThreadPoolExecutor(1) as pool:
            with held(ways[0], key):
                waiting = pool.submit(wait)
                ways[0].save(key, Record(revision=2, generation=2))
                done([waiting], _MOMENT)
                left.set()
            insist(
                waiting.result(PATIENCE),
                "a wait that ends while another is inside ends with a lease not held",
            )

    @pytest.mark.parametrize("seen", [None, 2, 3])
    def test_other_waits_do_not(self, ways: list[Storage], key: str, seen: int | None) -> None:
        """Whoever has seen what is newest, or does not say what he has seen, waits for the key and has it then."""
        ways[0].save(key, Record(revision=1, generation=2))

        def wait() -> bool:
            with ways[1].exclusive(key, PATIENCE, seen=seen) as lease:
                return lease.held()

        with ThreadPoolExecutor(1) as pool:
            with held(ways[0], key):
                waiting = pool.submit(wait)
                ways[0].save(key, Record(revision=2, generation=2))
                early = done([waiting], _MOMENT).done
            insist(not early, f"a wait with seen={seen} does not end while another is inside")
            insist(waiting.result(PATIENCE), "a wait that is over ends with the lease held")

    @pytest.mark.parametrize("timeout", [0.0, 0.05, -1.0])
    def test_waiting_has_an_end(self, storage: Storage, key: str, timeout: float) -> None:
        """Whoever cannot have the key in time gets a StorageBusy; its holder, and the next one, notice nothing."""
        with held(storage, key):
            error = failure(lambda: enter(storage, key, timeout))
            insist(isinstance(error, StorageBusy), f"waiting in vain raises StorageBusy, not {error!r}")
        insist(failure(lambda: enter(storage, key, PATIENCE)) is None, "the key is free afterwards")

    @pytest.mark.parametrize("timeout", [0.0, 1.0, math.inf])
    def test_a_free_key_is_had_at_once(self, storage: Storage, key: str, timeout: float) -> None:
        """With no time to wait, and with all of it."""
        error = failure(lambda: enter(storage, key, timeout))
        insist(error is None, f"a free key is entered, and does not raise {error!r}")

    def test_the_key_is_given_back_after_an_error(self, storage: Storage, key: str) -> None:
        """An error of whoever is inside comes out as it is, and the key is free again."""

        def stumble() -> None:
            with storage.exclusive(key, PATIENCE):
                raise ZeroDivisionError

        error = failure(stumble)
        insist(isinstance(error, ZeroDivisionError), f"the error comes out as it is, not as {error!r}")
        insist(failure(lambda: enter(storage, key, PATIENCE)) is None, "the key is free after an error")

    def test_loading_and_saving_need_no_key(self, storage: Storage, key: str) -> None:
        """Neither waits for whoever is inside, and whoever is inside may do both: what guards a record is its revision."""
        with held(storage, key):
            insist(storage.save(key, Record(revision=1)), "save() does not wait for exclusive()")
            insist(storage.load(key) == Record(revision=1), "load() does not wait for exclusive()")
        with storage.exclusive(key, PATIENCE):
            insist(storage.save(key, Record(revision=2)), "save() is possible inside exclusive()")

    def test_the_clock_is_plausible(self, storage: Storage) -> None:
        """The storage's clock shows seconds since the epoch, within a day of this machine's, and goes on."""
        first, here = storage.now(), time.time()
        insist(abs(first - here) < _DAY, f"now() is {first - here:.0f} s away from this machine's clock")
        deadline = time.monotonic() + PATIENCE
        while storage.now() <= first and time.monotonic() < deadline:
            time.sleep(0.001)
        insist(storage.now() > first, "now() goes on")

    def test_nothing_secret_is_shown(self, storage: Storage, key: str) -> None:
        """A storage has a name for the status, and neither that nor its repr shows what is in a record."""
        storage.save(key, full_record())
        storage.load(key)
        shown = f"{storage.name} {storage!r}"
        insist(bool(storage.name), "a storage has a name")
        insist(not any(secret in shown for secret in SECRETS), "name and repr show no secret")

    def test_what_cannot_be_reached_says_so(self, unreachable: Storage | None, key: str) -> None:
        """Every way to a place that is gone ends in a StorageError; only the clock may still be there."""
        if unreachable is None:
            pytest.skip("no unreachable storage to test")
        ways: dict[str, Callable[[], object]] = {
            "load": lambda: unreachable.load(key),
            "save": lambda: unreachable.save(key, full_record()),
            "exclusive": lambda: enter(unreachable, key, 0.05),
        }
        for way, go in ways.items():
            error = failure(go)
            insist(isinstance(error, StorageError), f"{way}() raises StorageError, not {error!r}")
            insist(not any(secret in str(error) for secret in SECRETS), f"{way}()'s error shows no secret")
        clock = failure(unreachable.now)
        insist(clock is None or isinstance(clock, StorageError), f"now() raises StorageError, not {clock!r}")

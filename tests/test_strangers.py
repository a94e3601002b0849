"""Tokens of other users: whoever shares the storage knows them, in whatever process and however much later."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
from core_tools import FrailStorage, at_once, eventually
from redis_servers import redis_server
from values import token

from tradovate_auth import Environment, _strangers
from tradovate_auth._given import digest_of, values_of
from tradovate_auth._instrument_child import VARIABLE
from tradovate_auth._shared_record import SharedRecord
from tradovate_auth._strangers import (
    HANDED_DOWN,
    Strangers,
    Whose,
    alanded,
    landed,
    strangers_key,
)
from tradovate_auth.storage import FileStorage, MemoryStorage, Record, RedisStorage, Storage
from tradovate_auth.testing import Emulator, FakeClock

KEY = strangers_key(Environment.of("demo"))
DAY = 86_400.0


class Process:
    """What one process knows of tokens, over a storage."""

    def __init__(self, storage: Storage, clock: FakeClock | None = None, ours: Any = ()) -> None:
        self.warnings: list[str] = []
        self.set_aside: list[str] = []
        self.storage = storage
        self.strangers = Strangers(
            SharedRecord(storage, KEY, self.set_aside),
            ours=lambda: ours,
            warn=self.warnings.append,
            elapsed=clock.elapsed if clock is not None else FakeClock().elapsed,
        )

    def remember(self, *tokens: str) -> None:
        """Remember tokens of another user."""
        landed(self.strangers.remembering(tokens))

    def whose(self, value: str) -> Whose:
        """Whose a token is."""
        return landed(self.strangers.asking(value, "trader"))


@pytest.fixture(params=["file", "redis"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Storage]]:
    """Yield what opens a storage anew, as another process does."""
    if request.param == "file":
        yield lambda: FileStorage(tmp_path / "session")
        return
    with redis_server() as server, closing(server.client()) as client:
        yield lambda: RedisStorage(client)


@pytest.fixture
def frail(fake_clock: FakeClock) -> FrailStorage:
    """Return a storage that fails on demand."""
    return FrailStorage(clock=fake_clock)


def test_all_who_share_the_storage_know_them(places: Callable[[], Storage]) -> None:
    """What one process has seen, each other one knows, also one that begins when the first has long gone; ours are ours, and
    anything else is nobody's.
    """
    first = Process(places())
    first.remember("theirs", "their market data")
    later = Process(places(), ours=["ours"])
    asked = ("theirs", "their market data", "ours", "another")
    assert [later.whose(value) for value in asked] == ["stranger", "stranger", "ours", "unknown"]
    assert [first.whose(value) for value in asked] == ["stranger", "stranger", "unknown", "unknown"]
    assert first.warnings == later.warnings == []


def test_the_storage_holds_no_token(places: Callable[[], Storage]) -> None:
    """It has their digests, with the moment at which they were seen, by its own clock."""
    storage = places()
    Process(storage).remember("theirs")
    record = storage.load(KEY)
    assert record is not None
    assert list(record.strangers) == [hashlib.sha256(b"theirs").hexdigest()]
    assert abs(record.strangers[digest_of("theirs")] - storage.now()) < 3600
    assert record.tokens == {}


def test_the_storage_is_asked_once_for_each(frail: FrailStorage) -> None:
    """What has been judged is not asked for again, whatever it was; nor is what we have given away ourselves."""
    process = Process(frail)
    process.remember("theirs")
    frail.loads = 0
    for _ in range(3):
        assert [process.whose(value) for value in ("theirs", "another")] == ["stranger", "unknown"]
    assert frail.loads == 1
    process.strangers.claim(["ours"], "trader")
    assert process.whose("ours") == "ours"
    assert frail.loads == 1


def test_what_another_source_has_given_away(frail: FrailStorage) -> None:
    """It is a stranger's to the source of another user, and to be held back where ours would be; to one of the same user it is
    what the storage says. A thousand of them are remembered.
    """
    process, other = Process(frail), Process(FrailStorage(clock=FakeClock()))
    other.strangers.claim(["given"], "somebody")
    assert process.whose("given") == "stranger"
    assert landed(process.strangers.asking("given", "trader", admitted=False)) == "ours"
    assert landed(process.strangers.asking("given", "SOMEBODY")) == "unknown"
    assert landed(process.strangers.asking("never given", "")) == "unknown"
    other.strangers.claim([f"given {number}" for number in range(1024)], "somebody")
    assert process.whose("given 0") == "stranger"
    assert landed(Process(frail).strangers.asking("given", "trader")) == "unknown"


def test_many_at_once(places: Callable[[], Storage]) -> None:
    """Processes that remember at the same moment lose nothing of each other's."""
    processes = [Process(places()) for _ in range(4)]
    numbers = iter(range(16))
    at_once(16, lambda: processes[(number := next(numbers)) % 4].remember(f"theirs {number}"))
    fresh = Process(places())
    assert {fresh.whose(f"theirs {number}") for number in range(16)} == {"stranger"}


@pytest.mark.parametrize("what", ["now", "load", "save"])
def test_a_storage_that_is_away(what: str, frail: FrailStorage, fake_clock: FakeClock) -> None:
    """This process goes by what it knows, and says so; a failing storage is not asked with every request; when it is back
    the others learn what they have missed.
    """
    process, other = Process(frail, fake_clock), Process(frail, fake_clock)
    frail.broken = {what}
    process.remember("theirs")
    assert process.whose("theirs") == "stranger"
    assert process.whose("another") == "unknown"
    assert len(process.warnings) == 1
    assert "until it can" in process.warnings[0]
    frail.broken, loads = set(), frail.loads
    assert process.whose("a third") == "unknown"
    assert frail.loads == loads
    fake_clock.advance(15.0)
    assert process.whose("theirs") == "stranger"
    assert process.whose("another") == "unknown"
    assert other.whose("theirs") == "stranger"


def test_what_was_not_judged_is_asked_for_again(frail: FrailStorage, fake_clock: FakeClock) -> None:
    """A token that was let through because nobody could be asked is a stranger's as soon as somebody can."""
    process = Process(frail, fake_clock)
    Process(frail, fake_clock).remember("theirs")
    frail.broken = {"load"}
    assert process.whose("theirs") == "unknown"
    frail.broken = set()
    fake_clock.advance(15.0)
    assert process.whose("theirs") == "stranger"


def test_what_could_not_be_saved_has_an_end(frail: FrailStorage, fake_clock: FakeClock) -> None:
    """However many there are while the storage is away, the last thousand of them are kept for it."""
    process = Process(frail, fake_clock)
    frail.broken = {"save"}
    process.remember(*(f"theirs {number}" for number in range(1100)))
    frail.broken = set()
    fake_clock.advance(15.0)
    process.remember("last")
    record = frail.load(KEY)
    assert record is not None
    assert len(record.strangers) == 1024
    assert process.whose("theirs 75") == "unknown"
    assert process.whose("theirs 1099") == process.whose("last") == "stranger"


def test_they_are_forgotten(fake_clock: FakeClock) -> None:
    """After a day no token lives any more; of more than a thousand the oldest go. So do moments that a clock has invented."""
    storage = MemoryStorage(clock=fake_clock)
    process = Process(storage, fake_clock)
    process.remember("yesterday's")
    fake_clock.advance(DAY / 2)
    process.remember("this morning's")
    storage.save(KEY, Record(3, strangers={**strangers(storage), "invented": storage.now() + 2 * DAY}))
    fake_clock.advance(DAY / 2 + 1)
    process.remember("today's")
    assert set(strangers(storage)) == {digest_of("this morning's"), digest_of("today's")}
    for number in range(1030):
        process.remember(f"number {number}")
        fake_clock.advance(0.01)
    kept = strangers(storage)
    assert len(kept) == 1024
    assert digest_of("number 5") not in kept
    assert digest_of("number 6") in kept
    # What this process itself has forgotten is asked for.
    assert process.whose("number 6") == "stranger"


def strangers(storage: Storage) -> dict[str, float]:
    """What a storage has."""
    record = storage.load(KEY)
    return dict(record.strangers) if record is not None else {}


class Gated(MemoryStorage):
    """A storage that is shared, and whose answers wait for a test."""

    private = False

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.answer = threading.Semaphore(0), threading.Semaphore(0)

    def load(self, key: str) -> Record | None:
        """See `Storage.load`."""
        found = super().load(key)
        self.asked.release()
        assert self.answer.acquire(timeout=30)
        return found


def test_an_answer_from_before_the_question_does_not_count() -> None:
    """Who asks while the storage is being read may ask for what was saved since: he waits for another look at it."""
    storage = Gated()
    process = Process(storage)
    found: list[Whose] = []

    def ask(value: str) -> threading.Thread:
        thread = threading.Thread(target=lambda: found.append(process.whose(value)))
        thread.start()
        return thread

    first = ask("another")
    assert storage.asked.acquire(timeout=30)  # it has been read, and there is nothing in it
    storage.save(KEY, Record(1, strangers={digest_of("theirs"): storage.now()}))
    second = ask("theirs")
    storage.answer.release()
    first.join(30)
    assert storage.asked.acquire(timeout=30)
    storage.answer.release()
    second.join(30)
    assert found == ["unknown", "stranger"]


@pytest.mark.parametrize("how", ["thread", "asyncio", "trio"])
def test_a_storage_that_hangs(how: str, fake_clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds a request up for a moment, once: then it counts as away, with one warning, and those that come while the same look
    at it goes on do not wait at all. What it says in the end is taken.
    """
    storage = Gated()
    process = Process(storage, fake_clock)

    async def ask(*values: str) -> list[Whose]:
        return [await alanded(process.strangers.asking(value, "trader")) for value in values]

    def found(*values: str) -> list[Whose]:
        if how == "thread":
            return [process.whose(value) for value in values]
        return asyncio.run(ask(*values)) if how == "asyncio" else trio.run(ask, *values)

    storage.save(KEY, Record(1, strangers={digest_of("theirs"): storage.now()}))
    monkeypatch.setattr(_strangers, "_PATIENCE", 0.05)
    assert found("theirs", "another") == ["unknown", "unknown"]
    assert len(process.warnings) == 1
    monkeypatch.setattr(_strangers, "_PATIENCE", 600.0)
    fake_clock.advance(15.0)
    assert found("theirs") == ["unknown"]
    fake_clock.advance(15.0)
    for _ in range(10):
        storage.answer.release()
    eventually(lambda: process.strangers._judged)
    assert found("theirs", "another") == ["stranger", "unknown"]


def test_what_is_nobodys_is_asked_for_again(frail: FrailStorage, fake_clock: FakeClock) -> None:
    """Whoever remembered it may have had no storage at that moment: a minute later it is looked for once more."""
    process = Process(frail, fake_clock)
    assert process.whose("theirs") == "unknown"
    Process(frail, fake_clock).remember("theirs")
    assert process.whose("theirs") == "unknown"
    fake_clock.advance(60.0)
    assert process.whose("theirs") == "stranger"


def test_what_could_not_be_saved_is_caught_up(frail: FrailStorage, fake_clock: FakeClock) -> None:
    """It needs no question for a token: any request will do, once the storage may be back; one with nothing to save asks nothing."""
    process = Process(frail, fake_clock)
    frail.broken = {"load"}
    process.remember("theirs")
    frail.broken, loads = set(), frail.loads
    process.strangers.catch_up()
    eventually(lambda: process.strangers._flight.current() is None)
    assert frail.loads == loads
    fake_clock.advance(15.0)
    process.strangers.catch_up()
    eventually(lambda: strangers(frail) == {digest_of("theirs"): frail.now()})
    eventually(lambda: not process.strangers._unsaved)
    loads = frail.loads
    process.strangers.catch_up()
    assert process.strangers._flight.current() is None
    assert frail.loads == loads


def test_what_is_remembered_meanwhile_counts() -> None:
    """A token that becomes a stranger's while the storage is asked for it is one."""
    storage = Gated()
    process = Process(storage)
    asking = process.strangers.asking("theirs", "trader")
    flight = next(asking)
    assert storage.asked.acquire(timeout=30)
    remembering = process.strangers.remembering(["theirs"])
    next(remembering)
    for _ in range(10):
        storage.answer.release()
    flight.wait(30)
    assert landed(asking) == "stranger"
    landed(remembering)
    assert process.whose("theirs") == "stranger"
    assert set(strangers(storage)) == {digest_of("theirs")}


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_no_loop_waits(library: str) -> None:
    """While a storage takes its time, the loop of whoever asks and remembers does other things."""
    storage = Gated()
    process = Process(storage)
    sleep = asyncio.sleep if library == "asyncio" else trio.sleep

    async def others() -> None:
        while not storage.asked.acquire(blocking=False):  # for a thread, not for a task
            await sleep(0.001)
        storage.answer.release()

    async def scenario() -> Whose:
        if library == "asyncio":
            await asyncio.gather(alanded(process.strangers.remembering(["theirs"])), others())
            return (
                await asyncio.gather(alanded(Process(storage).strangers.asking("theirs", "trader")), others())
            )[0]
        found: list[Whose] = []

        async def ask() -> None:
            found.append(await alanded(Process(storage).strangers.asking("theirs", "trader")))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: alanded(process.strangers.remembering(["theirs"])))
            nursery.start_soon(others)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(others)
        return found[0]

    run: Any = asyncio.run if library == "asyncio" else trio.run
    assert (run(scenario()) if library == "asyncio" else run(scenario)) == "stranger"


def test_rubbish_is_told_of(tmp_path: Path) -> None:
    """A file that is no record is put aside, and whoever keeps the account hears of it."""
    storage = FileStorage(tmp_path)
    Process(storage).remember("theirs")
    (path,) = tmp_path.glob("*tradovateapi*.json")
    path.write_bytes(b"rubbish")
    process = Process(storage)
    assert process.whose("theirs") == "unknown"
    assert len(process.set_aside) == 1
    process.remember("theirs")
    assert Process(storage).whose("theirs") == "stranger"


class TestHandedDown:
    """Where no storage reaches the children of an instrumented program, its environment does."""

    def test_by_the_runner(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """They are in a variable, which holds no token; a child goes by it, and hands down what it adds."""
        monkeypatch.setenv(VARIABLE, "{}")
        monkeypatch.setenv(HANDED_DOWN, "")
        Process(MemoryStorage()).remember("theirs")
        assert os.environ[HANDED_DOWN] == digest_of("theirs")
        child = Process(MemoryStorage())
        assert child.whose("theirs") == "stranger"
        child.remember("another's")
        assert set(os.environ[HANDED_DOWN].split(",")) == {digest_of("theirs"), digest_of("another's")}
        for number in range(300):
            child.remember(f"theirs {number}")
        assert os.environ[HANDED_DOWN].count(",") == 255
        grandchild = Process(MemoryStorage())
        assert grandchild.whose("theirs 299") == "stranger"
        assert grandchild.whose("nobody's") == "unknown"

    def test_by_nobody_else(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A process that no runner has started, or one whose storage is shared, keeps its environment as it is."""
        monkeypatch.delenv(VARIABLE, raising=False)
        monkeypatch.delenv(HANDED_DOWN, raising=False)
        Process(MemoryStorage()).remember("theirs")
        monkeypatch.setenv(VARIABLE, "{}")
        Process(FileStorage(tmp_path)).remember("theirs")
        assert HANDED_DOWN not in os.environ
        monkeypatch.setenv(HANDED_DOWN, digest_of("another's"))
        assert Process(FileStorage(tmp_path)).whose("another's") == "unknown"


def test_what_is_secret_in_a_token() -> None:
    """Either of its two values, if it has two."""
    assert values_of(token(value="a", md_value="b"), token(value="c", md_value=None)) == ["a", "b", "c"]


class TestPrograms:
    """A bot of another user, run by the runner as it is."""

    @pytest.fixture(params=["file", "redis", "memory"])
    def storage(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
        """Yield the URL of what the processes share; nothing at all is shared through a memory."""
        if request.param == "redis":
            with redis_server() as server:
                yield server.url
        else:
            yield (tmp_path / "session").as_uri() if request.param == "file" else "memory://"

    def test_its_processes_and_its_next_run(
        self, storage: str, tradovate_emulator: Emulator, tmp_path: Path
    ) -> None:
        """Each process that it hands its token to acts in its own user's name, and so does a later run that finds the token
        in a file; only with a storage that dies with the process a later run cannot know.
        """
        server = tradovate_emulator
        server.add_user("colleague", "secret")
        environment = {
            **os.environ,
            **{f"TRADOVATE_{name.upper()}": str(value) for name, value in server.credentials.items()},
            "TRADOVATE_ENVIRONMENT": server.url,
            "TRADOVATE_STORAGE": storage,
            "BOT_API": server.url,
            "BOT_FILE": str(tmp_path / "token"),
        }

        def run() -> dict[str, str]:
            program = Path(__file__).with_name("programs") / "colleague.py"
            done = subprocess.run(
                [sys.executable, "-m", "tradovate_auth.instrumentation", str(program)],
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            found: dict[str, str] = json.loads(done.stdout)
            return found

        assert run() == dict.fromkeys(("itself", "fork", "spawn", "subprocess"), "colleague")
        later = server.credentials["name"] if storage == "memory://" else "colleague"
        assert run() == {"a later run": later}

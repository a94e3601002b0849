"""The clock of a folder: all processes of a machine agree on it, and setting the wall clock does not move it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from core_tools import World, run_script
from hypothesis import given
from hypothesis import strategies as st
from values import DAY, HOUR, NOW

from tradovate_auth._clock import SystemClock
from tradovate_auth.storage import FileStorage
from tradovate_auth.storage._epoch import epoch_of, written_epoch
from tradovate_auth.testing import Emulator, FakeClock

JUMPS = [3 * HOUR, -3 * HOUR, 40 * DAY, -40 * DAY]


@pytest.fixture
def clock() -> FakeClock:
    """Return the clock of a machine that tells its boots apart."""
    return FakeClock(NOW, boot="this one")


@pytest.fixture
def make(tmp_path: Path, clock: FakeClock) -> Callable[..., FileStorage]:
    """Return what makes a storage over one folder, as another process would have it."""
    return lambda clock=clock: FileStorage(tmp_path / "sessions", clock=clock)


@pytest.fixture
def path(make: Callable[..., FileStorage]) -> Path:
    """Return the file in which the folder's clock is agreed on."""
    return make()._path("the clock of this boot", "json")


class TestBytes:
    """What is written, and what is understood."""

    @given(st.floats(allow_nan=False, allow_infinity=False), st.text())
    def test_there_and_back(self, epoch: float, boot: str) -> None:
        """What was written is read, for the run of the machine that it was written for."""
        assert epoch_of(written_epoch(boot, epoch), boot) == epoch
        assert epoch_of(written_epoch(boot, epoch), boot + "x") is None

    @given(st.binary() | st.none())
    def test_rubbish_says_nothing(self, data: bytes | None) -> None:
        """Bytes of any kind are read or are nothing; they are never an error."""
        assert epoch_of(data, "this one") is None

    @pytest.mark.parametrize(
        "kept", [[], {}, 5, None, {"boot": "b"}, {"boot": "b", "epoch": "1"}, {"epoch": 1.0}]
    )
    def test_other_json_says_nothing(self, kept: object) -> None:
        """Nor does JSON of another form."""
        assert epoch_of(json.dumps(kept).encode(), "b") is None

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1", "true", "null", "1e999"])
    def test_only_a_finite_number_counts(self, number: str) -> None:
        """Nor what is no moment."""
        assert epoch_of(f'{{"boot": "b", "epoch": {number}}}'.encode(), "b") is None

    def test_depth_says_nothing(self) -> None:
        """A file made to exhaust the parser is nothing either."""
        assert epoch_of(b"[" * 100_000, "b") is None


class TestJumps:
    """Somebody sets the wall clock, or a time server does."""

    @pytest.mark.parametrize("seconds", JUMPS)
    def test_nothing_moves(self, make: Callable[..., FileStorage], clock: FakeClock, seconds: float) -> None:
        """Neither an object that has read its clock already nor one of a later process sees anything of it."""
        before = make()
        assert before.now() == NOW
        clock.jump(seconds)
        assert before.now() == make().now() == NOW
        clock.advance(5)
        assert before.now() == make().now() == NOW + 5

    @pytest.mark.parametrize("seconds", JUMPS)
    def test_a_session_lives_through_it(self, world: World, tmp_path: Path, seconds: float) -> None:
        """Before and after it: one login, no renewal before its time, and one in time."""
        theirs, ours = FakeClock(NOW), FakeClock(NOW, boot="this one")
        with Emulator(clock=theirs) as server:
            options = {"environment": server.url, "clock": ours}
            first = world.provider(storage=FileStorage(tmp_path, clock=ours), **options)
            token = first.get()
            ours.jump(seconds)
            second = world.provider(storage=FileStorage(tmp_path, clock=ours), **options)
            assert second.get() == token
            assert first.get() is token
            for clock in (theirs, ours):
                clock.advance(3600)
            assert second.get() == token
            assert server.counts.renewals == 0
            for clock in (theirs, ours):
                clock.advance(600)
            second.get()
            world.settled(second)
            assert second.get().generation == 2
            assert second.get().lifetime == pytest.approx(4800, abs=2)
            assert (server.counts.logins, server.counts.renewals) == (1, 1)

    def test_another_boot_begins_anew(self, make: Callable[..., FileStorage], path: Path) -> None:
        """Its unjumping clock counts from another moment: the wall clock says where."""
        make().now()
        later = FakeClock(NOW + DAY, boot="the next one")
        later.advance(100)
        assert make(later).now() == NOW + DAY + 100
        later.jump(HOUR)
        assert make(later).now() == NOW + DAY + 100
        assert epoch_of(path.read_bytes(), "the next one") == NOW + DAY

    def test_a_system_that_cannot_tell_its_boots_goes_by_the_wall_clock(
        self, make: Callable[..., FileStorage], path: Path
    ) -> None:
        """Nothing is agreed on there, and nothing is written."""
        clock = FakeClock(NOW)
        storage = make(clock)
        clock.jump(HOUR)
        assert storage.now() == NOW + HOUR
        assert not path.exists()
        plain = SimpleNamespace(time=clock.time, elapsed=clock.elapsed, wait=clock.wait)
        assert make(plain).now() == NOW + HOUR

    def test_processes_agree(self, tmp_path: Path) -> None:
        """Two processes whose wall clocks are hours apart (each believes its own) show the same time, however they start."""
        script = """
import sys
from tradovate_auth._clock import SystemClock
from tradovate_auth.storage import FileStorage
clock = SystemClock()
clock.boot = "this one"
wall = clock.time
clock.time = lambda: wall() + float(sys.argv[2])
print(round(FileStorage(sys.argv[1], clock=clock).now() - clock.elapsed(), 1))
"""
        ended = [run_script(script, str(tmp_path / "sessions"), offset) for offset in ("0", "7200", "-86400")]
        assert [each.stderr for each in ended] == [""] * 3
        assert len({each.stdout for each in ended}) == 1


class TestTrouble:
    """What becomes of the clock when its file cannot be had."""

    @pytest.mark.parametrize(
        "content", [b"", b"rubbish", b"\xff" * 99, b'{"boot": "this one"}', b"[" * 10**6]
    )
    def test_a_rotten_file_is_written_anew(
        self, make: Callable[..., FileStorage], clock: FakeClock, path: Path, content: bytes
    ) -> None:
        """From then on all agree again; who had read it before goes on with what it had."""
        before = make()
        before.now()
        path.write_bytes(content)
        clock.jump(HOUR)
        assert before.now() == NOW
        assert make().now() == make().now() == NOW + HOUR
        clock.jump(HOUR)
        assert make().now() == NOW + HOUR

    def test_the_file_is_private(self, make: Callable[..., FileStorage], path: Path) -> None:
        """It is no secret, but nobody else may set our clock."""
        make().now()
        assert path.stat().st_mode & 0o777 == 0o600
        path.chmod(0o666)
        make().now()
        assert path.stat().st_mode & 0o777 == 0o600

    def test_a_folder_that_cannot_be_used(self, tmp_path: Path, clock: FakeClock) -> None:
        """A file in its place: the wall clock, and once the folder can be used what all agree on."""
        (tmp_path / "sessions").write_text("in the way")
        storage = FileStorage(tmp_path / "sessions", clock=clock)
        clock.jump(HOUR)
        assert storage.now() == NOW + HOUR
        (tmp_path / "sessions").unlink()
        assert storage.now() == NOW + HOUR
        clock.jump(HOUR)
        assert storage.now() == NOW + HOUR

    def test_a_folder_that_can_only_be_read(
        self, make: Callable[..., FileStorage], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What was agreed on is read; where nothing was, the wall clock has to do."""
        make().now()
        clock.jump(HOUR)
        original = os.open

        def reading(name: str, flags: int, *rest: int) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                raise OSError(30, "Read-only file system")
            return original(name, flags, *rest)

        monkeypatch.setattr(os, "open", reading)
        assert make().now() == NOW
        assert make(FakeClock(NOW + DAY, boot="the next one")).now() == NOW + DAY

    def test_the_second_look_is_under_the_lock(
        self, make: Callable[..., FileStorage], clock: FakeClock, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another process is faster between the look and the lock: its word counts."""
        storage = make()
        original = storage._writing

        def writing(name: Path) -> object:
            path.write_bytes(written_epoch("this one", NOW - DAY))
            return original(name)

        monkeypatch.setattr(storage, "_writing", writing)
        storage._admitted(create=True)
        assert storage.now() == NOW - DAY
        assert epoch_of(path.read_bytes(), "this one") == NOW - DAY

    def test_two_boots_in_a_row_keep_the_folder_clean(
        self, make: Callable[..., FileStorage], path: Path
    ) -> None:
        """One file per folder, however often the machine starts."""
        for boot in range(5):
            make(FakeClock(NOW, boot=str(boot))).now()
        assert [each.name for each in path.parent.glob("*.json*")] == [path.name]


def test_this_machine_tells_its_boots_apart() -> None:
    """Where the system has an id of the boot, every clock shows the same one."""
    assert SystemClock().boot == SystemClock().boot
    if Path("/proc/sys/kernel/random/boot_id").exists():
        assert SystemClock().boot


@pytest.mark.parametrize(
    "content", [FileNotFoundError(), UnicodeDecodeError("ascii", b"", 0, 1, ""), "", "\n"]
)
def test_other_systems_do_not(monkeypatch: pytest.MonkeyPatch, content: str | Exception) -> None:
    """No such file, or nothing in it: there is no id."""

    def read(*_: object) -> str:
        if isinstance(content, Exception):
            raise content
        return content

    monkeypatch.setattr(Path, "read_text", read)
    assert SystemClock().boot is None

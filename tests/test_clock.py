"""The clocks: the machine's own, what they wait for, and the one that a test moves by hand."""

import _thread
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tradovate_auth._clock import SYSTEM_CLOCK, Clock, SystemClock, Waitable, Wakeup
from tradovate_auth.testing import FakeClock

PATIENCE = 30.0


class TestSystemClock:
    """The machine's own clocks."""

    def test_time_is_the_wall_clock(self) -> None:
        """Its time is Unix time."""
        before = time.time()
        assert before <= SYSTEM_CLOCK.time() <= time.time()

    def test_elapsed_never_goes_back(self) -> None:
        """Its other clock goes forward alone."""
        readings = [SYSTEM_CLOCK.elapsed() for _ in range(1000)]
        assert readings == sorted(readings)

    @pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="Linux has it")
    def test_elapsed_goes_on_while_the_machine_sleeps(self) -> None:
        """On Linux that is CLOCK_BOOTTIME, for CLOCK_MONOTONIC stops during suspend."""
        before = time.clock_gettime(time.CLOCK_BOOTTIME)
        assert before <= SYSTEM_CLOCK.elapsed() <= time.clock_gettime(time.CLOCK_BOOTTIME)

    @pytest.mark.parametrize("missing", [["CLOCK_BOOTTIME"], ["CLOCK_BOOTTIME", "CLOCK_MONOTONIC"]])
    def test_elapsed_elsewhere(self, monkeypatch: pytest.MonkeyPatch, missing: list[str]) -> None:
        """Without it, it is the platform's monotonic clock."""
        for name in missing:
            monkeypatch.delattr(time, name, raising=False)
        before = time.monotonic()
        assert before <= SystemClock().elapsed() <= time.monotonic()

    def test_waiting(self) -> None:
        """A wait ends when the event is set, or with its time."""
        event = threading.Event()
        assert not SYSTEM_CLOCK.wait(event, 0.001)
        event.set()
        assert SYSTEM_CLOCK.wait(event, PATIENCE)


class TestWakeup:
    """Wakes one sleeper, once per `set`."""

    def test_each_set_wakes_once(self) -> None:
        """A wakeup that was set keeps the next sleeper from falling asleep, and no other; setting it twice is once."""
        wakeup = Wakeup()
        assert not wakeup.wait(0.0)
        wakeup.set()
        wakeup.set()
        assert wakeup.wait(0.0)
        assert not wakeup.wait(0.0)

    def test_it_wakes_a_sleeper(self) -> None:
        """Somebody who sleeps already wakes at once."""
        wakeup, asleep = Wakeup(), threading.Event()

        def sleep() -> bool:
            asleep.set()
            return wakeup.wait(PATIENCE)

        with ThreadPoolExecutor() as pool:
            woken = pool.submit(sleep)
            assert asleep.wait(PATIENCE)
            started = time.monotonic()
            wakeup.set()
            assert woken.result(PATIENCE)
        assert time.monotonic() - started < PATIENCE / 2

    @pytest.mark.parametrize("timeout", [-1.0, -0.5, -math.inf])
    def test_a_wait_that_is_over_does_not_block(self, timeout: float) -> None:
        """A negative time is no time, as it is for an event; it neither fails nor waits for ever."""
        assert not Wakeup().wait(timeout)

    def test_a_wait_without_end(self) -> None:
        """A time longer than the platform can wait is as long as it can."""
        wakeup = Wakeup()
        wakeup.set()
        assert wakeup.wait(math.inf)


class TestFakeClock:
    """The clock that stands still until a test moves it."""

    def test_it_stands_still(self) -> None:
        """Nobody but a test moves it."""
        clock = FakeClock(1000.0)
        readings = {(clock.time(), clock(), clock.elapsed()) for _ in range(100)}
        assert readings == {(1000.0, 1000.0, 0.0)}

    def test_time_passes_on_both_clocks(self) -> None:
        """Time that passes moves the wall clock and the elapsed one alike."""
        clock = FakeClock(1000.0)
        clock.advance(5.0)
        clock.advance(2.5)
        assert (clock.time(), clock(), clock.elapsed()) == (1007.5, 1007.5, 7.5)

    @pytest.mark.parametrize("seconds", [3600.0, -3600.0])
    def test_a_jump_moves_the_wall_clock_alone(self, seconds: float) -> None:
        """Setting the clock of the machine does not make time pass."""
        clock = FakeClock(10_000.0)
        clock.jump(seconds)
        assert (clock.time(), clock.elapsed()) == (10_000.0 + seconds, 0.0)

    @pytest.mark.parametrize("kind", [threading.Event, Wakeup])
    def test_whoever_waits_wakes_when_the_time_has_come(self, kind: type[threading.Event | Wakeup]) -> None:
        """A wait ends when the clock was moved far enough, however little real time that took."""
        clock, event = FakeClock(), kind()
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(clock.wait, event, 3600.0)
            clock.advance(1800.0)
            assert not waiting.done()
            clock.advance(1800.0)
            assert not waiting.result(PATIENCE)

    @pytest.mark.parametrize("kind", [threading.Event, Wakeup])
    def test_whoever_waits_wakes_when_it_is_set(self, kind: type[threading.Event | Wakeup]) -> None:
        """A wait ends when its event is set, though the clock stands still."""
        clock, event = FakeClock(), kind()
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(clock.wait, event, 3600.0)
            event.set()
            assert waiting.result(PATIENCE)

    def test_a_wait_of_no_time(self) -> None:
        """A wait for no time looks at the event and returns."""
        clock, event = FakeClock(), threading.Event()
        assert not clock.wait(event, 0.0)
        assert not clock.wait(event, -1.0)
        event.set()
        assert clock.wait(event, 0.0)

    def test_many_threads_move_it(self) -> None:
        """No step is lost, whoever makes it."""
        clock = FakeClock(0.0)

        def advance() -> None:
            for _ in range(500):
                clock.advance(1.0)

        with ThreadPoolExecutor(8) as pool:
            for _ in range(8):
                pool.submit(advance)
        assert (clock.time(), clock.elapsed()) == (4000.0, 4000.0)


def test_both_are_clocks() -> None:
    """The real clock and the fake one are the same to whoever reads them."""
    clocks: list[Clock] = [SYSTEM_CLOCK, FakeClock()]
    waitables: list[Waitable] = [threading.Event(), Wakeup()]
    assert [clock.wait(event, 0.0) for clock in clocks for event in waitables] == [False] * 4


def test_a_wakeup_may_be_set_from_a_raw_thread() -> None:
    """Setting needs neither a `Thread` object nor a lock that somebody may hold."""
    wakeup = Wakeup()
    _thread.start_new_thread(wakeup.set, ())
    assert wakeup.wait(PATIENCE)

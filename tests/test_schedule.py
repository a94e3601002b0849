"""The timer: when it wakes, what ends it, and that it keeps nobody alive."""

import gc
import threading
import time
import weakref
from collections.abc import Callable

import pytest
from core_tools import Recorder, World, eventually, timer_threads

from tradovate_auth import Credentials, TokenProvider
from tradovate_auth import _schedule as schedule_module
from tradovate_auth._clock import Waitable
from tradovate_auth._schedule import Schedule
from tradovate_auth.events import Evicted, Renewed
from tradovate_auth.storage import MemoryStorage
from tradovate_auth.testing import Emulator, FakeClock


class Target:
    """Notes its ticks, and answers each with the wait that the test has set."""

    def __init__(self, wait: float | None) -> None:
        self.wait = wait
        self.ticks = 0
        self.forks = 0
        self.on_tick: Callable[[], object] = threading.get_ident

    def tick(self) -> float | None:
        """See `Schedule`."""
        self.ticks += 1
        self.on_tick()
        return self.wait

    def forked(self) -> None:
        """See `Schedule`."""
        self.forks += 1


class WatchedClock(FakeClock):
    """A clock that tells for how long somebody sleeps by it, from when on moving it counts."""

    sleeping: float | None = None

    def wait(self, event: Waitable, seconds: float) -> bool:
        """See `Clock.wait`."""
        try:
            return super().wait(_Watched(event, self, seconds), seconds)
        finally:
            self.sleeping = None


class _Watched:
    def __init__(self, event: Waitable, clock: WatchedClock, seconds: float) -> None:
        self._event, self._clock, self._seconds = event, clock, seconds

    def wait(self, timeout: float) -> bool:
        self._clock.sleeping = self._seconds
        return self._event.wait(timeout)


def test_it_ticks_when_due() -> None:
    """The target is asked at once, and again when the time that it named is over, not before."""
    target, clock = Target(10.0), WatchedClock()
    schedule = Schedule(target, clock, target.forked)
    schedule.start()
    eventually(lambda: clock.sleeping)
    assert (target.ticks, clock.sleeping) == (1, 10.0)
    clock.advance(9.9)
    time.sleep(0.05)
    assert target.ticks == 1
    clock.advance(0.2)
    eventually(lambda: target.ticks == 2)
    schedule.stop()
    schedule.join()


def test_it_looks_at_the_clock_every_half_minute() -> None:
    """A machine that was suspended wakes with a timer that has slept too, so no sleep is longer than half a minute."""
    target, clock = Target(3600.0), WatchedClock()
    schedule = Schedule(target, clock, target.forked)
    schedule.start()
    eventually(lambda: clock.sleeping)
    clock.advance(30.0)
    eventually(lambda: target.ticks == 2)
    schedule.stop()
    schedule.join()


def test_a_nudge_makes_it_look_now(fake_clock: FakeClock) -> None:
    """Whoever has changed the plan wakes the timer without moving the clock; one nudge is one look."""
    target = Target(20.0)
    schedule = Schedule(target, fake_clock, target.forked)
    schedule.nudge()  # before the start: nothing to wake
    schedule.start()
    eventually(lambda: target.ticks == 1)
    schedule.nudge()
    eventually(lambda: target.ticks == 2)
    time.sleep(0.03)
    assert target.ticks == 2
    schedule.stop()
    schedule.join()


def test_stopping_ends_the_thread_and_starting_makes_another(fake_clock: FakeClock) -> None:
    """`stop` and `join` leave no thread; a second `start` while it runs changes nothing; after a stop it runs anew."""
    before = timer_threads()
    target = Target(20.0)
    schedule = Schedule(target, fake_clock, target.forked)
    schedule.start()
    schedule.start()
    eventually(lambda: target.ticks == 1)
    assert timer_threads() == before + 1
    schedule.stop()
    schedule.stop()
    schedule.join()
    assert not schedule.running
    assert timer_threads() == before
    schedule.start()
    eventually(lambda: target.ticks == 2)
    schedule.stop()
    schedule.join()


def test_a_target_that_wants_no_more_ends_it(fake_clock: FakeClock) -> None:
    """None for an answer ends the thread, also the memory of it that a fork would look at."""
    target = Target(None)
    schedule = Schedule(target, fake_clock, target.forked)
    schedule.start()
    eventually(lambda: not schedule.running)
    schedule.join()
    assert target.ticks == 1
    assert id(schedule) not in schedule_module._running


def test_a_forgotten_target_ends_it(fake_clock: FakeClock) -> None:
    """The timer holds its target weakly: with the target goes the thread, and nothing can start it again."""
    target = Target(20.0)
    schedule = Schedule(target, fake_clock, target.forked)
    schedule.start()
    schedule.nudge()
    gone = weakref.ref(target)
    del target
    eventually(lambda: gc.collect() is not None and gone() is None)
    schedule.join()
    assert not schedule.running
    schedule.start()
    assert not schedule.running
    schedule.pause_for_fork()  # with nobody left to be told


def test_a_target_that_goes_before_the_first_tick_ends_it(fake_clock: FakeClock) -> None:
    """A thread that finds nobody to ask leaves, though nobody has stopped it."""
    target = Target(20.0)
    schedule = Schedule(target, fake_clock, target.forked)
    schedule._target = weakref.ref(target)  # without the callback that would stop it
    schedule.start()
    eventually(lambda: target.ticks == 1)
    gone, target = weakref.ref(target), Target(None)
    eventually(lambda: gc.collect() is not None and gone() is None)
    schedule.nudge()
    schedule.join()
    assert not schedule.running


def test_its_own_thread_does_not_wait_for_itself(fake_clock: FakeClock) -> None:
    """`join` on the timer's own thread returns, so a tick may close everything."""
    target = Target(20.0)
    schedule = Schedule(target, fake_clock, target.forked)
    target.on_tick = schedule.join
    schedule.start()
    eventually(lambda: target.ticks == 1)
    target.on_tick = threading.get_ident
    schedule.stop()
    schedule.join()
    assert not schedule.running


def test_pausing_for_a_fork_stops_and_tells(fake_clock: FakeClock) -> None:
    """Before a fork the thread has ended, and the owner knows that the next use has to start it again."""
    target = Target(20.0)
    schedule = Schedule(target, fake_clock, target.forked)
    schedule.start()
    schedule.pause_for_fork()
    assert not schedule.running
    assert target.forks == 1


def test_a_timer_that_was_stopped_in_its_tick_leaves_a_new_start_alone() -> None:
    """A tick that ends the timer after somebody else has stopped and started it ends the old thread only."""
    target, clock = Target(None), WatchedClock()
    schedule = Schedule(target, clock, target.forked)

    def restart() -> None:
        target.on_tick, target.wait = threading.get_ident, 20.0
        schedule.stop()
        old = schedule._thread
        schedule._thread = None
        schedule.start()
        eventually(lambda: clock.sleeping)
        target.wait = None
        threads.append(old)

    threads: list[threading.Thread | None] = []
    target.on_tick = restart
    schedule.start()
    eventually(lambda: threads)
    assert threads[0] is not None
    threads[0].join(10)
    assert schedule.running
    schedule.stop()
    schedule.join()


def test_a_fork_forgets_timers_that_are_gone() -> None:
    """What is left of a timer that was collected while it slept is no reason for a fork to fail."""
    target = Target(None)
    gone = Schedule(target, FakeClock(), target.forked)
    schedule_module._running[0] = weakref.ref(gone)
    del gone
    gc.collect()
    try:
        schedule_module._before_fork()
    finally:
        del schedule_module._running[0]


def test_an_interpreter_that_starts_no_threads_has_no_timer(
    fake_clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During shutdown `start` does nothing rather than fail, and `join` has nothing to wait for."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    target = Target(20.0)
    schedule = Schedule(target, fake_clock, target.forked)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        schedule.start()
    assert not schedule.running
    schedule.join()
    schedule.stop()


def test_a_session_without_traffic_lives_on() -> None:
    """Beyond its lifetime without a call: the session was renewed in the background, by real time, with one login."""
    with Emulator(lifetime=3.2, hour=19.2) as server:
        credentials, events = Credentials(**server.credentials), Recorder()
        with TokenProvider(
            credentials, environment=server.url, storage=MemoryStorage(), on_event=events
        ) as provider:
            first = provider.get()
            eventually(lambda: server.counts.renewals_granted >= 2)
            assert server.live_sessions == 1
            assert provider.get().generation > first.generation
        counts = server.counts
        assert counts.logins == 1
        assert counts.renewals_granted == counts.renewals >= 2
        assert set(events.names) == {"LoggedIn", "Renewed"}


def test_on_demand_has_no_timer(world: World) -> None:
    """`renewal="on-demand"` starts no thread, and without calls the session lapses."""
    before = timer_threads()
    provider = world.provider()
    provider.get()
    assert timer_threads() == before
    world.clock.advance(4800)
    time.sleep(0.05)
    assert world.server.live_sessions == 0
    assert world.server.counts.renewals == 0


def test_the_timer_starts_with_the_first_token(world: World) -> None:
    """A provider that nobody has asked yet costs no thread; one with a token has one, until it is closed."""
    before = timer_threads()
    provider = world.provider(renewal="background")
    assert timer_threads() == before
    provider.get()
    eventually(lambda: timer_threads() == before + 1)
    provider.close()
    assert timer_threads() == before


def test_a_forgotten_provider_ends_its_timer(world: World) -> None:
    """Nobody has to close a provider: with its garbage collection the timer's thread ends."""
    before = timer_threads()
    provider = world.provider(renewal="background")
    provider.get()
    eventually(lambda: timer_threads() == before + 1)
    world.settled(provider)
    world.opened.clear()
    gone = weakref.ref(provider)
    del provider
    eventually(lambda: gc.collect() is not None and gone() is None)
    eventually(lambda: timer_threads() == before)


def test_the_timer_renews_but_never_logs_in(world: World) -> None:
    """Days without a call: renewals as long as they are granted; once the session is gone, silence until somebody asks."""
    provider = world.provider(renewal="background")
    provider.get()
    for count in range(1, 4):
        world.clock.advance(4000)
        with world.time_flies():
            world.events.wait_for(Renewed, count)
        world.settled(provider)
    world.server.revoke()
    world.clock.advance(4000)
    with world.time_flies():
        world.events.wait_for(Evicted)
    world.settled(provider)
    world.clock.advance(40_000)
    with world.time_flies(5.0):
        time.sleep(0.1)
    assert world.server.counts.logins == 1
    provider.get()
    assert world.server.counts.logins == 2
    world.clock.advance(4000)
    with world.time_flies():
        world.events.wait_for(Renewed, 4)  # and the timer has gone on

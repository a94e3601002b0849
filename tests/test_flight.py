"""One attempt at a time, joined by threads, tasks of several loops, trio, and nobody."""

import _thread
import asyncio
import contextvars
import gc
import importlib
import os
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import pytest
from core_tools import IMPORT_GATE, at_once, eventually
from forks import in_a_fork

from tradovate_auth import StorageError, TokenTimeout
from tradovate_auth import _flight as flight_module
from tradovate_auth._flight import Aftermath, Flight, SingleFlight, run_on_flight


class Work:
    """What a flight does in these tests: wait for the gate, count, and fail if told to."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.gate = threading.Event()
        self.runs = 0
        self.told: list[str] = []

    def __call__(self) -> Aftermath:
        """Do it."""
        self.runs += 1
        assert self.gate.wait(20)
        if self.error is not None:
            raise self.error
        return None, lambda: self.told.append(threading.current_thread().name)


def test_a_hundred_threads_make_one_attempt() -> None:
    """Whoever joins while a flight is in the air joins that one: the work is done once."""
    work = Work()
    single = SingleFlight(work, ceiling=60)
    flights = at_once(100, single.join)
    assert len({id(flight) for flight in flights}) == 1
    work.gate.set()
    for flight in flights:
        assert isinstance(flight, Flight)
        flight.wait(10)
    assert work.runs == 1


def test_joining_does_not_wait_for_the_work() -> None:
    """`join` returns while the work still stands at its gate."""
    work = Work()
    flight = SingleFlight(work, ceiling=60).join()
    assert not flight.landed
    work.gate.set()
    flight.wait(10)
    assert flight.landed


def test_after_the_landing_the_next_join_flies_again() -> None:
    """A flight is out of the air before it lands: whoever is woken and joins again gets a new one."""
    work = Work()
    work.gate.set()
    single = SingleFlight(work, ceiling=60)
    first = single.join()
    first.wait(10)
    assert single.current() is None
    second = single.join()
    second.wait(10)
    assert second is not first
    assert work.runs == 2


def test_every_waiter_raises_its_own_copy() -> None:
    """One shared exception would grow a traceback with each waiter; copies name the original as their cause."""
    cause = StorageError("no disk", 3.0)
    work = Work(cause)
    single = SingleFlight(work, ceiling=60)
    flight = single.join()
    work.gate.set()
    raised = at_once(10, lambda: flight.wait(10))
    assert len({id(error) for error in raised}) == 10
    for error in raised:
        assert isinstance(error, StorageError)
        assert error.__cause__ is cause
        assert (error.message, error.retry_after) == ("no disk", 3.0)
    depth, trace = 0, cause.__traceback__
    while trace is not None:
        depth, trace = depth + 1, trace.tb_next
    assert depth <= 2  # the flight's own frame and the work's, none of the waiters'


def test_an_error_that_cannot_be_copied_reaches_the_waiters_all_the_same() -> None:
    """A foreign exception with a constructor of its own is raised as it is rather than hidden behind a TypeError."""

    class OddError(Exception):
        def __init__(self, *, code: int) -> None:
            super().__init__()
            self.code = code

    work = Work(OddError(code=7))
    work.gate.set()
    with pytest.raises(OddError) as caught:
        SingleFlight(work, ceiling=60).join().wait(10)
    assert caught.value.code == 7


def test_a_waiter_that_gives_up_leaves_the_flight_alone() -> None:
    """A timeout is this caller's: it says how long it waited, and the flight lands for the others."""
    work = Work()
    flight = SingleFlight(work, ceiling=60).join()
    with pytest.raises(TokenTimeout, match=r"within 0\.0 s") as caught:
        flight.wait(0.01)
    assert isinstance(caught.value, TimeoutError)
    work.gate.set()
    flight.wait(None)
    assert work.runs == 1


def test_settling_ignores_how_it_ends() -> None:
    """`settle` waits and raises nothing: neither the flight's error nor the end of its own patience."""
    work = Work(StorageError("no disk"))
    flight = SingleFlight(work, ceiling=60).join()
    flight.settle(0.01)
    assert not flight.landed
    work.gate.set()
    flight.settle(10)
    assert flight.landed


def test_what_comes_afterwards_comes_after_the_landing() -> None:
    """Listeners are told on the flight's thread when it has landed, so they may join again without waiting for themselves."""
    seen: list[bool] = []
    again: list[Flight] = []

    def work() -> Aftermath:
        def tell() -> None:
            seen.append(first.landed)
            if not again:
                again.append(single.join())

        return None, tell

    single = SingleFlight(work, ceiling=60)
    gate = threading.Lock()
    with gate:
        first = single.join()
    eventually(lambda: again)
    again[0].wait(10)
    assert seen[0] is True
    assert again[0] is not first


@pytest.mark.anyio
async def test_cancelling_a_task_detaches_that_task_only() -> None:
    """On asyncio and on trio, the leader and another waiter are cancelled; the third is served by the same flight."""
    work = Work()
    single = SingleFlight(work, ceiling=60)
    flight = single.join()
    done: list[int] = []

    async def wait(number: int) -> None:
        await flight.await_landing()
        done.append(number)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, 3)
        with anyio.move_on_after(0.02) as scope:
            async with anyio.create_task_group() as leavers:
                leavers.start_soon(wait, 1)
                leavers.start_soon(wait, 2)
        assert scope.cancelled_caught
        assert done == []
        work.gate.set()
    assert done == [3]
    assert work.runs == 1


@pytest.mark.anyio
async def test_awaiting_what_has_landed_returns_at_once() -> None:
    """A flight that is over is no reason to wait, and its error is still everybody's."""
    work = Work(StorageError("no disk"))
    work.gate.set()
    flight = SingleFlight(work, ceiling=60).join()
    flight.settle(10)
    with pytest.raises(StorageError):
        await flight.await_landing()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_loop_that_ends_first_is_not_missed(backend: str) -> None:
    """The flight outlives the loop of its only waiter, lands without a warning, and a second loop uses the next one."""
    work = Work()
    single = SingleFlight(work, ceiling=60)

    async def impatient() -> None:
        with anyio.move_on_after(0.02):
            await single.join().await_landing()

    anyio.run(impatient, backend=backend)
    flight = single.current()
    assert flight is not None
    work.gate.set()
    flight.wait(10)
    gc.collect()

    async def patient() -> None:
        await single.join().await_landing()

    anyio.run(patient, backend=backend)
    assert work.runs == 2


def test_threads_and_loops_of_both_kinds_share_a_flight() -> None:
    """Threads, two asyncio loops and a trio loop wait for one and the same attempt."""
    work = Work()
    single = SingleFlight(work, ceiling=60)
    single.join()

    async def awaiting() -> None:
        await single.join().await_landing()

    callers = [
        threading.Thread(target=lambda: single.join().wait(20)),
        threading.Thread(target=lambda: asyncio.run(awaiting())),
        threading.Thread(target=lambda: asyncio.run(awaiting())),
        threading.Thread(target=lambda: anyio.run(awaiting, backend="trio")),
    ]
    for caller in callers:
        caller.start()
    time.sleep(0.2)
    work.gate.set()
    for caller in callers:
        caller.join(20)
        assert not caller.is_alive()
    assert work.runs == 1


def test_a_stuck_flight_is_replaced_once() -> None:
    """A flight above the ceiling is given up; all who come then elect one replacement, which a late landing leaves alone."""
    stuck, works = Work(), Work()
    order = iter([stuck, works])

    def work() -> Aftermath:
        return next(order)()

    single = SingleFlight(work, ceiling=0.05)
    first = single.join()
    assert single.join() is first
    time.sleep(0.1)
    single._ceiling = 60
    first.born -= 100
    flights = at_once(50, single.join)
    assert len({id(flight) for flight in flights}) == 1
    second = flights[0]
    assert isinstance(second, Flight)
    assert second is not first
    stuck.gate.set()
    first.wait(10)
    assert single.current() is second
    works.gate.set()
    second.wait(10)
    assert single.current() is None
    assert (stuck.runs, works.runs) == (1, 1)


def test_the_replacement_of_a_stuck_flight_is_elected() -> None:
    """Whoever finds a flight stuck after another has replaced it joins that replacement instead of flying too."""
    work = Work()
    single = SingleFlight(work, ceiling=60)
    stuck, other = single.join(), Flight()
    stuck.born -= 100
    assert stuck.heir(other) is other
    assert single.join() is other
    work.gate.set()
    stuck.wait(10)
    assert work.runs == 1


def test_landing_twice_changes_nothing() -> None:
    """A flight that was given up in its launch may still land: the first outcome stands."""
    flight = Flight()
    flight.land(None)
    flight.land(StorageError("too late"))
    flight.wait(0)


def test_whoever_is_part_of_a_flight_knows() -> None:
    """On the flight's thread and wherever its context goes along, in threads and tasks; nowhere else, and not when landed."""
    seen: list[bool] = []

    def work() -> Aftermath:
        def look() -> None:
            seen.append(single.join().aboard)

        look()
        for target in (contextvars.copy_context().run, lambda call: call()):
            thread = threading.Thread(target=target, args=(look,))
            thread.start()
            thread.join(10)

        async def task() -> None:
            await asyncio.to_thread(look)

        asyncio.run(task())
        return None, lambda: seen.append(flight.aboard)

    gate = threading.Lock()
    single = SingleFlight(lambda: work() if gate.acquire(timeout=10) else (None, lambda: None), ceiling=60)
    with gate:
        flight = single.join()
    flight.wait(10)
    eventually(lambda: len(seen) == 5)
    assert seen == [True, True, False, True, False]
    assert not flight.aboard


def test_where_no_thread_starts_the_work_is_done_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that shuts down starts no thread: the caller does the work itself and keeps its thread's name."""

    def no_more(*_: object) -> int:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    work = Work()
    work.gate.set()
    monkeypatch.setattr(_thread, "start_new_thread", no_more)
    name = threading.current_thread().name
    flight = SingleFlight(work, ceiling=60).join()
    assert flight.landed
    flight.wait(0)
    assert work.told == [name]


def test_ctrl_c_in_the_very_launch_leaves_no_dead_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt between the election and the start frees the place: nobody waits for a flight that never took off."""
    start = _thread.start_new_thread

    def interrupted(*_: object) -> int:
        monkeypatch.setattr(_thread, "start_new_thread", start)
        raise KeyboardInterrupt

    work = Work()
    work.gate.set()
    single = SingleFlight(work, ceiling=60)
    monkeypatch.setattr(_thread, "start_new_thread", interrupted)
    with pytest.raises(KeyboardInterrupt):
        single.join()
    assert single.current() is None
    single.join().wait(10)
    assert work.runs == 1


def test_ctrl_c_in_the_very_launch_wakes_whoever_has_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has joined between the election and the start: the flight is over for them too, and they ask again."""
    joined: list[Flight] = []
    single = SingleFlight(Work(), ceiling=60)

    def interrupted(*_: object) -> int:
        joined.append(single.join())
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", interrupted)
        with pytest.raises(KeyboardInterrupt):
            single.join()
    assert joined[0].landed
    joined[0].wait(0)


def test_whoever_is_woken_gets_a_new_flight() -> None:
    """A flight has left the air when it lands: to join from the landing itself is to start the next one."""
    work = Work()
    single = SingleFlight(work, ceiling=60)
    first = single.join()
    again: list[Flight] = []
    first._outcome.add_done_callback(lambda _: again.append(single.join()))
    work.gate.set()
    eventually(lambda: again)
    assert again[0] is not first
    again[0].wait(10)
    assert work.runs == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_does_not_wait_for_its_parents_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forked in mid-flight it has none in the air, and leaves when it is done; the parent's goes on."""
    monkeypatch.setattr(flight_module, "_FORK_PATIENCE", 0.0)
    work = Work()
    flight = SingleFlight(work, ceiling=60).join()
    assert flight in flight_module._in_air.values()

    def leave() -> None:
        assert not flight_module._in_air
        flight_module._wait_at_exit()

    assert in_a_fork(leave).wait() == 0
    assert not flight.landed
    work.gate.set()
    flight.wait(10)


def test_a_fork_waits_for_the_imports_of_a_flight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its patience with the flight itself, a fork lets an import end, whose lock the child would inherit."""
    (tmp_path / "slow_to_import.py").write_text("import core_tools\ncore_tools.IMPORT_GATE.wait(20)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(flight_module, "_FORK_PATIENCE", 0.0)
    IMPORT_GATE.clear()
    ended: list[bool] = []

    def work() -> Aftermath:
        importlib.import_module("slow_to_import")
        assert finished.wait(20)
        return None, lambda: None

    finished = threading.Event()
    flight = SingleFlight(work, ceiling=60).join()
    eventually(flight_module._importing)

    def end() -> None:
        ended.append(True)
        IMPORT_GATE.set()

    threading.Timer(0.05, end).start()
    flight_module.let_flights_land()
    assert ended
    assert not flight.landed
    finished.set()
    flight.wait(10)


def test_a_flight_may_fork_itself() -> None:
    """A transport that forks does not wait for the flight that it is part of."""

    def work() -> Aftermath:
        flight_module.let_flights_land()
        return None, lambda: None

    single = SingleFlight(work, ceiling=60)
    started = time.monotonic()
    single.join().wait(10)
    assert time.monotonic() - started < flight_module._FORK_PATIENCE


def test_tracers_and_profilers_see_the_flight() -> None:
    """Coverage and profilers that were set for all threads are handed to the raw one too."""
    seen: set[str] = set()
    profiled: set[str] = set()

    def trace(frame: FrameType, _event: str, _argument: Any) -> Any:
        seen.add(frame.f_code.co_name)

    def profile(frame: FrameType, _event: str, _argument: Any) -> None:
        profiled.add(frame.f_code.co_name)

    def marked_work() -> Aftermath:
        return None, lambda: None

    before, profiler = threading.gettrace(), threading.getprofile()
    threading.settrace(trace)
    threading.setprofile(profile)
    try:
        SingleFlight(marked_work, ceiling=60).join().wait(10)
    finally:
        threading.settrace(before)
        threading.setprofile(profiler)
    assert "marked_work" in seen
    assert "marked_work" in profiled
    assert sys.gettrace() is not trace


@pytest.mark.anyio
async def test_blocking_work_beside_a_loop_brings_its_error_home() -> None:
    """`run_on_flight` waits for work on a thread of its own, and raises what the work raised."""
    threads: list[int] = []
    await run_on_flight(lambda: threads.append(threading.get_ident()))
    assert threads != [threading.get_ident()]

    def failing() -> None:
        raise StorageError("no disk")

    with pytest.raises(StorageError, match="no disk"):
        await run_on_flight(failing)

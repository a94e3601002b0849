"""One attempt at a time, joined by everybody: threads, asyncio tasks on any loop, trio tasks, and nobody at all.

The first caller who needs something launches a *flight*: one short-lived thread that runs the blocking work once. Whoever
comes while it is in the air joins it. Four properties carry the rest of the package (docs/decisions/0001):

    it belongs to nobody     a waiter that is cancelled, times out or dies leaves; the flight lands and its result is kept
    no lock                  the leader is elected by one atomic dictionary operation, so there is nothing that a fork, a
                             signal handler or a garbage collection could find locked
    keyed by process         a forked child finds no flight of its own and starts one; the parent's goes on in the parent
    outcomes are values      every waiter raises its own copy of an error; one shared exception would grow a traceback with
                             each of them

The thread is started raw: `threading.Thread.start` waits until the new thread has run, which on a loop beside busy threads
takes tens of milliseconds.
"""

import _thread
import atexit
import contextlib
import contextvars
import copy
import encodings.idna  # noqa: F401  # the first name lookup would import it: see `let_flights_land`
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from types import FrameType
from typing import Any, Final

from .errors import TokenTimeout

__all__ = ["Aftermath", "Flight", "SingleFlight", "let_flights_land", "run_on_flight"]

_FORK_PATIENCE: Final = 1.0  # seconds that a fork waits for a login that is on its way
_IMPORT_PATIENCE: Final = 2.0  # seconds that it waits for the imports that one has caused
_LOOK: Final = 0.001
_EXIT_PATIENCE: Final = 10.0  # seconds that a leaving interpreter waits for a login that is on its way
_TELLING_PATIENCE: Final = 1.0  # ... and for a listener that is being told of it
_in_air: "dict[int, Flight]" = {}
_telling: dict[int, threading.Event] = {}
# Goes along wherever a transport continues: into its tasks, and into threads that are given the context.
_flying: "contextvars.ContextVar[Flight | None]" = contextvars.ContextVar("_flying", default=None)

Aftermath = tuple[BaseException | None, Callable[[], None]]
"""A flight's error, and what is to be done once it has landed."""


class Flight:
    """One attempt on its way. It lands whether or not anybody waits for it."""

    def __init__(self) -> None:
        self.born = time.monotonic()
        self._outcome: Future[BaseException | None] = Future()
        self._heirs: dict[None, Flight] = {}

    @property
    def landed(self) -> bool:
        """Whether it is over."""
        return self._outcome.done()

    @property
    def aboard(self) -> bool:
        """Whether the caller is part of its work, and would wait for itself."""
        return not self.landed and _flying.get() is self

    def heir(self, candidate: "Flight") -> "Flight":
        """Return the one flight that replaces this stuck one: the candidate, unless another was faster."""
        return self._heirs.setdefault(None, candidate)

    def land(self, error: BaseException | None) -> None:
        """Wake all waiters; with an error, each of them raises a copy of it."""
        if not self._outcome.done():
            self._outcome.set_result(error)

    def wait(self, timeout: float | None) -> None:
        """Block until it has landed, at most `timeout` seconds (None: without an end); raise its error if it has one.

        Raises:
            TokenTimeout: It has not landed in time. It goes on.
        """
        try:
            error = self._outcome.result(None if timeout is None else min(timeout, threading.TIMEOUT_MAX))
        except FutureTimeoutError:
            raise TokenTimeout(f"There was no token within {timeout:.1f} s.") from None
        _raise_copy(error)

    def settle(self, timeout: float) -> None:
        """Block until it has landed, at most `timeout` seconds, however it ends."""
        with contextlib.suppress(FutureTimeoutError):
            self._outcome.result(timeout)

    async def await_landing(self) -> None:
        """Wait until it has landed, on any asyncio loop or under trio, without blocking it; raise its error if any."""
        if not self._outcome.done():
            await _landing(self._outcome)
        _raise_copy(self._outcome.result())


class SingleFlight:
    """Runs `work` once however many join.

    Args:
        work: What a flight does. It returns what is to be done after the landing (telling listeners, who may then call
            back); its exception becomes the flight's error.
        ceiling: Seconds after which a flight counts as stuck (a name lookup that never ends) and the next one may start.
    """

    def __init__(self, work: Callable[[], Aftermath], *, ceiling: float) -> None:
        self._work = work
        self._ceiling = ceiling
        self._in_air: dict[int, Flight] = {}

    def current(self) -> Flight | None:
        """Return the flight in the air, or None."""
        return self._in_air.get(os.getpid())

    def join(self) -> Flight:
        """Return the flight in the air, launching one if there is none. Never blocks; any thread, any loop."""
        mine = Flight()
        pid = os.getpid()
        try:
            flight = self._in_air.setdefault(pid, mine)
            if flight is not mine and mine.born - flight.born > self._ceiling:
                flight = flight.heir(mine)
                if flight is mine:
                    self._in_air[pid] = mine
            if flight is mine:
                self._launch(mine)
        except BaseException:
            # Ctrl-C between the election and the start: nobody may wait for what never takes off.
            self._leave_air(mine)
            mine.land(None)
            raise
        return flight

    def _launch(self, flight: Flight) -> None:
        _in_air[id(flight)] = flight
        try:
            _thread.start_new_thread(self._take_off, (flight, threading.gettrace(), threading.getprofile()))
        except RuntimeError:
            # An interpreter that is shutting down starts no thread any more; what is left to do is done here.
            contextvars.copy_context().run(self._fly, flight)

    def _take_off(
        self, flight: Flight, trace: Any, profile: Any
    ) -> None:  # pragma: no cover  # before the tracer
        if trace is not None:
            sys.settrace(trace)
        if profile is not None:
            sys.setprofile(profile)
        threading.current_thread().name = "tradovate_auth flight"
        self._fly(flight)

    def _fly(self, flight: Flight) -> None:
        _flying.set(flight)
        error: BaseException | None
        try:
            error, afterwards = self._work()
        except BaseException as raised:  # noqa: BLE001  # it is the waiters', whatever it is
            error, afterwards = raised, _nothing
        # Out of the air before it lands: whoever is woken and joins again gets a new flight.
        told = _telling[id(flight)] = threading.Event()
        self._leave_air(flight)
        flight.land(error)
        try:
            afterwards()
        finally:
            _telling.pop(id(flight), None)
            told.set()

    def _leave_air(self, flight: Flight) -> None:
        if self._in_air.get(os.getpid()) is flight:
            self._in_air.pop(os.getpid(), None)
        _in_air.pop(id(flight), None)


def _nothing() -> None:
    return


async def run_on_flight(work: Callable[[], None]) -> None:
    """Run something that blocks on a thread of its own, and wait for it without blocking the loop, asyncio or trio."""

    def once() -> Aftermath:
        work()
        return None, _nothing

    await SingleFlight(once, ceiling=math.inf).join().await_landing()


def _raise_copy(error: BaseException | None) -> None:
    if error is None:
        return
    try:
        own = copy.copy(error)
    except Exception:  # noqa: BLE001  # a foreign exception, with a constructor that its `args` do not fit
        raise error from None
    own.__cause__ = error
    raise own


async def _landing(outcome: "Future[BaseException | None]") -> None:
    import asyncio  # whoever waits on a loop has it; whoever does not need not load it

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        await _landing_in_trio(outcome)
        return
    woken: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    def landed(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile, and its waiter with it
            loop.call_soon_threadsafe(wake)

    outcome.add_done_callback(landed)
    await woken


async def _landing_in_trio(outcome: "Future[BaseException | None]") -> None:
    import trio

    token, woken = trio.lowlevel.current_trio_token(), trio.Event()

    def landed(_: object) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(woken.set)

    outcome.add_done_callback(landed)
    await woken.wait()


def _importing() -> bool:
    """Return whether another thread is in the middle of an import."""
    here = threading.get_ident()
    for thread_id, innermost in sys._current_frames().items():  # noqa: SLF001  # documented, the underscore is a warning
        frame: FrameType | None = innermost if thread_id != here else None
        while frame is not None:
            if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
                return True
            frame = frame.f_back
    return False


def let_flights_land() -> None:
    """Before a fork: let a login land if it is quick. Blocks for a second, or three where a flight is still importing.

    The child then shares its session instead of opening one more.

    And it is the beginning of a flight that no child should inherit: the locks of half-imported modules and of OpenSSL, which
    is loading certificates, would be held there for ever. What takes longer than this is waiting for the server.
    """
    _settle_all(_FORK_PATIENCE)
    deadline = time.monotonic() + _IMPORT_PATIENCE
    while _in_air and _importing() and time.monotonic() < deadline:
        time.sleep(_LOOK)


def _settle_all(patience: float) -> None:
    deadline = time.monotonic() + patience
    for flight in list(_in_air.values()):
        if not flight.aboard:
            flight.settle(max(deadline - time.monotonic(), 0.0))


def _wait_at_exit() -> None:
    """Let a login that is on its way land and be saved, and be told: the session it opens would be lost otherwise."""
    _settle_all(_EXIT_PATIENCE)
    deadline = time.monotonic() + _TELLING_PATIENCE
    for told in list(_telling.values()):
        told.wait(max(deadline - time.monotonic(), 0.0))


def _forget_flights() -> None:
    """In the child of a fork: what is in the air, or being told, is its parent's."""
    _in_air.clear()
    _telling.clear()


atexit.register(_wait_at_exit)
if hasattr(os, "register_at_fork"):  # pragma: no branch  # the other way on Windows
    os.register_at_fork(after_in_child=_forget_flights)

"""What the tests of the concurrent core share: a world whose time a test moves by hand, callers, and doubles that fail."""

import contextlib
import http.client
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tradovate_auth import AccessToken, Credentials, StorageError, TokenProvider, TransportError
from tradovate_auth.events import Event
from tradovate_auth.storage import Lease, MemoryStorage, Record
from tradovate_auth.testing import Emulator, FakeClock
from tradovate_auth.testing.emulator import Fault
from tradovate_auth.transport import Call, Reply

__all__ = [
    "IMPORT_GATE",
    "FrailStorage",
    "GatedTransport",
    "Recorder",
    "SocketTransport",
    "World",
    "at_once",
    "eventually",
    "logins",
    "renewals",
    "run_script",
    "timer_threads",
]

T = TypeVar("T")
E = TypeVar("E", bound=Event)
IMPORT_GATE = threading.Event()  # what a module waits for while it is imported, in a test of just that
PATIENCE = 20.0  # real seconds after which something that should have happened has not


def eventually(condition: Callable[[], object], what: str = "the condition") -> None:
    """Block until the condition holds; fail if it does not within twenty seconds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true"
        time.sleep(0.003)


def at_once(count: int, call: Callable[[], T]) -> "list[T | Exception]":
    """Make the same call in so many threads at the same moment; return what each returned or raised."""
    barrier = threading.Barrier(count)

    def one(_: int) -> "T | Exception":
        barrier.wait(PATIENCE)
        try:
            return call()
        except Exception as error:  # noqa: BLE001  # it is what the caller asks for
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def timer_threads() -> int:
    """Return how many timers of providers run in this process."""
    return sum(thread.name == "tradovate_auth schedule" for thread in threading.enumerate())


def run_script(script: str, *arguments: str, timeout: float = 40.0) -> "subprocess.CompletedProcess[str]":
    """Run a Python script in a process of its own, warnings being errors; return how it ended and what it printed."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "PYTHONPATH": os.path.dirname(__file__)},  # noqa: PTH120  # this module, for the script
    )


class Recorder:
    """A listener that keeps every event."""

    def __init__(self) -> None:
        self.all: list[Event] = []
        self.threads: list[str] = []

    def __call__(self, event: Event) -> None:
        """Keep the event, and the name of the thread it came on."""
        self.all.append(event)
        self.threads.append(threading.current_thread().name)

    @property
    def names(self) -> list[str]:
        """The events' class names, in order."""
        return [type(event).__name__ for event in list(self.all)]

    def expect(self, *names: str) -> None:
        """Block until exactly these events have come, in this order: they come after the landing that waiters wake from."""
        eventually(lambda: len(self.all) >= len(names), f"{names} instead of {self.names}")
        assert self.names == list(names), self.names

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of one kind."""
        return [event for event in list(self.all) if isinstance(event, kind)]

    def wait_for(self, kind: type[E], count: int = 1) -> E:
        """Block until there are so many events of a kind; return the last one."""
        eventually(lambda: len(self.of(kind)) >= count, f"{count} x {kind.__name__}")
        return self.of(kind)[count - 1]


class SocketTransport:
    """A transport over a plain socket; it remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def send(self, call: Call, timeout: float) -> Reply:
        """See `Transport.send`."""
        self.calls.append(call)
        parts = urlsplit(call.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
        with contextlib.closing(connection):
            try:
                connection.connect()
            except OSError as error:
                raise TransportError(f"no connection: {type(error).__name__}", None, None, False) from None
            try:
                connection.request(call.method, parts.path, call.body, dict(call.headers))
                response = connection.getresponse()
                return Reply(response.status, dict(response.getheaders()), response.read())
            except (OSError, http.client.HTTPException) as error:
                raise TransportError(f"no answer: {type(error).__name__}", None, None, True) from None


class GatedTransport(SocketTransport):
    """Lets calls through only while its gate is open; says when one has arrived there."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.arrived = threading.Event()

    def send(self, call: Call, timeout: float) -> Reply:
        """See `Transport.send`."""
        self.arrived.set()
        assert self.gate.wait(PATIENCE)
        return super().send(call, timeout)


class FrailStorage(MemoryStorage):
    """A memory storage that fails on demand."""

    def __init__(self, *, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.broken: set[str] = set()
        """Which of now, load, save and exclusive fail."""
        self.loads = 0

    def _check(self, what: str) -> None:
        if what in self.broken:
            raise StorageError(f"{what} failed")

    def now(self) -> float:
        """See `Storage.now`."""
        self._check("now")
        return super().now()

    def load(self, key: str) -> Record | None:
        """See `Storage.load`."""
        self.loads += 1
        self._check("load")
        return super().load(key)

    def save(self, key: str, record: Record) -> bool:
        """See `Storage.save`."""
        self._check("save")
        return super().save(key, record)

    @contextlib.contextmanager
    def exclusive(self, key: str, timeout: float, *, seen: int | None = None) -> Iterator[Lease]:
        """See `Storage.exclusive`."""
        self._check("exclusive")
        with super().exclusive(key, timeout, seen=seen) as lease:
            yield lease


@dataclass
class World:
    """A server, a storage and providers that go by one clock, which only the test moves."""

    clock: FakeClock
    server: Emulator
    storage: FrailStorage
    events: Recorder = field(default_factory=Recorder)
    transport: SocketTransport = field(default_factory=SocketTransport)
    opened: list[TokenProvider] = field(default_factory=list)

    def provider(self, **options: Any) -> TokenProvider:
        """Return a provider of this world, closed at its end. On demand unless asked otherwise: no timer interferes."""
        credentials = Credentials(**{**self.server.credentials, **options.pop("who", {})})
        defaults = {
            "environment": self.server.url,
            "storage": self.storage,
            "transport": self.transport,
            "renewal": "on-demand",
            "on_event": self.events,
            "clock": self.clock,
        }
        provider = TokenProvider(credentials, **{**defaults, **options})
        self.opened.append(provider)
        return provider

    def failing_renewal(self) -> tuple[TokenProvider, AccessToken, threading.Event]:
        """Return a provider whose stale token is being renewed, in vain; that token; and the gate where the call waits."""
        transport = GatedTransport()
        transport.gate.set()
        provider = self.provider(transport=transport)
        token = provider.get()
        self.clock.advance(4200)
        self.server.inject(Fault("renewal", "status", status=503))
        transport.gate.clear()
        transport.arrived.clear()
        assert provider.get() is token
        assert transport.arrived.wait(PATIENCE)
        return provider, token, transport.gate

    @contextlib.contextmanager
    def time_flies(self, step: float = 0.5) -> Iterator[None]:
        """Let the clock run, so many seconds in each real millisecond."""
        stop = threading.Event()

        def run() -> None:
            while not stop.wait(0.001):
                self.clock.advance(step)

        runner = threading.Thread(target=run)
        runner.start()
        try:
            yield
        finally:
            stop.set()
            runner.join()

    def settled(self, provider: TokenProvider) -> None:
        """Block until no flight of the provider is in the air."""
        eventually(lambda: provider._keeper.flight.current() is None, "the end of the flight")


def logins(world: World) -> int:
    """Return how many login calls the server has received."""
    return world.server.counts.logins


def renewals(world: World) -> int:
    """Return how many renewal calls the server has received."""
    return world.server.counts.renewals

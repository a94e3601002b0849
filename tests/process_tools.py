"""Real processes that share one session through a storage, and the two kinds of storage that they can share it through.

The server is a thread of the test. A process tells what it has to say in lines of JSON, and goes on when it is told to. All
are forked by one process that has imported what they need and done nothing else: a crowd that starts within a moment is a
worse stampede than one whose members take their turns at importing.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Self

import pytest
from redis_servers import RedisServer, redis_server

from tradovate_auth.testing import Emulator

__all__ = [
    "CALLS",
    "GET",
    "KINDS",
    "LEASE",
    "FilePlace",
    "Machine",
    "Nursery",
    "Place",
    "Process",
    "RedisPlace",
    "nursery",
    "place",
]

LEASE: Final = 1.0
"""Seconds after which a Redis forgets a holder that does nothing any more; so short only here."""

_NURSERY = """
import hashlib, json, os, queue, select, socket, sys, time
from tradovate_auth import Credentials, LoginRefused, StorageError, TokenProvider, TradovateAuthError
from tradovate_auth.requests import RequestsTransport, TradovateAuth
import redis, requests

orders = socket.socket(fileno=int(sys.argv[1]))
while True:
    order, opened, _, _ = socket.recv_fds(orders, 2**16, 2)
    if not order:
        orders.close()
        sys.exit()
    order = json.loads(order)
    if "ended" in order:
        answer = os.waitstatus_to_exitcode(os.waitpid(order["ended"], 0)[1])
    else:
        answer = os.fork()
        if not answer:
            break
    for each in opened:
        os.close(each)
    orders.send(json.dumps(answer).encode())
orders.close()
for number, each in enumerate(opened):
    os.dup2(each, number)
    os.close(each)
given = order["given"]
os.umask(given["umask"])

def tell(**what):
    os.write(1, json.dumps(what).encode() + b"\\n")  # in one piece: a process and its forks may tell at once

def wait():
    tell(waiting=True)
    sys.stdin.readline()

def told_to_go_on(seconds):
    return bool(select.select([sys.stdin], [], [], seconds)[0])

def tell_token(token):
    tell(generation=token.generation, hash=hashlib.sha256(token.value.encode()).hexdigest()[:10])

def make(**options):
    who = Credentials(**{**given["credentials"], **options.pop("who", {})})
    defaults = {"environment": given["url"], "storage": given["storage"], "transport": RequestsTransport()}
    return TokenProvider(who, **{**defaults, **options})

exec(order["script"])
"""
GET = """
provider = make()
wait()
tell_token(provider.get(60))
"""
"""Gets a token, and ends."""
CALLS = """
events = queue.SimpleQueue()
provider = make(on_event=lambda event: events.put(type(event).__name__))
session = requests.Session()
session.auth = TradovateAuth(provider)
session.headers["X-Bot"] = str(os.getpid())
wait()
wrong, calls = [], 0
while not told_to_go_on(given.get("pause", 0.1)):
    try:
        status = session.get(given["url"] + "/account/list", timeout=20).status_code
    except (TradovateAuthError, OSError) as error:
        status = repr(error)
    calls += 1
    if calls == 1:
        tell(calling=True)
    if status != 200:
        wrong.append(status)
tell(calls=calls, wrong=wrong, events=[events.get() for _ in range(events.qsize())])
provider.close()
session.close()
"""
"""Makes calls until it is told to go on; tells when it has begun, and how many there were and which went wrong."""


class Nursery:
    """The process that all others are forked from."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._orders, theirs = socket.socketpair()
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", _NURSERY, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._orders.close()
        self._popen.wait()

    def order(self, what: dict[str, Any], opened: list[int]) -> int:
        """Give an order, with open files; return the answer."""
        with self._lock:
            socket.send_fds(self._orders, [json.dumps(what).encode()], opened)
            answer = self._orders.recv(64)
        assert answer, "the nursery has ended"
        return int(json.loads(answer))


class Process:
    """A script in a process of its own."""

    def __init__(self, nursery: Nursery, script: str, given: dict[str, Any]) -> None:
        self._nursery = nursery
        (heard, self._told), (self._heard, told) = os.pipe(), os.pipe()
        self.pid = nursery.order({"script": script, "given": given}, [heard, told])
        os.close(heard)
        os.close(told)
        self._lines = os.fdopen(self._heard)
        self._status: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is None:
            self.send(signal.SIGKILL)
            self.ended()
        self._lines.close()
        os.close(self._told)

    def hear(self) -> dict[str, Any]:
        """Block until the process tells something, and return it."""
        line = self._lines.readline()
        assert line, f"process {self.pid} has ended"
        told: dict[str, Any] = json.loads(line)
        return told

    def ready(self) -> None:
        """Block until the process waits for a word."""
        assert self.hear() == {"waiting": True}

    def go(self) -> None:
        """Let the process go on."""
        os.write(self._told, b"\n")

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        os.kill(self.pid, number)

    def ended(self) -> int:
        """Block until the process has ended, and return its status."""
        self._status = self._nursery.order({"ended": self.pid}, [])
        return self._status


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Yield where processes come from."""
    with Nursery() as made:
        yield made


class FilePlace:
    """A folder that is not there yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = folder.as_uri()

    def holder(self) -> int:
        """Return the process that holds the lock over exchanges, or did so last; 0 if none did."""
        signatures = [path.read_text() for path in self.folder.glob("*.lock") if ".write." not in path.name]
        return int("".join(signatures) or 0)


class RedisPlace:
    """A Redis with nothing in it."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.url = f"{server.url}?lease={LEASE}"

    def holder(self) -> int:
        """Return the process that holds the lease over exchanges; 0 if none does."""
        with self.server.client(decode_responses=True) as client:
            names = client.keys("*:lease")
            holders = [client.get(name) for name in names]
        return int(str(holders[0]).split("/")[-2]) if holders and holders[0] else 0


Place = FilePlace | RedisPlace
KINDS: Final = ("file", "redis")
"""Where processes can share a session."""


@contextmanager
def place(kind: str, folder: Path) -> Iterator[Place]:
    """Yield a storage in which nothing is.

    Args:
        kind: One of `KINDS`.
        folder: Where it may lie.
    """
    if kind == "file":
        yield FilePlace(folder / "deep" / "sessions")
        return
    with redis_server() as server:
        yield RedisPlace(server)


class Machine:
    """A server, a storage, and processes that know of both and not of each other."""

    def __init__(self, nursery: Nursery, server: Emulator, url: str) -> None:
        self._nursery = nursery
        self.server = server
        self.url = url
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def process(self, script: str, *, umask: int = 0o022, **more: Any) -> Process:
        """Start a process; it is killed with this block at the latest."""
        given = {
            "url": self.server.url,
            "storage": self.url,
            "credentials": self.server.credentials,
            "umask": umask,
            **more,
        }
        return self._stack.enter_context(Process(self._nursery, script, given))

    def at_once(self, count: int, script: str, **more: Any) -> list[Process]:
        """Start so many processes, and let them go on together when all of them wait; each has another umask."""
        processes = [
            self.process(script, umask=(0o000, 0o077)[number % 2], **more) for number in range(count)
        ]
        for process in processes:
            process.ready()
        for process in processes:
            process.go()
        return processes

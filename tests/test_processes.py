"""Real processes that share one session through a folder: started at once, killed, stopped, restarted, forked.

The server is a thread of the test. A process tells what it has to say in lines of JSON, and goes on when it is told to.
"""

import json
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest
from core_tools import eventually

from tradovate_auth.storage import FileStorage
from tradovate_auth.testing import Emulator
from tradovate_auth.testing.emulator import Fault

PRELUDE = """
import json, os, queue, sys
given = json.loads(sys.argv[1])
os.umask(given["umask"])
from tradovate_auth import Credentials, LoginRefused, StorageError, TokenProvider, TradovateAuthError
from tradovate_auth.events import StorageLost
from tradovate_auth.requests import RequestsTransport, TradovateAuth
from tradovate_auth.testing.emulator import short_hash
import requests

def tell(**what):
    print(json.dumps(what), flush=True)

def wait():
    tell(waiting=True)
    sys.stdin.readline()

def tell_token(token):
    tell(generation=token.generation, hash=short_hash(token.value))

def make(**options):
    who = Credentials(**{**given["credentials"], **options.pop("who", {})})
    return TokenProvider(
        who, environment=given["url"], storage=given["storage"], transport=RequestsTransport(), **options
    )

"""
GET = """
provider = make()
wait()
tell_token(provider.get(60))
"""


class Process:
    """A script in a process of its own."""

    def __init__(self, script: str, given: dict[str, Any]) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PRELUDE + script, json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._popen.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.kill()
        self._popen.__exit__(None, None, None)

    def hear(self) -> dict[str, Any]:
        """Block until the process tells something, and return it."""
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        assert line, f"process {self.pid} has ended"
        told: dict[str, Any] = json.loads(line)
        return told

    def ready(self) -> None:
        """Block until the process waits for a word."""
        assert self.hear() == {"waiting": True}

    def go(self) -> None:
        """Let the process go on."""
        assert self._popen.stdin is not None
        self._popen.stdin.write("\n")
        self._popen.stdin.flush()

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self._popen.send_signal(number)

    def ended(self) -> int:
        """Block until the process has ended by itself, and return its status."""
        return self._popen.wait(30)


class Machine:
    """A server, a folder, and processes that know of both and not of each other."""

    def __init__(self, server: Emulator, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self._stack = ExitStack()

    def process(self, script: str, *, umask: int = 0o022, **more: Any) -> Process:
        """Start a process; it ends with the test at the latest."""
        given = {
            "url": self.server.url,
            "storage": self.folder.as_uri(),
            "credentials": self.server.credentials,
            "umask": umask,
            **more,
        }
        return self._stack.enter_context(Process(script, given))

    def at_once(self, count: int, script: str) -> list[Process]:
        """Start so many processes, and let them go on together when all of them wait; each has another umask."""
        processes = [self.process(script, umask=(0o000, 0o077)[number % 2]) for number in range(count)]
        for process in processes:
            process.ready()
        for process in processes:
            process.go()
        return processes

    def holder(self) -> int:
        """Return the process that holds the lock over exchanges, or did so last; 0 if none did."""
        signatures = [path.read_text() for path in self.folder.glob("*.lock") if ".write." not in path.name]
        return int("".join(signatures) or 0)

    def close(self) -> None:
        """Kill what still runs."""
        self._stack.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Yield a server and a folder that is not there yet."""
    with Emulator() as server:
        made = Machine(server, tmp_path / "deep" / "sessions")
        yield made
        made.close()


def test_a_cold_start_of_sixteen(machine: Machine) -> None:
    """Of 16 processes that start at once one logs in, and all have its token; nobody else can read what they wrote."""
    machine.server.configure(login_delay=0.5)
    processes = machine.at_once(16, GET)
    told = [process.hear() for process in processes]
    assert {json.dumps(each) for each in told} == {
        json.dumps({"generation": 1, "hash": machine.server.sessions[0].token_hash})
    }
    assert machine.server.counts.logins == 1
    modes = {stat.S_IMODE(path.stat().st_mode) for path in machine.folder.iterdir()}
    folders = {stat.S_IMODE(path.stat().st_mode) for path in (machine.folder, machine.folder.parent)}
    assert (modes, folders) == ({0o600}, {0o700})


CALLS = """
import time
session = requests.Session()
session.auth = TradovateAuth(make())
wait()
end, wrong, calls = time.monotonic() + 12, [], 0
while time.monotonic() < end:
    try:
        status = session.get(given["url"] + "/account/list", timeout=20).status_code
    except (TradovateAuthError, OSError) as error:
        status = repr(error)
    calls += 1
    if status != 200:
        wrong.append(status)
    time.sleep(0.05)
tell(calls=calls, wrong=wrong)
session.auth.close()
session.close()
"""


def test_eight_on_a_token_that_ends_every_four_seconds(machine: Machine) -> None:
    """Eight processes work for three lifetimes of a token whose predecessor dies with each renewal: no call fails, one
    login is made, and no more renewals than one process would need.
    """
    machine.server.configure(lifetime=4.0, old_token_grace=0.0)
    told = [process.hear() for process in machine.at_once(8, CALLS)]
    assert [each["wrong"] for each in told] == [[]] * 8
    assert min(each["calls"] for each in told) > 20
    counts = machine.server.counts
    assert (counts.logins, counts.evictions) == (1, 0)
    # Due 3 to 3.2 seconds after each grant: three or four of them, and one more for a slow start.
    assert 3 <= counts.renewals == counts.renewals_granted <= 5


def test_a_leader_that_is_killed(machine: Machine) -> None:
    """When the process that logs in is killed after the server has opened its session, another one logs in at once, and
    all that are left have one token.
    """
    machine.server.inject(Fault("login", "late"))
    processes = machine.at_once(6, GET)
    eventually(lambda: machine.server.counts.logins_granted, "the first login")
    leader = machine.holder()
    killed = [process for process in processes if process.pid == leader]
    assert len(killed) == 1
    killed[0].send(signal.SIGKILL)
    told = [process.hear() for process in processes if process.pid != leader]
    assert {each["generation"] for each in told} == {1}
    assert {each["hash"] for each in told} == {machine.server.sessions[1].token_hash}
    assert machine.server.counts.logins == 2


TRIES = """
provider = make(who={"password": "wrong"})
wait()
refused = 0
for _ in range(3):
    try:
        provider.get(60)
    except LoginRefused:
        refused += 1
tell(refused=refused)
"""


def test_a_wrong_password(machine: Machine) -> None:
    """Of eight processes that try a wrong password three times each, one asks the server once; all are told. The
    right one works at once.
    """
    told = [process.hear() for process in machine.at_once(8, TRIES)]
    assert told == [{"refused": 3}] * 8
    assert (machine.server.counts.logins, machine.server.counts.logins_refused) == (1, 1)
    (corrected,) = machine.at_once(1, GET)
    assert corrected.hear()["generation"] == 1
    assert (machine.server.counts.logins, machine.server.counts.logins_granted) == (2, 1)


LEADER = """
provider = make(renewal="on-demand")
tell_token(provider.get(60))
wait()
tell_token(provider.renew(60))
"""
FOLLOWER = """
events = queue.SimpleQueue()
provider = make(renewal="on-demand", timeout=0.1, on_event=events.put)
tell_token(provider.get(60))
provider.reset()  # forgets that one has been asked for a moment ago; to save that, it need not wait for the leader
try:
    provider.renew(60)
except TradovateAuthError as error:
    while not isinstance(event := events.get(timeout=20), StorageLost):  # listeners hear of it after the callers
        pass
    tell(error=type(error).__name__, lost=event.reason)
session = requests.Session()
session.auth = TradovateAuth(provider)
tell(status=session.get(given["url"] + "/account/list", timeout=20).status_code)
session.close()
wait()
tell_token(provider.renew(60))
"""
STRANGER = """
provider = make(who={"cid": 1}, renewal="on-demand", timeout=0.1)
try:
    provider.get(60)
except StorageError as error:
    tell(error=error.message)
"""


def test_a_leader_that_is_stopped(machine: Machine) -> None:
    """A process that is stopped in the middle of a renewal keeps everybody from the server and nobody from a valid
    token; those who wait are told which process it is. It goes on where it was, and then so do the others.
    """
    leader = machine.process(LEADER)
    first = leader.hear()
    leader.ready()
    machine.server.inject(Fault("renewal", "hang"))
    leader.go()
    eventually(lambda: machine.server.counts.renewals, "the renewal")
    leader.send(signal.SIGSTOP)
    follower, stranger = machine.process(FOLLOWER), machine.process(STRANGER)
    assert follower.hear() == first
    told = follower.hear()
    assert told["error"] == "Throttled"
    assert f"process {leader.pid} holds it" in told["lost"]
    assert follower.hear() == {"status": 200}
    assert f"process {leader.pid} holds it" in stranger.hear()["error"]
    assert (machine.server.counts.logins, machine.server.counts.renewals) == (1, 1)
    leader.send(signal.SIGCONT)
    machine.server.release()
    renewed = leader.hear()
    assert renewed["generation"] == 2
    follower.ready()
    follower.go()
    assert follower.hear() == renewed
    assert (machine.server.counts.logins, machine.server.counts.renewals) == (1, 1)


def test_a_restart(machine: Machine) -> None:
    """The only process of an account that ends and starts again goes on with its session."""
    told = []
    for _ in range(3):
        (process,) = machine.at_once(1, GET)
        told.append(process.hear())
        assert process.ended() == 0
    assert told == [told[0]] * 3
    assert machine.server.counts.logins == 1


FORKING = """
import threading
provider = make()
wait()
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        threads = [threading.Thread(target=provider.get) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        tell_token(provider.get())
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
tell_token(provider.get())
"""


def test_a_server_that_forks(machine: Machine) -> None:
    """A process that makes its provider first and forks its workers then has one login for all of them."""
    (process,) = machine.at_once(1, FORKING)
    told = [process.hear() for _ in range(5)]
    assert told == [{"generation": 1, "hash": machine.server.sessions[0].token_hash}] * 5
    assert machine.server.counts.logins == 1


ADDING = """
from dataclasses import replace
from tradovate_auth.storage import Record, from_url
storage = from_url(given["storage"])
wait()
refused = done = 0
while done < 40:
    record = storage.load("key") or Record()
    changed = replace(record, revision=record.revision + 1, generation=record.generation + 1)
    granted = storage.save("key", changed)
    done += granted
    refused += not granted
tell(refused=refused)
"""


def test_no_change_is_lost_between_processes(machine: Machine) -> None:
    """Processes that change a record without holding its lock, as `reset()` does, lose nothing: a save compares."""
    for process in machine.at_once(4, ADDING):
        process.hear()
    record = FileStorage(machine.folder).load("key")
    assert record is not None
    assert (record.revision, record.generation) == (160, 160)
    assert not list(machine.folder.glob("*aside*"))

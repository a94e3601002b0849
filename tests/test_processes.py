"""Real processes that share one session through a folder or a Redis: started at once, killed, stopped, restarted, forked."""

import itertools
import json
import signal
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from core_tools import eventually
from process_tools import CALLS, GET, KINDS, FilePlace, Machine, Nursery, Place, nursery, place

from tradovate_auth.storage import from_url
from tradovate_auth.testing import Emulator
from tradovate_auth.testing.emulator import Fault

__all__ = ["nursery"]  # a fixture

LIFETIME = 4.0  # seconds, so that the server's hour is 24 of them: see `Environment.window`


@pytest.fixture(params=KINDS)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Yield a storage of each kind, with nothing in it."""
    with place(request.param, tmp_path) as found:
        yield found


@pytest.fixture
def machine(nursery: Nursery, shared: Place) -> Iterator[Machine]:
    """Yield a server, and processes that share that storage."""
    with Emulator() as server, Machine(nursery, server, shared.url) as made:
        yield made


def test_a_cold_start_of_sixteen(machine: Machine, shared: Place) -> None:
    """Of 16 processes that start at once one logs in, and all have its token; nobody else can read what they wrote."""
    machine.server.configure(login_delay=0.5)
    processes = machine.at_once(16, GET)
    told = [process.hear() for process in processes]
    assert {json.dumps(each) for each in told} == {
        json.dumps({"generation": 1, "hash": machine.server.sessions[0].token_hash})
    }
    assert machine.server.counts.logins == 1
    if isinstance(shared, FilePlace):
        modes = {stat.S_IMODE(path.stat().st_mode) for path in shared.folder.iterdir()}
        folders = {stat.S_IMODE(path.stat().st_mode) for path in (shared.folder, shared.folder.parent)}
        assert (modes, folders) == ({0o600}, {0o700})


def test_eight_on_a_token_that_ends_every_four_seconds(nursery: Nursery, tmp_path: Path) -> None:
    """Eight processes work for three lifetimes of a token whose predecessor dies with each renewal: no call fails, one
    login is made, and no more renewals than one process would need. On each kind of storage, at the same time.
    """
    with ExitStack() as stack:
        machines = []
        for kind in KINDS:
            shared = stack.enter_context(place(kind, tmp_path))
            server = stack.enter_context(Emulator(lifetime=LIFETIME, old_token_grace=0.0))
            machines.append(stack.enter_context(Machine(nursery, server, shared.url)))
        crowds = [machine.at_once(8, CALLS) for machine in machines]
        for process in itertools.chain(*crowds):
            process.hear()
        for machine, crowd in zip(machines, crowds, strict=True):
            eventually(lambda server=machine.server: server.counts.renewals_granted >= 3, "three renewals")  # type: ignore[misc]
            for process in crowd:
                process.go()
            told = [process.hear() for process in crowd]
            assert [each["wrong"] for each in told] == [[]] * 8
            assert min(each["calls"] for each in told) > 10
            counts = machine.server.counts
            assert (counts.logins, counts.evictions) == (1, 0)
            assert counts.renewals == counts.renewals_granted
            assert min(pauses(machine.server)) > 0.74 * LIFETIME


def pauses(server: Emulator) -> list[float]:
    """Return the seconds between any two grants in a row: one process renews when three quarters of a life are over."""
    asked = [each.received_at for each in server.requests if "/auth/" in each.path.lower()]
    return [later - earlier for earlier, later in itertools.pairwise(asked)]


def test_a_leader_that_is_killed(machine: Machine, shared: Place) -> None:
    """When the process that logs in is killed after the server has opened its session, another one logs in (on files at
    once, on a Redis when the lease has lapsed), and all that are left have one token.
    """
    machine.server.inject(Fault("login", "late"))
    processes = machine.at_once(6, GET)
    eventually(lambda: machine.server.counts.logins_granted, "the first login")
    leader = shared.holder()
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
    """Of 13 processes that try a wrong password three times each, one asks the server once; all are told. The
    right one works at once.
    """
    told = [process.hear() for process in machine.at_once(13, TRIES)]
    assert told == [{"refused": 3}] * 13
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
provider = make(renewal="on-demand", timeout=0.1)
tell_token(provider.get(60))
provider.reset()  # forgets that one has been asked for a moment ago; to save that, it need not wait for the leader
try:
    provider.renew(60)
except TradovateAuthError as error:
    tell(error=type(error).__name__, reason=error.message)
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


@pytest.mark.parametrize("shared", ["file"], indirect=True)
def test_a_leader_that_is_stopped(machine: Machine) -> None:
    """On files: a process that is stopped in the middle of a renewal keeps everybody from the server and nobody from a valid
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
    assert f"Process {leader.pid} holds the stored session" in told["reason"]
    assert follower.hear() == {"status": 200}
    assert f"Process {leader.pid} holds the stored session" in stranger.hear()["error"]
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
    record = from_url(machine.url).load("key")
    assert record is not None
    assert (record.revision, record.generation, record.set_aside) == (160, 160, None)

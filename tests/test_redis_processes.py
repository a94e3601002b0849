"""Real processes that share one session through a Redis: leaders that sleep past their lease, and a Redis that goes away.

Those that meet an outage meet it at the same time, each in a world of its own: most of it is waiting for a token to grow old.
"""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, NamedTuple

import pytest
from core_tools import eventually
from process_tools import CALLS, GET, LEASE, Machine, Nursery, Process, RedisPlace, nursery
from redis_servers import Proxy, redis_server, sentinel_setup

from tradovate_auth import Credentials, Status, TokenProvider
from tradovate_auth.testing import Emulator
from tradovate_auth.testing.emulator import Fault, short_hash

__all__ = ["nursery"]  # a fixture


@contextmanager
def session(machine: Machine) -> Iterator[TokenProvider]:
    """Yield what an operator sees of the session."""
    who = Credentials(**machine.server.credentials)
    with TokenProvider(who, environment=machine.server.url, storage=machine.url, login="never") as provider:
        yield provider


def status(machine: Machine) -> Status:
    """Return how the session stands."""
    with session(machine) as provider:
        return provider.status()


@pytest.fixture
def redis() -> Iterator[RedisPlace]:
    """Yield a Redis whose leases are short."""
    with redis_server() as server:
        yield RedisPlace(server)


@pytest.fixture
def machine(nursery: Nursery, redis: RedisPlace) -> Iterator[Machine]:
    """Yield a server, and processes that share that Redis."""
    with Emulator() as server, Machine(nursery, server, redis.url) as made:
        yield made


def outslept(redis: RedisPlace, leader: Process) -> None:
    """Stop a process, and block until its lease has lapsed."""
    leader.send(signal.SIGSTOP)
    eventually(lambda: not redis.holder(), "the end of the lease")


LEADER = """
from tradovate_auth.storage import from_url
events = queue.SimpleQueue()
storage = from_url(given["storage"])

class Slow:
    def __getattr__(self, name):
        return getattr(storage, name)
    def save(self, key, record):
        if given["falls asleep"]:
            given["falls asleep"] = False
            wait()
        return storage.save(key, record)

def heard():  # listeners hear of it after the callers
    told = []
    while not told or told[-1] not in ("LoggedIn", "Renewed", "Adopted"):
        told.append(events.get(timeout=20))
    return told

provider = make(storage=Slow(), renewal="on-demand", on_event=lambda event: events.put(type(event).__name__))
tell_token(provider.get(60))
heard()
wait()
provider.reset()  # the other process has just used what there is of the allowance
tell_token(provider.renew(60))
tell(events=heard())
"""
"""May fall asleep before its first save; then gets a token, and renews it when it is told to go on."""


def test_a_leader_that_sleeps_before_its_login(machine: Machine, redis: RedisPlace) -> None:
    """A process that has the lease, sleeps longer than it lasts and wakes when another one has logged in, does not send the
    login that it was about to send; nothing that was entered for it stays.
    """
    leader = machine.process(LEADER, **{"falls asleep": True})
    leader.ready()
    assert redis.holder() == leader.pid
    outslept(redis, leader)
    told = machine.at_once(1, GET)[0].hear()
    leader.send(signal.SIGCONT)
    leader.go()
    assert leader.hear() == told == {"generation": 1, "hash": machine.server.sessions[0].token_hash}
    assert machine.server.counts.logins == 1
    after = status(machine)
    assert (after.logins, after.failed_logins, after.generation) == (1, 0, 1)


def test_a_leader_that_sleeps_in_mid_login(machine: Machine, redis: RedisPlace) -> None:
    """A process that sleeps past its lease while the answer to its login is on its way finds the newer session that
    another one has opened meanwhile, leaves it where it is, uses it, and sends no further login.
    """
    machine.server.inject(Fault("login", "late"))
    leader = machine.process(LEADER, **{"falls asleep": False})
    eventually(lambda: machine.server.counts.logins_granted, "the first login")
    outslept(redis, leader)
    told = machine.at_once(1, GET)[0].hear()
    machine.server.release()
    leader.send(signal.SIGCONT)
    assert leader.hear() == told == {"generation": 1, "hash": machine.server.sessions[1].token_hash}
    assert machine.at_once(1, GET)[0].hear() == told
    assert machine.server.counts.logins == 2
    after = status(machine)
    assert (after.logins, after.failed_logins, after.generation) == (2, 0, 1)


@pytest.mark.parametrize("kind", ["hang", "late"])
@pytest.mark.parametrize("grace", [0.0, None])
def test_a_leader_that_sleeps_in_mid_renewal(
    machine: Machine, redis: RedisPlace, kind: Any, grace: float | None
) -> None:
    """A process that sleeps past its lease while its renewal is under way: whatever the server has made of that one and
    of the renewal of another process, and in whatever order, the token that the server granted last is everybody's in
    the end. Nobody takes it for an eviction that somebody else was faster, and there is no login for that.
    """
    machine.server.configure(old_token_grace=grace)
    leader = machine.process(LEADER, **{"falls asleep": False})
    first = leader.hear()
    leader.ready()
    other = machine.process(LEADER, **{"falls asleep": False})
    assert other.hear() == first
    other.ready()
    machine.server.inject(Fault("renewal", kind))
    leader.go()
    eventually(lambda: machine.server.counts.renewals, "the renewal")
    outslept(redis, leader)
    other.go()
    renewed = other.hear()
    machine.server.release()
    leader.send(signal.SIGCONT)
    ends = leader.hear()
    newest = max(machine.server.sessions, key=lambda each: each.renewed_at or each.opened_at)
    assert machine.at_once(1, GET)[0].hear() == ends
    assert ends["hash"] == newest.token_hash
    if kind == "late":
        assert ends == renewed  # the leader's was the earlier grant
    # With an old token that dies at once, the other process cannot know what the sleeping one has got: it is evicted.
    lost = kind == "late" and grace == 0.0
    assert ("Evicted" in other.hear()["events"]) is lost
    assert "Evicted" not in leader.hear()["events"]
    assert machine.server.counts.logins == 1 + lost


LIFETIME = 12.0
"""Seconds: the owner renews when nine or more are over, and the other tokens live for two more at least."""
OPTIONS = f"lease={LEASE}&timeout=0.5"


class Outage(NamedTuple):
    """A Redis, and how it goes away and comes back."""

    url: str
    begin: Callable[[], object]
    end: Callable[[], object]
    in_mid_renewal: bool = False
    """Goes away when the server has granted the renewal and nobody has heard of it yet, rather than long before."""


@contextmanager
def killed(*, empty: bool, in_mid_renewal: bool = False) -> Iterator[Outage]:
    """Yield a Redis that is killed, and started again with what it held or without."""
    with redis_server(persist=not empty) as server:
        url = f"{server.url}?{OPTIONS}"
        yield Outage(url, server.kill, partial(server.restart, empty=empty), in_mid_renewal)


@contextmanager
def behind_a_proxy(fault: Callable[[Proxy], object]) -> Iterator[Outage]:
    """Yield a Redis behind a proxy that does this."""
    with redis_server() as server, Proxy(server.socket) as proxy:
        yield Outage(f"{proxy.url}?{OPTIONS}", partial(fault, proxy), proxy.heal)


@contextmanager
def failed_over() -> Iterator[Outage]:
    """Yield a Redis that is killed, whose replica becomes master."""
    with sentinel_setup() as setup:
        url = f"{setup.url}?{OPTIONS}"
        yield Outage(url, setup.kill_master, partial(eventually, setup.failed_over, "the failover"))


OUTAGES: dict[str, Callable[[], AbstractContextManager[Outage]]] = {
    "killed, and back with what it held": partial(killed, empty=False),
    "killed, and back empty": partial(killed, empty=True),
    "killed in mid-renewal, and back empty": partial(killed, empty=True, in_mid_renewal=True),
    "failed over": failed_over,
    "hanging": partial(behind_a_proxy, Proxy.hang),
    "dropping": partial(behind_a_proxy, Proxy.drop),
    "slow": partial(behind_a_proxy, lambda proxy: proxy.delay(0.05)),
}
UNNOTICED = {"killed in mid-renewal, and back empty", "failed over", "slow"}
"""Those that may be over before anybody looks."""


class Outcome(NamedTuple):
    """What came of an outage."""

    told: list[dict[str, Any]]
    newcomer: dict[str, Any]
    server: Emulator
    status: Status


def lived_through(nursery: Nursery, outage: Callable[[], AbstractContextManager[Outage]]) -> Outcome:
    """Let three processes make calls through an outage, over a renewal and until all of them have its token."""
    with (
        outage() as (url, begin, end, in_mid_renewal),
        Emulator(lifetime=LIFETIME, old_token_grace=None) as server,
        Machine(nursery, server, url) as machine,
    ):
        crowd = machine.at_once(3, CALLS, pause=0.2)
        for process in crowd:
            process.hear()
        if in_mid_renewal:
            server.inject(Fault("renewal", "late"))
        else:
            begin()
        eventually(lambda: server.counts.renewals_granted, "the renewal")
        if in_mid_renewal:
            begin()
            server.release()
        end()
        eventually(lambda: carried(server) == {server.sessions[0].token_hash}, "that everybody has its token")
        newcomer = machine.at_once(1, GET)[0].hear()
        for process in crowd:
            process.go()
        return Outcome([process.hear() for process in crowd], newcomer, server, status(machine))


def carried(server: Emulator) -> set[str]:
    """Return what the last calls of all processes carried."""
    last = {each.headers.get("X-Bot"): str(each.authorization)[7:] for each in server.requests}
    return {short_hash(token) for bot, token in last.items() if bot}


@pytest.fixture(scope="module")
def outcomes(nursery: Nursery) -> Iterator[dict[str, Future[Outcome]]]:
    """Yield what comes of all outages, which run at the same time."""
    with ThreadPoolExecutor(len(OUTAGES)) as pool:
        yield {name: pool.submit(lived_through, nursery, outage) for name, outage in OUTAGES.items()}


@pytest.mark.parametrize("name", OUTAGES)
def test_an_outage(outcomes: dict[str, Future[Outcome]], name: str) -> None:
    """While the Redis is away its token's owner renews it, and all others go on with theirs: no call fails. When it is back,
    all of them, and a newcomer, have the new token, and no login was ever made but the first one.
    """
    told, newcomer, server, after = outcomes[name].result()
    assert [each["wrong"] for each in told] == [[]] * 3
    assert newcomer["hash"] == server.sessions[0].token_hash
    assert server.counts.logins == len(server.sessions) == 1
    due = (server.requests[-1].received_at - server.sessions[0].opened_at) // (0.75 * LIFETIME)
    # A Redis that is back knows the old token until its owner has looked; who looks before that may renew it once more.
    assert server.counts.renewals == server.counts.renewals_granted <= due + 1
    assert (after.logins, after.failed_logins, after.hold) == (1, 0, None)
    lost = [each["events"].count("StorageLost") for each in told]
    assert lost == [each["events"].count("StorageBack") for each in told]
    assert any(lost) or name in UNNOTICED

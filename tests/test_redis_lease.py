"""The lease: who has it, how it is kept, lost, taken over and waited for, and what happens when the Redis goes away."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from core_tools import PATIENCE, eventually
from forks import in_a_fork
from redis_servers import Proxy, RedisServer, redis_server, running, server

from tradovate_auth import StorageError
from tradovate_auth.storage import Record, RedisStorage, Storage, StorageBusy, _redis_lease, from_url
from tradovate_auth.storage._redis_lease import RedisLease
from tradovate_auth.storage._redis_scripts import TRY
from tradovate_auth.testing._conforming import enter, held

__all__ = ["running", "server"]  # fixtures

KEY = "key"
LONG = 600.0  # a lease that lapses in no test
SHORT = 0.3
HOLDER = """
import os, sys, time
from tradovate_auth.storage import Record, from_url
storage = from_url(sys.argv[1])
with storage.exclusive("key", 20) as lease:
    record = storage.load("key") or Record()
    print(os.getpid(), flush=True)
    sys.stdin.readline()
    print(lease.held(), storage.save("key", Record(revision=record.revision + 1, generation=1)), flush=True)
"""


def lease_of(server: RedisServer) -> Any:
    """Return the name of the one lease in a server."""
    names = [name.decode() for name in server.client().keys("*:lease")]
    assert len(names) == 1, names
    return names[0]


def beats() -> int:
    """Return how many threads extend a lease in this process."""
    return sum(thread.name == "tradovate_auth lease" for thread in threading.enumerate())


@contextmanager
def waiting(
    storage: Storage, *, seen: int | None = None, timeout: float = PATIENCE
) -> Iterator[Future[bool]]:
    """Wait for the key in another thread, which is known to wait; what comes of it is whether its lease is held."""

    def wait() -> bool:
        with storage.exclusive(KEY, timeout, seen=seen) as lease:
            return lease.held()

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(wait)


def listeners(server: RedisServer) -> int:
    """Return how many wait for news."""
    return sum(count for _, count in server.client().pubsub_numsub(*server.client().pubsub_channels()))


@contextmanager
def holder(server: RedisServer, lease: float) -> Iterator["subprocess.Popen[str]"]:
    """Run a process that holds the key, until it is given a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, f"{server.url}?lease={lease}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == str(process.pid)
        try:
            yield process
        finally:
            process.kill()


class TestHolding:
    """Whoever is inside."""

    def test_the_lease_is_held(self, server: RedisServer) -> None:
        """Inside it is held, by this host and process, with an end; afterwards there is none, and nothing runs on."""
        storage = server.storage(lease=LONG)
        with storage.exclusive(KEY, 0) as lease:
            assert lease.held()
            name = lease_of(server)
            assert server.client().get(name).startswith(f"{socket.gethostname()}/{os.getpid()}/".encode())
            assert 0 < server.client().ttl(name) <= LONG
        assert not lease.held()
        assert not server.client().exists(name)
        eventually(lambda: beats() == 0, "the end of the thread")

    def test_it_is_extended(self, server: RedisServer) -> None:
        """An exchange that takes longer than the lease keeps it, without asking."""
        with server.storage(lease=2.0).exclusive(KEY, 0):
            name = lease_of(server)
            owner = server.client().get(name)
            left: list[int] = [server.client().pttl(name)]

            def risen() -> bool:
                left.append(server.client().pttl(name))
                return sum(after > before for before, after in itertools.pairwise(left)) >= 4

            eventually(risen, "the fourth extension of a lease that lasts three")
            assert server.client().get(name) == owner

    def test_asking_extends_it(self, server: RedisServer) -> None:
        """Whoever asks has the whole time of the lease from then on: enough for the call that follows."""
        with server.storage(lease=LONG).exclusive(KEY, 0) as lease:
            server.client().pexpire(lease_of(server), 1000)
            assert lease.held()
            assert server.client().ttl(lease_of(server)) > LONG / 2

    def test_it_holds_without_a_thread(self, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where no thread can be started the lease is had all the same, and lapses unless it is asked for."""

        def fail(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", fail)
        with server.storage(lease=LONG).exclusive(KEY, 0) as lease:
            assert lease.held()
        assert server.client().keys("*") == []

    def test_a_fork_has_no_part_in_it(self, server: RedisServer) -> None:
        """A child forked inside does not hold the lease, and neither gives it back nor keeps it when it leaves."""
        storage = server.storage(lease=LONG)
        with storage.exclusive(KEY, 0) as lease:

            def leave() -> None:
                assert not lease.held()
                assert isinstance(lease, RedisLease)
                lease.ended()
                assert storage.load(KEY) is None

            assert in_a_fork(leave).wait() == 0
            assert lease.held()

    def test_a_forked_storage_works(self, server: RedisServer) -> None:
        """A storage that was used before a fork is used by parent and child at once, each on connections of its own."""
        storage = server.storage()
        assert storage.save(KEY, Record(revision=1))

        def count() -> None:
            for _ in range(20):
                with storage.exclusive(KEY, PATIENCE) as lease:
                    assert lease.held()
                    record = storage.load(KEY)
                    assert record is not None
                    assert storage.save(KEY, Record(revision=record.revision + 1))

        child = in_a_fork(count)
        count()
        assert child.wait() == 0
        assert storage.load(KEY) == Record(revision=41)


class TestLosing:
    """Leases that end before their holder does."""

    def test_one_that_is_gone_is_not_held(self, server: RedisServer) -> None:
        """A lease that lapsed, or that an emptied server forgot, is not held any more; nothing brings it back."""
        with server.storage(lease=SHORT).exclusive(KEY, 0) as lease:
            server.client().flushall()
            assert not lease.held()
            eventually(lambda: beats() == 0, "the end of the thread")
            assert server.client().keys("*") == []

    def test_somebody_elses_is_left_alone(self, server: RedisServer) -> None:
        """Whoever lost it to somebody else does not hold it, extend it or take it away, also not on leaving."""
        with server.storage(lease=LONG).exclusive(KEY, 0) as lease:
            name = lease_of(server)
            server.client().set(name, "other/1/x", px=100_000)
            assert not lease.held()
        assert server.client().get(name) == b"other/1/x"
        assert 0 < server.client().pttl(name) <= 100_000

    def test_the_error_of_whoever_is_inside_comes_out(self) -> None:
        """If the server goes away while somebody is inside, leaving is no error, and hides none."""
        with redis_server() as server:
            storage = from_url(server.url)

            def stumble() -> None:
                with storage.exclusive(KEY, 0):
                    server.kill()
                    raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError) as caught:
                stumble()
            assert caught.value.__context__ is None
            server.start()
            with storage.exclusive(KEY, 0) as lease:
                server.kill()
                with pytest.raises(StorageError, match="cannot be reached"):
                    lease.held()

    def test_it_is_kept_through_a_short_outage(self) -> None:
        """A server that cannot be reached for less than the time of the lease costs nobody the lease."""
        with redis_server() as server, Proxy(server.socket) as proxy:
            storage = from_url(f"{proxy.url}?lease=3")
            with storage.exclusive(KEY, 0) as lease:
                name = lease_of(server)
                accepted = proxy.accepted
                proxy.drop()
                eventually(lambda: proxy.accepted > accepted + 4, "some tries to extend it")
                server.client().pexpire(name, 2900)
                proxy.heal()
                eventually(lambda: server.client().pttl(name) > 2900, "an extension")
                assert lease.held()


class TestLeavingBehind:
    """Leases that somebody is given who has left."""

    def test_an_answer_that_came_too_late(self) -> None:
        """A server that hung, and then grants what was asked for, keeps nobody of this process waiting for the lease to lapse."""
        with redis_server() as server:
            storage = from_url(f"{server.url}?timeout=0.3&lease={LONG}")
            storage.load(KEY)
            server.freeze()
            with pytest.raises(StorageError, match="does not answer in time"):
                enter(storage, KEY, PATIENCE)
            server.thaw()
            eventually(lambda: server.client().keys("*:lease"), "the lease that nobody has")
            enter(from_url(server.url), KEY, 0)
            assert server.client().keys("*:lease") == []

    def test_one_that_could_not_be_given_back(self) -> None:
        """Nor does one whose holder could not reach the server when it left."""
        with redis_server() as server, Proxy(server.socket) as proxy:
            storage = from_url(f"{proxy.url}?lease={LONG}")
            with storage.exclusive(KEY, 0):
                proxy.drop()
            proxy.heal()
            assert server.client().exists(lease_of(server))
            enter(storage, KEY, 0)
            assert server.client().keys("*:lease") == []

    def test_a_wait_that_was_given_up(self, server: RedisServer) -> None:
        """Whoever has waited in vain leaves the lease of whoever is inside alone."""
        storage = server.storage(lease=LONG)
        with storage.exclusive(KEY, 0) as lease:
            for _ in range(3):
                with pytest.raises(StorageBusy):
                    enter(storage, KEY, 0)
            assert lease.held()


class TestTakingOver:
    """Holders that die, sleep or hang, in processes of their own."""

    def test_a_killed_holder_is_succeeded(self, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """The key of a holder that was killed is free when its lease has lapsed, and not before; who waits knows when."""
        monkeypatch.setattr("tradovate_auth.storage._redis_lease._LOOK", LONG)
        storage = server.storage(lease=SHORT)
        with holder(server, 3.0) as process:
            with pytest.raises(
                StorageBusy, match=rf"^Process {process.pid} on \S+ holds the stored session\."
            ):
                enter(storage, KEY, 0)
            process.kill()
            process.wait()
            assert server.client().exists(lease_of(server))
            enter(storage, KEY, LONG)

    def test_a_stopped_holder_does_no_harm(self, server: RedisServer) -> None:
        """A holder that was stopped past its lease is succeeded; when it goes on it knows, and its save is refused."""
        storage = server.storage()
        with holder(server, SHORT) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.send_signal(signal.SIGSTOP)
            with storage.exclusive(KEY, PATIENCE) as lease:
                assert lease.held()
                assert storage.save(KEY, Record(revision=1, generation=2))
                process.send_signal(signal.SIGCONT)
                process.stdin.write("\n")
                process.stdin.flush()
                assert process.stdout.readline() == "False False\n"
                assert lease.held()
        assert storage.load(KEY) == Record(revision=1, generation=2)

    def test_a_lease_without_an_end_gets_one(self, server: RedisServer) -> None:
        """What lies in the place of a lease and would never lapse does not block everybody forever."""
        with server.storage(lease=LONG).exclusive(KEY, 0):
            name = lease_of(server)
        server.client().set(name, b"\xff")
        storage = server.storage(lease=SHORT)
        with pytest.raises(StorageBusy, match=r"^Somebody holds the stored session"):
            enter(storage, KEY, 0)
        enter(storage, KEY, PATIENCE)

    def test_something_else_in_its_place_is_told(self, server: RedisServer) -> None:
        """What is no lease at all is an error with advice, at once."""
        with server.storage().exclusive(KEY, 0):
            name = lease_of(server)
        server.client().rpush(name, "x")
        with pytest.raises(StorageError, match=r"something else in the place of a lease.*prefix"):
            enter(server.storage(), KEY, PATIENCE)


class TestWaiting:
    """Whoever is outside."""

    def test_a_lease_given_back_wakes(self, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """A waiter is woken when the key is free, and does not have to look."""
        monkeypatch.setattr("tradovate_auth.storage._redis_lease._LOOK", LONG)
        storage = server.storage(lease=LONG)
        with contextlib.ExitStack() as stack:
            with held(storage, KEY):
                waiter = stack.enter_context(waiting(server.storage(lease=LONG)))
                eventually(lambda: listeners(server) == 1, "the waiter")
                assert not waiter.done()
            assert waiter.result(PATIENCE)
        eventually(lambda: listeners(server) == 0, "the end of the listening")

    def test_a_newer_generation_wakes(self, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """Waiters who are told of a newer generation go and look at it, while the key is still held."""
        monkeypatch.setattr("tradovate_auth.storage._redis_lease._LOOK", LONG)
        storage = server.storage(lease=LONG)
        with held(storage, KEY), contextlib.ExitStack() as stack:
            waiters = [stack.enter_context(waiting(server.storage(lease=LONG), seen=1)) for _ in range(8)]
            eventually(lambda: listeners(server) == 8, "the waiters")
            storage.save(KEY, Record(revision=1, generation=1))
            assert not any(waiter.done() for waiter in waiters)
            storage.save(KEY, Record(revision=2, generation=2))
            assert not any(waiter.result(PATIENCE) for waiter in waiters)

    def test_whoever_saw_nothing_waits_for_the_key(self, server: RedisServer) -> None:
        """Without a generation to compare with, a newer one does not end the wait."""
        storage = server.storage()
        with contextlib.ExitStack() as stack:
            with held(storage, KEY):
                waiter = stack.enter_context(waiting(server.storage()))
                eventually(lambda: listeners(server) == 1, "the waiter")
                storage.save(KEY, Record(revision=1, generation=7))
                with pytest.raises(TimeoutError):
                    waiter.result(0.1)
            assert waiter.result(PATIENCE)

    def test_what_is_newer_already_needs_no_wait(self, server: RedisServer) -> None:
        """Whoever has seen less than what lies there need not have the key, free or not; whoever has seen it gets it."""
        storage = server.storage(lease=LONG)
        storage.save(KEY, Record(revision=1, generation=7))
        with storage.exclusive(KEY, 0, seen=6) as lease:
            assert not lease.held()
            assert server.client().keys("*:lease") == []
            with storage.exclusive(KEY, 0, seen=7) as other, storage.exclusive(KEY, 0, seen=6) as third:
                assert other.held()
                assert not third.held()

    def test_rubbish_in_the_place_of_the_record_is_no_news(self, server: RedisServer) -> None:
        """What is no record has no generation: the key is had, and the look at it is another matter."""
        storage = server.storage()
        storage.save(KEY, Record(revision=1, generation=7))
        name = server.client().keys("*:record")[0]
        server.client().hset(name, "generation", "rubbish")
        with storage.exclusive(KEY, 0, seen=6) as lease:
            assert lease.held()
        server.client().set(name, "rubbish")
        with storage.exclusive(KEY, 0, seen=6) as lease:
            assert lease.held()

    def test_a_waiter_that_hears_nothing_looks(self, server: RedisServer) -> None:
        """Without any news, because they got lost or are not text, a waiter finds out by itself."""
        storage = RedisStorage(server.client(decode_responses=True))
        with contextlib.ExitStack() as stack:
            with held(storage, KEY):
                waiter = stack.enter_context(waiting(storage, seen=1))
                eventually(lambda: listeners(server) == 1, "the waiter")
                server.client().publish(server.client().pubsub_channels()[0], b"\xff")
                server.client().client_kill_filter(_type="pubsub")
                name = lease_of(server)
            server.client().delete(name)
            assert waiter.result(PATIENCE)

    def test_a_waiter_that_may_not_listen_looks_once_a_second(
        self, server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ten seconds of waiting are about as many looks: it sleeps between them, and does not load the server."""
        words = ["deaf", "on", ">password", "~*", "+@all", "resetchannels"]
        server.client().execute_command("ACL", "SETUSER", *words)
        now = time.monotonic()

        def look() -> float:
            nonlocal now
            now += 0.001
            return now

        def sleep(seconds: float) -> None:
            nonlocal now
            now += seconds

        deaf = RedisStorage(server.client(username="deaf", password="password"))
        looks: list[str] = []
        run = deaf._server.run

        def counted(script: str, *arguments: Any) -> Any:
            looks.append(script)
            return run(script, *arguments)

        with held(server.storage(lease=LONG), KEY), monkeypatch.context() as patch:
            patch.setattr(_redis_lease, "time", SimpleNamespace(monotonic=look, sleep=sleep))
            patch.setattr(deaf._server, "run", counted)
            with pytest.raises(StorageBusy):
                enter(deaf, KEY, 10.0)
        server.client().execute_command("ACL", "DELUSER", "deaf")
        assert 10 <= looks.count(TRY) <= 22

    def test_one_connection_is_enough_to_get_there(self, server: RedisServer) -> None:
        """A client that may have only one connection cannot listen and ask at once: it looks from time to time."""
        pool = redis.ConnectionPool(
            connection_class=redis.UnixDomainSocketConnection, path=server.socket, max_connections=1
        )
        storage = RedisStorage(redis.Redis(connection_pool=pool))
        with contextlib.ExitStack() as stack:
            with held(server.storage(), KEY):
                waiter = stack.enter_context(waiting(storage))

                def subscribed() -> int:
                    return int(
                        server.client().info("commandstats").get("cmdstat_subscribe", {"calls": 0})["calls"]
                    )

                before = subscribed()
                eventually(lambda: subscribed() > before + 2, "some rounds")
            assert waiter.result(PATIENCE)

    def test_another_thread_is_named(self, server: RedisServer) -> None:
        """If this very process has the key, the error says so."""
        with (
            held(server.storage(lease=7.0), KEY),
            pytest.raises(StorageBusy, match=r"^Another thread of this process holds.*lapses within 10 s"),
        ):
            enter(server.storage(), KEY, -1.0)


class TestOutage:
    """The server goes away while somebody waits."""

    def test_a_wait_survives_a_restart(self) -> None:
        """Whoever waits while the server is killed and comes back empty, waits on, and has the key then."""
        with redis_server() as server:
            storage = from_url(server.url)
            with held(from_url(server.url), KEY), waiting(storage) as waiter:
                eventually(lambda: listeners(server) == 1, "the waiter")
                server.kill()
                with pytest.raises(TimeoutError):
                    waiter.result(0.5)
                server.start()
                assert waiter.result(PATIENCE)

    def test_a_wait_without_the_server_has_an_end(self) -> None:
        """If it does not come back in time, that is the error."""
        with redis_server() as server, held(from_url(server.url), KEY):
            with waiting(from_url(server.url), timeout=2.0) as waiter:
                eventually(lambda: listeners(server) == 1, "the waiter")
                server.kill()
                with pytest.raises(StorageError, match="cannot be reached") as caught:
                    waiter.result(PATIENCE)
                assert not isinstance(caught.value, StorageBusy)
            with pytest.raises(StorageError, match="cannot be reached"):
                enter(from_url(server.url), KEY, PATIENCE)

    def test_what_does_not_pass_is_told_at_once(self, server: RedisServer) -> None:
        """A waiter whose user may not do it any more is told, and does not wait for that to pass."""
        admin = server.client()
        admin.execute_command("ACL", "SETUSER", "waiter", "on", ">pw", "~*", "&*", "+@all")
        storage = RedisStorage(server.client(username="waiter", password="pw"))
        try:
            with held(server.storage(lease=LONG), KEY), waiting(storage, timeout=LONG) as waiter:
                eventually(lambda: listeners(server) == 1, "the waiter")
                admin.execute_command("ACL", "SETUSER", "waiter", "-eval")
                with pytest.raises(StorageError, match="does not allow"):
                    waiter.result(PATIENCE)
        finally:
            admin.execute_command("ACL", "DELUSER", "waiter")

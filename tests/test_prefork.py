"""A web server that forks its workers: one session for all of them, whoever made the provider, and whoever dies."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
import requests
from core_tools import eventually
from process_tools import place

from tradovate_auth.testing import Emulator
from tradovate_auth.testing.emulator import Counts

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

PROGRAMS = Path(__file__).with_name("programs")
WORKERS = 4
CROWD = 8
LIFETIME = 8.0  # seconds; renewed when six and a half are over at the latest


class Kind(NamedTuple):
    """How a gunicorn is run: see `programs/web.py`."""

    application: str
    storage: str
    options: tuple[str, ...] = ()
    used_before_the_fork: bool = False

    @property
    def preloaded(self) -> bool:
        """Whether the provider is made before the workers are forked."""
        return "--preload" in self.options


KINDS = {
    "a provider that was used before the fork": Kind("threads", "file", ("--preload",), True),
    "threads, and a Redis used before the fork": Kind("threads", "redis", ("--preload", "--threads=4"), True),
    "threads, and a provider of each worker": Kind("threads", "file", ("--threads=4",)),
    "threads with loops, and a provider made before the fork": Kind(
        "loops", "file", ("--threads=4", "--preload")
    ),
    "a loop in each worker": Kind("one_loop", "file", ("--worker-class=asgi",)),
}


class Web:
    """A gunicorn with four workers, as somebody's process."""

    def __init__(self, kind: Kind, variables: dict[str, str]) -> None:
        self._kind = kind
        with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
            self._url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
            command = [f"web:{kind.application}", f"--bind=fd://{listening.fileno()}", f"--workers={WORKERS}"]
            command += ["--no-control-socket", "--graceful-timeout=3", "--log-level=warning", *kind.options]
            self._popen = subprocess.Popen(
                # A fork of a process that has threads is what newer Pythons warn of.
                [sys.executable, "-W", "error:This process:DeprecationWarning", "-m", "gunicorn", *command],
                pass_fds=[listening.fileno()],
                cwd=PROGRAMS,
                env={**os.environ, **variables},
                stderr=subprocess.PIPE,
                text=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.terminate()  # a killed one's workers would only notice when they next look, in 15 s
        self._popen.communicate()

    def ask(self) -> set[int]:
        """Ask for some pages at once; return which workers have answered, each of them well."""
        with ThreadPoolExecutor(CROWD) as pool:
            return set(pool.map(self._ask_once, range(CROWD)))

    def _ask_once(self, _: int) -> int:
        pid, status, forked = requests.get(self._url, timeout=40).json()
        assert (status, forked) == (200, self._kind.preloaded)
        return int(pid)

    def ask_all(self, *, but: int = 0) -> set[int]:
        """Ask until each worker has answered; return which those are.

        Args:
            but: One that is dead.
        """
        found: set[int] = set()

        def all_have() -> bool:
            found.update(self.ask())
            return len(found - {but}) == WORKERS

        eventually(all_have, "an answer of each worker")
        return found

    def ended(self) -> tuple[int, str]:
        """End it; return its status and what it has complained of."""
        self._popen.terminate()
        complaints = self._popen.communicate(timeout=40)[1]
        return self._popen.returncode, complaints


def runs(pid: int) -> bool:
    """Return whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Outcome(NamedTuple):
    """What came of a server's life."""

    cold: Counts
    replaced: Counts
    ended: tuple[int, str]


@contextmanager
def served(kind: Kind, folder: Path, **rules: Any) -> Iterator[tuple[Emulator, Web]]:
    """Yield an emulator and a server on it, when all workers of that have answered."""
    with place(kind.storage, folder) as shared, Emulator(login_delay=0.5, **rules) as emulator:
        variables = {f"TRADOVATE_{name.upper()}": str(value) for name, value in emulator.credentials.items()}
        variables |= {"TRADOVATE_ENVIRONMENT": emulator.url, "TRADOVATE_STORAGE": shared.url}
        variables["WEB_USES_IT_AT_ONCE"] = "yes" if kind.used_before_the_fork else ""
        with Web(kind, variables) as web:
            yield emulator, web


def lived(kind: Kind, folder: Path) -> Outcome:
    """Run a server: cold, and after the death of a worker."""
    with served(kind, folder) as (emulator, web):
        workers = web.ask_all()
        cold = emulator.counts
        killed = min(workers)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: not runs(killed), "its end")
        assert len(web.ask_all(but=killed) - workers) == 1
        return Outcome(cold, emulator.counts, web.ended())


@pytest.mark.parametrize("name", KINDS)
def test_one_login_for_all_workers(tmp_path: Path, name: str) -> None:
    """Four workers that are asked at once make one login, and one that takes a dead one's place makes none. No call fails,
    and nobody complains of a fork beside threads.
    """
    cold, replaced, ended = lived(KINDS[name], tmp_path)
    assert cold.logins == replaced.logins == 1
    assert replaced.calls == replaced.calls_ok
    status, complaints = ended
    assert status == 0
    assert "Traceback" not in complaints
    assert "Warning" not in complaints


def test_workers_without_requests(tmp_path: Path) -> None:
    """Workers that nobody asks for anything keep alive the session that their master has opened, once for all of them."""
    with served(KINDS["a provider that was used before the fork"], tmp_path, lifetime=LIFETIME) as (
        emulator,
        web,
    ):
        web.ask_all()
        eventually(lambda: emulator.counts.renewals_granted, "a renewal")
        web.ask_all()
        assert (emulator.counts.logins, emulator.counts.renewals) == (1, 1)

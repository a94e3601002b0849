"""Three bots that somebody else wrote, together on one account: each logs in for itself, keeps its token for ever and sends
it in its own way. Run by the runner they share one session; run as they are, they are the control.
"""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core_tools import eventually

from tradovate_auth.testing import Emulator

PROGRAMS = Path(__file__).with_name("programs")
BOTS = (["poller.py"], ["streamer.py"], ["scalper.py", "MESZ6"])
PATHS = ("/v1/account/list", "/v1/auth/me", "/v1/order/placeOrder")
LIFETIME = 7.0  # seconds, so that the hour of every limit is 42 of them: see `Environment.window`


class Bots:
    """The three as processes that are going on until they get a Ctrl-C."""

    def __init__(self, server: Emulator, folder: Path, *, runner: bool) -> None:
        who = server.credentials
        names = {
            "BOT_API": server.url,
            "BOT_USER": who["name"],
            "BOT_PASSWORD": who["password"],
            "BOT_SEC": who["sec"],
        }
        if runner:
            names |= {f"TRADOVATE_{name.upper()}": str(value) for name, value in who.items()}
            names |= {"TRADOVATE_ENVIRONMENT": server.url, "TRADOVATE_STORAGE": (folder / "session").as_uri()}
        start = [sys.executable, *(["-m", "tradovate_auth.instrumentation"] if runner else [])]
        self._processes = [
            subprocess.Popen(
                [*start, str(PROGRAMS / program), *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **names},
            )
            for program, *arguments in BOTS
        ]

    def stop(self) -> list[list[int]]:
        """Press Ctrl-C; return the statuses of the calls of each of them."""
        for process in self._processes:
            process.send_signal(signal.SIGINT)
        told = []
        for process in self._processes:
            output, complaints = process.communicate(timeout=30)
            assert process.returncode == 0, complaints
            told.append(json.loads(output.splitlines()[-1]))
        return told

    def close(self) -> None:
        """Kill what still runs."""
        for process in self._processes:
            process.kill()
            process.communicate()


@contextmanager
def bots(server: Emulator, folder: Path, *, runner: bool) -> Iterator[Bots]:
    """Run the three."""
    running = Bots(server, folder, runner=runner)
    try:
        yield running
    finally:
        running.close()


def seen(server: Emulator, *statuses: int) -> bool:
    """Return whether each bot has been given one of these answers twice: then it has read one of them."""
    given = Counter(each.path for each in server.requests if each.status in statuses)
    return all(given[path] >= 2 for path in PATHS)


def wait_for_renewal(server: Emulator, count: int) -> None:
    """Block until so many were granted."""
    eventually(lambda: server.counts.renewals_granted >= count, f"renewal {count}")


def test_three_bots_on_one_session(tmp_path: Path) -> None:
    """Run by the runner, over three renewals of a token whose predecessor dies with each: every call of each of them is
    good, the server has opened one session and closed none, and it got no login but that one.
    """
    with (
        Emulator(lifetime=LIFETIME, old_token_grace=0.0) as server,
        bots(server, tmp_path, runner=True) as running,
    ):
        eventually(lambda: seen(server, 200), "good calls of each")
        for count in (1, 2, 3):
            wait_for_renewal(server, count)
        told = running.stop()
    assert [set(statuses) for statuses in told] == [{200}] * 3
    assert min(len(statuses) for statuses in told) > 10
    assert len(server.sessions) == server.counts.logins == 1
    assert (server.counts.evictions, server.counts.renewals_refused) == (0, 0)


def test_the_same_three_by_themselves(tmp_path: Path) -> None:
    """The control: without the runner each opens a session, the first is evicted, the others end with their token, and
    each of the three ends up with calls that fail.
    """
    with (
        Emulator(lifetime=5.0, old_token_grace=0.0) as server,
        bots(server, tmp_path, runner=False) as running,
    ):
        eventually(lambda: seen(server, 401, 408), "failed calls of each")
        told = running.stop()
    assert all({*statuses} - {200} for statuses in told)
    assert len(server.sessions) == server.counts.logins == 3
    assert (server.counts.evictions, server.counts.renewals) == (1, 0)

"""The fixtures that users of the package get, and the clock that stands still."""

import importlib
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from core_tools import at_once

import tradovate_auth.testing
from tradovate_auth import AccessToken, Credentials, TokenProvider
from tradovate_auth._clock import Wakeup
from tradovate_auth.testing import Emulator, FakeClock

SUITE = """
import urllib.request
from tradovate_auth import ProviderClosed

SEEN = []

def test_a_call(tradovate_provider, tradovate_emulator, tradovate_credentials):
    token = tradovate_provider.get()
    request = urllib.request.Request(
        tradovate_provider.url("demo", "/account/list"), headers={"Authorization": token.authorization}
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    assert tradovate_emulator.counts.logins == 1
    assert tradovate_credentials.name == token.name
    SEEN.append((tradovate_provider, tradovate_emulator))

def test_it_is_over_and_another_one_is_here(tradovate_emulator, fake_clock):
    provider, emulator = SEEN[0]
    try:
        provider.get()
    except ProviderClosed:
        pass
    else:
        raise AssertionError("the provider of the first test is still open")
    assert not emulator.running
    assert tradovate_emulator is not emulator
    assert tradovate_emulator.counts.logins == 0
    assert fake_clock.elapsed() == 0
"""


def test_a_suite_of_a_user(tmp_path: Path) -> None:
    """`pytest_plugins` in a conftest is all that it takes: an emulator per test, a provider that is closed after it."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["tradovate_auth.testing.plugin"]\n')
    (tmp_path / "test_user.py").write_text(SUITE)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )
    assert "2 passed" in ended.stdout, ended.stdout + ended.stderr
    assert ended.returncode == 0


def test_the_fixtures_fit_together(
    tradovate_provider: TokenProvider, tradovate_emulator: Emulator, tradovate_credentials: Credentials
) -> None:
    """The provider belongs to the emulator's user, and sends nothing before somebody asks it."""
    assert tradovate_emulator.counts.logins == 0
    token = tradovate_provider.get()
    assert isinstance(token, AccessToken)
    assert token.name == tradovate_credentials.name
    assert tradovate_emulator.live_sessions == 1


def test_the_clock_stands_still_and_moves_by_hand(fake_clock: FakeClock) -> None:
    """`advance` moves both clocks, `jump` the wall clock alone; the clock itself may be called for its wall time."""
    assert fake_clock() == fake_clock.time() == 1_800_000_000.0
    fake_clock.advance(10)
    fake_clock.jump(-100)
    assert fake_clock.time() == 1_800_000_000.0 - 90
    assert fake_clock.elapsed() == 10
    assert FakeClock(5.0).time() == 5.0


def test_the_clock_loses_no_move(fake_clock: FakeClock) -> None:
    """Threads may move it at once."""

    def move() -> None:
        for _ in range(100):
            fake_clock.advance(1)

    at_once(20, move)
    assert fake_clock.elapsed() == 2000


def test_waiting_by_the_clock(fake_clock: FakeClock) -> None:
    """`wait` ends when the clock was moved so far (False), or when the event is set (True), whichever comes first."""
    outcomes: list[bool] = []
    never, soon = threading.Event(), Wakeup()
    waiters = [
        threading.Thread(target=lambda: outcomes.append(fake_clock.wait(never, 10))),
        threading.Thread(target=lambda: outcomes.append(fake_clock.wait(soon, 1000))),
    ]
    for waiter in waiters:
        waiter.start()
    fake_clock.advance(9)
    time.sleep(0.02)
    assert outcomes == []
    # Enough for both, whenever the first of them looked at the clock.
    fake_clock.advance(11)
    waiters[0].join(10)
    assert outcomes == [False]
    soon.set()
    waiters[1].join(10)
    assert outcomes == [False, True]
    assert fake_clock.wait(never, 0) is False


def test_the_package_names_what_it_has() -> None:
    """`Emulator` is imported when it is asked for; anything else is an `AttributeError`."""
    module = importlib.import_module("tradovate_auth.testing")
    assert module.Emulator is tradovate_auth.testing.emulator.Emulator
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        module.Nothing  # noqa: B018  # looking at it is the point

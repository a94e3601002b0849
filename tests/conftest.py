"""Fixtures of the whole suite: those that the package ships for its users, and a world whose time stands still."""

from collections.abc import Iterator

import pytest
from core_tools import FrailStorage, World

from tradovate_auth._defaults import PROCESS_STORAGE, SESSIONS_OPENED
from tradovate_auth.testing import Emulator, FakeClock

pytest_plugins = ["tradovate_auth.testing.plugin"]


@pytest.fixture(autouse=True)
def fresh_process() -> None:
    """Forget what the process shares: servers of two tests may have had the same port."""
    SESSIONS_OPENED.clear()
    PROCESS_STORAGE._records.clear()


@pytest.fixture
def world(fake_clock: FakeClock) -> Iterator[World]:
    """Yield a server, a storage and a maker of providers that go by one clock, which only the test moves."""
    with Emulator(clock=fake_clock) as server:
        made = World(fake_clock, server, FrailStorage(clock=fake_clock))
        yield made
        for provider in made.opened:
            provider.close()

"""Fixtures of the whole suite: those that the package ships for its users, and a world whose time stands still."""

import gc
import ipaddress
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from core_tools import FrailStorage, World

from tradovate_auth._defaults import PROCESS_STORAGE, SESSIONS_OPENED
from tradovate_auth._given import GIVEN
from tradovate_auth.testing import Emulator, FakeClock

pytest_plugins = ["tradovate_auth.testing.plugin"]


def _is_here(host: str | bytes | None) -> bool:
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if name in {None, "", "localhost", socket.gethostname()}:
        return True
    try:
        ipaddress.ip_address(str(name).partition("%")[0])
    except ValueError:
        return False
    return True


@pytest.fixture(autouse=True, scope="session")
def no_other_names() -> Iterator[None]:
    """Know no name but this machine's, at once: how long a resolver takes to say so is nothing to test by."""
    resolve = socket.getaddrinfo

    def resolve_here(
        host: str | bytes | None, *args: Any, **options: Any
    ) -> Any:  # whatever the resolver takes
        if not _is_here(host):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", resolve_here)
        yield


@pytest.fixture(autouse=True, scope="session")
def frozen_heap() -> Iterator[None]:
    """Leave what the modules hold out of garbage collections: tests ask for full ones, to see what they have left open."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def fresh_process() -> None:
    """Forget what the process shares: servers of two tests may have had the same port."""
    SESSIONS_OPENED.clear()
    PROCESS_STORAGE._records.clear()
    GIVEN.clear()


@pytest.fixture
def world(fake_clock: FakeClock) -> Iterator[World]:
    """Yield a server, a storage and a maker of providers that go by one clock, which only the test moves."""
    with Emulator(clock=fake_clock) as server:
        made = World(fake_clock, server, FrailStorage(clock=fake_clock))
        yield made
        for provider in made.opened:
            provider.close()

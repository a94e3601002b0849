"""pytest fixtures: `pytest_plugins = ["tradovate_auth.testing.plugin"]` in a conftest.

The emulator is an auth server of its own for each test; the provider's session lives in a storage of its own. Both are
closed at the end of the test.
"""

from collections.abc import Iterator

import pytest

from ..models import Credentials
from ..provider import TokenProvider
from ..storage import MemoryStorage
from .clock import FakeClock
from .emulator import Emulator

__all__ = ["fake_clock", "tradovate_credentials", "tradovate_emulator", "tradovate_provider"]


@pytest.fixture
def fake_clock() -> FakeClock:
    """Return a clock that stands still until the test moves it."""
    return FakeClock()


@pytest.fixture
def tradovate_emulator() -> Iterator[Emulator]:
    """Yield a running auth server on loopback, whose tokens live 80 minutes; `configure()` changes its rules."""
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def tradovate_credentials(tradovate_emulator: Emulator) -> Credentials:
    """Return the credentials of the emulator's user."""
    return Credentials(**tradovate_emulator.credentials)


@pytest.fixture
def tradovate_provider(
    tradovate_emulator: Emulator, tradovate_credentials: Credentials
) -> Iterator[TokenProvider]:
    """Yield a provider for the emulator's user; nothing is sent before somebody asks it for a token."""
    with TokenProvider(
        tradovate_credentials, environment=tradovate_emulator.url, storage=MemoryStorage()
    ) as provider:
        yield provider

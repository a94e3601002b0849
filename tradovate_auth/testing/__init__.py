"""What this package is tested with, for the tests of its users too.

    pytest_plugins = ["tradovate_auth.testing.plugin"]

`Emulator` is a Tradovate auth server on loopback, `FakeClock` a clock that a test moves by hand.
"""

from typing import TYPE_CHECKING

from .clock import FakeClock

if TYPE_CHECKING:
    from .emulator import Emulator

__all__ = ["Emulator", "FakeClock"]


def __getattr__(name: str) -> type:
    if name == "Emulator":  # lazily: it needs aiohttp
        from .emulator import Emulator

        return Emulator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

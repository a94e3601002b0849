"""An emulator of the Tradovate auth server: sessions, tokens, limits and every trouble of theirs, on loopback.

>>> from tradovate_auth.testing.emulator import Emulator, Fault
>>> with Emulator(lifetime=6.0) as server:
...     server.inject(Fault("login", "drop_after"))
...     print(server.live_sessions)
0

``Emulator`` runs in a thread, ``EmulatorProcess`` and ``python -m tradovate_auth.testing.emulator`` in a process of its
own. Everything in ``Rules`` can be changed while it runs. It knows nothing of the library it is there to test, and
needs aiohttp: ``pip install 'tradovate-auth[emulator]'``.
"""

from typing import TYPE_CHECKING, Any

from tradovate_auth.testing.emulator._faults import Fault
from tradovate_auth.testing.emulator._process import EmulatorProcess
from tradovate_auth.testing.emulator._records import Counts, OrderInfo, RequestInfo, SessionInfo, short_hash
from tradovate_auth.testing.emulator._rules import Rules

if TYPE_CHECKING:
    from tradovate_auth.testing.emulator._server import Emulator

__all__ = [
    "Counts",
    "Emulator",
    "EmulatorProcess",
    "Fault",
    "OrderInfo",
    "RequestInfo",
    "Rules",
    "SessionInfo",
    "short_hash",
]


def __getattr__(name: str) -> Any:
    """Emulator, imported when it is first asked for: the rest works without aiohttp.

    Raises:
        AttributeError: There is no such name.
        ImportError: aiohttp is not installed; the message says how.
    """
    if name == "Emulator":
        from tradovate_auth.testing.emulator._server import Emulator

        globals()[name] = Emulator
        return Emulator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""How a child process of an instrumented program begins: it waits, at next to no cost, for an HTTP library.

The `sitecustomize` in `_site` runs this in every Python that inherits the runner's PYTHONPATH, of whatever version and whether
or not this package is installed there. So it imports next to nothing and is written for older Pythons too. Instrumenting
costs a tenth of a second, and most children (compilers, linters, workers that only count) never send a request: all that
happens at the start is that a finder is put before the others, and the first import of an HTTP library makes it
instrument, before that library is loaded.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock  # as threading has it, which would cost each child two milliseconds
from importlib import import_module
from importlib.machinery import SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

__all__ = ["LIBRARIES", "VARIABLE", "disarm", "enter", "options", "say"]

LIBRARIES = ("requests", "httpx", "httpx2", "aiohttp")
VARIABLE = "TRADOVATE_INSTRUMENTATION"
"""Names the environment variable that hands the runner's options to the children, as JSON. It holds no secret."""

_PATIENCE = (
    10.0  # seconds; two threads that import two libraries at once may each need what the other has locked
)


class _Watch:
    """A finder that finds nothing by itself. It is in force until one of the libraries is looked for."""

    def __init__(self) -> None:
        self._lock = RLock()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in LIBRARIES:
            return None
        locked = self._lock.acquire(timeout=_PATIENCE)
        try:
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                _instrument()
        finally:
            if locked:
                self._lock.release()
        # The finders that instrumenting has just added stand where this search has already been: it starts anew.
        specs = (finder.find_spec(name, path, target) for finder in list(sys.meta_path))
        return next((spec for spec in specs if spec is not None), None)


_WATCH = _Watch()


def enter(folder: str) -> None:
    """Do what is to be done when Python starts, for the `sitecustomize` in a folder; then run the one that it hides.

    Whatever that one raises comes out, as if it had been found first.
    """
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    if any(name in sys.modules for name in LIBRARIES):
        _instrument()  # something that starts even earlier has imported it
    else:
        sys.meta_path.insert(0, _WATCH)
    ours = sys.modules.pop("sitecustomize")
    try:
        import_module("sitecustomize")  # the next one on the path
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
        sys.modules["sitecustomize"] = ours  # the import system wants to find it there when it returns


def disarm() -> None:
    """Wait for no library any more: somebody instruments this process by himself. Never blocks."""
    if _WATCH in sys.meta_path:
        sys.meta_path.remove(_WATCH)


def options() -> dict[str, Any]:
    """Return the options that a runner above this process has set, for `instrument`. Never blocks.

    Raises:
        ValueError: The variable does not hold what a runner writes there.
    """
    import json

    found = json.loads(os.environ.get(VARIABLE) or "{}")
    if not isinstance(found, dict):
        raise ValueError(f"{VARIABLE} is no JSON object")  # noqa: TRY004  # it is what ValueError is said to mean here
    return found


def say(message: str) -> None:
    """Write one line to stderr, if there is one that can be written to. Blocks as long as that does.

    What cannot be shown on a line, such as a terminal's control characters, is left out.
    """
    shown = "".join(filter(str.isprintable, " ".join(line.strip() for line in message.splitlines())))
    try:  # noqa: SIM105  # contextlib may be a module of the program's
        sys.stderr.write(f"tradovate_auth: {shown}\n")
    except Exception:  # noqa: BLE001, S110  # None under pythonw, or closed, or the program's own
        pass


def _instrument() -> None:
    with _shelter():
        _instrument_sheltered()


def _shelter() -> Any:
    """Return the shelter, which like this module is loaded before the package."""
    name = "tradovate_auth._instrument_shelter"
    if name not in sys.modules:
        folder = os.path.dirname(__file__)  # noqa: PTH120  # pathlib may be a module of the program's
        loader = SourceFileLoader(name, folder + "/_instrument_shelter.py")
        module = sys.modules[name] = type(sys)(name)
        module.__file__ = loader.path
        loader.exec_module(module)
    return sys.modules[name].SHELTER


def _instrument_sheltered() -> None:
    try:
        from tradovate_auth import TradovateAuthError
        from tradovate_auth._instrument_notices import tell
        from tradovate_auth.instrumentation import instrument
    except Exception as error:  # noqa: BLE001  # whatever it is, it must not stop the program
        return _complain(error, shown=isinstance(error, ImportError))
    try:
        instrument(**options(), on_event=tell)
    except Exception as error:  # noqa: BLE001  # as above
        _complain(error, shown=isinstance(error, TradovateAuthError))


def _complain(error: Exception, *, shown: bool) -> None:
    """Say in one line why there is no session here. A text that is not known to be free of secrets is not shown."""
    say(f"process {os.getpid()} does not share the session: {error if shown else type(error).__name__}")

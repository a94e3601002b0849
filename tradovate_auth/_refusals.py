"""Which 401s a renewal cannot cure: a key without a permission gets the same status as a dead token (P§3.2, P§9.8)."""

import math
from collections.abc import Callable
from typing import Final, TypeVar

from ._clock import SYSTEM_CLOCK

__all__ = ["Refusals"]

_REMEMBERED: Final = 256
_STRAIGHT_AFTER: Final = (
    60.0  # seconds after a renewal in which a 401 speaks of the key rather than of the session
)
_K = TypeVar("_K")
_V = TypeVar("_V")


class Refusals:
    """Remembers what was refused, and what was refused again straight after a renewal. Any thread; never blocks.

    Args:
        elapsed: A clock that never jumps, in seconds.
    """

    def __init__(self, elapsed: Callable[[], float] = SYSTEM_CLOCK.elapsed) -> None:
        self._elapsed = elapsed
        self._brought_at = -math.inf
        self._asked: dict[tuple[str, str], int] = {}
        self._denied: dict[tuple[int, str, str], None] = {}
        self._brought = 0

    def ask(self, generation: int, method: str, path: str) -> None:
        """Note that this call, made with a token of this generation, is the reason for a renewal."""
        _remember(self._asked, (method, path), generation)

    def brought(self, generation: int) -> None:
        """Note which generation the renewal brought."""
        self._brought, self._brought_at = generation, self._elapsed()

    def cured(self, generation: int) -> bool:
        """Note that a call with this generation succeeded; return whether that proves the renewal right."""
        if generation != self._brought:
            return False
        self._brought = 0
        self._asked.clear()
        return True

    def is_final(self, generation: int, method: str, path: str) -> bool:
        """Return whether a 401 for this call is the answer: another renewal would not change it."""
        if (generation, method, path) in self._denied:
            return True
        asked = self._asked.get((method, path), generation)
        if asked >= generation or generation != self._brought:
            return False
        if self._elapsed() - self._brought_at > _STRAIGHT_AFTER:
            # Nobody could send it again when the renewal came, and since then the session may have died anew.
            return False
        _remember(self._denied, (generation, method, path), None)
        return True


def _remember(memory: dict[_K, _V], key: _K, value: _V) -> None:
    memory[key] = value
    for oldest in list(memory)[:-_REMEMBERED]:  # a copy: other threads may be in here too
        memory.pop(oldest, None)

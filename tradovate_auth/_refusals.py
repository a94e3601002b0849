"""Which 401s a renewal cannot cure: a key without a permission gets the same status as a dead token (P§3.2, P§9.8)."""

from typing import Final, TypeVar

__all__ = ["Refusals"]

_REMEMBERED: Final = 256
_K = TypeVar("_K")
_V = TypeVar("_V")


class Refusals:
    """Remembers what was refused, and what was refused again straight after a renewal. Any thread; never blocks."""

    def __init__(self) -> None:
        self._asked: dict[tuple[str, str], int] = {}
        self._denied: dict[tuple[int, str, str], None] = {}
        self._brought = 0

    def ask(self, generation: int, method: str, path: str) -> None:
        """Note that this call, made with a token of this generation, is the reason for a renewal."""
        _remember(self._asked, (method, path), generation)

    def brought(self, generation: int) -> None:
        """Note which generation the renewal brought."""
        self._brought = generation

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
        _remember(self._denied, (generation, method, path), None)
        return True


def _remember(memory: dict[_K, _V], key: _K, value: _V) -> None:
    memory[key] = value
    for oldest in list(memory)[:-_REMEMBERED]:  # a copy: other threads may be in here too
        memory.pop(oldest, None)

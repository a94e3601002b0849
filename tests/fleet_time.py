"""Virtual time: what happens when, however much that is."""

import heapq
import itertools
from collections.abc import Callable
from typing import Final

__all__ = ["NEVER", "Agenda"]

NEVER: Final = float("inf")

_Entry = tuple[float, int, Callable[[float], object]]


class Agenda:
    """Time, and what happens when."""

    def __init__(self) -> None:
        self.now = 0.0
        self._near: list[_Entry] = []
        """What happens within this second, and when the pages of later ones are to be opened: it stays short, and quick."""
        self._pages: dict[int, list[_Entry]] = {}
        self._opened = 0
        self._serial = itertools.count()

    def at(self, moment: float, action: Callable[[float], object]) -> None:
        """Plan something; it is told the moment that it was planned for."""
        second = int(moment)
        if second <= self._opened:
            heapq.heappush(self._near, (moment, next(self._serial), action))
            return
        page = self._pages.get(second)
        if page is None:
            page = self._pages[second] = []
            heapq.heappush(self._near, (float(second), next(self._serial), self._open))
        page.append((moment, next(self._serial), action))

    def _open(self, moment: float) -> None:
        self._opened = int(moment)
        for entry in self._pages.pop(self._opened):
            heapq.heappush(self._near, entry)

    def run(self, seconds: float) -> None:
        """Let time pass, and everything happen that is planned for it."""
        until, agenda, take = self.now + seconds, self._near, heapq.heappop
        while agenda and agenda[0][0] <= until:
            moment, _, action = take(agenda)
            if moment > self.now:  # noqa: PLR1730  # millions of times
                self.now = moment
            action(moment)
        self.now = max(self.now, until)

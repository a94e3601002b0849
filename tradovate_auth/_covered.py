"""Which single clients something lies over."""

import weakref
from typing import Any, Generic, TypeVar

__all__ = ["Covered"]

T = TypeVar("T")


class Covered(Generic[T]):
    """What lies over single clients, by identity: a client of somebody else's may compare equal to another, or have no hash.

    Changed under the lock of `_instrument_state`, read without one.
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Any], T]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, client: object, overlay: T) -> None:
        """Lay an overlay over a client, which is held weakly."""
        key, entries = id(client), self._entries
        entries[key] = (weakref.ref(client, lambda _: entries.pop(key, None)), overlay)

    def get(self, client: object) -> T | None:
        """Return what lies over a client."""
        entry = self._entries.get(id(client))
        return entry[1] if entry is not None and entry[0]() is client else None

    def over(self) -> list[T]:
        """Return what lies over the clients that are still there."""
        return [overlay for _, overlay in list(self._entries.values())]

    def drop(self, overlay: T, client: object) -> None:
        """Take an overlay away from a client, if it is still that one."""
        if client is not None and self.get(client) is overlay:
            self._entries.pop(id(client), None)

    def drop_all(self, overlay: T | None = None) -> None:
        """Take an overlay away from every client, or all overlays."""
        for key, (_, over) in list(self._entries.items()):
            if overlay in (None, over):
                self._entries.pop(key, None)

"""A storage that several processes of a test share, each by a way of its own, in a world whose time the test moves."""

from collections.abc import Iterator
from contextlib import contextmanager

from core_tools import FrailStorage, World

from tradovate_auth import AccessToken, StorageError, TokenProvider
from tradovate_auth.storage import Record

__all__ = ["Shared", "full", "step", "stored"]


class Shared(FrailStorage):
    """One process's way to a place that others reach by ways of their own."""

    private = False

    def __init__(self, world: World) -> None:
        super().__init__(clock=world.clock)
        self._records = world.storage._records


def step(world: World, provider: TokenProvider, seconds: float) -> AccessToken:
    """Let time pass, ask for the token, and let what that has started land; return the token in hand then."""
    world.clock.advance(seconds)
    provider.get()
    world.settled(provider)
    return provider.get()


def stored(world: World, provider: TokenProvider) -> Record:
    """Return the record as it lies in the storage."""
    record = world.storage._records.get(provider._account.key)
    assert record is not None
    return record


@contextmanager
def full(storage: Shared, *, generation: int) -> Iterator[None]:
    """Let no record of this generation be saved."""
    original = storage.save

    def save(key: str, record: Record) -> bool:
        if record.generation == generation:
            raise StorageError("no room on the disk")
        return original(key, record)

    storage.save = save  # type: ignore[method-assign]
    try:
        yield
    finally:
        storage.save = original  # type: ignore[method-assign]

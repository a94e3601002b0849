"""The requests that the package makes itself, on its way to a token: instrumentation must not touch them.

A transport that was given somebody's instrumented session would otherwise ask for the very token that it is to fetch, and so
would a `TokenSource` of the user's own that asks a server.
"""

import contextvars
from collections.abc import Generator
from contextlib import contextmanager

from ._flight import _flying
from ._source import TokenSource
from .environments import Environment
from .models import AccessToken

__all__ = ["Quiet", "on_own_business"]

_asking: "contextvars.ContextVar[bool]" = contextvars.ContextVar("_asking", default=False)


class Quiet:
    """A source whose own requests, if it makes any, are left alone."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source
        self.reject = source.reject
        self.report = source.report

    @property
    def environment(self) -> Environment:
        """See `TokenSource`."""
        return self._source.environment

    def get(self, timeout: float | None = 30.0, *, min_ttl: float = 0.0) -> AccessToken:
        """See `TokenSource`."""
        with _marked():
            return self._source.get(timeout, min_ttl=min_ttl)

    async def aget(self, *, min_ttl: float = 0.0) -> AccessToken:
        """See `TokenSource`."""
        with _marked():
            return await self._source.aget(min_ttl=min_ttl)


def on_own_business() -> bool:
    """Return whether the caller is fetching a token: as the transport of a provider, whichever, or as a source."""
    flight = _flying.get()
    return _asking.get() or (flight is not None and not flight.landed)


@contextmanager
def _marked() -> Generator[None, None, None]:
    before = _asking.set(True)
    try:
        yield
    finally:
        _asking.reset(before)

"""What adapters ask for a token."""

from typing import Protocol

from .environments import Environment
from .models import AccessToken

__all__ = ["TokenSource"]


class TokenSource(Protocol):
    """What an adapter needs: a `TokenProvider`, or anything else that hands out tokens."""

    @property
    def environment(self) -> Environment:
        """Which origins get the token."""
        ...

    def get(self, timeout: float | None = 30.0, *, min_ttl: float = 0.0) -> AccessToken:
        """See `TokenProvider.get`."""
        ...

    async def aget(self, *, min_ttl: float = 0.0) -> AccessToken:
        """See `TokenProvider.aget`."""
        ...

    def reject(self, token: AccessToken, *, method: str = "", path: str = "") -> bool:
        """See `TokenProvider.reject`."""
        ...

    def report(self, token: AccessToken, status: int) -> None:
        """See `TokenProvider.report`."""
        ...

"""How the two auth calls reach the server: one request, one answer, over the library that the user already has.

A transport opens what it needs for each call and closes it again: at one call in an hour a pool saves nothing, and a socket
that nobody owns is a socket that no fork can break. It never follows a redirect, never reads a netrc, never goes through the
session that it authenticates, and blocks: only the one thread of a flight uses it.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from .errors import ConfigurationError

__all__ = ["ANSWER_LIMIT", "Call", "Reply", "Transport", "first_installed"]

ANSWER_LIMIT: Final = 2**20
"""Bytes of an answer that a transport reads at most; real ones have a few kilobytes."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request to the server, ready to be sent."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: status, headers in any case, the whole body."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def header(self, name: str) -> str | None:
        """Return the value of a header, given in lower case, or None."""
        return next((value for key, value in self.headers.items() if key.lower() == name), None)


class Transport(Protocol):
    """What carries the auth calls. Implement it to send them over a stack of your own."""

    def send(self, call: Call, timeout: float) -> Reply:
        """Send a call and return the answer, whatever its status.

        Blocks; called from a thread of this package, never twice at once for one provider.

        Args:
            call: What to send, exactly so.
            timeout: Longest time in seconds for the whole exchange.

        Raises:
            TransportError: No complete answer came; `.sent` says whether the request may have arrived.
        """
        ...


def first_installed() -> Transport:
    """Return a transport over the first of httpx2, httpx, requests and aiohttp that is installed.

    Raises:
        ConfigurationError: None of them is.
    """
    if importlib.util.find_spec("httpx2") is not None:
        from .httpx2 import Httpx2Transport

        return Httpx2Transport()
    if importlib.util.find_spec("httpx") is not None:
        from .httpx import HttpxTransport

        return HttpxTransport()
    if importlib.util.find_spec("requests") is not None:
        from .requests import RequestsTransport

        return RequestsTransport()
    if importlib.util.find_spec("aiohttp") is not None:
        from .aiohttp import AiohttpTransport

        return AiohttpTransport()
    raise ConfigurationError(
        "No HTTP client library is installed.",
        None,
        "Install one of them: pip install 'tradovate-auth[httpx]' (or requests, httpx2, aiohttp).",
    )

"""How long a call waits for a token, in the calls of an event loop: asyncio's or trio's.

Threads bring their own limit to `TokenSource.get`; `aget` has none. What is cut off here is the waiting alone: the attempt
goes on, and serves the next call.
"""

import asyncio
import math
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from ._keeper import Keeper
from ._source import TokenSource
from .errors import TokenTimeout
from .models import AccessToken

__all__ = ["PATIENCE", "in_time", "token_within"]

T = TypeVar("T")
PATIENCE: Final = 30.0
"""Seconds that a call waits for a token if nobody says otherwise."""


async def token_within(
    source: TokenSource, keeper: Keeper | None, seconds: float, min_ttl: float
) -> AccessToken:
    """Return a usable token, as `TokenProvider.aget` does, within so many seconds.

    Args:
        source: Who is asked.
        keeper: What is behind it, if it is a provider of ours: that one tells at once what cannot be outlasted.
        seconds: Longest wait; infinity for none.
        min_ttl: As for `aget`.

    Raises:
        TradovateAuthError: As `TokenProvider.get`.
    """
    asking = source.aget(min_ttl=min_ttl) if keeper is None else _arrival(keeper, seconds, min_ttl)
    if seconds == math.inf:
        return await asking
    token = await _in_asyncio(asking, seconds) if _on_asyncio() else await _in_trio(asking, seconds)
    if token is None:
        busy = "" if keeper is None else keeper._account.busy  # noqa: SLF001  # as `TokenProvider.get` says it
        raise TokenTimeout(f"There was no token within {seconds:.1f} s. {busy}".strip())
    return token


async def in_time(landing: Coroutine[Any, Any, None], seconds: float) -> bool:
    """Return whether something has come to its end within so many seconds: on any asyncio loop, or under trio."""

    async def done() -> bool:
        await landing
        return True

    return bool(await (_in_asyncio(done(), seconds) if _on_asyncio() else _in_trio(done(), seconds)))


async def _arrival(keeper: Keeper, seconds: float, min_ttl: float) -> AccessToken:
    approach = keeper.approach(min_ttl, seconds)
    try:
        while True:
            await next(approach).await_landing()
    except StopIteration as arrived:
        return arrived.value  # type: ignore[no-any-return]  # what the generator returns


def _on_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _in_asyncio(asking: Coroutine[Any, Any, T], seconds: float) -> T | None:
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await asking
    except TimeoutError:
        if not limit.expired():  # the source's own, which is one too
            raise
    return None


async def _in_trio(asking: Coroutine[Any, Any, T], seconds: float) -> T | None:
    import trio

    with trio.move_on_after(seconds):
        return await asking
    return None

"""Keeps a WebSocket open and authorised: over renewals, drops, moves, penalties and evictions.

Reads the `TRADOVATE_` variables and runs until it is interrupted. Needs aiohttp.
"""

import asyncio
import contextlib
import json
import logging
import math
import random
from collections.abc import Callable
from typing import Any

import aiohttp

from tradovate_auth import (
    AccessToken,
    ConfigurationError,
    LoginRefused,
    LoginRequired,
    ProviderClosed,
    TokenProvider,
    TradovateAuthError,
)
from tradovate_auth.events import Event, Evicted
from tradovate_auth.websocket import authorize_frame

HEARTBEAT = 2.5  # seconds between two signs of life; the server closes a socket that gives none
HANDSHAKE = 10.0  # seconds for connecting, the greeting and the answer to the authorize frame
PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between two connections, doubled each time
GOOD_AFTER = 60.0  # seconds after which a connection counts as a good one
AUTHORIZE = 0  # the request id of the authorize frame; use others for requests of your own
SHORTEST_PENALTY, USUAL_PENALTY = 1.0, 15.0  # seconds
RESENDS = 2  # of the frame on one connection, after penalties
BARRED = 3600.0  # seconds after a captcha, which no program can solve, or after one penalty too many
FOR_HUMANS = (ConfigurationError, LoginRefused, LoginRequired, ProviderClosed)

log = logging.getLogger("websocket")


class Ended(Exception):
    """A connection is over; `wait` is how many seconds to stay away, None for the usual pause."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class Stream:
    """One socket after another, each authorised with the token of its moment.

    Hand `on_event` to the provider: it is how the stream hears that its session was closed by somebody else.

    Args:
        on_data: Called on the loop with each message of the server's.
        key: Which of the server's hosts (`demo`, `live`, `mdDemo`, ...); None for the environment's own.
        market_data: Authorise with the token for market data.
    """

    def __init__(
        self, on_data: Callable[[Any], object], *, key: str | None = None, market_data: bool = False
    ) -> None:
        self._on_data = on_data
        self._key = key
        self._market_data = market_data
        self._loop: asyncio.AbstractEventLoop | None = None
        self._evicted = 0  # the newest generation of tokens whose session is known to be closed
        self._evictions = asyncio.Event()

    def on_event(self, event: Event) -> None:
        """Listen to the provider. It calls from a thread of its own."""
        if isinstance(event, Evicted) and self._loop is not None:
            self._loop.call_soon_threadsafe(self._on_evicted, event.generation)

    def _on_evicted(self, generation: int) -> None:
        self._evicted = max(self._evicted, generation)
        self._evictions.set()

    async def run(self, provider: TokenProvider, session: aiohttp.ClientSession) -> None:
        """Connect again and again until cancelled. What only a human can mend, such as `LoginRefused`, comes out."""
        self._loop = asyncio.get_running_loop()
        pause, min_ttl = PAUSE, 0.0
        while True:
            began, wait = self._loop.time(), None
            try:
                # Asked for at each connection: the token of the last one may have been renewed since.
                token = await provider.aget(min_ttl=min_ttl)
                min_ttl = 0.0
                await self._connection(provider, session, token)
                ending = "the session was evicted" if token.generation <= self._evicted else "closed"
            except Ended as error:
                ending, wait = str(error), error.wait
            except TradovateAuthError as error:
                if isinstance(error, FOR_HUMANS) and error.retry_after is None:
                    raise
                ending, wait = type(error).__name__, error.retry_after
            except aiohttp.WSServerHandshakeError as error:
                # 421: the account lives on another host now, and a renewal says on which.
                ending, min_ttl = f"status {error.status}", math.inf if error.status == 421 else 0.0
            except (aiohttp.ClientError, OSError) as error:  # a time-out is an OSError
                ending = type(error).__name__
            if self._loop.time() - began > GOOD_AFTER:
                pause = PAUSE
            wait = random.uniform(0, pause) if wait is None else wait
            log.info("disconnected: %s; again in %.1f s", ending, wait)
            await asyncio.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _connection(
        self, provider: TokenProvider, session: aiohttp.ClientSession, token: AccessToken
    ) -> None:
        """Talk on one socket until it ends."""
        url = provider.websocket_url(self._key or provider.environment.kind)
        async with asyncio.timeout(HANDSHAKE) as handshake, session.ws_connect(url) as socket:
            tasks = [
                asyncio.create_task(self._beat(socket)),
                asyncio.create_task(self._close_when_evicted(socket, token)),
            ]
            penalties = 0
            try:
                async for message in socket:
                    text = message.data if message.type is aiohttp.WSMsgType.TEXT else ""
                    if text == "o":
                        await self._authorize(socket, token)
                    for item in read(text):
                        if item.get("i") != AUTHORIZE:
                            self._on_data(item)
                        elif seconds := penalty(item):
                            penalties += 1
                            if penalties > RESENDS:
                                raise Ended("one penalty after the other", max(seconds, BARRED))
                            handshake.reschedule(asyncio.get_running_loop().time() + seconds + HANDSHAKE)
                            await asyncio.sleep(seconds)
                            await self._authorize(socket, token)
                        else:
                            self._judge(provider, token, item.get("s"))
                            handshake.reschedule(None)
                            log.info("authorised with generation %d", token.generation)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _authorize(self, socket: aiohttp.ClientWebSocketResponse, token: AccessToken) -> None:
        await socket.send_str(authorize_frame(token, AUTHORIZE, self._market_data))

    def _judge(self, provider: TokenProvider, token: AccessToken, status: object) -> None:
        """Tell the provider what the frame was answered with; return if the socket is authorised."""
        if status == 401:
            provider.reject(token, method="GET", path="/websocket")
            raise Ended("the token was refused")
        if not isinstance(status, int):
            raise Ended("an answer that cannot be read")
        # Three bad ones in a row may be an eviction, which the provider then looks into.
        provider.report(token, status)
        if status != 200:
            raise Ended(f"the frame was answered with {status}", LONGEST_PAUSE if status == 429 else None)

    async def _beat(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await asyncio.sleep(HEARTBEAT)
                await socket.send_str("[]")

    async def _close_when_evicted(self, socket: aiohttp.ClientWebSocketResponse, token: AccessToken) -> None:
        # Renewals need nothing: the session is the same. After an eviction there is another one, opened by a login.
        while token.generation > self._evicted:
            self._evictions.clear()
            await self._evictions.wait()
        await socket.close()


def read(text: str) -> list[dict[str, Any]]:
    """Return what is in a message, nothing if it is a sign of life or the like."""
    if not text.startswith("a"):
        return []
    try:
        items = json.loads(text[1:])
    except (ValueError, RecursionError):
        items = None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Ended("a message that cannot be read")
    return items


def penalty(item: dict[str, Any]) -> float:
    """Return for how many seconds an answer puts us off, 0.0 for none: that comes with status 200, too (P§1.4)."""
    detail = item.get("d")
    if not isinstance(detail, dict) or not detail.keys() & {"p-ticket", "p-time", "p-captcha"}:
        return 0.0
    if detail.get("p-captcha") not in (None, False, "false"):
        raise Ended("the server asks for a captcha", BARRED)
    seconds = detail.get("p-time")
    if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        return USUAL_PENALTY
    return min(max(seconds, SHORTEST_PENALTY), BARRED)


async def main() -> None:
    """Print whatever the server says."""
    logging.basicConfig(level=logging.INFO)
    stream = Stream(print)
    async with (
        TokenProvider.from_env(on_event=stream.on_event) as provider,
        aiohttp.ClientSession() as session,
    ):
        await stream.run(provider, session)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())

"""The six stacks: every HTTP library, from threads and from tasks, over one provider.

None of them looks for proxies in the environment: the server is on this machine.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from typing import Any, Final

import aiohttp
import httpx
import httpx2
import requests

from ... import aiohttp as for_aiohttp
from ... import httpx as for_httpx
from ... import httpx2 as for_httpx2
from ... import requests as for_requests
from ...provider import TokenProvider
from ._script import Call, Script, Stack, Worker

__all__ = ["Traffic"]

_PAUSE: Final = 0.05  # seconds between two calls of a worker
_PARKED: Final = 0.002
_THREADS: Final = 3
_TASKS: Final = 4
_JSON: Final = {"Content-Type": "application/json"}

Send = Callable[[Call], None]
AsyncSend = Callable[[Call], Awaitable[None]]


class _RefusedError(Exception):
    """The server's last word was not 200."""


class Traffic:
    """Calls the server from all stacks at once, between `start()` and `stop()`.

    Args:
        provider: The one that all of them share.
        url: The server's base URL.
    """

    def __init__(self, provider: TokenProvider, url: str) -> None:
        self.stacks: list[Stack] = []
        self.script = Script()
        self._provider = provider
        self._url = url
        self._open = ExitStack()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start all threads, one of them with an event loop and its tasks; blocks for as long as that takes."""
        enter, provider = self._open.enter_context, self._provider
        session = enter(requests.Session())
        session.auth, session.trust_env = for_requests.TradovateAuth(provider), False
        first = enter(httpx.Client(auth=for_httpx.TradovateAuth(provider), trust_env=False))
        second = enter(httpx2.Client(auth=for_httpx2.TradovateAuth(provider), trust_env=False))
        self._add("requests, threads", self._blocking(session.request, "data"), _THREADS)
        self._add("httpx, thread", self._blocking(first.request, "content"), 1)
        self._add("httpx2, thread", self._blocking(second.request, "content"), 1)
        asynchronous = [self._stack(f"{name}, tasks") for name in ("httpx", "httpx2", "aiohttp")]
        workers = [[Worker(stack, self.script) for _ in range(_TASKS)] for stack in asynchronous]
        self._start(lambda: asyncio.run(self._loop(*workers)))

    def stop(self) -> None:
        """Let every worker finish its call, and end; blocks until the last one has."""
        self.script.stopped.set()
        for thread in self._threads:
            thread.join()
        self._open.close()

    def _stack(self, name: str) -> Stack:
        stack = Stack(name)
        self.stacks.append(stack)
        return stack

    def _add(self, name: str, send: Send, threads: int) -> None:
        stack = self._stack(name)
        for _ in range(threads):
            self._start(partial(self._work, Worker(stack, self.script), send))

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work)
        thread.start()
        self._threads.append(thread)

    def _work(self, worker: Worker, send: Send) -> None:
        while not self.script.stopped.is_set():
            if worker.may_call():
                with worker.call() as call:
                    send(call)
            time.sleep(_PARKED if worker.parked else _PAUSE)

    async def _loop(self, first: Sequence[Worker], second: Sequence[Worker], third: Sequence[Worker]) -> None:
        async with AsyncExitStack() as opened:
            enter, provider = opened.enter_async_context, self._provider
            old = await enter(httpx.AsyncClient(auth=for_httpx.TradovateAuth(provider), trust_env=False))
            new = await enter(httpx2.AsyncClient(auth=for_httpx2.TradovateAuth(provider), trust_env=False))
            session = await enter(aiohttp.ClientSession())
            sends = (self._waiting(old.request), self._waiting(new.request), self._aiohttp(session))
            async with asyncio.TaskGroup() as tasks:
                for send, workers in zip(sends, (first, second, third), strict=True):
                    for worker in workers:
                        tasks.create_task(self._work_waiting(worker, send))

    async def _work_waiting(self, worker: Worker, send: AsyncSend) -> None:
        while not self.script.stopped.is_set():
            if worker.may_call():
                with worker.call() as call:
                    await send(call)
            await asyncio.sleep(_PARKED if worker.parked else _PAUSE)

    def _target(self, call: Call) -> tuple[str, str]:
        if call.body is None:
            return "GET", f"{self._url}/account/list"
        return "POST", f"{self._url}/order/placeorder"

    def _blocking(self, request: Callable[..., Any], body: str) -> Send:
        def send(call: Call) -> None:
            response = request(*self._target(call), **{body: call.body}, headers=_JSON)
            call.resends = _cured(response.status_code, [each.status_code for each in response.history])

        return send

    def _waiting(self, request: Callable[..., Awaitable[Any]]) -> AsyncSend:
        async def send(call: Call) -> None:
            response = await request(*self._target(call), content=call.body, headers=_JSON)
            call.resends = _cured(response.status_code, [each.status_code for each in response.history])

        return send

    def _aiohttp(self, session: aiohttp.ClientSession) -> AsyncSend:
        auth = for_aiohttp.TradovateAuth(self._provider)

        async def send(call: Call) -> None:
            refused: list[int] = []

            async def watch(
                request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
            ) -> aiohttp.ClientResponse:
                response = await handler(request)
                refused.append(response.status)
                return response

            # aiohttp's history knows redirects only: a second middleware, inside ours, sees every answer there was.
            options: dict[str, Any] = {"data": call.body, "headers": _JSON, "middlewares": (auth, watch)}
            async with session.request(*self._target(call), **options) as response:
                await response.read()
            call.resends = _cured(refused.pop(), refused)

        return send


def _cured(status: int, before: Sequence[int]) -> int:
    """Return how often a call was refused before it succeeded.

    Raises:
        _RefusedError: It did not.
    """
    if status != 200:
        raise _RefusedError(f"status {status}")
    return before.count(401)

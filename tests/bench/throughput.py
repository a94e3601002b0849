"""Whole requests against the emulator in a process of its own: with the adapter, to the same token in a static header.

Both send over connections of their own, in turns, and in random order within a turn. The server has a core to itself where
there are two; nothing else is between.
"""

import asyncio
import gc
import random
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from typing import Any, Final

import aiohttp
import httpx
import httpx2
import requests
from bench.tables import table

import tradovate_auth.aiohttp
import tradovate_auth.httpx
import tradovate_auth.httpx2
import tradovate_auth.requests
from tradovate_auth import Credentials, TokenProvider
from tradovate_auth.storage import MemoryStorage
from tradovate_auth.testing.emulator import EmulatorProcess

__all__ = ["main"]

_ROUNDS: Final = 11
_CALLS: Final = 200
_THREADS: Final = 8
_TASKS: Final = 64

Rates = dict[str, list[tuple[float, float]]]
"""Seconds by the clock and of processor time, by contestant and round."""


def blocking(provider: TokenProvider, url: str, opened: ExitStack) -> dict[str, dict[str, Callable[[], Any]]]:
    """Return one call of each blocking library, with the adapter and with the static header."""
    header = {"Authorization": provider.get().authorization}
    plain, ours = (opened.enter_context(requests.Session()) for _ in range(2))
    plain.headers.update(header)
    ours.auth = tradovate_auth.requests.TradovateAuth(provider)
    for session in (plain, ours):
        session.trust_env = False  # a static header alone would read the netrc file for every request
        session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=_THREADS))
    calls: dict[str, dict[str, Callable[[], Any]]] = {
        "requests": {"static": partial(plain.get, url), "adapter": partial(ours.get, url)}
    }
    libraries: tuple[tuple[str, Any, Any], ...] = (
        ("httpx", httpx, tradovate_auth.httpx.TradovateAuth(provider)),
        ("httpx2", httpx2, tradovate_auth.httpx2.TradovateAuth(provider)),
    )
    for name, library, auth in libraries:
        static = opened.enter_context(library.Client(headers=header, trust_env=False))
        adapter = opened.enter_context(library.Client(auth=auth, trust_env=False))
        calls[name] = {"static": partial(static.get, url), "adapter": partial(adapter.get, url)}
    return calls


async def waiting(
    provider: TokenProvider, url: str, opened: AsyncExitStack
) -> dict[str, dict[str, Callable[[], Awaitable[Any]]]]:
    """Return one call of aiohttp, with the adapter and with the static header."""
    header = {"Authorization": (await provider.aget()).authorization}
    auth = tradovate_auth.aiohttp.TradovateAuth(provider)
    sessions = {
        "static": await opened.enter_async_context(aiohttp.ClientSession(headers=header)),
        "adapter": await opened.enter_async_context(aiohttp.ClientSession(middlewares=(auth,))),
    }

    def call(session: aiohttp.ClientSession) -> Callable[[], Awaitable[Any]]:
        async def get() -> None:
            async with session.get(url) as response:
                await response.read()

        return get

    return {"aiohttp": {name: call(session) for name, session in sessions.items()}}


def in_threads(call: Callable[[], Any]) -> None:
    """Make the calls in several threads at once."""

    def some() -> None:
        for _ in range(_CALLS // _THREADS):
            call()

    members = [threading.Thread(target=some) for _ in range(_THREADS)]
    for member in members:
        member.start()
    for member in members:
        member.join()


def one_by_one(call: Callable[[], Any]) -> None:
    """Make the calls one after another."""
    for _ in range(_CALLS):
        call()


async def in_tasks(call: Callable[[], Awaitable[Any]]) -> None:
    """Make the calls in several tasks at once."""

    async def some() -> None:
        for _ in range(_CALLS * 4 // _TASKS):
            await call()

    await asyncio.gather(*[some() for _ in range(_TASKS)])


async def measure(contestants: dict[str, Callable[[], Coroutine[Any, Any, None]]]) -> Rates:
    """Return what every contestant took, round by round."""
    times: Rates = {name: [] for name in contestants}
    order = list(contestants)
    for contestant in contestants.values():
        await contestant()
    for _ in range(_ROUNDS):
        random.shuffle(order)
        for name in order:
            gc.collect()
            started, spent = time.perf_counter(), time.process_time()
            await contestants[name]()
            times[name].append((time.perf_counter() - started, time.process_time() - spent))
    return times


async def compare(provider: TokenProvider, url: str) -> list[tuple[str, Rates]]:
    """Return the rounds of every library and way of calling."""
    found = []
    with ExitStack() as clients:
        for name, pair in blocking(provider, url, clients).items():
            for how, way in (("one by one", one_by_one), (f"{_THREADS} threads", in_threads)):

                def contestant(call: Callable[[], Any], way: Any = way) -> Any:
                    return lambda: asyncio.to_thread(way, call)

                times = await measure({kind: contestant(call) for kind, call in pair.items()})
                found.append((f"{name}, {how}", times))
    async with AsyncExitStack() as sessions:
        for name, waits in (await waiting(provider, url, sessions)).items():

            def task_contestant(call: Callable[[], Awaitable[Any]]) -> Any:
                return lambda: in_tasks(call)

            times = await measure({kind: task_contestant(call) for kind, call in waits.items()})
            found.append((f"{name}, {_TASKS} tasks", times))
    return found


def main() -> None:
    """Print the table; there is no limit to keep, because the machine's other work moves these most."""
    with (
        EmulatorProcess() as server,
        TokenProvider(
            Credentials(**server.credentials), environment=server.url, storage=MemoryStorage()
        ) as provider,
    ):
        provider.get()
        found = asyncio.run(compare(provider, f"{server.url}/account/list"))
    rows = []
    for name, times in found:
        cells = []
        for measure_of in (0, 1):
            pairs = zip(times["static"], times["adapter"], strict=True)
            low, middle, high = statistics.quantiles(
                [static[measure_of] / adapter[measure_of] for static, adapter in pairs], n=4
            )
            cells += [f"{middle:.3f}", f"{low:.2f}-{high:.2f}"]
        rows.append((name, *cells))
    header = ("", "by the clock", "middle half", "by processor time", "middle half")
    table("Throughput with the adapter, to a static header", header, rows)


if __name__ == "__main__":
    main()

"""What `instrument()` costs a client that somebody else made: whole requests, to the same client uninstrumented.

The client sets its `Authorization` by hand, as such programs do. To our host that header is replaced by the shared one; to a
foreign host it must go out as it is, and the only cost is to find that out. Both servers are processes of their own, of
the same kind; instrumented and uninstrumented blocks of requests take turns, in random order within a round.

And what a child process of an instrumented program costs, from its start to its end: most of them never send anything.
"""

import asyncio
import gc
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any, Final

import aiohttp
import httpx
import httpx2
import requests
from bench.tables import table

import tradovate_auth
from tradovate_auth import Credentials, TokenProvider
from tradovate_auth.instrumentation import instrument, uninstrument
from tradovate_auth.storage import MemoryStorage
from tradovate_auth.testing.emulator import EmulatorProcess

__all__ = ["main"]

_ROUNDS: Final = 9
_CALLS: Final = 50
_STARTS: Final = 9
_SITE: Final = str(Path(tradovate_auth.__file__).parent / "_site")

Calls = Callable[[], Awaitable[None]]
"""A block of requests, one after another."""


def blocking(get: Callable[..., Any], url: str, headers: dict[str, str]) -> Calls:
    """Return a block of a blocking client. Nothing else is on the loop that it blocks."""

    async def calls() -> None:
        for _ in range(_CALLS):
            answer = get(url, headers=headers)
            assert answer.status_code == 200

    return calls


def waiting(session: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> Calls:
    """Return a block of aiohttp."""

    async def calls() -> None:
        for _ in range(_CALLS):
            async with session.get(url, headers=headers) as answer:
                assert answer.status == 200
                await answer.read()

    return calls


async def clients(url: str, headers: dict[str, str], opened: AsyncExitStack) -> dict[str, Calls]:
    """Return a block of each library, over clients that are made now."""
    session = opened.enter_context(requests.Session())
    session.trust_env = False  # it would read the netrc file for every request
    old = opened.enter_context(httpx.Client(trust_env=False))
    new = opened.enter_context(httpx2.Client(trust_env=False))
    return {
        "requests": blocking(session.get, url, headers),
        "httpx": blocking(old.get, url, headers),
        "httpx2": blocking(new.get, url, headers),
        "aiohttp": waiting(await opened.enter_async_context(aiohttp.ClientSession()), url, headers),
    }


async def compare(
    provider: TokenProvider, targets: dict[str, tuple[str, str]]
) -> list[tuple[str, list[float]]]:
    """Return, by library and target, the ratio of processor time in each round."""

    def switch(on: bool) -> None:
        instrument(provider) if on else uninstrument()

    async with AsyncExitStack() as opened:
        blocks: dict[bool, dict[str, dict[str, Calls]]] = {}
        for on in (True, False):
            switch(on)
            blocks[on] = {
                target: await clients(url, {"Authorization": value}, opened)
                for target, (url, value) in targets.items()
            }
        found = []
        for library in blocks[True]["our host"]:
            for target in targets:
                rounds = []
                for _ in range(_ROUNDS + 1):
                    spent = {}
                    for on in random.sample((True, False), 2):
                        switch(on)
                        gc.collect()
                        started = time.process_time()
                        await blocks[on][target][library]()
                        spent[on] = time.process_time() - started
                    rounds.append(spent[True] / spent[False])
                found.append((f"{library}, {target}", rounds[1:]))  # the first one warmed up
        uninstrument()
    return found


def children(server: EmulatorProcess) -> list[tuple[str, list[float]]]:
    """Return, by what a child imports, the ratio of its time by the clock in each round."""
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    who = {f"TRADOVATE_{name.upper()}": str(value) for name, value in server.credentials.items()}
    where = {"TRADOVATE_ENVIRONMENT": server.url, "PYTHONPATH": _SITE}
    environments = {True: {**plain, **who, **where}, False: plain}
    found = []
    for code in ("pass", "import requests"):
        rounds = []
        for _ in range(_STARTS + 1):
            spent = {}
            for on in random.sample((True, False), 2):
                started = time.perf_counter()
                subprocess.run([sys.executable, "-c", code], env=environments[on], check=True)
                spent[on] = time.perf_counter() - started
            rounds.append(spent[True] / spent[False])
        found.append((f"python -c {code!r}", rounds[1:]))
    return found


def show(title: str, measure: str, found: list[tuple[str, list[float]]]) -> None:
    """Print the medians."""
    rows = []
    for name, rounds in found:
        low, middle, high = statistics.quantiles(rounds, n=4)
        rows.append((name, f"{middle:.3f}", f"{low:.2f}-{high:.2f}"))
    table(title, ("", measure, "middle half"), rows)


def main() -> None:
    """Print the tables; there is no limit to keep, because the machine's other work moves these most."""
    with ExitStack() as opened:
        ours, foreign = (opened.enter_context(EmulatorProcess()) for _ in range(2))
        providers = [
            opened.enter_context(
                TokenProvider(Credentials(**each.credentials), environment=each.url, storage=MemoryStorage())
            )
            for each in (ours, foreign)
        ]
        targets = {
            name: (f"{each.url}/account/list", provider.get().authorization)
            for name, each, provider in zip(
                ("our host", "a foreign host"), (ours, foreign), providers, strict=True
            )
        }
        found = asyncio.run(compare(providers[0], targets))
        started = children(ours)
    show("An instrumented client, to the same one uninstrumented", "processor time", found)
    show("A child process of an instrumented program, to one of its own", "by the clock", started)


if __name__ == "__main__":
    main()

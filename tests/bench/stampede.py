"""Everybody at once and nobody has a token: how many logins, how many tokens, and what the event loops notice of it.

The control is the same crowd waiting for a bare `concurrent.futures.Future` that somebody sets after the same time: what
these waits cost without this package.
"""

import asyncio
import statistics
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from bench.tables import table

from tradovate_auth import Credentials, TokenProvider
from tradovate_auth.storage import MemoryStorage
from tradovate_auth.testing.emulator import EmulatorProcess

__all__ = ["main"]

_TICK: Final = 0.002
_REPEATS: Final = 3


@dataclass
class Crowd:
    """Callers on threads and on event loops, released together; and what they saw."""

    get: Callable[[], object]
    aget: Callable[[], Awaitable[object]]
    loops: int
    tasks: int
    threads: int
    tokens: list[object] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)

    def run(self) -> None:
        """Release everybody, and block until the last one has a token."""
        start = threading.Barrier(self.loops + self.threads)
        members = [threading.Thread(target=self._thread, args=(start,)) for _ in range(self.threads)]
        members += [threading.Thread(target=self._loop, args=(start,)) for _ in range(self.loops)]
        for member in members:
            member.start()
        for member in members:
            member.join()

    def _thread(self, start: threading.Barrier) -> None:
        start.wait()
        started = time.monotonic()
        self.tokens.append(self.get())
        self.waits.append(time.monotonic() - started)

    def _loop(self, start: threading.Barrier) -> None:
        asyncio.run(self._many(start))

    async def _many(self, start: threading.Barrier) -> None:
        start.wait()
        pulse = asyncio.create_task(self._pulse())
        await asyncio.gather(*[self._task() for _ in range(self.tasks)])
        pulse.cancel()

    async def _task(self) -> None:
        started = time.monotonic()
        self.tokens.append(await self.aget())
        self.waits.append(time.monotonic() - started)

    async def _pulse(self) -> None:
        last = time.monotonic()
        self.gaps.append(0.0)
        while True:
            await asyncio.sleep(_TICK)
            now = time.monotonic()
            self.gaps.append(now - last - _TICK)
            last = now


def control(loops: int, tasks: int, threads: int, seconds: float) -> Crowd:
    """Return what a crowd saw that waited for a bare future."""
    outcome: Future[object] = Future()
    outcome.set_running_or_notify_cancel()

    async def aget() -> object:
        return await asyncio.wrap_future(outcome)

    crowd = Crowd(outcome.result, aget, loops, tasks, threads)
    threading.Timer(seconds, outcome.set_result, (object(),)).start()
    crowd.run()
    return crowd


def stampede(loops: int, tasks: int, threads: int, seconds: float) -> tuple[Crowd, int]:
    """Return what a crowd saw whose provider had no token, and how many logins the server received."""
    with (
        EmulatorProcess(login_delay=seconds) as server,
        TokenProvider(
            Credentials(**server.credentials), environment=server.url, storage=MemoryStorage()
        ) as provider,
    ):
        crowd = Crowd(provider.get, provider.aget, loops, tasks, threads)
        crowd.run()
        return crowd, server.counts.logins


def main() -> bool:
    """Print the table; return whether each crowd had exactly one login and one token."""
    rows, good = [], True
    for loops, tasks, threads, seconds in ((3, 1000, 100, 0.5), (1, 500, 0, 1.0)):
        title = f"{loops} x {tasks} tasks, {threads} threads"
        bare, crowds, logins, tokens = [], [], set(), set()
        for _ in range(_REPEATS):
            bare.append(control(loops, tasks, threads, seconds))
            crowd, count = stampede(loops, tasks, threads, seconds)
            crowds.append(crowd)
            logins.add(count)
            tokens.add(len({id(token) for token in crowd.tokens}))
            good = good and len(crowd.tokens) == loops * tasks + threads
        good = good and logins == tokens == {1}
        rows.append((f"{title}: a bare future", "", "", *_waits(bare, seconds), ""))
        counts = (str(max(logins)), str(max(tokens)))
        rows.append((f"{title}: the provider", *counts, *_waits(crowds, seconds), "OK" if good else "over"))
    header = ("cold, all at once", "logins", "tokens", "longest loop gap / login", "longest wait / login", "")
    table("Stampede", header, rows)
    return good


def _waits(crowds: list[Crowd], seconds: float) -> tuple[str, str]:
    gap = statistics.median(max(crowd.gaps) for crowd in crowds)
    wait = statistics.median(max(crowd.waits) for crowd in crowds)
    return f"{gap / seconds:.1%}", f"{wait / seconds:.2f}"


if __name__ == "__main__":
    main()

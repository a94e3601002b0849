"""Everybody at once on a provider without a token: one login, one token object, and loops that never stall."""

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
from core_tools import SocketTransport, eventually

from tradovate_auth import AccessToken, Credentials, TokenProvider
from tradovate_auth.storage import MemoryStorage
from tradovate_auth.testing import Emulator

LOOPS, TASKS, THREADS = 3, 1000, 100


@pytest.fixture
def provider(tradovate_emulator: Emulator) -> Iterator[TokenProvider]:
    """Yield a provider without a token, for a server that thinks half a second about a login."""
    tradovate_emulator.configure(login_delay=0.5)
    with TokenProvider(
        Credentials(**tradovate_emulator.credentials),
        environment=tradovate_emulator.url,
        storage=MemoryStorage(),
    ) as made:
        yield made


def test_three_loops_and_a_hundred_threads_log_in_once(
    provider: TokenProvider, tradovate_emulator: Emulator
) -> None:
    """3 loops x 1,000 tasks and 100 threads, all at once on a cold provider: 1 login, 1 token object."""
    barrier = threading.Barrier(LOOPS + THREADS)

    async def tasks() -> list[AccessToken]:
        return list(await asyncio.gather(*(provider.aget() for _ in range(TASKS))))

    def loop() -> list[AccessToken]:
        barrier.wait(20)
        return asyncio.run(tasks())

    def thread() -> list[AccessToken]:
        barrier.wait(20)
        return [provider.get()]

    with ThreadPoolExecutor(LOOPS + THREADS) as pool:
        futures = [pool.submit(loop) for _ in range(LOOPS)] + [pool.submit(thread) for _ in range(THREADS)]
        tokens = [token for future in futures for token in future.result(60)]
    assert len(tokens) == LOOPS * TASKS + THREADS
    assert len({id(token) for token in tokens}) == 1
    assert tradovate_emulator.counts.logins == tradovate_emulator.live_sessions == 1


@pytest.mark.anyio
async def test_a_loop_with_waiters_never_stalls(
    provider: TokenProvider, tradovate_emulator: Emulator
) -> None:
    """500 tasks wait for a login of a second: a task that ticks beside them sees no gap near the login's length."""
    delay = 1.0
    tradovate_emulator.configure(login_delay=delay)
    gaps: list[float] = []

    async def tick() -> None:
        last = time.monotonic()
        while True:
            await anyio.sleep(0.005)
            now = time.monotonic()
            gaps.append(now - last)
            last = now

    async with anyio.create_task_group() as ticking:
        ticking.start_soon(tick)
        await anyio.sleep(0.02)
        async with anyio.create_task_group() as waiting:
            for _ in range(500):
                waiting.start_soon(provider.aget)
        ticking.cancel_scope.cancel()
    assert max(gaps) / delay < 0.5
    assert sum(gaps) / delay > 0.9  # it ticked all the while
    assert tradovate_emulator.counts.logins == 1


def test_the_executor_of_a_loop_stays_free(provider: TokenProvider) -> None:
    """Waiting tasks park no thread: an unrelated `to_thread` runs while a hundred of them wait."""

    async def run() -> bool:
        waiting = [asyncio.create_task(provider.aget()) for _ in range(100)]
        await asyncio.sleep(0.02)
        await asyncio.to_thread(time.sleep, 0)
        early = not any(task.done() for task in waiting)
        await asyncio.gather(*waiting)
        return early

    assert asyncio.run(run())


def test_a_cold_provider_starts_one_thread(provider: TokenProvider) -> None:
    """However many wait, the login runs on one thread of the package, beside those that a transport may start."""
    provider._account.transport = SocketTransport()
    before = set(sys._current_frames())

    async def run() -> int:
        waiting = [asyncio.create_task(provider.aget()) for _ in range(300)]
        await asyncio.sleep(0.1)
        busy = set(sys._current_frames()) - before
        await asyncio.gather(*waiting)
        return len(busy)

    assert asyncio.run(run()) == 1


def test_a_stampede_on_a_lapsing_session_renews_once(tradovate_emulator: Emulator) -> None:
    """By real time: a token of two seconds, hammered by threads over its whole life, is renewed and never lost."""
    tradovate_emulator.configure(lifetime=2.0, hour=12.0)
    with TokenProvider(
        Credentials(**tradovate_emulator.credentials),
        environment=tradovate_emulator.url,
        storage=MemoryStorage(),
    ) as provider:
        provider.get()
        end = time.monotonic() + 2.5
        seen: set[int] = set()

        def hammer() -> None:
            while time.monotonic() < end:
                token = provider.get()
                assert token.expires_at.timestamp() > time.time() - 0.5
                seen.add(token.generation)
                time.sleep(0.001)

        with ThreadPoolExecutor(8) as pool:
            for future in [pool.submit(hammer) for _ in range(8)]:
                future.result(20)
        eventually(lambda: provider._keeper.flight.current() is None)
        assert tradovate_emulator.counts.logins == 1
        assert seen == set(range(1, len(seen) + 1))
        assert 1 <= tradovate_emulator.counts.renewals <= 3

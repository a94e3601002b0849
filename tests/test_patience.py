"""How long a call waits for a token: never longer than its caller would."""

import asyncio
import math
from typing import Any

import httpx
import pytest
from adapter_tools import LastSource, accounts, calls, exchanges, refuse_once
from core_tools import eventually
from stacks import (
    ALL,
    ASYNC,
    HTTPX,
    HTTPX2,
    HTTPX2_ASYNC,
    HTTPX_ASYNC,
    HTTPX_TRIO,
    REQUESTS,
    Stack,
    every_stack,
    plain_environment,
    tradovate_provider,
)

from tradovate_auth import AccessToken, ConfigurationError, Throttled, TokenProvider, TokenTimeout
from tradovate_auth._patience import PATIENCE
from tradovate_auth.testing import Emulator
from tradovate_auth.testing.emulator import Fault

__all__ = ["plain_environment", "tradovate_provider"]  # fixtures

HTTPX_LIKE = (HTTPX, HTTPX_ASYNC, HTTPX_TRIO, HTTPX2, HTTPX2_ASYNC)
every_httpx = pytest.mark.parametrize("stack", HTTPX_LIKE, ids=str)


class SlowSource(LastSource):
    """A source that remembers how long it may take; with `never` it takes for ever on an event loop."""

    def __init__(self, url: str, *, never: bool = False) -> None:
        super().__init__(url)
        self.never = never
        self.given: list[float | None] = []

    def get(self, timeout: float | None = 30.0, *, min_ttl: float = 0.0) -> AccessToken:
        """Return the token."""
        self.given.append(timeout)
        return super().get(timeout, min_ttl=min_ttl)

    async def aget(self, *, min_ttl: float = 0.0) -> AccessToken:
        """Return the token, or never."""
        while self.never:
            await (_asyncio_sleep() if _in_asyncio() else _trio_sleep())
        return await super().aget(min_ttl=min_ttl)


def _in_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _asyncio_sleep() -> None:
    await asyncio.sleep(60)


async def _trio_sleep() -> None:
    import trio

    await trio.sleep(60)


@every_stack
def test_a_call_gives_up_in_time_and_the_login_goes_on(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A call with little patience is a `TokenTimeout` while a login hangs; nothing of it is sent, and one login serves all."""
    tradovate_emulator.inject(Fault("login", "hang"))
    with (
        stack.client(stack.auth(tradovate_provider, patience=0.05)) as hasty,
        stack.client(stack.auth(tradovate_provider)) as patient,
    ):
        with pytest.raises(TokenTimeout, match=r"within 0\.[01] s"):
            hasty.get(accounts(tradovate_emulator))
        waiting = patient.submit("GET", accounts(tradovate_emulator))
        tradovate_emulator.release()
        assert waiting.result(60).status == 200
        assert hasty.get(accounts(tradovate_emulator)).status == 200
    assert exchanges(tradovate_emulator) == (1, 0)
    assert len(calls(tradovate_emulator)) == 2


@every_stack
def test_what_cannot_be_outlasted_is_told_at_once(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A penalty of ten minutes is `Throttled` with the wait, in every library alike; a new login is sent by nobody."""
    tradovate_emulator.penalize("login", seconds=600.0)
    with stack.client(stack.auth(tradovate_provider)) as client:
        for _ in range(2):
            with pytest.raises(Throttled) as caught:
                client.get(accounts(tradovate_emulator))
    assert caught.value.retry_after == pytest.approx(600.0, abs=30.0)
    assert exchanges(tradovate_emulator) == (1, 0)


@every_httpx
def test_time_outs_of_httpx_bound_the_wait(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A call waits for a token no longer than its connect, read, write and pool time-outs together, the client's or its own;
    one that has no end somewhere waits for `patience`.
    """
    tradovate_emulator.inject(Fault("login", "hang"))
    url = accounts(tradovate_emulator)
    with stack.client(stack.auth(tradovate_provider, patience=0.3), timeout=0.05) as client:
        with pytest.raises(TokenTimeout, match=r"within 0\.2 s"):
            client.get(url)
        with pytest.raises(TokenTimeout, match=r"within 0\.1 s"):
            client.get(url, timeout=0.025)
        for endless in (None, (0.01, None, 0.01, 0.01), 60.0):
            with pytest.raises(TokenTimeout, match=r"within 0\.3 s"):
                client.get(url, timeout=endless)
        tradovate_emulator.release()
        eventually(lambda: tradovate_provider.status().generation == 1)
        assert client.get(url, timeout=60.0).status == 200
    assert exchanges(tradovate_emulator) == (1, 0)


@every_httpx
def test_a_penalty_beyond_the_calls_own_time_is_told_at_once(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A call that has a second for each step does not wait out a penalty of twenty."""
    tradovate_emulator.penalize("login", seconds=20.0)
    with (
        stack.client(stack.auth(tradovate_provider), timeout=1.0) as client,
        pytest.raises(Throttled),
    ):
        client.get(accounts(tradovate_emulator))


def test_a_request_without_time_outs(tradovate_provider: TokenProvider) -> None:
    """A flow that somebody drives by himself may have a request that tells nothing."""
    auth = HTTPX.auth(tradovate_provider, patience=7.0)
    assert auth._patience_of(httpx.Request("GET", "http://127.0.0.1/")) == 7.0


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [(None, 30.0), (5, 10.0), ((1, 2.5), 3.5), ((1, None), 30.0), (60, 30.0)],
    ids=str,
)
def test_requests_waits_in_the_middle_of_a_call_as_long_as_it_may_take(
    timeout: Any, seconds: float, tradovate_emulator: Emulator
) -> None:
    """Before the first answer requests does not tell of its time-out; after a 401 it does, and the wait keeps to it."""
    source = SlowSource(tradovate_emulator.url)
    source.reject = lambda *_, **__: True  # type: ignore[method-assign]
    refuse_once(tradovate_emulator)
    with REQUESTS.client(REQUESTS.auth(source)) as client:
        assert client.get(accounts(tradovate_emulator), timeout=timeout).status == 401
    assert source.given == [PATIENCE, seconds]


@pytest.mark.parametrize("stack", [REQUESTS, HTTPX, HTTPX2], ids=str)
def test_patience_without_an_end(stack: Stack, tradovate_emulator: Emulator) -> None:
    """None waits for as long as it takes."""
    source = SlowSource(tradovate_emulator.url)
    tradovate_emulator.inject(Fault("calls", "status", status=200))
    with stack.client(stack.auth(source, patience=None)) as client:
        assert client.get(accounts(tradovate_emulator), timeout=None).status == 200
    assert source.given == [None]


@pytest.mark.parametrize("stack", ASYNC, ids=str)
def test_any_source_is_left_in_time(stack: Stack, tradovate_emulator: Emulator) -> None:
    """A source of another make, which knows no limit, is given up in time under asyncio and trio; without one it is awaited."""
    never = SlowSource(tradovate_emulator.url, never=True)
    with (
        stack.client(stack.auth(never, patience=0.05)) as client,
        pytest.raises(TokenTimeout, match=r"There was no token within 0\.[01] s"),
    ):
        client.get(accounts(tradovate_emulator))
    source = SlowSource(tradovate_emulator.url)
    tradovate_emulator.inject(Fault("calls", "status", status=200))
    options = {} if stack is ALL[-1] else {"timeout": None}
    with stack.client(stack.auth(source, patience=None), **options) as client:
        assert client.get(accounts(tradovate_emulator)).status == 200


@pytest.mark.parametrize("patience", [-1, math.nan, "30", "soon"])
def test_patience_is_seconds(patience: Any, tradovate_provider: TokenProvider) -> None:
    """What is no number of seconds is told before anything is sent."""
    with pytest.raises(ConfigurationError, match="patience"):
        REQUESTS.auth(tradovate_provider, patience=patience)

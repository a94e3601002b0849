"""What a request with a good token costs: `provider.get()`, and each adapter alone, without a network.

What is measured is whole: the check of the origin, the routing, the header, the look at the answer. It is compared with what
somebody without this package would write to send a static header, on the same fresh requests in the same rounds: an
auth object for requests, an `auth_flow` for httpx, a middleware object for aiohttp. The rows below a baseline also show the
cheapest thing that could be written instead.

`python -m bench.hot_path --json` prints the ratios of one process; `main` starts several and shows their median and range.
"""

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import httpx
import httpx2
import requests
from aiohttp import hdrs
from bench.rounds import Contestant, compare, pin, ratios
from bench.tables import table, verdict
from requests.auth import AuthBase
from yarl import URL

import tradovate_auth.aiohttp
import tradovate_auth.httpx
import tradovate_auth.httpx2
import tradovate_auth.requests
from tradovate_auth import Credentials, TokenProvider
from tradovate_auth.storage import MemoryStorage
from tradovate_auth.testing.emulator import EmulatorProcess

_PROCESSES: Final = 3
_ROUNDS: Final = 40
_VALUE: Final = "Bearer " + "x" * 138
_OURS: Final = "TradovateAuth"


@dataclass
class Group:
    """Contestants that are compared with one of them."""

    title: str
    baseline: str
    contestants: Mapping[str, Contestant]
    limits: Mapping[str, float] = field(default_factory=dict)
    batches: int = 20


def provider_group(provider: TokenProvider) -> Group:
    """`get()` with a fresh token, to reading the clock once."""

    def repeat(function: Callable[[], object]) -> Contestant:
        def run(batch: Sequence[Any]) -> None:
            for _ in batch:
                function()

        return Contestant(lambda: None, run)

    contestants = {"time.time()": repeat(time.time), "provider.get()": repeat(provider.get)}
    return Group("provider.get(), a fresh token", "time.time()", contestants, {"provider.get()": 3.0}, 60)


class _StaticRequestsAuth(AuthBase):
    def __init__(self, value: str) -> None:
        self.value = value

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        r.headers["Authorization"] = self.value
        return r


def _store(r: requests.PreparedRequest) -> requests.PreparedRequest:
    r.headers["Authorization"] = _VALUE
    return r


def _idle(response: requests.Response, **_: Any) -> requests.Response:
    return response


def requests_groups(provider: TokenProvider, url: str) -> list[Group]:
    """The auth object on a fresh prepared request; and the hook that it leaves, for a 200, called as requests calls it."""
    template = requests.Request("GET", url, headers={"Accept": "application/json"}).prepare()
    auth = tradovate_auth.requests.TradovateAuth(provider)

    def fresh() -> requests.PreparedRequest:
        request = template.copy()
        request.hooks = {"response": []}
        return request

    def sign(function: Callable[[requests.PreparedRequest], object]) -> Contestant:
        def run(batch: Sequence[requests.PreparedRequest]) -> None:
            for request in batch:
                function(request)

        return Contestant(fresh, run)

    answer = requests.Response()
    answer.status_code, answer.request = 200, auth(fresh())
    settings: dict[str, Any] = {"timeout": 10, "verify": True, "proxies": {}, "stream": False, "cert": None}

    def look(hook: Callable[..., object]) -> Contestant:
        def run(batch: Sequence[Any]) -> None:
            for _ in batch:
                hook(answer, **settings)

        return Contestant(lambda: None, run)

    signing = {
        "static header, auth object": sign(_StaticRequestsAuth(_VALUE)),
        "static header, bare function": sign(_store),
        _OURS: sign(auth),
    }
    (hook,) = answer.request.hooks["response"]
    looking = {"a hook that does nothing": look(_idle), _OURS: look(hook)}
    return [
        Group("requests: signing, hook included", "static header, auth object", signing, {_OURS: 2.5}),
        Group("requests: the hook's look at a 200", "a hook that does nothing", looking),
    ]


def httpx_group(name: str, library: Any, auth: Any, url: str) -> Group:
    """The flow, driven by hand to its end with a 200."""

    class Static(library.Auth):  # type: ignore[misc]  # one of two libraries with the same interface
        def auth_flow(self, request: Any) -> Any:
            request.headers["Authorization"] = _VALUE
            yield request

    class Barest(library.Auth):  # type: ignore[misc]  # as above
        def sync_auth_flow(self, request: Any) -> Any:
            request.headers["Authorization"] = _VALUE
            yield request

    def fresh() -> tuple[Any, Any]:
        request = library.Request("GET", url)
        return request, library.Response(200, request=request)

    def drive(flow_of: Callable[[Any], Any]) -> Contestant:
        def run(batch: Sequence[tuple[Any, Any]]) -> None:
            for request, response in batch:
                flow = flow_of(request)
                next(flow)
                try:
                    flow.send(response)
                except StopIteration:
                    continue

        return Contestant(fresh, run)

    contestants = {
        "static header, auth_flow": drive(Static().sync_auth_flow),
        "static header, sync_auth_flow": drive(Barest().sync_auth_flow),
        _OURS: drive(auth.sync_auth_flow),
    }
    return Group(f"{name}: the whole flow", "static header, auth_flow", contestants, {_OURS: 1.45}, 5)


class _Answer:
    status = 200


class _StaticMiddleware:
    def __init__(self, value: str) -> None:
        self.value = value

    async def __call__(self, request: aiohttp.ClientRequest, handler: Any) -> Any:
        request.headers[hdrs.AUTHORIZATION] = self.value
        return await handler(request)


async def _static_middleware(request: aiohttp.ClientRequest, handler: Any) -> Any:
    request.headers[hdrs.AUTHORIZATION] = _VALUE
    return await handler(request)


async def aiohttp_group(provider: TokenProvider, url: str, session: aiohttp.ClientSession) -> Group:
    """The middleware around a handler that answers 200 at once."""
    answer, loop, parsed = _Answer(), asyncio.get_running_loop(), URL(url)

    async def handler(_: aiohttp.ClientRequest) -> Any:
        return answer

    def fresh() -> aiohttp.ClientRequest:
        headers = {"Accept": "application/json"}
        return aiohttp.ClientRequest("GET", parsed, loop=loop, session=session, headers=headers)

    def wrap(middleware: Any) -> Contestant:
        async def all_of(batch: Sequence[aiohttp.ClientRequest]) -> None:
            for request in batch:
                await middleware(request, handler)

        def run(batch: Sequence[aiohttp.ClientRequest]) -> None:
            with contextlib.suppress(StopIteration):
                all_of(batch).send(None)

        return Contestant(fresh, run)

    contestants = {
        "static header, middleware object": wrap(_StaticMiddleware(_VALUE)),
        "static header, bare function": wrap(_static_middleware),
        _OURS: wrap(tradovate_auth.aiohttp.TradovateAuth(provider)),
    }
    title, baseline = "aiohttp: the middleware", "static header, middleware object"
    return Group(title, baseline, contestants, {_OURS: 2.2}, 10)


async def measure(server: EmulatorProcess) -> list[dict[str, Any]]:
    """Return the ratios of every group, measured in this process."""
    options: dict[str, Any] = {"environment": server.url, "storage": MemoryStorage()}
    url, measured = f"{server.url}/account/list", []
    async with TokenProvider(Credentials(**server.credentials), **options) as provider:
        await provider.aget()
        async with aiohttp.ClientSession() as session:
            groups = [
                provider_group(provider),
                *requests_groups(provider, url),
                httpx_group("httpx", httpx, tradovate_auth.httpx.TradovateAuth(provider), url),
                httpx_group("httpx2", httpx2, tradovate_auth.httpx2.TradovateAuth(provider), url),
                await aiohttp_group(provider, url, session),
            ]
            for group in groups:
                times = compare(group.contestants, rounds=_ROUNDS, batches=group.batches)
                found, limits = ratios(times, group.baseline), dict(group.limits)
                measured.append({"title": group.title, "ratios": found, "limits": limits})
    return measured


def main() -> bool:
    """Measure in several fresh processes, and print a table of each group. Return whether all limits were kept."""
    command = [sys.executable, "-m", "bench.hot_path", "--json"]
    runs = [
        json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        for _ in range(_PROCESSES)
    ]
    kept = True
    for parts in zip(*runs, strict=True):
        rows = []
        for name in parts[0]["ratios"]:
            values = [part["ratios"][name] for part in parts]
            middle = statistics.median(values)
            limit, outcome = verdict(middle, parts[0]["limits"].get(name))
            kept = kept and outcome != "over"
            rows.append((name, f"{middle:.2f}", f"{min(values):.2f}-{max(values):.2f}", limit, outcome))
        table(parts[0]["title"], ("", "ratio", "range", "limit", ""), rows)
    return kept


if __name__ == "__main__":
    if "--json" in sys.argv:
        with EmulatorProcess() as emulator:
            pin()
            print(json.dumps(asyncio.run(measure(emulator))))
    else:
        main()

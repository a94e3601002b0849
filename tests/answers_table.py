"""What a caller sees of each answer of the server, measured with every adapter on real sockets, as a page of the docs.

    python tests/answers_table.py --write       # writes docs/answers.md anew

`tests/test_answers.py` measures each row again and fails where the page says something else. Time stands still, except that it
jumps to the end of whatever somebody waits for.
"""

import argparse
import contextlib
import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Literal
from unittest import mock

from core_tools import Recorder, World, eventually
from stacks import AIOHTTP, HTTPX, HTTPX2, HTTPX_ASYNC, NO_ROOTS, REQUESTS, Body, Client, Stack

from tradovate_auth import TradovateAuthError
from tradovate_auth._clock import Waitable
from tradovate_auth.storage import MemoryStorage
from tradovate_auth.testing import FakeClock
from tradovate_auth.testing.emulator import Emulator, Fault, Rules

__all__ = ["ORDINARY", "PAGE", "SIGNING_IN", "Row", "cells_in", "measured", "page", "standing_still"]

PAGE: Final = Path(__file__).parent.parent / "docs" / "answers.md"
Endpoint = Literal["login", "renewal"]
Arrangement = Callable[[Emulator, Endpoint], object]

STACKS: Final = (REQUESTS, HTTPX, HTTPX_ASYNC, HTTPX2, AIOHTTP)
ALMOST_OVER: Final = 4200.0  # seconds after which a renewal is due: the emulator's tokens live 4,800
ACCOUNTS: Final = "/account/list"
ORDERS: Final = "/order/placeorder"


@dataclass(frozen=True)
class Row:
    """One answer of the server: its name in the table, and how the emulator is brought to give it."""

    name: str
    arrange: Arrangement
    calls: int = 2
    """How often the caller asks, in the second table."""
    before: Mapping[str, Any] = field(default_factory=dict)
    """Rules that are in force before."""

    def __str__(self) -> str:
        return self.name


def _rules(**rules: Any) -> Arrangement:
    return lambda server, _: server.configure(**rules)


def _fault(kind: Any, **options: Any) -> Arrangement:
    """A fault of the endpoint that is asked, for as long as it is asked."""
    return lambda server, endpoint: server.inject(Fault(endpoint, kind, **{"times": None, **options}))


def _penalty(**options: Any) -> Arrangement:
    return lambda server, endpoint: server.penalize(endpoint, **options)


def _locked(status: int, retry_after: str = "none") -> Arrangement:
    def arrange(server: Emulator, _: Endpoint) -> None:
        server.configure(retry_after=retry_after)
        server.lock_out(status, 7200.0)

    return arrange


def _said(**payload: Any) -> Arrangement:
    return _fault("json", payload=payload)


_WRONG: Final = {"errorText": "Incorrect username or password."}
_VIOLATIONS: Final = [{"constraint": "required", "value": "", "description": ""}]
_TICKET: Final = {"p-ticket": "ticket", "p-time": 15}

SIGNING_IN: Final = (
    Row("200, a token", lambda _server, _endpoint: None),
    Row(
        "200, a token whose end has no seconds, or no time zone",
        _rules(fraction_digits=-1, expiry_offset_style="naive"),
    ),
    Row("200, a token that has ended already", _rules(extra_fields={"expirationTime": "2020-01-01T00:00Z"})),
    Row("200, a token that ends in years", _rules(extra_fields={"expirationTime": "2099-01-01T00:00:00Z"})),
    Row("200, a token without an end", _rules(omit_fields=("expirationTime",))),
    Row("200, a token and assigned hosts", _rules(api_hosts={"demo": "127.0.0.2"})),
    Row("200, a token and `userStatus` TemporaryLocked", _rules(user_status="TemporaryLocked")),
    Row("200, a token and `userStatus` TemporarilyLocked", _rules(user_status="TemporarilyLocked")),
    Row("200, a token and a `hibpHint`", _rules(hibp_hint="PasswordCompromised")),
    Row("200, a token and `p-time` 0", _rules(extra_fields={"p-time": 0})),
    Row("200, a token and `p-captcha` true", _rules(extra_fields={"p-captcha": True})),
    Row("200, `errorText`", _said(errorText="Incorrect username or password.")),
    Row(
        "200, `errorText`: The app is not registered",
        _said(errorText="The app is not registered"),
    ),
    Row("200, `errorText`: Access is denied", _said(errorText="Access is denied")),
    Row(
        "200, `errorText`: This endpoint should be called on another host",
        _said(errorText="This endpoint should be called on demo.tradovateapi.com"),
    ),
    Row("200, `errorText` and `userStatus` Closed", _said(errorText="No.", userStatus="Closed")),
    Row("401, `error` and `message`", _fault("json", status=401, payload={"error": "no", "message": "no"})),
    Row("400, `errorText`", _fault("json", status=400, payload=_WRONG)),
    Row("403, `errorText`", _fault("json", status=403, payload=_WRONG)),
    Row("404, `error` and `message`", _fault("json", status=404, payload={"error": "no", "message": "no"})),
    Row("200, `violations`", _said(violations=_VIOLATIONS)),
    Row("422, `violations`", _fault("json", status=422, payload={"violations": _VIOLATIONS})),
    Row("400", _fault("status", status=400)),
    Row("403, a page", _fault("html", status=403)),
    Row("403, a text", _fault("status", status=403, payload="RBAC: access denied")),
    Row("200, neither a token nor an error", _said(name="", userStatus="Active")),
    *(
        Row(f"200, `userStatus` {status} and no token", _said(name="", userStatus=status))
        for status in ("TemporaryLocked", "UnconfirmedEmail", "Initiated", "Closed", "Suspended")
    ),
    Row("200, `p-ticket` and 15 s of `p-time`, once", _penalty(seconds=15.0)),
    Row("200, `p-ticket` and 600 s of `p-time`, once", _penalty(seconds=600.0)),
    Row("200, `p-ticket` and 15 s of `p-time`, always", _penalty(seconds=15.0, times=99)),
    Row("429, `p-ticket` and 15 s of `p-time`, once", _penalty(seconds=15.0, status=429)),
    Row(
        "429, `p-ticket`, 15 s of `p-time` and `Retry-After` 600, once",
        _fault("json", status=429, payload=_TICKET, headers={"Retry-After": "600"}, times=1),
    ),
    Row("200, `p-captcha` true", _penalty(captcha=True)),
    Row(
        "200, `p-captcha` true, `Retry-After` 7200",
        _fault("json", payload={**_TICKET, "p-captcha": True}, headers={"Retry-After": "7200"}),
    ),
    Row('200, `p-captcha` "true"', _penalty(captcha="true")),
    Row("423", _locked(423)),
    Row("429", _locked(429)),
    Row("429, `Retry-After` 7200", _locked(429, "seconds")),
    Row("423, `Retry-After` a date in two hours", _locked(423, "date")),
    Row("500, a text", _fault("status", status=500, payload="Internal Server Error, error id: 0")),
    Row("502, a page", _fault("html", status=502)),
    Row("200, a page", _fault("html")),
    Row("404", _fault("status", status=404)),
    Row("307", _fault("status", status=307, headers={"Location": "http://127.0.0.2/v1/"})),
    Row("421", _fault("status", status=421)),
    Row("the connection closed, once", _fault("drop_after", times=1)),
    Row("the connection closed, always", _fault("drop_after")),
    Row("nobody there", lambda server, _: server.stop()),
)
"""Answers to a login and a renewal."""


def _call(kind: Any, **options: Any) -> Arrangement:
    """A fault that one ordinary call meets."""
    return lambda server, _: server.inject(Fault("calls", kind, **options))


def _evicted(style: str) -> Arrangement:
    def arrange(server: Emulator, _: Endpoint) -> None:
        server.configure(evicted_style=style)
        for _each in range(server.rules.max_sessions):
            server.foreign_login()

    return arrange


def _moved(how: str) -> Arrangement:
    return _rules(wrong_host=how, api_hosts={"demo": "127.0.0.2"}, own_hosts=("127.0.0.2",))


def _forbidden(server: Emulator, _: Endpoint) -> None:
    server.forbid(ACCOUNTS)
    server.forbid(ORDERS)


def _all_locked(server: Emulator, _: Endpoint) -> None:
    server.configure(lockout_scope="all")
    server.lock_out(429)


ORDINARY: Final = (
    Row("200", lambda _server, _endpoint: None),
    Row("401, the token is dead", lambda server, _: server.revoke()),
    Row("401, once, with an empty body", _call("status", status=401)),
    Row("401, once, with 4 MB of text", _call("status", status=401, payload="no" * 2**21)),
    Row("401, the key may not do this", _forbidden, calls=3),
    *(
        Row(f"{style}, the session was evicted", _evicted(style), calls=4)
        for style in ("401", "408", "429", "500", "502")
    ),
    *(Row(f"{status}, once", _call("status", status=status), calls=3) for status in (408, 429, 500, 502)),
    Row("429, locked out", _all_locked, calls=4),
    Row("307 to another of our hosts", _moved("307")),
    Row("421", _moved("421")),
    Row("404 without a body, hosts assigned", _moved("404"), before={"api_hosts": {"mdDemo": "127.0.0.3"}}),
    Row("404 with a body", _call("status", status=404, payload="Not Found"), calls=3),
    Row("200, `errorText`", _call("json", payload={"errorText": "This endpoint should be called on demo"})),
    Row("200, `p-ticket`", _call("json", payload={"p-ticket": "ticket", "p-time": 15})),
    Row("the connection closed, once", _call("drop"), calls=2),
)
"""Answers to everything else."""


class JumpingClock(FakeClock):
    """A clock that stands still until somebody waits for a moment, and then is there."""

    def wait(self, event: Waitable, seconds: float) -> bool:
        """Return at once, so much later."""
        self.advance(seconds)
        return event.wait(0)


@contextlib.contextmanager
def standing_still() -> Iterator[None]:
    """Make chance and hashes predictable and cheap."""
    scrypt = hashlib.scrypt
    with (
        mock.patch("random.uniform", lambda low, high: (low + high) / 2),
        mock.patch("hashlib.scrypt", lambda *args, **options: scrypt(*args, **{**options, "n": 2})),
    ):
        yield


@dataclass
class _Caller:
    world: World
    client: Client
    provider: Any

    def asks(self, method: str, path: str, error: type[Exception]) -> str:
        """Make a call; return the status, or what is raised."""
        url = f"{self.world.server.url}{path}"
        try:
            if method == "POST":
                return str(self.client.post(url, Body("json")).status)
            return str(self.client.get(url).status)
        except TradovateAuthError as raised:
            wait = "" if raised.retry_after is None else f", retry_after {round(raised.retry_after):,}"
            return f"`{type(raised).__name__}`{wait} | {raised.advice}"
        except error:
            return "the library's own error"
        finally:
            self.settle()

    def settle(self) -> None:
        """Block until no flight is in the air, and the last one has told of itself."""
        keeper, told = self.provider._keeper, self.world.events.all
        eventually(
            lambda: (
                keeper.flight.current() is None
                and (keeper.listener.last is None or (told and told[-1] is keeper.listener.last))
            ),
            "the end of the flight",
        )


@contextlib.contextmanager
def _caller(server: Emulator, clock: FakeClock, stack: Stack, row: Row) -> Iterator[_Caller]:
    server.reset()
    server.configure(**{name: getattr(Rules(), name) for name in Rules.__dataclass_fields__})
    server.configure(**row.before)
    server.start()
    # Nothing here speaks TLS, and loading trusted roots takes longer than all the rest.
    transport = stack.transport(verify=False if stack is REQUESTS else NO_ROOTS)
    storage: Any = MemoryStorage(clock=clock)
    world = World(clock, server, storage, Recorder())
    with (
        world.provider(transport=transport) as provider,
        stack.client(stack.auth(provider)) as client,
    ):
        yield _Caller(world, client, provider)


def _events(caller: _Caller, before: int) -> str:
    names = [name for name in caller.world.events.names[before:] if name != "Adopted"]
    return ", ".join(dict.fromkeys(names))


def _with_token(row: Row, caller: _Caller, stack: Stack) -> str:
    """A renewal is due and meets the answer: what the calls beside it and after it see."""
    # The first call may come to the server after the renewal that it started: let its token live, or chance decides.
    caller.world.server.configure(old_token_grace=None)
    caller.provider.get()
    caller.settle()
    caller.world.clock.advance(ALMOST_OVER)
    before = len(caller.world.events.all)
    row.arrange(caller.world.server, "renewal")
    server = caller.world.server
    if not server.running:  # gone for renewals alone: the calls of this row are to be answered
        server.start()
        server.inject(Fault("renewal", "drop", times=None))
    seen = [caller.asks("GET", ACCOUNTS, stack.error) for _ in range(2)]
    seen = [each.partition(" | ")[0] for each in seen]
    return f"{_counted(seen)} | {_events(caller, before) or 'none'}"


def _without_token(row: Row, caller: _Caller, stack: Stack) -> str:
    """Nobody has a token, and the login meets the answer."""
    row.arrange(caller.world.server, "login")
    seen = caller.asks("GET", ACCOUNTS, stack.error)
    return seen if " | " in seen else f"{seen} | "


def _ordinary(method: str) -> Callable[[Row, _Caller, Stack], str]:
    def ask(row: Row, caller: _Caller, stack: Stack) -> str:
        caller.provider.get()
        caller.world.clock.advance(60.0)
        row.arrange(caller.world.server, "login")
        before = caller.world.server.counts
        path = ACCOUNTS if method == "GET" else ORDERS
        seen = _counted(
            [caller.asks(method, path, stack.error).partition(" | ")[0] for _ in range(row.calls)]
        )
        after = caller.world.server.counts
        sent = {"renewal": after.renewals - before.renewals, "login": after.logins - before.logins}
        beside = ", ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in sent.items() if count)
        return f"{seen} ({beside})" if beside else seen

    return ask


def _counted(seen: list[str]) -> str:
    """Return outcomes in a row, those alike told once."""
    groups = [(outcome, len(list(same))) for outcome, same in groupby(seen)]
    if len(groups) == 1:
        return groups[0][0]
    return ", then ".join(f"{outcome} ({count} times)" if count > 1 else outcome for outcome, count in groups)


COLUMNS: Final = {
    "signing in": (_with_token, _without_token),
    "ordinary": (_ordinary("GET"), _ordinary("POST")),
}


def measured(row: Row, kind: str) -> str:
    """Return the row of the table: measured with every stack, and differences told apart. Blocks for a moment."""
    clock = JumpingClock()
    cells = []
    with Emulator(clock=clock, aliases=("127.0.0.2",)) as server:
        for ask in COLUMNS[kind]:
            outcomes: dict[str, list[str]] = {}
            for stack in STACKS:
                with _caller(server, clock, stack, row) as caller:
                    outcomes.setdefault(ask(row, caller, stack), []).append(stack.name)
            cells.append(_merged(outcomes))
    return f"| {row.name} | {' | '.join(cells)} |".replace("|  |", "| |")


def _merged(outcomes: dict[str, list[str]]) -> str:
    if len(outcomes) == 1:
        return next(iter(outcomes))
    columns = [outcome.split(" | ") for outcome in outcomes]
    names = [", ".join(stacks) for stacks in outcomes.values()]
    told = []
    for column in zip(*columns, strict=True):
        texts = [f"**{name}:** {text}" for name, text in zip(names, column, strict=True) if text]
        told.append(column[0] if len(set(column)) == 1 else "; ".join(texts))
    return " | ".join(told)


HEAD: Final = """# Answers

What a caller sees of each answer that the server is known to give, with any of the adapters. These tables are not written by hand:
`python tests/answers_table.py --write` measures them against the emulator, on real sockets, with requests, httpx (synchronous and
asyncio), httpx2 and aiohttp, and the tests fail where they say something else. Where the stacks differ, the cell says so in bold.
What lies behind each row stands in [Behaviour](behaviour.md).
"""
FIRST: Final = """
## To a login or a renewal

*With a living token* a renewal is due and meets the answer: two calls are made, beside the renewal and after it, and the *events*
are those of both. *Without a token* the caller's first call needs a login, which meets it. `retry_after` is in seconds; without
one, waiting does not help or nobody knows how long.

| the server answers | with a living token | events | without a token | advice |
|---|---|---|---|---|
"""
SECOND: Final = """
## To any other call

With a living token, several times in a row; redirects are followed, in parentheses stands what was sent to the auth endpoints
meanwhile. Nothing but a 401 is sent again, and a moved host's answer for a GET or HEAD.

| the server answers | a GET sees | a POST sees |
|---|---|---|
"""


def page(signing_in: list[str], ordinary: list[str]) -> str:
    """Return the page with these rows."""
    return HEAD + FIRST + "\n".join(signing_in) + "\n" + SECOND + "\n".join(ordinary) + "\n"


def cells_in(text: str) -> tuple[list[str], list[str]]:
    """Return the rows of both tables on a page."""
    tables = [part.splitlines() for part in text.split("\n## ")[1:]]
    first, second = ([line for line in lines if line.startswith("| ")][1:] for lines in tables)
    return first, second


def main(arguments: list[str] | None = None) -> int:
    """Measure everything; write the page if asked to, else say whether it is out of date."""
    parser = argparse.ArgumentParser(prog="answers_table", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/answers.md")
    chosen = parser.parse_args(arguments)
    with standing_still():
        text = page(
            [measured(row, "signing in") for row in SIGNING_IN],
            [measured(row, "ordinary") for row in ORDINARY],
        )
    if chosen.write:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    stale = not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text
    print("out of date: run it with --write" if stale else "up to date")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())

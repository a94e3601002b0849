"""The course of the demonstration."""

import time
from typing import Final

import httpx2

from ...httpx2 import Httpx2Transport
from ...models import Credentials
from ...provider import TokenProvider
from ...storage import MemoryStorage
from ..emulator import EmulatorProcess
from ._board import Board, Session
from ._script import order_name
from ._traffic import Traffic
from ._verdict import Outcome

__all__ = ["play"]

_AUTH_SECONDS: Final = 0.5
_LOOK_EVERY: Final = 0.25


def play(board: Board, *, seconds: float, lifetime: float) -> Outcome:
    """Run the demonstration and return what came of it. Blocks; closes everything it opened, however it ends.

    Args:
        board: Where it is shown.
        seconds: How long.
        lifetime: How long a token lives, in seconds. Auth calls take half a second, or a twelfth of that if it is less.
    """
    delay, session = min(_AUTH_SECONDS, lifetime / 12), Session()
    with (
        EmulatorProcess(
            lifetime=lifetime, hour=6 * lifetime, login_delay=delay, renewal_delay=delay
        ) as server,
        httpx2.Client(trust_env=False) as client,
        TokenProvider(
            Credentials(**server.credentials),
            environment=server.url,
            storage=MemoryStorage(),
            transport=Httpx2Transport(client),
            on_event=session.hear,
        ) as provider,
    ):
        board.say(
            f"An emulated server at {server.url}: tokens live {lifetime:g} s, auth calls take {delay:g} s."
        )
        traffic = Traffic(provider, server.url)
        try:
            with board:
                revoked = _watch(board, server, traffic, session, seconds)
                traffic.stop()
                _look(server, session)
                board.finish(traffic.stacks, session)
        finally:
            traffic.stop()
        return _outcome(server, traffic, seconds=seconds, revoked=revoked)


def _watch(board: Board, server: EmulatorProcess, traffic: Traffic, session: Session, seconds: float) -> int:
    """Start, and show how it goes until the time is over; revoke the session halfway. Return how many that ended."""
    revoked, started = 0, time.monotonic()
    traffic.start()
    while (elapsed := time.monotonic() - started) < seconds:
        if not revoked and elapsed > seconds / 2:
            traffic.script.gather()
            revoked = server.revoke()
            traffic.script.send_orders()
        _look(server, session)
        board.show(elapsed, traffic.stacks, session)
        time.sleep(_LOOK_EVERY)
    return revoked


def _look(server: EmulatorProcess, session: Session) -> None:
    counts = server.counts
    session.renewals, session.logins = counts.renewals_granted, counts.logins
    session.live = server.live_sessions


def _outcome(server: EmulatorProcess, traffic: Traffic, *, seconds: float, revoked: int) -> Outcome:
    counts, stacks = server.counts, traffic.stacks
    return Outcome(
        seconds=seconds,
        stacks=len(stacks),
        calls=sum(each.calls for each in stacks),
        failures=sum(each.failures for each in stacks),
        first_failure=next((each.first_failure for each in stacks if each.first_failure), None),
        resends=sum(each.resends for each in stacks),
        logins=counts.logins,
        revoked=revoked,
        renewals=counts.renewals_granted,
        sent=tuple(traffic.script.sent),
        placed=tuple(order_name(order.body) for order in server.orders),
    )

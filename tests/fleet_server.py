"""The server of `fleet_model`: what the emulator decides about sessions and limits, in virtual time and without sockets.

And what may happen to a call on its way there and back.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Final, Literal

from tradovate_auth import AccessToken, Credentials
from tradovate_auth.testing.emulator import Rules
from tradovate_auth.testing.emulator._answers import JSON
from tradovate_auth.testing.emulator._auth import login, renew
from tradovate_auth.testing.emulator._sessions import Standing
from tradovate_auth.testing.emulator._state import State
from tradovate_auth.transport import Call, Reply

__all__ = ["EPOCH", "SERVER_AHEAD", "Contact", "Host", "Server", "Trouble", "call_kind", "misdated"]

EPOCH: Final = 1_800_000_000.0
SERVER_AHEAD: Final = 73.5
"""Seconds that the server's clock is ahead of everybody's."""


@dataclass(frozen=True)
class Trouble:
    """What happens to one call on its way, and how many seconds it takes."""

    kind: Literal[
        "none",
        "unreachable",
        "lost before",
        "lost after",
        "killed before",
        "killed after",
        "fault",
        "garbage",
    ] = "none"
    seconds: float = 0.0
    reply: Reply | None = None
    """What arrives instead: of "fault", from a gateway, and the server never hears of the call; of "garbage", from itself."""
    date: float = 0.0
    """Seconds by which the `Date` of the answer is wrong, if that grants a token: no other one holds anything against which
    its `Date` could be held, and such a one is believed."""


@dataclass
class Contact:
    """One auth call that has reached the server."""

    at: float
    """By the server's clock."""
    kind: Literal["login", "renewal"]
    token: str
    """What a renewal carried."""
    reply: Reply
    said: dict[str, Any]


@dataclass(frozen=True)
class Host:
    """A machine: its address, and how far its clock is ahead, in seconds."""

    address: str = "10.0.0.1"
    error: float = 0.0


class Server:
    """The emulator's rules without its sockets; it remembers every auth call.

    Args:
        elapsed: Returns the seconds that have passed in its world.
        rules: Of the emulator.
    """

    def __init__(self, elapsed: Callable[[], float], **rules: Any) -> None:
        self._elapsed = elapsed
        self.state = State(Rules(**rules), clock=self.now)
        self.contacts: list[Contact] = []
        self.credentials = Credentials(**next(iter(self.state.users.values())).credentials)

    def now(self) -> float:
        """Return the server's time."""
        return EPOCH + SERVER_AHEAD + self._elapsed()

    def configure(self, **rules: Any) -> None:
        """Change rules from now on."""
        self.state.rules = self.state.rules.changed(**rules)

    def good(self, token: AccessToken) -> bool:
        """Return whether an ordinary call with this token would be let in."""
        return self.ordinary(token) == 200

    def ordinary(self, token: AccessToken) -> int:
        """Return the status that an ordinary call with this token gets."""
        standing, _ = self.state.sessions.judge(token.value, self.now())
        if standing is Standing.EVICTED:
            return int(self.state.rules.evicted_style)
        return 200 if standing is Standing.GOOD else 401

    def evict(self, times: int = 2) -> None:
        """Let another client of the same user log in so often."""
        user = next(iter(self.state.users.values()))
        for _ in range(times):
            self.state.open(user, None)

    def receive(self, call: Call, address: str) -> Contact:
        """Decide about an auth call."""
        is_login = call_kind(call) == "login"
        token = call.headers.get("Authorization", "").removeprefix("Bearer ")
        answer = (
            login(self.state, call.body or b"", "application/json", address)
            if is_login
            else renew(self.state, token, address, None)
        )
        headers = {"Date": formatdate(self.now(), usegmt=True), **answer.headers}
        reply = Reply(answer.status, headers, answer.body)
        said = json.loads(answer.body) if answer.content_type == JSON else {}
        contact = Contact(self.now(), call_kind(call), token, reply, said)
        self.contacts.append(contact)
        return contact


def misdated(reply: Reply, moment: float) -> Reply:
    """Return an answer that claims to have been given at another moment."""
    return Reply(reply.status, {**reply.headers, "Date": formatdate(moment, usegmt=True)}, reply.body)


def call_kind(call: Call) -> Literal["login", "renewal"]:
    """Return which of the two auth calls this is."""
    return "login" if call.url.endswith("/auth/accesstokenrequest") else "renewal"

"""What must hold whatever happens, checked call by call, with bookkeeping of its own: it reads no ledger and no decision.

The referee stands between the processes and the server of `fleet_model`: it hears of every call that leaves and of every answer
that arrives. An answer that never reached a process, or reached it while the storage was away, is not held against anybody.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from fleet_model import Process, World
from fleet_server import Trouble, call_kind

from tradovate_auth import AccessToken
from tradovate_auth.storage import Record
from tradovate_auth.transport import Call, Reply

__all__ = ["Referee"]

_HOUR: Final = 3_600.0
_MINUTE: Final = 60.0
_OTHER_HOST: Final = (307, 404, 421)
_PATIENCE: Final = 12.0
"""Seconds by which two calls may be closer than their entries: a call tries for ten to get a connection."""


@dataclass
class _Spent:
    """A call that has left; `unsaved` if the storage was away then."""

    at: float
    process: Process
    unsaved: bool


class Referee:
    """Fails the test on the first call, record or token that should not be.

    Args:
        world: What it watches.
        margin: Seconds by which two moments of the processes' clocks may disagree.
    """

    def __init__(self, world: World, margin: float) -> None:
        self._world = world
        self._margin = margin
        self._tokens: dict[str, AccessToken] = {}
        self.latched = False
        """A login was refused, and nobody has said that the cause is gone."""
        self._answering: Process | None = None
        self.forget()

    def forget(self) -> None:
        """Start anew: the storage has lost what was spent."""
        self.renewals: list[_Spent] = []
        self._turned_away: set[Process] = set()
        """Who was last answered by a host that is not the one to ask, and must ask the server's own before he lands."""
        self.failed: list[_Spent] = []
        self.granted: list[_Spent] = []
        self._generation = self._saved_refused = 0
        self._refused: set[str] = set()
        self._refused_openly = 0
        self._generations: dict[Process, int] = {}
        self._looked: dict[Process, float] = {}
        """When each process has last read the storage."""
        self.forgive()

    def forgive(self) -> None:
        """Expect no hold any more: a human has said so."""
        self._held_until, self._held_at, self._why = 0.0, 0.0, ""
        self._told: Process | None = None
        """Who got the answer that forbids calls."""
        self._lost = 0
        self._evicted_at: float | None = None
        self._latched_until = 0.0
        self.latched = False

    def dead(self, process: Process) -> None:
        """Do not count what a process has spent without the storage: nobody else knows of it."""
        for spent in (self.renewals, self.failed, self.granted):
            spent[:] = [each for each in spent if each.process is not process or not each.unsaved]

    def departing(self, process: Process, call: Call, trouble: Trouble) -> None:
        """Judge a call that is about to leave."""
        now = self._world.now
        knows = (
            not self._world.away or process is self._told or self._looked.get(process, -1.0) > self._held_at
        )
        assert not knows or now >= self._held_until - self._margin, (
            f"a call {self._held_until - now:.0f} s early: {self._why}"
        )
        self._turned_away.discard(process)
        if trouble.kind == "unreachable":
            return
        if trouble.reply is not None and trouble.reply.status in _OTHER_HOST:
            self._turned_away.add(process)
            return
        spent = _Spent(now, process, self._world.away)
        if call_kind(call) == "renewal":
            self.renewals.append(spent)
            assert self._recent(self.renewals, process) <= 12, "the thirteenth renewal of an hour"
            return
        assert now >= self._latched_until - self._margin, "a login with credentials that were refused"
        self.failed.append(spent)
        assert self._recent(self.failed, process) <= 3, "a login after three that failed within an hour"
        assert self._recent(self.granted, process) < 5, "a login after five that were granted within an hour"
        assert not self._world.away, "a login without the storage"
        for token in (self._stored(), process.token):
            assert token is None or not self._usable(token), (
                f"a login, and generation {token.generation} lives"
            )

    def answered(self, process: Process, call: Call, reply: Reply | None) -> None:
        """Take note of what a process knows from now on, and others that have read the storage since."""
        said, self._answering = _read(reply), process
        if call_kind(call) == "login":
            self._login_answered(reply, said)
        elif reply is not None and not _barred(reply, said) and (reply.status == 401 or "errorText" in said):
            self._renewal_refused(process, call)
        elif _grants(said):
            self._lost = 0
        if reply is not None:
            self._forbidden(reply, said)

    def saved(self, record: Record) -> None:
        """Judge a record."""
        assert record.generation >= self._generation, "the generation went back"
        assert max(record.refused.values(), default=0) >= self._saved_refused, "a refusal was forgotten"
        self._generation, self._saved_refused = record.generation, max(record.refused.values(), default=0)
        for token in record.tokens.values():
            assert token.generation <= record.generation
            known = self._tokens.setdefault(token.value, token)
            assert known.generation == token.generation, "one token under two generations"

    def landed(self, process: Process) -> None:
        """Judge what a process has in hand after it has looked."""
        assert process not in self._turned_away, "the server was not asked after a host that is not the one"
        token = process.token
        if token is not None and not self._world.away:
            assert token.generation > self._refused_openly, f"generation {token.generation} was refused"
            left = token.expires_at.timestamp() - self._world.server.now()
            assert left > -self._margin, f"a token {-left:.0f} s after its end"
            self._looked[process] = self._world.now
            assert token.generation >= self._generations.get(process, 0), "the generation went back"
            self._generations[process] = token.generation

    def _stored(self) -> AccessToken | None:
        records = self._world.kept._records.items()
        tokens = [
            t for key, record in records if not key.startswith("machine") for t in record.tokens.values()
        ]
        return max(tokens, key=lambda token: token.generation, default=None)

    def _usable(self, token: AccessToken) -> bool:
        lives = token.expires_at.timestamp() > self._world.server.now() + self._margin
        return lives and token.generation > self._refused_openly and token.value not in self._refused

    def _recent(self, spent: list[_Spent], process: Process) -> int:
        horizon = self._world.now - _HOUR + self._margin + _PATIENCE
        return sum(each.at > horizon and (each.process is process or not each.unsaved) for each in spent)

    def _hold(self, seconds: float, why: str) -> None:
        until = self._world.now + seconds
        if not self._world.away and until > self._held_until:
            self._held_until, self._held_at, self._why = until, self._world.now, why
            self._told = self._answering

    def _forbidden(self, reply: Reply, said: dict[str, Any]) -> None:
        if said.get("p-captcha") in (True, "true"):
            self._hold(_HOUR, "captcha")
        elif "p-ticket" in said:
            self._hold(said.get("p-time", 15), "penalty")
        elif reply.status in (423, 429):
            self._hold(max(_HOUR, float(reply.header("retry-after") or 0)), "locked out")

    def _login_answered(self, reply: Reply | None, said: dict[str, Any]) -> None:
        now = self._world.now
        if reply is not None and _barred(reply, said):
            if "p-ticket" in said and said.get("p-captcha") not in (True, "true"):
                self.failed.pop()  # it was not processed
        elif reply is None or reply.status == 408 or reply.status >= 500 or not said:
            self._lost += 1
            if self._lost > 1:
                self._hold(min(5 * _MINUTE * 2 ** (self._lost - 2), _HOUR), "logins got lost")
        elif reply.status == 401 or "errorText" in said:
            self._lost, self.latched = 0, True
            self._latched_until = now + _HOUR  # at the least: it may have been throttling in disguise
        elif _grants(said):
            self.granted.append(self.failed.pop())
            self._lost = 0
            if self._evicted_at is not None and now - self._evicted_at < self._ten_minutes:
                self._evicted_at = now
        else:
            self._hold(15 * _MINUTE, "an answer that the protocol does not have")

    def _renewal_refused(self, process: Process, call: Call) -> None:
        now, value = self._world.now, call.headers["Authorization"].removeprefix("Bearer ")
        token = self._tokens.get(value)
        evicted = token is not None and self._usable(token)
        self._refused.add(value)
        if token is None or self._world.away:
            return
        self._refused_openly = max(self._refused_openly, token.generation)
        if not evicted:
            return
        if self._evicted_at is not None and now - self._evicted_at < self._ten_minutes:
            self._hold(10 * _MINUTE, "evicted twice")
        self._evicted_at = now

    @property
    def _ten_minutes(self) -> float:
        return 10 * _MINUTE - self._margin - _PATIENCE


def _grants(said: dict[str, Any]) -> bool:
    """Return whether an answer holds a token that can be sent; its moment is then readable too."""
    return " " not in said.get("accessToken", " ")


def _barred(reply: Reply, said: dict[str, Any]) -> bool:
    return reply.status in (423, 429) or "p-ticket" in said or said.get("p-captcha") in (True, "true")


def _read(reply: Reply | None) -> dict[str, Any]:
    try:
        said = json.loads(reply.body) if reply is not None else {}
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}

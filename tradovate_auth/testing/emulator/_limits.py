"""Limits of a rolling window, and what crossing one brings: lock-outs and penalties with tickets (P§4).

No input or output, no locks, no clock.
"""

from __future__ import annotations

import base64
import os
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from tradovate_auth.testing.emulator._names import LOGIN
from tradovate_auth.testing.emulator._rules import Rules

Captcha = bool | Literal["true", "false"] | None
EVERYBODY = ""


@dataclass(frozen=True)
class Attempt:
    """A login or renewal that asks to be let in: by whom it counts, and what a ticket is bound to."""

    endpoint: str
    key: str
    digest: str = field(repr=False)
    ticket: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Barrier:
    """Why an attempt is not processed. ``seconds`` is the wait: p-time, or what is left of a lock-out."""

    kind: Literal["lockout", "penalty", "disguised"]
    status: int
    seconds: float
    ticket: str = field(default="", repr=False)
    captcha: Captcha = None


@dataclass
class _LockOut:
    until: float
    status: int
    length: float
    warned: bool = False


@dataclass
class _Plan:
    seconds: float
    captcha: Captcha
    left: int
    status: int


@dataclass(frozen=True)
class _Ticket:
    bound: tuple[str, str, str]  # endpoint, key, digest of the body: P§4.1
    ready_at: float


class Limits:
    """Counts, lock-outs and tickets of every address and user. Not thread-safe: its owner locks."""

    def __init__(self) -> None:
        self._spent: dict[tuple[str, str], deque[float]] = {}
        self._locks: dict[str, _LockOut] = {}
        self._plans: dict[str, _Plan] = {}
        self._tickets: dict[str, _Ticket] = {}
        self._serving: dict[tuple[str, str], float] = {}

    def lock_out(self, key: str, status: int, seconds: float, now: float) -> None:
        """Locks one key, or EVERYBODY, for so long; zero seconds lift a lock-out."""
        self._locks[key] = _LockOut(now + seconds, status, seconds)

    def penalize(self, endpoint: str, *, seconds: float, captcha: Captcha, times: int, status: int) -> None:
        """Answers the next so many attempts at an endpoint with a penalty."""
        self._plans[endpoint] = _Plan(seconds, captcha, times, status)

    def spend(self, endpoint: str, key: str, now: float) -> None:
        """Counts one against the limit of an endpoint."""
        self._spent.setdefault((endpoint, key), deque()).append(now)

    def locked(self, key: str, now: float, rules: Rules) -> Barrier | None:
        """The lock-out that this key stands under, if any. Asking is a request, which may extend it (P§9.16)."""
        for lock in (self._locks.get(EVERYBODY), self._locks.get(key)):
            if lock is None or now >= lock.until:
                continue
            if rules.lockout_extends:
                lock.until = now + lock.length
            status = 423 if rules.lockout_warning and not lock.warned else lock.status
            lock.warned = True
            return Barrier("lockout", status, lock.until - now)
        return None

    def gate(self, attempt: Attempt, now: float, rules: Rules) -> Barrier | None:
        """None lets the attempt in; otherwise why not. Lock-outs come before penalties, planned ones before limits."""
        barrier = self.locked(attempt.key, now, rules)
        if barrier is not None:
            return barrier
        plan = self._plans.get(attempt.endpoint)
        if plan is not None and plan.left > 0:
            plan.left -= 1
            self._tickets.pop(attempt.ticket or "", None)
            return self._penalty(attempt, plan.seconds, plan.captcha, plan.status, now)
        served = self._served(attempt, now, rules)
        if served is not None:
            return None if served else self._again(attempt, plan, now, rules)
        return self._over(attempt, now, rules)

    def _served(self, attempt: Attempt, now: float, rules: Rules) -> bool | None:
        """Whether a penalty was served: True lets in, False penalizes again, None means there was none."""
        waiting = (attempt.endpoint, attempt.key)
        if attempt.ticket is not None:
            ticket = self._tickets.pop(attempt.ticket, None)
            bound = (attempt.endpoint, attempt.key, attempt.digest)
            if ticket is None or ticket.bound != bound or now < ticket.ready_at:
                return False
            self._serving.pop(waiting, None)
            return True
        until = self._serving.get(waiting)
        if until is None:
            return None
        if now < until or rules.ticket_required:
            return False
        del self._serving[waiting]
        return True

    def _again(self, attempt: Attempt, plan: _Plan | None, now: float, rules: Rules) -> Barrier:
        seconds = plan.seconds if plan is not None else rules.penalty_seconds
        return self._penalty(attempt, seconds, plan.captcha if plan is not None else None, 200, now)

    def _over(self, attempt: Attempt, now: float, rules: Rules) -> Barrier | None:
        is_login = attempt.endpoint == LOGIN
        spent = self._spent.get((attempt.endpoint, attempt.key), deque())
        while spent and spent[0] <= now - rules.hour:
            spent.popleft()
        if len(spent) < (rules.failed_login_limit if is_login else rules.renewal_limit):
            return None
        excess = rules.failed_login_excess if is_login else rules.renewal_excess
        if excess == "disguised":
            return Barrier("disguised", 200, 0.0)
        if excess == "lockout":
            self.lock_out(attempt.key, rules.lockout_status, rules.hour, now)
            spent.clear()  # the lock-out has taken their place
            return self.locked(attempt.key, now, rules)
        return self._penalty(attempt, rules.penalty_seconds, True if excess == "captcha" else None, 200, now)

    def _penalty(
        self, attempt: Attempt, seconds: float, captcha: Captcha, status: int, now: float
    ) -> Barrier:
        ticket = f"TEST-TICKET-{base64.urlsafe_b64encode(os.urandom(24)).decode()}"
        if captcha in (None, False, "false"):
            # Nobody but the vendor's own client can solve a captcha: such a ticket opens nothing.
            bound = (attempt.endpoint, attempt.key, attempt.digest)
            self._tickets[ticket] = _Ticket(bound, now + seconds)
            waiting = (attempt.endpoint, attempt.key)
            self._serving[waiting] = max(self._serving.get(waiting, 0.0), now + seconds)
        return Barrier("penalty", status, seconds, ticket, captcha)

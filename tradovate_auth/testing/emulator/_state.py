"""The whole state of an emulated server behind one lock, and the questions that the handlers ask it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict

from tradovate_auth.testing.emulator import _answers as answers
from tradovate_auth.testing.emulator._answers import Answer
from tradovate_auth.testing.emulator._faults import Fault, FaultQueue
from tradovate_auth.testing.emulator._limits import Limits
from tradovate_auth.testing.emulator._names import LOGIN, RENEWAL
from tradovate_auth.testing.emulator._records import DEFAULT_USER, Counts, OrderInfo, RequestInfo, User
from tradovate_auth.testing.emulator._rules import Rules
from tradovate_auth.testing.emulator._sessions import Session, Sessions, Standing

KEPT = 10_000


class State:
    """Rules, users, sessions, limits, faults and records.

    Handlers run on the server's loop and tests on any thread: whoever touches more than one attribute holds ``lock``,
    which is never held across a wait.
    """

    def __init__(self, rules: Rules, clock: Callable[[], float]) -> None:
        self.lock = threading.RLock()
        self.rules = rules
        self.clock = clock
        self.users: dict[str, User] = {}
        self.add_user(DEFAULT_USER)
        self.clear()

    def clear(self) -> None:
        """Forgets everything but rules and users."""
        with self.lock:
            self.sessions = Sessions()
            self.limits = Limits()
            self.faults = FaultQueue()
            self.tally = asdict(Counts())
            self.requests: deque[RequestInfo] = deque(maxlen=KEPT)
            self.orders: deque[OrderInfo] = deque(maxlen=KEPT)
            self.forbidden: set[str] = set()

    def add_user(self, values: Mapping[str, object]) -> User:
        """Adds a user, or replaces the one of that name."""
        with self.lock:
            known = self.users.get(str(values["name"]))
            user = User(id=known.id if known else 1001 + len(self.users), **values)  # type: ignore[arg-type]
            self.users[user.name] = user
            return user

    def user(self, name: str | None) -> User:
        """The user of that name, or the first.

        Raises:
            KeyError: There is none of that name.
        """
        return self.users[name] if name is not None else next(iter(self.users.values()))

    def arrive(self, request: RequestInfo, name: str, kind: str | None) -> Fault | None:
        """Records a request on arrival; returns the fault that meets it."""
        with self.lock:
            self.requests.append(request)
            if kind is None:
                return None
            self.tally[kind] += 1
            return self.faults.take(name) if self.faults else None

    def count(self, name: str) -> None:
        """One more of a field of :class:`Counts`."""
        with self.lock:
            self.tally[name] += 1

    def open(self, user: User, device_id: str | None) -> Session:
        """A new session of this user, which may close the oldest. The caller holds the lock."""
        session, closed = self.sessions.open(user, device_id, self.clock(), self.rules)
        self.tally["evictions"] += len(closed)
        return session

    def limit_key(self, address: str, user: str | None) -> str:
        """What limits count by (P§9.17); a user nobody has heard of counts by address."""
        return user if self.rules.count_by == "user" and user in self.users else address

    def admit(self, token: str | None, name: str, address: str) -> Session | Answer:
        """The session that an ordinary call belongs to, or the answer that turns it away."""
        now = self.clock()
        with self.lock:
            rules = self.rules
            standing, session = self.sessions.judge(token or "", now)
            if rules.lockout_scope == "all":
                key = self.limit_key(address, None if session is None else session.user.name)
                barrier = self.limits.locked(key, now, rules)
                if barrier is not None:
                    self.tally["lockouts"] += 1
                    return answers.barred(barrier, rules, now)
            if session is None or standing is Standing.GONE:
                self.tally["calls_unauthorized"] += 1
                return answers.tokenless(rules) if token is None else answers.unauthorized(rules)
            if standing is Standing.EVICTED:
                self.tally["calls_evicted"] += 1
                return answers.evicted(rules)
            if name in self.forbidden:
                self.tally["calls_forbidden"] += 1
                return answers.forbidden()
            return session

    def place_order(self, session: Session, body: bytes, content_type: str | None) -> Answer:
        """Records an order, unless the rules bind orders to the user's device (P§2.1)."""
        with self.lock:
            if self.rules.enforce_device and session.device_id != session.user.device_id:
                self.tally["calls_forbidden"] += 1
                return answers.forbidden()
            self.tally["orders"] += 1
            order = OrderInfo(self.tally["orders"], session.id, body, content_type, self.clock())
            self.orders.append(order)
        return answers.json_answer({"orderId": order.id})


def kind_of(name: str) -> str:
    """The field of :class:`Counts` that a request of this name counts under."""
    return {LOGIN: "logins", RENEWAL: "renewals"}.get(name, "calls")

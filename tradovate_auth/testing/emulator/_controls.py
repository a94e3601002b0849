"""What a test may ask of the emulator and do to it; every method takes any thread and blocks for microseconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from tradovate_auth.testing.emulator._faults import Fault
from tradovate_auth.testing.emulator._limits import EVERYBODY, Captcha
from tradovate_auth.testing.emulator._names import LOGIN, RENEWAL, endpoint_name
from tradovate_auth.testing.emulator._records import Counts, OrderInfo, RequestInfo, SessionInfo
from tradovate_auth.testing.emulator._rules import Rules
from tradovate_auth.testing.emulator._state import State


class Controls:
    """The part of :class:`Emulator` that needs no server to be running."""

    def __init__(self, rules: Rules, clock: Callable[[], float]) -> None:
        self._state = State(rules, clock)

    @property
    def rules(self) -> Rules:
        """The rules in force."""
        return self._state.rules

    @property
    def credentials(self) -> dict[str, Any]:
        """The default user's, as arguments for ``tradovate_auth.Credentials``; secrets included."""
        return self._state.user(None).credentials

    @property
    def counts(self) -> Counts:
        """A snapshot of what has happened."""
        with self._state.lock:
            return Counts(**self._state.tally)

    @property
    def sessions(self) -> tuple[SessionInfo, ...]:
        """Snapshots of every session, the oldest first, ended ones included."""
        with self._state.lock:
            now = self._state.clock()
            return tuple(each.info(now) for each in self._state.sessions.all())

    @property
    def live_sessions(self) -> int:
        """How many sessions are alive."""
        with self._state.lock:
            return len(self._state.sessions.live(self._state.clock()))

    @property
    def requests(self) -> tuple[RequestInfo, ...]:
        """The last 10,000 requests on any path but those under ``/emulator/``, in order of arrival."""
        with self._state.lock:
            return tuple(self._state.requests)

    @property
    def orders(self) -> tuple[OrderInfo, ...]:
        """The last 10,000 orders that were placed."""
        with self._state.lock:
            return tuple(self._state.orders)

    def add_user(self, name: str, password: str, **fields: Any) -> dict[str, Any]:
        """Adds somebody who may log in, or replaces the user of that name; returns the credentials.

        Args:
            fields: ``app_id``, ``app_version``, ``cid``, ``sec``, ``device_id``; those left out are not checked.
        """
        return self._state.add_user({"name": name, "password": password, **fields}).credentials

    def configure(self, **rules: Any) -> Rules:
        """Changes rules from the next request on; tokens that were granted keep their end.

        Raises:
            ValueError: There is no such rule, or not with this value.
        """
        with self._state.lock:
            self._state.rules = self._state.rules.changed(**rules)
            return self._state.rules

    def inject(self, fault: Fault) -> None:
        """Plans a fault, behind those planned before."""
        with self._state.lock:
            self._state.faults.add(fault)

    def revoke(self, user: str | None = None) -> int:
        """Ends every live session, or one user's: calls and renewals get 401. Returns how many ended.

        Raises:
            KeyError: There is no such user.
        """
        state = self._state
        with state.lock:
            return state.sessions.revoke(state.clock(), None if user is None else state.user(user))

    def foreign_login(self, user: str | None = None) -> str:
        """Opens a session for another client of the user, which may evict the oldest; returns its token.

        Limits do not apply, and it counts as no login: only ``sessions`` and ``counts.evictions`` show it.

        Raises:
            KeyError: There is no such user.
        """
        with self._state.lock:
            return self._state.open(self._state.user(user), "foreign device").token.value

    def lock_out(self, status: int = 429, seconds: float | None = None) -> None:
        """Locks everybody out of login and renewal, or of everything under ``lockout_scope="all"`` (P§4.2).

        Args:
            status: 429 or 423.
            seconds: For how long, ``Rules.hour`` by default; 0 lifts a lock-out.
        """
        state = self._state
        with state.lock:
            length = state.rules.hour if seconds is None else seconds
            state.limits.lock_out(EVERYBODY, status, length, state.clock())

    def penalize(
        self,
        endpoint: Literal["login", "renewal"] = "login",
        *,
        seconds: float = 15.0,
        captcha: Captcha = None,
        times: int = 1,
        status: int = 200,
    ) -> None:
        """Answers the next requests to an endpoint with a penalty (P§4.1).

        The ticket opens after ``seconds`` for the identical request from the same address, once. Before that, any
        request is penalized anew; after it, one without a ticket passes too unless ``Rules.ticket_required``.

        Args:
            endpoint: "login" or "renewal".
            seconds: The p-time.
            captcha: The p-captcha as sent; None leaves it out. With True or "true" the ticket opens nothing, and
                what comes after these ``times`` is processed.
            times: How many requests.
            status: Of these answers; penalties for coming too early have 200 (P§9.15).

        Raises:
            ValueError: The endpoint is neither.
        """
        if endpoint not in (LOGIN, RENEWAL):
            raise ValueError(f"a penalty is for login or renewal, not {endpoint!r}")
        with self._state.lock:
            self._state.limits.penalize(
                endpoint, seconds=seconds, captcha=captcha, times=times, status=status
            )

    def forbid(self, path: str) -> None:
        """Answers 401 on this path below ``/v1`` with a good token too, as for a missing permission (P§3.2)."""
        with self._state.lock:
            self._state.forbidden.add(endpoint_name(path))

    def allow(self, path: str) -> None:
        """Takes a :meth:`forbid` back."""
        with self._state.lock:
            self._state.forbidden.discard(endpoint_name(path))

    def reset(self) -> None:
        """Forgets sessions, counts, records, faults, limits, lock-outs and forbidden paths; keeps rules and users."""
        self._state.clear()

"""The token provider: what every adapter, and every user who sends requests by himself, asks for the access token.

The hot path is one attribute and one comparison. Everything that is known about the token in hand (when to look at it
again, that somebody doubts it, that a fork has stopped the timer) is in one `Held` object; whoever learns something that
the hot path must heed sets its `fresh_until` into the past, and the next caller takes the long way round.

    fresh              served at once
    stale              served at once, while a flight renews it beside the traffic
    doubted, or none   callers wait for the flight
"""

import math
import time
from collections.abc import Callable
from typing import Final, Self, Unpack

from ._clock import SYSTEM_CLOCK, Clock
from ._closing import ClosingOnLoops
from ._defaults import SESSIONS_OPENED, account_for, options_from_env, session_opened
from ._flight import run_on_flight
from ._guarded import Guarded
from ._keeper import Keeper
from ._ledger import Ledger
from ._lifecycle import Lifecycle
from ._options import Login, ProviderOptions, Renewal, check_options
from ._refuge import Refuge
from ._source import TokenSource
from ._status import status_of
from ._view import Need
from .environments import Environment
from .errors import ConfigurationError, StorageError, Throttled, TokenTimeout
from .events import Event, RenewalFailed
from .models import AccessToken, Budget, Credentials, Status
from .storage import Storage
from .transport import Transport

__all__ = ["ProviderOptions", "TokenProvider", "TokenSource"]

_STRIKES: Final = 3  # P§5.1: how many answers in a row make an eviction likely enough to ask
_FAULTS: Final = frozenset({408, 429})


class TokenProvider(Guarded, ClosingOnLoops):
    """Hands out the one access token of an account, and keeps it alive. Threads, tasks and event loops share one.

    Args:
        credentials: Whose session it is.
        environment: "demo", "live", a base URL ending in `/v1`, or an `Environment`.
        storage: Where processes share the session: a `Storage` or its URL. None: this process's memory, shared by all
            providers of equal credentials.
        transport: How the auth calls are sent; None takes the first of httpx2, httpx, requests, aiohttp.
        timeout: Seconds that one auth call may take, above 0 and an hour at most.
        renewal: "background" renews on a timer, traffic or not; "on-demand" only when somebody asks for the token.
        login: May it open a session? "always", "once" in this process, or "never".
        login_without_storage: Log in although the storage is unreachable, at the risk of closing somebody's session.
        budget: What may be spent in a rolling hour.
        on_event: Called with each event, on a thread of this package; see `tradovate_auth.events`.
        clock: Tells the time; for tests.

    Raises:
        ConfigurationError: An argument is wrong. Nothing was sent, and nothing is until somebody asks for a token.
        ImportError: The storage's URL needs an extra that is not installed; the message says which.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        environment: str | Environment = "demo",
        storage: Storage | str | None = None,
        transport: Transport | None = None,
        timeout: float = 20.0,
        renewal: Renewal = "background",
        login: Login = "always",
        login_without_storage: bool = False,
        budget: Budget = Budget(),  # noqa: B008  # frozen
        on_event: Callable[[Event], object] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        check_options(
            renewal=renewal,
            login=login,
            budget=budget,
            on_event=on_event,
            login_without_storage=login_without_storage,
        )
        self.environment = Environment.of(environment)
        self._login = login
        self._account = account_for(
            credentials, self.environment, storage=storage, transport=transport, timeout=timeout, clock=clock
        )
        self._lifecycle = Lifecycle(self._account, budget, self._may_login)
        refuge = Refuge(self._lifecycle, budget, lambda: login_without_storage and self._may_login())
        self._keeper = Keeper(
            self._lifecycle, refuge=refuge, background=renewal == "background", on_event=on_event
        )
        self._elapsed = clock.elapsed

    @classmethod
    def from_env(cls, **options: Unpack[ProviderOptions]) -> Self:
        """Return a provider for the credentials, environment and storage in the `TRADOVATE_` variables.

        Args:
            options: As for the class; they win over `TRADOVATE_ENVIRONMENT` and `TRADOVATE_STORAGE`. A storage that is
                named by its URL is sealed with the keys in `TRADOVATE_STORAGE_KEYS`, if there are any.

        Raises:
            ConfigurationError: See `Credentials.from_env`.
            ImportError: There are keys, and the extra `crypto` is not installed; or as for the class.
        """
        return cls(Credentials.from_env(), **options_from_env(options))

    def get(self, timeout: float | None = 30.0, *, min_ttl: float = 0.0) -> AccessToken:
        """Return a usable token, renewing or logging in first if there is none.

        Blocks only while no usable token is held, or while somebody doubts the one that is. Any thread; no event loop
        needed. On a loop's own thread it would stall that loop: use `aget` there.

        Args:
            timeout: Longest wait in seconds. None waits until the attempt ends.
            min_ttl: Seconds that the token should still live: one that ends sooner is renewed first, if it may be.

        Raises:
            LoginRefused: The server said no; trying again will not help.
            LoginRequired: This provider may not log in, and nobody else has.
            Throttled: A limit forbids asking now (`CaptchaRequired`, `LockedOut` and `SessionEvicted` are kinds of it).
            TransportError: The server cannot be reached.
            ProtocolError: The server's answer makes no sense.
            StorageError: The storage cannot be used.
            TokenTimeout: This caller gave up; the attempt itself goes on.
            ProviderClosed: The provider was closed.
        """
        held, elapsed = self._keeper.held, self._elapsed
        if elapsed() < held.fresh_until and not min_ttl:
            return held.token
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        approach = self._keeper.approach(min_ttl, math.inf if timeout is None else timeout)
        try:
            while True:
                flight = next(approach)
                flight.wait(None if timeout is None else max(deadline - time.monotonic(), 0.0))
        except StopIteration as arrived:
            return arrived.value  # type: ignore[no-any-return]  # what the generator returns
        except TokenTimeout as error:
            raise TokenTimeout(f"{error.message} {self._account.busy}".strip()) from None

    async def aget(self, *, min_ttl: float = 0.0) -> AccessToken:
        """Return a usable token, as `get` does, without ever blocking the loop. Any asyncio loop, and trio.

        Bring your own time limit: cancelling this leaves the attempt to everybody else.

        Args:
            min_ttl: As for `get`.

        Raises:
            TradovateAuthError: As `get`, except `TokenTimeout`.
        """
        held, elapsed = self._keeper.held, self._elapsed
        if elapsed() < held.fresh_until and not min_ttl:
            return held.token
        approach = self._keeper.approach(min_ttl, math.inf)
        try:
            while True:
                await next(approach).await_landing()
        except StopIteration as arrived:
            return arrived.value  # type: ignore[no-any-return]  # as above

    def reject(self, token: AccessToken, *, method: str = "", path: str = "") -> bool:
        """Tell that an ordinary call with this token was answered with 401.

        Never blocks; any thread, any loop.

        Args:
            token: The one that the call carried.
            method: The call's method, for the memory of calls that this key may never make.
            path: The call's path, without its query.

        Returns:
            Whether to `get` again and, if that brings another generation, to resend once. If not, the 401 is the answer.
        """
        return self._keeper.doubt(token, method, path)

    def report(self, token: AccessToken, status: int) -> None:
        """Tell of an answer that may speak for or against a token: 408, 429, 5xx, and the first success after one.

        Three faults in a row lead to one renewal that finds out whether the session is still ours (P§5.1). Never blocks;
        any thread, any loop.

        Args:
            token: The one that the call carried.
            status: The answer's status.
        """
        if 200 <= status < 300:
            self._keeper.trust(token)
        elif status in _FAULTS or status >= 500:
            token.strikes.count += 1
            if token.strikes.count >= _STRIKES:
                self._keeper.probe(token)

    def renew(self, timeout: float | None = 30.0) -> AccessToken:
        """Renew now, and return the new token. Blocks; any thread.

        Args:
            timeout: Longest wait in seconds. None waits until the attempt ends.

        Raises:
            Throttled: The allowance for renewals that nobody planned does not permit it now, or the server did not
                grant it; the old token stays in use.
            TradovateAuthError: As `get`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout

        def left() -> float | None:
            return None if deadline is None else max(deadline - time.monotonic(), 0.0)

        token, earlier = self.get(timeout), self._keeper.listener.last
        for flight in self._keeper.renewing(token):
            flight.wait(left())
        renewed, event = self.get(left()), self._keeper.listener.last
        if renewed.generation > token.generation:
            return renewed
        why = "no more may be asked for at this moment"
        if isinstance(event, RenewalFailed) and event is not earlier:
            why = event.reason
        raise Throttled(
            f"The token was not renewed: {why}.", self._renewal_wait(token), "The old token stays in use."
        )

    def reset(self) -> None:
        """Forget holds, pauses and refused credentials: a human says that the cause is gone. What was spent stays spent.

        Blocks on the storage; any thread.

        Raises:
            StorageError: The storage cannot be used.
        """
        self._account.change_ledger(Ledger.forgiven)
        self._account.machine.change(Ledger.forgiven)
        self._keeper.forgive()

    def status(self) -> Status:
        """Return how the session stands. Blocks on the storage; never logs in, never calls the server.

        Raises:
            StorageError: The storage cannot be read.
        """
        keeper = self._keeper
        record, view = self._lifecycle.glance(keeper.held.token, Need())
        return status_of(
            self._account,
            record,
            view,
            closed=keeper.closed,
            last_event=keeper.listener.last,
            last_event_at=keeper.listener.last_at,
        )

    def url(self, key: str, path: str) -> str:
        """Return the URL of a path on the host that the server assigned under a key of its `apiHosts`. Never blocks.

        Args:
            key: Such as "demo" or "live" (P§1.2).
            path: Such as "/order/place".

        Raises:
            ConfigurationError: No host goes by that key.
        """
        token = self._keeper.held.token
        assigned = token.hosts if token is not None else {}
        host = self.environment.admit(assigned.get(key)) or self.environment.hosts.get(key)
        if host is None:
            known = ", ".join(sorted({*assigned, *self.environment.hosts}))
            raise ConfigurationError(f"No host goes by {key!r}; known are: {known}.")
        return f"{self.environment.base(host)}/{path.removeprefix('/')}"

    def websocket_url(self, key: str) -> str:
        """Return the URL of the WebSocket on an assigned host; see `url`. Never blocks.

        Args:
            key: As for `url`, or that of a host for market data, such as "mdDemo".

        Raises:
            ConfigurationError: No host goes by that key.
        """
        return "ws" + self.url(key, "/websocket").removeprefix("http")

    def close(self) -> None:
        """Stop the timer and serve nothing any more; the session stays open at the server, and in the storage.

        Blocks while a login is on its way, ten seconds at most: its session would be lost otherwise. Any thread.
        """
        self._keeper.close()

    async def aclose(self) -> None:
        """Close, as `close` does, without blocking the loop."""
        await run_on_flight(self.close)

    def __repr__(self) -> str:
        return f"<TokenProvider {self._account.label}>"

    def _renewal_wait(self, token: AccessToken) -> float:
        """Return in how many seconds a renewal that somebody asks for may be sent, as far as anybody knows now."""
        try:
            _, view = self._lifecycle.glance(token, Need(replace=token.generation))
        except StorageError:
            return max(self._keeper.held.again_at - self._elapsed(), 0.0)
        return view.exchange_wait

    def _may_login(self) -> bool:
        if self._login == "once":
            return session_opened(self._account.key) not in SESSIONS_OPENED
        return self._login == "always"

"""Keeps the token in hand: publishes what flights bring, launches them when they are due, and knows who waits.

Everything that the hot path must heed is in one `Held` object. Whoever learns something new (somebody doubts the token, a
fork has stopped the timer) sets the `fresh_until` of the object that it has looked at into the past: a newer one that a
flight publishes at the same moment is not touched by that.
"""

import copy
import math
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Final

from ._defaults import SESSIONS_OPENED, session_opened
from ._flight import Aftermath, Flight, SingleFlight
from ._given import give, values_of
from ._held import NOTHING, Held
from ._journal import Journal
from ._ledger import Ledger
from ._lifecycle import Landing, Lifecycle
from ._listener import Listener
from ._refuge import Refuge
from ._refusals import Refusals
from ._schedule import LONGEST_SLEEP, Schedule
from ._view import Need
from .errors import (
    ConfigurationError,
    ProviderClosed,
    StorageError,
    Throttled,
    TokenTimeout,
    TradovateAuthError,
)
from .events import Event, LoggedIn, RecordSetAside, RenewalFailed
from .models import AccessToken
from .storage import StorageBusy

__all__ = ["Keeper"]

_CLOSE_PATIENCE: Final = 10.0  # seconds that closing waits for a login on its way
_FAILURE_MEMORY: Final = 1.0  # seconds for which callers are told the last failure instead of trying again
_RETRY: Final = 1.0  # seconds until the storage is tried again by the process that has to put something back
_LONGEST_RETRY: Final = 15.0  # ... and by others, whose token still lives for a while
_STUCK: Final = 30  # flights older than so many auth calls are given up
_FLIGHTS_PER_CALL: Final = 4


class Keeper:
    """What a provider does behind its public face. Nothing in here blocks but `close`."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        *,
        refuge: Refuge,
        background: bool,
        on_event: Callable[[Event], object] | None,
    ) -> None:
        account = lifecycle.account
        self.held = NOTHING
        self.closed = False
        self.listener = Listener(on_event, account.clock)
        self.refusals = Refusals(account.clock.elapsed)
        self.flight = SingleFlight(self._work, ceiling=_STUCK * account.timeout)
        self.elapsed = account.clock.elapsed
        self._account = account
        self._lifecycle = lifecycle
        self._refuge = refuge
        self._schedule = Schedule(self, account.clock, self._forked) if background else None
        self._login_wanted = False
        self._replace = 0
        self._probed = 0
        self._cured = False
        self._quiet_until = -math.inf
        self._failure: tuple[TradovateAuthError, float] | None = None
        self._paused_until = -math.inf

    def approach(self, min_ttl: float, patience: float) -> Generator[Flight, None, AccessToken]:
        """Yield the flights that a caller has to wait for, one after another; return the token that they lead to.

        Args:
            min_ttl: Seconds that the token should still live.
            patience: Seconds that the caller has in all; one who cannot outlast a penalty is told at once.
        """
        deadline = self.elapsed() + patience
        asked = False
        flown = 0
        while True:
            if self.closed:
                raise ProviderClosed("The provider was closed.")
            held, now = self.held, self.elapsed()
            if now < held.usable_until and not held.doubted:
                if asked or held.usable_until - now >= min_ttl:
                    if now >= held.again_at:
                        self.flight.join()
                    return held.token
                asked = True
                self.want_newer(held.token.generation)
            else:
                self._raise_failure(now)
                if self._paused_until > max(now, deadline):
                    raise Throttled("The server asked to slow down.", self._paused_until - now)
                self._login_wanted = True
            if flown == _FLIGHTS_PER_CALL:
                raise TokenTimeout("The token was refused as often as it was renewed.")
            flown += 1
            yield self._join()

    def renewing(self, token: AccessToken) -> Generator[Flight, None, None]:
        """Yield the flights to wait for until one has asked for a newer token: one in the air may not have heard of it."""
        self.want_newer(token.generation)
        for _ in range(_FLIGHTS_PER_CALL):
            if self._replace < token.generation:
                return
            yield self._join()

    def doubt(self, token: AccessToken, method: str, path: str) -> bool:
        """Doubt a token that was answered with 401; return whether asking again can bring another answer."""
        held = self.held
        if self.closed:
            return False
        if held is NOTHING or token.generation != held.token.generation:
            return True
        if self.refusals.is_final(token.generation, method, path):
            return False
        if not held.doubted and self.elapsed() < self._quiet_until:
            return False
        self.refusals.ask(token.generation, method, path)
        held.doubted = True
        held.fresh_until = -math.inf
        self.flight.join()
        return True

    def want_newer(self, generation: int) -> None:
        """Make the next flight ask for a newer token, if the allowance permits it."""
        self._replace = max(self._replace, generation)

    def probe(self, token: AccessToken) -> None:
        """Find out whether a session that only brings faults is still ours."""
        token.strikes.count = 0
        if self.held.token is token and not self.closed:
            self._probed = token.generation
            self.want_newer(token.generation)
            self.flight.join()

    def trust(self, token: AccessToken) -> None:
        """Note that a call with this token succeeded after one that had not."""
        token.strikes.count = 0
        if self._probed == token.generation:
            self._probed = 0
        if self.refusals.cured(token.generation):
            self._cured = True

    def forgive(self) -> None:
        """Forget remembered failures, so that the next caller tries at once."""
        self._failure = None
        self._quiet_until = self._paused_until = -math.inf

    def close(self) -> None:
        """Stop the timer, wait for a login on its way, and serve nothing any more. Blocks for ten seconds at most."""
        self.closed = True
        self.held.fresh_until = -math.inf
        if self._schedule is not None:
            self._schedule.stop()
            self._schedule.join()
        self._account.closing.set()
        flight = self.flight.current()
        if flight is not None and not flight.aboard:
            flight.settle(_CLOSE_PATIENCE)

    def tick(self) -> float | None:
        """See `_schedule`: start a flight if one is due; it may renew and adopt, but not log in."""
        if self.closed:
            return None
        if self.held is NOTHING:
            return LONGEST_SLEEP
        wait = self.held.again_at - self.elapsed()
        if wait > 0:
            return wait
        self.flight.join()
        return LONGEST_SLEEP

    def _join(self) -> Flight:
        flight = self.flight.join()
        if flight.aboard:
            raise ConfigurationError(
                "The transport of the auth calls asked for the very token that it is to fetch.",
                None,
                "Give the transport a session or client of its own, without TradovateAuth.",
            )
        return flight

    def _forked(self) -> None:
        self.held.fresh_until = self.held.again_at = -math.inf

    def _raise_failure(self, now: float) -> None:
        if self._failure is None:
            return
        error, since = self._failure
        memory = _FAILURE_MEMORY if error.retry_after is None else min(_FAILURE_MEMORY, error.retry_after)
        if now - since < memory:
            own = copy.copy(error)
            own.retry_after = None if error.retry_after is None else error.retry_after - (now - since)
            raise own

    def _work(self) -> Aftermath:
        """Fly once: run the pass and publish what it brings. On the flight's thread; the only writer of `held`."""
        if self.closed:
            return ProviderClosed("The provider was closed."), lambda: None
        before = self.held
        doubted = before.token.generation if before.doubted else 0
        told = self.elapsed() < self._paused_until
        need = Need(doubted=doubted, replace=self._replace, login=self._login_wanted, told=told)
        journal = Journal(self._account.label)
        try:
            landing = self._run(before.token, need, journal)
        except TradovateAuthError as error:
            landing = Landing(error=error)
        while self._account.set_aside:
            journal.add(RecordSetAside(account=journal.account, reason=self._account.set_aside.pop(0)))
        while self._account.server.oddities:
            journal.warn(self._account.server.oddities.pop(0))
        if any(isinstance(event, LoggedIn) for event in journal.entries):
            SESSIONS_OPENED.add(session_opened(self._account.key))
        failed = self._publish(before, need, landing, journal)
        self.listener.note(journal)
        return failed, self.listener.tell

    def _run(self, token: AccessToken | None, need: Need, journal: Journal) -> Landing:
        try:
            self._lifecycle.recollection.writing = False
            if self._cured and (need.doubted or need.replace):
                self._account.change_ledger(Ledger.with_cure)
                self._cured = False
            landing = self._lifecycle.run(token, need, journal)
        except StorageBusy:
            raise
        except StorageError as error:
            living = token is not None and self.elapsed() < self.held.usable_until
            landing = self._refuge.run(token, need, journal, error, living=living)
            return replace(landing, again_in=min(landing.again_in, _RETRY))
        self._refuge.leave(journal)
        return landing

    def _publish(
        self, before: Held, need: Need, landing: Landing, journal: Journal
    ) -> TradovateAuthError | None:
        now = self.elapsed()
        if self._overtaken(before, landing.token):
            return landing.error
        unanswered = any(isinstance(event, RenewalFailed) for event in journal.entries)
        held = self._next(before, landing, journal, now)
        token = held.token if held is not NOTHING else None
        self._login_wanted = False
        self._paused_until = now + landing.pause if landing.pause else -math.inf
        if self._replace <= max(need.replace, token.generation - 1 if token is not None else 0):
            self._replace = 0
        if token is not None and need.doubted:
            self._weigh(need, token, journal, now)
        if token is not None and token is before.token and unanswered:
            self._tell_of_probe(token, journal)
        if token is not None and token is not before.token:
            give(values_of(token), self._account.credentials.name)
        replaced, self.held = self.held, held
        replaced.fresh_until = -math.inf  # an adapter that looks at it asks for the new one
        if before.doubted and token is before.token and not need.doubted:
            # Doubted while this flight was on its way; looked at after publishing, so that no doubt falls in between.
            held.doubted, held.fresh_until = True, -math.inf
        if self.closed:
            held.fresh_until = -math.inf  # looked at after publishing: close() looks the other way round
        failed = landing.error if token is None else None
        if failed is not None:
            self._failure = (failed, now)
        elif self._schedule is not None and token is not None and not self.closed:
            self._schedule.start()
            self._schedule.nudge()
        return failed

    def _next(self, before: Held, landing: Landing, journal: Journal, now: float) -> Held:
        """Return what is held from now on. A failure changes nothing for a token that lives, unless the record says so."""
        if landing.token is not None:
            return Held(landing.token, now + landing.again_in, now + landing.ends_in)
        error = landing.error
        if error is None or landing.final or now >= before.usable_until:
            return NOTHING
        if isinstance(error, StorageError) and not isinstance(error, StorageBusy):
            # It is not this process that renews the token meanwhile, and a thousand of them would not let a storage get up.
            left = before.usable_until - now
            retry = max(_RETRY, min(_LONGEST_RETRY, left / 4) - self._account.jitter(_LONGEST_RETRY / 3))
            return Held(before.token, now + retry, before.usable_until)
        journal.add(RenewalFailed(account=journal.account, reason=error.message, retry_in=_RETRY))
        return Held(before.token, now + _RETRY, before.usable_until)

    def _overtaken(self, before: Held, token: AccessToken | None) -> bool:
        """Return whether this flight, given up as stuck, lands so late that another one has brought something newer."""
        held = self.held
        if held is before or held is NOTHING:
            return False
        return token is None or token.generation <= held.token.generation

    def _weigh(self, need: Need, token: AccessToken, journal: Journal, now: float) -> None:
        """Draw the conclusion from a flight that a 401 has caused."""
        if token.generation <= need.doubted:
            self._quiet_until = now + min(_FAILURE_MEMORY, self._account.pace(token).minute)
        elif journal.obtained is token:
            self.refusals.brought(token.generation)

    def _tell_of_probe(self, token: AccessToken, journal: Journal) -> None:
        """A probe was neither granted nor refused: nothing is learnt, but somebody should know what it may mean (P§5.1)."""
        if self._probed == token.generation:
            self._probed = 0
            journal.warn(
                "calls with this token meet only faults, and so did its renewal: either the server has a bad time, or"
                " another login has closed the session. Without an answer nobody logs in while the token lives."
            )

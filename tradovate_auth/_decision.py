"""What to do next: a table, and the view of the world that it reads. Pure.

A `View` holds everything that matters, and the first row of `TABLE` that matches the view
decides. A token is *living* while it has not ended and no auth endpoint has refused it.

    row               matches when                                          decision
    good              living, fresh, nobody doubts it or wants another      Use
    living, held      living, and the server forbade calls for now          Use: a hold is invisible to its owner
    living, due       living, and a renewal is due, allowed, not yet tried  Renew: extends the session
    living            living                                                Use, and look again later
    sit out           none, and the server only asked to wait               Pause
    held              none, and the server forbade calls for now            Stop
    lapsed            ended within the hour, never refused, never offered   Renew once: clocks are wrong more often
    nobody waits      none, and only the schedule asks                      Idle: the schedule never logs in
    latched           these credentials were refused                        Stop
    not allowed       the login policy forbids it                           Stop
    crowded           other accounts of this machine are logging in         Pause
    spent             the hour's logins are spent                           Stop
    log in            otherwise                                             Login: opens a session, may close another
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ._advice import advice_on
from ._holds import Hold
from ._view import View
from .errors import (
    CaptchaRequired,
    LockedOut,
    LoginRefused,
    LoginRequired,
    ProtocolError,
    SessionEvicted,
    Throttled,
    TradovateAuthError,
    TransportError,
)
from .models import AccessToken

__all__ = [
    "TABLE",
    "Decision",
    "Idle",
    "Login",
    "Pause",
    "Renew",
    "Stop",
    "Use",
    "decide",
    "hold_error",
]


@dataclass(frozen=True, slots=True)
class Use:
    """Use the token; look again in `again_in` seconds."""

    token: AccessToken
    again_in: float


@dataclass(frozen=True, slots=True)
class Renew:
    """Ask the server to extend this token's session."""

    token: AccessToken
    scheduled: bool


@dataclass(frozen=True, slots=True)
class Login:
    """Open a session, redeeming a penalty's ticket if there is one."""

    ticket: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so many seconds, then decide again."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Stop:
    """There is no token, and there will be none for now."""

    error: TradovateAuthError


@dataclass(frozen=True, slots=True)
class Idle:
    """There is no token, and nobody needs one."""


Decision = Use | Renew | Login | Pause | Stop | Idle


def _use(view: View) -> Decision:
    assert view.token is not None  # noqa: S101  # every row that uses a token has asked for a living one
    if view.scheduled or view.unwanted:
        # Not renewable now: others may do it for us, so the storage is looked at once a minute.
        wait = view.hold.until - view.now if view.hold is not None else view.renewal_wait
        again_in = min(max(wait, 0.0), view.pace.minute)
    else:
        again_in = view.stale_at - view.now
    return Use(view.token, min(again_in, view.ends_at - view.now))


def _renew(view: View) -> Decision:
    assert view.token is not None  # noqa: S101  # as above
    scheduled = (
        view.scheduled and view.ledger.renewal_wait(view.now, view.pace, view.budget, scheduled=True) <= 0
    )
    return Renew(view.token, scheduled)


def _held(view: View) -> Decision:
    assert view.hold is not None  # noqa: S101  # the row has asked for it
    return Stop(hold_error(view.hold, view.hold.until - view.now))


def _latched(view: View) -> Decision:
    assert view.latch is not None  # noqa: S101  # as above
    retry_after = None if view.latch.until is None else view.latch.until - view.now
    text = view.latch.text
    advice = advice_on(text, refused=True)
    return Stop(LoginRefused(f"The server refused the login: {text!r}.", retry_after, advice))


def _spent(view: View) -> Decision:
    own = view.ledger.pruned(view.now, view.pace.hour)
    machine = view.machine.pruned(view.now, view.pace.hour)
    message = (
        f"In the last hour {len(own.failed_logins)} logins failed and {len(own.logins)} were granted"
        f" ({len(machine.failed_logins)} failed over all accounts of this machine), and no more are safe."
    )
    advice = (
        "Correct the credentials meanwhile, and find what logs in so often. The server locks the account after five failed "
        "logins an hour; how close to that this package goes is its Budget."
    )
    return Stop(Throttled(message, view.login_wait, advice))


def _ticket(view: View) -> str | None:
    hold = view.ledger.hold
    return hold.ticket if hold is not None and hold.scope == view.scope else None


Row = tuple[str, Callable[[View], bool], Callable[[View], Decision]]

TABLE: Final[tuple[Row, ...]] = (
    ("good", lambda v: v.living is not None and not v.scheduled and not v.unwanted, _use),
    ("living, held", lambda v: v.living is not None and v.hold is not None, _use),
    ("living, due", lambda v: v.living is not None and not v.tried and v.renewal_wait <= 0, _renew),
    ("living", lambda v: v.living is not None, _use),
    (
        "sit out",
        lambda v: v.need.login and v.hold is not None and v.hold.passable and (v.may_login or v.lapsed),
        lambda v: Pause(v.hold.until - v.now if v.hold is not None else 0.0),
    ),
    ("held", lambda v: v.hold is not None, _held),
    (
        "lapsed",
        lambda v: v.lapsed,
        lambda v: Renew(v.token, scheduled=False) if v.token is not None else Idle(),
    ),
    ("nobody waits", lambda v: not v.need.login, lambda _: Idle()),
    ("latched", lambda v: v.latched is not None, _latched),
    (
        "not allowed",
        lambda v: not v.may_login,
        lambda _: Stop(LoginRequired("There is no session to share.")),
    ),
    ("crowded", lambda v: v.crowded, lambda v: Pause(v.pace.minute / 60)),
    ("spent", lambda v: v.login_wait > 0, _spent),
    ("log in", lambda _: True, lambda v: Login(_ticket(v))),
)


def decide(view: View) -> Decision:
    """Return what the first matching row of `TABLE` says."""
    return next(then(view) for _, matches, then in TABLE if matches(view))


def hold_error(hold: Hold, seconds: float) -> TradovateAuthError:
    """Return the typed error for whoever has no token while a hold lasts."""
    kinds: dict[str, type[TradovateAuthError]] = {
        "penalty": Throttled,
        "captcha": CaptchaRequired,
        "locked": LockedOut,
        "evicted": SessionEvicted,
        "lost": TransportError,
        "protocol": ProtocolError,
    }
    advice = (
        "Check the network meanwhile: the lost login may have opened a session."
        if hold.kind == "lost"
        else advice_on(hold.reason, refused=False)
    )
    return kinds[hold.kind](f"Nothing is sent for now: {hold.reason}.", seconds, advice)

"""Everything that a decision depends on, and why somebody asks for one. Pure."""

from dataclasses import dataclass, replace
from typing import Final

from ._holds import Hold, Latch
from ._ledger import Ledger
from ._pace import Pace
from .models import AccessToken, Budget

__all__ = ["Need", "View", "stale_moment"]

_LEAD: Final = 900.0  # P§5, P§9.2: about a quarter of an hour before the end
_LEAD_SHARE: Final = 1 / 4
_SPREAD: Final = 1 / 5


@dataclass(frozen=True, slots=True)
class Need:
    """Why somebody asks for a pass."""

    doubted: int = 0
    """Up to which generation ordinary calls were answered with 401."""
    replace: int = 0
    """Up to which generation somebody wants a newer token although this one may be good."""
    login: bool = False
    """Somebody waits without a token: a session may be opened."""
    told: bool = False
    """Those who wait know of a pause, and have the time."""


@dataclass(frozen=True, slots=True)
class View:
    """Everything that the decision depends on. Moments are the server's."""

    now: float
    token: AccessToken | None
    """The newest token that no auth endpoint has refused, ended or not."""
    stale_at: float
    ends_at: float
    need: Need
    pace: Pace
    budget: Budget
    ledger: Ledger
    machine: Ledger
    """What the server counts by address, over all accounts of this machine."""
    scope: str
    """For which machine and body a ticket would be redeemed; empty where there is none."""
    offered: bool
    """A lapsed token has had its one renewal."""
    tried: bool
    """This pass has already asked for a renewal in vain."""
    latch: Latch | None
    """The latch, if it holds these very credentials."""
    may_login: bool

    @property
    def living(self) -> AccessToken | None:
        """The token, if it can be used."""
        return self.token if self.now < self.ends_at else None

    @property
    def scheduled(self) -> bool:
        """Whether a renewal now would be the planned one."""
        return self.now >= self.stale_at

    @property
    def unwanted(self) -> bool:
        """Whether somebody doubts the token or wants another one."""
        return self.token is not None and self.token.generation <= max(self.need.doubted, self.need.replace)

    @property
    def renewal_wait(self) -> float:
        """Seconds until a renewal may be sent; a planned one never has to draw on the allowance for others."""
        reasons = [
            scheduled for scheduled, holds in ((True, self.scheduled), (False, self.unwanted)) if holds
        ]
        if not reasons:
            return self.stale_at - self.now
        return min(
            max(
                self.ledger.renewal_wait(self.now, self.pace, self.budget, scheduled=scheduled),
                self.machine.renewals_spent(self.now, self.pace, self.budget, scheduled=scheduled),
            )
            for scheduled in reasons
        )

    @property
    def exchange_wait(self) -> float:
        """Seconds until a renewal may be sent, what forbids every call included."""
        held = self.hold.until - self.now if self.hold is not None else 0.0
        return max(self.renewal_wait, held, 0.0)

    @property
    def lapsed(self) -> bool:
        """Whether the token ended so recently that the server may see that otherwise, and has not been asked yet."""
        return (
            self.token is not None
            and not self.offered
            and self.now - self.ends_at < self.pace.hour
            and self.ledger.renewals_spent(self.now, self.pace, self.budget) <= 0
            and self.machine.renewals_spent(self.now, self.pace, self.budget) <= 0
        )

    @property
    def login_wait(self) -> float:
        """Seconds until a login may be sent."""
        return max(
            self.ledger.login_wait(self.now, self.pace, self.budget),
            self.machine.login_wait(self.now, self.pace, self.budget),
        )

    @property
    def crowded(self) -> bool:
        """Whether only other accounts' logins of the last minute stand in the way: most of those are about to be granted."""
        earlier = replace(
            self.machine,
            failed_logins=tuple(
                entry for entry in self.machine.failed_logins if entry <= self.now - self.pace.minute
            ),
        )
        return (
            self.login_wait > 0
            and self.ledger.login_wait(self.now, self.pace, self.budget) <= 0
            and earlier.login_wait(self.now, self.pace, self.budget) <= 0
        )

    @property
    def latched(self) -> Latch | None:
        """The latch, unless it has lifted for one more try."""
        lifted = self.latch is not None and self.latch.until is not None and self.latch.until <= self.now
        return None if lifted else self.latch

    @property
    def hold(self) -> Hold | None:
        """What the server, or an eviction, forbids now: to this account, or to this machine."""
        holds = [hold for hold in (self.ledger.hold_at(self.now), self.machine.hold_at(self.now)) if hold]
        return max(holds, key=lambda hold: hold.until, default=None)


def stale_moment(token: AccessToken, pace: Pace, spread: float) -> float:
    """Return when a token is due for renewal, by the server's clock.

    Args:
        token: The token.
        pace: The account's minutes.
        spread: This process's share, from 0 to 1, of the random fifth by which the lead is shortened.
    """
    if not token.known_expiry:
        return token.issued_at.timestamp() + pace.minute
    lead = min(_LEAD, token.lifetime * _LEAD_SHARE) * (1 - _SPREAD * spread)
    return token.expires_at.timestamp() - lead

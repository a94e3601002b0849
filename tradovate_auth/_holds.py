"""What forbids calls: a hold for everybody, and the latch on credentials that were refused. Pure values."""

from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = ["MOST_RESENDS", "Hold", "HoldKind", "Latch"]

MOST_RESENDS: Final = 2
"""How often in a row a penalty is worked off before it is held (P§9.11)."""

HoldKind = Literal["penalty", "captcha", "locked", "evicted", "lost", "protocol"]


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing is sent before `until`."""

    kind: HoldKind
    until: float
    reason: str
    ticket: str | None = field(default=None, repr=False)
    """Only for a penalty: what the identical login body is sent again with (P§4.1)."""
    resends: int = 0
    """How often in a row a call was answered with another penalty."""
    scope: str = field(default="", repr=False)
    """To which machine and body the ticket was given: it is bound to them (P§4.1), so others wait and ask without it."""

    @property
    def passable(self) -> bool:
        """Whether the server only asked to wait, and has not asked again and again (P§9.11)."""
        return self.kind == "penalty" and self.resends < MOST_RESENDS


@dataclass(frozen=True, slots=True)
class Latch:
    """These credentials were refused. `fingerprint` is a salted scrypt hash of them, never the credentials."""

    fingerprint: str = field(repr=False)
    text: str
    until: float | None
    """The moment for one more try, where the refusal may have been throttling in disguise; else None."""
    pause: float = 0.0
    """Seconds that the last wait for one more try took."""

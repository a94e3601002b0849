"""What one pass has brought: its events, in order, and the last token that it obtained itself."""

from dataclasses import dataclass, field

from . import events
from ._holds import Hold
from .events import Event
from .models import AccessToken

__all__ = ["Journal"]


@dataclass(slots=True)
class Journal:
    """What is told of one pass when every lock has been given back."""

    account: str
    entries: list[Event] = field(default_factory=list)
    obtained: AccessToken | None = None

    def add(self, event: Event) -> None:
        """Append an event."""
        self.entries.append(event)

    def warn(self, reason: str) -> None:
        """Append a warning."""
        self.add(events.Warned(account=self.account, reason=reason))

    def failed(self, reason: str, retry_in: float) -> None:
        """Append a renewal that brought nothing, and in how many seconds the next may be tried."""
        self.add(events.RenewalFailed(account=self.account, reason=reason, retry_in=max(retry_in, 0.0)))

    def held(self, hold: Hold | None, at: float) -> None:
        """Append a hold, if there is one, as it stands at a moment of the server's."""
        if hold is not None:
            self.add(events.Held(account=self.account, reason=hold.reason, seconds=hold.until - at))

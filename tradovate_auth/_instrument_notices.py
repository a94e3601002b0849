"""What the user of an instrumented program hears of the session: that program has no listener and, as a rule, no log."""

from ._instrument_child import say
from .events import Event, quiet

__all__ = ["tell"]


def tell(event: Event) -> None:
    """Write an event to stderr, unless it is in the ordinary course of things. Any thread; blocks as long as that does."""
    if not isinstance(event, quiet):
        say(str(event))

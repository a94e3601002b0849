"""How the listener of a source hears of what a client does."""

import logging
import math
from typing import Final

from ._flight import SingleFlight
from ._journal import Journal
from ._source import TokenSource
from .events import Warned
from .provider import TokenProvider

__all__ = ["tell_of"]

_log: Final = logging.getLogger("tradovate_auth")


def tell_of(source: TokenSource, reason: str) -> None:
    """Emit a `Warned` event. Never blocks: the listener is called on another thread. A source without one has it logged."""
    if not isinstance(source, TokenProvider):
        _log.warning("%s", Warned(account=source.environment.host, reason=reason))
        return
    journal = Journal(source._account.label)  # noqa: SLF001
    journal.warn(reason)
    keeper = source._keeper  # noqa: SLF001
    keeper.listener.note(journal)
    SingleFlight(lambda: (None, keeper.listener.tell), ceiling=math.inf).join()

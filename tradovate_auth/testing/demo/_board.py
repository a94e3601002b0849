"""The table: live on a terminal, a line now and then everywhere else."""

import datetime as dt
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ...events import Event, LoggedIn, Renewed
from ._script import Stack

__all__ = ["Board", "Session"]

_LINE_EVERY: Final = 2.0
_PLAIN_WIDTH: Final = 110


@dataclass
class Session:
    """How the shared session stands, as the server and the provider tell it."""

    renewals: int = 0
    logins: int = 0
    live: int = 0
    generation: int = 0
    expires_at: dt.datetime | None = None
    last_event: str = "nothing yet"

    def hear(self, event: Event) -> None:
        """Take note of an event of the provider."""
        self.last_event = str(event)
        if isinstance(event, LoggedIn | Renewed):
            self.generation, self.expires_at = event.generation, event.expires_at

    def __str__(self) -> str:
        left = 0.0
        if self.expires_at is not None:
            left = max((self.expires_at - dt.datetime.now(dt.UTC)).total_seconds(), 0.0)
        return (
            f"renewals {self.renewals}, logins {self.logins}, sessions on the server {self.live},"
            f" token generation {self.generation}, {left:.1f} s to live"
        )


class Board:
    """Shows how it stands. A context manager; for one thread.

    Args:
        console: Where to; None for standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        if not self.console.is_terminal:
            self.console.width = _PLAIN_WIDTH
        self._live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self._next_line = 0.0

    def show(self, seconds: float, stacks: Sequence[Stack], session: Session) -> None:
        """Show how it stands so many seconds after the start."""
        if self._live is not None:
            self._live.update(_picture(stacks, session), refresh=True)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_EVERY
            calls, failures = (sum(getattr(each, name) for each in stacks) for name in ("calls", "failures"))
            self.console.print(
                f"{seconds:5.1f} s: {calls} calls, {failures} failed; {session}",
                highlight=False,
                soft_wrap=True,
            )

    def finish(self, stacks: Sequence[Stack], session: Session) -> None:
        """Show how it ended, and leave that standing."""
        if self._live is not None:
            self._live.update(_picture(stacks, session), refresh=True)
        else:
            self.console.print(_picture(stacks, session))

    def say(self, text: str, style: str = "") -> None:
        """Print a sentence."""
        self.console.print(text, style=style, highlight=False, soft_wrap=not self.console.is_terminal)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()


def _picture(stacks: Sequence[Stack], session: Session) -> Group:
    table = Table("HTTP stack")
    for heading in ("calls", "failures", "resends (401 cured)", "slowest call"):
        table.add_column(heading, justify="right")
    for each in stacks:
        failures = Text(str(each.failures), style="bold red" if each.failures else "")
        table.add_row(
            each.name, f"{each.calls:,}", failures, str(each.resends), f"{each.slowest * 1000:.0f} ms"
        )
    return Group(table, Text(str(session)), Text(f"last event: {session.last_event}", overflow="ellipsis"))

"""A world of `fleet_model` in which a test chooses what happens to each call, before the eyes of a referee."""

from typing import Any

from fleet_model import Process, World
from fleet_server import Trouble
from referee import Referee

from tradovate_auth import AccessToken, TradovateAuthError
from tradovate_auth.storage import Record
from tradovate_auth.transport import Call, Reply

__all__ = ["Arena", "Bot"]


class Bot(Process):
    """A process of which somebody may want a token."""

    world: "Arena"
    wanted = False
    failed: TradovateAuthError | None = None
    handed: AccessToken | None = None

    def demand(self) -> None:
        """Let somebody ask for the token, and wait for it."""
        self.wanted = True
        self.plan(self.world.now)

    def ordinary_call(self) -> None:
        """Use the token; whoever is refused asks for another one, and tells of other faults, as an adapter does."""
        token = self.token
        status = self.world.server.ordinary(token) if token is not None else 0
        if token is None or (status == 200 and not token.strikes.count):
            return
        if status != 401:
            self.provider.report(token, status)
            self.plan(self.world.now)
        elif self.provider.reject(token, method="GET", path="/order/list"):
            self.demand()

    def act(self) -> None:
        """See `Process.act`."""
        if self.wanted:
            self.attempt(self._get)
        else:
            super().act()

    def landed(self) -> None:
        """See `Process.landed`."""
        self.world.referee.landed(self)

    def _get(self) -> None:
        self.failed, self.handed = None, None
        try:
            self.handed = self.provider.get(None)
        except TradovateAuthError as error:
            self.failed = error
        self.wanted = False


class Arena(World):
    """A world with few processes, in which a test chooses what happens to the next calls."""

    def __init__(self, clock_errors: float, **rules: Any) -> None:
        super().__init__(**rules)
        self.next_calls: list[Trouble] = []
        self.lasting = Trouble()
        """What happens to the calls after those."""
        self.elsewhere: dict[str, Trouble] = {}
        """What happens to every call to a host that is not the one to ask."""
        # A moment may be wrong by two clocks: that of whoever wrote it, and that by which he knew the server's. So may now be.
        self.referee = Referee(self, 2.0 + 4 * clock_errors)

    @property
    def knows_the_clock(self) -> bool:
        """Whether somebody has written down how far the server's clock is ahead."""
        return any(record.offset for record in self.kept._records.values())

    def trouble(self, process: Process, call: Call) -> Trouble:
        """See `World.trouble`."""
        trouble = self.elsewhere.get(call.url.split("/")[2])
        if trouble is None:
            trouble = self.next_calls.pop(0) if self.next_calls else self.lasting
        self.referee.departing(process, call, trouble)
        return trouble

    def answered(self, process: Process, call: Call, reply: Reply | None) -> None:
        """See `World.answered`."""
        self.referee.answered(process, call, reply)

    def saved(self, key: str, record: Record) -> None:
        """See `World.saved`."""
        if not key.startswith("machine"):
            self.referee.saved(record)

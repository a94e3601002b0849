"""A world in virtual time: a server, a storage and processes with the real machinery in them, without threads or sockets.

Real are the `TokenProvider` with all that is behind it (keeper, lifecycle, ledger, wire), the records, and what the emulator
decides about sessions and limits. Modelled are time, the way of a call, and the storage's lock. A call takes virtual time, and
what others have planned for that time happens while it is on its way; whoever wants the lock meanwhile is thrown out of its
pass with `Busy` and starts it anew when the lock is free. That is the same thing: a pass that has no lock yet has changed nothing.

Not modelled: that the wait for the lock has an end, leases that are lost while their holder lives (a dead one's is free at once),
and two processes that exchange at the same time.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from fleet_pass import Asleep, Busy, Errand, Foul, Killed
from fleet_server import EPOCH, Contact, Host, Server, Trouble, call_kind, misdated
from fleet_time import NEVER, Agenda

from tradovate_auth import (
    AccessToken,
    Credentials,
    Environment,
    StorageError,
    TokenProvider,
    TradovateAuthError,
    TransportError,
)
from tradovate_auth._clock import Waitable
from tradovate_auth._held import NOTHING
from tradovate_auth.events import Event
from tradovate_auth.storage import MemoryStorage, Record
from tradovate_auth.storage._record import OWNED, Lease
from tradovate_auth.transport import Call, Reply

__all__ = ["Process", "World"]


class World(Agenda):
    """Time, the server, and the storage that all processes share, its lock, and what it was asked for."""

    def __init__(self, **rules: Any) -> None:
        super().__init__()
        self.server = Server(lambda: self.now, **rules)
        self.kept = MemoryStorage()
        self.away = False
        """The storage cannot be reached."""
        self.locked: dict[str, Process] = {}
        self.waiting: list[Process] = []
        self.asked = {"load": 0, "save": 0, "lock": 0, "in vain": 0}
        self.environment = Environment.of("demo")

    def trouble(self, process: "Process", call: Call) -> Trouble:
        """Return what happens to a call that is about to leave; nothing unless a subclass says otherwise."""
        return Trouble()

    def saved(self, key: str, record: Record) -> None:
        """Hear of every save."""

    def arriving(self, kind: str, process: "Process") -> None:
        """Hear of every auth call before the server decides about it."""

    def contacted(self, contact: Contact) -> None:
        """Hear of every auth call that the server has decided about."""

    def answered(self, process: "Process", call: Call, reply: Reply | None) -> None:
        """Hear of every answer that has reached a process, and of every time that it waited in vain for one."""

    def died(self, process: "Process") -> None:
        """Hear of a process that died in the middle of a pass."""

    def freed(self) -> None:
        """Let those who waited for the lock begin anew."""
        waiting, self.waiting = self.waiting, []
        for process in waiting:
            process.plan(self.now)


@dataclass(eq=False)
class _Seat:
    """What a process has to do with the world: clock, storage and transport of its provider."""

    world: World
    process: "Process"
    name: str = "virtual"
    inside: int = 0
    """How many locks it holds."""

    def time(self) -> float:
        return EPOCH + self.world.now + self.process.host.error

    def elapsed(self) -> float:
        return self.world.now

    def wait(self, event: Waitable, seconds: float) -> bool:
        if not self.inside:
            raise Asleep(seconds)
        self._spend(seconds)
        return False

    def now(self) -> float:
        self._reach(None)
        return self.time()

    def load(self, key: str) -> Record | None:
        self._reach("load")
        return self.world.kept.load(key)

    def save(self, key: str, record: Record) -> bool:
        self._reach("save")
        saved = self.world.kept.save(key, record)
        if saved:
            self.world.saved(key, record)
        return saved

    @contextmanager
    def exclusive(self, key: str, timeout: float, *, seen: int | None = None) -> Iterator[Lease]:
        self._reach("lock")
        if key in self.world.locked:
            raise Busy
        self.world.locked[key] = self.process
        self.inside += 1
        try:
            yield OWNED
        finally:
            self.inside -= 1
            del self.world.locked[key]
            self.world.freed()

    def send(self, call: Call, timeout: float) -> Reply:
        try:
            return self._send(call, timeout)
        except TransportError:
            raise
        except Exception as error:  # whatever it is, it must end the test
            raise Foul(error) from error

    def _send(self, call: Call, timeout: float) -> Reply:
        trouble = self.world.trouble(self.process, call)
        if trouble.kind == "unreachable":
            raise TransportError("no way to the server", None, None, False)
        self._spend(trouble.seconds / 2, dies=trouble.kind == "killed before")
        if trouble.kind == "lost before":
            self._lose(call, timeout - trouble.seconds / 2)
        if trouble.kind == "fault" and trouble.reply is not None:
            self.world.answered(self.process, call, trouble.reply)
            return trouble.reply
        self.world.arriving(call_kind(call), self.process)
        contact = self.world.server.receive(call, self.process.host.address)
        self.world.contacted(contact)
        if trouble.kind == "lost after":
            self._lose(call, timeout - trouble.seconds / 2)
        self._spend(trouble.seconds / 2, dies=trouble.kind == "killed after")
        reply = trouble.reply if trouble.reply is not None else contact.reply
        if trouble.date:
            reply = misdated(reply, contact.at + trouble.date)
        self.world.answered(self.process, call, reply)
        return reply

    def _lose(self, call: Call, seconds: float) -> None:
        self._spend(seconds)
        self.world.answered(self.process, call, None)
        raise TransportError("no answer came", None, None, True)

    def _spend(self, seconds: float, *, dies: bool = False) -> None:
        self.world.run(seconds)
        if dies:
            self.process.kill()
        if not self.process.alive:
            raise Killed

    def _reach(self, what: str | None) -> None:
        if self.world.away:
            self.world.asked["in vain"] += 1
            raise StorageError("the storage is away")
        if what is not None:
            self.world.asked[what] += 1


class Process:
    """One process with a provider of its own. It looks at its token when that is due, and begins anew when thrown out."""

    fingerprints: Final[dict[Credentials, str]] = {}  # scrypt takes its time

    def __init__(self, world: World, credentials: Credentials, host: Host, **options: Any) -> None:
        self.world = world
        self.host = host
        self.alive = True
        self.due = NEVER
        self.flying = self.again = False
        """Whether it is in the middle of a pass, and whether somebody has asked for another one meanwhile."""
        self._wake = self.wake
        self.events: list[Event] = []
        seat = _Seat(world, self)
        self.provider = TokenProvider(
            credentials,
            environment=world.environment,
            storage=seat,
            transport=seat,
            clock=seat,
            renewal="on-demand",
            on_event=self.hear,
            **options,
        )
        self.keeper = self.provider._keeper
        self.errand = self.keeper.flight = Errand(self.keeper._work, self.landed)  # type: ignore[assignment]
        account = self.provider._account
        if credentials not in self.fingerprints:
            self.fingerprints[credentials] = account.fingerprint()
        account._fingerprint = self.fingerprints[credentials]
        account.here = host.address

    @property
    def token(self) -> AccessToken | None:
        """The token in hand, used or not."""
        return self.keeper.held.token if self.keeper.held is not NOTHING else None

    def hear(self, event: Event) -> None:
        """Keep an event."""
        self.events.append(event)

    def landed(self) -> None:
        """Hear of the end of every pass."""

    def kill(self) -> None:
        """Die, at once or, in the middle of a call, as soon as that is noticed."""
        self.alive = False
        self.due = NEVER

    def plan(self, moment: float) -> None:
        """Look next at that moment, whatever was planned before."""
        self.due = moment
        self.world.at(moment, self._wake)

    def wake(self, moment: float) -> None:
        """Look, if this is still the moment that was planned."""
        if moment == self.due and self.alive:
            self.due = NEVER
            if self.flying:
                self.again = True
            else:
                self.act()

    def act(self) -> None:
        """Do what the timer does."""
        self.keeper.tick()
        if self.errand.asked:
            self.fly()
        else:
            self.plan_next()

    def fly(self) -> None:
        """Make the pass that somebody has asked for, and plan the next."""
        self.attempt(self.errand.wait)

    def attempt(self, work: Callable[[], object]) -> None:
        """Do something that may be thrown out, and must begin anew then."""
        self.flying, self.again = True, False
        try:
            work()
        except Busy:
            self.world.waiting.append(self)
        except Asleep as nap:
            self.plan(self.world.now + nap.seconds)
        except Killed:
            self.world.died(self)
        except Foul as foul:
            raise foul.error from None
        except TradovateAuthError:  # nobody waits: the events tell
            self.plan_next()
        else:
            self.plan_next()
        self.flying = False
        if self.again:
            self.plan(self.world.now)

    def plan_next(self) -> None:
        """Plan the timer's next look."""
        if self.keeper.held is not NOTHING:
            self.plan(max(self.keeper.held.again_at, self.world.now + random.uniform(0.001, 0.002)))

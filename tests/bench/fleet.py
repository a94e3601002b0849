"""A month of a fleet that shares one session, in virtual time: do logins, renewals or storage operations grow with it?

The world is that of `fleet_model`: real providers, ledgers, records and server rules; modelled time, network and lock. Every
process makes ordinary calls all the time. In it for thirty days: hosts whose clocks are up to two minutes wrong, some of them
slow, so that answers get lost; every process restarts once a week on average; one exchange in fifty is cut short by the
death of its process; the storage is away some thirty times; another client closes the session four times; and in the last
sixth of the time a renewed token's predecessor dies at once, so that whoever still uses it is refused.

Four short cuts. Ordinary calls with a good token change nothing and are not made: only the first one that is refused is.
While the storage is away, all but the process that obtained the token ask it in vain: that is counted, not made. And a look that finds
a newer, fresh token adopts it, which is pure arithmetic: above a hundred processes most of these looks are only computed; the
others (the table says how many) are made for real, and must come to the very same end. The looks by which those who adopted
a token guard it, every five to ten minutes, find nothing new: fleets of up to a hundred make them, larger ones count them. All exchanges, restarts, waits for the
lock, refusals without a newer token, and everything that the one process does which obtained the token, are real passes.
"""

import gc
import math
import random
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Final

from bench.tables import table
from fleet_model import Process, World
from fleet_server import EPOCH, Contact, Host, Trouble
from fleet_time import NEVER

from tradovate_auth import AccessToken
from tradovate_auth._held import NOTHING, Held
from tradovate_auth.events import Event, LoggedIn, Renewed
from tradovate_auth.storage import Record
from tradovate_auth.transport import Call

__all__ = ["Fleet", "Report", "Weather", "main"]

_SIZES: Final = (10, 100, 1_000, 10_000)
_DAYS: Final = 30.0
_DAY: Final = 86_400.0
_HOUR: Final = 3_600.0
_PER_HOST: Final = 20
_CLOCK_ERROR: Final = 120.0
_SLOW_HOSTS: Final = 0.1
_CALLS: Final = 60.0  # seconds within which a process makes its next ordinary call
_ALL_REAL: Final = (
    100  # processes up to which no look is computed; of larger fleets, as many looks are made for real
)
_GUARDS: Final = 450.0  # seconds between two looks of a guard, on average
_SAMPLE: Final = 50  # of how many processes all looks are made for real, in larger fleets
_SAME: Final = 1.1  # how much more a larger fleet may cost: it is luck how often the session is lost


@dataclass(frozen=True)
class Report:
    """What a fleet has cost."""

    processes: int
    hosts: int
    hours: float
    logins: int
    unneeded: int
    """Logins sent while a good token lay in the storage, or in the hand of a process."""
    locked_out: int
    renewals: int
    loads: int
    saves: int
    locks: int
    in_vain: int
    """Operations that met a storage that was away."""
    adoptions: int
    made: int
    """Those of them that were made for real."""
    guarding: float
    """Looks that were only counted."""

    @property
    def looks(self) -> float:
        """Loads per process and hour, those included that were only counted."""
        return self.per_process(self.loads + self.guarding)

    def per_process(self, operations: float) -> float:
        """Return operations of the storage per process and hour."""
        return operations / self.processes / self.hours


@dataclass(frozen=True)
class Weather:
    """What befalls a fleet, besides wrong clocks and slow hosts; times are means in seconds."""

    restarts: float = 7 * _DAY
    """Between two of one process."""
    deaths: float = 0.02
    """The share of exchanges in which a process dies."""
    slow: float = 8.0
    """A call from a slow host; above twenty its answer is lost."""
    outages: float = _DAY
    """Between two of the storage; 0 for none."""
    outage: float = 600.0
    evictions: tuple[float, ...] = (0.2, 0.4, 0.7, 0.9)
    """When another client closes the session, as shares of the whole time."""


@dataclass(frozen=True)
class _Newest:
    """What everybody adopts who looks now."""

    token: AccessToken
    generation: int
    ends: float
    """By the clock of the storage."""
    lead: float
    """In seconds, without the share of each process."""


class _Member(Process):
    """A process of the fleet, which wants a token at all times."""

    world: "Fleet"
    obtained = 0
    """The generation that it obtained itself."""

    def __init__(self, world: "Fleet", host: Host) -> None:
        super().__init__(world, world.server.credentials, host)
        self.clock = EPOCH + host.error
        lifecycle = self.keeper._lifecycle
        self.share = 1 - 0.2 * lifecycle._spread
        if not world.guards:
            watch = lifecycle.recollection
            look = watch.look_again_in
            watch.look_again_in = lambda token: look(token) if watch.owns(token) else NEVER  # type: ignore[method-assign]
        self.generation = 0
        """Of the token in hand."""
        self.adopted: tuple[_Newest, float] | None = None
        """What was adopted by the short cut, when, and is not in the keeper yet."""
        self.settled = True
        """Whether it knows of no trouble with the storage, and has not obtained its token itself."""

    @property
    def token(self) -> AccessToken | None:
        """The token in hand, used or not."""
        self._settle()
        return super().token

    def hear(self, event: Event) -> None:
        if isinstance(event, LoggedIn | Renewed):
            self.obtained = event.generation

    def landed(self) -> None:
        """See `Process.landed`."""
        held = self.keeper.held
        self.generation = held.token.generation if held is not NOTHING else 0
        self.settled = not self.keeper._refuge.entered and self.obtained != self.generation

    def wake(self, moment: float) -> None:
        """See `Process.wake`: a newer token is adopted by a short cut, if that is all there is to do."""
        fleet = self.world
        newest = fleet.offered
        if moment == self.due and newest is not None and self.settled and fleet.computes(self.generation):
            left = newest.ends - newest.lead * self.share - self.clock - fleet.now
            if left > 0:
                fleet.looks += 1
                if fleet.looks % fleet.sampled == 0:
                    self._adopt_for_real(newest)
                    return
                self.generation, self.adopted = newest.generation, (newest, fleet.now)
                if fleet.evicted:
                    left = min(left, random.random() * _CALLS)
                self.due = due = fleet.now + left
                fleet.at(due, self._wake)
                return
        super().wake(moment)

    def act(self) -> None:
        """Make the call that is due, or do what the timer does."""
        token = self.token
        if token is None:
            next(self.keeper.approach(0.0, NEVER))  # a caller who waits for whatever comes
        elif not self.world.server.good(token):
            self.provider.reject(token, method="GET", path="/account/list")
        self.keeper.tick()
        if self.errand.asked:
            self.fly()
        else:
            self.plan_next()

    def plan_next(self) -> None:
        """Plan the timer's next look, or the next ordinary call if that will be refused."""
        fleet, held = self.world, self.keeper.held
        if held is NOTHING:
            moment, end = fleet.now + random.uniform(5.0, _CALLS), fleet.away_until
        else:
            moment, end = max(held.again_at, fleet.now + 0.01), min(fleet.away_until, held.usable_until)
        if fleet.away and (held is NOTHING or self.obtained != held.token.generation):
            # It would try again and again, in vain: counted, not made.
            step = moment - fleet.now
            tries = max(math.ceil((end - moment) / step), 0)
            fleet.asked["in vain"] += tries
            moment += tries * step
        elif held is not NOTHING and not fleet.server.good(held.token):
            moment = min(moment, fleet.now + random.uniform(0.0, _CALLS))
        self.plan(moment)

    def _expected(self, newest: _Newest, moment: float) -> Held:
        left = newest.ends - newest.lead * self.share - self.clock - moment
        return Held(newest.token, moment + left, moment + (newest.ends - self.clock - moment))

    def _settle(self) -> None:
        if self.adopted is not None:
            self.keeper.held.fresh_until = -NEVER
            self.keeper.held, self.adopted = self._expected(*self.adopted), None

    def _adopt_for_real(self, newest: _Newest) -> None:
        """Make the pass, which must do what is expected of it, and no more."""
        fleet, before = self.world, dict(self.world.asked)
        expected = self._expected(newest, fleet.now)
        fleet.made += 1
        self.due = NEVER
        self.act()
        held = self.keeper.held
        assert held.token is expected.token
        assert abs(held.again_at - expected.again_at) < 1e-3
        assert abs(held.usable_until - expected.usable_until) < 1e-3
        assert fleet.asked == {**before, "load": before["load"] + 1}


class Fleet(World):
    """So many processes on their hosts, and what befalls them."""

    def __init__(
        self, processes: int, days: float, weather: Weather = Weather(), *, guards: bool = False
    ) -> None:
        super().__init__(old_token_grace=None, evicted_style="401")
        self.guards = guards
        """Whether those who adopted a token make all the looks by which they guard it."""
        random.seed(1)
        self.days = days
        self.weather = weather
        self.sampled = 1 if processes <= _ALL_REAL else processes // _SAMPLE
        self.newest: _Newest | None = None
        self.offered: _Newest | None = None
        """The same, while the storage can be reached."""
        self.evicted = False
        """Whether the newest token is not good any more."""
        self.away_until = 0.0
        self.looks = self.made = self.unneeded = 0
        self.hosts = [
            Host(f"10.{n // 250}.{n % 250}.1", random.uniform(-_CLOCK_ERROR, _CLOCK_ERROR))
            for n in range(max(1, processes // _PER_HOST))
        ]
        self.slow = {host for host in self.hosts if random.random() < _SLOW_HOSTS}
        self.members = [self._start(n) for n in range(processes)]

    def computes(self, generation: int) -> bool:
        """Return whether the look of somebody with a token of this generation may take the short cut."""
        return self.newest is not None and generation < self.newest.generation and not self.guards

    def month(self) -> Report:
        """Let the days pass; return what they have cost."""
        for member in self.members:
            member.plan(random.uniform(0.0, _CALLS))
        self._later(self.weather.restarts / len(self.members), self._restart)
        self._later(self.weather.outages, self._lose_storage)
        for share in self.weather.evictions:
            self.at(self.days * _DAY * share, lambda _: self._evict())
        self.at(self.days * _DAY * 5 / 6, lambda _: self.server.configure(old_token_grace=0.0))
        self.run(self.days * _DAY)
        return self._report()

    def trouble(self, process: Process, call: Call) -> Trouble:
        """See `World.trouble`."""
        slow = process.host in self.slow
        seconds = random.expovariate(1 / self.weather.slow) if slow else random.uniform(0.05, 0.5)
        if random.random() < self.weather.deaths:
            return Trouble(random.choice(["killed before", "killed after"]), min(seconds, 20.0))
        if seconds > 20.0:
            return Trouble(random.choice(["lost before", "lost after"]), 20.0)
        return Trouble(seconds=seconds)

    def saved(self, key: str, record: Record) -> None:
        """See `World.saved`."""
        token = next(iter(record.tokens.values()), None)
        if key.startswith("machine"):
            return
        if self.newest is None or token is not self.newest.token:
            self.evicted = False
        self.newest = None
        if token is not None:
            ends = token.expires_at.timestamp() - record.offset
            self.newest = _Newest(token, token.generation, ends, min(900.0, token.lifetime / 4))
        self.offered = self.newest

    def arriving(self, kind: str, process: Process) -> None:
        """See `World.arriving`: judge a login."""
        if kind == "login":
            known = [member.token for member in self.members]
            known.append(self.newest.token if self.newest is not None else None)
            self.unneeded += any(self.server.good(token) for token in known if token is not None)

    def contacted(self, contact: Contact) -> None:
        """See `World.contacted`: let those notice whose token a renewal has ended."""
        grace = self.server.state.rules.old_token_grace
        if grace == 0.0 and contact.kind == "renewal" and "accessToken" in contact.said:
            self._refuse_calls()

    def died(self, process: Process) -> None:
        """See `World.died`: somebody starts it again."""
        self._replace(next(n for n, member in enumerate(self.members) if member is process))

    def _refuse_calls(self) -> None:
        now, draw = self.now, random.random
        for member in self.members:
            moment = now + draw() * _CALLS
            if moment < member.due != NEVER:
                member.plan(moment)

    def _start(self, number: int) -> _Member:
        host = self.hosts[number % len(self.hosts)]
        return _Member(self, host)

    def _later(self, mean: float, action: Callable[[], None]) -> None:
        if mean:
            self.at(self.now + random.expovariate(1 / mean), lambda _: action())

    def _restart(self) -> None:
        number = random.randrange(len(self.members))
        self._replace(number)
        self._later(self.weather.restarts / len(self.members), self._restart)

    def _replace(self, number: int) -> None:
        self.members[number].kill()
        self.members[number] = self._start(number)
        self.members[number].plan(self.now + random.uniform(1.0, _CALLS))

    def _lose_storage(self) -> None:
        self.away_until = self.now + random.expovariate(1 / self.weather.outage)
        self.away, self.offered = True, None
        self.at(self.away_until, lambda _: self._find_storage())

    def _find_storage(self) -> None:
        self.away, self.offered = False, self.newest
        self._later(self.weather.outages, self._lose_storage)

    def _evict(self) -> None:
        self.server.evict()
        self.evicted = True
        self._refuse_calls()

    def _report(self) -> Report:
        contacts, state = self.server.contacts, self.server.state
        return Report(
            processes=len(self.members),
            hosts=len(self.hosts),
            hours=self.days * 24,
            logins=sum(contact.kind == "login" for contact in contacts),
            unneeded=self.unneeded,
            locked_out=state.tally["lockouts"] + state.tally["penalties"],
            renewals=sum(contact.kind == "renewal" for contact in contacts),
            loads=self.asked["load"] + self.looks - self.made,
            saves=self.asked["save"],
            locks=self.asked["lock"],
            in_vain=self.asked["in vain"],
            adoptions=self.looks,
            made=self.made,
            guarding=0.0 if self.guards else self.days * _DAY / _GUARDS * len(self.members),
        )


def simulate(processes: int) -> Report:
    """Return what a fleet of so many processes costs in a month."""
    fleet = Fleet(processes, _DAYS, guards=processes <= _ALL_REAL)
    gc.disable()  # a collection looks at the whole fleet; one in five virtual days is enough
    for day in range(5, int(_DAYS), 5):
        fleet.at(day * _DAY, lambda _: gc.collect())
    try:
        return fleet.month()
    finally:
        gc.enable()


def main() -> bool:
    """Print the table; return whether no fleet cost a login that was not needed, and none more than a small one."""
    with ProcessPoolExecutor(2) as pool:
        reports = list(pool.map(simulate, sorted(_SIZES, reverse=True)))[::-1]
    smallest, good, rows = reports[0], True, []
    for report in reports:
        kept = (
            report.unneeded == report.locked_out == 0
            and report.renewals <= _SAME * smallest.renewals
            and report.saves <= _SAME * smallest.saves
            and report.looks <= _SAME * smallest.looks
        )
        good = good and kept
        rows.append((*_cells(report), "OK" if kept else "over"))
    header = (
        "processes, hosts",
        "logins",
        "not needed",
        "renewals/h",
        "saves/h",
        "loads",
        "locks",
        "in vain",
        "real",
        "",
    )
    title = (
        f"A fleet on one session for {_DAYS:.0f} days: renewals and saves of all together; loads, locks and what met a storage"
        " that was\n  away, per process and hour; and how many of the looks that only adopt were made for real"
    )
    table(title, header, rows)
    return good


def _cells(report: Report) -> tuple[str, ...]:
    return (
        f"{report.processes:,} on {report.hosts}",
        str(report.logins),
        str(report.unneeded),
        f"{report.renewals / report.hours:.2f}",
        f"{report.saves / report.hours:.2f}",
        f"{report.looks:.2f}",
        *(f"{report.per_process(count):.2f}" for count in (report.locks, report.in_vain)),
        f"{report.made / report.adoptions:.1%}" if report.adoptions else "100.0%",
    )


if __name__ == "__main__":
    sys.exit(0 if main() else 1)

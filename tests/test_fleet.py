"""A fleet that shares one session, small enough for a test: what it costs does not depend on how many processes it has.

`make bench` does the same with 10,000 processes for a month; see `bench/fleet.py` for what is real and what is modelled.
"""

from typing import Final

import pytest
from bench.fleet import Fleet, Weather

CALM: Final = Weather(restarts=86_400.0, deaths=0.0, slow=1.0, outages=0.0, evictions=())
DAYS: Final = 3.0
HOUR: Final = 3_600.0


@pytest.mark.parametrize("processes", [1, 20, 200])
def test_a_fleet_logs_in_once(processes: int) -> None:
    """Restarts, slow hosts and wrong clocks cost no second login, nor a renewal that one process alone would not need."""
    report = Fleet(processes, DAYS, CALM).month()
    assert (report.logins, report.unneeded, report.locked_out) == (1, 0, 0)
    assert 0.8 < report.renewals / report.hours < 1.0


def test_a_process_asks_the_storage_as_often_in_any_fleet() -> None:
    """Above what the one that watches over the token does, a process looks about once in a token's life, and guards it."""
    small, large = (Fleet(processes, DAYS, CALM).month() for processes in (20, 120))
    watching, guarding = HOUR / 30, HOUR / 450
    assert guarding < small.looks < watching / 20 + guarding + 3
    assert guarding < large.looks < watching / 120 + guarding + 3
    assert large.saves < 1.2 * small.saves


def test_looks_that_guard_are_counted_as_they_are_made() -> None:
    """Who adopted a token guards it by eight looks an hour: what larger fleets count is what a small one makes."""
    made, counted = (Fleet(20, DAYS, CALM, guards=guards).month() for guards in (True, False))
    assert (made.logins, made.unneeded, made.guarding) == (1, 0, 0)
    assert counted.guarding > 0
    assert 0.85 < made.looks / counted.looks < 1.0
    assert made.saves < 1.2 * counted.saves


def test_each_eviction_costs_one_login() -> None:
    """Two hundred processes are refused at about the same time, and one of them logs in."""
    weather = Weather(restarts=86_400.0, deaths=0.0, slow=1.0, outages=0.0, evictions=(0.3, 0.5, 0.8))
    report = Fleet(200, DAYS, weather).month()
    assert (report.logins, report.unneeded) == (1 + 3, 0)


def test_in_any_weather_no_login_is_unneeded() -> None:
    """Deaths in mid-exchange, lost answers and outages: whenever somebody logged in, nobody had a token that was good."""
    weather = Weather(deaths=0.2, outages=15_000.0, outage=1_500.0)
    report = Fleet(100, DAYS, weather).month()
    assert report.logins > 5
    assert (report.unneeded, report.locked_out) == (0, 0)


def test_nobody_calls_while_the_server_forbids_it() -> None:
    """The server locks the fleet out for an hour: one call learns it, and no other is made before that hour is over.

    The token ends meanwhile, so a login follows, and it is the only one.
    """
    fleet = Fleet(50, 0.4, CALM)
    server, limits = fleet.server, fleet.server.state.limits
    server.configure(lockout_extends=True)
    fleet.at(5 * HOUR, lambda _: limits.lock_out("", 429, HOUR, server.now()))
    report = fleet.month()
    refused = [contact for contact in server.contacts if contact.reply.status == 429]
    assert [contact.kind for contact in refused] == ["renewal"]
    first = refused[0].at
    assert not any(first < contact.at < first + HOUR for contact in server.contacts)
    assert any(first + HOUR <= contact.at < first + HOUR + 120.0 for contact in server.contacts)
    assert (report.logins, report.unneeded, report.locked_out) == (2, 0, 1)

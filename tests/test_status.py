"""How a provider and its storage stand, for humans and probes."""

from typing import Any

import pytest
from values import HOUR, LIFETIME, MINUTE, NOW, account, at
from values import token as some_token
from values import view as some_view

from tradovate_auth import Environment, Status
from tradovate_auth._holds import Hold, Latch
from tradovate_auth._ledger import Ledger
from tradovate_auth._status import status_of
from tradovate_auth._view import View
from tradovate_auth.events import Event, LoggedIn
from tradovate_auth.storage import Record

LAST = LoggedIn(account="trader at demo", generation=4, expires_at=at(NOW + LIFETIME))
LATCH = Latch("fingerprint", "wrong password", None)
LOCKED = Ledger(hold=Hold("locked", NOW + HOUR, "the server locked us out with 429"))
STALE = NOW + LIFETIME - 900.0


def status(view: View, *, closed: bool = False, last_event: Event | None = None, **record: Any) -> Status:
    """Return the status of a demo account; its last event, if any, is of now."""
    return status_of(
        account(),
        Record(ledger=view.ledger, **record),
        view,
        closed=closed,
        last_event=last_event,
        last_event_at=None if last_event is None else NOW,
    )


def test_nothing_yet() -> None:
    """Before the first token there is nothing to tell but the well-known hosts."""
    found = status(some_view())
    assert found == Status(
        state="absent",
        expires_at=None,
        renews_at=None,
        generation=0,
        failed_logins=0,
        logins=0,
        renewals=0,
        hold=None,
        hold_until=None,
        last_event=None,
        hosts=Environment.of("demo").hosts,
        storage="memory",
    )


def test_a_fresh_token() -> None:
    """A token in use shows when it ends and when this process means to renew it."""
    found = status(some_view(held=some_token()), generation=4, last_event=LAST)
    assert (found.state, found.expires_at, found.renews_at) == ("fresh", at(NOW + LIFETIME), at(STALE))
    assert (found.generation, found.last_event, found.last_event_at) == (4, str(LAST), at(NOW))


def test_an_eviction() -> None:
    """When the server last ended a session early is in the ledger, for every process."""
    evicted = some_view(held=some_token(), ledger=Ledger(evicted_at=NOW - 60))
    assert status(evicted).evicted_at == at(NOW - 60)


def test_a_stale_token() -> None:
    """A token is stale from the moment at which its renewal is due, which is now, or when the back-off ends."""
    found = status(some_view(now=STALE, held=some_token()))
    assert (found.state, found.renews_at) == ("stale", at(STALE))
    found = status(some_view(now=STALE, held=some_token(), ledger=Ledger(retry_at=STALE + 7)))
    assert (found.state, found.renews_at) == ("stale", at(STALE + 7))


@pytest.mark.parametrize("now", [NOW, STALE])
def test_a_hold_is_told_beside_a_living_token(now: float) -> None:
    """A hold changes nothing for a living token, but it is told, and no renewal is announced before its end."""
    ledger = Ledger(hold=Hold("locked", NOW + HOUR + 600.0, "the server locked us out with 429"))
    found = status(some_view(now=now, held=some_token(), ledger=ledger))
    assert found.state == ("fresh" if now == NOW else "stale")
    assert (found.hold, found.hold_until) == ("the server locked us out with 429", at(NOW + HOUR + 600.0))
    assert found.renews_at == at(NOW + HOUR + 600.0)


def test_held_without_a_token() -> None:
    """Without a token a hold is the state, until it ends."""
    found = status(some_view(ledger=LOCKED))
    assert (found.state, found.hold_until) == ("held", at(NOW + HOUR))
    found = status(some_view(now=NOW + HOUR, ledger=LOCKED))
    assert (found.state, found.hold, found.hold_until) == ("absent", None, None)


def test_refused_credentials() -> None:
    """Refused credentials are a hold without an end."""
    found = status(some_view(latch=LATCH))
    assert (found.state, found.hold, found.hold_until) == (
        "held",
        "the server refused the login: wrong password",
        None,
    )


def test_a_latch_that_has_lifted() -> None:
    """A latch that has lifted for one more try holds nothing any more."""
    lifting = Latch("fingerprint", "wrong password", NOW + HOUR, HOUR)
    assert status(some_view(latch=lifting)).hold_until == at(NOW + HOUR)
    found = status(some_view(now=NOW + HOUR, latch=lifting))
    assert (found.state, found.hold) == ("absent", None)


def test_a_token_that_has_ended() -> None:
    """A token that has ended is none."""
    found = status(some_view(now=NOW + LIFETIME, held=some_token()))
    assert (found.state, found.expires_at, found.renews_at) == ("absent", None, None)


@pytest.mark.parametrize("held", [some_token(), None])
def test_closed(held: Any) -> None:
    """A closed provider is closed, whatever it holds."""
    assert status(some_view(held=held), closed=True).state == "closed"


def test_only_the_rolling_hour_is_counted() -> None:
    """What was spent more than an hour ago is not told any more."""
    spent = (NOW - HOUR, NOW - HOUR + 1, NOW - MINUTE)
    ledger = Ledger(failed_logins=spent, logins=spent[1:], renewals=(*spent, NOW))
    found = status(some_view(ledger=ledger))
    assert (found.failed_logins, found.logins, found.renewals) == (2, 2, 3)


def test_assigned_hosts_win() -> None:
    """The hosts are the well-known ones, with those that the server assigned in their place."""
    found = status(some_view(), hosts={"demo": "d2.tradovateapi.com", "userContext": "u.tradovateapi.com"})
    assert found.hosts == {
        **Environment.of("demo").hosts,
        "demo": "d2.tradovateapi.com",
        "userContext": "u.tradovateapi.com",
    }

"""From a granted answer to a token: clocks, ends, hosts and oddities."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from values import DAY, LIFETIME, MD_VALUE, MINUTE, NOW, VALUE, at, granted
from values import token as some_token

from tradovate_auth import AccessToken, Environment
from tradovate_auth._grant import (
    ended_already,
    merged_hosts,
    oddities,
    token_from,
)
from tradovate_auth._wire import Granted

DEMO = Environment.of("demo")


def token_of(
    verdict: Granted,
    *,
    issued_at: float = NOW,
    previous: AccessToken | None = None,
    device_id: str | None = None,
) -> AccessToken:
    """Return the token of a grant."""
    return token_from(
        verdict, issued_at=issued_at, generation=3, previous=previous, hosts={}, device_id=device_id
    )


@pytest.mark.parametrize(("ends", "ended"), [(-1.0, True), (0.0, True), (0.001, False), (LIFETIME, False)])
def test_a_token_may_have_ended_on_arrival(ends: float, *, ended: bool) -> None:
    """A token that ends at the moment of its grant, or before, has ended already."""
    assert ended_already(granted(expires_at=NOW + ends), NOW) == ended


def test_a_token_is_what_was_granted() -> None:
    """Value, moments, user and details are the answer's; generation, hosts and device are ours."""
    token = token_of(granted(details={"hasLive": True}), device_id="device-1")
    assert (token.value, token.md_value, token.user_id, token.name) == (VALUE, MD_VALUE, 7, "trader")
    assert (token.issued_at, token.expires_at, token.known_expiry) == (at(NOW), at(NOW + LIFETIME), True)
    assert (token.generation, token.device_id, token.details) == (3, "device-1", {"hasLive": True})


def test_what_a_renewal_leaves_out_stays() -> None:
    """A renewal may leave out the market data token, the user and the name: the previous ones stay (P§9.5)."""
    previous = some_token(md_value="old md", user_id=9, name="old name")
    silent = granted(md_value=None, user_id=None, name="")
    token = token_of(silent, previous=previous)
    assert (token.md_value, token.user_id, token.name) == ("old md", 9, "old name")
    token = token_of(silent)
    assert (token.md_value, token.user_id, token.name) == (None, None, "")
    token = token_of(granted(), previous=previous)
    assert (token.md_value, token.user_id, token.name) == (MD_VALUE, 7, "trader")


@given(st.floats(-1e10, 1e10))
def test_no_token_lives_longer_than_a_day(ends: float) -> None:
    """Whatever end the server names: the token ends within a day of its grant, and an end in the past is unknown."""
    token = token_of(granted(expires_at=NOW + ends))
    ends = (NOW + ends) - NOW  # as precisely as moments are
    assert 0 <= token.lifetime <= DAY
    assert token.known_expiry == (ends >= 1e-6), "a datetime tells no less apart"
    assert token.lifetime == pytest.approx(min(ends, DAY) if ends >= 1e-6 else DAY, abs=1e-3)


def test_hosts_are_merged_key_by_key() -> None:
    """An answer changes the keys that it names, and no others (P§1.2)."""
    known = {"demo": "d1.tradovateapi.com", "replay": "r1.tradovateapi.com"}
    answer = granted(hosts={"demo": "D2.tradovateapi.com", "someday": "x.ninjatrader.com"})
    assert merged_hosts(known, answer, DEMO) == {
        "demo": "d2.tradovateapi.com",
        "replay": "r1.tradovateapi.com",
        "someday": "x.ninjatrader.com",
    }
    assert merged_hosts(known, granted(), DEMO) == known


@pytest.mark.parametrize("name", ["evil.example", None, 5, ["d2.tradovateapi.com"], "d2.tradovateapi.com/v1"])
def test_hosts_that_may_not_be_trusted_change_nothing(name: object) -> None:
    """A host outside the domains is passed over; the known one stays."""
    known = {"demo": "d1.tradovateapi.com"}
    assert merged_hosts(known, granted(hosts={"demo": name, "live": name}), DEMO) == known


def test_hosts_have_a_bound() -> None:
    """A server that assigns hosts without end does not fill the storage."""
    hosts = {f"key{number}": "d.tradovateapi.com" for number in range(1000)}
    assert len(merged_hosts({}, granted(hosts=hosts), DEMO)) == 64


def test_an_ordinary_token_is_not_odd() -> None:
    """There is nothing to say about a token as it should be, the first or a later one."""
    later = some_token(
        expires_at=at(NOW + LIFETIME + MINUTE), details={"userStatus": "Active", "hibpHint": None}
    )
    assert oddities(some_token(), None) == []
    assert oddities(some_token(details={"userStatus": None}), None) == []
    assert oddities(later, some_token()) == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"known_expiry": False}, "the server says that the new token ended before it was granted"),
        ({"expires_at": at(NOW + LIFETIME - 1)}, "the new token ends no later than the one before it"),
        ({}, "the new token ends no later than the one before it"),
    ],
)
def test_odd_ends(changes: dict[str, object], text: str) -> None:
    """An end in the past, or one that a renewal did not move, is told."""
    (told,) = oddities(some_token(**changes), some_token())
    assert told.startswith(text)


def test_ends_are_not_compared_with_an_unknown_one() -> None:
    """Where the previous end was unknown, nothing is odd about an earlier one."""
    previous = some_token(known_expiry=False, expires_at=at(NOW + DAY))
    assert oddities(some_token(), previous) == []


@pytest.mark.parametrize("status", ["TemporarilyLocked", "TemporaryLocked", "Closed", "x" * 99, "a\nb", 5])
def test_odd_users(status: object) -> None:
    """Any status but Active is told with the token, on one line (P§9.30)."""
    (told,) = oddities(some_token(details={"userStatus": status}), None)
    assert told.startswith("the server calls this user ")
    assert told.isprintable()


def test_leaked_passwords() -> None:
    """The server's hint that the password was leaked is told, on one line (P§9.31)."""
    (told,) = oddities(some_token(details={"hibpHint": "Password\nCompromised"}), None)
    assert "the password is known from a leak" in told
    assert told.isprintable()

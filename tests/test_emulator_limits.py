"""Limits of the rolling hour, lock-outs and penalties, as a client meets them."""

from typing import Any

import pytest
from test_emulator import LOGIN, NOW, RENEWAL, Client, Ticker, client, clock, server

from tradovate_auth.testing.emulator import Emulator

__all__ = ["client", "clock", "server"]  # fixtures


def fail(client: Client, times: int = 5) -> None:
    """So many logins with a wrong password."""
    for _ in range(times):
        assert "errorText" in client.login(password="wrong").json


def test_failed_logins_lock_out_for_a_rolling_hour(client: Client, clock: Ticker, server: Emulator) -> None:
    """The login after five failures finds itself locked out with an empty 429, for an hour from then (P§4.2, P§4.3)."""
    fail(client)
    clock.now += 600
    assert (client.login().status, client.login().body) == (429, b"")
    assert server.counts.lockouts == 2
    clock.now = NOW + 600 + 3599
    assert client.login().status == 429
    clock.now = NOW + 600 + 3600
    assert "accessToken" in client.login().json


def test_failures_of_an_hour_ago_do_not_count(client: Client, clock: Ticker) -> None:
    """The window rolls: four failures, an hour, four more, and good credentials are granted."""
    fail(client, 4)
    clock.now += 3600
    fail(client, 4)
    assert "accessToken" in client.login().json


def test_granted_logins_do_not_count(client: Client) -> None:
    """Only failures are counted against logins (P§9.18)."""
    for _ in range(8):
        assert "accessToken" in client.login().json


def test_lockout_may_extend_warn_and_say_for_how_long(
    client: Client, clock: Ticker, server: Emulator
) -> None:
    """By the switches a lock-out begins with 423, starts anew with each request, and carries Retry-After (P§3.2)."""
    server.configure(lockout_extends=True, lockout_warning=True, retry_after="seconds", hour=60.0)
    fail(client)
    replies = [client.login(), client.login()]
    assert [each.status for each in replies] == [423, 429]
    assert [each.headers["Retry-After"] for each in replies] == ["60", "60"]
    clock.now += 59
    assert client.login().status == 429
    clock.now += 59
    server.configure(retry_after="date")
    assert client.login().headers["Retry-After"] == "Fri, 15 Jan 2027 08:02:58 GMT"
    clock.now += 60
    assert "accessToken" in client.login().json


def test_lockout_by_hand(client: Client, server: Emulator) -> None:
    """A lock-out concerns logins and renewals; calls too only by the scope; zero seconds lift it."""
    token = client.token()
    server.lock_out(423, seconds=5)
    assert [client.login().status, client.renew(token).status, client.call(token).status] == [423, 423, 200]
    server.configure(lockout_scope="all")
    assert client.call(token).status == 423
    server.lock_out(seconds=0)
    assert [client.renew(token).status, server.counts.lockouts] == [200, 3]
    assert client.call(client.token()).status == 200


@pytest.mark.parametrize("captcha", [False, True])
def test_failed_logins_may_bring_a_penalty(
    client: Client, clock: Ticker, server: Emulator, captcha: bool
) -> None:
    """Instead of a lock-out there is a ticket to serve, or a captcha that nobody can solve (P§9.11)."""
    server.configure(failed_login_excess="captcha" if captcha else "penalty")
    fail(client)
    penalty = client.login().json
    assert (penalty["p-time"], penalty.get("p-captcha")) == (15.0, True if captcha else None)
    clock.now += 15
    again = client.login(**{"p-ticket": penalty["p-ticket"]}).json
    assert ("accessToken" in again) is not captcha
    assert server.counts.penalties == (2 if captcha else 1)


def test_throttling_in_disguise(client: Client, clock: Ticker, server: Emulator) -> None:
    """Good credentials are refused like bad ones until the failures are an hour old (P§3.1)."""
    server.configure(failed_login_excess="disguised")
    fail(client)
    assert "Incorrect" in client.login().json["errorText"]
    clock.now += 3600
    assert "accessToken" in client.login().json
    assert server.counts.logins_refused == 6


def test_addresses_count_apart(client: Client) -> None:
    """By default limits count by address, which a header can stand in for (P§4.3)."""
    fail(client)
    assert client.login().status == 429
    assert client.post(LOGIN, client.fields(), **{"X-Forwarded-For": "203.0.113.9"}).status == 200


def test_lockout_of_one_user_spares_the_calls_of_another(client: Client, server: Emulator) -> None:
    """A lock-out that concerns calls too concerns those of the user it was placed for."""
    server.configure(count_by="user", lockout_scope="all")
    server.add_user("other", "their own")
    mine, theirs = server.foreign_login(), server.foreign_login("other")
    fail(client)
    assert [client.login().status, client.call(mine).status, client.call(theirs).status] == [429, 429, 200]


def test_users_may_count_apart(client: Client, server: Emulator) -> None:
    """By the switch each user has limits of their own, and unknown names count by address."""
    server.configure(count_by="user")
    server.add_user("other", "their own")
    fail(client)
    assert client.login().status == 429
    assert client.post(LOGIN, {"name": "other", "password": "their own"}).status == 200
    assert client.login(name="nobody").status == 200
    assert client.renew("TEST-unknown").status == 401


def test_renewals_count_whether_granted_or_not(client: Client, clock: Ticker, server: Emulator) -> None:
    """Fifteen renewals of any outcome are answered; the next gets a penalty that leaves the token alone (P§4.3)."""
    token = client.token()
    for _ in range(14):
        token = client.renew(token).json["accessToken"]
    client.renew("TEST-unknown")
    penalty = client.renew(token).json
    assert (penalty["p-time"], "accessToken" in penalty) == (15.0, False)
    assert client.renew(token).json.keys() == {"p-ticket", "p-time"}
    assert client.call(token).status == 200
    clock.now += 15
    token = client.renew(token).json["accessToken"]
    assert "p-ticket" in client.renew(token).json
    assert (server.counts.renewals_granted, server.counts.penalties) == (15, 3)


def test_renewals_may_lock_out(client: Client, server: Emulator) -> None:
    """By the switch too many renewals are a lock-out."""
    server.configure(renewal_limit=1, renewal_excess="lockout")
    token = client.renew(client.token()).json["accessToken"]
    assert client.renew(token).status == 429


def test_renewal_ticket_travels_in_the_query(client: Client, clock: Ticker, server: Emulator) -> None:
    """A ticket of a renewal can be handed back as a query value; without it only the plain wait serves (P§9.13)."""
    server.configure(ticket_required=True)
    server.penalize("renewal", seconds=3)
    token = client.token()
    ticket = client.renew(token).json["p-ticket"]
    clock.now += 3
    assert "p-ticket" in client.renew(token).json
    assert "accessToken" in client.ask(f"{RENEWAL}?p-ticket={ticket}", token).json


@pytest.mark.parametrize("change", [{"p-ticket": "TEST-TICKET-other"}, {"appVersion": "2"}])
def test_ticket_is_bound_to_the_body(
    client: Client, clock: Ticker, server: Emulator, change: dict[str, Any]
) -> None:
    """Another ticket, or another body under the right one, is penalized anew (P§4.1)."""
    server.penalize(seconds=3)
    ticket = client.login().json["p-ticket"]
    clock.now += 3
    assert client.login(**{"p-ticket": ticket, **change}).json["p-time"] == 3
    assert server.counts.penalties == 2


def test_ticket_opens_once_and_not_early(client: Client, clock: Ticker, server: Emulator) -> None:
    """A ticket is good after its wait, for one login; too early, it is used up for a new one (P§9.14)."""
    server.penalize(seconds=3, captcha=False)
    early = client.login().json
    assert early["p-captcha"] is False
    ticket = client.login(**{"p-ticket": early["p-ticket"]}).json["p-ticket"]
    clock.now += 3
    assert "p-ticket" in client.login(**{"p-ticket": early["p-ticket"]}).json
    assert "accessToken" in client.login(**{"p-ticket": ticket}).json
    assert "p-ticket" in client.login(**{"p-ticket": ticket}).json


def test_penalties_in_a_row(client: Client, clock: Ticker, server: Emulator) -> None:
    """A penalty of two times meets the ticket of the first with a second one; then the new ticket opens."""
    server.penalize(seconds=3, times=2, status=429)
    first = client.login()
    clock.now += 3
    second = client.login(**{"p-ticket": first.json["p-ticket"]})
    assert (first.status, second.status) == (429, 429)
    clock.now += 3
    assert "accessToken" in client.login(**{"p-ticket": second.json["p-ticket"]}).json


def test_wait_serves_without_ticket(client: Client, clock: Ticker, server: Emulator) -> None:
    """By default a login after the wait passes without the ticket, as another machine's would."""
    server.penalize(seconds=3)
    assert "p-ticket" in client.login().json
    clock.now += 2
    assert "p-ticket" in client.login().json
    clock.now += 3
    assert "accessToken" in client.login().json


@pytest.mark.parametrize("captcha", [True, "true"])
def test_captcha_opens_nothing(client: Client, clock: Ticker, server: Emulator, captcha: Any) -> None:
    """The ticket of a captcha is refused; a login without it is processed once the planned answers are over."""
    server.penalize(captcha=captcha)
    penalty = client.login().json
    assert penalty["p-captcha"] == captcha
    clock.now += 15
    assert "p-ticket" in client.login(**{"p-ticket": penalty["p-ticket"]}).json
    assert server.counts.penalties == 2


def test_captcha_in_words_that_is_none(client: Client, clock: Ticker, server: Emulator) -> None:
    """The word "false" asks for no captcha: its ticket opens (P§9.11)."""
    server.penalize(captcha="false")
    penalty = client.login().json
    clock.now += 15
    assert "accessToken" in client.login(**{"p-ticket": penalty["p-ticket"]}).json


def test_penalty_elsewhere_is_a_mistake(server: Emulator) -> None:
    """Only login and renewal can be penalized."""
    with pytest.raises(ValueError, match="account"):
        server.penalize("account/list")  # type: ignore[arg-type]

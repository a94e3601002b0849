"""Every switch of the emulator's rules, seen from a client."""

import json
from datetime import datetime
from typing import Any

import pytest
from test_emulator import LOGIN, NOW, RENEWAL, Client, Ticker, client, clock, server

from tradovate_auth.testing.emulator import Emulator, Rules

__all__ = ["client", "clock", "server"]  # fixtures


def test_same_token_on_renewal(client: Client, server: Emulator, clock: Ticker) -> None:
    """Under "same" a renewal gives the string back, and it lives a lifetime longer (P§9.3)."""
    server.configure(renewal_token="same")
    token = client.token()
    clock.now += 4000
    assert client.renew(token).json["accessToken"] == token
    clock.now += 4000
    assert client.call(token).status == 200


@pytest.mark.parametrize(("grace", "length"), [(30.0, 30), (None, 4800), (9999.0, 4800)])
def test_replaced_token_lives_its_grace(
    server: Emulator, clock: Ticker, grace: float | None, length: float
) -> None:
    """A replaced token works for its grace, or to its own end, and never beyond that (P§9.4)."""
    server.configure(old_token_grace=grace)
    client = Client(server)
    token = client.token()
    client.renew(token)
    clock.now = NOW + length - 1
    assert client.call(token).status == 200
    clock.now = NOW + length
    assert client.call(token).status == 401


def test_renewal_may_leave_tokens_out(client: Client, server: Emulator) -> None:
    """A renewal comes without the market data token, or without any, where the rules say so (P§9.5, P§9.28)."""
    server.configure(md_token_on_renewal=False)
    granted = client.renew(client.token()).json
    assert "mdAccessToken" not in granted
    server.configure(token_in_renewal=False)
    assert "accessToken" not in client.renew(granted["accessToken"]).json


@pytest.mark.parametrize(
    "change", [{"password": "x"}, {"sec": "x"}, {"cid": 1}, {"appId": "x"}, {"name": "nobody"}]
)
def test_refusal_in_either_style(client: Client, server: Emulator, change: dict[str, Any]) -> None:
    """Wrong name, password or key is a 200 with errorText, or a 401 with error and message (P§9.6, P§9.7)."""
    reply = client.login(**change)
    assert (reply.status, "Incorrect" in reply.json["errorText"]) == (200, True)
    server.configure(refusal_style=401)
    reply = client.login(**change)
    assert (reply.status, reply.json["error"]) == (401, "Invalid credentials")
    assert (server.counts.logins_refused, server.counts.logins_granted, server.live_sessions) == (2, 0, 0)


@pytest.mark.parametrize("change", [{"appId": None}, {"cid": ""}])
def test_missing_app_is_not_registered(client: Client, change: dict[str, Any]) -> None:
    """A user with an API key cannot log in without naming the app (P§3.1)."""
    assert client.login(**change).json == {"errorText": "The app is not registered"}


@pytest.mark.parametrize(
    "change", [{"name": "n" * 65}, {"password": None}, {"deviceId": 5}, {"sec": "s" * 8193}]
)
def test_schema_violations(client: Client, change: dict[str, Any]) -> None:
    """Fields that are missing, too long or no strings are listed under violations (P§3.1)."""
    reply = client.login(**change)
    assert (reply.status, [each["value"] for each in reply.json["violations"]]) == (200, list(change))


def test_cid_may_be_number_or_string(client: Client) -> None:
    """Both spellings of the key's number are the same key (P§9.26)."""
    assert "accessToken" in client.login(cid=str(client.user["cid"])).json


def test_form_is_taken_only_by_the_switch(client: Client, server: Emulator) -> None:
    """A form-encoded login is badly formed, unless the rules accept it (P§9.27)."""
    user = client.user
    form = (
        f"name={user['name']}&password=correct+horse&appId=Emulated+App&cid={user['cid']}&sec={user['sec']}"
    )
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert client.ask(LOGIN, method="POST", body=form.encode(), headers=headers).status == 400
    server.configure(accept_form=True)
    assert "accessToken" in client.ask(LOGIN, method="POST", body=form.encode(), headers=headers).json


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
def test_body_that_is_no_object(client: Client, server: Emulator, body: bytes) -> None:
    """A login whose body is no JSON object gets 400 and is no failed login."""
    for _ in range(6):
        assert client.ask(LOGIN, method="POST", body=body).status == 400
    assert (server.counts.logins_refused, server.counts.lockouts) == (6, 0)


def test_missing_header(client: Client, server: Emulator) -> None:
    """A call or renewal without a header gets 404 or 401; another scheme is a bad token (P§9.9)."""
    assert (client.call().status, client.renew(None).status) == (404, 404)
    assert client.ask("/v1/account/list", headers={"Authorization": "Basic x"}).status == 401
    server.configure(missing_header_status=401)
    assert (client.call().status, client.renew(None).status) == (401, 401)
    assert (server.counts.calls_unauthorized, server.counts.renewals_refused) == (3, 2)


def test_bodies_of_a_401(client: Client, server: Emulator) -> None:
    """The body of a 401 is JSON, text, nothing, or megabytes of text (P§9.10)."""
    lengths = {}
    for style in ("json", "text", "empty", "large"):
        server.configure(unauthorized_body=style)
        reply = client.call("TEST-bad")
        assert reply.status == 401
        lengths[style] = len(reply.body)
    assert (lengths["empty"], lengths["large"] > 4_000_000) == (0, True)
    assert 0 < lengths["text"] < lengths["json"] < 200


@pytest.mark.parametrize("style", ["408", "429", "500", "502", "401"])
def test_calls_of_an_evicted_session(client: Client, server: Emulator, style: str) -> None:
    """What the calls of an evicted session meet is the rules' choice, and whether its renewal meets the same (P§9.19)."""
    server.configure(evicted_style=style)
    token = client.token()
    server.foreign_login()
    server.foreign_login()
    assert (client.call(token).status, client.renew(token).status) == (int(style), 401)
    server.configure(evicted_renewals="like calls")
    assert (client.call(token).status, client.renew(token).status) == (int(style), int(style))
    assert (server.counts.renewals_refused, server.counts.renewals_granted) == (2, 0)


def test_a_renewal_like_calls_is_refused_where_no_eviction_is(client: Client, server: Emulator) -> None:
    """A revoked, lapsed or unknown token meets 401 in any case: only evicted sessions have an odd answer (P§9.19)."""
    server.configure(evicted_renewals="like calls")
    token = client.token()
    server.revoke()
    assert (client.renew(token).status, client.renew("TEST-unknown").status) == (401, 401)


def test_max_sessions(client: Client, server: Emulator) -> None:
    """The limit of sessions is a rule, and a later login closes as many as are too many."""
    server.configure(max_sessions=4)
    for _ in range(4):
        client.login()
    assert server.live_sessions == 4
    server.configure(max_sessions=1)
    client.login()
    assert [each.alive for each in server.sessions] == [False] * 4 + [True]


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ({"fraction_digits": 0}, "2027-01-15T09:20:00Z"),
        ({"fraction_digits": -1}, "2027-01-15T09:20Z"),
        ({"fraction_digits": 1}, "2027-01-15T09:20:00.2Z"),
        ({"fraction_digits": 9}, "2027-01-15T09:20:00.250000000Z"),
        ({"expiry_offset_style": "+00:00"}, "2027-01-15T09:20:00.250+00:00"),
        ({"expiry_offset_style": "naive", "fraction_digits": 0}, "2027-01-15T09:20:00"),
        ({"clock_offset": -3600.0}, "2027-01-15T08:20:00.250Z"),
        ({"lifetime": 6.0}, "2027-01-15T08:00:06.250Z"),
    ],
)
def test_forms_of_the_expiry(client: Client, server: Emulator, rules: dict[str, Any], text: str) -> None:
    """The expiry is written with the digits, mark and clock of the rules (P§9.32)."""
    server.configure(**rules)
    assert client.login().json["expirationTime"] == text


def test_clock_offset_moves_date_and_expiry_alike(client: Client, server: Emulator) -> None:
    """A server whose clock is off is off in its Date too, so that a client can correct for it (P§9.1)."""
    server.configure(clock_offset=7200.0)
    reply = client.login()
    assert reply.headers["Date"] == "Fri, 15 Jan 2027 10:00:00 GMT"
    assert datetime.fromisoformat(reply.json["expirationTime"]).timestamp() == NOW + 7200 + 4800
    assert client.call(reply.json["accessToken"]).status == 200


def test_without_date(client: Client, server: Emulator) -> None:
    """A server that sends no Date answers the same otherwise, streams included."""
    server.configure(send_date=False)
    reply = client.login()
    assert "Date" not in reply.headers
    assert reply.headers["Content-Type"] == "application/json"
    streamed = client.ask("/v1/stream?chunks=3&size=5", reply.json["accessToken"])
    assert streamed.body == b"x" * 15
    assert client.ask("/v1/redirect?to=/x&open=1").headers["Location"] == "/x"
    assert client.ask("/v1/status/599", reply.json["accessToken"]).status == 599


def test_grants_carry_hosts_hints_and_extras(client: Client, server: Emulator) -> None:
    """Assigned hosts, status, hint and extra fields are in logins and renewals; omitted fields in neither (P§3)."""
    server.configure(
        api_hosts={"demo": "localhost"},
        user_status="TemporarilyLocked",
        hibp_hint="PasswordCompromised",
        extra_fields={"errorText": "", "hasLive": None, "somethingNew": [1]},
        omit_fields=["hasFunded", "expirationTime"],
    )
    login = client.login().json
    for granted in (login, client.renew(login["accessToken"]).json):
        assert granted["apiHosts"] == {"demo": "localhost"}
        assert granted["userStatus"] == "TemporarilyLocked"
        assert granted["hibpHint"] == "PasswordCompromised"
        assert (granted["errorText"], granted["hasLive"], granted["somethingNew"]) == ("", None, [1])
        assert not {"hasFunded", "expirationTime"} & set(granted)
    assert "apiHosts" not in client.login(password="x").json


def test_wrong_host(client: Client, server: Emulator) -> None:
    """A call under a foreign host name is sent on, misdirected or not found; auth calls are served anyway (P§1.2)."""
    token = client.token()
    server.configure(api_hosts={"demo": "localhost"})
    assert client.call(token).status == 200
    server.configure(wrong_host="307")
    reply = client.ask("/v1/account/list?a=1", token)
    assert reply.status == 307
    assert reply.headers["Location"] == f"http://localhost:{server.port}/v1/account/list?a=1"
    assert client.ask("/v1/account/list", token, headers={"Host": "localhost"}).status == 200
    server.configure(wrong_host=421)
    assert client.call(token).status == 421
    server.configure(wrong_host=404)
    assert (client.call(token).status, client.call(token).body) == (404, b"")
    assert client.login().status == 200


def test_wrong_host_of_a_renewal(client: Client, server: Emulator) -> None:
    """By a rule of its own a renewal is turned away at a foreign host as calls are; at one of ours it is granted (P§1.2)."""
    token = client.token()
    server.configure(own_hosts=["localhost"], wrong_host="421")
    token = client.renew(token).json["accessToken"]
    server.configure(wrong_host_renewals=True)
    assert (client.renew(token).status, server.counts.renewals_granted) == (421, 1)
    assert client.ask(RENEWAL, token, headers={"Host": "localhost"}).status == 200
    assert client.login().status == 200


def test_own_hosts(client: Client, server: Emulator) -> None:
    """Own hosts stand for themselves with and without a port; a server that knows no name of its own serves all."""
    token = client.token()
    server.configure(wrong_host="307")
    assert client.call(token).status == 200
    server.configure(own_hosts=["right:1234"])
    assert client.call(token).headers["Location"] == "http://right:1234/v1/account/list"
    server.configure(own_hosts=["right"])
    moved = client.ask("/v1/account/list", token, headers={"Host": "wrong"})
    assert moved.headers["Location"] == "http://right/v1/account/list"
    server.configure(own_hosts=[f"127.0.0.1:{server.port}"])
    assert client.call(token).status == 200


@pytest.mark.parametrize("step", ["mfa", "violations"])
def test_unfinished_login(client: Client, server: Emulator, step: str) -> None:
    """A login that asks for more has neither token nor error, and opens nothing; a wrong one is still wrong (P§9.29)."""
    server.configure(login_step=step)
    assert not {"accessToken", "errorText", "p-ticket", "apiHosts"} & set(client.login().json)
    assert "errorText" in client.login(password="x").json
    assert (server.live_sessions, server.counts.logins_granted, server.counts.logins_refused) == (0, 0, 1)


def test_device_is_enforced_for_orders(client: Client, server: Emulator) -> None:
    """Where the device counts, an order needs the session of the user's own device; other calls do not (P§2.1)."""
    server.configure(enforce_device=True)
    other = client.login(deviceId="another").json["accessToken"]
    none = client.login(deviceId=None).json["accessToken"]
    assert [client.post("/v1/order/placeorder", {}, token).status for token in (other, none)] == [401, 401]
    assert client.call(none).status == 200
    assert client.post("/v1/order/placeorder", {}, client.token()).status == 200
    assert (server.counts.orders, server.counts.calls_forbidden) == (1, 2)


def test_delays_are_taken_before_the_decision(client: Client, server: Emulator) -> None:
    """Delays of login, renewal and call change no answer."""
    server.configure(login_delay=0.01, renewal_delay=0.01, call_delay=0.01)
    token = client.renew(client.token()).json["accessToken"]
    assert client.call(token).status == 200


def test_renewal_by_post_and_any_case_of_the_path(client: Client) -> None:
    """Renewal takes GET and POST, login POST only; the case of a path means nothing (P§9.24, P§9.25)."""
    token = client.renew(client.token(), "POST").json["accessToken"]
    reply = client.ask("/V1/auth/renewAccessToken/", token)
    assert "accessToken" in reply.json
    assert client.ask(RENEWAL, token, method="PUT").status == 404
    assert client.ask(LOGIN).status == 404
    body = json.dumps(client.fields()).encode()
    assert "accessToken" in client.ask("/v1/auth/accessTokenRequest", method="POST", body=body).json


@pytest.mark.parametrize(
    "values",
    [
        {"refusal_style": "maybe"},
        {"fraction_digits": 10},
        {"no_such_rule": 1},
        {"evicted_style": 418},
        {"kind": "staging"},
    ],
)
def test_rules_that_do_not_exist(server: Emulator, values: dict[str, Any]) -> None:
    """A misspelt rule or value is found at once, and changes nothing."""
    with pytest.raises(ValueError, match=next(iter(values))):
        server.configure(**values)
    assert server.rules == Rules()

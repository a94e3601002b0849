"""The emulator itself: sessions, tokens, what it records, and how it starts and stops. Also the client of its tests."""

import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

import pytest

from tradovate_auth.testing.emulator import Emulator, EmulatorProcess, Rules, short_hash

LOGIN = "/v1/auth/accesstokenrequest"
RENEWAL = "/v1/auth/renewaccesstoken"
NOW = 1_800_000_000.25  # 2027-01-15T08:00:00.250Z


class Ticker:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        """The moment."""
        return self.now


@dataclass
class Reply:
    """An answer read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class Client:
    """Talks to an emulator over a real socket, one connection a request."""

    def __init__(self, server: Emulator | EmulatorProcess) -> None:
        self.server = server
        self.user = server.credentials

    def ask(
        self,
        path: str,
        token: str | None = None,
        *,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request; ``path`` from the root."""
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        with closing(HTTPConnection(self.server.host, self.server.port, timeout=10)) as connection:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Reply(answer.status, answer.headers, answer.read())  # type: ignore[arg-type]

    def fields(self, **changes: Any) -> dict[str, Any]:
        """The body of a correct login, with changes."""
        user = self.user
        body = {
            "name": user["name"],
            "password": user["password"],
            "appId": user["app_id"],
            "cid": user["cid"],
        }
        return {**body, "sec": user["sec"], "deviceId": user["device_id"], **changes}

    def login(self, **changes: Any) -> Reply:
        """A login."""
        return self.post(LOGIN, self.fields(**changes))

    def post(self, path: str, payload: Any, token: str | None = None, **headers: str) -> Reply:
        """JSON, posted."""
        sent = {"Content-Type": "application/json", **headers}
        return self.ask(path, token, method="POST", body=json.dumps(payload).encode(), headers=sent)

    def token(self) -> str:
        """The token of a granted login."""
        return str(self.login().json["accessToken"])

    def renew(self, token: str | None, method: str = "GET", **headers: str) -> Reply:
        """A renewal."""
        return self.ask(RENEWAL, token, method=method, headers=headers)

    def call(self, token: str | None = None) -> Reply:
        """An ordinary call."""
        return self.ask("/v1/account/list", token)


@pytest.fixture
def clock() -> Ticker:
    """A clock under the test's control."""
    return Ticker()


@pytest.fixture
def server(clock: Ticker) -> Iterator[Emulator]:
    """A running emulator with the default rules."""
    with Emulator(clock=clock) as server:
        yield server


@pytest.fixture
def client(server: Emulator) -> Client:
    """Its client."""
    return Client(server)


def test_login_grants_everything_the_protocol_lists(client: Client, server: Emulator) -> None:
    """A correct login gives two long marked tokens, the expiry by the server's clock, and the other fields of P§3."""
    reply = client.login()
    granted = reply.json
    assert reply.status == 200
    assert granted["accessToken"].startswith("TEST-")
    assert granted["mdAccessToken"].startswith("TEST-MD-")
    assert 120 <= len(granted["accessToken"]) <= 150
    assert granted["expirationTime"] == "2027-01-15T09:20:00.250Z"
    assert granted["userStatus"] == "Active"
    assert granted["name"] == server.credentials["name"]
    assert granted["userId"] > 0
    assert reply.headers["Date"] == "Fri, 15 Jan 2027 08:00:00 GMT"
    assert set(granted) >= {"passwordExpirationTime", "hasLive", "hasMarketData", "hasFunded", "hasSimPlus"}
    assert "apiHosts" not in granted


def test_token_opens_calls_until_its_lifetime_is_over(
    client: Client, clock: Ticker, server: Emulator
) -> None:
    """A token is good to the last moment of its lifetime and refused from then on; the session counts as expired."""
    token = client.token()
    clock.now = NOW + 4799.9
    assert client.call(token).json[0]["name"] == "TEST0001"
    assert server.live_sessions == 1
    clock.now = NOW + 4800
    assert client.call(token).status == 401
    assert [each.ended_because for each in server.sessions] == ["expired"]
    assert (server.counts.calls, server.counts.calls_ok, server.counts.calls_unauthorized) == (2, 1, 1)


def test_renewal_keeps_the_session_and_replaces_the_token(
    client: Client, clock: Ticker, server: Emulator
) -> None:
    """A renewal gives a new token with a later end, ends the old one, and opens no session."""
    old = client.login().json
    clock.now += 60
    new = client.renew(old["accessToken"]).json
    assert new["accessToken"] != old["accessToken"]
    assert new["mdAccessToken"] != old["mdAccessToken"]
    assert new["expirationTime"] > old["expirationTime"]
    assert client.call(old["accessToken"]).status == 401
    assert client.call(new["accessToken"]).status == 200
    (session,) = server.sessions
    assert (session.id, session.renewals, session.renewed_at) == (1, 1, NOW + 60)
    assert session.expires_at == NOW + 60 + 4800
    assert session.token_hash == short_hash(new["accessToken"])


def test_renewal_of_a_lapsed_or_unknown_token_is_refused(
    client: Client, clock: Ticker, server: Emulator
) -> None:
    """A token past its end, and one never issued, cannot be renewed: 401 with error and message (P§5)."""
    token = client.token()
    clock.now += 4800
    for stale in (token, "TEST-unknown"):
        reply = client.renew(stale)
        assert (reply.status, reply.json["error"]) == (401, "Token expired")
    assert (server.counts.renewals, server.counts.renewals_refused) == (2, 2)


def test_third_login_evicts_the_oldest_session(client: Client, server: Emulator) -> None:
    """Two sessions live; a third closes the first, whose calls get 408 and whose renewal 401 (P§5.1)."""
    first, second, third = client.token(), client.token(), client.token()
    assert [client.call(token).status for token in (first, second, third)] == [408, 200, 200]
    assert client.renew(first).status == 401
    assert [each.ended_because for each in server.sessions] == ["evicted", None, None]
    assert (server.live_sessions, server.counts.evictions, server.counts.calls_evicted) == (2, 1, 1)


def test_evicted_token_is_plainly_refused_after_its_end(
    client: Client, clock: Ticker, server: Emulator
) -> None:
    """The answer to an evicted session's token turns into the common 401 once the token would have lapsed."""
    token = client.token()
    server.foreign_login()
    server.foreign_login()
    assert client.call(token).status == 408
    clock.now += 4800
    assert client.call(token).status == 401


def test_lapsed_sessions_take_no_place(client: Client, clock: Ticker, server: Emulator) -> None:
    """A login after two sessions have lapsed evicts nobody."""
    client.login()
    client.login()
    clock.now += 4800
    client.login()
    assert (server.live_sessions, server.counts.evictions) == (1, 0)


def test_revoke_ends_sessions_at_once(client: Client, server: Emulator) -> None:
    """Revoked tokens get 401 on calls and renewals; another user's session can be spared."""
    other = server.add_user("other", "their own")
    token, foreign = client.token(), server.foreign_login("other")
    assert other["cid"] is None
    assert server.revoke(client.user["name"]) == 1
    assert [client.call(token).status, client.renew(token).status, client.call(foreign).status] == [
        401,
        401,
        200,
    ]
    assert server.revoke() == 1
    assert client.call(foreign).status == 401


def test_foreign_login_shares_the_limit_of_sessions(client: Client, server: Emulator) -> None:
    """Another client's login takes a place of the same user, its token works, and no login is counted."""
    tokens = [server.foreign_login() for _ in range(3)]
    assert [client.call(token).status for token in tokens] == [408, 200, 200]
    assert (server.counts.logins, server.counts.evictions) == (0, 1)


def test_users_have_sessions_of_their_own(client: Client, server: Emulator) -> None:
    """A user without an API key logs in with name and password, and evicts nobody else."""
    server.add_user("other", "their own")
    server.add_user("other", "changed")
    for _ in range(2):
        client.login()
    reply = client.post(LOGIN, {"name": "other", "password": "changed"})
    assert (reply.json["name"], reply.json["userId"]) == ("other", 1002)
    assert (server.live_sessions, server.counts.evictions) == (3, 0)
    with pytest.raises(KeyError):
        server.foreign_login("nobody")


def test_every_request_is_recorded_with_its_header(client: Client, server: Emulator) -> None:
    """Requests to any path are kept in order, with method, query, real header values and status."""
    client.ask("/somewhere/else?a=1&a=2&b=", "TEST-secret-value", headers={"X-One": "1"})
    client.call()
    first, second = server.requests
    assert (first.method, first.path, first.query, first.status) == (
        "GET",
        "/somewhere/else",
        {"a": "2", "b": ""},
        404,
    )
    assert (first.authorization, first.headers["x-one"]) == ("Bearer TEST-secret-value", "1")
    assert (second.authorization, second.status, second.received_at) == (None, 404, NOW)
    assert server.counts.calls == 1


def test_no_repr_shows_a_secret(client: Client, server: Emulator) -> None:
    """Whatever the emulator hands out can be printed: no token, password or key is in it."""
    token = client.token()
    client.post("/v1/order/placeorder", {"note": "order body"}, token)
    state = server._state
    things: list[object] = [
        server,
        server.requests,
        server.sessions,
        server.orders,
        server.counts,
        state.users,
    ]
    things += [state.sessions.all(), state.sessions.judge(token, NOW), server.rules]
    shown = repr(things)
    for secret in (token, client.user["password"], client.user["sec"], "order body"):
        assert secret not in shown
    assert "[hidden]" in shown


def test_stop_refuses_and_start_resumes_on_the_same_port(client: Client, server: Emulator) -> None:
    """While it is stopped its port refuses connections; started again it has the port and the sessions it had."""
    token, port = client.token(), server.port
    server.stop()
    assert not server.running
    assert "stopped" in repr(server)
    with pytest.raises(ConnectionRefusedError):
        client.call(token)
    server.stop()
    server.start()
    server.start()
    assert (server.port, client.call(token).status) == (port, 200)
    assert f"{server.url}, 1 live" in repr(server)


def test_stop_cuts_requests_under_way(client: Client, server: Emulator) -> None:
    """A request that the server still works on when it stops gets no answer, and the stop does not wait for it."""
    token = client.token()
    failures: list[Exception] = []

    def wait() -> None:
        try:
            client.ask("/v1/slow?seconds=60", token)
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while len(server.requests) < 2:
        time.sleep(0.001)
    server.stop()
    thread.join()
    assert len(failures) == 1


def test_stop_refuses_also_where_a_child_was_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the listening socket, as a forked child holds it, does not keep the port open."""
    copies: list[socket.socket] = []
    create = socket.create_server

    def create_and_copy(*arguments: Any, **options: Any) -> socket.socket:
        created = create(*arguments, **options)
        copies.append(created.dup())
        return created

    monkeypatch.setattr(socket, "create_server", create_and_copy)
    with Emulator() as server:
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            Client(server).call()
        server.start()
        assert Client(server).call().status == 404
    for each in copies:
        each.close()


def test_start_reports_a_port_in_use() -> None:
    """An address that somebody has fails in start() itself, and leaves nothing running or open."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        emulator = Emulator(port=taken.getsockname()[1])
        with pytest.raises(OSError, match="use"):
            emulator.start()
    assert not emulator.running


def test_port_that_is_none() -> None:
    """A number that is no port is refused."""
    with pytest.raises(ValueError, match="70000"):
        Emulator(port=70_000)


def test_before_the_first_start_there_is_state_but_no_port() -> None:
    """Controls work without a running server, and releasing nothing is no error."""
    emulator = Emulator(Rules(max_sessions=1), lifetime=6.0)
    emulator.foreign_login()
    emulator.foreign_login()
    emulator.release()
    assert (emulator.port, emulator.live_sessions, emulator.rules.lifetime) == (0, 1, 6.0)


def test_aliases_share_port_and_state() -> None:
    """An alias is another address of the same server: what is granted at one is good at the other."""
    with Emulator(aliases=("127.0.0.2",)) as server:
        token = Client(server).token()
        server.host = "127.0.0.2"
        assert Client(server).call(token).status == 200


def test_reset_forgets_everything_but_rules_and_users(client: Client, server: Emulator) -> None:
    """After a reset nothing has happened, old tokens are unknown, and the rules stand."""
    server.add_user("other", "their own")
    server.configure(lifetime=10.0)
    token = client.token()
    server.forbid("/account/list")
    server.lock_out()
    server.reset()
    assert client.call(token).status == 401
    assert client.call(client.token()).status == 200
    assert (server.counts.logins, len(server.sessions), server.rules.lifetime) == (1, 1, 10.0)
    assert server.foreign_login("other")


def test_controls_may_be_used_from_many_threads(client: Client, server: Emulator) -> None:
    """Logins, controls and readings from eight threads at once lose no count."""

    def work() -> None:
        for _ in range(5):
            client.login()
            server.foreign_login()
            assert server.live_sessions <= 2
            assert len(server.sessions) >= 2

    threads = [threading.Thread(target=work) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert (server.counts.logins_granted, len(server.sessions), server.counts.evictions) == (40, 80, 78)

"""Every planned fault, seen from a client over a real socket."""

import json
import threading
import time
from contextlib import closing
from http.client import HTTPConnection, IncompleteRead, RemoteDisconnected
from typing import Any

import pytest
from test_emulator import Client, Reply, client, clock, server

from tradovate_auth.testing.emulator import Emulator, Fault

__all__ = ["client", "clock", "server"]  # fixtures


def test_drop_processes_nothing(client: Client, server: Emulator) -> None:
    """A dropped login closes the connection; no session was opened, and the next one is answered."""
    server.inject(Fault("login", "drop"))
    with pytest.raises(RemoteDisconnected):
        client.login()
    assert (server.live_sessions, server.counts.logins, server.requests[0].status) == (0, 1, None)
    assert client.login().status == 200


def test_drop_after_opens_the_session(client: Client, server: Emulator) -> None:
    """A login that is dropped afterwards has taken a session, and an order has been placed (P§9.37)."""
    server.inject(Fault("login", "drop_after"))
    server.inject(Fault("/order/placeorder", "drop_after"))
    with pytest.raises(RemoteDisconnected):
        client.login()
    with pytest.raises(RemoteDisconnected):
        client.post("/v1/order/placeorder", {"qty": 1}, client.token())
    assert (server.live_sessions, server.counts.logins_granted, server.counts.orders) == (2, 2, 1)


def test_truncate_sends_half(client: Client, server: Emulator) -> None:
    """Half of the answer arrives under the length of the whole; the renewal has happened."""
    server.inject(Fault("renewal", "truncate"))
    with pytest.raises(IncompleteRead) as caught:
        client.renew(client.token())
    assert caught.value.partial.startswith(b"{")
    assert server.counts.renewals_granted == 1


def test_truncate_of_nothing_breaks_the_head(client: Client, server: Emulator) -> None:
    """An answer without a body is cut within its head."""
    server.lock_out()
    server.inject(Fault("login", "truncate"))
    assert client.login().status == 429


def test_html_in_place_of_json(client: Client, server: Emulator) -> None:
    """A page is answered with 200, or with the status of the fault."""
    server.inject(Fault("login", "html", headers={"X-Proxy": "1"}))
    reply = client.login()
    assert (reply.status, reply.headers["Content-Type"], reply.headers["X-Proxy"]) == (200, "text/html", "1")
    server.inject(Fault("login", "html", status=503))
    assert client.login().status == 503


@pytest.mark.parametrize(
    ("fault", "status", "body"),
    [
        (Fault("calls", "status", status=503), 503, b""),
        (Fault("calls", "status", status=503, payload="busy"), 503, b"busy"),
        (Fault("calls", "status", status=429, payload={"p-time": 1}), 429, b'{"p-time": 1}'),
        (Fault("calls", "status"), 200, b""),
        (Fault("calls", "json", payload=[1, None]), 200, b"[1, null]"),
        (Fault("calls", "json", status=400), 400, b"null"),
        (Fault("calls", "body", payload=b"\x00\xff"), 200, b"\x00\xff"),
        (Fault("calls", "status", status=299, payload=b"odd"), 299, b"odd"),
    ],
)
def test_planned_answers(client: Client, server: Emulator, fault: Fault, status: int, body: bytes) -> None:
    """Status, JSON and raw bodies are answered as planned, to calls without a token too, and only once."""
    server.inject(fault)
    reply = client.call()
    assert (reply.status, reply.body) == (status, body)
    assert client.call().status == 404


def test_header_of_a_planned_status(client: Client, server: Emulator) -> None:
    """A planned status carries its headers."""
    server.inject(Fault("login", "status", status=429, headers={"Retry-After": "7"}))
    assert client.login().headers["Retry-After"] == "7"


def test_times_skip_and_order(client: Client, server: Emulator) -> None:
    """Faults let requests pass, meet so many, and are tried in the order of their injection."""
    server.inject(Fault("/v1/account/list", "status", status=501, skip=1, times=2))
    server.inject(Fault("*", "status", status=502, times=1))
    server.inject(Fault("calls", "status", status=503, times=None))
    assert [client.call().status for _ in range(6)] == [502, 501, 501, 503, 503, 503]
    assert client.login().status == 200
    server.reset()
    assert client.call().status == 404


def wait_for(server: Emulator, requests: int) -> None:
    """Until so many requests have arrived."""
    while len(server.requests) < requests:
        time.sleep(0.001)


def in_thread(client: Client, server: Emulator) -> tuple[threading.Thread, list[Any]]:
    """A login on another thread, which has arrived; with what becomes of it."""
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(client.login())
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(server, 1)
    return thread, outcome


@pytest.mark.parametrize(("kind", "live"), [("hang", 0), ("late", 1)])
def test_hang_and_late_wait_until_released(client: Client, server: Emulator, kind: Any, live: int) -> None:
    """A hanging login is processed after the release, a late one was before; both are answered."""
    server.inject(Fault("login", kind))
    thread, outcome = in_thread(client, server)
    while server.live_sessions < live:
        time.sleep(0.001)
    assert (server.live_sessions, outcome) == (live, [])
    while not outcome:
        server.release()
        time.sleep(0.001)
    thread.join()
    assert isinstance(outcome[0], Reply)
    assert (outcome[0].status, server.live_sessions) == (200, 1)


def test_hang_may_end_in_a_close(client: Client, server: Emulator) -> None:
    """A hang of some seconds ends by itself, here by closing; nothing was processed."""
    server.inject(Fault("login", "hang", seconds=0.01, then="close"))
    thread, outcome = in_thread(client, server)
    thread.join()
    assert isinstance(outcome[0], RemoteDisconnected)
    assert server.live_sessions == 0


def test_stop_ends_a_hang(client: Client, server: Emulator) -> None:
    """A request that hangs does not hold up the end of the server, and is not processed then."""
    server.inject(Fault("login", "hang"))
    thread, outcome = in_thread(client, server)
    server.stop()
    thread.join()
    assert isinstance(outcome[0], OSError)
    assert server.live_sessions == 0


def test_client_that_leaves_early(client: Client, server: Emulator) -> None:
    """A login whose client has gone is processed all the same, and the server serves on."""
    server.inject(Fault("login", "hang", seconds=0.05))
    with closing(HTTPConnection(server.host, server.port, timeout=10)) as connection:
        connection.request("POST", "/v1/auth/accesstokenrequest", json.dumps(client.fields()).encode())
        wait_for(server, 1)
    while not server.live_sessions:
        time.sleep(0.001)
    assert client.call(client.token()).status == 200


def test_close_for_a_client_that_has_left(client: Client, server: Emulator) -> None:
    """An answer that would be cut has nobody to be cut for, and the server serves on."""
    server.configure(send_date=False)
    server.inject(Fault("login", "hang", seconds=0.05))
    with closing(HTTPConnection(server.host, server.port, timeout=10)) as connection:
        connection.request("POST", "/v1/auth/accesstokenrequest", b"{}")
        wait_for(server, 1)
    while server.requests[0].status is None:
        time.sleep(0.001)
    assert client.login().status == 200


def test_unknown_kind() -> None:
    """A misspelt kind is found when the fault is made."""
    with pytest.raises(ValueError, match="explode"):
        Fault("login", "explode")  # type: ignore[arg-type]


@pytest.mark.parametrize("payload", [None, b"\x00", "text", {"base": 64}, {"base64": 1, "more": 2}])
def test_fault_survives_json(payload: Any) -> None:
    """A fault described as JSON is the same fault again, bytes included."""
    fault = Fault("login", "body", headers={"A": "b"}, payload=payload)
    assert Fault.from_json(fault.to_json()) == fault

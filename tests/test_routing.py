"""Where requests go: to the host that the server assigned, and away from one that says it is the wrong one."""

import contextlib
import socketserver
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from adapter_tools import LastSource, accounts, calls, exchanges, refuse_once
from stacks import AIOHTTP, REQUESTS, Body, Stack, every_stack, plain_environment, tradovate_provider

from tradovate_auth import Credentials, Environment, TokenProvider
from tradovate_auth._bearer import Seen
from tradovate_auth._routes import Routes
from tradovate_auth.requests import RequestsTransport
from tradovate_auth.storage import MemoryStorage
from tradovate_auth.testing import Emulator
from tradovate_auth.testing.emulator import Fault

__all__ = ["plain_environment", "tradovate_provider"]  # fixtures


def provider_of(emulator: Emulator, who: Credentials) -> TokenProvider:
    """Return a provider with a storage of its own, for an emulator with several hosts."""
    return TokenProvider(
        who, environment=emulator.url, storage=MemoryStorage(), transport=RequestsTransport()
    )


@every_stack
@pytest.mark.parametrize("route", [True, False])
def test_requests_go_to_the_assigned_host(
    stack: Stack, route: bool, tradovate_credentials: Credentials
) -> None:
    """Calls to the well-known host go to the one that the server assigned, `Host` included; not with `route=False`."""
    with Emulator(aliases=("127.0.0.2",), api_hosts={"demo": "127.0.0.2", "live": "127.0.0.3"}) as emulator:
        provider = TokenProvider(tradovate_credentials, environment=emulator.url, storage=MemoryStorage())
        with provider, stack.client(stack.auth(provider, route=route)) as client:
            assert client.get(f"{accounts(emulator)}?a=b%20c").status == 200
            assert client.post(f"{emulator.url}/order/placeorder", Body("json")).status == 200
            refuse_once(emulator)
            assert client.get(accounts(emulator)).status == 200
        sent = [each for each in emulator.requests if "/auth/" not in each.path]
        where = f"127.0.0.2:{emulator.port}" if route else f"127.0.0.1:{emulator.port}"
        assert [each.headers["Host"] for each in sent] == [where] * 4
        assert sent[0].query == {"a": "b c"}


@every_stack
def test_a_host_that_was_assigned_earlier_leads_to_the_newest(
    stack: Stack, tradovate_credentials: Credentials
) -> None:
    """After a move, requests to the well-known and to the former host both go to the new one, and are trusted."""
    with Emulator(aliases=("127.0.0.2", "127.0.0.3"), api_hosts={"demo": "127.0.0.2"}) as emulator:
        provider = TokenProvider(tradovate_credentials, environment=emulator.url, storage=MemoryStorage())
        with provider, stack.client(stack.auth(provider)) as client:
            assert client.get(accounts(emulator)).status == 200
            emulator.configure(api_hosts={"demo": "127.0.0.3"})
            provider.renew()
            for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
                assert client.get(f"http://{host}:{emulator.port}/v1/account/list").status == 200
        hosts = [
            each.headers["Host"].partition(":")[0] for each in emulator.requests if "/auth/" not in each.path
        ]
        assert hosts == ["127.0.0.2", "127.0.0.3", "127.0.0.3", "127.0.0.3"]


@every_stack
@pytest.mark.parametrize("style", ["307", "421", "404"])
@pytest.mark.parametrize("follow", [True, False])
def test_a_host_that_is_ours_no_more(
    stack: Stack, style: str, follow: bool, tradovate_credentials: Credentials
) -> None:
    """A host that says that the account has moved: one renewal brings the new host, and a GET is sent again, there. An
    order comes back to the caller, and is not placed behind his back.
    """
    hosts = ("127.0.0.2", "127.0.0.3")
    with Emulator(aliases=hosts, api_hosts={"demo": "127.0.0.2"}) as emulator:
        provider = provider_of(emulator, tradovate_credentials)
        with provider, stack.client(stack.auth(provider)) as client:
            assert client.get(accounts(emulator)).status == 200
            emulator.configure(api_hosts={"demo": "127.0.0.3"}, wrong_host=style, own_hosts=("127.0.0.3",))
            placed = client.post(f"{emulator.url}/order/placeorder", Body("json"), follow=follow)
            assert placed.status == (404 if follow and style == "307" else int(style))
            assert client.get(accounts(emulator), follow=follow).status == 200
            assert client.post(f"{emulator.url}/order/placeorder", Body("json")).status == 200
        assert (exchanges(emulator), emulator.counts.orders) == ((1, 1), 1)


@every_stack
def test_a_host_that_sends_us_back_where_we_would_come_from(
    stack: Stack, tradovate_credentials: Credentials
) -> None:
    """An assigned host that points to the well-known one, which we would route back: asked for anew, not followed forever."""
    with Emulator(aliases=("127.0.0.2",), api_hosts={"demo": "127.0.0.2"}) as emulator:
        provider = provider_of(emulator, tradovate_credentials)
        with provider, stack.client(stack.auth(provider)) as client:
            assert client.get(accounts(emulator)).status == 200
            emulator.configure(api_hosts={"demo": "127.0.0.1"}, wrong_host="307", own_hosts=("127.0.0.1",))
            assert client.get(accounts(emulator)).status == 200
        assert exchanges(emulator) == (1, 1)


@every_stack
def test_a_host_that_stays_wrong_costs_one_renewal(stack: Stack, tradovate_credentials: Credentials) -> None:
    """Where the renewal brings no other host, or cannot be had, the answer is the caller's; asking again costs nothing."""
    with Emulator(api_hosts={"demo": "127.0.0.1"}) as emulator:
        provider = provider_of(emulator, tradovate_credentials)
        auth = stack.auth(provider)
        with provider, stack.client(auth) as client, stack.client(stack.auth(provider, route=False)) as plain:
            emulator.inject(Fault("/account/list", "status", status=421, times=None))
            assert {plain.get(accounts(emulator)).status for _ in range(2)} == {421}
            assert exchanges(emulator) == (1, 0)
            assert {client.get(accounts(emulator)).status for _ in range(5)} == {421}
            assert exchanges(emulator) == (1, 1)
            assert len(calls(emulator)) == 7


@every_stack
def test_a_host_that_is_doubted_when_no_token_is_left(stack: Stack, tradovate_emulator: Emulator) -> None:
    """If asking for the hosts fails, the answer is the caller's."""
    source = LastSource(tradovate_emulator.url)
    tradovate_emulator.inject(Fault("/account/list", "status", status=421, payload=b"moved"))
    with stack.client(stack.auth(source)) as client:
        answer = client.get(accounts(tradovate_emulator))
    assert (answer.status, answer.body, source.reported) == (421, b"moved", [421])


@every_stack
def test_a_missing_page_is_no_sign_of_a_move(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A 404 with a body, a 404 where no host was ever assigned, and a redirect at home start no renewal."""
    with stack.client(stack.auth(tradovate_provider)) as client:
        assert client.get(f"{tradovate_emulator.url}/nothing").status == 404
        tradovate_emulator.inject(Fault("/account/list", "status", status=404))
        assert client.get(accounts(tradovate_emulator)).status == 404
        for to in ("/v1/account/list", accounts(tradovate_emulator), "http://127.0.0.1.example/"):
            here = f"{tradovate_emulator.url}/redirect?status=307&to={to}"
            assert client.get(here, follow=False).status == 307
    auth = stack.auth(tradovate_provider)
    token, here = tradovate_provider.get(), auth.provider.environment.host
    for to in ("http://[half", "http://127.0.0.2:99999/", "http://127.0.0.2:1/"):
        answer = Seen("GET", "http", here, "/", token.authorization, 307, {"Location": to})
        assert not auth._moved(token, answer)
    assert exchanges(tradovate_emulator) == (1, 0)


def test_routes_name_an_origin_as_the_libraries_do() -> None:
    """A port that the scheme implies, an upper-case name and a user before the host change nothing; a prefix does."""
    routes = Routes(Environment.of("demo"))
    for netloc in ("demo.tradovateapi.com", "DEMO.tradovateapi.com", "demo.tradovateapi.com:443"):
        assert routes.find("https", netloc) == "demo.tradovateapi.com"
    for scheme, netloc in (
        ("http", "demo.tradovateapi.com"),
        ("https", "demo.tradovateapi.com:8443"),
        ("https", "demo.tradovateapi.com.evil.example"),
        ("https", "live.tradovateapi.com"),
        ("https", ""),
    ):
        assert routes.find(scheme, netloc) is None


class _Sent:
    """Which hosts of an emulator ordinary calls went to."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    def to(self, host: str) -> list[str]:
        """Methods of the calls that came to this address, in order."""
        here = f"{host}:{self._emulator.port}"
        asked = [each for each in self._emulator.requests if "/auth/" not in each.path]
        return [each.method for each in asked if each.headers["Host"] == here]


@pytest.fixture
def gone_home(tradovate_credentials: Credentials) -> Iterator[tuple[Emulator, TokenProvider]]:
    """Yield a server that has assigned .2 and goes on doing so, while .2 answers everything with a 307 to .1."""
    with Emulator(aliases=("127.0.0.2",), api_hosts={"demo": "127.0.0.2"}) as emulator:
        provider = provider_of(emulator, tradovate_credentials)
        with provider:
            provider.get()
            emulator.configure(wrong_host="307", own_hosts=("127.0.0.1",))
            yield emulator, provider


@every_stack
def test_an_order_is_not_sent_around_in_circles(
    stack: Stack, gone_home: tuple[Emulator, TokenProvider]
) -> None:
    """An assigned host that sends orders back to the well-known one gets one of them; where the library keeps our header on
    the way, that one is placed, and the next goes straight to where the server has sent us.
    """
    emulator, provider = gone_home
    order = f"{emulator.url}/order/placeorder"
    with stack.client(stack.auth(provider)) as client:
        first = (
            200 if stack is AIOHTTP else 404
        )  # the others strip it between two hosts, and we send no order again
        assert [client.post(order, Body("json")).status for _ in range(3)] == [first, 200, 200]
    assert _Sent(emulator).to("127.0.0.2") == ["POST"]
    assert emulator.counts.orders == [first, 200, 200].count(200)
    assert exchanges(emulator) == (1, 0)


@every_stack
@pytest.mark.parametrize("follow", [True, False])
def test_a_renewal_that_names_the_wrong_host_again(
    stack: Stack, follow: bool, gone_home: tuple[Emulator, TokenProvider]
) -> None:
    """A GET that is sent away asks for the hosts once. Where the answer names the same host again, the redirect counts: for
    this call, for those after it, and for tokens after this one.
    """
    emulator, provider = gone_home
    with stack.client(stack.auth(provider)) as client:
        assert client.get(accounts(emulator), follow=follow).status == 200
        provider.report(provider.get(), 200)
        provider._account.change_ledger(lambda ledger: ledger.with_cure())
        provider.renew()
        assert client.get(accounts(emulator), follow=follow).status == 200
    assert _Sent(emulator).to("127.0.0.2") == ["GET"]
    assert exchanges(emulator) == (1, 2)


@every_stack
def test_a_renewal_that_cannot_be_had_leaves_the_redirect(
    stack: Stack, gone_home: tuple[Emulator, TokenProvider]
) -> None:
    """Without a renewal the redirect is the library's to follow, once; the next call goes where it led."""
    emulator, provider = gone_home
    emulator.inject(Fault("renewal", "status", status=503, times=None))
    with stack.client(stack.auth(provider)) as client:
        client.get(accounts(emulator))
        assert client.get(accounts(emulator)).status == 200
        assert client.post(f"{emulator.url}/order/placeorder", Body("json")).status == 200
    assert _Sent(emulator).to("127.0.0.2") == ["GET"]


@every_stack
@pytest.mark.parametrize("style", ["307", "421", "404"])
def test_a_host_that_sends_us_back_again(
    stack: Stack, style: str, gone_home: tuple[Emulator, TokenProvider]
) -> None:
    """The server's last word counts: when the well-known host says that it is not the one, the assigned one is asked again."""
    emulator, provider = gone_home
    with stack.client(stack.auth(provider)) as client:
        client.post(f"{emulator.url}/order/placeorder", Body("json"))
        assert client.get(accounts(emulator)).status == 200
        emulator.configure(wrong_host=style, own_hosts=("127.0.0.2",))
        client.post(f"{emulator.url}/order/placeorder", Body("json"))
        assert client.get(accounts(emulator)).status == 200
        assert client.post(f"{emulator.url}/order/placeorder", Body("json")).status == 200
    assert _Sent(emulator).to("127.0.0.2")[-2:] == ["GET", "POST"]


@every_stack
def test_a_resend_that_is_sent_away(stack: Stack, gone_home: tuple[Emulator, TokenProvider]) -> None:
    """A host that answers 401 first and sends us away when the call is sent again is heeded no less."""
    emulator, provider = gone_home
    emulator.inject(Fault("/account/list", "status", status=401, payload=b"no"))
    with stack.client(stack.auth(provider)) as client:
        client.get(accounts(emulator))
        assert client.get(accounts(emulator)).status == 200
    assert _Sent(emulator).to("127.0.0.2") == ["GET", "GET"]


HEAD_OF_404 = b"HTTP/1.1 404 Not Found\r\nSet-Cookie: from=old\r\n"
NOTHING = HEAD_OF_404 + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
SOMETHING = HEAD_OF_404 + b"Transfer-Encoding: chunked\r\n\r\n4\r\ngone\r\n4\r\naway\r\n0\r\n\r\n"
NO_BODY = HEAD_OF_404 + b"Transfer-Encoding: chunked\r\n\r\n"  # of an answer to a HEAD
TO_THE_END = HEAD_OF_404 + b"Connection: close\r\n\r\n"
UNTIL_IT_CLOSES = HEAD_OF_404 + b"Connection: close\r\n\r\ngone"
MISDIRECTED = b"HTTP/1.1 421 Misdirected Request\r\nContent-Length: 0\r\n\r\n"


class OldHost:
    """A host that gives every ordinary call the same answer, to the byte."""

    def __init__(self, port: int) -> None:
        self.answer = NOTHING
        self.asked: list[str] = []
        old = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while line := self.rfile.readline():
                    while self.rfile.readline().strip():
                        pass
                    if b"/auth/" in line:
                        self.wfile.write(MISDIRECTED)
                        continue
                    old.asked.append(line.decode().split()[0])
                    self.wfile.write(old.answer)
                    if b"close" in old.answer:
                        return

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that goes away is no error."""

        self._server = Server(("127.0.0.2", port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def left_behind(tradovate_credentials: Credentials) -> Iterator[tuple[Emulator, OldHost, TokenProvider]]:
    """Yield a server that has moved an account from .2 to .3, what now answers on .2, and a provider that knows of .2."""
    with Emulator(aliases=("127.0.0.3",), api_hosts={"demo": "127.0.0.2"}) as emulator:
        provider = provider_of(emulator, tradovate_credentials)
        with provider, contextlib.closing(OldHost(emulator.port)) as old:
            provider.get()
            emulator.configure(api_hosts={"demo": "127.0.0.3"})
            yield emulator, old, provider


@every_stack
@pytest.mark.parametrize("answer", [NOTHING, TO_THE_END], ids=["chunked", "closed"])
@pytest.mark.parametrize("stream", [False, True], ids=["read", "streamed"])
def test_an_empty_404_without_a_length(
    stack: Stack, answer: bytes, stream: bool, left_behind: tuple[Emulator, OldHost, TokenProvider]
) -> None:
    """A 404 that turns out to have no body is the mark of a wrong host too. Not in requests where the caller reads the answer
    by himself, and not in aiohttp where the end comes after the head: there nobody can tell without reading.
    """
    emulator, old, provider = left_behind
    old.answer = answer
    with stack.client(stack.auth(provider)) as client:
        blind = (stack is REQUESTS and stream) or (stack is AIOHTTP and answer is TO_THE_END)
        found = client.get(accounts(emulator), stream=stream)
        if not blind:
            assert (found.status, old.asked) == (200, ["GET"])
        elif found.status == 404:  # the end may come with the head after all
            assert (found.body, exchanges(emulator)) == (b"", (1, 0))


@every_stack
@pytest.mark.parametrize("answer", [SOMETHING, UNTIL_IT_CLOSES], ids=["chunked", "closed"])
@pytest.mark.parametrize("stream", [False, True], ids=["read", "streamed"])
def test_a_404_with_a_body_of_unknown_length(
    stack: Stack, answer: bytes, stream: bool, left_behind: tuple[Emulator, OldHost, TokenProvider]
) -> None:
    """A 404 that has a body is a missing page: no renewal, the body is whole, and unread where the caller reads it."""
    emulator, old, provider = left_behind
    old.answer = answer
    with stack.client(stack.auth(provider)) as client:
        for _ in range(2):
            found = client.get(accounts(emulator), stream=stream)
            assert (found.status, found.body) == (404, b"goneaway" if answer is SOMETHING else b"gone")
            assert found.was_read is not stream
    assert exchanges(emulator) == (1, 0)
    assert old.asked == ["GET", "GET"]


@every_stack
def test_a_404_to_a_head_has_never_a_body(
    stack: Stack, left_behind: tuple[Emulator, OldHost, TokenProvider]
) -> None:
    """What is missing at the end of an answer to a HEAD proves nothing."""
    emulator, old, provider = left_behind
    old.answer = NO_BODY
    with stack.client(stack.auth(provider)) as client:
        assert client.call("HEAD", accounts(emulator)).status == 404
    assert exchanges(emulator) == (1, 0)


@every_stack
@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_every_lasting_redirect_to_another_host_is_a_move(
    stack: Stack, status: int, method: str, left_behind: tuple[Emulator, OldHost, TokenProvider]
) -> None:
    """308 says what 307 says: the hosts are asked for, and the call is sent again with the header at the new one."""
    emulator, old, provider = left_behind
    there = f"http://127.0.0.3:{emulator.port}/v1/account/list"
    old.answer = f"HTTP/1.1 {status} Moved\r\nLocation: {there}\r\nContent-Length: 0\r\n\r\n".encode()
    with stack.client(stack.auth(provider)) as client:
        assert client.call(method, accounts(emulator)).status == 200
    assert (exchanges(emulator), old.asked) == ((1, 1), [method])

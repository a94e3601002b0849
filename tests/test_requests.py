"""What only requests does: prepared requests, hooks, auth of a single call, and a netrc that beats headers."""

import io
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3
from requests.adapters import BaseAdapter, HTTPAdapter
from stacks import plain_environment, tradovate_provider
from urllib3.connectionpool import HTTPSConnectionPool
from urllib3.exceptions import MaxRetryError
from urllib3.exceptions import SSLError as UrllibSSLError

from tradovate_auth import Credentials, TokenProvider
from tradovate_auth.requests import TradovateAuth, _never_left, _settle
from tradovate_auth.storage import MemoryStorage
from tradovate_auth.testing import Emulator
from tradovate_auth.testing.emulator import Fault, short_hash

__all__ = ["plain_environment", "tradovate_provider"]  # fixtures


@pytest.fixture
def session(tradovate_provider: TokenProvider) -> Iterator[requests.Session]:
    """A session with our auth."""
    with requests.Session() as opened:
        opened.auth = TradovateAuth(tradovate_provider)
        yield opened


def accounts(emulator: Emulator) -> str:
    """A page that answers with 200 to a good token."""
    return f"{emulator.url}/account/list"


def refuse(emulator: Emulator, path: str = "/account/list", **fault: Any) -> None:
    """Answer the next call with 401."""
    emulator.inject(Fault(path, "status", status=401, **{"payload": b"no", **fault}))


def test_the_auth_of_one_call(tradovate_emulator: Emulator, tradovate_provider: TokenProvider) -> None:
    """`auth=` of a call works without a session, and after a 401; another auth there means that ours is not asked."""
    auth = TradovateAuth(tradovate_provider)
    refuse(tradovate_emulator)
    assert requests.get(accounts(tradovate_emulator), auth=auth, timeout=30).status_code == 200
    with requests.Session() as session:
        session.auth = auth
        other = session.get(accounts(tradovate_emulator), auth=("somebody", "else"))
        assert other.status_code == 401
    assert str(tradovate_emulator.requests[-1].authorization).startswith("Basic ")
    assert (tradovate_emulator.counts.calls, tradovate_emulator.counts.renewals) == (3, 1)


def test_a_prepared_request_is_cured_each_time(
    tradovate_emulator: Emulator, tradovate_provider: TokenProvider, session: requests.Session
) -> None:
    """A prepared request keeps the header it was given; sent again after renewals, it is cured, and keeps the new one."""
    prepared = session.prepare_request(
        requests.Request("POST", f"{tradovate_emulator.url}/order/placeorder", json={})
    )
    assert session.send(prepared).status_code == 200
    for _ in range(2):
        tradovate_provider.renew()
        tradovate_provider.report(tradovate_provider.get(), 200)
        assert session.send(prepared).status_code == 200
        assert session.send(prepared).status_code == 200
        tradovate_provider._account.change_ledger(lambda ledger: ledger.with_cure())
    assert (tradovate_emulator.counts.orders, tradovate_emulator.counts.calls_unauthorized) == (5, 2)
    assert (tradovate_emulator.counts.logins, tradovate_emulator.counts.renewals) == (1, 2)


def test_the_history_shows_what_was_refused(
    tradovate_emulator: Emulator, tradovate_provider: TokenProvider, session: requests.Session
) -> None:
    """The 401 in the history keeps its own request and body; the answer's request is the one that was granted."""
    refuse(tradovate_emulator)
    answer = session.get(accounts(tradovate_emulator))
    (refused,) = answer.history
    assert (refused.status_code, refused.content) == (401, b"no")
    now = tradovate_provider.get().authorization
    assert answer.request.headers["Authorization"] == now
    assert refused.request.headers["Authorization"] != now


def test_hooks_of_the_user_see_the_good_answer(
    tradovate_emulator: Emulator, session: requests.Session
) -> None:
    """A hook that raises for a status never sees the 401 that was cured, whether of the session or of a call."""
    seen: list[int] = []

    def hook(response: requests.Response, **_: Any) -> None:
        seen.append(response.status_code)
        response.raise_for_status()

    session.hooks["response"].append(hook)
    refuse(tradovate_emulator)
    assert session.get(accounts(tradovate_emulator)).status_code == 200
    assert session.get(accounts(tradovate_emulator), hooks={"response": hook}).status_code == 200
    assert seen == [200, 200]


def test_hooks_do_not_pile_up(tradovate_emulator: Emulator, session: requests.Session) -> None:
    """Each request carries one hook of ours, and a session none."""
    for _ in range(3):
        answer = session.get(accounts(tradovate_emulator))
    assert len(answer.request.hooks["response"]) == 1
    assert session.hooks["response"] == []


def test_a_file_that_does_not_seek_after_all(tradovate_emulator: Emulator, session: requests.Session) -> None:
    """A file that told its position but cannot be rewound: its 401 is the answer, and nothing empty is placed."""

    class Stuck(io.BytesIO):
        def seek(self, offset: int, whence: int = 0) -> int:
            if whence == 0 and offset == 0 and self.read_once:
                raise OSError("not any more")
            return super().seek(offset, whence)

        def read(self, size: int | None = -1) -> bytes:
            self.read_once = True
            return super().read(size)

        read_once = False

    refuse(tradovate_emulator, "/order/placeorder")
    url = f"{tradovate_emulator.url}/order/placeorder"
    assert session.post(url, data=Stuck(b"order")).status_code == 401
    assert tradovate_emulator.counts.orders == 0
    assert session.post(url, data=Stuck(b"order")).status_code == 200
    assert [order.body for order in tradovate_emulator.orders] == [b"order"]


@pytest.mark.parametrize(
    ("headers", "read"), [({"Content-Length": "3"}, True), ({}, False), ({"Content-Length": "what"}, False)]
)
def test_a_refused_answer_is_read_only_if_it_is_short(headers: dict[str, str], read: bool) -> None:
    """A refused answer that says it is short is read, to keep its connection; any other is cut off unread."""
    response = requests.Response()
    response.headers.update(headers)
    response.raw = urllib3.HTTPResponse(io.BytesIO(b"no!"), headers=headers, preload_content=False)
    _settle(response)
    assert response.raw.closed
    assert response._content_consumed is read


def test_a_request_without_a_cookie_jar(
    tradovate_emulator: Emulator, tradovate_provider: TokenProvider, session: requests.Session
) -> None:
    """A request that was prepared without cookies is sent again without them."""
    prepared = requests.Request(
        "GET", accounts(tradovate_emulator), auth=TradovateAuth(tradovate_provider)
    ).prepare()
    prepared._cookies = None
    refuse(tradovate_emulator, headers={"Set-Cookie": "sticky=1"})
    assert session.send(prepared, allow_redirects=False).status_code == 200
    assert "Cookie" not in tradovate_emulator.requests[-1].headers


def test_a_netrc_on_a_redirect_is_healed_for_reading_only(
    tradovate_emulator: Emulator, session: requests.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a redirect at home, requests puts a netrc's password in the place of our header: a GET is sent again with ours,
    an order is not.
    """
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    tradovate_emulator.configure(missing_header_status=401)
    page = f"{tradovate_emulator.url}/redirect?status=307&to=/v1"
    assert session.get(f"{page}/account/list").status_code == 200
    assert session.post(f"{page}/order/placeorder", json={}).status_code == 401
    assert [str(each.authorization).partition(" ")[0] for each in tradovate_emulator.requests[1:]] == [
        "Bearer",
        "Basic",
        "Bearer",
        "Bearer",
        "Basic",
    ]
    assert (tradovate_emulator.counts.orders, tradovate_emulator.counts.renewals) == (0, 0)


def test_a_stale_header_behind_a_redirect(
    tradovate_emulator: Emulator, tradovate_provider: TokenProvider, session: requests.Session
) -> None:
    """A stale header is copied along a chain of redirects: each hop of it is cured, at no second exchange."""
    prepared = session.prepare_request(
        requests.Request("GET", f"{tradovate_emulator.url}/redirect?open=1&to=/v1/account/list")
    )
    old = tradovate_provider.get()
    tradovate_provider.renew()
    answer = session.send(prepared)
    assert (answer.status_code, [each.status_code for each in answer.history]) == (200, [302])
    carried = [short_hash(str(each.authorization)[7:]) for each in tradovate_emulator.requests[2:]]
    assert carried == [short_hash(old.value)] * 2 + [short_hash(tradovate_provider.get().value)]
    assert tradovate_emulator.counts.renewals == 1


def test_the_token_of_long_ago(tradovate_emulator: Emulator, session: requests.Session) -> None:
    """A header that is not known as ours any more is as good as none: a GET is cured, an order is not sent again."""
    auth = session.auth
    assert isinstance(auth, TradovateAuth)
    get = session.prepare_request(requests.Request("GET", accounts(tradovate_emulator)))
    post = session.prepare_request(
        requests.Request("POST", f"{tradovate_emulator.url}/order/placeorder", json={})
    )
    for each in (get, post):
        each.headers["Authorization"] = "Bearer of-long-ago"
    assert session.send(get).status_code == 200
    assert session.send(post).status_code == 401
    post.headers["Authorization"] = "Bearer of-long-ago"
    tradovate_emulator.inject(Fault("/order/placeorder", "status", status=503))
    assert session.send(post).status_code == 503
    assert tradovate_emulator.counts.renewals == 0


def test_a_session_without_credentials_of_its_own_sends_none(
    tradovate_emulator: Emulator, tradovate_credentials: Credentials
) -> None:
    """`auth=None` of a call does not switch the session's auth off, as always in requests."""
    with (
        TradovateAuth(
            tradovate_credentials, environment=tradovate_emulator.url, storage=MemoryStorage()
        ) as auth,
        requests.Session() as session,
    ):
        session.auth = auth
        assert session.get(accounts(tradovate_emulator), auth=None).status_code == 200


@pytest.mark.parametrize(
    ("cause", "sent"),
    [
        (ssl.SSLError(1, "record layer failure"), True),
        (ssl.SSLCertVerificationError(1, "self-signed"), False),
    ],
)
def test_a_tls_fault_may_have_come_after_the_request(cause: ssl.SSLError, *, sent: bool) -> None:
    """Requests has one error for a failed handshake and a broken answer: only a certificate's is surely before."""
    pool = HTTPSConnectionPool("example.invalid")
    error = requests.exceptions.SSLError(MaxRetryError(pool, "/", UrllibSSLError(cause)))
    assert _never_left(error) is not sent


class Overwriting(HTTPAdapter):
    """An adapter with an Authorization of its own."""

    def add_headers(self, request: requests.PreparedRequest, **_: Any) -> None:
        """See `HTTPAdapter.add_headers`."""
        request.headers["Authorization"] = "Bearer theirs"


class Copying(Overwriting):
    """The same, on a copy of what it is given."""

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        """See `HTTPAdapter.send`."""
        return super().send(request.copy(), **options)


@pytest.mark.parametrize("adapter", [Overwriting, Copying])
def test_an_adapter_that_signs_by_itself_is_left_alone(
    adapter: type[HTTPAdapter],
    tradovate_emulator: Emulator,
    tradovate_provider: TokenProvider,
    session: requests.Session,
) -> None:
    """A 401 for a header that an adapter put over ours is held against no token, before a resend and after it."""
    session.mount("http://", adapter())
    assert session.get(accounts(tradovate_emulator)).status_code == 401
    assert session.post(f"{tradovate_emulator.url}/order/placeorder", json={}).status_code == 401
    assert not tradovate_provider._keeper.held.doubted
    carried = {each.authorization for each in tradovate_emulator.requests if "/auth/" not in each.path}
    assert carried == {"Bearer theirs"}
    assert tradovate_emulator.counts.renewals == 0


class Foreign(BaseAdapter):
    """An adapter that builds its answers itself, as those over curl, or over an application, do."""

    def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:  # type: ignore[override]
        """Answer with 401."""
        response = requests.Response()
        response.status_code, response.request, response.url = 401, request, str(request.url)
        response.raw = io.BytesIO(b"no")
        return response

    def close(self) -> None:
        """See `BaseAdapter.close`."""


def test_an_answer_that_does_not_say_where_it_comes_from(
    tradovate_emulator: Emulator, session: requests.Session
) -> None:
    """An answer of an adapter of another make cannot be asked for again: its 401 is the caller's."""
    session.mount("http://", Foreign())
    answer = session.get(accounts(tradovate_emulator))
    assert (answer.status_code, answer.content) == (401, b"no")


def test_cookies_and_host_of_a_call_that_is_led_elsewhere(tradovate_credentials: Credentials) -> None:
    """A routed request takes the cookies of where it goes, or those that its caller wrote; so does one without a jar."""
    with Emulator(aliases=("127.0.0.2",), api_hosts={"demo": "127.0.0.2"}) as emulator:
        provider = TokenProvider(tradovate_credentials, environment=emulator.url, storage=MemoryStorage())
        with provider, requests.Session() as session:
            session.auth = TradovateAuth(provider)
            session.cookies.set("home", "1", domain="127.0.0.1")
            session.cookies.set("there", "1", domain="127.0.0.2")
            own = {"Cookie": "mine=1", "Host": f"127.0.0.1:{emulator.port}"}
            assert session.get(accounts(emulator)).status_code == 200
            assert session.get(accounts(emulator), headers=own).status_code == 200
            bare = requests.Request("GET", accounts(emulator)).prepare()
            bare._cookies = None
            session.auth(bare)
            assert session.send(bare).status_code == 200
        sent = [each for each in emulator.requests if "/auth/" not in each.path]
        assert [each.headers.get("Cookie") for each in sent] == ["there=1", "mine=1", None]
        assert {each.headers["Host"] for each in sent} == {f"127.0.0.2:{emulator.port}"}

"""What must be the same in every client library: written once, run over all of them."""

import importlib.util
import logging
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from adapter_tools import FailingSource, LastSource, accounts, calls, exchanges, refuse_once
from core_tools import World, eventually
from stacks import (
    AIOHTTP,
    ALL,
    ASYNC,
    HTTPX_ASYNC,
    REQUESTS,
    Body,
    Stack,
    every_stack,
    plain_environment,
    tradovate_provider,
)

from tradovate_auth import (
    ConfigurationError,
    Credentials,
    Environment,
    LoginRefused,
    LoginRequired,
    ProviderClosed,
    StorageError,
    Throttled,
    TokenProvider,
    TokenTimeout,
    TradovateAuthError,
    TransportError,
)
from tradovate_auth._bearer import ONE_SHOT_TTL, Bearer
from tradovate_auth._defaults import PROCESS_STORAGE
from tradovate_auth.storage import MemoryStorage
from tradovate_auth.testing import Emulator
from tradovate_auth.testing.emulator import Fault

__all__ = ["plain_environment", "tradovate_provider"]  # fixtures

one_of_each = pytest.mark.parametrize(
    "stack", [each for each in ALL if "asyncio" not in each.name and "trio" not in each.name], ids=str
)
"""One stack for each adapter module."""


def test_one_provider_serves_every_stack(
    tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """Seven clients of four libraries, one provider, one login; no adapter's `close` ends what was handed in."""
    with ExitStack() as opened:
        for stack in ALL:
            with stack.auth(tradovate_provider) as auth:
                client = opened.enter_context(stack.client(auth))
                assert auth.provider is tradovate_provider
            assert client.get(accounts(tradovate_emulator)).status == 200
    assert exchanges(tradovate_emulator) == (1, 0)


@one_of_each
def test_credentials_make_a_provider_of_its_own(
    stack: Stack, tradovate_emulator: Emulator, tradovate_credentials: Credentials
) -> None:
    """From credentials and options an adapter makes a provider over its own transport; its `close` ends that one."""
    auth = stack.auth(
        tradovate_credentials, environment=tradovate_emulator.url, storage=MemoryStorage(), timeout=7.0
    )
    account = auth.provider._account
    assert (type(account.transport), account.timeout) == (stack.transport, 7.0)
    with stack.client(auth) as client:
        assert client.get(accounts(tradovate_emulator)).status == 200
        auth.close()
        with pytest.raises(ProviderClosed):
            client.get(accounts(tradovate_emulator))
    assert exchanges(tradovate_emulator) == (1, 0)


@one_of_each
def test_from_env(
    stack: Stack, tradovate_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`from_env` reads credentials, environment and storage from the variables; arguments win, and options go along."""
    known = tradovate_emulator.credentials
    secret = tmp_path / "password"
    secret.write_text(f"{known['password']}\n")
    for name, value in {
        "NAME": known["name"],
        "PASSWORD_FILE": str(secret),
        "APP_ID": known["app_id"],
        "CID": str(known["cid"]),
        "SECRET": known["sec"],
        "ENVIRONMENT": tradovate_emulator.url,
        "STORAGE": "memory://",
    }.items():
        monkeypatch.setenv(f"TRADOVATE_{name}", value)
    with stack.adapter.TradovateAuth.from_env(route=False) as auth, stack.client(auth) as client:
        assert client.get(accounts(tradovate_emulator)).status == 200
        assert auth.provider._account.storage is not PROCESS_STORAGE
        assert auth._route is False
    with stack.adapter.TradovateAuth.from_env(environment="demo", storage=MemoryStorage()) as auth:
        assert auth.provider.environment == Environment.of("demo")


@one_of_each
def test_options_belong_to_the_provider_that_was_handed_in(
    stack: Stack, tradovate_provider: TokenProvider, tradovate_credentials: Credentials
) -> None:
    """Options of a provider beside a finished one are an error that names them, as are unusable ones."""
    with pytest.raises(ConfigurationError, match="login, timeout"):
        stack.auth(tradovate_provider, timeout=1.0, login="never")
    with pytest.raises(ConfigurationError, match="renewal"):
        stack.auth(tradovate_credentials, renewal="sometimes")


@one_of_each
def test_no_secret_is_shown(
    stack: Stack,
    tradovate_emulator: Emulator,
    tradovate_credentials: Credentials,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither the auth object nor its log lines at any level hold the password, the key's secret or the token."""
    caplog.set_level(logging.DEBUG)
    auth = stack.auth(tradovate_credentials, environment=tradovate_emulator.url, storage=MemoryStorage())
    with auth, stack.client(auth) as client:
        refuse_once(tradovate_emulator)
        assert client.get(accounts(tradovate_emulator)).status == 200
        token = auth.provider.get()
        shown = f"{auth!r} {auth} {auth.provider!r} {caplog.text}"
    assert stack.adapter.__name__ in repr(auth)
    for secret in (*tradovate_credentials.secrets(), token.value, str(token.md_value)):
        assert secret not in shown


def test_the_base_has_no_transport(tradovate_credentials: Credentials) -> None:
    """The shared base cannot be used by itself."""
    with pytest.raises(NotImplementedError):
        Bearer(tradovate_credentials)


@one_of_each
def test_a_missing_library_is_named(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter whose library is not installed says which extra to install."""
    name = stack.adapter.__name__.rpartition(".")[2]
    monkeypatch.setitem(sys.modules, name, None)
    spec = importlib.util.spec_from_file_location(f"tradovate_auth.{name}_again", str(stack.adapter.__file__))
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=rf"pip install 'tradovate-auth\[{name}\]'"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


@every_stack
def test_a_401_is_cured_and_the_caller_sees_the_good_answer(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """One renewal, one resend; the 401 stays in the history where there is one, its cookie in the jar, time is measured."""
    refuse_once(tradovate_emulator, headers={"Set-Cookie": "sticky=node1; Path=/"})
    with stack.client(stack.auth(tradovate_provider)) as client:
        answer = client.get(accounts(tradovate_emulator), headers={"X-Mine": "kept"})
        assert (answer.status, answer.history) == (200, (401,) if stack.keeps_refused else ())
        assert answer.elapsed > 0
        assert client.cookies == {"sticky": "node1"}
        assert client.get(accounts(tradovate_emulator)).status == 200
    assert exchanges(tradovate_emulator) == (1, 1)
    last = tradovate_emulator.requests[-1]
    assert last.headers["Cookie"] == "sticky=node1"
    assert [each.headers.get("X-Mine") for each in tradovate_emulator.requests[1:4:2]] == ["kept", "kept"]


@every_stack
def test_the_same_token_string_renewed_is_sent_again(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A server may extend a session and keep the token's text: it counts as another generation, and the call is resent."""
    tradovate_emulator.configure(renewal_token="same")
    refuse_once(tradovate_emulator)
    with stack.client(stack.auth(tradovate_provider)) as client:
        assert client.get(accounts(tradovate_emulator)).status == 200
    assert exchanges(tradovate_emulator) == (1, 1)


@every_stack
def test_a_call_is_sent_twice_at_most(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A path that answers 401 whatever comes: the second 401 is the caller's, with its body, and thirty more calls cost
    no further exchange.
    """
    tradovate_emulator.forbid("/account/list")
    with stack.client(stack.auth(tradovate_provider)) as client:
        first = client.get(accounts(tradovate_emulator))
        assert (first.status, b"Access is denied" in first.body) == (401, True)
        assert len(calls(tradovate_emulator)) == 2
        assert {client.get(accounts(tradovate_emulator)).status for _ in range(30)} == {401}
        assert client.get(f"{tradovate_emulator.url}/auth/me").status == 200
    assert exchanges(tradovate_emulator) == (1, 1)
    assert len(calls(tradovate_emulator)) <= 34


@every_stack
def test_many_callers_and_one_dead_token(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """Twenty calls at once with a token that has just died: all are served, and one exchange was made."""
    tradovate_emulator.configure(renewal_delay=0.1, login_delay=0.1)
    with stack.client(stack.auth(tradovate_provider)) as client:
        assert client.get(accounts(tradovate_emulator)).status == 200
        tradovate_emulator.revoke()
        waiting = [client.submit("GET", accounts(tradovate_emulator)) for _ in range(20)]
        assert [each.result(60).status for each in waiting] == [200] * 20
    assert exchanges(tradovate_emulator) == (2, 1)  # the renewal finds out that the session is gone


@every_stack
def test_without_an_exchange_the_401_is_the_answer(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """Where no renewal can be had, the caller gets the 401 as it came, unread if he wants to read it himself."""
    tradovate_emulator.inject(Fault("renewal", "status", status=503, times=None))
    refuse_once(tradovate_emulator, times=2, payload=b"x" * 2_000_000)
    with stack.client(stack.auth(tradovate_provider)) as client:
        answer = client.get(accounts(tradovate_emulator), stream=True)
        assert (answer.status, len(answer.body), answer.was_read) == (401, 2_000_000, False)
        assert len(client.get(accounts(tradovate_emulator)).body) == 2_000_000
        assert client.get(accounts(tradovate_emulator)).status == 200
    assert exchanges(tradovate_emulator) == (1, 1)


@every_stack
def test_without_any_token_left_the_401_is_the_answer(
    stack: Stack, tradovate_emulator: Emulator, tradovate_credentials: Credentials
) -> None:
    """A refused renewal and no right to log in: the call keeps its 401, the next one gets the typed error."""
    provider = TokenProvider(
        tradovate_credentials, environment=tradovate_emulator.url, storage=MemoryStorage(), login="once"
    )
    with provider, stack.client(stack.auth(provider)) as client:
        assert client.get(accounts(tradovate_emulator)).status == 200
        tradovate_emulator.revoke()
        assert client.get(accounts(tradovate_emulator)).status == 401
        with pytest.raises(LoginRequired):
            client.get(accounts(tradovate_emulator))


@every_stack
def test_a_late_401_of_an_older_token_costs_no_exchange(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A call that was refused because its token was renewed while it was under way is sent again, and that is all."""
    tradovate_emulator.inject(Fault("/account/list", "hang"))
    with stack.client(stack.auth(tradovate_provider)) as client:
        slow = client.submit("GET", accounts(tradovate_emulator))
        eventually(lambda: tradovate_emulator.counts.calls == 1)
        tradovate_provider.renew()
        tradovate_emulator.release()
        assert slow.result(60).status == 200
    assert exchanges(tradovate_emulator) == (1, 1)
    assert [status for _, _, status in calls(tradovate_emulator)] == [401, 200]


@every_stack
def test_a_resend_that_breaks_is_the_librarys_own_error(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A connection that is lost while a call is sent again is an error of the library, and nothing is sent a third time."""
    refuse_once(tradovate_emulator, "/order/placeorder")
    tradovate_emulator.inject(Fault("/order/placeorder", "drop", times=None))
    with stack.client(stack.auth(tradovate_provider)) as client:
        with pytest.raises(stack.error):
            client.post(f"{tradovate_emulator.url}/order/placeorder", Body("json"))
        assert client.get(accounts(tradovate_emulator)).status == 200
    assert [status for _, _, status in calls(tradovate_emulator)] == [401, None, 200]


@every_stack
def test_a_long_401_in_a_pool_of_one(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A refused answer of four megabytes does not keep the only connection: the resend goes through, and calls after it."""
    tradovate_emulator.configure(unauthorized_body="large")
    with stack.client(stack.auth(tradovate_provider), pool=1) as client:
        assert client.get(accounts(tradovate_emulator)).status == 200
        tradovate_emulator.revoke()
        for _ in range(3):
            assert client.get(accounts(tradovate_emulator)).status == 200
    assert exchanges(tradovate_emulator) == (2, 1)


@every_stack
def test_a_lost_session_is_found_out_by_three_faults_in_a_row(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """408, 429 and 5xx come back, but three in a row start one renewal that finds the eviction; a success between resets."""
    url = accounts(tradovate_emulator)
    with stack.client(stack.auth(tradovate_provider)) as client:
        tradovate_emulator.inject(Fault("/account/list", "status", status=500, times=2))
        assert [client.get(url).status for _ in range(3)] == [500, 500, 200]
        tradovate_emulator.inject(Fault("/account/list", "status", status=500, times=2))
        assert [client.get(url).status for _ in range(3)] == [500, 500, 200]
        assert exchanges(tradovate_emulator) == (1, 0)
        tradovate_emulator.foreign_login()
        tradovate_emulator.foreign_login()
        assert [client.get(url).status for _ in range(3)] == [408, 408, 408]
        eventually(lambda: tradovate_emulator.counts.renewals == 1)
        eventually(lambda: client.get(url).status == 200)
    assert exchanges(tradovate_emulator) == (2, 1)


@every_stack
@pytest.mark.parametrize("status", [302, 303, 307])
def test_no_hop_to_a_foreign_origin_carries_the_token(
    stack: Stack, status: int, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A redirect to another port or another address: no header arrives there, and its 401 is none of our business."""
    there = Emulator(aliases=("127.0.0.2",), missing_header_status=401)
    with there as foreign, stack.client(stack.auth(tradovate_provider)) as client:
        for host in ("127.0.0.1", "127.0.0.2"):
            target = f"http://{host}:{foreign.port}/v1/order/placeorder"
            here = f"{tradovate_emulator.url}/redirect?status={status}&to={target}"
            assert client.post(here, Body("json")).status == 401
            assert client.get(here).status == 401
        assert [each.authorization for each in foreign.requests] == [None] * 4
    assert exchanges(tradovate_emulator) == (1, 0)
    assert len(calls(tradovate_emulator)) == 4


@every_stack
def test_a_foreign_401_is_final(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """Neither a 401 behind a redirect nor one of a foreign first request starts an exchange or is sent again."""
    with (
        Emulator(missing_header_status=401) as foreign,
        stack.client(stack.auth(tradovate_provider)) as client,
    ):
        here = f"{tradovate_emulator.url}/redirect?status=307&to={accounts(foreign)}"
        assert client.get(here).status == 401
        assert client.get(accounts(foreign)).status == 401
        assert client.get(accounts(foreign), headers={"Authorization": "Bearer theirs"}).status == 401
        assert [each.authorization for each in foreign.requests] == [None, None, "Bearer theirs"]
    assert exchanges(tradovate_emulator) == (1, 0)
    assert len(calls(tradovate_emulator)) == 1


@every_stack
def test_a_redirect_at_home_keeps_the_token(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """On one origin the header goes along; a 401 behind the redirect is cured there, whatever the first hop carried."""
    refuse_once(tradovate_emulator)
    here = f"{tradovate_emulator.url}/redirect?status=302&to=/v1/account/list"
    with stack.client(stack.auth(tradovate_provider)) as client:
        assert client.get(here).status == 200
    assert exchanges(tradovate_emulator) == (1, 1)
    assert [(path, status) for _, path, status in calls(tradovate_emulator)] == [
        ("redirect", 302),
        ("list", 401),
        ("list", 200),
    ]


@every_stack
def test_a_redirect_after_a_renewal_carries_the_new_token(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A 401 first and a redirect second: the hop after it carries the new token, so one chain costs one 401."""
    with stack.client(stack.auth(tradovate_provider)) as client:
        assert client.get(accounts(tradovate_emulator)).status == 200
        tradovate_emulator.revoke()
        assert client.get(f"{tradovate_emulator.url}/redirect?to=/v1/account/list").status == 200
    assert tradovate_emulator.counts.calls_unauthorized == 1
    assert exchanges(tradovate_emulator) == (2, 1)


@every_stack
def test_a_hop_between_two_of_our_hosts_that_lost_the_header(
    stack: Stack, tradovate_credentials: Credentials
) -> None:
    """The libraries strip the header on the way from one of our hosts to the other: a GET is sent again with it, an order
    is not. aiohttp asks us at each hop, so there it was never lost.
    """
    with Emulator(aliases=("127.0.0.2",), missing_header_status=401) as emulator:
        home = Environment(emulator.url, hosts={"mdDemo": "127.0.0.2"})
        other = f"http://127.0.0.2:{emulator.port}/v1"
        provider = TokenProvider(tradovate_credentials, environment=home, storage=MemoryStorage())
        with provider, stack.client(stack.auth(provider)) as client:
            page = f"{emulator.url}/redirect?status=307&to={other}"
            assert client.get(f"{page}/account/list").status == 200
            expected = 200 if stack is AIOHTTP else 401
            assert client.post(f"{page}/order/placeorder", Body("json")).status == expected
        assert emulator.counts.orders == (1 if stack is AIOHTTP else 0)
        assert exchanges(emulator) == (1, 0)


@every_stack
def test_a_resend_that_leads_away_is_not_judged(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A call that is sent again and then redirected to somebody else: what he answers says nothing about the token."""
    refuse_once(tradovate_emulator, "/redirect")
    with (
        Emulator(missing_header_status=401) as foreign,
        stack.client(stack.auth(tradovate_provider)) as client,
    ):
        here = f"{tradovate_emulator.url}/redirect?to={accounts(foreign)}"
        assert client.get(here).status == 401
        assert [each.authorization for each in foreign.requests] == [None]
    assert exchanges(tradovate_emulator) == (1, 1)
    assert [status for _, _, status in calls(tradovate_emulator)] == [401, 302]


@every_stack
def test_a_fault_of_a_hop_that_lost_the_header_is_no_strike(
    stack: Stack, tradovate_credentials: Credentials
) -> None:
    """Faults that answer a request without our header say nothing about the session."""
    with Emulator(aliases=("127.0.0.2",)) as emulator:
        home = Environment(emulator.url, hosts={"mdDemo": "127.0.0.2"})
        provider = TokenProvider(tradovate_credentials, environment=home, storage=MemoryStorage())
        with provider, stack.client(stack.auth(provider)) as client:
            emulator.inject(Fault("/account/list", "status", status=500, times=4))
            page = f"{emulator.url}/redirect?to=http://127.0.0.2:{emulator.port}/v1/account/list"
            assert [client.get(page).status for _ in range(4)] == [500] * 4
            # In aiohttp the header was not lost; the redirect before each fault is no success of the session.
            probes = 1 if stack is AIOHTTP else 0
            eventually(lambda: emulator.counts.renewals >= probes)
        assert exchanges(emulator) == (1, probes)


@every_stack
def test_the_callers_other_hosts_are_left_alone(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A request to anywhere else goes out as it is, without a token being asked for."""
    with Emulator() as foreign, stack.client(stack.auth(tradovate_provider)) as client:
        assert client.get(f"{foreign.origin}/elsewhere").status == 404
        assert client.post(accounts(foreign), Body("generator")).status == 404
        assert [each.authorization for each in foreign.requests] == [None, None]
    assert exchanges(tradovate_emulator) == (0, 0)


@every_stack
def test_streams_stay_unread(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """An answer that the caller wants to stream is not read by us, neither at once nor after a 401."""
    url = f"{tradovate_emulator.url}/stream?size=300000&chunks=3&delay=0.01"
    with stack.client(stack.auth(tradovate_provider)) as client:
        for _ in range(2):
            answer = client.get(url, stream=True)
            assert (answer.status, answer.was_read, len(answer.body)) == (200, False, 900_000)
            refuse_once(tradovate_emulator, "/stream")
    assert exchanges(tradovate_emulator) == (1, 1)


@pytest.mark.parametrize("stack", ASYNC, ids=str)
def test_one_auth_object_in_several_loops(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """One auth object in three loops of three threads, all waiting for one exchange at the same time; then in a fourth."""
    auth = stack.auth(tradovate_provider)
    tradovate_emulator.configure(login_delay=0.2)
    with ExitStack() as opened:
        clients = [opened.enter_context(stack.client(auth)) for _ in range(3)]
        first = [each.submit("GET", accounts(tradovate_emulator)) for each in clients for _ in range(3)]
        assert [each.result(60).status for each in first] == [200] * 9
        tradovate_emulator.revoke()
        again = [each.submit("GET", accounts(tradovate_emulator)) for each in clients for _ in range(3)]
        assert [each.result(60).status for each in again] == [200] * 9
    with stack.client(auth) as client:
        assert client.get(accounts(tradovate_emulator)).status == 200
    assert exchanges(tradovate_emulator) == (2, 1)


@every_stack
def test_a_kept_connection_that_was_dropped(
    stack: Stack, tradovate_emulator: Emulator, tradovate_provider: TokenProvider
) -> None:
    """A server that restarted between two calls: the second opens a new connection, and the token is still good."""
    with stack.client(stack.auth(tradovate_provider)) as client:
        assert client.get(accounts(tradovate_emulator)).status == 200
        tradovate_emulator.stop()
        tradovate_emulator.start()
        assert client.get(accounts(tradovate_emulator)).status == 200
    assert exchanges(tradovate_emulator) == (1, 0)


@every_stack
@pytest.mark.usefixtures("netrc")
def test_a_netrc_changes_nothing(
    stack: Stack, tradovate_emulator: Emulator, tradovate_credentials: Credentials
) -> None:
    """With an entry for the host in a netrc, first requests, redirects and auth calls carry what we put there."""
    auth = stack.auth(tradovate_credentials, environment=tradovate_emulator.url, storage=MemoryStorage())
    with auth, stack.client(auth) as client:
        assert client.get(accounts(tradovate_emulator)).status == 200
        assert client.get(f"{tradovate_emulator.url}/redirect?to=/v1/account/list").status == 200
        auth.provider.renew()
        assert client.post(f"{tradovate_emulator.url}/order/placeorder", Body("json")).status == 200
    seen = [each.authorization or "" for each in tradovate_emulator.requests]
    login, first, *_, renewal, order = seen
    assert login == ""
    assert all(each.startswith("Bearer ") for each in (first, renewal, order))
    assert exchanges(tradovate_emulator) == (1, 1)


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A netrc with an entry for the emulator's host."""
    for name in (".netrc", "_netrc"):
        (tmp_path / name).write_text("machine 127.0.0.1 login somebody password else\n")
        (tmp_path / name).chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))


@every_stack
def test_a_source_hears_of_faults_and_of_nothing_else(stack: Stack, tradovate_emulator: Emulator) -> None:
    """Successes and redirects are not reported as long as nothing speaks against the token."""
    source = LastSource(tradovate_emulator.url)
    with stack.client(stack.auth(source)) as client:
        for status in (200, 302, 304, 403, 500):
            tradovate_emulator.inject(Fault("calls", "status", status=status))
            assert client.get(accounts(tradovate_emulator), follow=False).status == status
        source.token.strikes.count = 1
        for status in (200, 302):
            tradovate_emulator.inject(Fault("calls", "status", status=status))
            client.get(accounts(tradovate_emulator), follow=False)
    assert source.reported == [403, 500, 200, 302]


@every_stack
def test_bodies_that_go_out_once_ask_for_a_token_that_lasts(
    stack: Stack, tradovate_emulator: Emulator
) -> None:
    """What cannot be sent again wants a token that lives two seconds more; any other request takes what there is."""
    source = LastSource(tradovate_emulator.url)
    tradovate_emulator.inject(Fault("calls", "status", status=200, times=None))
    with stack.client(stack.auth(source)) as client:
        for kind in ("json", "generator", "file" if not stack.asynchronous else "bytes"):
            assert client.post(accounts(tradovate_emulator), Body(kind)).status == 200
    assert source.asked == [0.0, ONE_SHOT_TTL, 0.0]


@every_stack
@pytest.mark.parametrize(
    "error",
    [
        TokenTimeout("late"),
        StorageError("full"),
        TransportError("gone", 3.0, None, True),
        Throttled("slowly", 9.0),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_the_source_come_out_as_they_are(
    stack: Stack, error: TradovateAuthError, tradovate_emulator: Emulator
) -> None:
    """A typed error passes through the library untouched, also one that is a `TimeoutError`, and nothing is sent."""
    source = FailingSource(error, tradovate_emulator.url)
    with stack.client(stack.auth(source)) as client:
        with pytest.raises(TradovateAuthError) as caught:
            client.get(accounts(tradovate_emulator))
        with pytest.raises(TradovateAuthError):
            client.post(accounts(tradovate_emulator), Body("generator"))
    assert caught.value is error
    assert tradovate_emulator.requests == ()


@every_stack
def test_a_refused_login_is_the_calls_error(stack: Stack, tradovate_emulator: Emulator) -> None:
    """Wrong credentials are `LoginRefused` out of the call itself, twenty callers at once spend one login."""
    wrong = Credentials(**{**tradovate_emulator.credentials, "password": "not it"})
    auth = stack.auth(wrong, environment=tradovate_emulator.url, storage=MemoryStorage())
    with auth, stack.client(auth) as client:
        waiting = [client.submit("GET", accounts(tradovate_emulator)) for _ in range(20)]
        assert {type(each.exception(60)) for each in waiting} == {LoginRefused}
    assert exchanges(tradovate_emulator) == (1, 0)
    assert calls(tradovate_emulator) == []


@every_stack
def test_a_fresh_token_never_takes_the_long_way(
    stack: Stack,
    tradovate_emulator: Emulator,
    tradovate_provider: TokenProvider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a fresh token a call costs one look: no route is computed, no flight joined, no body inspected."""
    auth = stack.auth(tradovate_provider)

    def bomb(*_: object, **__: object) -> None:
        raise AssertionError("the long way was taken")

    with stack.client(auth) as client:
        assert client.get(accounts(tradovate_emulator)).status == 200
        for name in (
            "_sign",
            "_target",
            "_reroute",
            "_routes_for",
            "_fits",
            "_was_whole",
            "_ttl_for",
            "_rejected",
        ):
            if hasattr(type(auth), name):
                monkeypatch.setattr(type(auth), name, bomb)
        monkeypatch.setattr(tradovate_provider._keeper, "approach", bomb)
        assert client.get(accounts(tradovate_emulator)).status == 200
        for kind in ("json", "bytes", "text") if stack is not AIOHTTP else ("json", "bytes"):
            assert client.post(f"{tradovate_emulator.url}/order/placeorder", Body(kind)).status == 200


def test_nobody_waits_for_a_renewal(world: World) -> None:
    """A renewal is on its way and takes as long as it likes: calls of all libraries go on with the old token meanwhile, and with
    the new one afterwards. One login, no failed call.
    """
    provider = world.provider()
    token = provider.get()
    world.server.inject(Fault("renewal", "hang"))
    world.clock.advance(4200)
    with ExitStack() as opened:
        clients = [
            opened.enter_context(stack.client(stack.auth(provider)))
            for stack in (REQUESTS, HTTPX_ASYNC, AIOHTTP)
        ]
        for _ in range(5):
            assert {client.get(accounts(world.server)).status for client in clients} == {200}
        eventually(lambda: world.server.counts.renewals == 1)
        assert {client.get(accounts(world.server)).status for client in clients} == {200}
        assert provider.get() is token
        world.server.release()
        eventually(lambda: provider.get() is not token)
        assert {client.get(accounts(world.server)).status for client in clients} == {200}
    counts = world.server.counts
    assert (counts.logins, counts.renewals_granted, counts.calls_unauthorized) == (1, 1, 0)

"""Instrumentation and what only requests does: adapters, prepared requests, a netrc, pickled sessions, redirects by copies."""

import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import requests
from core_tools import eventually
from instrumented import DEAD, Scene, login_fields, scene
from requests.adapters import BaseAdapter, HTTPAdapter
from stacks import plain_environment
from tls_server import TLSServer
from urllib3 import HTTPResponse, Retry

from tradovate_auth import Environment, TokenProvider
from tradovate_auth.events import Evicted
from tradovate_auth.instrumentation import instrument
from tradovate_auth.requests import RequestsTransport, TradovateAuth
from tradovate_auth.testing import Emulator
from tradovate_auth.testing.emulator import Fault

__all__ = ["plain_environment", "scene"]  # fixtures

LIMIT: Any = {"timeout": 30}


def test_calls_of_the_module(scene: Scene) -> None:
    """`requests.get` and `requests.post`, as most scripts make them."""
    with instrument(scene.provider):
        token = requests.post(scene.login, json=login_fields(scene.server), **LIMIT).json()["accessToken"]
        headers = {"Authorization": f"Bearer {token}"}
        assert requests.get(scene.accounts, headers=headers, **LIMIT).status_code == 200
    assert scene.exchanges == (1, 0)


def test_auth_of_the_clients_own(scene: Scene) -> None:
    """`auth=` of a call or a session loses to ours here, and stays what it is elsewhere."""
    with Emulator() as foreign, instrument(scene.provider), requests.Session() as session:
        session.auth = ("somebody", "else")
        assert session.get(scene.accounts).status_code == 200
        assert session.get(scene.accounts, auth=lambda request: request).status_code == 200
        session.get(f"{foreign.url}/account/list")
        assert str(foreign.requests[0].authorization).startswith("Basic ")
    assert scene.carried == [scene.provider.get().authorization] * 2


def test_a_netrc_loses(scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A netrc, which beats a header in requests, does not beat us."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with instrument(scene.provider):
        assert requests.get(scene.accounts, headers=DEAD, **LIMIT).status_code == 200


def test_a_prepared_request_stays_as_it_was(scene: Scene) -> None:
    """A request that was prepared by hand is signed each time it is sent, and never changed."""
    hook = lambda response, **_: response.headers.update({"seen": "yes"})  # noqa: E731
    prepared = requests.Request("GET", scene.accounts, headers=DEAD, hooks={"response": hook}).prepare()
    with instrument(scene.provider), requests.Session() as session:
        for _ in range(2):
            answer = session.send(prepared)
            assert (answer.status_code, answer.headers["seen"]) == (200, "yes")
            assert answer.request.headers["Authorization"] == scene.provider.get().authorization
            assert answer.request.hooks == prepared.hooks == {"response": [hook]}
            scene.provider.renew()
            scene.provider.reset()
    assert prepared.headers["Authorization"] == DEAD["Authorization"]


def test_hooks_see_the_good_answer(scene: Scene) -> None:
    """A hook that raises for a status never sees the 401 that was cured; the history shows it."""
    scene.server.inject(Fault("/account/list", "status", status=401))
    with instrument(scene.provider), requests.Session() as session:
        session.hooks["response"].append(lambda response, **_: response.raise_for_status())
        answer = session.get(scene.accounts)
        assert [each.status_code for each in answer.history] == [401]
    assert answer.elapsed.total_seconds() > 0


@pytest.mark.parametrize("early", [True, False])
def test_adapters_of_the_clients_own(early: bool, scene: Scene) -> None:
    """What a session has mounted, on our very origin and at any time, does its work; with ours around it."""
    scene.server.inject(Fault("/account/list", "status", status=503))
    retrying = HTTPAdapter(max_retries=Retry(total=1, status_forcelist=[503]))
    with requests.Session() as session:
        if early:
            session.mount(scene.server.url, retrying)
        with instrument(scene.provider):
            session.mount(scene.server.url, retrying)
            adapter = session.get_adapter(scene.accounts)
            assert isinstance(adapter, HTTPAdapter)
            assert adapter.max_retries is retrying.max_retries
            assert session.get(scene.accounts, headers=DEAD).status_code == 200
        assert session.get_adapter(scene.accounts) is retrying
    assert scene.carried == [scene.provider.get().authorization] * 2


@pytest.mark.parametrize("checked", [True, False])
def test_an_adapter_that_is_called_by_position(checked: bool, scene: Scene) -> None:
    """A session of somebody's own may hand its arguments on as it likes."""

    class Session(requests.Session):
        def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
            return self.get_adapter(str(request.url)).send(request, False, 30, checked, None, {})

    with instrument(scene.provider, insecure="refuse"), Session() as session:
        assert session.get(scene.accounts).status_code == (200 if checked else 404)


def test_a_subclass_that_chooses_its_adapter(scene: Scene) -> None:
    """A subclass that asks its base for the adapter twice is still signed once."""

    class Session(requests.Session):
        def get_adapter(self, url: str) -> Any:
            return super().get_adapter(url=url)

    with instrument(scene.provider), Session() as session:
        scene.server.inject(Fault("/account/list", "status", status=401, times=None))
        assert session.get(scene.accounts).status_code == 401
    assert len(scene.carried) == 2


def test_a_pickled_session(scene: Scene) -> None:
    """A session goes through pickle as ever, and comes back instrumented; nothing of ours is in the pickle."""
    with instrument(scene.provider), requests.Session() as session:
        session.get(scene.accounts)
        packed = pickle.dumps(session)
        assert b"tradovate_auth" not in packed
        with pickle.loads(packed) as unpacked:
            assert unpacked.get(scene.accounts).status_code == 200


def test_a_session_that_keeps_headers_on_redirects(scene: Scene) -> None:
    """A session that carries its header to foreign hosts, on purpose, carries its own one there: never ours."""

    class Careless(requests.Session):
        def rebuild_auth(self, prepared_request: Any, response: Any) -> None:
            pass

    with Emulator() as foreign, instrument(scene.provider), Careless() as session:
        url = f"{scene.server.url}/redirect?to={foreign.url}/account/list"
        assert session.get(url, headers=DEAD).status_code == 401
        assert foreign.requests[0].authorization == DEAD["Authorization"]


def test_a_login_with_any_body(scene: Scene) -> None:
    """A form, a file and all kinds of bytes are read; what comes piece by piece names nobody and passes with its body whole."""
    login = json.dumps({"name": scene.user}).encode()
    with instrument(scene.provider):
        bodies: list[Any] = [
            f"name={scene.user}",
            bytearray(login),
            io.BytesIO(login),
            io.StringIO(login.decode()),
        ]
        for body in bodies:
            answer = requests.post(scene.login, data=body, **LIMIT)
            assert answer.json()["accessToken"] == scene.provider.get().value
        assert scene.exchanges == (1, 0)
        pieces = (piece for piece in (b'{"name": ', b'"somebody"}'))
        assert "violations" in requests.post(scene.login, data=pieces, **LIMIT).json()
    assert scene.server.requests[-1].body == b'{"name": "somebody"}'


def test_a_strangers_login_out_of_a_file_goes_out_whole(scene: Scene, tmp_path: Path) -> None:
    """It is read to see whose it is, and then sent from where it stood: a bot of somebody else's logs in as before."""
    who = scene.server.add_user("somebody", "secret")
    login = json.dumps({**login_fields(scene.server), **who, "name": "somebody", "password": "secret"})
    path = tmp_path / "login.json"
    path.write_text(f"# of somebody else\n{login}")
    with instrument(scene.provider), path.open("rb") as body:
        body.readline()
        answer = requests.post(scene.login, data=body, **LIMIT)
        assert answer.json()["accessToken"] != scene.provider.get().value
    assert scene.server.requests[0].body == login.encode()


def test_a_url_that_cannot_be_read(scene: Scene) -> None:
    """It is the library that complains about it."""
    prepared = requests.Request("GET", scene.accounts).prepare()
    for url in ("http://[::1/account", None):
        prepared.url = url
        complaints = []
        with requests.Session() as session:
            for instrumented in (True, False):
                given = instrument(scene.provider) if instrumented else None
                with pytest.raises((ValueError, AttributeError)) as caught:
                    session.send(prepared, proxies={})
                complaints.append((caught.type, str(caught.value)))
                if given is not None:
                    given.uninstrument()
        assert complaints[0] == complaints[1]


def test_a_bundle_counts_as_a_check(scene: Scene) -> None:
    """A path for `verify` is a check; nothing at all is none."""
    with instrument(scene.provider, insecure="refuse"), requests.Session() as session:
        prepared = requests.Request("GET", scene.accounts).prepare()
        assert session.send(prepared, verify="/nonexistent").status_code == 200
        assert session.send(prepared, verify=None).status_code == 404


class Handmade(BaseAdapter):
    """An adapter that makes its answers itself."""

    def __init__(self, *statuses: int) -> None:
        super().__init__()
        self.statuses = list(statuses)
        self.carried: list[object] = []

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """See `BaseAdapter`."""
        self.carried.append(request.headers.get("Authorization"))
        response = requests.Response()
        response.status_code, response.request = self.statuses.pop(0), request
        response.raw = HTTPResponse(io.BytesIO(b""), preload_content=False)
        return response

    def close(self) -> None:
        """See `BaseAdapter`."""


def test_an_adapter_that_is_none_of_the_librarys(scene: Scene) -> None:
    """A 401 out of an adapter of somebody's own, which leaves its answers bare, is cured like any other."""
    adapter = Handmade(401, 200)
    with instrument(scene.provider), requests.Session() as session:
        session.mount("http://", adapter)
        first = scene.provider.get().authorization
        assert session.get(scene.accounts).status_code == 200
    assert adapter.carried == [first, scene.provider.get().authorization]
    assert scene.exchanges == (1, 1)


class Careless(HTTPAdapter):
    """An adapter that checks nothing, whatever it is asked for."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """See `HTTPAdapter`."""
        return super().send(request, *args, **{**kwargs, "verify": False})


class CarelessAboutPools(HTTPAdapter):
    """One that switches the check off where requests sets its pool of connections up."""

    def cert_verify(self, conn: Any, *_: Any) -> None:
        """See `HTTPAdapter`."""
        conn.cert_reqs = "CERT_NONE"


class CarelessAboutNames(HTTPAdapter):
    """One that takes any valid certificate."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """See `HTTPAdapter`."""
        super().init_poolmanager(*args, **{**kwargs, "assert_hostname": False})


class Pinned(CarelessAboutNames):
    """One that takes a single certificate, whatever its name."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """See `HTTPAdapter`."""
        super().init_poolmanager(*args, **{**kwargs, "assert_fingerprint": self.fingerprint})


class Vault(TLSServer):
    """A server with TLS, and a source of tokens for it."""

    def source(self, scene: Scene) -> "Vault.Source":
        """Return a source whose environment it is."""
        found = Vault.Source(scene.provider)
        found.environment = Environment(f"{self.url}/v1")
        return found

    class Source:
        """Hands out the token of a provider."""

        environment: Environment

        def __init__(self, provider: TokenProvider) -> None:
            self.get, self.aget = provider.get, provider.aget
            self.reject, self.report = provider.reject, provider.report


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
@pytest.mark.parametrize("adapter", [HTTPAdapter, Careless, CarelessAboutPools, CarelessAboutNames, Pinned])
@pytest.mark.parametrize("policy", ["warn", "refuse"])
def test_adapters_that_check_nothing(
    adapter: Any, policy: Any, scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """What an adapter makes of the checks is seen on the connection itself: over one without them goes no token of ours, or one
    with a warning. A certificate that is known is a check.
    """
    with Vault() as server, instrument(server.source(scene), insecure=policy), requests.Session() as session:
        session.mount(server.url, adapter(server.fingerprint) if adapter is Pinned else adapter())
        for _ in range(2):
            assert session.get(f"{server.url}/v1/account/list", verify=server.authority).status_code == 200
        # And what it was given it does not send either.
        kept = {"Authorization": scene.provider.get().authorization}
        session.get(f"{server.url}/v1/account/list", verify=server.authority, headers=kept)
        careful = adapter in (HTTPAdapter, Pinned)
        ours = scene.provider.get().authorization if careful or policy == "warn" else None
        assert server.authorizations == [ours] * 3
    assert len([text for text in caplog.messages if "does not check" in text]) == (0 if careful else 1)


class Asking(HTTPAdapter):
    """One that chooses its pool by keyword, as requests asks it to, and counts."""

    asked = 0

    def get_connection_with_tls_context(self, request: Any, verify: Any, **options: Any) -> Any:  # type: ignore[override]
        """See `HTTPAdapter`."""
        self.asked += 1
        return super().get_connection_with_tls_context(request, verify, **options)


class AskingAndCareless(CarelessAboutPools, Asking):
    """One that has its own way with the checks as well, so that it must be asked again for what came of it."""


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
@pytest.mark.parametrize(("kind", "times"), [(Asking, 1), (AskingAndCareless, 2)])
def test_an_adapter_that_chooses_its_pool(kind: type[Asking], times: int, scene: Scene) -> None:
    """It is called as requests calls it, and no more often than it takes to know whether it checks."""
    adapter = kind()
    with Vault() as server, instrument(server.source(scene)), requests.Session() as session:
        session.mount(server.url, adapter)
        assert session.get(f"{server.url}/v1/account/list", verify=server.authority).status_code == 200
        assert server.authorizations == [scene.provider.get().authorization]
    assert adapter.asked == times


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_a_refused_adapter_sends_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes out without our token because its adapter checks nothing is not sent again for the 401 that it gets."""
    with Vault() as server, requests.Session() as session:
        handler: Any = server._server.RequestHandlerClass
        said = handler.send_response
        monkeypatch.setattr(handler, "send_response", lambda self, _: said(self, 401))
        session.mount(server.url, Careless())
        with instrument(server.source(scene), insecure="refuse"):
            answer = session.get(f"{server.url}/v1/account/list", verify=server.authority)
        assert (answer.status_code, answer.history, server.authorizations) == (401, [], [None])


def test_an_adapter_over_plain_http(scene: Scene) -> None:
    """There the argument counts, as in a session."""
    with instrument(scene.provider, insecure="refuse"), requests.Session() as session:
        session.mount("http://", Careless())
        assert session.get(scene.accounts).status_code == 404
        session.mount("http://", CarelessAboutPools())
        assert session.get(scene.accounts).status_code == 200


def test_a_client_of_ours_that_checks_nothing(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """Who gives a session a `TradovateAuth` and no checks has asked for it: its token goes out, and nobody is told that it
    gets none.
    """
    with instrument(scene.provider, insecure="refuse"), requests.Session() as session:
        session.auth = TradovateAuth(scene.provider)
        assert session.get(scene.accounts, verify=False).status_code == 200
        assert "does not check" not in caplog.text
        assert session.post(scene.renewal, verify=False).json()["accessToken"]


def retrying(*statuses: int) -> HTTPAdapter:
    """An adapter that tries again, and then raises, as most bots have one."""
    return HTTPAdapter(
        max_retries=Retry(total=1, status_forcelist=statuses, allowed_methods=None, backoff_factor=0)
    )


def test_a_401_that_a_retry_keeps_to_itself(scene: Scene) -> None:
    """A client whose own `Retry` turns it into an error gets that once; its next call has a newer token."""
    with instrument(scene.provider), requests.Session() as session:
        session.mount("http://", retrying(401, 429, 503))
        assert session.get(scene.accounts).status_code == 200
        scene.server.inject(Fault("/account/list", "status", status=401, times=2))
        with pytest.raises(requests.exceptions.RetryError):
            session.get(scene.accounts, headers=DEAD)
        assert session.get(scene.accounts, headers=DEAD).status_code == 200
    assert scene.exchanges == (1, 1)
    assert scene.carried[-1] == scene.provider.get().authorization
    assert scene.carried[-2] != scene.carried[-1]


def test_a_401_after_the_resend_that_a_retry_keeps_to_itself(scene: Scene) -> None:
    """An answer that the client's `Retry` lets through leads to a resend; what that ends in is told of too."""
    with instrument(scene.provider), requests.Session() as session:
        session.mount("http://", retrying(503))
        scene.server.inject(Fault("/account/list", "status", status=401))
        scene.server.inject(Fault("/account/list", "status", status=503, times=2))
        with pytest.raises(requests.exceptions.RetryError):
            session.get(scene.accounts)
        assert scene.provider.get().strikes.count == 1
    assert scene.exchanges == (1, 1)


@pytest.mark.parametrize("status", [408, 429, 503])
def test_an_eviction_that_a_retry_keeps_to_itself(status: int, scene: Scene) -> None:
    """Three calls that end in its error are three faults in a row: the session is looked after, and a new one is opened."""
    with instrument(scene.provider), requests.Session() as session:
        session.mount("http://", retrying(408, 429, 503))
        assert session.get(scene.accounts).status_code == 200
        scene.server.configure(evicted_style=str(status) if status != 503 else "429")
        scene.server.foreign_login()
        scene.server.foreign_login()
        for _ in range(3):
            with pytest.raises(requests.exceptions.RetryError):
                session.get(scene.accounts)
        scene.events.wait_for(Evicted)
        eventually(lambda: scene.provider.get().generation == 2)
        assert session.get(scene.accounts).status_code == 200


def test_a_retry_that_gives_up_for_another_reason(scene: Scene) -> None:
    """An error that is about no answer, or about a token that is not ours, is the client's alone."""
    scene.server.add_user("somebody", "secret")
    with instrument(scene.provider), requests.Session() as session:
        session.mount("http://", retrying(503))
        scene.server.inject(Fault("/account/list", "status", status=503, times=None))
        theirs = requests.post(
            scene.login,
            json={**login_fields(scene.server), "name": "somebody", "password": "secret"},
            **LIMIT,
        ).json()["accessToken"]
        with pytest.raises(requests.exceptions.RetryError):
            session.get(scene.accounts, headers={"Authorization": f"Bearer {theirs}"})
        assert scene.provider.get().strikes.count == 0

        class Odd(HTTPAdapter):
            def send(self, *_: Any, **__: Any) -> requests.Response:
                raise requests.exceptions.RetryError("too tired")

        session.mount("http://", Odd())
        with pytest.raises(requests.exceptions.RetryError, match="too tired"):
            session.get(scene.accounts)
        assert scene.provider.get().strikes.count == 0


def test_the_providers_own_session_may_be_instrumented(scene: Scene) -> None:
    """A provider that sends over an ordinary session gets its token, although that session is instrumented."""
    with (
        requests.Session() as session,
        scene.another(transport=RequestsTransport(session)) as provider,
        instrument(provider),
    ):
        assert session.get(scene.accounts).status_code == 200
        assert provider.renew().generation == 2
    assert scene.exchanges == (1, 1)

"""What instrumentation does in every client library alike, and how it begins and ends."""

import datetime as dt
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest
import requests
import wrapt
from core_tools import FrailStorage, SocketTransport, at_once, eventually, run_script
from instrumented import DEAD, Scene, bare, insecure, login_fields, parsed, scene
from stacks import AIOHTTP, HTTPX, HTTPX2, REQUESTS, Body, Stack, every_stack, plain_environment
from values import at

from tradovate_auth import (
    AccessToken,
    ConfigurationError,
    Credentials,
    Environment,
    LoginRefused,
    ProviderClosed,
    TokenProvider,
    TokenTimeout,
    _given,
)
from tradovate_auth._instrument_state import STATE
from tradovate_auth._overlay import CLIENTS, EVERYWHERE, LIBRARIES, Overlay
from tradovate_auth._strangers import strangers_key
from tradovate_auth.events import LoggedIn, Warned
from tradovate_auth.instrumentation import Instrumentation, instrument, instrument_client, uninstrument
from tradovate_auth.storage import FileStorage, MemoryStorage, Record
from tradovate_auth.testing import Emulator, FakeClock
from tradovate_auth.testing.emulator import Fault

__all__ = ["plain_environment", "scene"]  # fixtures

one_of_each = pytest.mark.parametrize("stack", [REQUESTS, HTTPX, HTTPX2, AIOHTTP], ids=str)
"""One stack for each library."""

POINTS: tuple[tuple[type, str], ...] = (
    (requests.Session, "get_adapter"),
    (requests.adapters.HTTPAdapter, "cert_verify"),
    (requests.adapters.HTTPAdapter, "add_headers"),
    (httpx.Client, "send"),
    (httpx.Client, "_send_single_request"),
    (httpx.AsyncClient, "send"),
    (httpx.AsyncClient, "_send_single_request"),
    (httpx2.Client, "send"),
    (httpx2.Client, "_send_single_request"),
    (httpx2.AsyncClient, "send"),
    (httpx2.AsyncClient, "_send_single_request"),
    (aiohttp.ClientSession, "__init__"),
    (aiohttp.ClientSession, "_request"),
)
ORIGINAL = [vars(kind)[name] for kind, name in POINTS]


def untouched() -> list[bool]:
    """For every attribute that is wrapped: whether it is the library's own object."""
    return [vars(kind)[name] is original for (kind, name), original in zip(POINTS, ORIGINAL, strict=True)]


@every_stack
def test_a_header_of_the_clients_own_is_replaced(stack: Stack, scene: Scene) -> None:
    """A request with a dead token, or with none, carries ours; afterwards it is the client's own again."""
    with bare(stack) as client:
        with instrument(scene.provider):
            assert client.get(scene.accounts, headers=DEAD).status == 200
            assert client.get(scene.accounts).status == 200
        assert client.get(scene.accounts, headers=DEAD).status == 401
    token = scene.provider.get().authorization
    assert scene.carried == [token, token, DEAD["Authorization"]]
    assert scene.exchanges == (1, 0)


@every_stack
def test_other_hosts_see_nothing_of_ours(stack: Stack, scene: Scene) -> None:
    """A request to anywhere else goes out as the client made it."""
    with Emulator() as foreign, instrument(scene.provider), bare(stack) as client:
        assert client.get(f"{foreign.url}/account/list", headers=DEAD).status == 401
        assert client.get(f"{foreign.url}/account/list").status == 404
        assert [each.authorization for each in foreign.requests] == [DEAD["Authorization"], None]
    assert scene.exchanges == (0, 0)


@every_stack
def test_a_refused_order_is_sent_again_once(stack: Stack, scene: Scene) -> None:
    """A 401 leads to one renewal and one repetition, with the whole body; the client sees the good answer alone."""
    with instrument(scene.provider), bare(stack) as client:
        scene.server.inject(Fault("/order/placeorder", "status", status=401))
        assert client.post(f"{scene.server.url}/order/placeorder", Body("json"), headers=DEAD).status == 200
    assert [json.loads(order.body) for order in scene.server.orders] == [
        {"text": Body("json").payload.decode()}
    ]
    assert scene.exchanges == (1, 1)
    assert len(scene.carried) == 2


@every_stack
def test_a_401_that_stays_is_the_clients(stack: Stack, scene: Scene) -> None:
    """A call that is refused again comes back as it is."""
    with instrument(scene.provider), bare(stack) as client:
        scene.server.inject(Fault("/account/list", "status", status=401, times=None))
        assert client.get(scene.accounts).status == 401
    assert len(scene.carried) == 2


@every_stack
@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_to_somebody_else_takes_no_token_along(stack: Stack, status: int, scene: Scene) -> None:
    """From our origin to a foreign one: neither our token nor the client's own arrives there."""
    with Emulator() as foreign, instrument(scene.provider), bare(stack) as client:
        there = f"{foreign.url}/account/list"
        answer = client.get(f"{scene.server.url}/redirect?status={status}&to={there}", headers=DEAD)
        assert (answer.status, answer.history) == (404, (status,))
        assert [each.authorization for each in foreign.requests] == [None]
    assert scene.carried == [scene.provider.get().authorization]


@every_stack
def test_a_redirect_to_us_gets_the_token(stack: Stack, scene: Scene) -> None:
    """From a foreign origin to ours, and on within ours: each hop to us is signed, the foreign one is not."""
    with Emulator() as foreign, instrument(scene.provider), bare(stack) as client:
        there = f"{scene.server.url}/redirect?to={scene.accounts}"
        answer = client.get(f"{foreign.url}/redirect?open=1&to={there}")
        assert (answer.status, answer.history, answer.url) == (200, (302, 302), scene.accounts)
        assert [each.authorization for each in foreign.requests] == [None]
    assert scene.carried == [scene.provider.get().authorization] * 2


@every_stack
def test_a_redirect_is_the_clients_if_it_wants_it(stack: Stack, scene: Scene) -> None:
    """A client that follows no redirects gets the redirect."""
    with instrument(scene.provider), bare(stack) as client:
        answer = client.get(f"{scene.server.url}/redirect?to={scene.accounts}", follow=False)
    assert (answer.status, answer.history, len(scene.carried)) == (302, (), 1)


@every_stack
def test_a_streamed_answer_is_left_unread(stack: Stack, scene: Scene) -> None:
    """Instrumentation reads no body of an ordinary answer."""
    with instrument(scene.provider), bare(stack) as client:
        answer = client.get(f"{scene.server.url}/stream?size=200000&chunks=3", stream=True)
    assert (answer.was_read, len(answer.body)) == (False, 600000)


@one_of_each
def test_an_assigned_host_is_ours_whoever_heard_of_it(stack: Stack, scene: Scene) -> None:
    """A host that the server has assigned gets the token from a library that has not yet seen the token it came with."""
    with Emulator() as assigned:
        assigned.inject(Fault("*", "json", times=None, payload=[]))
        scene.server.configure(api_hosts={"demo": f"127.0.0.1:{assigned.port}"})
        environment = Environment(scene.server.url, domains=("127.0.0.1",))
        with scene.another(environment=environment) as provider, instrument(provider), bare(stack) as client:
            token = provider.get()
            client.get(f"{assigned.url}/account/list", headers=DEAD)
            assert [each.authorization for each in assigned.requests] == [token.authorization]
            # And what is meant for the well-known one goes there as well.
            client.get(scene.accounts, headers=DEAD)
            assert len(assigned.requests) == 2
    assert scene.carried == []


@one_of_each
def test_an_assigned_host_in_an_answered_login_is_ours(stack: Stack, scene: Scene) -> None:
    """So does one that a client was told of in the answer to its login, whatever kind of source that came from."""
    with Emulator() as assigned:
        hosts = {"demo": f"127.0.0.1:{assigned.port}"}
        source = Source(scene, scene.user, hosts=hosts)
        with instrument(source), bare(stack) as client:
            assert scene.log_in(client)["apiHosts"] == hosts
            client.get(f"{assigned.url}/account/list", headers=DEAD)
        assert [each.authorization for each in assigned.requests] == ["Bearer token"]


@every_stack
def test_a_client_of_ours_is_not_signed_twice(stack: Stack, scene: Scene) -> None:
    """Where a `TradovateAuth` does the work, instrumentation leaves it alone, and a lasting 401 costs two calls, not four."""
    with scene.another() as own, instrument(scene.provider), stack.client(stack.auth(own)) as client:
        assert client.get(scene.accounts).status == 200
        assert scene.carried == [own.get().authorization]
        scene.server.inject(Fault("/account/list", "status", status=401, times=None))
        assert client.get(scene.accounts).status == 401
        assert len(scene.carried) == 3
    assert scene.server.counts.logins == 1


@every_stack
def test_a_client_of_ours_for_another_place(stack: Stack, scene: Scene) -> None:
    """A `TradovateAuth` for another environment signs there, and instrumentation here."""
    with (
        Emulator() as elsewhere,
        TokenProvider(
            Credentials(**elsewhere.credentials),
            environment=elsewhere.url,
            storage=MemoryStorage(),
            transport=SocketTransport(),
        ) as other,
        instrument(scene.provider),
        stack.client(stack.auth(other)) as client,
    ):
        assert client.get(f"{elsewhere.url}/account/list").status == 200
        assert client.get(scene.accounts).status == 200
        assert [each.authorization for each in elsewhere.requests if "/auth/" not in each.path] == [
            other.get().authorization
        ]
    assert scene.carried == [scene.provider.get().authorization]


@every_stack
def test_the_login_of_a_client_of_ours_is_answered(stack: Stack, scene: Scene) -> None:
    """A client with a `TradovateAuth` that logs in all the same opens no session either."""
    with instrument(scene.provider), stack.client(stack.auth(scene.provider)) as client:
        assert scene.log_in(client)["accessToken"] == scene.provider.get().value
    assert scene.exchanges == (1, 0)


@every_stack
@pytest.mark.parametrize("spelling", ["accessTokenRequest", "accesstokenrequest", "ACCESSTOKENREQUEST/"])
def test_a_login_is_answered(stack: Stack, spelling: str, scene: Scene) -> None:
    """A login, JSON or form, in any case, gets the shared token with every field of a real answer; none reaches the server."""
    url = f"{scene.server.url}/auth/{spelling}"
    with instrument(scene.provider), bare(stack) as client:
        for body in ({"json": {"name": scene.user, "password": "x"}}, {"data": {"name": scene.user}}):
            answer = client.call("POST", url, **body)
            token, fields = scene.provider.get(), parsed(answer)
            assert (fields["accessToken"], fields["mdAccessToken"]) == (token.value, token.md_value)
            assert (answer.history, answer.elapsed > 0) == ((), True)
            assert abs(parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()) < 3600
        assert (
            client.get(scene.accounts, headers={"Authorization": f"Bearer {fields['accessToken']}"}).status
            == 200
        )
    (real,) = [each for each in scene.server.requests if each.method == "POST"]
    assert real.path.endswith("/auth/accesstokenrequest")
    uninstrument()
    with bare(stack) as client:
        assert scene.log_in(client).keys() == fields.keys()


@every_stack
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_renewal_is_answered(stack: Stack, method: str, scene: Scene) -> None:
    """A renewal gets the shared token, whatever token it carries."""
    with instrument(scene.provider), bare(stack) as client:
        for headers in (DEAD, {}, {"Authorization": scene.provider.get().authorization}):
            fields = parsed(client.call(method, scene.renewal, headers=headers))
            assert fields["accessToken"] == scene.provider.get().value
    assert scene.exchanges == (1, 0)


@every_stack
def test_an_answered_login_can_be_streamed(stack: Stack, scene: Scene) -> None:
    """The answer is the library's own response, also for a client that reads it piece by piece."""
    with instrument(scene.provider), bare(stack) as client:
        answer = client.call("POST", scene.login, json={"name": scene.user}, stream=True)
        assert parsed(answer)["name"] == scene.user
        assert int(answer.headers["content-length"]) == len(answer.body)
        assert answer.url == scene.login


@every_stack
def test_a_login_that_our_source_cannot_answer(stack: Stack, scene: Scene) -> None:
    """If the provider has no token, its own error comes out of the client's login and out of its calls."""
    with scene.another(who={"password": "wrong"}) as refused, instrument(refused), bare(stack) as client:
        with pytest.raises(LoginRefused):
            client.call("POST", scene.login, json={"name": scene.user})
        with pytest.raises(LoginRefused):
            client.get(scene.accounts)
    assert scene.exchanges == (1, 0)


@every_stack
def test_a_login_for_somebody_else_passes(stack: Stack, scene: Scene) -> None:
    """It reaches the server, with one warning; its token is its own from then on, renewals included; ours is not used."""
    scene.server.add_user("somebody", "secret")
    with instrument(scene.provider), bare(stack) as client:
        for _ in range(2):
            theirs = scene.log_in(client, name="somebody", password="secret")["accessToken"]
        for _ in range(2):
            headers = {"Authorization": f"Bearer {theirs}"}
            assert client.get(scene.accounts, headers=headers).status == 200
            assert scene.carried[-1] == f"Bearer {theirs}"
            theirs = parsed(client.get(scene.renewal, headers=headers))["accessToken"]
        assert client.get(scene.accounts, headers=DEAD).status == 200
        assert scene.carried[-1] == scene.provider.get().authorization
        assert theirs != scene.provider.get().value
        # A login is for whom it names, whatever token it carries.
        ours = client.call("POST", scene.login, json={"name": scene.user}, headers=headers)
        assert parsed(ours)["accessToken"] == scene.provider.get().value
    eventually(lambda: scene.warnings)
    assert [reason for reason in scene.warnings if "somebody" in reason] == scene.warnings
    assert len(scene.warnings) == 1
    assert scene.exchanges == (3, 2)


@every_stack
def test_the_token_of_somebody_else_in_a_later_run(stack: Stack, scene: Scene, tmp_path: Path) -> None:
    """A client keeps the token of its own user in a file. In a later run, or in another process that shares the storage, it is
    still left alone, and so is its renewal; a dead token is still replaced.
    """
    scene.server.add_user("somebody", "secret")
    with scene.another(storage=FileStorage(tmp_path)) as first, instrument(first), bare(stack) as client:
        theirs = scene.log_in(client, name="somebody", password="secret")["accessToken"]
    headers = {"Authorization": f"Bearer {theirs}"}
    with scene.another(storage=FileStorage(tmp_path)) as second, instrument(second), bare(stack) as client:
        client.get(scene.accounts, headers={"Authorization": f"Bearer\t{theirs}"})
        assert client.get(scene.accounts, headers=headers).status == 200
        assert scene.carried == [f"Bearer\t{theirs}", f"Bearer {theirs}"]
        renewed = parsed(client.get(scene.renewal, headers=headers))["accessToken"]
        assert client.get(scene.accounts, headers=DEAD).status == 200
        assert scene.carried[-1] == second.get().authorization
    with scene.another(storage=FileStorage(tmp_path)) as third, instrument(third), bare(stack) as client:
        assert client.get(scene.accounts, headers={"Authorization": f"Bearer {renewed}"}).status == 200
        assert scene.carried[-1] == f"Bearer {renewed}"


@every_stack
def test_the_token_of_somebody_else_after_a_new_beginning(stack: Stack, scene: Scene) -> None:
    """In one process it is left alone also after instrumentation has ended and begun again, with a source of any kind."""
    scene.server.add_user("somebody", "secret")
    for source in (scene.provider, Source(scene, scene.user)):
        with instrument(source), bare(stack) as client:
            theirs = scene.log_in(client, name="somebody", password="secret")["accessToken"]
        with instrument(source), bare(stack) as client:
            client.get(scene.accounts, headers={"Authorization": f"Bearer {theirs}"})
            assert scene.carried[-1] == f"Bearer {theirs}"


@every_stack
def test_the_token_of_somebody_who_did_not_check(stack: Stack, scene: Scene) -> None:
    """A login for another user is heard of also where its client is refused our token for not checking certificates."""
    scene.server.add_user("somebody", "secret")
    made, called = insecure(stack)
    with instrument(scene.provider, insecure="refuse"):
        with bare(stack, **made) as client:
            login = {**login_fields(scene.server), "name": "somebody", "password": "secret"}
            theirs = parsed(client.call("POST", scene.login, json=login, **called))["accessToken"]
        with bare(stack) as client:
            assert client.get(scene.accounts, headers={"Authorization": f"Bearer {theirs}"}).status == 200
    assert scene.carried == [f"Bearer {theirs}"]


@every_stack
def test_the_token_of_somebody_who_logs_in_elsewhere(stack: Stack, scene: Scene) -> None:
    """A token that a kindred host has granted to another user may be used at ours: it is left alone too; one that was granted
    there to our own user is replaced.
    """
    with Emulator() as elsewhere, instrument(scene.provider), bare(stack) as client:
        elsewhere.add_user("somebody", "secret")
        url = f"{elsewhere.url}/auth/accesstokenrequest"
        for name, password in (("somebody", "secret"), (scene.user, elsewhere.credentials["password"])):
            login = {**login_fields(elsewhere), "name": name, "password": password}
            granted = parsed(client.call("POST", url, json=login))["accessToken"]
            client.get(scene.accounts, headers={"Authorization": f"Bearer {granted}"})
            expected = f"Bearer {granted}" if name == "somebody" else scene.provider.get().authorization
            assert scene.carried[-1] == expected


@every_stack
def test_the_token_that_the_user_of_a_source_gets_elsewhere(stack: Stack, scene: Scene) -> None:
    """Who the user of a source that is no provider is has been seen from an answered login: his token from a kindred host is
    replaced.
    """
    with Emulator() as elsewhere, instrument(Source(scene, scene.user)), bare(stack) as client:
        scene.log_in(client)
        login = {**login_fields(elsewhere), "name": scene.user}
        url = f"{elsewhere.url}/auth/accesstokenrequest"
        granted = parsed(client.call("POST", url, json=login))["accessToken"]
        client.get(scene.accounts, headers={"Authorization": f"Bearer {granted}"})
    assert scene.carried == ["Bearer token"]


@every_stack
def test_a_token_that_comes_by_oauth(stack: Stack, scene: Scene) -> None:
    """It is granted to whoever has signed in at the vendor's page: it is left alone."""
    scene.server.inject(Fault("*", "json", payload={"access_token": "by-oauth"}))
    with instrument(scene.provider), bare(stack) as client:
        client.call("POST", f"{scene.server.url}/auth/oauthtoken", data={"grant_type": "authorization_code"})
        client.get(scene.accounts, headers={"Authorization": "Bearer by-oauth"})
    assert scene.carried == ["Bearer by-oauth"]


@every_stack
def test_a_storage_that_cannot_be_asked(stack: Stack, scene: Scene, fake_clock: FakeClock) -> None:
    """Clients are served by the usual rule, with one warning."""
    storage = FrailStorage(clock=fake_clock)
    with scene.another(storage=storage) as provider, instrument(provider), bare(stack) as client:
        provider.get()
        storage.broken = {"load"}
        for _ in range(2):
            assert client.get(scene.accounts, headers=DEAD).status == 200
        eventually(lambda: [reason for reason in scene.warnings if "cannot be asked" in reason])
    assert len([reason for reason in scene.warnings if "cannot be asked" in reason]) == 1


@every_stack
@pytest.mark.parametrize("policy", ["warn", "refuse"])
def test_the_token_of_another_source(stack: Stack, policy: Any, scene: Scene) -> None:
    """A token that one source has given to a client is not replaced by another's where the client sends it in another way;
    nor is it sent where none may be.
    """
    scene.server.add_user("somebody", "secret")
    made, called = insecure(stack)
    other = scene.another(who={"name": "somebody", "password": "secret"})
    with (
        other,
        instrument(scene.provider, insecure=policy),
        bare(stack) as first,
        bare(stack) as second,
        bare(stack, **made) as careless,
    ):
        inner: Any = getattr(second, "session", None) or second.client  # type: ignore[attr-defined]
        with instrument_client(inner, source=other):
            theirs = scene.log_in(second, name="somebody")["accessToken"]
        headers = {"Authorization": f"Bearer {theirs}"}
        assert first.get(scene.accounts, headers=headers).status == 200
        careless.get(scene.accounts, headers=headers, **called)
        assert scene.carried == [f"Bearer {theirs}", f"Bearer {theirs}" if policy == "warn" else None]


@every_stack
@pytest.mark.parametrize("policy", ["warn", "refuse"])
def test_the_token_of_another_provider(stack: Stack, policy: Any, scene: Scene) -> None:
    """A token that a second provider has obtained is not replaced either where somebody takes it out and puts it into a header;
    nor sent where none may be.
    """
    scene.server.add_user("somebody", "secret")
    made, called = insecure(stack)
    other = scene.another(who={"name": "somebody", "password": "secret"})
    with (
        other,
        instrument(scene.provider, insecure=policy),
        bare(stack) as client,
        bare(stack, **made) as careless,
    ):
        theirs = other.get().authorization
        headers = {"Authorization": theirs}
        assert client.get(scene.accounts, headers=headers).status == 200
        client.post(f"{scene.server.url}/order/placeorder", Body("json"), headers=headers)
        careless.get(scene.accounts, headers=headers, **called)
    assert scene.carried == [theirs, theirs, theirs if policy == "warn" else None]


class Rude(MemoryStorage):
    """A storage of somebody's own, whose errors are of any kind."""

    broken = False

    def load(self, key: str) -> Any:
        """See `Storage.load`."""
        if self.broken:
            raise OSError("database is locked")
        return super().load(key)


@every_stack
def test_a_storage_with_errors_of_its_own(stack: Stack, scene: Scene) -> None:
    """None of them comes out of a client's request, or takes the place of what the server has granted; one warning tells."""
    storage = Rude()
    scene.server.add_user("somebody", "secret")
    with scene.another(storage=storage) as provider, instrument(provider), bare(stack) as client:
        provider.get()
        storage.broken = True
        assert scene.log_in(client, name="somebody", password="secret")["accessToken"]
        assert client.get(scene.accounts, headers=DEAD).status == 200
        eventually(lambda: [reason for reason in scene.warnings if "cannot be asked" in reason])
    assert len([reason for reason in scene.warnings if "cannot be asked" in reason]) == 1


@every_stack
def test_the_storage_is_back(stack: Stack, scene: Scene, fake_clock: FakeClock) -> None:
    """Another user's token that could not be saved is, with the next request that a client makes, whichever it is."""
    storage = FrailStorage(clock=fake_clock)
    scene.server.add_user("somebody", "secret")
    with (
        scene.another(storage=storage, clock=fake_clock) as provider,
        instrument(provider),
        bare(stack) as client,
    ):
        provider.get()
        storage.broken = {"save"}
        theirs = scene.log_in(client, name="somebody", password="secret")["accessToken"]
        storage.broken = set()
        fake_clock.advance(15.0)
        assert client.get(scene.accounts).status == 200
        record = strangers_key(provider._account.environment)
        eventually(lambda: _given.digest_of(theirs) in (storage.load(record) or Record()).strangers)


@every_stack
def test_the_token_that_a_source_gave_away_before(stack: Stack, scene: Scene) -> None:
    """A source that is no provider is asked who its user is, when instrumentation begins anew: what it has given to a client
    then is ours, and replaced. An error of its own leaves the client's request as it is, where none of ours may be sent.
    """
    source = Source(scene, scene.user)
    with bare(stack) as client:
        with instrument(source):
            given = {"Authorization": f"Bearer {scene.log_in(client)['accessToken']}"}
        source.token = replace(source.token, value="newer")
        with instrument(source):
            client.get(scene.accounts, headers=given)
    assert scene.carried == ["Bearer newer"]
    made, called = insecure(stack)
    source.patience = -1.0
    with instrument(source, insecure="refuse"), bare(stack, **made) as client:
        client.get(scene.accounts, headers=given, **called)
    assert scene.carried == ["Bearer newer", None]


def test_a_user_whom_the_server_calls_otherwise(scene: Scene) -> None:
    """The name in a token need not be the one that logs in, such as an e-mail address: what was given away is still ours."""
    ends = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).isoformat()
    fields = {"accessToken": "first", "expirationTime": ends, "name": "another spelling"}
    scene.server.inject(Fault("login", "json", payload=fields))
    overlay = Overlay(scene.provider, logins="answer", insecure="warn")
    assert b'"first"' in (overlay.settle("login", scene.user, None).answer or b"")
    scene.provider.renew()
    assert scene.provider.get().value != "first"
    assert overlay.whose("Bearer first") == "ours"


@every_stack
def test_a_call_that_is_under_way_at_the_end(stack: Stack, scene: Scene) -> None:
    """A call that finds its provider closed, because instrumentation has ended meanwhile, goes out as the client made it; where
    somebody has closed the provider by himself, that is the call's error.
    """
    provider = scene.another()
    with instrument(provider), bare(stack) as client:
        provider.close()
        for call in (lambda: client.get(scene.accounts, headers=DEAD), lambda: scene.log_in(client)):
            with pytest.raises(ProviderClosed):
                call()
        EVERYWHERE[stack.name.partition("-")[0]].close()
        assert client.get(scene.accounts, headers=DEAD).status == 401
        assert scene.log_in(client)["accessToken"]
    assert scene.carried == [DEAD["Authorization"]]


@every_stack
def test_a_login_that_names_nobody_passes(stack: Stack, scene: Scene) -> None:
    """Whose login cannot be told is not answered with our token."""
    with instrument(scene.provider), bare(stack) as client:
        raw = "content" if stack.name.startswith("httpx") else "data"
        bodies: list[dict[str, Any]] = [
            {raw: b"\xff"},
            {"json": {"user": scene.user}},
            {"json": {"name": ""}},
        ]
        for body in bodies:
            assert "accessToken" not in json.loads(client.call("POST", scene.login, **body).body)
    eventually(lambda: scene.warnings)
    assert len(scene.warnings) == 1
    assert scene.exchanges == (3, 0)


@every_stack
def test_a_login_elsewhere_passes(stack: Stack, scene: Scene) -> None:
    """A login at another environment reaches it, with one warning that names it."""
    with Emulator() as elsewhere, instrument(scene.provider), bare(stack) as client:
        for _ in range(2):
            answer = client.call(
                "POST", f"{elsewhere.url}/auth/accesstokenrequest", json=login_fields(elsewhere)
            )
            assert parsed(answer)["accessToken"]
        assert elsewhere.counts.logins_granted == 2
        eventually(lambda: scene.warnings)
        assert [f"{elsewhere.origin}," in reason for reason in scene.warnings] == [True]
    assert scene.exchanges == (0, 0)


@every_stack
def test_logins_may_pass(stack: Stack, scene: Scene) -> None:
    """With logins="pass" they go out unsigned, as the client made them, and so do renewals; other calls get our token."""
    with instrument(scene.provider, logins="pass"), bare(stack) as client:
        own = scene.log_in(client)["accessToken"]
        headers = {"Authorization": f"Bearer {own}"}
        assert parsed(client.get(scene.renewal, headers=headers))["accessToken"] != own
        assert client.get(scene.accounts, headers=headers).status == 200
    assert scene.carried == [scene.provider.get().authorization]
    assert scene.exchanges == (2, 1)
    assert [each.authorization for each in scene.server.requests if "/auth/" in each.path] == [
        None,
        headers["Authorization"],
        None,
    ]
    assert scene.warnings == []


class Source:
    """A `TokenSource` that is no provider; it may ask somebody for its tokens over an instrumented library."""

    def __init__(
        self,
        scene: Scene,
        name: str = "",
        ask: Callable[[], object] = lambda: None,
        hosts: Mapping[str, str] | None = None,
    ) -> None:
        self.environment = Environment.of(scene.server.url)
        self.asked: list[float] = []
        self.ask = ask
        self.patience = math.inf
        self.token = AccessToken(
            value="token",
            issued_at=at(0),
            expires_at=at(4800),
            name=name,
            details={"a": 1},
            hosts=hosts or {},
        )

    def get(self, timeout: float | None = 30.0, *, min_ttl: float = 0.0) -> AccessToken:
        """See `TokenSource`."""
        assert timeout == 30.0
        self.asked.append(min_ttl)
        self.ask()
        if min_ttl > self.patience:
            raise TokenTimeout
        return self.token

    async def aget(self, *, min_ttl: float = 0.0) -> AccessToken:
        """See `TokenSource`."""
        return self.get(min_ttl=min_ttl)

    def reject(self, token: AccessToken, *, method: str = "", path: str = "") -> bool:
        """See `TokenSource`."""
        return False

    def report(self, token: AccessToken, status: int) -> None:
        """See `TokenSource`."""


@every_stack
def test_a_source_that_is_no_provider(stack: Stack, scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """Its user is the one that its token names; what there is to warn of is logged. A client that logs in is given the
    token in hand; one that renews is given one with half of its life ahead, else the one in hand; or the source's own error.
    """
    source = Source(scene, scene.user.upper())
    with instrument(source), bare(stack) as client, caplog.at_level(logging.WARNING, "tradovate_auth"):
        assert scene.log_in(client) == {
            "accessToken": "token",
            "a": 1,
            "expirationTime": "1970-01-01T01:20:00.000Z",
            "name": scene.user.upper(),
        }
        assert max(source.asked) == 0.0, "logins spend no renewal"
        assert client.get(scene.accounts).status == 401
        assert scene.carried == ["Bearer token"]
        assert json.loads(client.get(scene.renewal).body)["accessToken"] == "token"
        assert max(source.asked) == 2400.0
        source.patience = 1.0
        assert json.loads(client.get(scene.renewal).body)["accessToken"] == "token"
        source.patience = -1.0
        with pytest.raises(TokenTimeout):
            scene.log_in(client)
        source.patience = math.inf
        scene.log_in(client, name="somebody")
    assert [f"logs in as somebody, not as {scene.user.upper()}" in text for text in caplog.messages] == [True]
    assert scene.exchanges == (1, 0)


@every_stack
def test_a_source_that_names_nobody_answers_no_login(stack: Stack, scene: Scene) -> None:
    """If it is not known whose token it is, it is given to no login."""
    with instrument(Source(scene)), bare(stack) as client:
        assert scene.log_in(client)["accessToken"] != "token"
    assert scene.exchanges == (1, 0)


@every_stack
def test_a_source_may_use_the_same_libraries(stack: Stack, scene: Scene) -> None:
    """What a source of the user's own asks for a token, over an instrumented library at our own origin, is left alone."""
    source = Source(
        scene,
        scene.user,
        lambda: requests.post(scene.login, json=login_fields(scene.server), timeout=30).raise_for_status(),
    )
    with instrument(source), bare(stack) as client:
        assert client.get(scene.accounts).status == 401
    assert scene.server.counts.logins_granted == 1


@one_of_each
def test_our_own_auth_calls_pass(stack: Stack, scene: Scene) -> None:
    """A provider whose transport is an instrumented library logs in and renews at the server; so does another provider in
    the same process, whose calls are nobody else's.
    """
    with (
        scene.another(transport=stack.transport()) as provider,
        scene.another(transport=stack.transport()) as other,
        instrument(provider),
        bare(stack) as client,
    ):
        assert client.get(scene.accounts).status == 200
        provider.renew()
        assert other.get().value != provider.get().value
    assert scene.exchanges == (2, 1)


@every_stack
def test_an_insecure_client_gets_the_token_with_a_warning(stack: Stack, scene: Scene) -> None:
    """One warning, however many clients and calls."""
    made, called = insecure(stack)
    with instrument(scene.provider):
        for _ in range(2):
            with bare(stack, **made) as client:
                assert client.get(scene.accounts, **called).status == 200
                assert client.get(scene.accounts, **called).status == 200
        with bare(stack) as client:
            assert client.get(scene.accounts).status == 200
    eventually(lambda: scene.warnings)
    (warning,) = scene.warnings
    assert "does not check certificates" in warning


@every_stack
def test_an_insecure_client_may_be_refused_the_token(stack: Stack, scene: Scene) -> None:
    """With insecure="refuse" it gets neither the token nor an answer that holds it; others get both."""
    made, called = insecure(stack)
    with instrument(scene.provider, insecure="refuse"):
        with bare(stack, **made) as client:
            assert client.get(scene.accounts, headers=DEAD, **called).status == 401
            answer = client.call("POST", scene.login, json=login_fields(scene.server), **called)
            assert parsed(answer)["accessToken"]
            assert scene.exchanges == (1, 0)
        with bare(stack) as client:
            assert scene.log_in(client)["accessToken"] == scene.provider.get().value
    assert scene.carried == [DEAD["Authorization"]]
    eventually(lambda: scene.warnings)
    assert len(scene.warnings) == 1


@every_stack
def test_an_insecure_client_may_not_send_what_it_was_given(
    stack: Stack, scene: Scene, tmp_path: Path
) -> None:
    """With insecure="refuse" our token goes out over no connection without checks, wherever the client has it from: out of an
    answered login or out of a file; not with a renewal either. Without it the request goes out.
    """
    made, called = insecure(stack)
    with scene.another(storage=FileStorage(tmp_path)) as first, instrument(first, insecure="refuse"):
        with bare(stack) as client:
            headers = {"Authorization": f"Bearer {scene.log_in(client)['accessToken']}"}
        with bare(stack, **made) as client:
            assert client.get(scene.accounts, headers=headers, **called).status == 404
            assert client.get(scene.renewal, headers=headers, **called).status != 200
            first.renew()
            assert client.get(scene.accounts, headers=headers, **called).status == 404
        kept = {"Authorization": first.get().authorization}
    with (
        scene.another(storage=FileStorage(tmp_path)) as second,
        instrument(second, insecure="refuse"),
        bare(stack, **made) as client,
    ):
        assert client.get(scene.accounts, headers=kept, **called).status == 404
    assert scene.carried == [None] * 3
    assert all(each.authorization is None for each in scene.server.requests if "renew" not in each.path)


@pytest.mark.parametrize(("policy", "admitted"), [("warn", True), ("refuse", False)])
def test_checks_that_cannot_be_seen(policy: Any, admitted: bool, scene: Scene) -> None:
    """A client of which nobody can tell is treated as one that checks nothing, and the warning says which of the two it is."""
    overlay = Overlay(scene.provider, logins="answer", insecure=policy)
    assert overlay.admits("httpx", checked=None) is admitted
    eventually(lambda: scene.warnings)
    assert ["cannot be seen" in reason for reason in scene.warnings] == [True]


def test_a_warning_comes_on_a_thread_of_ours(scene: Scene) -> None:
    """A listener that takes its time, or asks the provider, keeps no client waiting; the status tells of the warning."""
    entered, leave = threading.Event(), threading.Event()

    def listener(event: object) -> None:
        if isinstance(event, Warned):
            entered.set()
            assert leave.wait(30)
            assert provider.get().name == scene.user

    with scene.another(on_event=listener) as provider, instrument(provider):
        provider.get()
        assert requests.get(scene.accounts, verify=False, timeout=30).status_code == 200
        assert entered.wait(30)
        assert requests.get(scene.accounts, timeout=30).status_code == 200
        assert "does not check" in str(provider.status().last_event)
        leave.set()


def test_a_listener_may_call(scene: Scene) -> None:
    """What a listener asks the server when a login was granted is an ordinary call, although a flight's thread makes it."""
    statuses: list[int] = []

    def listener(event: object) -> None:
        if isinstance(event, LoggedIn):
            statuses.append(requests.get(scene.accounts, timeout=30).status_code)

    with scene.another(on_event=listener) as provider, instrument(provider):
        provider.get()
        eventually(lambda: statuses)
    assert statuses == [200]


def test_warnings_do_not_pile_up(scene: Scene) -> None:
    """However many names are tried, the memory of what was told has an end."""
    overlay = Overlay(scene.provider, logins="answer", insecure="warn")
    overlay.remember_stranger(b'{"accessToken": "\\ud800"}')  # no text that could be sent, but JSON
    for number in range(300):
        overlay.settle("login", f"user {number}", None)
    eventually(lambda: len(scene.warnings) == 256)
    assert len(scene.warnings) == 256


def test_everything_is_undone(scene: Scene) -> None:
    """While it lasts every point is wrapped; afterwards each is the very object that it was."""
    with instrument(scene.provider) as given:
        assert untouched() == [False] * len(POINTS)
        assert given.source is scene.provider
        assert repr(given) == f"<Instrumentation with {scene.provider!r}>"
    assert untouched() == [True] * len(POINTS)
    uninstrument()
    given.uninstrument()
    assert untouched() == [True] * len(POINTS)


@one_of_each
def test_one_library_alone(stack: Stack, scene: Scene) -> None:
    """A library that is switched off is not touched."""
    chosen: Any = {name: name == stack.name for name in LIBRARIES}
    with instrument(scene.provider, **chosen):
        touched = {
            kind.__module__.partition(".")[0]
            for (kind, _), same in zip(POINTS, untouched(), strict=True)
            if not same
        }
        assert touched == {stack.name}
        for each in (REQUESTS, HTTPX, HTTPX2, AIOHTTP):
            with bare(each) as client:
                assert client.get(scene.accounts, headers=DEAD).status == (200 if each is stack else 401)


def test_the_same_again_is_counted(scene: Scene) -> None:
    """Called again it wraps nothing twice, and ends with the last one that is undone; `uninstrument` ends them all."""
    outer = instrument(scene.provider)
    wrapped = vars(httpx.Client)["send"]
    with instrument(scene.provider):
        assert vars(httpx.Client)["send"] is wrapped
    assert vars(httpx.Client)["send"] is wrapped
    outer.uninstrument()
    outer.uninstrument()
    assert untouched() == [True] * len(POINTS)
    old = [instrument(scene.provider) for _ in range(2)]
    uninstrument()
    assert untouched() == [True] * len(POINTS)
    with instrument(scene.provider):
        old[0].uninstrument()
        old[1].uninstrument()
        assert untouched() == [False] * len(POINTS)


@pytest.mark.parametrize("change", [{"logins": "pass"}, {"insecure": "refuse"}, {"httpx": False}])
def test_another_way_is_an_error(change: dict[str, Any], scene: Scene) -> None:
    """Somebody who wants something else is told, and changes nothing."""
    with instrument(scene.provider), pytest.raises(ConfigurationError, match="uninstrument"):
        instrument(scene.provider, **change)
    with instrument(scene.provider), scene.another() as other, pytest.raises(ConfigurationError):
        instrument(other)
    assert untouched() == [True] * len(POINTS)


def test_a_listener(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hears of the provider that is made; whoever brings none, or the same, joins it, and another one is an error."""
    for name, value in scene.server.credentials.items():
        monkeypatch.setenv(f"TRADOVATE_{name.upper()}", str(value))
    monkeypatch.setenv("TRADOVATE_ENVIRONMENT", scene.server.url)
    with instrument(on_event=scene.events), instrument(), instrument(on_event=scene.events):
        assert requests.get(scene.accounts, timeout=30).status_code == 200
        eventually(lambda: scene.events.of(LoggedIn), "the event")
        with pytest.raises(ConfigurationError, match="instrumented already"):
            instrument(on_event=print)
    with instrument(), pytest.raises(ConfigurationError, match="instrumented already"):
        instrument(on_event=print)


def test_a_listener_for_nothing(scene: Scene) -> None:
    """A source has a listener of its own, or none: another one would hear nothing, and the error says where it belongs."""
    with pytest.raises(ConfigurationError, match="listener") as caught:
        instrument(scene.provider, on_event=scene.events)
    assert "TokenProvider(on_event=...)" in str(caught.value.advice)
    assert untouched() == [True] * len(POINTS)


@pytest.mark.parametrize(
    "arguments",
    [{"logins": "maybe"}, {"insecure": "sure"}, {"source": "demo"}, {"source": Credentials("a", "b")}],
)
def test_wrong_arguments(arguments: dict[str, Any]) -> None:
    """They are errors at once, and leave nothing behind."""
    with pytest.raises(ConfigurationError):
        instrument(**{"source": Source, **arguments})
    assert untouched() == [True] * len(POINTS)


def test_from_the_environment(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a source it is the environment's, made at once and closed at the end; nothing is sent before a client asks."""
    with pytest.raises(ConfigurationError, match="TRADOVATE_NAME"):
        instrument()
    assert untouched() == [True] * len(POINTS)
    for name, value in scene.server.credentials.items():
        monkeypatch.setenv(f"TRADOVATE_{name.upper()}", str(value))
    monkeypatch.setenv("TRADOVATE_ENVIRONMENT", scene.server.url)
    with instrument() as given, instrument() as same, requests.Session() as session:
        assert given.source is same.source
        assert scene.exchanges == (0, 0)
        instrument_client(session).uninstrument()
        assert requests.get(scene.accounts, timeout=30).status_code == 200
    assert scene.exchanges == (1, 0)
    with pytest.raises(ProviderClosed):
        given.source.get()
    with instrument():
        assert httpx.get(scene.accounts).status_code == 200
    assert scene.exchanges == (1, 0)  # in the process's own storage


def test_many_threads(scene: Scene) -> None:
    """Threads that begin and end as they like: whoever is inside is served, and at the end nothing is left."""

    def one() -> list[int]:
        statuses = []
        for _ in range(5):
            with instrument(scene.provider):
                statuses.append(requests.get(scene.accounts, timeout=30).status_code)
        return statuses

    assert at_once(8, one) == [[200] * 5] * 8
    assert untouched() == [True] * len(POINTS)
    assert scene.exchanges == (1, 0)


def test_the_source_stays_open(scene: Scene) -> None:
    """A provider that was handed in is not closed."""
    with instrument(scene.provider):
        pass
    uninstrument()
    assert scene.provider.get().name == scene.user


class TestUnderOtherWrappers:
    """Somebody else wraps the same attribute."""

    @pytest.fixture(params=["wrapt", "closure"])
    def wrapping(self, request: pytest.FixtureRequest) -> Iterator[Callable[[], Callable[[], None]]]:
        """A function that wraps `httpx.Client.send` and returns how to take that away; and how often it was called."""
        self.calls = 0

        def around(wrapped: Any, _instance: object, args: Any, kwargs: Any) -> Any:
            self.calls += 1
            return wrapped(*args, **kwargs)

        def with_wrapt() -> Callable[[], None]:
            handle = wrapt.wrap_function_wrapper(httpx.Client, "send", around)
            return lambda: wrapt.unwrap_object(httpx.Client, "send", handle) and None

        def with_closure() -> Callable[[], None]:
            below: Any = httpx.Client.__dict__["send"]

            def send(client: httpx.Client, *args: Any, **kwargs: Any) -> Any:
                self.calls += 1
                return below.__get__(client)(*args, **kwargs)

            send.__wrapped__ = below  # type: ignore[attr-defined]
            httpx.Client.send = send  # type: ignore[assignment]
            return lambda: setattr(httpx.Client, "send", below)

        yield with_wrapt if request.param == "wrapt" else with_closure
        httpx.Client.send = ORIGINAL[POINTS.index((httpx.Client, "send"))]  # type: ignore[method-assign]

    def test_below_ours(self, wrapping: Callable[[], Callable[[], None]], scene: Scene) -> None:
        """Theirs first: both work, and ours goes without a trace."""
        remove = wrapping()
        theirs = vars(httpx.Client)["send"]
        with instrument(scene.provider):
            assert httpx.get(scene.accounts).status_code == 200
        assert vars(httpx.Client)["send"] is theirs
        assert httpx.get(scene.accounts).status_code == 404
        assert self.calls == 2
        remove()
        assert untouched() == [True] * len(POINTS)

    def test_on_top_of_ours(self, wrapping: Callable[[], Callable[[], None]], scene: Scene) -> None:
        """Ours first: both work; ended, ours lets everything pass, works again when it is wanted again, and has gone once
        theirs has.
        """
        with instrument(scene.provider):
            remove = wrapping()
            assert httpx.get(scene.accounts).status_code == 200
        assert httpx.get(scene.accounts).status_code == 404
        with instrument(scene.provider):
            assert httpx.get(scene.accounts).status_code == 200
            assert len(scene.carried) == 3
        assert self.calls == 3
        remove()
        with instrument(scene.provider):
            assert httpx.get(scene.accounts).status_code == 200
        assert untouched() == [True] * len(POINTS)

    @pytest.mark.parametrize("theirs_first", [True, False])
    @pytest.mark.parametrize("ours_ends_first", [True, False])
    def test_one_that_takes_off_whatever_is_outermost(
        self, theirs_first: bool, ours_ends_first: bool, scene: Scene
    ) -> None:
        """OpenTelemetry's way of undoing, by the bound attribute and whosever wrapper that is: in each order both work, and
        the attribute is the original one at the end.
        """
        told: list[object] = []

        def around(wrapped: Any, instance: object, args: Any, kwargs: Any) -> Any:
            told.append(instance)
            return wrapped(*args, **kwargs)

        def begin() -> None:
            wrapt.wrap_function_wrapper(httpx.Client, "send", around)

        def end() -> None:
            httpx.Client.send = httpx.Client.send.__wrapped__  # type: ignore[method-assign, attr-defined]

        begin() if theirs_first else None
        given = instrument(scene.provider)
        None if theirs_first else begin()
        assert httpx.get(scene.accounts).status_code == 200
        for step in (given.uninstrument, end) if ours_ends_first else (end, given.uninstrument):
            step()
            assert httpx.get(scene.accounts).status_code == (
                200 if step == end and not ours_ends_first else 404
            )
        assert len(told) == (2 if ours_ends_first else 1)
        assert untouched() == [True] * len(POINTS)

    def test_replaced_and_put_back(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        """Somebody swaps the attribute for a double and puts ours back after we have ended: it is gone the next time."""
        with monkeypatch.context() as patch:
            with instrument(scene.provider):
                patch.setattr(httpx.Client, "send", lambda *_, **__: httpx.Response(418))
            assert httpx.get(scene.accounts).status_code == 418
        assert httpx.get(scene.accounts).status_code == 404
        with instrument(scene.provider):
            assert httpx.get(scene.accounts).status_code == 200
        assert untouched() == [True] * len(POINTS)


LATER = """
import http.client, json, logging, sys, threading
from urllib.parse import urlsplit
from tradovate_auth import Credentials, TokenProvider
from tradovate_auth.instrumentation import instrument, uninstrument
from tradovate_auth.storage import MemoryStorage
from tradovate_auth.transport import Reply

class Plain:
    def send(self, call, timeout):
        parts = urlsplit(call.url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
        connection.request(call.method, parts.path, call.body, dict(call.headers))
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return Reply(answer.status, dict(answer.getheaders()), body)

url, fields = sys.argv[1] + "/account/list", json.loads(sys.argv[2])
provider = TokenProvider(Credentials(**fields), environment=sys.argv[1], storage=MemoryStorage(), transport=Plain())

def clean():
    return not {"requests", "httpx", "httpx2", "aiohttp"} & set(sys.modules)

class Log(logging.Handler):
    lines = threading.Semaphore(0)
    def emit(self, record):
        print(record.getMessage(), flush=True)
        self.lines.release()

def told():
    return Log.lines.acquire(timeout=30)

logging.getLogger("tradovate_auth").addHandler(Log())
"""


def later(scene: Scene, script: str) -> str:
    """Run a script in a process that has imported no client library; return what it prints."""
    done = run_script(LATER + script, scene.server.url, json.dumps(scene.server.credentials))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_libraries_that_are_imported_later(scene: Scene) -> None:
    """Instrumentation imports no library; each is wrapped when somebody imports it, unless it has been switched off."""
    script = """
with instrument(provider):
    pass
given = instrument(provider, httpx2=False)
assert clean()
import asyncio, requests, httpx, httpx2, aiohttp
async def status():
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status
def all_four():
    found = [requests.get(url).status_code, httpx.get(url).status_code, httpx2.get(url).status_code]
    return [*found, asyncio.run(status())]
print(all_four())
given.uninstrument()
print(all_four())
print([type(found).__name__ for found in (vars(requests.Session)["get_adapter"], vars(httpx.Client)["send"])])
"""
    assert later(scene, script).splitlines() == [
        "[200, 200, 404, 200]",
        "[404, 404, 404, 404]",
        "['function', 'function']",
    ]


def test_a_library_that_another_thread_is_importing(scene: Scene, tmp_path: Any) -> None:
    """It is waited for: what is half imported has nothing that could be wrapped."""
    (tmp_path / "requests.py").write_text(
        "import sys, threading\nsys.half.set()\nsys.whole.wait(30)\nclass Session:\n    get_adapter = None\n"
    )
    script = f"""
sys.path.insert(0, {str(tmp_path)!r})
sys.half, sys.whole = threading.Event(), threading.Event()
def import_it():
    import requests
importing = threading.Thread(target=import_it)
importing.start()
assert sys.half.wait(30)
threading.Timer(0.2, sys.whole.set).start()
instrument(provider)
importing.join()
assert told()
"""
    assert later(scene, script) == warning(scene, "requests", f"{UNKNOWN} (ModuleNotFoundError)")


def warning(scene: Scene, named: str, reason: str) -> str:
    """Return what the log says of a library that is left alone."""
    account = f"{scene.user} at {scene.server.url.split('/')[2]}"
    return f"Warned: {named} cannot be instrumented: {reason} ({account})"


UNKNOWN = "it is not built like the versions that are known"


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("3.11.18", "3.12.4 or newer is needed"),
        ("3.12.0rc1", "3.12.4 or newer is needed"),
        ("3.9", "3.12.4 or newer is needed"),
        ("3.12.4", f"{UNKNOWN} (ImportError)"),
        ("4.0", f"{UNKNOWN} (ImportError)"),
        ("of a fork", f"{UNKNOWN} (ImportError)"),
    ],
)
def test_a_version_that_cannot_be_instrumented(
    version: str, reason: str, scene: Scene, tmp_path: Path
) -> None:
    """A version that is too old is left alone before it can fail in the middle of a request; each `instrument` tells of it,
    with what is needed, and so does the one that covers a single client.
    """
    (tmp_path / "aiohttp.py").write_text(f"__version__ = {version!r}\nclass ClientSession: pass\n")
    script = f"""
sys.path.insert(0, {str(tmp_path)!r})
from tradovate_auth.instrumentation import instrument_client
given = instrument(provider)
import aiohttp
assert told()
given.uninstrument()
instrument(provider).uninstrument()
assert told()
instrument_client(aiohttp.ClientSession(), source=provider)
assert told()
"""
    assert later(scene, script).splitlines() == [warning(scene, f"aiohttp {version}", reason)] * 3


def test_a_version_that_nobody_wants(scene: Scene, tmp_path: Path) -> None:
    """A library that is imported when everything has been undone is nobody's business any more."""
    (tmp_path / "aiohttp.py").write_text("__version__ = '3.11.18'\n")
    script = f"""
sys.path.insert(0, {str(tmp_path)!r})
instrument(provider).uninstrument()
import aiohttp
"""
    assert later(scene, script) == ""


@pytest.mark.parametrize(
    "has",
    ["USE_CLIENT_DEFAULT = None", "class Client: pass\nAuth = AsyncClient = USE_CLIENT_DEFAULT = Client"],
)
def test_a_library_that_is_not_the_one_we_know(has: str, scene: Scene, tmp_path: Any) -> None:
    """A library without the attributes that are wrapped is left alone, can be imported, and is told of; the others' clients
    are still known as theirs.
    """
    (tmp_path / "httpx.py").write_text(f"{has}\n")
    script = f"""
sys.path.insert(0, {str(tmp_path)!r})
instrument(provider)
import httpx, httpx2
from tradovate_auth.instrumentation import instrument_client
instrument_client(httpx2.Client())
assert told()
"""
    assert later(scene, script) == warning(scene, "httpx", f"{UNKNOWN} (AttributeError)")


def test_as_a_program() -> None:
    """`python -m` runs the runner."""
    script = "import runpy, sys; sys.argv[1:] = ['--help']; runpy.run_module('tradovate_auth.instrumentation', run_name='__main__')"
    done = run_script(script.replace("; runpy", "; sys.warnoptions.clear(); runpy"))
    assert (done.returncode, "python -m tradovate_auth.instrumentation" in done.stdout) == (0, True)


def test_a_child_that_was_forked_meanwhile(scene: Scene) -> None:
    """A fork that happens while another thread begins or ends leaves the child able to do both."""
    script = """
import os
from tradovate_auth._instrument_state import STATE
with STATE._entering, STATE._wrapping:
    child = os.fork()
    if not child:
        with instrument(provider):
            import requests
            os._exit(0 if requests.get(url).status_code == 200 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert later(scene, script) == "0"


@every_stack
def test_one_client(stack: Stack, scene: Scene) -> None:
    """One client alone is instrumented with a source of its own; others are not, and its end is the end."""
    with bare(stack) as other, bare(stack) as client:
        inner: Any = getattr(client, "session", None) or client.client  # type: ignore[attr-defined]
        with instrument_client(inner, source=scene.provider) as given, bare(stack) as later:
            assert isinstance(given, Instrumentation)
            assert client.get(scene.accounts, headers=DEAD).status == 200
            assert scene.log_in(client)["accessToken"] == scene.provider.get().value
            assert [each.get(scene.accounts, headers=DEAD).status for each in (other, later)] == [401, 401]
        assert client.get(scene.accounts, headers=DEAD).status == 401
    assert scene.exchanges == (1, 0)


def test_a_client_joins_what_is_in_force(scene: Scene) -> None:
    """Without a source it takes the one in force, for a library that was left alone, and ends with that."""
    with requests.Session() as session, requests.Session() as other:
        outer = instrument(scene.provider, requests=False)
        given = instrument_client(session)
        instrument_client(other)
        assert given.source is scene.provider
        assert [each.get(scene.accounts).status_code for each in (session, other)] == [200, 200]
        given.uninstrument()
        assert [each.get(scene.accounts).status_code for each in (session, other)] == [404, 200]
        outer.uninstrument()
        assert other.get(scene.accounts).status_code == 404


def test_a_client_with_a_source_of_its_own_under_instrumentation(scene: Scene) -> None:
    """Its own source counts, and it keeps the newest one; the general one comes back at its end."""
    scene.server.configure(max_sessions=3)
    with scene.another() as one, scene.another() as two, httpx.Client() as client, instrument(scene.provider):
        first = instrument_client(client, source=one)
        with instrument_client(client, source=two):
            first.uninstrument()
            assert client.get(scene.accounts).status_code == 200
        assert client.get(scene.accounts).status_code == 200
        assert scene.carried == [two.get().authorization, scene.provider.get().authorization]


def test_a_client_with_a_source_of_its_own_goes_on(scene: Scene) -> None:
    """When the general instrumentation ends, a client with a source of its own keeps that, until its own end or that of all."""
    with scene.another() as own, requests.Session() as session, requests.Session() as other:
        instrument_client(session, source=own)
        with instrument(scene.provider):
            instrument_client(other)
        assert [each.get(scene.accounts).status_code for each in (session, other)] == [200, 404]
        uninstrument()
        assert session.get(scene.accounts).status_code == 404
        assert own.get().name == scene.user


def test_a_client_with_the_environments_source(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is in force, a client without a source gets the environment's, closed at its end or with everything."""
    for name, value in scene.server.credentials.items():
        monkeypatch.setenv(f"TRADOVATE_{name.upper()}", str(value))
    monkeypatch.setenv("TRADOVATE_ENVIRONMENT", scene.server.url)
    with requests.Session() as session:
        for everything in (False, True):
            given = instrument_client(session)
            assert session.get(scene.accounts).status_code == 200
            uninstrument() if everything else given.uninstrument()
            with pytest.raises(ProviderClosed):
                given.source.get()


def test_a_client_is_held_weakly(scene: Scene) -> None:
    """A client that nobody needs any more goes, also while its instrumentation is kept; ending that harms no other."""
    session, other = requests.Session(), requests.Session()
    with instrument(scene.provider, requests=False):
        given = instrument_client(session)
        instrument_client(other)
        session.close()
        del session
        assert len(CLIENTS["requests"]) == 1
        given.uninstrument()
        assert other.get(scene.accounts).status_code == 200
    other.close()


def test_clients_that_are_gone_leave_nothing(scene: Scene) -> None:
    """However many short-lived clients get a source of their own, those that are there are all that is remembered."""
    before = len(STATE._single)
    with requests.Session() as kept, instrument_client(kept, source=scene.provider):
        for _ in range(20):
            with requests.Session() as session:
                instrument_client(session, source=scene.provider)
            del session
        assert len(STATE._single) <= before + 2
        assert kept.get(scene.accounts).status_code == 200


def test_clients_are_told_apart_by_identity(scene: Scene) -> None:
    """A client of somebody's own that compares equal to another, and has no hash, is still the only one meant."""

    class Equal(requests.Session):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    with Equal() as one, Equal() as two, instrument_client(one, source=scene.provider):
        assert [each.get(scene.accounts).status_code for each in (one, two)] == [200, 404]


@pytest.mark.parametrize("client", [object(), "client", requests])
def test_what_is_no_client(client: object, scene: Scene) -> None:
    """It is an error that says what may be passed."""
    with pytest.raises(ConfigurationError, match="no client") as caught:
        instrument_client(client, source=scene.provider)
    assert "requests.Session" in str(caught.value.advice)


def test_nothing_shows_a_secret(scene: Scene) -> None:
    """Neither an outcome nor an overlay shows the token when it is printed."""
    overlay = Overlay(scene.provider, logins="answer", insecure="warn")
    outcome = overlay.settle("login", scene.user, None)
    assert scene.provider.get().value.encode() in (outcome.answer or b"")
    assert scene.provider.get().value not in repr(outcome) + repr(overlay) + repr(STATE)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No test leaves anything behind, nor finds tokens that another has given away."""
    _given.GIVEN.clear()
    yield
    assert untouched() == [True] * len(POINTS)
    assert not EVERYWHERE
    assert not any(len(covered) for covered in CLIENTS.values())

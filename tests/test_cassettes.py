"""The wire format, from recordings: every transport and every adapter plays them, and each means what it says."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cassette_scenarios import SCENARIOS, STORIES, Stage, token_of
from cassette_tools import (
    ORIGIN,
    PORT,
    SCRUBBED,
    CassetteMiddleware,
    matching,
    scrub_request,
    scrub_response,
    secrets_in,
)
from core_tools import FrailStorage, World
from stacks import AIOHTTP, Body, Client, Stack, every_stack, plain_environment, tradovate_provider
from vcr.cassette import Cassette
from vcr.errors import CannotOverwriteExistingCassetteException
from vcr.matchers import body, method
from vcr.matchers import path as path_of
from vcr.record_mode import RecordMode
from vcr.request import Request

from tradovate_auth import Credentials, TokenProvider, _wire
from tradovate_auth.aiohttp import AiohttpTransport
from tradovate_auth.httpx import HttpxTransport
from tradovate_auth.httpx2 import Httpx2Transport
from tradovate_auth.requests import RequestsTransport
from tradovate_auth.testing import FakeClock
from tradovate_auth.testing.emulator import Emulator
from tradovate_auth.transport import Transport

__all__ = ["plain_environment", "tradovate_provider"]  # fixtures

CASSETTES = Path(__file__).parent.parent / "cassettes"
TRANSPORTS: dict[str, type[Transport]] = {
    "requests": RequestsTransport,
    "httpx": HttpxTransport,
    "httpx2": Httpx2Transport,
    "aiohttp": AiohttpTransport,
}
KNOWN: dict[str, Any] = {
    "name": "trader",
    "app_id": "Emulated App",
    "app_version": "1.0",
    "cid": 4711,
    "device_id": "5f0f6a3e-2d1b-4f57-9c55-0a6d1e7b9c11",
    "password": SCRUBBED,
    "sec": SCRUBBED,
}
"""What the recorded logins say: the emulator's default user, without the secrets."""
recordings = pytest.mark.parametrize(
    "path", sorted(CASSETTES.rglob("*.yaml")), ids=lambda path: str(path.stem)
)


@pytest.fixture(scope="module")
def vcr_config() -> dict[str, Any]:
    """Match on what the server reads, and write down no secret."""
    return matching()


@pytest.fixture
def vcr_cassette_dir() -> str:
    """Keep the recordings where a reader looks for them."""
    return str(CASSETTES)


@pytest.fixture
def default_cassette_name(request: pytest.FixtureRequest) -> str:
    """Name a recording after its scenario, so that one serves all libraries."""
    return str(request.node.callspec.params["scenario"])


@pytest.fixture
def server(record_mode: str, fake_clock: FakeClock) -> Iterator[Emulator | None]:
    """Yield the emulator that a recording is made from; a replay has none."""
    if record_mode == "none":
        yield None
        return
    with Emulator(clock=fake_clock, aliases=("127.0.0.2",)) as emulator:
        yield emulator


def _credentials(server: Emulator | None, scenario: str) -> Credentials:
    known = dict(KNOWN if server is None else server.credentials)
    if server is not None and scenario.startswith("login-refused"):
        known["password"] = "wrong"
    if scenario == "login-unregistered-app":
        del known["app_id"]
    return Credentials(**known)


@pytest.mark.vcr(allow_playback_repeats=True)
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_transport_reads_every_recorded_answer_alike(
    scenario: str, transport: str, server: Emulator | None
) -> None:
    """A recorded answer leads to the verdict that its scenario names, whichever library carries the call."""
    case = SCENARIOS[scenario]
    base = f"{ORIGIN}/v1" if server is None else server.url
    call = _wire.login_call(_credentials(server, scenario), base)
    if case.renewal:
        call = _wire.renewal_call(token_of(SCRUBBED if server is None else server.foreign_login()), base)
    if server is not None:
        case.arrange(server)

    verdict = _wire.read_reply(TRANSPORTS[transport]().send(call, 5.0))

    assert type(verdict) is case.means
    assert {name: getattr(verdict, name) for name in case.fields} == case.fields
    assert case.details.items() <= getattr(verdict, "details", {}).items()


@pytest.fixture
def stage(stack: Stack, server: Emulator | None, fake_clock: FakeClock, vcr: Cassette) -> Iterator[Stage]:
    """Yield a caller with this adapter, and a provider whose auth calls go over requests."""
    away = Emulator(clock=fake_clock, port=PORT)  # never started: what a replay believes the server to be
    world = World(fake_clock, server or away, FrailStorage(clock=fake_clock))
    provider = world.provider(
        transport=RequestsTransport(), who={} if server else {"password": SCRUBBED, "sec": SCRUBBED}
    )
    auth = stack.auth(provider)
    options: dict[str, Any] = {"middlewares": (auth, CassetteMiddleware(vcr))} if stack is AIOHTTP else {}
    with provider, stack.client(auth, **options) as client:
        yield Stage(world, client, provider, world.server.url, recording=server is not None)


@pytest.mark.vcr(skip_patchers=("aiohttp",))
@every_stack
@pytest.mark.parametrize("scenario", STORIES)
def test_every_adapter_plays_every_story_alike(scenario: str, stage: Stage, vcr: Cassette) -> None:
    """One recording of login, calls, refusals and renewals plays through each adapter, whose own code runs meanwhile.

    To the last of its interactions: what was recorded with one library is what all of them send.
    """
    STORIES[scenario](stage)
    assert vcr.all_played or stage.recording


def test_every_recording_belongs_to_a_scenario() -> None:
    """The folder holds one recording for each scenario and each story, and no other."""
    assert sorted([*SCENARIOS, *STORIES]) == sorted(path.stem for path in CASSETTES.glob("*.yaml"))


def test_every_recording_is_described() -> None:
    """The table beside the recordings names each of them once."""
    page = (CASSETTES / "README.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`([\w-]+)`", row.split("|")[1])]
    assert sorted(named) == sorted([*SCENARIOS, *STORIES])


@recordings
def test_no_recording_holds_a_secret(path: Path) -> None:
    """Nothing token-shaped, no address of a recording machine and no real password is on a recording."""
    text = path.read_text(encoding="utf-8")
    assert secrets_in(text) == []
    assert "TEST-" not in text
    assert "127.0.0.1" not in text
    assert socket.gethostname() not in text
    assert ORIGIN in text


class TestSearching:
    """What finds a secret on a cassette."""

    CLEAN = (CASSETTES / "renewal-granted.yaml").read_text(encoding="utf-8")
    TOKEN = "eyJhbGciOiJIUzI1NiJ9.TokenOfSomebody-_0123456789"  # none, only shaped like one

    def test_a_clean_one_is_clean(self) -> None:
        """Nothing is found where there is nothing."""
        assert secrets_in(self.CLEAN) == []

    @pytest.mark.parametrize(
        ("place", "planted", "found"),
        [
            ("Bearer SCRUBBED", f"Bearer {TOKEN}", "token-shaped"),
            ("Bearer SCRUBBED", "Bearer short", "header Authorization"),
            ('"accessToken": "SCRUBBED"', f'"accessToken": "{TOKEN}"', "token-shaped"),
            ('"accessToken": "SCRUBBED"', '"accessToken": "short"', "field accessToken"),
            ('"mdAccessToken": "SCRUBBED"', '"mdAccessToken": "short"', "field mdAccessToken"),
            ('"name": "trader"', '"a": [{"p-ticket": "short"}]', "field p-ticket"),
            ('"name": "trader"', '"password": "short"', "field password"),
            ('"name": "trader"', f'"nobodyKnows": "{TOKEN}"', "token-shaped"),
            ("      Server:\n", "      Set-Cookie:\n      - id=1\n      Server:\n", "header Set-Cookie"),
        ],
    )
    def test_a_planted_one_is_found(self, place: str, planted: str, found: str) -> None:
        """A secret is found by what it looks like, by its field and by its header, wherever it stands; and is not repeated."""
        assert place in self.CLEAN
        told = secrets_in(self.CLEAN.replace(place, planted))
        assert [text for text in told if text.startswith(found)]
        assert self.TOKEN not in " ".join(told)


class TestScrubbing:
    """What takes secrets off a recording before it is written."""

    LOGIN = json.dumps(
        {"password": "hunter2", "sec": "s3", "name": "x", "more": [{"p-ticket": "t"}]}
    ).encode()

    def test_a_request(self) -> None:
        """A request loses its secrets, at any depth, its cookies and its server's address; the rest of it stays."""
        headers = {
            "Authorization": "Bearer t",
            "Cookie": "a=b",
            "Host": "127.0.0.1:41234",
            "X": "y",
            "Content-Type": "application/json; charset=utf-8",
        }
        found = scrub_request(Request("POST", "http://127.0.0.1:41234/v1/x?y=z", self.LOGIN, headers))
        assert found.uri == f"{ORIGIN}/v1/x?y=z"
        assert json.loads(found.body) == {
            "password": SCRUBBED,
            "sec": SCRUBBED,
            "name": "x",
            "more": [{"p-ticket": SCRUBBED}],
        }
        assert dict(found.headers) == {
            "Authorization": f"Bearer {SCRUBBED}",
            "Host": "emulator.invalid",
            "X": "y",
            "Content-Type": "application/json; charset=utf-8",
        }

    def test_requests_of_all_libraries_are_alike(self) -> None:
        """However a library writes its JSON, or writes no body, what is compared is the same."""
        one, other = (
            scrub_request(Request("POST", "http://a/", text, {})).body
            for text in (b'{"a":1,"b":2}', b'{ "b": 2, "a": 1 }')
        )
        assert one == other
        assert scrub_request(Request("GET", "http://a/", b"", {})).body is None
        assert scrub_request(Request("GET", "http://a/", None, {})).body is None

    def test_what_is_no_json_stays(self) -> None:
        """A body that is no JSON is left as it is."""
        assert scrub_request(Request("POST", "http://a/", b"a=b", {})).body == b"a=b"
        answer = {"headers": {}, "body": {"string": b"<html>"}}
        assert scrub_response(answer)["body"] == {"string": b"<html>"}

    def test_an_answer(self) -> None:
        """An answer loses its secrets and its cookies; its length and the place that it points to are put right."""
        body = json.dumps(
            {"accessToken": "t", "mdAccessToken": None, "list": [{"accessToken": "u"}]}
        ).encode()
        location = "http://127.0.0.2:41234/v1/x"
        headers = {"Set-Cookie": ["a=b"], "Content-Length": ["9"], "Location": [location], "X": ["y"]}
        found = scrub_response({"status": {"code": 200}, "headers": headers, "body": {"string": body}})
        clean = found["body"]["string"]
        assert json.loads(clean) == {
            "accessToken": SCRUBBED,
            "mdAccessToken": None,
            "list": [{"accessToken": SCRUBBED}],
        }
        assert found["headers"] == {
            "Content-Length": [str(len(clean))],
            "X": ["y"],
            "Location": [f"http://127.0.0.2:{PORT}/v1/x"],
        }
        assert found["status"] == {"code": 200}
        assert headers["Content-Length"] == ["9"]  # the caller's own answer is not touched

    def test_one_location_without_a_list(self) -> None:
        """Some of vcrpy's patchers keep a header's text without a list around it."""
        answer = {"headers": {"location": "http://127.0.0.2:1/"}, "body": {"string": b""}}
        assert scrub_response(answer)["headers"] == {"location": [f"http://127.0.0.2:{PORT}/"]}


class TestCassetteMiddleware:
    """The part that records and plays a cassette in an aiohttp session."""

    def cassette(self, path: Path, mode: str) -> Cassette:
        """Return the cassette of this file."""
        options = {name: value for name, value in matching().items() if name.startswith("before")}
        made = Cassette.load(
            path=str(path), record_mode=RecordMode(mode), match_on=(method, path_of, body), **options
        )
        assert isinstance(made, Cassette)
        return made

    def calls(self, client: Client, url: str) -> list[tuple[int, bytes]]:
        """Make two calls."""
        answers = [client.get(f"{url}/account/list"), client.post(f"{url}/order/placeorder", Body("json"))]
        return [(answer.status, answer.body) for answer in answers]

    def test_what_is_recorded_is_played(
        self, tradovate_emulator: Emulator, tradovate_provider: TokenProvider, tmp_path: Path
    ) -> None:
        """A session records what the server answers, and plays it when the server is gone; the adapter runs both times."""
        path = tmp_path / "new.yaml"
        token = tradovate_provider.get()
        played = []
        for mode in ("once", "none"):
            cassette = self.cassette(path, mode)
            auth = AIOHTTP.auth(tradovate_provider)
            with AIOHTTP.client(auth, middlewares=(auth, CassetteMiddleware(cassette))) as client:
                played.append(self.calls(client, tradovate_emulator.url))
            cassette._save()
            tradovate_emulator.stop()
        assert played[0] == played[1]
        assert [status for status, _ in played[0]] == [200, 200]
        text = path.read_text()
        assert text.count(f"Bearer {SCRUBBED}") == 2
        assert token.value not in text

    def test_what_is_not_recorded_is_not_sent(
        self, tradovate_emulator: Emulator, tradovate_provider: TokenProvider, tmp_path: Path
    ) -> None:
        """A session that plays a cassette sends nothing that is not on it."""
        auth = AIOHTTP.auth(tradovate_provider)
        cassette = self.cassette(tmp_path / "none.yaml", "none")
        with (
            AIOHTTP.client(auth, middlewares=(auth, CassetteMiddleware(cassette))) as client,
            pytest.raises(CannotOverwriteExistingCassetteException),
        ):
            self.calls(client, tradovate_emulator.url)
        assert tradovate_emulator.counts.calls == 0

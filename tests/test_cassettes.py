"""The wire format, from recordings: every transport plays them, and each means what it says."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cassette_scenarios import ORIGIN, SCENARIOS, scrub_request, scrub_response

from tradovate_auth import AccessToken, Credentials, _wire
from tradovate_auth._grant import token_from
from tradovate_auth.aiohttp import AiohttpTransport
from tradovate_auth.httpx import HttpxTransport
from tradovate_auth.httpx2 import Httpx2Transport
from tradovate_auth.requests import RequestsTransport
from tradovate_auth.testing.emulator import Emulator
from tradovate_auth.transport import Transport

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
}
"""What the recorded logins say besides their secrets: the emulator's default user."""


@pytest.fixture(scope="module")
def vcr_config() -> dict[str, Any]:
    """Match on what the server reads, and write down no secret."""
    return {
        "match_on": ["method", "path", "body"],
        "before_record_request": scrub_request,
        "before_record_response": scrub_response,
        "decode_compressed_response": True,
        "allow_playback_repeats": True,
    }


@pytest.fixture
def vcr_cassette_dir() -> str:
    """Keep the recordings where a reader looks for them."""
    return str(CASSETTES)


@pytest.fixture
def default_cassette_name(request: pytest.FixtureRequest) -> str:
    """Name a recording after its scenario, so that one serves all transports."""
    return str(request.node.callspec.params["scenario"])


@pytest.fixture
def server(record_mode: str) -> Iterator[Emulator | None]:
    """Yield the emulator that a recording is made from; a replay has none."""
    if record_mode == "none":
        yield None
        return
    with Emulator() as emulator:
        yield emulator


def _token(server: Emulator | None) -> AccessToken:
    value = "SCRUBBED" if server is None else server.foreign_login()
    granted = _wire.Granted(value, None, 60.0, None, "", {}, {})
    return token_from(granted, issued_at=0.0, generation=1, previous=None, hosts={}, device_id=None)


def _credentials(server: Emulator | None, scenario: str) -> Credentials:
    known = {**KNOWN, "password": "SCRUBBED", "sec": "SCRUBBED"} if server is None else server.credentials
    wrong = server is not None and scenario.startswith("login-refused")
    return Credentials(**{**known, **({"password": "wrong"} if wrong else {})})


@pytest.mark.vcr
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_transport_reads_every_recorded_answer_alike(
    scenario: str, transport: str, server: Emulator | None
) -> None:
    """A recorded answer leads to the verdict that its scenario names, whichever library carries the call."""
    case = SCENARIOS[scenario]
    credentials = _credentials(server, scenario)
    base = f"{ORIGIN}/v1" if server is None else server.url
    call = _wire.login_call(credentials, base)
    if case.renewal:
        call = _wire.renewal_call(_token(server), base)
    if server is not None:
        case.arrange(server)

    verdict = _wire.read_reply(TRANSPORTS[transport]().send(call, 5.0))

    assert type(verdict) is case.means


def test_every_recording_belongs_to_a_scenario() -> None:
    """The folder holds one recording for each scenario, and no other."""
    assert sorted(SCENARIOS) == sorted(path.stem for path in CASSETTES.glob("*.yaml"))


@pytest.mark.parametrize("path", sorted(CASSETTES.glob("*.yaml")), ids=lambda path: str(path.stem))
def test_no_recording_holds_a_secret(path: Path) -> None:
    """Nothing token-shaped, no address of a recording machine and no real password is on a recording."""
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"[A-Za-z0-9_-]{40,}", text)
    assert "TEST-" not in text
    assert "127.0.0.1" not in text
    assert socket.gethostname() not in text
    assert ORIGIN in text

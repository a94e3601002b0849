"""The scenarios on the cassettes: how each is brought about on the emulator, and which call is made.

Recording: `pytest tests/test_cassettes.py --record-mode=rewrite` (see cassettes/README.md).
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tradovate_auth import _wire
from tradovate_auth.testing.emulator import Emulator

ORIGIN = "http://emulator.invalid"
"""What the cassettes name in place of the emulator's address."""

_SECRET_FIELDS = frozenset({"password", "sec", "accessToken", "mdAccessToken", "p-ticket"})
_ORIGIN = re.compile(r"^https?://[^/]+")


@dataclass(frozen=True)
class Scenario:
    """One exchange: what the server is told to do, whether the call is a renewal, and the verdict that it must lead to."""

    arrange: Callable[[Emulator], object]
    means: type[_wire.Verdict]
    renewal: bool = False


SCENARIOS: dict[str, Scenario] = {
    "login-granted": Scenario(lambda _: None, _wire.Granted),
    "login-granted-hosts": Scenario(
        lambda server: server.configure(api_hosts={"demo": "127.0.0.2", "mdDemo": "127.0.0.3"}), _wire.Granted
    ),
    "login-refused-200": Scenario(lambda _: None, _wire.Refused),
    "login-refused-401": Scenario(lambda server: server.configure(refusal_style="401"), _wire.Refused),
    "login-second-factor": Scenario(lambda server: server.configure(login_step="mfa"), _wire.Faulty),
    "login-penalty": Scenario(lambda server: server.penalize("login", seconds=15), _wire.Penalty),
    "login-captcha": Scenario(lambda server: server.penalize("login", captcha=True), _wire.Captcha),
    "login-locked-423": Scenario(lambda server: server.lock_out(423), _wire.LockedOut),
    "login-locked-429": Scenario(lambda server: server.lock_out(429), _wire.LockedOut),
    "renewal-granted": Scenario(lambda _: None, _wire.Granted, renewal=True),
    "renewal-refused": Scenario(lambda server: server.revoke(), _wire.Refused, renewal=True),
}


def scrub_request(request: Any) -> Any:
    """Return a recorded request without its secrets, with one address for every recording."""
    request.uri = _ORIGIN.sub(ORIGIN, request.uri)
    # As parsed and sorted, so that one recording matches every library's way of writing JSON, or no body at all.
    request.body = (
        json.dumps(_scrubbed(json.loads(request.body)), sort_keys=True).encode() if request.body else None
    )
    if "Authorization" in request.headers:
        request.headers["Authorization"] = "Bearer SCRUBBED"
    return request


def scrub_response(response: dict[str, Any]) -> dict[str, Any]:
    """Return a recorded answer without its secrets."""
    body = response["body"]["string"]
    try:
        answer = json.loads(body)
    except ValueError:
        return response
    clean = json.dumps(_scrubbed(answer)).encode()
    headers = {name: value for name, value in response["headers"].items() if name.lower() != "set-cookie"}
    for name in headers:
        if name.lower() == "content-length":
            headers[name] = [str(len(clean))]
    return {**response, "headers": headers, "body": {"string": clean}}


def _scrubbed(answer: Any) -> Any:
    if not isinstance(answer, dict):
        return answer
    return {name: "SCRUBBED" if name in _SECRET_FIELDS and value else value for name, value in answer.items()}

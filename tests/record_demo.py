"""`python -m record_demo`: what the vendor's demo server says to a login and a renewal, as cassettes without secrets.

It needs credentials in the `TRADOVATE_` variables, and asks for `--yes`, because a login opens a session. See
cassettes/README.md.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import vcr
from cassette_scenarios import token_of
from cassette_tools import matching, scrub_request, scrub_response, secrets_in
from vcr.serialize import deserialize
from vcr.serializers import yamlserializer

from tradovate_auth import ConfigurationError, Credentials, Environment, TransportError, _wire
from tradovate_auth.requests import RequestsTransport
from tradovate_auth.transport import Call

__all__ = ["main"]

CASSETTES: Final = Path(__file__).parent.parent / "cassettes"
PERSONAL: Final[Mapping[str, object]] = {
    "name": "trader",
    "userId": 1001,
    "appId": "Emulated App",
    "cid": 4711,
    "deviceId": "5f0f6a3e-2d1b-4f57-9c55-0a6d1e7b9c11",
}
"""What takes the place of whatever says who made a recording: the emulator's default user."""


def main(arguments: list[str] | None = None, *, folder: Path = CASSETTES / "demo") -> int:
    """Record, or compare; return 0 if that was done, 1 if the server was of no help, 2 if something is missing."""
    parser = argparse.ArgumentParser(prog="record_demo", description=__doc__)
    parser.add_argument(
        "--yes", action="store_true", help="open a session, which may close the user's oldest"
    )
    parser.add_argument(
        "--refused", action="store_true", help="record a refused login too: one of five an hour"
    )
    parser.add_argument("--compare", action="store_true", help="send nothing; compare what was recorded")
    parser.add_argument("--environment", default="demo", help="a base URL, to try this against an emulator")
    chosen = parser.parse_args(arguments)
    if chosen.compare:
        return _compare(folder)
    try:
        credentials = Credentials.from_env()
        environment = Environment.of(chosen.environment)
    except ConfigurationError as error:
        print(error)
        return 2
    if environment.kind == "live":
        print("This records the demo server, never the live one. Nothing was sent.")
        return 2
    if not chosen.yes:
        print("This opens a session, and may close the user's oldest. Say --yes to go on. Nothing was sent.")
        return 2
    return _record(credentials, environment.url, folder, refused=chosen.refused)


def _record(credentials: Credentials, base: str, folder: Path, *, refused: bool) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    verdict = _exchange(_wire.login_call(credentials, base), folder / "login-granted.yaml")
    if not isinstance(verdict, _wire.Granted):
        print("Without a token there is no renewal to record. See the recording for what the server said.")
        return 1
    _exchange(_wire.renewal_call(token_of(verdict.value), base), folder / "renewal-granted.yaml")
    if refused:
        wrong = replace(credentials, password=f"not {credentials.password}"[:64])
        _exchange(_wire.login_call(wrong, base), folder / "login-refused.yaml")
    print("Read the files before you publish them.")
    return 0


def _exchange(call: Call, path: Path) -> _wire.Verdict | None:
    """Make one call and record it; return what the answer means, or None where there was none."""
    path.unlink(missing_ok=True)
    recorder = vcr.VCR(
        **{
            **matching(),
            "before_record_request": _anonymous_request,
            "before_record_response": _anonymous_response,
        }
    )
    try:
        with recorder.use_cassette(str(path), record_mode="once"):
            verdict = _wire.read_reply(RequestsTransport().send(call, 20.0))
    except TransportError as error:
        print(f"{path.stem}: {error}")
        return None
    found = secrets_in(path.read_text(encoding="utf-8"))
    if found:
        path.unlink()
        print(f"{path.stem}: not kept, because it would hold {', '.join(found)}")
    else:
        print(f"{path.stem}: {type(verdict).__name__}")
    return verdict


def _anonymous_request(request: Any) -> Any:
    request = scrub_request(request)
    if request.body:
        request.body = _anonymous(request.body, sort_keys=True)
    return request


def _anonymous_response(response: dict[str, Any]) -> dict[str, Any]:
    clean = scrub_response(response)
    body = _anonymous(clean["body"]["string"])
    return scrub_response({**clean, "body": {"string": body}})  # once more, for the length


def _anonymous(body: bytes, **options: Any) -> bytes:
    """Return a body that says nothing of who sent it; free text stays, apart from what could be a secret."""
    try:
        fields = json.loads(body)
    except ValueError:
        return body
    if isinstance(fields, dict):
        fields = {name: PERSONAL.get(name, value) for name, value in fields.items()}
    return json.dumps(fields, **options).encode()


def _fields(path: Path) -> dict[str, str]:
    """Return the fields of the answer on a cassette, and of what type each is."""
    _, responses = deserialize(path.read_text(encoding="utf-8"), yamlserializer)
    status = {"": str(responses[0]["status"]["code"])}
    try:
        answer = json.loads(responses[0]["body"]["string"])
    except ValueError:
        return {**status, "body": "no JSON"}
    return {**status, **{name: type(value).__name__ for name, value in answer.items()}}


def _compare(folder: Path) -> int:
    pairs = {
        name: (folder / f"{name}.yaml", CASSETTES / f"{like}.yaml")
        for name, like in {
            "login-granted": "login-granted",
            "renewal-granted": "renewal-granted",
            "login-refused": "login-refused-200",
        }.items()
    }
    recorded = {name: both for name, both in pairs.items() if both[0].is_file()}
    for name, (real, emulated) in recorded.items():
        ours, theirs = _fields(emulated), _fields(real)
        differing = [field for field in {**ours, **theirs} if ours.get(field) != theirs.get(field)]
        print(f"{name}: {'as the emulator has it' if not differing else 'differs'}")
        for field in differing:
            print(
                f"  {field or 'status'}: {theirs.get(field, 'missing')}, emulated {ours.get(field, 'missing')}"
            )
    if not recorded:
        print("Nothing was recorded yet.")
    return 0 if recorded else 2


if __name__ == "__main__":
    sys.exit(main())

"""What the fuzzer feeds, and what must hold of everything that comes out. `bench.fuzz` runs one target in one process.

The parts under test are imported under atheris' instrumentation: it sees which of their lines an input has reached, and goes
on from the inputs that have reached new ones. Without atheris the targets are plain functions, which the tests call.
"""

import datetime as dt
import hashlib
import importlib
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, get_args

__all__ = ["INSTRUMENTED", "TARGETS", "WORDS", "Target", "main"]

INSTRUMENTED: Final = (
    *(
        "tradovate_auth._wire",
        "tradovate_auth._fields",
        "tradovate_auth._verdicts",
        "tradovate_auth._grant",
        "tradovate_auth.models",
        "tradovate_auth.environments",
    ),
    *("tradovate_auth.storage._codec", "tradovate_auth.websocket", "email._parseaddr", "email.utils"),
)
_STATUSES: Final = (200, 200, 200, 401, 423, 429, 500, 404, 307, 421, 204, 408, 400, 403)
_NOW: Final = 1_800_000_000.0
_DAY: Final = dt.timedelta(days=1)


@dataclass(frozen=True)
class Target:
    """One function that takes any bytes and raises where a promise is broken, and inputs to begin with."""

    check: Callable[[bytes], object]
    seeds: tuple[bytes, ...]


def read_answer(data: bytes) -> object:
    """Read an answer and make a token of it; return the verdict.

    Args:
        data: One byte for the status; then, each on a line, the `Date` and the `Retry-After`; the rest is the body.
    """
    from tradovate_auth import _wire
    from tradovate_auth.transport import Reply

    lines = data[1:].split(b"\n", 2)
    headers = {
        name: value.decode("latin-1") for name, value in zip(("Date", "Retry-After"), lines, strict=False)
    }
    status = _STATUSES[data[0] % len(_STATUSES)] if data else 200
    answer = Reply(status, headers, lines[2] if len(lines) > 2 else b"")
    verdict = _wire.read_reply(answer)
    assert isinstance(verdict, get_args(_wire.Verdict))
    issued_at = _wire.server_time(answer)
    if isinstance(verdict, _wire.Granted):
        _believe(verdict, _NOW if issued_at is None else issued_at)
    elif isinstance(verdict, _wire.Penalty):
        assert 1.0 <= verdict.seconds <= 3600.0
    elif isinstance(verdict, _wire.Refused):
        assert verdict.text
        assert verdict.text.isprintable()
    elif isinstance(verdict, _wire.Faulty):
        assert verdict.reason.isprintable()
    if isinstance(verdict, _wire.LockedOut | _wire.Captcha | _wire.Penalty):
        assert 0.0 <= verdict.retry_after.seconds(_NOW) <= _DAY.total_seconds()
    return verdict


def _believe(granted: Any, issued_at: float) -> None:
    from tradovate_auth import Environment, _grant
    from tradovate_auth.storage import Record, _codec
    from tradovate_auth.websocket import authorize_frame

    hosts = _grant.merged_hosts({}, granted, Environment.of("demo"))
    token = _grant.token_from(
        granted, issued_at=issued_at, generation=1, previous=None, hosts=hosts, device_id=None
    )
    assert token.issued_at <= token.expires_at <= token.issued_at + _DAY
    assert authorize_frame(token, 0).split("\n") == ["authorize", "0", "", token.value]
    assert token.md_value is None or authorize_frame(token, 0, market_data=True)
    _grant.oddities(token, None)
    _codec.decode(_codec.encode(Record(tokens={"": token})))


def decode_record(data: bytes) -> object:
    """Decode a record, as it stands and under a right checksum; return what the latter held, None if it was no record."""
    from tradovate_auth import StorageError
    from tradovate_auth.storage import _codec

    found = None
    for envelope in (data, _sealed(data, _codec.SCHEMA)):
        try:
            found = _codec.decode(envelope)
        except (_codec.NotARecord, StorageError):
            continue
        written = _codec.encode(found)
        assert _codec.encode(_codec.decode(written)) == written
    return found


def _sealed(data: bytes, schema: int) -> bytes:
    """Return the envelope of whatever JSON this is: with any other checksum nothing behind it is ever read."""
    try:
        payload = {"record": json.loads(data), "schema": schema}
        text = json.dumps(payload, sort_keys=True, separators=(",", ":"), allow_nan=False)
        checksum = hashlib.sha256(text.encode()).hexdigest()
        return json.dumps({**payload, "checksum": checksum}).encode()
    except (ValueError, RecursionError):
        return b""


def _record_seeds() -> Iterable[bytes]:
    from tradovate_auth import AccessToken
    from tradovate_auth.storage import Record, _codec

    ends = dt.datetime(2027, 1, 15, 8, tzinfo=dt.UTC)
    token = AccessToken(
        value="x", md_value="y", issued_at=ends - _DAY, expires_at=ends, details={"a": [1, {}]}
    )
    for record in (Record(), Record(tokens={"8": token}, hosts={"demo": "a"}, refused={"8": 1})):
        written = _codec.encode(record)
        yield written
        yield json.dumps(json.loads(written)["record"]).encode()


_GRANT = b'{"accessToken":"x","mdAccessToken":"y","expirationTime":"2027-01-15T09:00:00.000Z","apiHosts":{"demo":"demo.tradovateapi.com"},"userStatus":"Active","a":[{}]}'
_BODIES: Final = (
    _GRANT,
    _GRANT.replace(b":00.000Z", b"+01:30"),
    _GRANT.replace(b"[{}]", b"[" * 700 + b"]" * 700),
    b'{"errorText":"Incorrect username or password."}',
    b'{"violations":[{"constraint":"required","value":"x"}]}',
    b'{"p-ticket":"t","p-time":15,"p-captcha":"false"}',
    b'{"p-time":1e9,"p-captcha":true}',
    b'{"error":"Token expired","message":"no"}',
    b'{"name":"","userStatus":"TemporaryLocked"}',
    b"<html>",
)
_HEADERS: Final = (
    b"Fri, 15 Jan 2027 08:00:00 GMT\n3600\n",
    b"Fri, 31 Dec 9999 23:59:59 GMT\nFriday, 15-Jan-27 08:00:00 GMT\n",
)
_ANSWER_SEEDS: Final = tuple(
    bytes([status]) + head + body for status in (0, 3, 5, 12) for head in _HEADERS for body in _BODIES
)
TARGETS: Final[dict[str, Callable[[], Target]]] = {
    "answers": lambda: Target(read_answer, _ANSWER_SEEDS),
    "records": lambda: Target(decode_record, tuple(_record_seeds())),
}
"""By name, made when they are asked for: making one imports what it tests."""

_NAMES: Final = """
    accessToken mdAccessToken expirationTime errorText violations constraint apiHosts p-ticket p-time p-captcha userStatus
    hibpHint userId name error message revision generation tokens refused offered hosts ledger offset hold latch value
    md_value expires_at issued_at details until kind penalty captcha 2027-01-15T09:00:00.123456789Z 2027-01-15T09:00+00:00
"""
_OTHERS: Final = (
    "NaN",
    "Infinity",
    "1e999",
    "null",
    "true",
    "[]",
    "{}",
    "GMT",
    "-0000",
    "31 Dec 9999",
    "\\ud800",
)
WORDS: Final = (*(f'"{name}"' for name in _NAMES.split()), *_OTHERS)
"""Whole words to put into inputs, which are hard to come by letter by letter."""


def main(name: str, *arguments: str) -> None:
    """Fuzz one target until libFuzzer ends this process; `arguments` are its own."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        for module in INSTRUMENTED:
            importlib.import_module(module)
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name]().check)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A record as bytes and back, for every storage that keeps bytes. Pure.

    {"checksum": "...", "record": {...}, "schema": 1}

Compact JSON in ASCII with sorted keys. The checksum is the SHA-256 of the same text without it, so that a byte that rotted
or a file cut short is told from a record; it guards against damage, not against an enemy. Keys that this version does not
know are ignored within a schema. A number is refused unless it is finite, a moment is text (ISO 8601) and exact to the
microsecond where it belongs to a token, and seconds since the epoch where it belongs to the ledger.
"""

import datetime as dt
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final, NoReturn, TypeGuard, TypeVar, get_args

from .._holds import Hold, HoldKind, Latch
from .._ledger import Ledger
from ..errors import StorageError
from ..models import AccessToken
from ._record import Record, UnreadableRecord

__all__ = ["SCHEMA", "NotARecord", "decode", "encode"]

T = TypeVar("T")
Readers = Mapping[str, Callable[[Any], object]]

SCHEMA: Final = 1
"""What `encode` writes. A reader that finds a higher number leaves everything as it is."""
_DEEPEST: Final = 64  # levels of nesting that are kept of an answer's details


class NotARecord(Exception):
    """These bytes are no record. Never leaves the package: storages put the bytes aside and treat them as absent.

    Args:
        reason: What is wrong, in a few words and without any content.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def encode(record: Record) -> bytes:
    """Return a record as bytes. Does not block.

    Raises:
        StorageError: Something in it cannot be written down; nothing that a server sent can bring that about.
    """
    payload = {"record": _record_fields(record), "schema": SCHEMA}
    try:
        checksum = _checksum(payload)
        return _text({**payload, "checksum": checksum}).encode()
    except (TypeError, ValueError) as error:
        # Not chained: the error may quote what it stumbled over.
        raise StorageError(f"The session cannot be written down: {type(error).__name__}.") from None


def decode(data: bytes) -> Record:
    """Return the record that these bytes hold. Does not block.

    Raises:
        NotARecord: They hold none.
        UnreadableRecord: They hold one of a newer schema.
    """
    envelope, checksum = _opened(data)
    schema = envelope.get("schema")
    if not _is_whole(schema) or schema < 1:
        raise NotARecord("wrong schema")
    if schema > SCHEMA:  # before the checksum: a newer version may compute it in another way
        raise UnreadableRecord(
            f"A newer version of this package has written the stored session (schema {schema}).",
            None,
            "Update this package, or give this process a storage of its own. Nothing was changed.",
        )
    if envelope.get("checksum") != checksum:
        raise NotARecord("wrong checksum")
    return _RECORD(envelope.get("record"))


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _checksum(payload: Mapping[str, object]) -> str:
    return hashlib.sha256(_text(payload).encode()).hexdigest()


def _opened(data: bytes) -> tuple[dict[str, Any], str]:
    """Return what these bytes say, and the checksum that they should have."""
    try:
        envelope = json.loads(data.decode("ascii"), parse_constant=_no_number, parse_float=_finite)
        if isinstance(envelope, dict):
            return envelope, _checksum({name: envelope.get(name) for name in ("record", "schema")})
    except (ValueError, RecursionError):
        raise NotARecord("no JSON") from None
    raise NotARecord("no JSON object")


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def _record_fields(record: Record) -> dict[str, object]:
    fields: dict[str, object] = {
        "revision": record.revision,
        "generation": record.generation,
        "tokens": {cid: _token_fields(token) for cid, token in record.tokens.items()},
        "refused": dict(record.refused),
        "offered": dict(record.offered),
        "hosts": dict(record.hosts),
        "ledger": asdict(record.ledger),
        "offset": record.offset,
        "earlier": record.earlier,
    }
    # Left out where there is nothing in it, as it is everywhere but in one record: earlier versions know no such field.
    return {**fields, "strangers": dict(record.strangers)} if record.strangers else fields


def _token_fields(token: AccessToken) -> dict[str, object]:
    return {
        "value": token.value,
        "md_value": token.md_value,
        "expires_at": token.expires_at.isoformat(),
        "issued_at": token.issued_at.isoformat(),
        "generation": token.generation,
        "user_id": token.user_id,
        "name": token.name,
        "device_id": token.device_id,
        "known_expiry": token.known_expiry,
        "hosts": dict(token.hosts),
        "details": _plain(dict(token.details)),
    }


def _plain(value: object, levels: int = _DEEPEST) -> object:
    """Return a detail of the server's answer without what could not be read back: Python's JSON knows NaN and any depth."""
    if not levels or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, dict):
        return {name: _plain(inner, levels - 1) for name, inner in value.items()}
    return [_plain(inner, levels - 1) for inner in value] if isinstance(value, list) else value


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole(value: Any) -> int:
    if not _is_whole(value):
        raise ValueError
    return int(value)


def _number(value: Any) -> float:
    if not _is_whole(value) and not isinstance(value, float):
        raise ValueError
    return float(value)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004  # one kind of error for every wrong field
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError  # noqa: TRY004  # as above
    return value


def _moment(value: Any) -> dt.datetime:
    moment = dt.datetime.fromisoformat(_string(value))
    if moment.utcoffset() is None:
        raise ValueError
    return moment.astimezone(dt.UTC)


def _kind(value: Any) -> str:
    if value not in get_args(HoldKind):
        raise ValueError
    return str(value)


def _sequence(read: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    def reading(value: Any) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise ValueError  # noqa: TRY004  # as above
        return tuple(read(entry) for entry in value)

    return reading


def _mapping(read: Callable[[Any], T]) -> Callable[[Any], dict[str, T]]:
    def reading(value: Any) -> dict[str, T]:
        if not isinstance(value, dict):
            raise ValueError  # noqa: TRY004  # as above
        return {name: read(inner) for name, inner in value.items()}

    return reading


def _perhaps(read: Callable[[Any], T]) -> Callable[[Any], T | None]:
    return lambda value: None if value is None else read(value)


def _anything(value: Any) -> object:
    return value


def _made(
    kind: Callable[..., T], readers: Readers, optional: frozenset[str] = frozenset()
) -> Callable[[Any], T]:
    """Return the reader of a dataclass, one reader for each of its fields; an optional one may be missing."""

    def reading(value: Any) -> T:
        if not isinstance(value, dict):
            raise NotARecord("wrong fields")
        found = {}
        for name, read in readers.items():
            if name not in value:
                if name in optional:
                    continue
                raise NotARecord(f"no field {name}")
            try:
                found[name] = read(value[name])
            except (ValueError, OverflowError, TypeError):
                raise NotARecord(f"wrong field {name}") from None
        return kind(**found)

    return reading


_TOKEN: Final[Readers] = {
    "value": _string,
    "md_value": _perhaps(_string),
    "expires_at": _moment,
    "issued_at": _moment,
    "generation": _whole,
    "user_id": _perhaps(_whole),
    "name": _string,
    "device_id": _perhaps(_string),
    "known_expiry": _flag,
    "hosts": _mapping(_string),
    "details": _mapping(_anything),
}
_HOLD: Final[Readers] = {
    "kind": _kind,
    "until": _number,
    "reason": _string,
    "ticket": _perhaps(_string),
    "resends": _whole,
    "scope": _string,
}
_LATCH: Final[Readers] = {
    "fingerprint": _string,
    "text": _string,
    "until": _perhaps(_number),
    "pause": _number,
}
_LEDGER: Final[Readers] = {
    "failed_logins": _sequence(_number),
    "logins": _sequence(_number),
    "renewals": _sequence(_number),
    "unscheduled": _sequence(_number),
    "renewed_at": _perhaps(_number),
    "failures": _whole,
    "retry_at": _number,
    "unscheduled_at": _number,
    "pause": _number,
    "lost": _whole,
    "puzzled": _whole,
    "evicted_at": _perhaps(_number),
    "eviction_pause": _number,
    "hold": _perhaps(_made(Hold, _HOLD)),
    "latches": _sequence(_made(Latch, _LATCH)),
    "proven": _sequence(_string),
}
_RECORD_FIELDS: Final[Readers] = {
    "revision": _whole,
    "generation": _whole,
    "tokens": _mapping(_made(AccessToken, _TOKEN)),
    "refused": _mapping(_whole),
    "offered": _mapping(_whole),
    "hosts": _mapping(_string),
    "ledger": _made(Ledger, _LEDGER),
    "offset": _number,
    "earlier": _whole,
    "strangers": _mapping(_number),
}
_OPTIONAL: Final = frozenset({"strangers"})
_RECORD: Final = _made(Record, _RECORD_FIELDS, _OPTIONAL)

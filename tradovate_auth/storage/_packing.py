"""A record as the bytes that a storage keeps, sealed or not.

Without a key ring that is the text of `_codec`. With one that text is encrypted, and kept as

    {"checksum": "...", "data": "...", "key": "2026-11", "schema": 2, "sealed": 1}

where `data` is base64 of nonce, text and tag. The record's key in the storage, the id of the key and the version of this form
are authenticated too: a record that was moved to another account opens as little as one that was changed. The checksum is
for everybody, as in `_codec`: it tells bytes that rotted, which nobody will ever read, from a seal that does not open with
the key at hand, which is left alone. The schema keeps versions that know no seals from taking this for rubbish.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from ._codec import NotARecord, decode, encode
from ._discreet import discreet
from ._keytext import ID
from ._record import Record, UnreadableRecord
from ._seal import OVERHEAD, KeyRing

__all__ = ["pack", "unpack"]

_SEALED: Final = 1
_SCHEMA: Final = 2
_FIELDS: Final = {"data": str, "key": str, "schema": int}
_MEANWHILE: Final = "The record was left as it is: valid tokens stay in use, and nobody logs in meanwhile."


@discreet
def pack(record: Record, key: str, keys: KeyRing | None = None) -> bytes:
    """Return a record as bytes, for a storage to keep: JSON in ASCII, sealed if there are keys. Does not block.

    Args:
        record: What `Storage.save` was given.
        key: The record's key in the storage.
        keys: Seals it; without one the tokens lie in there in the clear.

    Raises:
        StorageError: Something in it cannot be written down; nothing that a server sent can bring that about.
    """
    data = encode(record)
    return data if keys is None else _sealed(data, key, keys)


@discreet
def unpack(data: bytes | bytearray | memoryview, key: str, keys: KeyRing | None = None) -> Record:
    """Return the record in bytes that `pack` made. Does not block.

    Args:
        data: The bytes that were kept.
        key: The record's key in the storage.
        keys: Opens a sealed record.

    Raises:
        NotARecord: They hold none, or are damaged. Put them aside, so that nothing is lost, and treat them as absent.
        UnreadableRecord: They hold one that this process cannot read: sealed with a key that it does not have, or written
            by a newer version, or not sealed where `keys` refuses that. Leave them where they are, in `load` and `save`.
    """
    data = bytes(data)  # what databases hand out is not always that
    envelope = _envelope(data)
    if envelope is not None:
        return decode(_opened(envelope, key, keys))
    record = decode(data)
    if keys is not None and keys.plain == "refuse":
        raise UnreadableRecord(
            "The stored session is not sealed, and this process's key ring refuses that.",
            None,
            'Find out who writes there without keys. To seal what is there, open it once with plain="accept". '
            + _MEANWHILE,
        )
    return record


def _sealed(data: bytes, key: str, keys: KeyRing) -> bytes:
    sealed = keys.seal(data, _context(key, keys.current))
    envelope = {
        "data": base64.b64encode(sealed).decode(),
        "key": keys.current,
        "schema": _SCHEMA,
        "sealed": _SEALED,
    }
    return _text({**envelope, "checksum": _checksum(envelope)}).encode()


def _opened(envelope: Mapping[str, Any], key: str, keys: KeyRing | None) -> bytes:
    version = envelope["sealed"]
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise NotARecord("wrong seal")
    if version > _SEALED:  # before the checksum: a newer version may compute it in another way
        raise UnreadableRecord(
            "A newer version of this package has sealed the stored session.",
            None,
            f"Update this package. {_MEANWHILE}",
        )
    key_id, sealed = _fields(envelope)
    if keys is None or key_id not in keys.ids:
        raise UnreadableRecord(
            f"The stored session is sealed with the key {key_id!r}, which this process does not have.",
            None,
            f"Give its storage a key ring with that key, such as in TRADOVATE_STORAGE_KEYS. {_MEANWHILE}",
        )
    data = keys.unseal(key_id, sealed, _context(key, key_id))
    if data is None:
        raise UnreadableRecord(
            f"The seal of the stored session does not open with the key {key_id!r}.",
            None,
            "Either another process has another key under that id: give all of them the same ring. Or somebody changed the "
            f"record, or moved it here: then remove it. {_MEANWHILE}",
        )
    return data


def _fields(envelope: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return the id of the key, and what is sealed."""
    for name, kind in _FIELDS.items():
        if not isinstance(envelope.get(name), kind):
            raise NotARecord(f"wrong field {name}")
    if envelope.get("checksum") != _checksum(envelope):
        raise NotARecord("wrong checksum")
    if not ID.fullmatch(envelope["key"]):
        raise NotARecord("wrong field key")
    try:
        sealed = base64.b64decode(envelope["data"], validate=True)
    except ValueError:
        raise NotARecord("wrong field data") from None
    if len(sealed) < OVERHEAD:
        raise NotARecord("wrong field data")
    return envelope["key"], sealed


def _envelope(data: bytes) -> dict[str, Any] | None:
    """Return the envelope of sealed bytes, or None for any others, about which the codec knows more."""
    try:
        found = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and "sealed" in found else None


def _context(key: str, key_id: str) -> bytes:
    return _text({"key": key_id, "record": key, "sealed": _SEALED}).encode()


def _checksum(envelope: Mapping[str, Any]) -> str:
    covered = {name: envelope[name] for name in (*_FIELDS, "sealed")}
    return hashlib.sha256(_text(covered).encode()).hexdigest()


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))

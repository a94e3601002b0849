"""Records as the bytes that storages keep: what is sealed comes back, to whoever has the key, and to nobody else."""

import base64
import dataclasses
import hashlib
import itertools
import json
import threading
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from values import token as some_token

from tradovate_auth import StorageError
from tradovate_auth._holds import Hold
from tradovate_auth._ledger import Ledger
from tradovate_auth.storage import KeyRing, NotARecord, Record, UnreadableRecord, pack, unpack
from tradovate_auth.storage._codec import SCHEMA, decode, encode
from tradovate_auth.testing._conforming import SECRETS, differences, full_record

KEY = "https://demo.tradovateapi.com/v1 trader"
OLD, NEW, OTHER = (bytes([number]) * 32 for number in (1, 2, 3))
RING = KeyRing({"2026-10": OLD, "2026-11": NEW})
FULL = full_record()
SEALED = pack(FULL, KEY, RING)
TEXT = st.text(st.characters(exclude_categories=[]), max_size=12)
COVERED = ("data", "key", "schema", "sealed")


def parts(data: bytes = SEALED) -> dict[str, Any]:
    """Return what sealed bytes say to everybody."""
    envelope: dict[str, Any] = json.loads(data)
    return envelope


def compact(value: object) -> bytes:
    """Return JSON as it is written here."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def forged(**changes: object) -> bytes:
    """Return sealed bytes with some fields replaced and a right checksum: what somebody who wants to can make."""
    covered = {**{name: parts()[name] for name in COVERED}, **changes}
    return compact({**covered, "checksum": hashlib.sha256(compact(covered)).hexdigest()})


def flipped(text: str, bit: int) -> str:
    """Return base64 of the same bytes with one bit changed."""
    raw = bytearray(base64.b64decode(text))
    raw[bit // 8 % len(raw)] ^= 1 << bit % 8
    return base64.b64encode(raw).decode()


def unreadable(data: bytes, key: str = KEY, keys: KeyRing | None = RING) -> UnreadableRecord:
    """Return the error of a record that is there and cannot be read; it is a StorageError and shows no secret."""
    with pytest.raises(UnreadableRecord) as caught:
        unpack(data, key, keys)
    assert isinstance(caught.value, StorageError)
    assert "nobody logs in" in caught.value.advice
    assert not [secret for secret in SECRETS if secret in f"{caught.value}"]
    assert caught.value.__cause__ is None
    return caught.value


class TestRoundTrip:
    """What was packed comes back."""

    @given(
        st.builds(
            Record,
            revision=st.integers(1, 9),
            tokens=st.dictionaries(TEXT, st.builds(lambda value: some_token(value=value), TEXT), max_size=2),
            hosts=st.dictionaries(TEXT, TEXT, max_size=2),
            ledger=st.builds(
                lambda ticket: Ledger(hold=Hold("penalty", 1.5, "slow down", ticket)), st.none() | TEXT
            ),
        ),
        TEXT,
        st.sampled_from([None, RING]),
    )
    @example(FULL, KEY, RING)
    @example(FULL, "\udce4 no text", RING)
    @settings(max_examples=100, deadline=None)
    def test_any_record_under_any_key(self, record: Record, key: str, keys: KeyRing | None) -> None:
        """Sealed or not, every field comes back, whatever the storage calls the record."""
        assert differences(unpack(pack(record, key, keys), key, keys), record) == []

    def test_without_keys_it_is_the_codecs_text(self) -> None:
        """Who uses no keys keeps what he kept before there were any, under any name."""
        assert pack(FULL, KEY) == encode(FULL)
        assert differences(unpack(encode(FULL), KEY), FULL) == []

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    @pytest.mark.parametrize("keys", [None, RING], ids=["plain", "sealed"])
    def test_what_databases_hand_out(self, kind: type[bytes], keys: KeyRing | None) -> None:
        """Any object of bytes will do."""
        assert unpack(kind(pack(FULL, KEY, keys)), KEY, keys) == FULL

    def test_what_cannot_be_written_down(self) -> None:
        """It is the same error as without a seal."""
        with pytest.raises(StorageError, match="cannot be written down"):
            pack(Record(offset=float("nan")), KEY, RING)

    def test_many_threads(self) -> None:
        """One ring serves all threads at once."""
        wrong: list[object] = []

        def work(number: int) -> None:
            record = Record(revision=number)
            found = [unpack(pack(record, KEY, RING), KEY, RING) for _ in range(200)]
            wrong.extend(each for each in found if each != record)

        threads = [threading.Thread(target=work, args=[number]) for number in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


class TestForm:
    """How sealed bytes look."""

    def test_it_is_json_that_says_what_it_is(self) -> None:
        """Everybody can see that it is sealed, in which form and with which key; the schema is above the record's own."""
        envelope = parts()
        assert SEALED.isascii()
        assert compact(envelope) == SEALED
        assert set(envelope) == {*COVERED, "checksum"}
        assert (envelope["key"], envelope["schema"], envelope["sealed"]) == ("2026-11", 2, 1)
        assert envelope["schema"] > SCHEMA

    def test_nothing_shines_through(self) -> None:
        """No token, ticket, host, name or field of the record is in the bytes, in any encoding of them."""
        hidden = base64.b64decode(parts()["data"])
        for text in (*SECRETS, "fingerprint", "demo-d2.tradovateapi.com", "tokens", "device", KEY):
            for form in (text.encode(), base64.b64encode(text.encode())[:-4], text.encode().hex().encode()):
                assert form not in SEALED
                assert form not in hidden

    def test_no_two_are_alike(self) -> None:
        """The nonce is new each time: equal records cannot be told from different ones of that length."""
        nonces = {base64.b64decode(parts(pack(FULL, KEY, RING))["data"])[:12] for _ in range(200)}
        assert len(nonces) == 200

    def test_an_editor_may_have_been_there(self) -> None:
        """White space and the order of keys mean nothing, nor does a key that this version does not know."""
        loose = json.dumps({"note": "x", **dict(reversed(parts().items()))}, indent=2).encode() + b"\n"
        assert differences(unpack(loose, KEY, RING), FULL) == []

    def test_a_plain_record_may_speak_of_seals(self) -> None:
        """What is in a record does not make it a sealed one."""
        record = Record(tokens={"sealed": some_token(details={"sealed": 1})}, hosts={"sealed": "x"})
        assert differences(unpack(encode(record), KEY, RING), record) == []


class TestKeys:
    """Who can open it."""

    def test_each_key_of_a_ring_opens(self) -> None:
        """The current key seals; what an earlier one has sealed can still be read."""
        old = KeyRing({"2026-10": OLD})
        assert parts(pack(FULL, KEY, old))["key"] == "2026-10"
        assert differences(unpack(pack(FULL, KEY, old), KEY, RING), FULL) == []

    def test_rotation(self) -> None:
        """Two hosts that change rings one after another, the new key in front first, read each other at every step."""
        steps = [
            KeyRing({"old": OLD}),
            KeyRing({"new": NEW, "old": OLD}),
            KeyRing({"old": OLD, "new": NEW}),
            KeyRing({"new": NEW}),
        ]
        record = Record(revision=1)
        kept = pack(record, KEY, steps[0])
        for before, after in itertools.pairwise(steps):
            for writer, reader in ((before, after), (after, before), (after, after)):
                record = dataclasses.replace(unpack(kept, KEY, writer), revision=record.revision + 1)
                kept = pack(record, KEY, writer)
                assert unpack(kept, KEY, reader) == record
        assert parts(kept)["key"] == "new"
        assert "'new'" in unreadable(kept, keys=steps[0]).message

    @pytest.mark.parametrize("keys", [None, KeyRing({"2026-10": OLD})])
    def test_a_missing_key_is_named(self, keys: KeyRing | None) -> None:
        """Without the key, or any, the error says which one is missing and where to put it."""
        error = unreadable(SEALED, keys=keys)
        assert "'2026-11', which this process does not have" in error.message
        assert "TRADOVATE_STORAGE_KEYS" in error.advice

    def test_another_key_under_its_id(self) -> None:
        """It cannot be told from a record that somebody changed, and is no reason to log in: both causes are named."""
        error = unreadable(SEALED, keys=KeyRing({"2026-11": OTHER}))
        assert "does not open with the key '2026-11'" in error.message
        assert "another key under that id" in error.advice
        assert "changed the record, or moved it here" in error.advice

    @pytest.mark.parametrize("key", ["", KEY + " ", KEY.replace("demo", "live")])
    def test_it_belongs_to_one_account(self, key: str) -> None:
        """A record that was moved to another account's place does not open there."""
        assert "moved it here" in unreadable(SEALED, key).advice

    def test_the_id_cannot_be_exchanged(self) -> None:
        """What says that another key has sealed it does not open, even if that is the same key."""
        twins = KeyRing({"2026-11": NEW, "twin": NEW})
        assert "does not open with the key 'twin'" in unreadable(forged(key="twin"), keys=twins).message

    def test_plain_records_are_accepted(self) -> None:
        """A storage in use is sealed by giving it keys: what is there is read, and sealed when it is saved again."""
        assert differences(unpack(encode(FULL), KEY, RING), FULL) == []

    def test_or_refused(self) -> None:
        """Who wants it so is not given what anybody could have written; sealed records are read."""
        strict = KeyRing({"2026-11": NEW}, plain="refuse")
        error = unreadable(encode(FULL), keys=strict)
        assert "not sealed" in error.message
        assert 'plain="accept"' in error.advice
        assert differences(unpack(SEALED, KEY, strict), FULL) == []
        with pytest.raises(NotARecord, match="no JSON"):
            unpack(b"rubbish", KEY, strict)


class TestDamage:
    """Bytes that rotted are no record; bytes that were changed with care do not open. Neither is ever another record."""

    @given(st.integers(0, len(SEALED) * 8 - 1))
    @settings(max_examples=400, deadline=None)
    def test_any_flipped_bit(self, bit: int) -> None:
        """One bit that flips anywhere is noticed."""
        rotten = bytearray(SEALED)
        rotten[bit // 8] ^= 1 << bit % 8
        with pytest.raises((NotARecord, UnreadableRecord)):
            unpack(bytes(rotten), KEY, RING)

    @given(st.integers(0, len(parts()["data"]) * 6 - 1))
    @settings(max_examples=400, deadline=None)
    def test_any_bit_that_somebody_flipped(self, bit: int) -> None:
        """A bit of nonce, text or tag that was changed together with the checksum is found by the seal."""
        unreadable(forged(data=flipped(parts()["data"], bit)))

    @given(st.integers(0, len(SEALED)), st.integers(0, len(SEALED)), st.binary(max_size=5))
    @settings(max_examples=200, deadline=None)
    def test_a_cut_or_a_patch(self, start: int, end: int, patch: bytes) -> None:
        """A piece that is missing or was overwritten is noticed too."""
        try:
            found = unpack(SEALED[:start] + patch + SEALED[end:], KEY, RING)
        except (NotARecord, UnreadableRecord):
            return
        assert differences(found, FULL) == []

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (SEALED[:-1], "no JSON"),
            (SEALED.replace(b'"data":"', b'"data":"A'), "wrong checksum"),
            (SEALED.replace(b'"key":"2026-11"', b'"key":"2026-12"'), "wrong checksum"),
            (compact({**parts(), "checksum": None}), "wrong checksum"),
            (forged(sealed=0), "wrong seal"),
            (forged(sealed=True), "wrong seal"),
            (forged(sealed="1"), "wrong seal"),
            (b'{"sealed":1}', "wrong field data"),
            (forged(data=[[]]), "wrong field data"),
            (forged(data="\u00e4"), "wrong field data"),
            (forged(data="A"), "wrong field data"),
            (forged(data=base64.b64encode(bytes(27)).decode()), "wrong field data"),
            (forged(key=None), "wrong field key"),
            (forged(key=""), "wrong field key"),
            (forged(key="a\x1b[31m"), "wrong field key"),
            (forged(schema="2"), "wrong field schema"),
            (b'{"sealed":' + b"[" * 100_000, "no JSON"),
        ],
    )
    def test_the_reason(self, data: bytes, reason: str) -> None:
        """What nobody will ever read is no record, as with what is not sealed; the reason shows none of it."""
        for keys in (RING, None):
            with pytest.raises(NotARecord) as caught:
                unpack(data, KEY, keys)
            assert caught.value.reason == reason

    def test_the_shortest_seal(self) -> None:
        """Bytes that are just long enough for a nonce and a tag are tried, and do not open."""
        unreadable(forged(data=base64.b64encode(bytes(28)).decode()))

    @pytest.mark.parametrize("data", [forged(sealed=2), b'{"sealed":2}', b'{"sealed":99,"data":[]}'])
    def test_a_newer_form_is_left_alone(self, data: bytes) -> None:
        """A seal of a later version is no rubbish, whatever else is in there."""
        error = unreadable(data)
        assert "newer version of this package has sealed" in error.message
        assert "Update this package" in error.advice

    def test_a_newer_schema_under_the_seal(self) -> None:
        """A record of a later version stays unreadable when its seal has been opened."""
        context = compact({"key": "2026-11", "record": KEY, "sealed": 1})
        data = base64.b64encode(RING.seal(b'{"schema":2}', context)).decode()
        with pytest.raises(UnreadableRecord, match="newer version"):
            unpack(forged(data=data), KEY, RING)

    def test_versions_without_seals(self) -> None:
        """A version that knows no seals takes the bytes for a newer schema, and leaves them alone."""
        with pytest.raises(StorageError, match="newer version"):
            decode(SEALED)


def test_there_are_secrets_to_look_for() -> None:
    """The record of these tests holds all of the secrets, in the clear where it is not sealed."""
    assert all(secret.encode() in encode(FULL) for secret in SECRETS)

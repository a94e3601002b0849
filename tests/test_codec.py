"""Records as bytes: everything comes back, and bytes that are something else are told from a record."""

import dataclasses
import datetime as dt
import hashlib
import json
import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from values import NOW, SECRETS
from values import token as some_token

from tradovate_auth import AccessToken, StorageError
from tradovate_auth._holds import Hold, HoldKind, Latch
from tradovate_auth._ledger import Ledger
from tradovate_auth.storage import Record, _codec
from tradovate_auth.storage._codec import SCHEMA, NotARecord, decode, encode
from tradovate_auth.testing._conforming import differences, full_record

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
WHOLE = st.integers(-(2**70), 2**70)
TEXT = st.text(st.characters(exclude_categories=[]), max_size=12)
MOMENTS = st.datetimes(timezones=st.just(dt.UTC))
MAPPINGS = st.dictionaries(TEXT, TEXT, max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | WHOLE | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
TOKENS = st.builds(
    AccessToken,
    value=TEXT,
    md_value=st.none() | TEXT,
    expires_at=MOMENTS,
    issued_at=MOMENTS,
    generation=WHOLE,
    user_id=st.none() | WHOLE,
    name=TEXT,
    device_id=st.none() | TEXT,
    known_expiry=st.booleans(),
    hosts=MAPPINGS,
    details=st.dictionaries(TEXT, JSON, max_size=3),
)
HOLDS = st.builds(
    Hold, st.sampled_from(get_args(HoldKind)), NUMBERS, TEXT, ticket=st.none() | TEXT, resends=WHOLE
)
LATCHES = st.builds(Latch, TEXT, TEXT, st.none() | NUMBERS, NUMBERS)
SPENT = st.lists(NUMBERS, max_size=4).map(tuple)
LEDGERS = st.builds(
    Ledger,
    failed_logins=SPENT,
    logins=SPENT,
    renewals=SPENT,
    unscheduled=SPENT,
    renewed_at=st.none() | NUMBERS,
    failures=WHOLE,
    retry_at=NUMBERS,
    unscheduled_at=NUMBERS,
    pause=NUMBERS,
    lost=WHOLE,
    evicted_at=st.none() | NUMBERS,
    eviction_pause=NUMBERS,
    hold=st.none() | HOLDS,
    latches=st.lists(LATCHES, max_size=2).map(tuple),
    proven=st.lists(TEXT, max_size=2).map(tuple),
)
RECORDS = st.builds(
    Record,
    revision=WHOLE,
    generation=WHOLE,
    tokens=st.dictionaries(TEXT, TOKENS, max_size=2),
    refused=st.dictionaries(TEXT, WHOLE, max_size=2),
    offered=st.dictionaries(TEXT, WHOLE, max_size=2),
    hosts=MAPPINGS,
    ledger=LEDGERS,
    offset=NUMBERS,
    strangers=st.dictionaries(TEXT, NUMBERS, max_size=2),
)
FULL = full_record()
ENCODED = encode(FULL)


def sealed(record: object, **envelope: object) -> bytes:
    """Return bytes with a right checksum around anything."""
    payload = {"record": record, "schema": SCHEMA, **envelope}
    covered = {name: payload[name] for name in ("record", "schema")}
    text = json.dumps(covered, sort_keys=True, separators=(",", ":"))
    return json.dumps({"checksum": hashlib.sha256(text.encode()).hexdigest(), **payload}).encode()


def fields_of(record: Record) -> dict[str, Any]:
    """Return a record as the JSON object that is kept of it."""
    fields: dict[str, Any] = json.loads(encode(record))["record"]
    return fields


def read(data: bytes) -> Record | None:
    """Return the record in these bytes, or None if they hold none; anything but the two documented errors comes out."""
    try:
        return decode(data)
    except (NotARecord, StorageError):
        return None


class TestRoundTrip:
    """What was written down comes back."""

    @given(RECORDS)
    @settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
    def test_any_record(self, record: Record) -> None:
        """Every record is read back equal, with hosts and details of its tokens, which comparing tokens leaves out."""
        read_back = decode(encode(record))
        assert differences(read_back, record) == []
        assert read_back == record

    def test_the_whole_record(self) -> None:
        """A record with something in every field is read back; moments of tokens to the microsecond and in UTC."""
        record = decode(ENCODED)
        assert record == FULL
        assert differences(record, FULL) == []
        assert record.tokens["8"].authorization == FULL.tokens["8"].authorization
        assert record.tokens["8"].issued_at.microsecond == 123_457
        assert record.tokens["8"].issued_at.tzinfo is dt.UTC

    def test_an_empty_record(self) -> None:
        """A record with nothing in it is a record too."""
        assert decode(encode(Record())) == Record()

    @given(RECORDS)
    @settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
    def test_equal_records_are_equal_bytes(self, record: Record) -> None:
        """Writing down what was read gives the same bytes."""
        assert encode(decode(encode(record))) == encode(record)

    def test_that_something_was_set_aside_is_not_kept(self) -> None:
        """The notice that a load found rubbish is for whoever loaded, not for the storage."""
        assert decode(encode(Record(revision=3, set_aside="file: why"))).set_aside is None
        assert b"set_aside" not in encode(Record(set_aside="file: why"))

    @pytest.mark.parametrize(
        ("readers", "kind"),
        [
            (_codec._RECORD_FIELDS, Record),
            (_codec._TOKEN, AccessToken),
            (_codec._LEDGER, Ledger),
            (_codec._HOLD, Hold),
            (_codec._LATCH, Latch),
        ],
    )
    def test_no_field_is_forgotten(self, readers: dict[str, object], kind: Any) -> None:
        """Each field of what is kept is read, so that a new one is not lost between two processes."""
        made = {field.name for field in dataclasses.fields(kind) if field.init} - {"set_aside"}
        assert set(readers) == made

    @pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
    def test_details_that_json_does_not_have(self, number: float) -> None:
        """Python reads NaN in a server's answer; in the storage it becomes null, for nobody could read it back."""
        token = some_token(details={"odd": [number, {"deep": number}], "fine": 1.5})
        kept = decode(encode(Record(tokens={"": token}))).tokens[""]
        assert kept.details == {"odd": [None, {"deep": None}], "fine": 1.5}

    def test_details_of_any_depth(self) -> None:
        """What a server nests deeper than anybody could want is cut off, rather than the token lost."""
        nested: Any = "bottom"
        for _ in range(500):
            nested = [nested]
        kept = decode(encode(Record(tokens={"": some_token(details={"nested": nested})})))
        assert b"bottom" not in encode(kept)
        assert kept.tokens[""].details["nested"][0][0][0] is not None


class TestForm:
    """How the bytes look."""

    def test_it_is_compact_sorted_json_in_ascii(self) -> None:
        """Anybody can read the file, a diff shows what changed, and no encoding can spoil it."""
        assert ENCODED.isascii()
        parsed = json.loads(ENCODED)
        assert list(parsed) == ["checksum", "record", "schema"]
        assert parsed["schema"] == SCHEMA == 1
        assert json.dumps(parsed, sort_keys=True, separators=(",", ":")).encode() == ENCODED

    def test_anothers_layout_is_read(self) -> None:
        """White space and the order of keys mean nothing: somebody may have looked at the file with an editor."""
        parsed = json.loads(ENCODED)
        assert decode(json.dumps(dict(reversed(parsed.items())), indent=2).encode() + b"\n") == FULL

    @pytest.mark.parametrize("number", [math.nan, math.inf, pytest.param(10**5000, id="huge")])
    def test_what_cannot_be_written_down(self, number: Any) -> None:
        """A number that could not be read back is a StorageError, and shows nothing of the record."""
        with pytest.raises(StorageError, match="cannot be written down") as caught:
            encode(Record(tokens={"": some_token()}, offset=number))
        assert not [secret for secret in SECRETS if secret in str(caught.value)]
        assert caught.value.__cause__ is None


class TestUnknownKeys:
    """A later version may add something without a new schema."""

    @pytest.mark.parametrize(
        "place",
        [
            lambda fields: fields,
            lambda fields: fields["tokens"]["8"],
            lambda fields: fields["ledger"],
            lambda fields: fields["ledger"]["hold"],
            lambda fields: fields["ledger"]["latches"][0],
        ],
    )
    def test_they_are_ignored(self, place: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Keys that this version does not know change nothing, wherever they are."""
        fields = fields_of(FULL)
        place(fields)["later"] = {"x": 1}
        assert differences(decode(sealed(fields)), FULL) == []

    def test_also_around_the_record(self) -> None:
        """A key beside the record is ignored, and not covered by the checksum."""
        assert decode(json.dumps({**json.loads(ENCODED), "comment": "mine"}).encode()) == FULL


class TestEarlierVersions:
    """What was added within the schema."""

    def test_records_without_strangers(self) -> None:
        """A record that an earlier version has written has none; and one that has none is written as by that version."""
        fields = fields_of(dataclasses.replace(FULL, strangers={}))
        assert "strangers" not in fields
        assert decode(sealed(fields)).strangers == {}

    def test_records_with_strangers(self) -> None:
        """They come back, with the moment at which each was seen."""
        record = Record(1, strangers={"digest": NOW, "another": 0.5})
        assert decode(encode(record)).strangers == {"digest": NOW, "another": 0.5}


class TestNewerSchema:
    """What a newer version has written is left to it."""

    @pytest.mark.parametrize("data", [sealed({}, schema=2), b'{"schema":2}', b'{"schema":99,"record":[]}'])
    def test_it_is_no_rubbish(self, data: bytes) -> None:
        """A higher schema is a StorageError that says so, whatever else is in there: the checksum may be another one."""
        with pytest.raises(StorageError, match="newer version of this package") as caught:
            decode(data)
        assert "Update this package" in caught.value.advice

    @pytest.mark.parametrize("schema", [0, -1, True, 1.0, "1", None, [], {}])
    def test_a_schema_is_a_number_from_one(self, schema: object) -> None:
        """Anything else was written by no version."""
        with pytest.raises(NotARecord, match="wrong schema"):
            decode(sealed({}, schema=schema))


WRONG: list[Any] = [
    ("revision", "1"),
    ("revision", True),
    ("revision", 1.0),
    ("generation", None),
    ("tokens", []),
    ("tokens", {"8": None}),
    ("tokens", {"8": {}}),
    ("hosts", {"demo": 1}),
    ("hosts", "demo"),
    ("ledger", None),
    ("offset", "0"),
    ("offset", True),
    ("strangers", None),
    ("strangers", {"digest": "1"}),
    pytest.param("offset", 10**400, id="huge"),
]
WRONG_TOKEN: list[tuple[str, object]] = [
    ("value", None),
    ("md_value", 1),
    ("expires_at", "2027-01-15T09:20:00"),
    ("expires_at", "soon"),
    ("expires_at", NOW),
    ("issued_at", "0001-01-01T00:00:00+14:00"),
    ("generation", "4"),
    ("user_id", True),
    ("name", None),
    ("device_id", 5),
    ("known_expiry", 1),
    ("hosts", None),
    ("details", [1]),
]
WRONG_LEDGER: list[tuple[str, object]] = [
    ("failed_logins", None),
    ("logins", ["1"]),
    ("renewals", [True]),
    ("renewed_at", "1"),
    ("hold", {"kind": "penalty"}),
    ("hold", {"kind": "vacation", "until": 1, "reason": "", "ticket": None, "resends": 0}),
    ("hold", {"kind": [], "until": 1, "reason": "", "ticket": None, "resends": 0}),
    ("latches", {}),
    ("latches", [[]]),
    ("proven", "1"),
    ("proven", [1]),
]


class TestNoRecord:
    """Bytes that are something else."""

    @given(st.binary(max_size=400) | JSON.map(lambda value: json.dumps(value).encode()) | JSON.map(sealed))
    @example(b"")
    @example(b"null")
    @example(b"\xff\xfe")
    @example(b"[" * 100_000)
    @example(b"1" * 5000)
    @example(b'{"schema":1,"record":NaN,"checksum":""}')
    @example(b'{"schema":1,"record":1e999,"checksum":""}')
    @settings(max_examples=200)
    def test_arbitrary_bytes(self, data: bytes) -> None:
        """Whatever lies there is a record, no record, or of a newer schema: nothing else comes out."""
        read(data)

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", "no JSON"),
            (b"token", "no JSON"),
            (ENCODED[:-1], "no JSON"),
            ("\u00e4".encode(), "no JSON"),
            (b"[]", "no JSON object"),
            (b"{}", "wrong schema"),
            (b'{"schema":1}', "wrong checksum"),
            (ENCODED.replace(b'"revision":1', b'"revision":2'), "wrong checksum"),
            (sealed(None), "wrong fields"),
            (sealed({}), "no field revision"),
        ],
    )
    def test_the_reason(self, data: bytes, reason: str) -> None:
        """The reason says what is wrong in a few words and nothing of what lies there."""
        with pytest.raises(NotARecord) as caught:
            decode(data)
        assert caught.value.reason == str(caught.value) == reason

    @pytest.mark.parametrize(("name", "value"), WRONG)
    def test_wrong_fields(self, name: str, value: object) -> None:
        """A field of the wrong type makes it no record, also under a right checksum."""
        with pytest.raises(NotARecord, match="field"):
            decode(sealed({**fields_of(FULL), name: value}))

    @pytest.mark.parametrize(("name", "value"), WRONG_TOKEN)
    def test_wrong_fields_of_a_token(self, name: str, value: object) -> None:
        """The same holds inside a token."""
        fields = fields_of(FULL)
        fields["tokens"]["8"][name] = value
        with pytest.raises(NotARecord, match=f"wrong field {name}"):
            decode(sealed(fields))

    @pytest.mark.parametrize(("name", "value"), WRONG_LEDGER)
    def test_wrong_fields_of_the_ledger(self, name: str, value: object) -> None:
        """The same holds inside the ledger, and in what is inside that."""
        fields = fields_of(FULL)
        fields["ledger"][name] = value
        with pytest.raises(NotARecord, match="field"):
            decode(sealed(fields))

    @pytest.mark.parametrize("name", sorted(_codec._RECORD_FIELDS.keys() - _codec._OPTIONAL))
    def test_missing_fields(self, name: str) -> None:
        """A field that is missing is not made up."""
        fields = fields_of(FULL)
        del fields[name]
        with pytest.raises(NotARecord, match=f"no field {name}"):
            decode(sealed(fields))

    @given(st.integers(0, len(ENCODED) - 1), st.integers(1, 255))
    @settings(max_examples=300)
    def test_a_changed_byte(self, place: int, change: int) -> None:
        """A byte that rotted never makes another record: it is noticed, or it meant nothing."""
        rotten = bytearray(ENCODED)
        rotten[place] ^= change
        found = read(bytes(rotten))
        assert found is None or differences(found, FULL) == []

    @given(st.integers(0, len(ENCODED)), st.integers(0, len(ENCODED)), st.binary(max_size=5))
    @settings(max_examples=200)
    def test_a_cut_or_a_patch(self, start: int, end: int, patch: bytes) -> None:
        """Neither does a piece that is missing or was overwritten."""
        found = read(ENCODED[:start] + patch + ENCODED[end:])
        assert found is None or differences(found, FULL) == []

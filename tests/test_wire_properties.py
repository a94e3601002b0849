"""Whatever the server says: a verdict, and never a token that could not be used or would be believed for too long."""

import datetime as dt
import json
from collections.abc import Callable
from typing import get_args

from hypothesis import HealthCheck, assume, example, given, seed, settings
from hypothesis import strategies as st
from values import DAY, NOW, credentials, json_reply, reply, token

from tradovate_auth import AccessToken, Environment
from tradovate_auth._grant import ended_already, merged_hosts, oddities, token_from
from tradovate_auth._wire import (
    Captcha,
    Faulty,
    Granted,
    LockedOut,
    Penalty,
    Refused,
    Verdict,
    login_call,
    parse_moment,
    read_reply,
    renewal_call,
    server_time,
)
from tradovate_auth.storage import Record, _codec
from tradovate_auth.transport import Reply
from tradovate_auth.websocket import authorize_frame

DEMO = Environment.of("demo")
GOOD = "good-token_4711"
FIELDS = [
    *(
        "accessToken",
        "mdAccessToken",
        "expirationTime",
        "apiHosts",
        "errorText",
        "violations",
        "userId",
        "name",
    ),
    *("p-ticket", "p-time", "p-captcha", "message", "error", "userStatus", "hibpHint", "details"),
]
SPELLINGS = ["{0}", "{0}.{1}", "{2}", "{0}.1", "{0}.123456789"]
ZONES = ["Z", "z", "", "+00:00", "-0500", "+23:59", " Z"]


def nested(inner: str, brackets: tuple[str, str], depth: int) -> str:
    """Return JSON that is that deep."""
    return brackets[0] * depth + inner + brackets[1] * depth


def near(seconds: float, spelling: str, zone: str) -> str:
    """Return a moment that is so far from NOW, written in one of the server's ways."""
    moment = dt.datetime.fromtimestamp(NOW + seconds, dt.UTC)
    whole, minutes = moment.strftime("%Y-%m-%dT%H:%M:%S"), moment.strftime("%Y-%m-%dT%H:%M")
    return spelling.format(whole, f"{moment.microsecond:06}", minutes) + zone


MOMENTS = st.builds(
    near,
    st.floats(-2 * DAY, 400 * DAY) | st.sampled_from([0.0, 1e-6, 1.0, 4800.0, DAY, DAY + 1]),
    st.sampled_from(SPELLINGS),
    st.sampled_from(ZONES),
)
NUMBERS = st.sampled_from(
    ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "-0", "1E400", "9" * 400, "9" * 4301, "0.1e-400"]
)
TEXTS = st.text(max_size=20) | st.sampled_from(
    [GOOD, "", " ", "true", "False", "x" * 8192, "x" * 8193, "a\nb"]
)
LITERALS = (
    st.sampled_from(["null", "true", "false", "{}", "[]"])
    | NUMBERS
    | st.integers().map(str)
    | st.floats().map(repr)
    | st.builds(json.dumps, TEXTS | MOMENTS, ensure_ascii=st.booleans())
    | st.sampled_from([r'"\ud800"', r'"\u0000"', r'"\u202e"'])
)


def pairs(values: st.SearchStrategy[str], keys: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return objects with these keys, also more than once."""
    members = st.lists(st.builds(lambda key, value: f"{json.dumps(key)}: {value}", keys, values), max_size=4)
    return members.map(lambda found: "{" + ", ".join(found) + "}")


VALUES = st.recursive(
    LITERALS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda found: "[" + ",".join(found) + "]")
        | pairs(inner, TEXTS | st.sampled_from(FIELDS))
    ),
    max_leaves=4,
)
DEEP = st.builds(
    nested, VALUES, st.sampled_from([("[", "]"), ('{"a":', "}"), ('[{"p-time":', "}]")]), st.integers(0, 1500)
)
GRANT = st.builds(
    lambda value, moment, more: (
        f'{{"accessToken": {value}, "expirationTime": {json.dumps(moment)}, {more[1:]}'
    ),
    st.just(json.dumps(GOOD)) | st.builds(json.dumps, TEXTS),
    MOMENTS,
    pairs(VALUES | DEEP, st.sampled_from(FIELDS)).filter(lambda text: text != "{}"),
)
ANSWERS = GRANT | pairs(VALUES | DEEP, st.sampled_from(FIELDS)) | VALUES | DEEP
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32-be", "latin-1"])
BODIES = (
    st.builds(lambda text, encoding: text.encode(encoding, "replace"), ANSWERS, ENCODINGS)
    | st.builds(lambda text, end: text.encode("utf-8", "replace")[:end], ANSWERS, st.integers(0, 200))
    | st.binary(max_size=100)
)
STATUSES = st.sampled_from(
    [200, 200, 200, 200, 201, 204, 307, 400, 401, 403, 404, 408, 421, 422, 423, 429, 500]
)
DATES = [
    *("Fri, 15 Jan 2027 08:00:00 GMT", "Friday, 15-Jan-27 08:00:00 GMT", "Fri Jan 15 08:00:00 2027"),
    *("Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 +2359", "0", "60", "9" * 5000, "-1", "1.5"),
]
HEADERS = st.dictionaries(
    st.sampled_from(["Date", "date", "Retry-After", "RETRY-AFTER"]) | st.text(max_size=10),
    st.sampled_from(DATES) | st.text(max_size=40),
    max_size=4,
)
HARMLESS = ["mdAccessToken", "apiHosts", "userId", "name", "userStatus", "details"]
GRANTS = st.builds(
    lambda moment, market_data, more, headers: reply(
        200,
        f'{{"accessToken": "{GOOD}", "expirationTime": {json.dumps(moment)}{market_data}, {more[1:]}',
        headers,
    ),
    MOMENTS,
    st.sampled_from(["", ', "mdAccessToken": "md-token"']),
    pairs(VALUES | DEEP, st.sampled_from(HARMLESS)).map(
        lambda text: '{"name": ""}' if text == "{}" else text
    ),
    HEADERS,
)
"""Answers of which nearly all are grants."""
OTHERS = st.builds(Reply, STATUSES | st.integers(-1, 1000), HEADERS, BODIES)
REPLIES = OTHERS | GRANTS
DEEP_GRANT = f'{{"accessToken":"x","expirationTime":"2027-01-15T09:00Z","details":{"[" * 700 + "]" * 700}}}'

SOME_GRANT = Granted(GOOD, None, 1e11, None, "", {}, {})

thorough = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def usable(value: str) -> bool:
    """Return whether a token can be put into a header and into a line: something, and nothing but visible ASCII."""
    return 0 < len(value) <= 8192 and all("!" <= character <= "~" for character in value)


def believed(granted: Granted, issued_at: float, previous: AccessToken | None = None) -> AccessToken:
    """Return the token that a grant leads to."""
    hosts = merged_hosts({}, granted, DEMO)
    return token_from(
        granted, issued_at=issued_at, generation=1, previous=previous, hosts=hosts, device_id=None
    )


def grant_of(value: str) -> Reply:
    """Return an answer that grants this text as the token, and as the token for market data."""
    fields = {"accessToken": value, "expirationTime": "2027-01-15T09:00Z", "mdAccessToken": value}
    return reply(200, json.dumps(fields))


@thorough
@given(REPLIES)
@example(reply(200, DEEP_GRANT))
@example(reply(200, b'{"accessToken":"a","accessToken":"","expirationTime":"2027-01-15T09:00Z"}'))
@example(reply(200, b'{"accessToken":"a","expirationTime":"2027-01-15T09:00Z","expirationTime":NaN}'))
@example(reply(503, b'{"p-time":' + b"9" * 400 + b"}"))
@example(reply(200, b'{"p-time": 1e9}'))
@example(reply(200, b'{"p-time": -1}'))
@example(grant_of(""))
@example(grant_of(" "))
@example(grant_of("a b"))
@example(grant_of("a\x7f"))
@example(grant_of("a\nb"))
@example(grant_of("é"))
@example(grant_of("x" * 8193))
@example(reply(429, b"", {"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT", "Date": "0"}))
@example(reply(200, b"", {"Date": "Fri, 31 Dec 9999 23:59:59 GMT"}))
@example(reply(200, b"", {"Date": "Mon, 01 Jan 0001 00:00:00 +2359"}))
def test_any_answer_has_a_verdict(answer: Reply) -> None:
    """Whatever comes back: one verdict of the closed set, never an exception, and nothing in it out of bounds."""
    verdict = read_reply(answer)
    assert isinstance(verdict, get_args(Verdict))
    match verdict:
        case Granted():
            assert usable(verdict.value)
            assert verdict.md_value is None or usable(verdict.md_value)
        case Penalty(seconds):
            assert 1.0 <= seconds <= 3600.0
            assert 0.0 <= verdict.retry_after.seconds(NOW) <= DAY
        case LockedOut() | Captcha():
            assert 0.0 <= verdict.retry_after.named <= DAY
            assert 0.0 <= verdict.retry_after.seconds(NOW) <= DAY
        case Refused(text) | Faulty(text):
            assert text.isprintable()
            assert text
    moment = server_time(answer)
    assert moment is None or token_from(
        SOME_GRANT, issued_at=moment, generation=1, previous=None, hosts={}, device_id=None
    )


@thorough
@given(GRANTS, st.floats(NOW - 300 * DAY, NOW + 300 * DAY))
def test_no_token_is_believed_for_longer_than_a_day_or_after_its_end(answer: Reply, issued_at: float) -> None:
    """Whatever a grant says of its end: what is believed lies after the moment of issue, and at most a day after it.

    An end that lies in the past already counts as unknown, and the trader hears of it.
    """
    verdict = read_reply(answer)
    assume(isinstance(verdict, Granted))
    assert isinstance(verdict, Granted)
    found = believed(verdict, issued_at)
    assert usable(found.value)
    assert found.md_value is None or usable(found.md_value)
    assert found.issued_at < found.expires_at <= found.issued_at + dt.timedelta(days=1)
    assert 0.0 < found.lifetime <= DAY
    assert found.expires_at.tzinfo is dt.UTC
    if found.known_expiry:
        assert found.expires_at.timestamp() <= verdict.expires_at + 1e-5
    else:
        assert verdict.expires_at - issued_at < 1e-6
        assert any("ended before it was granted" in text for text in oddities(found, None))
    assert found.known_expiry is not ended_already(verdict, issued_at)
    assert all(DEMO.admit(host) == host for host in found.hosts.values())


@thorough
@given(GRANTS)
def test_every_granted_token_can_be_sent_and_stored(answer: Reply) -> None:
    """A token that was granted fits the header of a renewal and a socket's frame, and survives the storage unchanged."""
    verdict = read_reply(answer)
    assume(isinstance(verdict, Granted))
    assert isinstance(verdict, Granted)
    found = believed(verdict, NOW)
    header = renewal_call(found, DEMO.url).headers["Authorization"]
    assert header == f"Bearer {verdict.value}"
    assert authorize_frame(found, 0).split("\n") == ["authorize", "0", "", verdict.value]
    kept = _codec.decode(_codec.encode(Record(tokens={"": found}))).tokens[""]
    assert (kept.value, kept.md_value, kept.expires_at) == (found.value, found.md_value, found.expires_at)
    assert (kept.issued_at, kept.known_expiry, kept.user_id) == (
        found.issued_at,
        found.known_expiry,
        found.user_id,
    )


def gathered(strategy: st.SearchStrategy[Reply], enough: Callable[[list[Verdict]], bool]) -> list[Verdict]:
    """Return what is made of many answers, and of many more until there is enough."""
    found: list[Verdict] = []

    def gather(number: int) -> None:
        @seed(number)
        @settings(max_examples=100, database=None, deadline=None, suppress_health_check=list(HealthCheck))
        @given(strategy)
        def some(answer: Reply) -> None:
            found.append(read_reply(answer))

        some()

    for number in range(20):
        gather(number)
        if enough(found):
            break
    return found


def test_the_answers_above_lead_to_every_verdict() -> None:
    """The generator reaches each of the verdicts, so that what is said above is not said of nothing."""
    others = set(get_args(Verdict)) - {Granted}
    found = gathered(OTHERS, lambda verdicts: others <= {type(verdict) for verdict in verdicts})
    assert others <= {type(verdict) for verdict in found}


def kinds(verdicts: list[Verdict]) -> set[str]:
    """Return what kinds of grants are among these verdicts."""
    found = set()
    for grant in verdicts:
        if isinstance(grant, Granted):
            end = grant.expires_at - NOW
            found.add("past" if end < 0.0 else "within a day" if end < DAY else "later")
            found |= {name for name in ("md_value", "details", "hosts", "name") if getattr(grant, name)}
    return found


def test_the_answers_above_lead_to_ends_of_every_kind() -> None:
    """Among the grants are ends that are past, that lie within a day, and that lie further ahead than is believed."""
    wanted = {"past", "within a day", "later", "md_value", "details", "hosts", "name"}
    assert kinds(gathered(GRANTS, lambda verdicts: kinds(verdicts) == wanted)) == wanted


@given(st.text(st.characters(max_codepoint=0x17F), max_size=20))
def test_a_token_is_granted_as_it_came_or_not_at_all(value: str) -> None:
    """Text with anything but visible ASCII in it is no token, and no token for market data; all other text is both."""
    plain = read_reply(grant_of(value))
    assert isinstance(plain, Granted) is usable(value)
    market = read_reply(
        json_reply({"accessToken": GOOD, "expirationTime": "2027-01-15T09:00Z", "mdAccessToken": value})
    )
    assert isinstance(market, Granted)
    assert market.md_value == (value if usable(value) else None)


@given(st.floats(-1e9, 1e10), st.integers(0, 9), st.sampled_from(["Z", "", "+00:00", "+05:30", "-0800"]))
def test_a_moment_is_read_as_it_was_written(seconds: float, digits: int, zone: str) -> None:
    """In each of the server's spellings a moment comes back to the last digit that was written (P§3)."""
    hours = {"+05:30": 5.5, "-0800": -8.0}.get(zone, 0.0)
    moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    local = moment + dt.timedelta(hours=hours)
    fraction = f"{moment.microsecond:06}000"[:digits]
    text = local.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0") + (f".{fraction}" if digits else "") + zone
    found = parse_moment(text)
    assert found is not None
    wanted = moment.replace(microsecond=0).timestamp() + (float(f"0.{fraction}") if digits else 0.0)
    assert abs(found - wanted) < 1e-5


@given(st.text(max_size=64).filter(bool), st.text(max_size=64).filter(bool))
def test_any_credentials_become_json(name: str, password: str) -> None:
    """What a user may be called and may have for a password arrives as it is, whatever it is written with."""
    assume(not any("\ud800" <= character <= "\udfff" for character in name + password))
    call = login_call(credentials(name=name, password=password), DEMO.url)
    assert call.body is not None
    fields = json.loads(call.body)
    assert (fields["name"], fields["password"]) == (name, password)
    assert call.body.isascii()


def test_a_token_keeps_its_market_data_part() -> None:
    """A renewal without one keeps the one before, whatever else it says (P§9.5)."""
    verdict = read_reply(reply(200, b'{"accessToken":"x","expirationTime":"2027-01-15T09:00Z"}'))
    assert isinstance(verdict, Granted)
    assert believed(verdict, NOW, token()).md_value == token().md_value


@given(STATUSES, ANSWERS)
def test_only_what_is_known_to_say_so_ends_a_session(status: int, answer: str) -> None:
    """A renewal's session counts as gone after 401, and after a text under a status of success: after nothing else."""
    verdict = read_reply(reply(status, answer.encode("utf-8", "replace")))
    if isinstance(verdict, Refused) and verdict.ends_session:
        assert status == 401 or (200 <= status < 300 and verdict.disguised)
    if isinstance(verdict, Refused) and status >= 300:
        assert not verdict.disguised


@given(
    GRANTS,
    st.dictionaries(
        st.sampled_from(["p-ticket", "p-time", "p-captcha"]), st.none() | st.booleans() | st.integers()
    ),
)
def test_nothing_beside_it_takes_a_granted_token_away(answer: Reply, beside: dict[str, object]) -> None:
    """What was granted stays granted, whatever fields of a penalty come with it: the session has been opened."""
    granted = read_reply(answer)
    assume(isinstance(granted, Granted))
    spoilt = answer.body.rstrip()[:-1] + b", " + json.dumps({"x": 1, **beside})[1:].encode()
    verdict = read_reply(reply(200, spoilt, dict(answer.headers)))
    assert isinstance(verdict, Granted)
    assert isinstance(granted, Granted)
    assert (verdict.value, verdict.expires_at) == (granted.value, granted.expires_at)

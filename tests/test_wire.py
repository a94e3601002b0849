"""The two calls and what every answer to them means: an example for every row of the protocol, then anything at all."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from values import DAY, MD_VALUE, NOW, PASSWORD, SEC, SECRETS, TICKET, VALUE, json_reply, reply
from values import credentials as some_credentials
from values import token as some_token

from tradovate_auth import Credentials
from tradovate_auth._wire import (
    Captcha,
    Faulty,
    Granted,
    LockedOut,
    Penalty,
    Refused,
    RetryAfter,
    Verdict,
    login_call,
    parse_moment,
    read_reply,
    renewal_call,
    scrub,
    server_time,
)
from tradovate_auth.transport import Call

BASE = "https://demo.tradovateapi.com/v1"
ENDS = "2027-01-15T08:00:00Z"  # NOW
PENALTY = {"p-ticket": TICKET, "p-time": 15}
ANSWER: dict[str, Any] = {"accessToken": VALUE, "expirationTime": ENDS}
WRONG = "Incorrect username or password. Please try again, noting that passwords are case-sensitive."


def read(answer: object, status: int = 200, **headers: str) -> Verdict:
    """Return what a JSON answer means; headers with underscores for hyphens."""
    return read_reply(
        json_reply(answer, status, {name.replace("_", "-"): value for name, value in headers.items()})
    )


def read_grant(answer: object) -> Granted:
    """Return what an answer grants."""
    verdict = read(answer)
    assert isinstance(verdict, Granted)
    return verdict


def body_of(call: Call) -> dict[str, Any]:
    """Return the JSON that a call carries."""
    assert call.body is not None
    fields = json.loads(call.body)
    assert isinstance(fields, dict)
    return fields


class TestCalls:
    """What we send."""

    def test_a_login(self) -> None:
        """A login is a JSON POST of every field under the server's name for it (P§2)."""
        call = login_call(some_credentials(organization="", hibp_check=False), BASE)
        assert (call.method, call.url) == ("POST", f"{BASE}/auth/accesstokenrequest")
        assert call.headers == {"Accept": "application/json", "Content-Type": "application/json"}
        assert body_of(call) == {
            "name": "trader",
            "password": PASSWORD,
            "appId": "bot",
            "appVersion": "1.0",
            "cid": 8,
            "sec": SEC,
            "deviceId": "device-1",
            "organization": "",
            "hibpCheck": False,
        }

    def test_the_least_login(self) -> None:
        """What was not given is not sent, not even as null."""
        assert body_of(login_call(Credentials("n", "p"), BASE)) == {"name": "n", "password": "p"}

    def test_a_ticket_is_redeemed_with_the_identical_body(self) -> None:
        """A penalty's ticket is the only thing that changes in the body (P§4.1)."""
        plain, redeemed = (body_of(login_call(some_credentials(), BASE, ticket)) for ticket in (None, TICKET))
        assert redeemed == {**plain, "p-ticket": TICKET}

    @pytest.mark.parametrize(
        ("cid", "sent"), [("8", 8), (8, 8), ("key-8", "key-8"), ("\u0668", "\u0668"), ("8.0", "8.0"), (0, 0)]
    )
    def test_a_cid_of_digits_is_a_number(self, cid: str | int, sent: str | int) -> None:
        """ASCII digits go as a JSON number, anything else as it is (P§9.26)."""
        assert body_of(login_call(some_credentials(cid=cid), BASE))["cid"] == sent

    def test_a_renewal(self) -> None:
        """A renewal is a GET without a body and without a content type, with the token's header (P§1.3)."""
        call = renewal_call(some_token(), BASE)
        assert (call.method, call.url, call.body) == ("GET", f"{BASE}/auth/renewaccesstoken", None)
        assert call.headers == {"Accept": "application/json", "Authorization": f"Bearer {VALUE}"}

    @given(
        st.builds(
            Credentials,
            name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=64),
            password=st.text(st.characters(codec="utf-8"), min_size=1, max_size=64),
            cid=st.none() | st.integers(0, 10**9) | st.from_regex(r"[0-9]{1,20}", fullmatch=True),
            sec=st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=99),
            organization=st.none() | st.just(""),
            hibp_check=st.none() | st.booleans(),
        ),
        st.none() | st.text(min_size=1),
    )
    def test_a_body_holds_no_null(self, who: Credentials, ticket: str | None) -> None:
        """Whatever the credentials: the body is ASCII JSON without a null, the texts arrive whole, digits as a number."""
        call = login_call(who, BASE, ticket)
        body = body_of(call)
        assert call.body is not None
        assert call.body.isascii()
        assert None not in body.values()
        assert (body["name"], body["password"]) == (who.name, who.password)
        assert isinstance(body.get("cid", 0), int)


class TestPenalties:
    """Tickets and captchas, which the server may put into any answer (P§4.1, P§9.15)."""

    @pytest.mark.parametrize("status", [200, 401, 404, 423, 429, 500])
    def test_a_penalty_hides_behind_any_status(self, status: int) -> None:
        """A ticket in the body wins over the status."""
        assert read(PENALTY, status) == Penalty(15.0, TICKET)

    @pytest.mark.parametrize(
        ("answer", "seconds", "ticket"),
        [
            ({"p-ticket": TICKET}, 15.0, TICKET),
            ({"p-ticket": TICKET, "p-time": None}, 15.0, TICKET),
            ({"p-ticket": TICKET, "p-time": 60}, 60.0, TICKET),
            ({"p-ticket": TICKET, "p-time": "60"}, 60.0, TICKET),
            ({"p-ticket": TICKET, "p-time": "soon"}, 15.0, TICKET),
            ({"p-ticket": TICKET, "p-time": [15]}, 15.0, TICKET),
            ({"p-ticket": TICKET, "p-time": -5}, 1.0, TICKET),
            ({"p-ticket": TICKET, "p-time": 0}, 1.0, TICKET),
            ({"p-ticket": TICKET, "p-time": 1e9}, 3600.0, TICKET),
            ({"p-ticket": TICKET, "p-time": 10**400}, 15.0, TICKET),
            ({"p-ticket": TICKET, "p-time": float("inf")}, 15.0, TICKET),
            ({"p-ticket": TICKET, "p-time": float("nan")}, 15.0, TICKET),
            ({"p-time": 30}, 30.0, None),
            ({"p-ticket": "", "p-time": 30}, 30.0, None),
            ({"p-ticket": 4713, "p-time": 30}, 30.0, None),
            ({**PENALTY, "p-captcha": False}, 15.0, TICKET),
            ({**PENALTY, "errorText": WRONG}, 15.0, TICKET),
        ],
    )
    def test_the_wait_of_a_penalty(self, answer: object, seconds: float, ticket: str | None) -> None:
        """The wait is p-time in seconds, within bounds; unreadable, it is the server's usual fifteen."""
        assert read(answer) == Penalty(seconds, ticket)

    def test_fields_that_are_null_are_no_penalty(self) -> None:
        """A server that writes out its whole schema, empty fields as null, has granted the token all the same."""
        nothing = dict.fromkeys(("p-ticket", "p-time", "p-captcha", "errorText", "violations", "apiHosts"))
        assert read_grant({**nothing, **ANSWER}).value == VALUE

    @pytest.mark.parametrize(
        "beside",
        [PENALTY, {"p-time": 0}, {"p-time": 15}, {"p-ticket": TICKET}, {"p-captcha": True}],
        ids=str,
    )
    @pytest.mark.parametrize("status", [200, 201])
    def test_a_granted_token_is_one_whatever_stands_beside_it(
        self, beside: dict[str, Any], status: int
    ) -> None:
        """A penalty has nothing else beside it (P§3): a session that was opened is used, not opened again."""
        verdict = read({**ANSWER, **beside}, status)
        assert isinstance(verdict, Granted)
        assert verdict.value == VALUE
        assert TICKET not in repr(verdict.details)

    @pytest.mark.parametrize(
        "spoilt",
        [
            {"accessToken": "", "expirationTime": ENDS},
            {"accessToken": VALUE},
            {"accessToken": "a b", "expirationTime": ENDS},
            {**ANSWER, "errorText": WRONG},
            {**ANSWER, "violations": [{}]},
        ],
    )
    def test_a_token_that_is_none_does_not_hide_a_penalty(self, spoilt: dict[str, Any]) -> None:
        """Beside a token that is none, or cannot be used, the penalty counts; and so it does under another status."""
        assert read({**spoilt, **PENALTY}) == Penalty(15.0, TICKET)
        assert read({**spoilt, "p-captcha": True}) == Captcha()
        assert read({**ANSWER, **PENALTY}, 429) == Penalty(15.0, TICKET)

    @pytest.mark.parametrize("value", [True, "true", "True", " TRUE ", "yes", 1, "1", [0], {"site": "key"}])
    @pytest.mark.parametrize("status", [200, 401, 429])
    def test_a_captcha_is_asked_for(self, value: object, status: int) -> None:
        """Anything that means yes stops everything, whatever else the answer holds, but for a token that was granted."""
        assert read({**PENALTY, "errorText": WRONG, "p-captcha": value}, status) == Captcha()

    @pytest.mark.parametrize("status", [200, 429])
    def test_a_longer_wait_in_the_header(self, status: int) -> None:
        """Retry-After is read beside a ticket and beside a captcha, in both of its forms."""
        for header, after in (
            ("7200", RetryAfter(7200.0)),
            ("Fri, 15 Jan 2027 09:00:00 GMT", RetryAfter(until=1_800_003_600.0)),
        ):
            assert read(PENALTY, status, Retry_After=header) == Penalty(15.0, TICKET, after)
            assert read({**PENALTY, "p-captcha": True}, status, Retry_After=header) == Captcha(after)

    @pytest.mark.parametrize("value", [False, "false", "False", " FALSE ", "no", 0, "0", "", None, [], {}])
    def test_no_captcha_is_asked_for(self, value: object) -> None:
        """Anything that means no leaves the penalty one that can be waited for."""
        assert read({**PENALTY, "p-captcha": value}) == Penalty(15.0, TICKET)


class TestLockOut:
    """423 and 429 (P§4.2)."""

    @pytest.mark.parametrize("status", [423, 429])
    @pytest.mark.parametrize(
        "body", [b"", b"{}", b"Locked", b'{"errorText": "x"}', json.dumps(ANSWER).encode()]
    )
    def test_the_status_is_enough(self, status: int, body: bytes) -> None:
        """Without a ticket in the body the status alone locks us out, documented or not."""
        assert read_reply(reply(status, body)) == LockedOut(status)

    @pytest.mark.parametrize(
        ("header", "seconds"),
        [
            ("120", 120.0),
            (" 7200 ", 7200.0),
            ("0", 0.0),
            ("999999", DAY),
            ("9" * 400, DAY),
            ("Fri, 15 Jan 2027 09:00:00 GMT", 3600.0),
            ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
            ("Fri, 15 Jan 2999 07:00:00 GMT", DAY),
            ("-5", 0.0),
            ("1.5", 0.0),
            ("\u0661\u0662", 0.0),
            ("soon", 0.0),
            ("", 0.0),
        ],
    )
    def test_retry_after(self, header: str, seconds: float) -> None:
        """Retry-After counts in seconds, or as a date measured by the answer's own Date; at most a day."""
        headers = {"Retry-After": header, "DATE": "Fri, 15 Jan 2027 08:00:00 GMT"}
        assert read_reply(reply(429, b"", headers)) == LockedOut(429, RetryAfter(seconds))

    def test_a_date_without_a_date(self) -> None:
        """Where the server does not say what time it is there, the moment is measured by what is known of its clock."""
        headers = {"Retry-After": "Fri, 15 Jan 2027 09:00:00 GMT"}
        locked = read_reply(reply(429, b"", headers))
        assert locked == LockedOut(429, RetryAfter(until=1_800_003_600.0))
        assert isinstance(locked, LockedOut)
        waits = [locked.retry_after.seconds(1_800_003_600.0 - before) for before in (7200.0, -60.0, 9 * DAY)]
        assert waits == [7200.0, 0.0, DAY]

    def test_seconds_that_are_named(self) -> None:
        """What the header says in seconds needs no clock; without a header there is nothing to wait for beyond the hour."""
        assert RetryAfter(120.0).seconds(NOW) == 120.0
        assert RetryAfter().seconds(NOW) == 0.0


class TestRefusals:
    """The server understood and said no (P§3.1, P§3.2)."""

    def test_a_bad_login_as_measured(self) -> None:
        """200 with errorText is a refusal, which may be throttling in disguise (P§9.7)."""
        assert read({"errorText": WRONG}) == Refused(WRONG, disguised=True, ends_session=True)

    @pytest.mark.parametrize(
        "text",
        [
            "The app is not registered",
            "This endpoint should be called on demo.tradovateapi.com",
            "Access denied",
        ],
    )
    def test_other_error_texts(self, text: str) -> None:
        """Every error text is a refusal, and it is handed on; a token beside it does not help."""
        assert read({**ANSWER, "errorText": text}) == Refused(text, disguised=True, ends_session=True)

    @pytest.mark.parametrize(
        ("answer", "text"),
        [
            ({"error": "Invalid credentials", "message": "Nothing matches."}, "Nothing matches."),
            ({"error": "Token expired"}, "Token expired"),
            ({"errorText": "Access is denied"}, "Access is denied"),
            ({"message": " ", "error": None, "errorText": 5}, "the server answered 401"),
            ({}, "the server answered 401"),
            ([], "the server answered 401"),
        ],
    )
    def test_a_401(self, answer: object, text: str) -> None:
        """401 is a refusal whatever its body says, and never throttling in disguise."""
        assert read(answer, 401) == Refused(text, disguised=False, ends_session=True)

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b"", ""),
            (b"Access is denied", ": Access is denied"),
            (b"\xff", ""),
            (b"[" * 100_000, ""),
            (b"<html>", ""),
        ],
    )
    def test_a_401_of_any_shape(self, body: bytes, said: str) -> None:
        """The body of a 401 need not be JSON (P§9.10); what it says in plain text is told."""
        expected = Refused(f"the server answered 401{said}", disguised=False, ends_session=True)
        assert read_reply(reply(401, body)) == expected

    @pytest.mark.parametrize("status", [400, 402, 403, 404, 409, 421, 422, 451])
    @pytest.mark.parametrize(
        ("answer", "text"),
        [
            ({"errorText": WRONG}, WRONG),
            ({"error": "Invalid credentials", "message": "Nothing matches."}, "Nothing matches."),
            ({"error": "Invalid credentials"}, "Invalid credentials"),
            ({**ANSWER, "errorText": "Access is denied"}, "Access is denied"),
            ({"violations": [{"constraint": "name"}]}, "the server calls these fields invalid: name"),
        ],
    )
    def test_a_request_that_is_blamed_is_refused(self, status: int, answer: object, text: str) -> None:
        """A 4xx that says why in JSON is a refusal, never throttling in disguise, and no word on a renewal's session."""
        elsewhere = status in (404, 421)
        assert read(answer, status) == Refused(text, disguised=False, ends_session=False, elsewhere=elsewhere)

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b"", ""),
            (b" \r\n", ""),
            (b"{}", ""),
            (b'{"violations": [], "errorText": " "}', ""),
            (b"No such field", ": No such field"),
        ],
    )
    def test_a_400_needs_no_words(self, body: bytes, said: str) -> None:
        """400 means that the request is badly formed (P§3.2): it is so the next time, too."""
        expected = Refused(f"the server calls the request badly formed{said}", disguised=False)
        assert read_reply(reply(400, body)) == expected

    @pytest.mark.parametrize("status", [400, 403, 404, 502])
    @pytest.mark.parametrize(
        "body",
        [
            b"<html>Blocked</html>",
            b" \n<!doctype html>",
            b"\xef\xbb\xbf<?xml version='1.0'?>",
            b'{"errorText": "no',
            b'["no"]',
            b'"no"',
            b"\xff\xfe",
            b"x" * 2049,
        ],
        ids=str,
    )
    def test_a_page_is_no_refusal(self, status: int, body: bytes) -> None:
        """A page, or anything else that is no answer of the server's, is a proxy's word, of which nothing is repeated."""
        elsewhere = status == 404
        expected = Faulty(f"the server answered {status}", known=status == 502, elsewhere=elsewhere)
        assert read_reply(reply(status, body)) == expected

    @pytest.mark.parametrize("status", [307, 407, 408, 500, 503])
    def test_a_server_in_trouble_refuses_nothing(self, status: int) -> None:
        """Where it is not the request that is to blame the words are told, and are no refusal."""
        for answer in ({"errorText": "no"}, {"message": "no", "error": "x"}, {"error": "no"}):
            verdict = read(answer, status)
            assert isinstance(verdict, Faulty)
            assert verdict.reason == f"the server answered {status}: no"
        assert isinstance(read({"violations": [{"constraint": "name"}]}, status), Faulty)

    @pytest.mark.parametrize("status", ["TemporaryLocked", "TemporarilyLocked", "Closed", "Somehow"])
    def test_the_status_of_the_user_comes_first(self, status: str) -> None:
        """Without a token a user status that is not Active is told with every refusal, before the words that it explains."""
        user = {"userStatus": status}
        before = f"the server calls this user '{status}': "
        for code, answer, text in (
            (200, {"errorText": "no"}, "no"),
            (401, {"message": "no"}, "no"),
            (403, {"error": "no"}, "no"),
            (200, {"violations": [{"constraint": "x"}]}, "the server calls these fields invalid: x"),
            (200, {}, "the answer holds neither a token nor an error"),
            (400, {}, "the server calls the request badly formed"),
            (403, {}, "the server answered 403"),
        ):
            verdict = read({**answer, **user}, code)
            assert isinstance(verdict, Refused | Faulty)
            assert (verdict.reason if isinstance(verdict, Faulty) else verdict.text) == before + text

    @pytest.mark.parametrize(
        "status", ["Active", "ACTIVE", "", None, 5, ["Closed"], "x" * 41, "Closed!", "a b"]
    )
    def test_a_status_that_says_nothing(self, status: object) -> None:
        """A user who is active, and a status that is no word, explain nothing."""
        verdict = read({"errorText": "no", "userStatus": status})
        assert verdict == Refused("no", disguised=True, ends_session=True)

    @pytest.mark.parametrize("text", ["", "  ", "\n\t", "\x00", None, 0, [], {}])
    def test_an_empty_error_text_is_none(self, text: object) -> None:
        """An error text that says nothing does not spoil a token (P§9.28)."""
        assert read_grant({**ANSWER, "errorText": text}).value == VALUE

    def test_an_error_text_is_made_printable(self) -> None:
        """What cannot be printed is left out, so that no log line is forged."""
        verdict = read({"errorText": "no\r\nINFO all is well\x1b[0m\ud800"})
        assert isinstance(verdict, Refused)
        assert verdict.text == "noINFO all is well[0m"

    def test_violations_name_fields_and_never_values(self) -> None:
        """A validation error names what was invalid; its values and descriptions may repeat the password."""
        violations = [
            {"constraint": "password: too short", "value": PASSWORD, "description": f"{PASSWORD} is short"},
            {"constraint": "appId"},
            {"constraint": 5, "value": SEC},
            PASSWORD,
        ]
        verdict = read({"violations": violations})
        assert verdict == Refused(
            "the server calls these fields invalid: appId, password: too short", disguised=False
        )
        assert not [secret for secret in SECRETS if secret in repr(verdict)]

    @pytest.mark.parametrize("violations", [[{}], ["x"], "x", 5, {"constraint": "x"}])
    def test_violations_of_another_shape(self, violations: object) -> None:
        """Violations that name nothing are a refusal all the same."""
        assert read({"violations": violations, **ANSWER}) == Refused(
            "the server calls these fields invalid: unnamed", disguised=False
        )

    @pytest.mark.parametrize("violations", [[], None])
    def test_no_violations(self, violations: object) -> None:
        """An empty list of violations is none."""
        assert read_grant({"violations": violations, **ANSWER}).value == VALUE


class TestFaults:
    """Everything that is neither a token nor a refusal."""

    @pytest.mark.parametrize(
        ("status", "known"),
        [
            *((500, True), (502, True), (503, True), (408, True)),
            *(
                (404, False),
                (403, False),
                (307, False),
                (421, False),
                (407, False),
                (302, False),
                (100, False),
            ),
        ],
    )
    def test_other_statuses(self, status: int, *, known: bool) -> None:
        """5xx and 408 are a server in trouble; any other status is not in the protocol of these calls."""
        body = "Internal Server Error, error id: 12"
        elsewhere = status in (307, 404, 421)
        plain = f"the server answered {status}"
        assert read_reply(reply(status, body)) == Faulty(f"{plain}: {body}", known, elsewhere)
        assert read(ANSWER, status) == Faulty(plain, known, elsewhere)

    @pytest.mark.parametrize(
        "body", [b"", b"<html>", b"null", b"[]", b'"token"', b"5", b"{", b"\xff\xfe", b"[" * 100_000]
    )
    def test_an_answer_that_is_no_object(self, body: bytes) -> None:
        """200 without a JSON object is an answer that got lost on the way."""
        assert read_reply(reply(200, body)) == Faulty("the answer is no JSON object", known=True)

    @pytest.mark.parametrize(
        "answer",
        [
            {},
            {"accessToken": ""},
            {"accessToken": None, "expirationTime": ENDS},
            {"mfa": "required"},
            {"violations": []},
            {"p-time": None},
        ],
    )
    def test_no_token_and_no_error(self, answer: object) -> None:
        """An answer that holds neither asks for something interactive that we do not know (P§9.29)."""
        assert read(answer) == Faulty("the answer holds neither a token nor an error", known=False)

    def test_what_is_said_instead_of_a_token(self) -> None:
        """Words under another name than that of an error are told, and are no refusal."""
        assert read({"message": "Check your mail."}) == Faulty(
            "the answer holds neither a token nor an error: Check your mail.", known=False
        )

    @pytest.mark.parametrize(
        "value",
        [
            " ",
            "a b",
            "a\nb",
            "a\r\nX-Evil: 1",
            "a\x00",
            "t\u00f6ken",
            "x" * 8193,
            "\ud800",
            5,
            True,
            ["x"],
            {"x": 1},
        ],
    )
    def test_tokens_that_fit_no_header(self, value: object) -> None:
        """A token that could break a header, or is none, is not used; the verdict does not repeat it."""
        assert read({**ANSWER, "accessToken": value}) == Faulty(
            "the answer's token cannot be put into a header", known=False
        )

    @pytest.mark.parametrize(
        "moment", [None, "", "soon", 1_800_000_000, "2027-13-01T00:00Z", "2027-01-15", {}]
    )
    def test_a_token_without_an_end(self, moment: object) -> None:
        """A token whose end is not told, or cannot be read, is no token (P§9.1)."""
        assert read({**ANSWER, "expirationTime": moment}) == Faulty(
            "the answer does not say when its token ends", known=False
        )
        assert isinstance(read({"accessToken": VALUE}), Faulty)


class TestGrants:
    """A token, and what comes with it."""

    def test_a_whole_answer(self) -> None:
        """Every known field ends up in its place, every other in the details (P§3)."""
        others = {
            "userStatus": "Active",
            "hasLive": True,
            "passwordExpirationTime": ENDS,
            "hibpHint": "PasswordCompromised",
            "someday": [1, {"x": None}],
            "expirationTime": ENDS,
            "userId": 7,
            "name": "trader",
        }
        hosts = {"demo": "d2.tradovateapi.com", "newKey": 5}
        answer = {
            **others,
            "accessToken": VALUE,
            "mdAccessToken": MD_VALUE,
            "apiHosts": hosts,
            "errorText": "",
        }
        assert read(answer) == Granted(VALUE, MD_VALUE, NOW, 7, "trader", hosts, others)

    @pytest.mark.parametrize("status", [200, 201, 299])
    def test_any_success(self, status: int) -> None:
        """Any status of success will do."""
        assert read(ANSWER, status) == Granted(VALUE, None, NOW, None, "", {}, {"expirationTime": ENDS})

    @pytest.mark.parametrize("hosts", [None, [], ["demo"], "demo.tradovateapi.com", 5, True])
    def test_hosts_of_a_wrong_type_are_none(self, hosts: object) -> None:
        """Hosts that are no object are ignored."""
        assert read_grant({**ANSWER, "apiHosts": hosts}).hosts == {}

    @pytest.mark.parametrize("user_id", [None, "7", True, 7.5, [7]])
    def test_a_user_id_of_a_wrong_type_is_none(self, user_id: object) -> None:
        """A user id is a whole number or nothing."""
        assert read_grant({**ANSWER, "userId": user_id}).user_id is None

    @pytest.mark.parametrize("md_value", [None, "", 5, "a b", "a\nb", "x" * 8193])
    def test_an_odd_market_data_token_is_none(self, md_value: object) -> None:
        """A market data token that fits no frame is left out; the token itself is good."""
        assert read_grant({**ANSWER, "mdAccessToken": md_value}).md_value is None

    def test_a_name_of_a_wrong_type_is_empty(self) -> None:
        """A name is text or nothing."""
        assert read_grant({**ANSWER, "name": 5}).name == ""

    @pytest.mark.parametrize(
        "field",
        [
            *(
                "access_token",
                "refreshToken",
                "id_token",
                "password",
                "newPassword",
                "clientSecret",
                "secretKey",
            ),
            *("sec", "SEC", "p-ticket2", "ticketId", "mdAccessToken", "apiHosts"),
        ],
    )
    def test_details_hold_no_secret(self, field: str) -> None:
        """Whatever looks like a secret is not in the details, however deep it lies."""
        answer = {**ANSWER, "ok": [1, {"ok": 2, field: VALUE}], "sector": "x", field: VALUE}
        details = read_grant(answer).details
        assert details == {"expirationTime": ENDS, "ok": [1, {"ok": 2}], "sector": "x"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2021-06-15T15:40:30.056Z", 1623771630.056),
        ("2024-01-01T12:00:00.000Z", 1704110400.0),
        ("2024-01-15T09:30:00Z", 1705311000.0),
        ("2017-12-15T22:29Z", 1513376940.0),
        ("2024-01-15T09:30:00.1Z", 1705311000.1),
        ("2024-01-15T09:30:00.123456789Z", 1705311000.123456789),
        ("2024-01-15T09:30:00z", 1705311000.0),
        ("2024-01-15t09:30:00", 1705311000.0),
        (" 2024-01-15 09:30:00 ", 1705311000.0),
        ("2024-01-15T10:30:00+01:00", 1705311000.0),
        ("2024-01-15T04:30-0500", 1705311000.0),
        ("0001-01-01T00:00:00+23:59", -62135683140.0),
        ("2024-01-15T09:30:00.Z", None),
        ("2024-01-15T09:30:00.1234567890Z", None),
        ("2024-01-15T9:30Z", None),
        ("2024-02-30T09:30Z", None),
        ("2024-01-15T25:30Z", None),
        ("2024-01-15T09:30:00+99:99", None),
        ("\u0662\u0660\u0662\u0664-01-15T09:30Z", None),
        ("2024-01-15T09:30Z and more", None),
        (1705311000, None),
        (None, None),
    ],
)
def test_moments(text: object, seconds: float | None) -> None:
    """Every format of P§3 is read: 0 to 9 digits of a second, no seconds, any offset, and none for UTC."""
    parsed = parse_moment(text)
    assert parsed == (seconds if seconds is None else pytest.approx(seconds, abs=1e-6))


@pytest.fixture(params=["UTC", "America/Chicago", "Asia/Tokyo"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Put this machine into another time zone."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("Fri, 15 Jan 2027 08:00:00 GMT", NOW),
        ("Friday, 15-Jan-27 08:00:00 GMT", NOW),
        ("Fri Jan 15 08:00:00 2027", NOW),
        ("Fri, 15 Jan 2027 08:00:00 -0000", NOW),
        ("Fri, 15 Jan 2027 10:00:00 +0200", NOW),
        ("Fri, 99 Jan 2027 08:00:00 GMT", None),
        ("2027-01-15T08:00:00Z", None),
        ("", None),
        (None, None),
    ],
)
def test_the_servers_time(zone: str, header: str | None, seconds: float | None) -> None:
    """The Date header is read in each format that HTTP allows, and means UTC in any time zone of this machine."""
    headers = {} if header is None else {"daTe": header}
    assert server_time(reply(200, b"", headers)) == seconds, zone


class TestScrubbing:
    """A server may echo what it was sent; what it says goes into events and errors."""

    def test_secrets_are_replaced(self) -> None:
        """Every secret is replaced, wherever and however often it stands."""
        text = f"{PASSWORD} is wrong, {PASSWORD}! Also {SEC}."
        assert scrub(text, some_credentials().secrets()) == "*** is wrong, ***! Also ***."

    def test_a_secret_within_another(self) -> None:
        """The longest goes first, so nothing of it stays."""
        assert scrub("abcdef", some_credentials(password="abc", sec="abcdef").secrets()) == "***"

    @pytest.mark.parametrize("start", range(180, 201))
    def test_no_secret_is_cut_in_half(self, start: int) -> None:
        """A long text is cut only after it was scrubbed: no piece of a secret stays at its end."""
        verdict = read({"errorText": "x" * start + PASSWORD + "y" * 300})
        assert isinstance(verdict, Refused)
        shown = scrub(verdict.text, (PASSWORD,))
        assert len(shown) == 200
        assert set(shown[start:]) <= set("*y")

    def test_a_secret_that_was_made_printable(self) -> None:
        """A secret is found also where what cannot be printed was left out of it."""
        secret = "pass\u200bword\t"
        verdict = read({"errorText": f"no: {secret}"})
        assert isinstance(verdict, Refused)
        assert scrub(verdict.text, (secret,)) == "no: ***"

    @pytest.mark.parametrize("secret", ['quo"te', "back\\slash", "\u00fcmlaut", 'tab\tand"more'])
    def test_a_secret_as_it_was_sent(self, secret: str) -> None:
        """A secret is found also as it stood in the JSON of our request, which a server may repeat."""
        for echo in (json.dumps({"password": secret}), json.dumps({"password": secret}, ensure_ascii=False)):
            verdict = read_reply(reply(500, f"cannot read {echo}".encode()))
            assert isinstance(verdict, Faulty)
            assert scrub(verdict.reason, (secret,)).endswith('{"password": "***"}')

    def test_a_secret_of_nothing_printable(self) -> None:
        """A secret of blanks alone does not tear the text apart."""
        assert scrub("all is well", ("\t\t",)) == "all is well"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    *("accessToken", "mdAccessToken", "expirationTime", "apiHosts", "errorText", "violations", "userId"),
    *("p-ticket", "p-time", "p-captcha", "name", "message", "error"),
]
TEXTS = st.sampled_from([VALUE, ENDS, "", " ", "true", "false", "a\nb"])
ANSWERS = st.dictionaries(st.sampled_from(FIELDS), JSON | TEXTS, max_size=6) | JSON
STATUSES = st.sampled_from([200, 200, 200, 201, 307, 400, 401, 404, 408, 423, 429, 500, 502]) | st.integers(
    100, 599
)
HEADERS = st.dictionaries(
    st.sampled_from(["Date", "retry-after", "Retry-After", "X"]),
    st.text(max_size=30) | st.sampled_from(["60", "Fri, 15 Jan 2027 08:00:00 GMT"]),
    max_size=3,
)


def check(verdict: Verdict) -> None:
    """Check what holds for every verdict."""
    match verdict:
        case Granted(value, md_value, expires_at, hosts=hosts, details=details):
            for text in (value, md_value or value):
                assert text.isascii()
                assert text.isprintable()
                assert " " not in text
                assert 0 < len(text) <= 8192
            assert -7e10 < expires_at < 3e11
            assert isinstance(hosts, dict)
            assert not {"accessToken", "mdAccessToken", "p-ticket"} & details.keys()
        case Penalty(seconds, ticket, retry_after):
            assert 1.0 <= seconds <= 3600.0
            assert ticket is None or ticket
            assert 0.0 <= retry_after.seconds(NOW) <= DAY
        case LockedOut(status, retry_after):
            assert status in (423, 429)
            assert 0.0 <= retry_after.seconds(NOW) <= DAY
        case Refused(text):
            assert text.isprintable()
            assert text
        case Captcha(retry_after):
            assert 0.0 <= retry_after.seconds(NOW) <= DAY
        case _:
            assert isinstance(verdict, Faulty)
            assert verdict.reason.isprintable()


@given(STATUSES, st.binary(max_size=60), HEADERS)
@example(200, b"9" * 5000, {})
@example(200, b'{"p-time": 1e999}', {})
@example(200, b"\xff\xfe{\x00}\x00", {})
def test_any_bytes_have_a_verdict(status: int, body: bytes, headers: dict[str, str]) -> None:
    """Whatever bytes the server sends: one of the verdicts, never an exception."""
    check(read_reply(reply(status, body, headers)))
    assert server_time(reply(status, body, headers)) is None or "Date" in headers


@given(STATUSES, ANSWERS, HEADERS)
@example(200, {**ANSWER, "accessToken": "a\x7f"}, {})
def test_any_json_has_a_verdict(status: int, answer: object, headers: dict[str, str]) -> None:
    """Whatever JSON the server sends: one of the verdicts; a granted token always fits a header."""
    check(read_reply(json_reply(answer, status, headers)))


@given(st.text(max_size=40))
def test_any_text_is_a_token_or_a_fault(value: str) -> None:
    """A token is granted exactly as it came, or not at all."""
    verdict = read({**ANSWER, "accessToken": value})
    check(verdict)
    assert isinstance(verdict, Faulty) or (isinstance(verdict, Granted) and verdict.value == value)


@given(st.text(max_size=40))
def test_any_text_is_a_moment_or_none(text: str) -> None:
    """No text in the place of a moment or a date raises."""
    moment = parse_moment(text)
    assert moment is None or isinstance(moment, float)
    assert isinstance(read_reply(reply(429, b"", {"Retry-After": text, "Date": text})), LockedOut)


@given(st.text(max_size=300), st.lists(st.text("abc-", min_size=4, max_size=12), max_size=3))
def test_scrubbed_texts_hold_no_secret(text: str, secrets: list[str]) -> None:
    """Whatever a server says around them: no secret of at least four characters stays in it."""
    ordered = tuple(sorted(secrets, key=len, reverse=True))
    verdict = read({"errorText": text + "/".join(secrets) + "!"})
    assert isinstance(verdict, Refused)
    shown = scrub(verdict.text, ordered)
    assert not [secret for secret in secrets if secret in shown]

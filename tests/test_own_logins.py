"""What a client's own login looks like, and what it is told."""

import datetime as dt
import json
from typing import Any

import pytest
from values import MD_VALUE, NOW, VALUE, at, token

from tradovate_auth._own_logins import (
    auth_call,
    bearer_of,
    complete_answer,
    granted_tokens,
    headers_of,
    named_user,
    same_user,
)
from tradovate_auth._wire import Granted, read_reply
from tradovate_auth.transport import Reply


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/auth/accesstokenrequest", "login"),
        ("POST", "/v1/auth/accessTokenRequest", "login"),
        ("POST", "/V1/AUTH/ACCESSTOKENREQUEST", "login"),
        ("POST", "/v1/auth/accesstokenrequest/", "login"),
        ("POST", "/v1//auth//accesstokenrequest//", "login"),
        ("POST", "/auth/accesstokenrequest", "login"),
        ("GET", "/v1/auth/accesstokenrequest", None),
        ("GET", "/v1/auth/renewaccesstoken", "renewal"),
        ("POST", "/v1/auth/renewAccessToken", "renewal"),
        ("PUT", "/v1/auth/renewAccessToken", None),
        ("POST", "/v1/auth/accesstokenrequests", None),
        ("POST", "/v1/auth/accesstokenrequest/more", None),
        ("POST", "/v1/oauth/accesstokenrequest", None),
        ("POST", "/v1/accesstokenrequest", None),
        ("GET", "/v1/auth/me", None),
        ("POST", "/v1/auth/oauthtoken", "oauth"),
        ("POST", "/auth/OAuthToken/", "oauth"),
        ("GET", "/v1/auth/oauthtoken", None),
        ("POST", "/v1/auth/accesstoken%52equest", "login"),
        ("POST", "/v1/auth/accesstokenrequest%2F", "login"),
        ("POST", "/v1/auth" + "/" * 1000 + "accesstokenrequest", "login"),
        ("GET", "/auth/renewaccesstoken" * 1000 + "?", None),
        ("GET", "", None),
    ],
)
def test_the_calls(method: str, path: str, expected: str | None) -> None:
    """The auth calls are known by method and path, however these are spelt; nothing else is taken for one."""
    assert auth_call(method, path) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"name": "trader", "password": "x"}', "trader"),
        ('{"name": "Jürgen"}'.encode(), "Jürgen"),
        (b"name=trader&password=x", "trader"),
        (b"password=x&name=J%C3%BCrgen+K", "Jürgen K"),
        (b"name=trader&name=trader", "trader"),
        (b"name=trader&name=somebody", None),
        (b'{"name": 7}', None),
        (b'{"name": null}', None),
        (b'{"name": "  "}', None),
        (b'{"user": "trader"}', None),
        (b'["name", "trader"]', None),
        (b'"name=trader"', None),
        (b"password=x", None),
        (b"name=", None),
        (b"", None),
        (b"\xff\xfe", None),
        (b"[" * 100_000, None),
        (b"&".join([b"name=trader"] * 3), "trader"),
        (b'--boundary\r\nContent-Disposition: form-data; name="name"\r\n\r\ntrader\r\n--boundary--', None),
    ],
)
def test_whose_login_it_is(body: bytes, expected: str | None) -> None:
    """The name is read from JSON or a form; where there is none, or more than one, nobody is named."""
    assert named_user(body) == expected


def test_names() -> None:
    """Case and blanks around it make no other user; anything else does."""
    assert same_user(" Trader ", "trader")
    assert not same_user("trader", "trader2")
    assert not same_user("trader", "")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        (b"Bearer abc", "abc"),
        ("Bearer\tabc", "abc"),
        (" BEARER \t abc\t", "abc"),
        ("Basic abc", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_the_token_in_a_header(header: object, expected: str | None) -> None:
    """It is read from a text or from bytes, and from nothing else."""
    assert bearer_of(header) == expected


def test_the_answer_is_complete() -> None:
    """It has what the server's answer had: each further field, the tokens, the hosts and the end in the server's format; what
    reads the server's answers reads it.
    """
    details: dict[str, Any] = {
        "userStatus": "Active",
        "hasLive": True,
        "expirationTime": "long ago",
        "passwordExpirationTime": "2030-01-01T00:00:00Z",
        "name": "written otherwise",
    }
    given = token(
        name="trader",
        user_id=7,
        hosts={"demo": "demo.tradovateapi.com"},
        details=details,
        expires_at=at(NOW + 0.056),
    )
    body = complete_answer(given)
    assert json.loads(body) == {
        "accessToken": VALUE,
        "mdAccessToken": MD_VALUE,
        "expirationTime": "2027-01-15T08:00:00.056Z",
        "passwordExpirationTime": "2030-01-01T00:00:00Z",
        "userStatus": "Active",
        "hasLive": True,
        "userId": 7,
        "name": "trader",
        "apiHosts": {"demo": "demo.tradovateapi.com"},
    }
    verdict = read_reply(Reply(200, {}, body))
    assert isinstance(verdict, Granted)
    assert (verdict.value, verdict.md_value, verdict.expires_at) == (VALUE, MD_VALUE, NOW + 0.056)
    assert granted_tokens(body) == {VALUE, MD_VALUE}


def test_the_answer_has_nothing_that_the_token_has_not() -> None:
    """A token without a market data token, a user id or hosts is answered without these fields; its zone may be any."""
    zone = dt.timezone(dt.timedelta(hours=2))
    given = token(md_value=None, expires_at=at(NOW).astimezone(zone))
    assert json.loads(complete_answer(given)) == {
        "accessToken": VALUE,
        "expirationTime": "2027-01-15T08:00:00.000Z",
        "name": "",
    }


def test_the_token_in_an_answer_to_oauth() -> None:
    """It goes by another name there."""
    assert granted_tokens(b'{"access_token": "theirs", "token_type": "bearer"}') == {"theirs"}


def test_the_headers_of_an_answer() -> None:
    """They say what the body is, how long, and when it was sent, in the only zone that the header knows."""
    assert headers_of(b"{}", NOW) == {
        "Date": "Fri, 15 Jan 2027 08:00:00 GMT",
        "Content-Type": "application/json",
        "Content-Length": "2",
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"errorText": "no"}',
        b'{"accessToken": 7, "mdAccessToken": ""}',
        b"[" * 100_000,
    ],
)
def test_answers_without_a_token(body: bytes) -> None:
    """Whatever the server says to a login that was let pass, reading it does no harm."""
    assert granted_tokens(body) == frozenset()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_a_name_is_read_in_every_encoding_that_json_has(encoding: str) -> None:
    """With a byte order mark or without: servers read it, so it is no stranger's."""
    assert named_user(json.dumps({"name": "tr\u00e4der"}).encode(encoding)) == "tr\u00e4der"

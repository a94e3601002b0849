"""The values that users hand in and get out: what they accept, and that they never show a secret."""

import copy
import datetime as dt
import json
import logging
import pickle
import traceback
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from values import LIFETIME, MD_VALUE, NOW, PASSWORD, SEC, SECRETS, TICKET, VALUE, at, granted, view
from values import account as plain_account
from values import credentials as some_credentials
from values import token as some_token

from tradovate_auth import AccessToken, Budget, ConfigurationError, Credentials, Status
from tradovate_auth._account import Account
from tradovate_auth._decision import Login, Renew, Use
from tradovate_auth._holds import Hold, Latch
from tradovate_auth._ledger import Ledger
from tradovate_auth._wire import Penalty, login_call, renewal_call
from tradovate_auth.storage import Record
from tradovate_auth.transport import Reply

TEXTS = ["name", "password", "app_id", "app_version", "device_id", "organization", "sec"]


def some_account() -> Account:
    """Return an account whose fingerprint has been made, and whose key is a secret too."""
    account = plain_account(key=f"trader {PASSWORD}")
    account.fingerprint()
    return account


def some_record() -> Record:
    """Return a record with a token, a hold with a ticket, and a latch."""
    ledger = Ledger(
        hold=Hold("penalty", NOW, "slow down", TICKET), latches=(Latch(SEC, "no", None),), proven=(PASSWORD,)
    )
    return Record(tokens={"8": some_token()}, ledger=ledger)


SECRETIVE: dict[str, Callable[[], object]] = {
    "credentials": some_credentials,
    "token": some_token,
    "record": some_record,
    "ledger": lambda: some_record().ledger,
    "login call": lambda: login_call(some_credentials(), "https://demo.tradovateapi.com/v1", TICKET),
    "renewal call": lambda: renewal_call(some_token(), "https://demo.tradovateapi.com/v1"),
    "reply": lambda: Reply(200, {"Set-Cookie": VALUE}, VALUE.encode()),
    "granted": lambda: granted(details={"note": VALUE}),
    "penalty": lambda: Penalty(15.0, TICKET),
    "hold": lambda: Hold("penalty", NOW, "slow down", TICKET),
    "latch": lambda: Latch(SEC, "no", None),
    "account": some_account,
    "login": lambda: Login(TICKET),
    "use": lambda: Use(some_token(), 1.0),
    "renew": lambda: Renew(some_token(), scheduled=True),
    "view": lambda: view(held=some_token(), ledger=some_record().ledger),
}
secretive = pytest.mark.parametrize("make", SECRETIVE.values(), ids=list(SECRETIVE))


def renderings(value: object) -> list[str]:
    """Return a value in every way in which it commonly ends up in a text."""
    record = logging.LogRecord("test", logging.INFO, __file__, 1, "%s %r", (value, value), None)
    return [
        repr(value),
        str(value),
        f"{value}",
        f"{value!r}",
        "%s %r" % (value, value),  # noqa: UP031  # that is what is tested
        "{} {!r}".format(value, value),  # noqa: UP032  # and that
        repr([value]),
        repr({"it": value}),
        record.getMessage(),
    ]


@secretive
def test_no_text_shows_a_secret(make: Callable[[], object]) -> None:
    """Neither repr, str, format, % nor a log record of anything that holds a secret shows it."""
    for text in renderings(make()):
        assert not [secret for secret in SECRETS if secret in text]
        assert len(text) > 3


@secretive
def test_no_traceback_shows_a_secret(make: Callable[[], object]) -> None:
    """A traceback that shows local variables, as many error reporters do, shows no secret."""

    def fail(value: object) -> None:
        raise RuntimeError(type(value).__name__)

    try:
        fail(make())
    except RuntimeError as error:
        lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
        text = "".join(lines)
    assert "value = " in text
    assert not [secret for secret in SECRETS if secret in text]


guarded = pytest.mark.parametrize("make", [some_credentials, some_token], ids=["credentials", "token"])


@guarded
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_a_secret_fails_with_advice(make: Callable[[], object], protocol: int) -> None:
    """Pickling fails, also inside of something else, and says what to do instead."""
    for value in (make(), [make()], {"it": make()}):
        with pytest.raises(TypeError, match="build it in the child process, and share the session") as caught:
            pickle.dumps(value, protocol)
        assert not [secret for secret in SECRETS if secret in str(caught.value)]


@guarded
def test_a_copy_is_the_object_itself(make: Callable[[], object]) -> None:
    """Copying makes no second place where a secret lies."""
    value = make()
    assert copy.copy(value) is value
    assert copy.deepcopy(value) is value
    assert copy.deepcopy([value])[0] is value


@guarded
def test_secrets_cannot_be_changed(make: Callable[[], object]) -> None:
    """Both are frozen, and have no room for further attributes."""
    value: Any = make()
    with pytest.raises(FrozenInstanceError):
        value.name = "somebody else"
    assert not hasattr(value, "__dict__")


def test_credentials_need_only_name_and_password() -> None:
    """Everything but the name and the password may be left out."""
    who = Credentials("trader", "pw")
    assert (who.name, who.password, who.app_id, who.cid, who.sec) == ("trader", "pw", None, None, None)
    assert who == Credentials(name="trader", password="pw")
    assert who != Credentials("trader", "pw2")


def test_credentials_come_in_the_documented_order() -> None:
    """The positional arguments are name, password, app id, app version, cid, secret and device id."""
    who = Credentials("n", "p", "a", "v", 8, "s", "d", organization="", hibp_check=True)
    assert (who.app_id, who.app_version, who.cid, who.sec, who.device_id) == ("a", "v", 8, "s", "d")
    assert (who.organization, who.hibp_check) == ("", True)


@pytest.mark.parametrize("name", TEXTS)
def test_over_long_fields_are_refused(name: str) -> None:
    """A field may be as long as the server's schema allows, and no longer; the error does not repeat it."""
    limit = 8192 if name == "sec" else 64
    assert getattr(some_credentials(**{name: "x" * limit}), name) == "x" * limit
    with pytest.raises(
        ConfigurationError, match=rf"Credentials\.{name} is longer than the server's {limit}"
    ) as caught:
        some_credentials(**{name: "x" * (limit + 1)})
    assert "xx" not in str(caught.value)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("value", [5, b"bytes", True, ["text"]])
def test_fields_must_be_text(name: str, value: object) -> None:
    """Anything but text is refused; the error names its type, not its value."""
    with pytest.raises(
        ConfigurationError, match=rf"Credentials\.{name} must be text, not {type(value).__name__}"
    ):
        some_credentials(**{name: value})


@pytest.mark.parametrize("name", [*TEXTS, "cid"])
def test_only_the_organization_may_be_empty(name: str) -> None:
    """Some prop firms want the organization present and empty (P§2); anything else empty is a mistake."""
    if name == "organization":
        assert some_credentials(organization="").organization == ""
        return
    with pytest.raises(ConfigurationError, match=rf"Credentials\.{name} is empty"):
        some_credentials(**{name: ""})


@pytest.mark.parametrize("name", ["name", "password"])
def test_name_and_password_are_not_optional(name: str) -> None:
    """None is no name and no password."""
    with pytest.raises(ConfigurationError, match=rf"Credentials\.{name} must be text, not NoneType"):
        some_credentials(**{name: None})


@pytest.mark.parametrize("name", [*TEXTS, "cid"])
def test_text_that_was_never_decoded_is_refused(name: str) -> None:
    """An environment variable in another encoding arrives with lone surrogates; no server understands those."""
    with pytest.raises(ConfigurationError, match=rf"Credentials\.{name} was not decoded"):
        some_credentials(**{name: "pass\udce4"})


@pytest.mark.parametrize("cid", [True, 1.5, b"8", []])
def test_a_cid_is_a_number_or_text(cid: object) -> None:
    """Any other type is refused before a call is made."""
    with pytest.raises(ConfigurationError, match=r"Credentials\.cid must be a number or text"):
        some_credentials(cid=cid)


@pytest.mark.parametrize("cid", ["8" * 65, 10**65])
def test_a_cid_has_a_limit(cid: object) -> None:
    """The schema's 64 characters hold for numbers too."""
    with pytest.raises(ConfigurationError, match=r"Credentials\.cid is longer than the server's 64"):
        some_credentials(cid=cid)


def test_hibp_check_is_a_switch() -> None:
    """It is on, off or not asked for."""
    with pytest.raises(ConfigurationError, match="hibp_check is True, False or None"):
        some_credentials(hibp_check="yes")


def test_secrets_come_longest_first() -> None:
    """The secrets to scrub come longest first, so that one within another cannot spoil it."""
    assert some_credentials(password="abc", sec="abcdef").secrets() == ("abcdef", "abc")
    assert some_credentials(sec=None).secrets() == (PASSWORD,)


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Return the patcher of an environment without any of our variables."""
    for stem in (
        "NAME",
        "USERNAME",
        "PASSWORD",
        "APP_ID",
        "APP_VERSION",
        "CID",
        "SEC",
        "SECRET",
        "DEVICE_ID",
    ):
        for suffix in ("", "_FILE"):
            monkeypatch.delenv(f"TRADOVATE_{stem}{suffix}", raising=False)
    return monkeypatch


def test_credentials_from_the_environment(bare_environment: pytest.MonkeyPatch) -> None:
    """Every field has its variable."""
    fields = {"app_id": "bot", "app_version": "1.0", "cid": "8", "sec": SEC, "device_id": "device-1"}
    for name, value in {"name": "trader", "password": PASSWORD, **fields}.items():
        bare_environment.setenv(f"TRADOVATE_{name.upper()}", value)
    assert Credentials.from_env() == some_credentials()


def test_the_other_names_and_another_prefix(bare_environment: pytest.MonkeyPatch) -> None:
    """USERNAME and SECRET do as well, and the prefix is the caller's to choose; an empty variable is not set."""
    for name, value in {"USERNAME": "trader", "PASSWORD": "pw", "SECRET": "s", "CID": ""}.items():
        bare_environment.setenv(f"PROP_{name}", value)
    assert Credentials.from_env("PROP_") == Credentials("trader", "pw", sec="s")


def test_files_hold_secrets(bare_environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A variable that ends in _FILE names a file; one newline at its end is dropped, no more."""
    (tmp_path / "password").write_text(" pass word \n\n", encoding="utf-8")
    bare_environment.setenv("TRADOVATE_NAME", "trader")
    bare_environment.setenv("TRADOVATE_PASSWORD_FILE", str(tmp_path / "password"))
    assert Credentials.from_env().password == " pass word \n"


@pytest.mark.parametrize("missing", ["NAME", "PASSWORD"])
def test_missing_variables_are_named(bare_environment: pytest.MonkeyPatch, missing: str) -> None:
    """The error names the variable that is not set."""
    for name in {"NAME", "PASSWORD"} - {missing}:
        bare_environment.setenv(f"TRADOVATE_{name}", "x")
    with pytest.raises(ConfigurationError, match=f"variable TRADOVATE_{missing} is not set"):
        Credentials.from_env()


@pytest.mark.parametrize(
    ("one", "two"), [("NAME", "USERNAME"), ("SEC", "SECRET"), ("PASSWORD", "PASSWORD_FILE")]
)
def test_a_variable_named_twice_is_refused(
    bare_environment: pytest.MonkeyPatch, tmp_path: Path, one: str, two: str
) -> None:
    """Two sources for one field are a mistake, even where they agree; both are named, and neither is shown."""
    (tmp_path / "file").write_text("x-secret-x", encoding="utf-8")
    for name in {"NAME", "PASSWORD", one, two}:
        value = str(tmp_path / "file") if name.endswith("_FILE") else "x-secret-x"
        bare_environment.setenv(f"TRADOVATE_{name}", value)
    with pytest.raises(
        ConfigurationError, match=f"TRADOVATE_{one} and TRADOVATE_{two} are both set"
    ) as caught:
        Credentials.from_env()
    assert "x-secret-x" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xff"], ids=["absent", "no text"])
def test_unreadable_files_are_refused(
    bare_environment: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    """A file that is not there, or holds no text, is named by its variable."""
    if content is not None:
        (tmp_path / "password").write_bytes(content)
    bare_environment.setenv("TRADOVATE_NAME", "trader")
    bare_environment.setenv("TRADOVATE_PASSWORD_FILE", str(tmp_path / "password"))
    with pytest.raises(ConfigurationError, match="TRADOVATE_PASSWORD_FILE names cannot be read"):
        Credentials.from_env()


def test_a_token_has_its_header_ready() -> None:
    """The header's value is made once, and a replaced token has its own."""
    assert some_token().authorization == f"Bearer {VALUE}"
    assert replace(some_token(), value="other").authorization == "Bearer other"


def test_a_token_knows_its_lifetime() -> None:
    """The lifetime is the time between its two moments, in seconds."""
    assert some_token().lifetime == LIFETIME


def test_hosts_and_details_are_read_only_copies() -> None:
    """What the token holds does not change when the mapping does that it was made of."""
    hosts, details = {"demo": "d2.tradovateapi.com"}, {"hasLive": True}
    token = some_token(hosts=hosts, details=details)
    hosts.clear()
    details.clear()
    assert token.hosts == {"demo": "d2.tradovateapi.com"}
    assert token.details == {"hasLive": True}
    for mapping in (token.hosts, token.details):
        with pytest.raises(TypeError):
            mapping["demo"] = "evil.example"  # type: ignore[index]  # that is the mistake


def test_tokens_are_compared_by_what_was_granted() -> None:
    """Equal grants are equal tokens, with one hash; strikes, hosts and details do not count."""
    token = some_token(hosts={"demo": "d2.tradovateapi.com"}, details={"a": [1]})
    token.strikes.count += 1
    assert token == some_token()
    assert hash(token) == hash(some_token())
    assert token != some_token(generation=2)
    assert some_token().strikes.count == 0


def test_a_token_is_made_by_keyword() -> None:
    """No field of a token is positional."""
    with pytest.raises(TypeError):
        AccessToken(VALUE, MD_VALUE)  # type: ignore[call-arg]  # that is the mistake


@pytest.mark.parametrize(("name", "most"), [("failed_logins", 5), ("renewals", 15), ("logins", 1000)])
def test_a_budget_is_never_above_the_servers(name: str, most: int) -> None:
    """A budget goes up to the server's own limit; granted logins have none there."""
    assert getattr(Budget(**{name: most}), name) == most
    if name != "logins":
        with pytest.raises(ConfigurationError, match=f"Budget.{name} is {most + 1}, but the server itself"):
            Budget(**{name: most + 1})


@pytest.mark.parametrize("name", ["failed_logins", "logins", "renewals"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "3", None])
def test_a_budget_is_a_whole_number_from_one(name: str, value: Any) -> None:
    """Nothing below one, and nothing but whole numbers."""
    with pytest.raises(ConfigurationError, match=f"Budget.{name} must be a whole number from 1"):
        Budget(**{name: value})


def test_the_default_budget() -> None:
    """Out of the box: 3 failed logins, 5 logins and 12 renewals an hour, all below the server's limits."""
    assert Budget() == Budget(failed_logins=3, logins=5, renewals=12)


def test_a_status_can_be_shared() -> None:
    """A status holds no secret, so it can be copied, pickled and turned into JSON."""
    status = Status(
        state="fresh",
        expires_at=at(NOW),
        renews_at=None,
        generation=1,
        failed_logins=0,
        logins=1,
        renewals=0,
        hold=None,
        hold_until=None,
        last_event=None,
        hosts={"demo": "demo.tradovateapi.com"},
        storage="memory",
    )
    assert pickle.loads(pickle.dumps(status)) == status
    assert json.dumps(status.hosts) == '{"demo": "demo.tradovateapi.com"}'


# Between signs that no text of ours has: a password of "here" is in many of them.
_texts = st.just("") | st.text(max_size=80).map("~{}~".format)


@given(_texts, _texts)
def test_credentials_are_accepted_or_refused_with_a_typed_error(name: str, password: str) -> None:
    """Whatever the texts are: they are taken as they are, or the error is ours and holds neither."""
    error = None
    try:
        who = Credentials(name, password)
    except ConfigurationError as raised:
        error = raised
    if error is None:
        assert (who.name, who.password) == (name, password)
        assert json.loads(json.dumps(who.password)) == password
    else:
        assert not [text for text in (name, password) if text and text in str(error)]


def test_times_are_aware() -> None:
    """The moments of a token are aware and UTC, so they can be compared with any aware clock."""
    assert some_token().expires_at.tzinfo is dt.UTC

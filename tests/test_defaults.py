"""What providers of one process share when nobody says otherwise."""

import os

import pytest
from values import PASSWORD, SEC
from values import credentials as some_credentials

from tradovate_auth import Environment
from tradovate_auth._defaults import (
    PROCESS_STORAGE,
    account_key,
    options_from_env,
    private_slot,
    session_opened,
)
from tradovate_auth.storage import MemoryStorage

DEMO, LIVE = Environment.of("demo"), Environment.of("live")
OTHERS = {
    "password": "other",
    "app_id": "other",
    "app_version": "2.0",
    "cid": "9",
    "sec": "other",
    "device_id": "other",
    "organization": "",
}


def test_the_account_key_names_environment_and_user() -> None:
    """Whoever has the same user in the same environment finds the same record, whatever key or device is used."""
    key = account_key(DEMO, some_credentials())
    assert key == "https://demo.tradovateapi.com/v1 trader"
    assert {account_key(DEMO, some_credentials(**{name: value})) for name, value in OTHERS.items()} == {key}


def test_another_user_or_environment_is_another_account() -> None:
    """Two users, and demo and live, never share a record."""
    who, other = some_credentials(), some_credentials(name="other")
    keys = {account_key(environment, user) for environment in (DEMO, LIVE) for user in (who, other)}
    assert len(keys) == 4


@pytest.mark.parametrize("name", OTHERS)
def test_other_credentials_have_another_session_in_memory(name: str) -> None:
    """In the process's own storage the session is shared by equal credentials alone."""
    assert private_slot(some_credentials()) == private_slot(some_credentials())
    assert private_slot(some_credentials(**{name: OTHERS[name]})) != private_slot(some_credentials())


def test_no_key_shows_a_secret() -> None:
    """A key may be logged."""
    for key in (account_key(DEMO, some_credentials()), private_slot(some_credentials())):
        assert PASSWORD not in key
        assert SEC not in key


def test_the_process_has_one_storage() -> None:
    """The storage that is shared by default is a memory storage."""
    assert isinstance(PROCESS_STORAGE, MemoryStorage)


def test_logins_are_remembered_by_process() -> None:
    """A forked child has opened no session yet."""
    assert session_opened("key") == (os.getpid(), "key")


def test_options_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables fill in what the options do not say; an empty variable says nothing."""
    monkeypatch.setenv("TRADOVATE_ENVIRONMENT", "live")
    monkeypatch.setenv("TRADOVATE_STORAGE", "memory://")
    assert options_from_env({"timeout": 5.0}) == {
        "environment": "live",
        "storage": "memory://",
        "timeout": 5.0,
    }
    assert options_from_env({"environment": "demo", "storage": None}) == {
        "environment": "demo",
        "storage": None,
    }
    monkeypatch.setenv("TRADOVATE_ENVIRONMENT", "")
    monkeypatch.delenv("TRADOVATE_STORAGE")
    assert options_from_env({}) == {}

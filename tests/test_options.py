"""What a provider is given: each argument is looked at before anything is sent."""

import math
import threading
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import requests
from core_tools import GatedTransport, SocketTransport, World, eventually
from values import credentials

from tradovate_auth import Budget, ConfigurationError, Environment, TokenProvider, TokenTimeout
from tradovate_auth._bearer import Bearer
from tradovate_auth._options import AdapterOptions, ProviderOptions
from tradovate_auth.requests import RequestsTransport
from tradovate_auth.requests import TradovateAuth as RequestsAuth
from tradovate_auth.storage import MemoryStorage


class Builtin:
    """A transport whose method does not say what it takes, as those written in C do not."""

    send = staticmethod(max)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"environment": 5}, "environment is text or an Environment, not int"),
        ({"environment": Path("demo")}, "environment is text or an Environment, not PosixPath"),
        ({"renewal": "sometimes"}, "renewal is 'background' or 'on-demand'"),
        ({"renewal": ["background"]}, "renewal is 'background' or 'on-demand'"),
        ({"login": "twice"}, "login is 'always', 'once' or 'never'"),
        ({"login": True}, "login is 'always', 'once' or 'never'"),
        ({"login_without_storage": "no"}, "login_without_storage is True or False, not str"),
        ({"storage": Path("/x")}, "storage is a Storage or its URL, not PosixPath"),
        ({"storage": MemoryStorage}, "storage is a Storage or its URL, not the class MemoryStorage"),
        ({"transport": object()}, "transport is something with the method .*, not object"),
        (
            {"transport": RequestsTransport},
            "transport is something with the method .*, not the class RequestsTransport",
        ),
        ({"transport": requests.Session()}, "transport is something with the method .*, not Session"),
        ({"budget": 5}, "budget is a Budget, not int"),
        ({"on_event": 5}, "on_event is something to call with each event, not int"),
        ({"clock": 5}, "clock is a Clock, not int"),
    ],
)
def test_what_is_of_the_wrong_kind_is_found_at_once(options: dict[str, Any], complaint: str) -> None:
    """An argument of the wrong kind is a `ConfigurationError` that says which, before anybody asks for a token."""
    with pytest.raises(ConfigurationError, match=complaint):
        TokenProvider(credentials(), **options)


def test_credentials_are_credentials() -> None:
    """Whoever hands in a name is told what is wanted, and does not see the text again: it might be a password."""
    with pytest.raises(ConfigurationError, match="first argument is str, not Credentials") as caught:
        TokenProvider("hunter2")  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf, 1e10, 3600.1, "20", None, True])
def test_a_call_to_the_server_has_an_end(world: World, timeout: Any) -> None:
    """A time limit that the libraries below would choke on, after the login has left, is refused: it would cost the
    account a login that nobody sees, and then a hold.
    """
    with pytest.raises(ConfigurationError, match="timeout is a number of seconds above 0, an hour at most"):
        world.provider(timeout=timeout)
    assert world.server.requests == ()


@pytest.mark.parametrize("timeout", [1, 0.5, 3600])
def test_a_time_limit_may_be_whole_or_broken_and_an_hour(timeout: float) -> None:
    """What is within the limits is taken."""
    TokenProvider(credentials(), timeout=timeout, storage=MemoryStorage()).close()


@pytest.mark.parametrize("transport", [SocketTransport(), Builtin()])
def test_whatever_sends_is_a_transport(transport: Any) -> None:
    """A transport needs no base class, and one that does not say what its method takes is believed."""
    TokenProvider(credentials(), transport=transport, storage=MemoryStorage()).close()


@pytest.mark.parametrize("patience", [math.inf, 1e10, threading.TIMEOUT_MAX * 2])
def test_a_caller_may_wait_without_an_end(world: World, patience: float) -> None:
    """A caller's own limit may be any number: more than the system can count is as good as none."""
    assert world.provider().get(timeout=patience).generation == 1


def test_no_patience_at_all_is_a_time_out(world: World) -> None:
    """A limit in the past, or one that is no number, ends the wait and not the attempt."""
    gate = GatedTransport()
    provider = world.provider(transport=gate)
    for patience in (-1.0, math.nan):
        with pytest.raises(TokenTimeout):
            provider.get(timeout=patience)
    gate.gate.set()
    eventually(lambda: provider.status().state == "fresh")


def test_the_options_are_those_of_the_class() -> None:
    """The types that `from_env` and the adapters promise for the options are the class's own, each of them."""
    taken = get_type_hints(TokenProvider.__init__)
    del taken["credentials"], taken["return"]
    assert get_type_hints(ProviderOptions) == taken
    own = get_type_hints(Bearer.__init__)
    for name, kind in get_type_hints(AdapterOptions).items():
        assert kind == {**taken, **own}[name]


def test_an_adapter_from_the_environment_takes_its_own_options_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`from_env` of an adapter takes what its class takes."""
    monkeypatch.setenv("TRADOVATE_NAME", "trader")
    monkeypatch.setenv("TRADOVATE_PASSWORD", "password")
    environment = Environment(world.server.url)
    with RequestsAuth.from_env(environment=environment, budget=Budget(logins=1), route=False) as auth:
        assert auth.provider.environment is environment
        assert not auth._route

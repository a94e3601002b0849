"""What listeners and the log hear, and what they may do."""

import logging
import threading
from contextlib import suppress

import pytest
from core_tools import Recorder, World, eventually

from tradovate_auth import (
    ProviderClosed,
)
from tradovate_auth.events import Event, LoggedIn, Renewed, Warned


def test_listeners_may_call_the_provider(world: World) -> None:
    """Events come after the landing, on the flight's thread: a listener gets the token, and may close the provider."""
    seen: list[int] = []

    def listen(event: Event) -> None:
        if isinstance(event, LoggedIn):
            seen.append(provider.get(timeout=5).generation)
            assert provider.reject(provider.get())
            seen.append(provider.get(timeout=5).generation)
            provider.close()
            seen.append(threading.get_ident())

    provider = world.provider(on_event=listen)
    with suppress(ProviderClosed):  # the listener may be faster than the waiter
        provider.get()
    eventually(lambda: len(seen) == 3)
    assert seen[:2] == [1, 2]
    assert seen[2] != threading.get_ident()
    with pytest.raises(ProviderClosed):
        provider.get()


def test_a_listener_that_fails_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Its exception costs nobody anything: it is in the log, and the next event finds the listener again."""
    recorder = Recorder()

    def listen(event: Event) -> None:
        recorder(event)
        raise ZeroDivisionError("in the listener")

    provider = world.provider(on_event=listen)
    provider.get()
    world.clock.advance(60)
    provider.renew()
    recorder.wait_for(Renewed)
    eventually(lambda: caplog.text.count("ZeroDivisionError: in the listener") == 2)
    assert "a listener failed on LoggedIn" in caplog.text


def test_events_of_one_flight_come_in_order(world: World) -> None:
    """What happened first is told first, on one thread of the package."""
    world.server.configure(
        api_hosts={"demo": "localhost"}, extra_fields={"expirationTime": "2001-01-01T00:00:00Z"}
    )
    world.provider().get()
    world.events.wait_for(Warned)
    world.events.expect("LoggedIn", "HostsMoved", "Warned")
    assert set(world.events.threads) == {"tradovate_auth flight"}


def test_events_are_logged_by_weight(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The ordinary course is INFO, everything else WARNING, under the logger `tradovate_auth`; no line holds a secret."""
    caplog.set_level(logging.INFO, "tradovate_auth")
    provider = world.provider(on_event=None)
    token = provider.get()
    world.server.revoke()
    provider.reject(token)
    newer = provider.get()
    eventually(lambda: len(caplog.records) == 3)
    assert [(record.levelname, record.name) for record in caplog.records] == [
        ("INFO", "tradovate_auth"),
        ("WARNING", "tradovate_auth"),
        ("INFO", "tradovate_auth"),
    ]
    for secret in (token.value, newer.value, world.server.credentials["password"]):
        assert secret not in caplog.text

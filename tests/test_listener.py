"""Who hears of events, in which order, and what a listener may do."""

import logging
import os
import signal
import threading
from contextlib import suppress

import pytest
from core_tools import Recorder, World, eventually

from tradovate_auth import ProviderClosed
from tradovate_auth._clock import SYSTEM_CLOCK
from tradovate_auth._journal import Journal
from tradovate_auth._listener import Listener
from tradovate_auth.events import Event, LoggedIn, Renewed, Warned


def journal(*reasons: str) -> Journal:
    """Return what a pass has brought."""
    made = Journal("somebody")
    for reason in reasons:
        made.warn(reason)
    return made


def reasons(heard: Recorder) -> list[str]:
    """Return what was told, in order."""
    return [event.reason for event in heard.of(Warned)]


def test_events_of_two_flights_are_told_in_their_order() -> None:
    """The second flight is first to tell: it tells what the first has brought before its own."""
    heard = Recorder()
    listener = Listener(heard, SYSTEM_CLOCK)
    listener.note(journal("a", "b"))
    listener.note(journal("c"))
    listener.tell()
    assert reasons(heard) == ["a", "b", "c"]
    listener.tell()
    assert reasons(heard) == ["a", "b", "c"]


def test_whoever_comes_while_another_tells_leaves_it_to_him() -> None:
    """A listener that takes its time keeps nobody else: what comes meanwhile is told by the same thread, afterwards."""
    heard, inside, go_on = Recorder(), threading.Event(), threading.Event()

    def slow(event: Event) -> None:
        inside.set()
        assert go_on.wait(20)
        heard(event)

    listener = Listener(slow, SYSTEM_CLOCK)
    listener.note(journal("a"))
    first = threading.Thread(target=listener.tell, name="first")
    first.start()
    assert inside.wait(20)
    listener.note(journal("b"))
    listener.tell()
    assert reasons(heard) == []
    go_on.set()
    first.join(20)
    assert reasons(heard) == ["a", "b"]
    assert heard.threads == ["first", "first"]


def test_a_listener_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Its exception is logged with the event's name, and the next event is told."""
    heard = Recorder()

    def failing(event: Event) -> None:
        heard(event)
        raise ZeroDivisionError

    listener = Listener(failing, SYSTEM_CLOCK)
    listener.note(journal("a", "b"))
    with caplog.at_level(logging.INFO, "tradovate_auth"):
        listener.tell()
    assert reasons(heard) == ["a", "b"]
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
        "a listener failed on Warned"
    ] * 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_tells_its_own() -> None:
    """Forked while a listener was at work: the child hears of what happens to it, and not again of what its parent hears."""
    heard, inside, go_on = Recorder(), threading.Event(), threading.Event()

    def slow(event: Event) -> None:
        heard(event)
        inside.set()
        assert go_on.wait(20)

    listener = Listener(slow, SYSTEM_CLOCK)
    listener.note(journal("parent's", "parent's too"))
    telling = threading.Thread(target=listener.tell)
    telling.start()
    assert inside.wait(20)
    child = os.fork()
    if child == 0:
        go_on.set()
        listener.note(journal("child's"))
        listener.tell()
        os._exit(0 if reasons(heard) == ["parent's", "child's"] else 1)
    _, status = os.waitpid(child, 0)
    go_on.set()
    telling.join(20)
    eventually(lambda: len(heard.all) == 2)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("inside", [False, True])
def test_a_child_of_a_listener_tells_nothing_of_its_parents(inside: bool) -> None:
    """Forked by the listener itself: what waits behind that event is the parent's, and the child may go on, there or later."""
    heard, children, well = Recorder(), list[int](), False

    def own() -> None:
        listener.note(journal("child's"))
        listener.tell()

    def forking(event: Event) -> None:
        heard(event)
        if not children:
            children.append(os.fork())
            if children == [0]:
                signal.alarm(20)  # ends a child that hangs
                if inside:
                    own()

    listener = Listener(forking, SYSTEM_CLOCK)
    listener.note(journal("a", "b"))
    try:
        listener.tell()
        if children == [0] and not inside:
            own()
        well = True
    finally:
        if children == [0]:
            os._exit(0 if well and reasons(heard) == ["a", "child's"] else 1)
    _, status = os.waitpid(children[0], 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert reasons(heard) == ["a", "b"]


def test_the_last_event_is_known_before_it_is_told() -> None:
    """With its moment, by the machine's clock; a pass without events changes neither."""
    listener = Listener(None, SYSTEM_CLOCK)
    assert (listener.last, listener.last_at) == (None, None)
    listener.note(journal("a", "b"))
    last, moment = listener.last, listener.last_at
    assert isinstance(last, Warned)
    assert last.reason == "b"
    assert moment is not None
    assert moment <= SYSTEM_CLOCK.time()
    listener.note(journal())
    assert (listener.last, listener.last_at) == (last, moment)


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

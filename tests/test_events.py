"""Events: one line for a log each, and no secret in it."""

import logging
from dataclasses import fields

import pytest
from values import NOW, at

from tradovate_auth import events
from tradovate_auth.events import Event, HostsMoved, quiet

EXAMPLES: dict[str, object] = {
    "account": "trader at demo.tradovateapi.com",
    "generation": 3,
    "expires_at": at(NOW),
    "reason": "the server answered 500",
    "retry_in": 12.0,
    "seconds": 60.0,
    "hosts": {"demo": "d2.tradovateapi.com"},
}
KINDS = [getattr(events, name) for name in events.__all__ if name != "quiet"]
every = pytest.mark.parametrize("kind", KINDS)


def example(kind: type[Event]) -> Event:
    """Return an event of this kind."""
    return kind(**{field.name: EXAMPLES[field.name] for field in fields(kind)})  # type: ignore[arg-type]  # by name


@every
def test_an_event_is_a_line_that_names_itself_and_the_account(kind: type[Event]) -> None:
    """The text of an event is one line, begins with its name, and ends with the account in brackets."""
    line = str(example(kind))
    assert line.startswith(kind.__name__)
    assert line.endswith("(trader at demo.tradovateapi.com)")
    assert "\n" not in line


@every
def test_the_line_tells_the_reason_or_the_end(kind: type[Event]) -> None:
    """Whoever has a reason shows it; whoever brings a token shows its generation and its end, to the second."""
    names, line = {field.name for field in fields(kind)}, str(example(kind))
    assert ("the server answered 500" in line) == ("reason" in names)
    assert ("generation 3, ends 2027-01-15T08:00:00+00:00" in line) == ("expires_at" in names)


@every
def test_events_are_values(kind: type[Event]) -> None:
    """Two events that say the same are equal, and none can be changed."""
    assert example(kind) == example(kind)
    with pytest.raises(AttributeError):
        example(kind).account = "somebody else"  # type: ignore[misc]  # it is frozen


@every
def test_events_are_told_by_keyword_alone(kind: type[Event]) -> None:
    """A field may be added to an event later, so none is positional."""
    with pytest.raises(TypeError):
        kind("trader")  # type: ignore[call-arg]  # that is the mistake


def test_the_ordinary_course_is_quiet() -> None:
    """What happens every hour is no warning; whatever went wrong is."""
    assert {kind.__name__ for kind in KINDS if issubclass(kind, quiet)} == {
        "LoggedIn",
        "Renewed",
        "Adopted",
        "HostsMoved",
        "StorageBack",
    }


def test_events_log_as_their_text(caplog: pytest.LogCaptureFixture) -> None:
    """An event can be handed to a logger as it is."""
    moved = example(HostsMoved)
    logging.getLogger("test").warning("%s", moved)
    assert caplog.messages == [str(moved)]

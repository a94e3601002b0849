"""The error tree: what every error carries, and what it survives."""

import copy
import pickle
from collections.abc import Iterator

import pytest

from tradovate_auth import errors, storage
from tradovate_auth.errors import TokenTimeout, TradovateAuthError, TransportError


def tree(root: type[TradovateAuthError]) -> Iterator[type[TradovateAuthError]]:
    """Yield a class and everything that derives from it."""
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


OURS = {kind for kind in tree(TradovateAuthError) if kind.__module__ == errors.__name__}
EVERY = sorted(OURS, key=lambda kind: kind.__name__)
every = pytest.mark.parametrize("kind", EVERY)


def clones(error: TradovateAuthError) -> list[TradovateAuthError]:
    """Return the error after each way of copying that Python has."""
    pickled = [pickle.loads(pickle.dumps(error, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    return [copy.copy(error), copy.deepcopy(error), *pickled]


def test_the_tree_is_what_the_module_exports() -> None:
    """The module exports every error class that it has, and nothing else."""
    assert [kind.__name__ for kind in EVERY] == errors.__all__


def test_other_modules_have_kinds_of_storage_errors_alone() -> None:
    """Whoever catches the public ones misses none: elsewhere there are only kinds of `StorageError`."""
    others = {
        kind for kind in tree(TradovateAuthError) if kind.__module__.startswith("tradovate_auth.")
    } - OURS
    assert {storage.StorageBusy, storage.UnreadableRecord} <= others
    assert all(issubclass(kind, errors.StorageError) for kind in others)
    assert all(kind.__name__ in str(errors.__doc__) for kind in others if kind.__name__ in storage.__all__)


@every
def test_errors_survive_copy_and_pickle(kind: type[TradovateAuthError]) -> None:
    """A copied or pickled error has the class, the arguments, the text and the attributes of the first."""
    error = kind("It broke.", 12.5, "Mend it.")
    for clone in clones(error):
        assert type(clone) is kind
        assert clone.args == error.args
        assert clone.args[:3] == ("It broke.", 12.5, "Mend it.")
        assert (clone.message, clone.retry_after, clone.advice) == ("It broke.", 12.5, "Mend it.")
        assert str(clone) == str(error) == "It broke. Retry after 12 s. Mend it."


@every
def test_errors_without_arguments(kind: type[TradovateAuthError]) -> None:
    """Every class can be raised bare; then it has its own advice, no wait, and survives copying as well."""
    for error in (kind(), *clones(kind())):
        assert error.message == ""
        assert error.retry_after is None
        assert error.advice == kind.default_advice == str(error)


@every
def test_every_class_gives_advice(kind: type[TradovateAuthError]) -> None:
    """Every class tells what to do, in a sentence; an empty advice is replaced by it."""
    assert kind.default_advice.endswith(".")
    assert kind("It broke.", None, "").advice == kind.default_advice
    assert str(kind("It broke.")) == f"It broke. {kind.default_advice}"


@every
def test_only_the_timeout_is_an_os_error(kind: type[TradovateAuthError]) -> None:
    """An OSError that passes through a middleware is rewritten by aiohttp, so none of ours is one but the timeout."""
    assert issubclass(kind, OSError) == (kind is TokenTimeout)


@every
def test_every_class_is_documented_in_the_tree(kind: type[TradovateAuthError]) -> None:
    """The tree at the top of the module names every class."""
    assert kind.__name__ in str(errors.__doc__)


def test_a_timeout_names_no_errno() -> None:
    """What OSError would make of the arguments (an errno, a text, a file name) is not made of them."""
    error = TokenTimeout("No token yet.", 3.0, "Wait.")
    assert isinstance(error, TimeoutError)
    assert (error.errno, error.strerror, error.filename) == (None, None, None)


@pytest.mark.parametrize("sent", [True, False])
def test_a_transport_error_remembers_whether_the_request_left(*, sent: bool) -> None:
    """Whether a login may have arrived survives copying too."""
    error = TransportError("It broke.", None, None, sent)
    assert [getattr(clone, "sent", None) for clone in (error, *clones(error))] == [sent] * 9


def test_notes_survive() -> None:
    """A note that somebody adds goes along."""
    error = TradovateAuthError("It broke.")
    error.add_note("while trading")
    assert all(clone.__notes__ == ["while trading"] for clone in clones(error))


def test_a_wrong_argument_is_also_a_value_error() -> None:
    """Whoever expects a ValueError from a wrong argument gets one."""
    with pytest.raises(ValueError, match="no good"):
        raise errors.ConfigurationError("It is no good.")

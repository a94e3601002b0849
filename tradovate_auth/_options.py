"""What a provider may be given: the types of its options, and the look that each gets before anything is sent.

What is of the wrong kind would otherwise come out late, as an error of whatever tripped over it: some of it behind a login
that the account has paid for.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypedDict, Unpack

from ._clock import Clock
from .environments import Environment
from .errors import ConfigurationError
from .events import Event
from .models import Budget, Credentials
from .storage import Storage
from .transport import Transport

__all__ = ["AdapterOptions", "Login", "ProviderOptions", "Renewal", "check_credentials", "check_options"]

Renewal = Literal["background", "on-demand"]
Login = Literal["always", "once", "never"]

_LONGEST_CALL: Final = 3600.0  # longer waits make some libraries fail when the call has left already


class ProviderOptions(TypedDict, total=False):
    """The keyword arguments of `TokenProvider`, which tells what they mean: for whoever hands them on."""

    environment: str | Environment
    storage: Storage | str | None
    transport: Transport | None
    timeout: float
    renewal: Renewal
    login: Login
    login_without_storage: bool
    budget: Budget
    on_event: Callable[[Event], object] | None
    clock: Clock


class AdapterOptions(ProviderOptions, total=False):
    """The keyword arguments of an adapter: those of its provider, and its own three."""

    route: bool
    resend_limit: int
    patience: float | None


def _is_storage(value: object) -> bool:
    return (
        value is None
        or isinstance(value, str)
        or (not isinstance(value, type) and hasattr(value, "exclusive"))
    )


def _sends(value: object) -> bool:
    if value is None:
        return True
    try:
        inspect.signature(value.send).bind("call", 1.0)  # type: ignore[attr-defined]  # that is the question
    except (AttributeError, TypeError):
        return False
    except ValueError:  # it does not say what it takes
        return True
    return True


def _ends(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= _LONGEST_CALL


_RULES: Final[Mapping[str, tuple[Callable[[Any], bool], str, str | None]]] = {
    "storage": (
        _is_storage,
        "a Storage or its URL, not {kind}",
        "Pass one such as FileStorage(folder), or a URL such as file:///folder.",
    ),
    "transport": (
        _sends,
        "something with the method send(call, timeout), not {kind}",
        "A session or client of yours goes into one: RequestsTransport(session), HttpxTransport(client).",
    ),
    "timeout": (_ends, "a number of seconds above 0, an hour at most", None),
    "renewal": (lambda value: value in ("background", "on-demand"), "'background' or 'on-demand'", None),
    "login": (lambda value: value in ("always", "once", "never"), "'always', 'once' or 'never'", None),
    "login_without_storage": (
        lambda value: isinstance(value, bool),
        "True or False, not {kind}",
        None,
    ),
    "budget": (lambda value: isinstance(value, Budget), "a Budget, not {kind}", None),
    "on_event": (
        lambda value: value is None or callable(value),
        "something to call with each event, not {kind}",
        None,
    ),
    "clock": (lambda value: hasattr(value, "elapsed"), "a Clock, not {kind}", None),
}


def check_credentials(credentials: object) -> None:
    """Look at a provider's first argument.

    Raises:
        ConfigurationError: It is something else. It is not shown: it may be a password.
    """
    if not isinstance(credentials, Credentials):
        raise ConfigurationError(
            f"The first argument is {_kind(credentials)}, not Credentials.",
            None,
            'Write Credentials(name="...", password="..."), or Credentials.from_env().',
        )


def check_options(**options: Unpack[ProviderOptions]) -> None:
    """Look at options of a provider, except the environment: what that stands for, `Environment.of` finds out.

    Raises:
        ConfigurationError: One of them is not what it should be.
    """
    for name, value in options.items():
        fits, wanted, advice = _RULES[name]
        if not fits(value):
            raise ConfigurationError(f"{name} is {wanted.format(kind=_kind(value))}.", None, advice)


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__

"""Errors without the frames that they came through.

Reports of an error may show the local variables on its way: Sentry's do, and so do rich's and pytest's. In a storage those hold
records as bytes, with tokens in the clear, and URLs with passwords.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from ..errors import TradovateAuthError
from ._codec import NotARecord

__all__ = ["discreet"]

P = ParamSpec("P")
T = TypeVar("T")


def discreet(call: Callable[P, T]) -> Callable[P, T]:
    """Return a function like this one whose errors say what they say, and not by which way they came.

    Errors that are no kind of ours come out as they are. What one of ours was made from (its cause) stays, without its way.
    """

    @functools.wraps(call)
    def calling(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except (TradovateAuthError, NotARecord, ImportError) as error:
            _forget_way(error)
            problem = error
        del args, kwargs
        try:
            raise problem
        finally:  # or it would hold, by its new way, the frame that holds it, and with that those of all callers
            del problem

    return calling


def _forget_way(error: BaseException | None) -> None:
    while error is not None:
        error.__traceback__ = None
        error.__context__ = error.__cause__
        error = error.__cause__

"""What becomes of an auth call that a client makes, and how a source is asked for what that takes: blocking, or on a loop."""

from collections.abc import Generator
from dataclasses import dataclass, field

from ._source import TokenSource
from .errors import TradovateAuthError
from .models import AccessToken

__all__ = ["Outcome", "Steps", "asettled", "settled"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """It is answered, or it passes."""

    answer: bytes | None = field(repr=False)
    """The body of the answer; None lets the call pass."""
    stranger: bool = False
    """Whether what the server answers to it are the tokens of somebody else, which we never replace."""


Steps = Generator[float, AccessToken, Outcome]
"""Yields how long a token should still live, gets it or the error that there is none, and returns the outcome."""


def settled(source: TokenSource, steps: Steps) -> Outcome:
    """Return what the steps return. Blocks like `TokenProvider.get`, and raises what it raises."""
    try:
        wanted = next(steps)
        while True:
            try:
                token = source.get(min_ttl=wanted)
            except TradovateAuthError as error:
                wanted = steps.throw(error)
            else:
                wanted = steps.send(token)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # what the generator returns


async def asettled(source: TokenSource, steps: Steps) -> Outcome:
    """Return what the steps return, without blocking the loop."""
    try:
        wanted = next(steps)
        while True:
            try:
                token = await source.aget(min_ttl=wanted)
            except TradovateAuthError as error:
                wanted = steps.throw(error)
            else:
                wanted = steps.send(token)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # as above

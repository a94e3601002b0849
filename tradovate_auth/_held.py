"""The token in hand, as the hot path sees it."""

import math
from typing import Final

from .models import AccessToken

__all__ = ["NOTHING", "ONE_SHOT_TTL", "Held"]

ONE_SHOT_TTL: Final = 2.0
"""Seconds that a token must still live to go out with a body that cannot be sent again."""


class Held:
    """A token and when to look at it again, by the clock that never jumps. The hot path reads `fresh_until` alone."""

    __slots__ = ("again_at", "doubted", "fresh_until", "token", "usable_until")

    def __init__(self, token: AccessToken, again_at: float, usable_until: float) -> None:
        self.token = token
        self.again_at = again_at
        self.usable_until = usable_until
        self.doubted = False
        self.fresh_until = min(again_at, usable_until - ONE_SHOT_TTL)  # until then it is good for any request


NOTHING: Final = Held(None, -math.inf, -math.inf)  # type: ignore[arg-type]  # never fresh, never usable, never served

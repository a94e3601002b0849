"""Whose tokens have come into this process: clients of two accounts may be at work in it, and instrumentation must not mix them up.

Known by digests alone, whichever way they came: obtained by a provider, adopted from a storage, or given to an instrumented client.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

from .models import AccessToken

__all__ = ["GIVEN", "digest_of", "give", "values_of"]

_MOST: Final = 1024  # tokens of a process that are remembered

GIVEN: Final[dict[str, str]] = {}
"""By digest: the name of the user."""


def digest_of(token: str) -> str:
    """Return what a token is known by."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def values_of(*tokens: AccessToken) -> list[str]:
    """Return what is secret in tokens: a client may send either."""
    return [value for token in tokens for value in (token.value, token.md_value) if value is not None]


def give(tokens: Iterable[str], owner: str) -> list[str]:
    """Remember whose these are; return their digests. Never blocks."""
    digests = [digest_of(token) for token in tokens]
    GIVEN.update(dict.fromkeys(digests, owner))
    for oldest in list(GIVEN)[:-_MOST]:
        GIVEN.pop(oldest, None)
    return digests

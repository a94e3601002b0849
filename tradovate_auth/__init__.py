"""One Tradovate session, one access token, shared by every thread, task and event loop, and renewed before it lapses.

Start with the adapter of your HTTP client: `tradovate_auth.requests`, `tradovate_auth.httpx`, `tradovate_auth.httpx2` or
`tradovate_auth.aiohttp`. Each takes `Credentials`, or a `TokenProvider` that several of them share.

Importing this package loads nothing but the standard library.
"""

import sys

if sys.argv[:1] == ["-m"]:  # as long as the interpreter looks for the module that it is told to run
    from . import _instrument_shelter

    _instrument_shelter.cover_runner()

from .environments import Environment
from .errors import (
    CaptchaRequired,
    ConfigurationError,
    LockedOut,
    LoginRefused,
    LoginRequired,
    ProtocolError,
    ProviderClosed,
    SessionEvicted,
    StorageError,
    Throttled,
    TokenTimeout,
    TradovateAuthError,
    TransportError,
)
from .models import AccessToken, Budget, Credentials, Status
from .provider import TokenProvider, TokenSource

__all__ = [
    "AccessToken",
    "Budget",
    "CaptchaRequired",
    "ConfigurationError",
    "Credentials",
    "Environment",
    "LockedOut",
    "LoginRefused",
    "LoginRequired",
    "ProtocolError",
    "ProviderClosed",
    "SessionEvicted",
    "Status",
    "StorageError",
    "Throttled",
    "TokenProvider",
    "TokenSource",
    "TokenTimeout",
    "TradovateAuthError",
    "TransportError",
    "__version__",
]


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("tradovate-auth")
        except PackageNotFoundError:  # a copy in a folder, or in a frozen program
            return "0+unknown"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""One Tradovate session, one access token, shared by every thread, task and event loop, and renewed before it lapses.

Start with the adapter of your HTTP client: `tradovate_auth.requests`, `tradovate_auth.httpx`, `tradovate_auth.httpx2` or
`tradovate_auth.aiohttp`. Each takes `Credentials`, or a `TokenProvider` that several of them share.

Importing this package loads nothing but the standard library.
"""

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
        from importlib.metadata import version

        return version("tradovate-auth")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

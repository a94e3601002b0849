"""Every error that can come out of this package, split by what the caller should do about it.

    TradovateAuthError                 catch this to catch all of them
    ├── ConfigurationError             fix the call (also a ValueError)
    ├── LoginRefused                   fix the credentials or the account; nobody tries again until then
    ├── LoginRequired                  this provider may not open a session, and there is none to share
    ├── Throttled                      wait `.retry_after` seconds: a budget of ours or a limit of the server
    │   ├── CaptchaRequired            ... the server asks for a captcha that no program can solve
    │   ├── LockedOut                  ... the server has locked the account or the address
    │   └── SessionEvicted             ... another client keeps closing our session
    ├── TransportError                 the server could not be reached, or its answer got lost
    ├── ProtocolError                  the server said something that is not in the protocol we know
    ├── StorageError                   fix the disk or the Redis behind the storage; `tradovate_auth.storage` has two
    │                                  kinds of it, StorageBusy and UnreadableRecord
    ├── TokenTimeout                   only this caller gave up; the attempt goes on (also a TimeoutError)
    └── ProviderClosed                 the provider was closed

Constructors take positional arguments only and hand them on, so that every error survives `copy` and `pickle`. No text
in here ever holds a token, a password or a secret. Apart from `TokenTimeout` (by name a timeout) none derives from
`OSError`, because aiohttp rewrites an `OSError` that passes through a client middleware.
"""

from typing import ClassVar

__all__ = [
    "CaptchaRequired",
    "ConfigurationError",
    "LockedOut",
    "LoginRefused",
    "LoginRequired",
    "ProtocolError",
    "ProviderClosed",
    "SessionEvicted",
    "StorageError",
    "Throttled",
    "TokenTimeout",
    "TradovateAuthError",
    "TransportError",
]


class TradovateAuthError(Exception):
    """The root of the tree above.

    Args:
        message: What happened, for a human.
        retry_after: Seconds after which trying again can help, or None where waiting does not help.
        advice: What to do now; each class has a default.
    """

    default_advice: ClassVar[str] = "Report this together with the event log of the provider."

    def __init__(
        self, message: str = "", retry_after: float | None = None, advice: str | None = None, /
    ) -> None:
        super().__init__()
        self.args = (message, retry_after, advice)  # set, not handed on: OSError would take them for an errno
        self.message = message
        self.retry_after = retry_after
        self.advice = advice or self.default_advice

    def __str__(self) -> str:
        wait = "" if self.retry_after is None else f" Retry after {self.retry_after:.0f} s."
        return f"{self.message}{wait} {self.advice}".strip()


class ConfigurationError(TradovateAuthError, ValueError):
    """An argument or an environment variable is wrong; no call to the server was made."""

    default_advice = "Correct the argument or the environment variable that is named here."


class LoginRefused(TradovateAuthError):
    """The server refused the credentials; no process tries them again until they change or `reset()` is called."""

    default_advice = (
        "Check the user name and the password, the API key's cid and sec, and the app id it was created with: the "
        "server gives one answer for all of them. Then start again with the corrected credentials, or call reset()."
    )


class LoginRequired(TradovateAuthError):
    """No session can be shared and this provider's `login` policy does not let it open one."""

    default_advice = (
        'Let another process log in through the same storage, or build this provider with login="always".'
    )


class Throttled(TradovateAuthError):
    """Asking now would cross a limit; `.retry_after` says when it is safe again."""

    default_advice = "Wait; until then nothing is sent, however often you ask."


class CaptchaRequired(Throttled):
    """The server asks for a captcha, which no program can solve: nothing is sent for an hour or longer."""

    default_advice = "Wait it out, or log in once on the vendor's own site; then call reset()."


class LockedOut(Throttled):
    """The server has locked the account or this address for a rolling hour, and requests may prolong it."""

    default_advice = "Stop everything that logs in with this account, and wait it out."


class SessionEvicted(Throttled):
    """Another client closed our session twice in short order; logging in again would only close its session."""

    default_advice = (
        "Find the other client of this user: it logs in for itself. Let it share this storage, or stop it."
    )


class TransportError(TradovateAuthError):
    """The server could not be reached, or the connection broke.

    Args:
        message: What happened.
        retry_after: Seconds, as in the base class.
        advice: As in the base class.
        sent: True if the request may have reached the server. A login that may have arrived counts as spent.
    """

    default_advice = "Check the network, the proxy and the server's status page; the next call tries again."

    def __init__(
        self,
        message: str = "",
        retry_after: float | None = None,
        advice: str | None = None,
        sent: bool = False,
        /,
    ) -> None:
        super().__init__(message, retry_after, advice)
        self.args = (message, retry_after, advice, sent)
        self.sent = sent


class ProtocolError(TradovateAuthError):
    """The server's answer holds neither a usable token nor a refusal that we know."""

    default_advice = (
        "Log in once on the vendor's own site: a second factor, a new device or new terms may be waiting there. "
        "Otherwise the protocol has changed: look for a newer version of this package."
    )


class StorageError(TradovateAuthError):
    """The storage that processes share cannot be read or written."""

    default_advice = "Repair the storage. Valid tokens stay in use until they end; nobody logs in meanwhile."


class TokenTimeout(TradovateAuthError, TimeoutError):
    """This caller's time ran out before there was a token; the attempt itself goes on and its result is kept."""

    default_advice = "Call again: the attempt goes on, and its token is there as soon as the server answers."


class ProviderClosed(TradovateAuthError):
    """The provider was closed."""

    default_advice = "Build a new provider; it adopts the session from the storage."

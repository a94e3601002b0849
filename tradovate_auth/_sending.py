"""What the transports share: the time that an exchange may take, what went wrong with it, whose certificates count."""

import contextlib
import contextvars
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from .errors import ConfigurationError, TransportError
from .transport import Reply

__all__ = [
    "CONNECT_SHARE",
    "Outcome",
    "environment_proxy",
    "look_up",
    "root_cause",
    "tls_context",
    "unreachable",
    "within",
]

CONNECT_SHARE: Final = 1 / 2
"""Part of an auth call's time that may pass until there is a connection: what fails then was certainly not sent."""


def tls_context(
    verify: ssl.SSLContext | str | bool,
    cert: str | tuple[str, ...] | None,
    plain: Callable[[], ssl.SSLContext],
) -> ssl.SSLContext | bool:
    """Return what a library is told about certificates: a context wherever True or False does not say it all.

    Args:
        verify: A context, the path of a CA bundle or of a folder of certificates, or a switch.
        cert: The path of a client certificate, or of it and its key.
        plain: Returns the library's own context with its own trusted roots.

    Raises:
        ConfigurationError: A file cannot be read. Found out here, because a login that fails later may count as sent.
    """
    if cert is None and not isinstance(verify, str):
        return verify
    try:
        if isinstance(verify, str):
            folder = Path(verify).is_dir()
            context = ssl.create_default_context(
                cafile=None if folder else verify, capath=verify if folder else None
            )
        else:
            context = verify if isinstance(verify, ssl.SSLContext) else plain()
        if verify is False:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if cert is not None:
            context.load_cert_chain(*([cert] if isinstance(cert, str) else cert))
    except OSError as error:
        raise ConfigurationError(
            f"The CA bundle or client certificate cannot be loaded: {root_cause(error)}."
        ) from None
    return context


Outcome = Reply | TransportError
"""How an exchange ends. The error is a value until it has left the handler of the library's own one: that holds the
request, and with it the password, and would come along as `__context__`."""


def unreachable(error: BaseException, *, sent: bool) -> TransportError:
    """Return the error for a library's own one, which is not kept."""
    return TransportError(f"The auth server could not be reached: {root_cause(error)}.", None, None, sent)


def environment_proxy(url: str) -> str | None:
    """Return the proxy that the environment names for a URL, or None."""
    target = urlsplit(url)
    if target.hostname is None or proxy_bypass(target.hostname):
        return None
    return getproxies().get(target.scheme)


def look_up(url: str) -> None:
    """Resolve the host of a URL, unless a proxy of the environment will. Blocks as long as the system's resolver likes.

    The libraries cannot limit that, and do not say afterwards whether they had got beyond it. A failure is for them to tell.
    """
    target = urlsplit(url)
    if environment_proxy(url) is None:
        with contextlib.suppress(OSError, UnicodeError):
            socket.getaddrinfo(target.hostname, target.port, type=socket.SOCK_STREAM)


class _Attempt:
    """Something that is either begun or given up, whichever comes first."""

    def __init__(self) -> None:
        self._deciding = threading.Lock()
        self._begun: bool | None = None

    def begin(self) -> bool:
        """Return whether it may begin."""
        return self._decide(begun=True)

    def give_up(self) -> bool:
        """Give it up; return whether it had begun."""
        return self._decide(begun=False)

    def _decide(self, *, begun: bool) -> bool:
        with self._deciding:
            if self._begun is None:
                self._begun = begun
            return self._begun


def within(
    seconds: float, exchange: Callable[[], Outcome], first: Callable[[], object] = lambda: None
) -> Reply:
    """Make an exchange in a thread of its own, and give it up when its time is over.

    requests and httpx limit each wait for a piece of the answer, not their sum: a server that sends a byte now and then
    would hold the flight, and the storage's lock with it, for hours.

    Args:
        seconds: How long it may take in all.
        exchange: Sends the request.
        first: What comes before; if that takes all the time, nothing is sent.

    Raises:
        TransportError: The exchange's own error, or its time is over.
    """
    outcome: Future[Outcome | None] = Future()
    attempt = _Attempt()

    def run() -> None:
        try:
            first()
            outcome.set_result(exchange() if attempt.begin() else None)
        except BaseException as error:  # noqa: BLE001  # it is the caller's, whatever it is
            outcome.set_exception(error)

    try:
        # With the context, by which a flight recognises a transport that asks for the token it is to fetch.
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(run,), name="tradovate_auth call", daemon=True).start()
    except RuntimeError:
        run()  # an interpreter that is leaving starts no thread any more
    try:
        ended = outcome.result(seconds)
    except FutureTimeoutError:
        ended = None
    if ended is None:
        sent = attempt.give_up()
        what = "did not answer" if sent else "could not be found"
        raise TransportError(f"The auth server {what} within {seconds:.1f} s.", None, None, sent)
    if isinstance(ended, TransportError):
        raise ended
    return ended


def root_cause(error: BaseException) -> str:
    """Return what went wrong at the bottom of an exception, without the texts above it, which may hold a request."""
    seen: list[Exception] = []
    current: object = error
    while (
        isinstance(current, Exception) and current not in seen
    ):  # a cancellation is how a time-out is made, not why
        seen.append(current)
        inner = next((item for item in current.args if isinstance(item, Exception)), None)
        current = getattr(current, "reason", None) or inner or current.__cause__ or current.__context__
    for found in reversed(seen):
        if isinstance(found, OSError) and found.strerror:
            return f"{type(found).__name__} ({found.strerror})"
    return type(seen[-1]).__name__

"""One session for clients that somebody else wrote: no line of theirs is changed.

    from tradovate_auth.instrumentation import instrument

    instrument()            # credentials, environment and storage from the TRADOVATE_ variables
    import somebodys_bot    # logs in by itself and keeps its token for ever

Every request that requests, httpx, httpx2 or aiohttp sends to a trusted origin of the environment then carries the shared
access token, in place of whatever the client put there, and is sent once more after a 401, as by `TradovateAuth`. Requests to
anywhere else are not touched. The client's own login or renewal is answered from the shared session, as the server would have
answered it: no session is opened, and nobody's is closed. A login for another user passes, with a `Warned` event, and the
token that it brings is left alone.

From outside, for a program and the Python processes that it starts:

    python -m tradovate_auth.instrumentation bot.py
"""

import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Self

from ._instrument_state import STATE, Asked
from ._overlay import Insecure, Logins, Overlay
from ._source import TokenSource
from .errors import ConfigurationError
from .events import Event
from .provider import TokenProvider
from .transport import Call, Reply, first_installed

__all__ = ["Instrumentation", "instrument", "instrument_client", "uninstrument"]


class Instrumentation:
    """What `instrument` and `instrument_client` return: a context manager that undoes them at its end.

    Args:
        source: Whose token the clients get.
        undo: Called once, to undo it.
    """

    def __init__(self, source: TokenSource, undo: Callable[[], None]) -> None:
        self._source = source
        self._undo: list[Callable[[], None]] = [undo]

    @property
    def source(self) -> TokenSource:
        """Whose token the clients get."""
        return self._source

    def uninstrument(self) -> None:
        """Undo this one call; where `instrument` was called several times, the last one to be undone takes effect.

        A provider that was made for it is closed: see `TokenProvider.close` for how long that blocks. Any thread; a second
        time does nothing.
        """
        try:
            undo = self._undo.pop()
        except IndexError:
            return
        undo()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.uninstrument()

    def __repr__(self) -> str:
        return f"<Instrumentation with {self._source!r}>"


def instrument(
    source: TokenSource | None = None,
    *,
    requests: bool = True,
    httpx: bool = True,
    httpx2: bool = True,
    aiohttp: bool = True,
    logins: Logins = "answer",
    insecure: Insecure = "warn",
    on_event: Callable[[Event], object] | None = None,
) -> Instrumentation:
    """Give every client of these libraries the source's token, now or when the library is imported; return how to undo it.

    Clients that were made before are reached as well. Nothing is sent before a client asks, and nothing blocks here but the
    files that hold credentials. Any thread. Called again with the same arguments it changes nothing, and is to be undone as
    often. Errors of the source come out of a client's call as they would with `TradovateAuth`, also out of its login.

    Args:
        source: A `TokenProvider` or another `TokenSource`, which stays open; None makes a provider from the `TRADOVATE_`
            variables, and closes it at the end.
        requests: Whether to instrument requests.
        httpx: Whether to instrument httpx.
        httpx2: Whether to instrument httpx2.
        aiohttp: Whether to instrument aiohttp.
        logins: "answer" the clients' own logins and renewals, or let them "pass" to the server.
        insecure: What a client without certificate checks gets: the token, and one `Warned` event for each library
            ("warn"), or neither token nor answer ("refuse").
        on_event: The listener of the provider that is made, as for `TokenProvider`. Without one this joins whatever listens.

    Raises:
        ConfigurationError: An argument or a variable is wrong, or clients are instrumented already in another way.
    """
    wanted = {"requests": requests, "httpx": httpx, "httpx2": httpx2, "aiohttp": aiohttp}
    libraries = frozenset(name for name, on in wanted.items() if on)
    asked = Asked(source, libraries, logins, insecure, on_event)
    overlay = STATE.enter(asked, lambda: _overlay(source, logins, insecure, on_event))
    return Instrumentation(overlay.given, lambda: STATE.leave(overlay))


def uninstrument() -> None:
    """Undo every `instrument` and `instrument_client`.

    The libraries' attributes are the original objects again; where somebody else has wrapped ours, ours stays there and lets
    everything pass. Providers that were made for it are closed: see `TokenProvider.close` for how long that blocks. Any
    thread; without effect where nothing is instrumented.
    """
    STATE.clear()


def instrument_client(
    client: object,
    *,
    source: TokenSource | None = None,
    logins: Logins = "answer",
    insecure: Insecure = "warn",
) -> Instrumentation:
    """Give one client a source's token; return how to undo it.

    For a client of a library that `instrument` was told to leave alone, or with a source of its own, which then counts for
    this client. Blocks on nothing but the files that hold credentials; any thread.

    Args:
        client: A `requests.Session`, a client of httpx or httpx2, or an `aiohttp.ClientSession`. It is held weakly.
        source: As for `instrument`; None takes the source, `logins` and `insecure` of the `instrument` that is in force, and
            ends with that.
        logins: As for `instrument`.
        insecure: As for `instrument`.

    Raises:
        ConfigurationError: An argument or a variable is wrong, or this is no client of one of the libraries.
    """
    overlay = STATE.cover(client, lambda: _overlay(source, logins, insecure), join=source is None)
    held = weakref.ref(client)
    return Instrumentation(overlay.given, lambda: STATE.uncover(held(), overlay))


def _overlay(
    source: TokenSource | None,
    logins: Logins,
    insecure: Insecure,
    on_event: Callable[[Event], object] | None = None,
) -> Overlay:
    if source is not None and on_event is not None:
        raise ConfigurationError(
            "There is a source, and a listener for one that would be made.",
            None,
            "Give the listener to the source: TokenProvider(on_event=...).",
        )
    if source is not None:
        return Overlay(source, logins=logins, insecure=insecure)
    own = TokenProvider.from_env(transport=_FirstInstalled(), on_event=on_event)
    return Overlay(own, logins=logins, insecure=insecure, own=own)


class _FirstInstalled:
    """The transport of a bare provider, looked for when it is needed: every child process of an instrumented program would
    import a client library otherwise, whether it sends anything or not.
    """

    def send(self, call: Call, timeout: float) -> Reply:
        """See `Transport.send`."""
        return first_installed().send(call, timeout)


if __name__ == "__main__":
    import sys

    from tradovate_auth._instrument_runner import main

    sys.exit(main(sys.argv[1:]))

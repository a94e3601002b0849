"""Whether a client of httpx or httpx2 checks certificates, and that they are of the host that was asked for.

The libraries have no public way to ask that: the context lies in the pool of the transport that the client has chosen. A
transport of somebody's own, one that tries again or keeps answers, mostly hands its requests on to such a one and holds it in
an attribute, so what it holds is looked through. What shows no context is neither trusted nor accused.
"""

import ssl
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

from ._overlay import checks_names

__all__ = ["Checks"]

_UNSEEN: Final = object()
_MANY: Final = (
    64  # transports in one place there are none; whatever is kept by the thousand need not be looked through
)


class Checks:
    """What can be known about the clients of one of the libraries. Any thread; never blocks."""

    def __init__(self, library: ModuleType) -> None:
        self._offline = (library.MockTransport, library.WSGITransport, library.ASGITransport)

    def of(self, client: Any, url: Any) -> bool | None:
        """Return whether a client checks the certificate at a URL; None if its transport does not show that."""
        find = getattr(client, "_transport_for_url", None)
        found = [] if find is None else list(self._contexts(find(url), set()))
        return all(context is None or checks_names(context) for context in found) if found else None

    def _contexts(self, sender: Any, seen: set[int]) -> Iterator[ssl.SSLContext | None]:
        """Yield the contexts of a transport, or of those that it hands its requests to; None for one that needs no other."""
        context = None if isinstance(sender, self._offline) else getattr(sender, "_ssl_context", _UNSEEN)
        if context is None or isinstance(context, ssl.SSLContext):
            yield context
        elif id(sender) not in seen:
            seen.add(id(sender))
            for each in _parts(sender):
                if hasattr(type(each), "handle_request") or hasattr(type(each), "handle_async_request"):
                    yield from self._contexts(each, seen)


def _parts(sender: Any) -> Iterator[Any]:
    """Yield what an object holds, by itself or in a small container."""
    for part in list(getattr(sender, "__dict__", {}).values()):
        within = (
            part.values() if isinstance(part, dict) else part if isinstance(part, list | tuple) else (part,)
        )
        yield from list(within) if len(within) <= _MANY else ()

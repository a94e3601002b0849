"""Where instrumentation meets httpx and httpx2: `Client.send` and `AsyncClient.send`.

The client's own auth is wrapped into one that follows the redirects itself, by the requests that the client has prepared for
them, and lets the shared flow sign each hop to a trusted origin. So a hop to us gets the token, from wherever it comes, and
the client's own auth sees what it would have seen. An auth flow cannot answer a request, so logins are answered before.
See docs/decisions/0013.
"""

import datetime as dt
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterable, Generator
from contextlib import aclosing, closing
from types import ModuleType
from typing import Any, Final

from ._httpx_flow import HttpxBearer
from ._overlay import Overlay, overlay_for, trusts
from ._own_logins import AuthCall, auth_call, named_user

__all__ = ["points"]

_HEADER: Final = "Authorization"


def points(library: ModuleType) -> list[tuple[type, str, Any]]:
    """Return what is wrapped in httpx or httpx2: class, attribute, wrapper."""
    hooks = _Hooks(library)
    return [(library.Client, "send", hooks.send), (library.AsyncClient, "send", hooks.asend)]


class _Hooks:
    """The wrappers of the two `send`, for one of the libraries."""

    def __init__(self, library: ModuleType) -> None:
        self._library = library
        self._name = library.__name__
        self._default = type(library.USE_CLIENT_DEFAULT)
        # The clients take nothing for an auth that has not their own base.
        self._chain: Any = type("_LibraryChain", (_Chain, library.Auth), {})
        self._function: Any = type("_LibraryFunction", (_Function, library.Auth), {})

    def send(self, wrapped: Any, client: Any, args: Any, kwargs: Any) -> Any:
        """Stand in for `Client.send`."""
        request = args[0] if args else kwargs.get("request")
        overlay = self._overlay(client, request)
        if overlay is None:
            return wrapped(*args, **kwargs)
        kind = self._own_call(overlay, client, request)
        if kind is None:
            return wrapped(*args, **self._chained(overlay, client, request, kwargs))
        started = time.perf_counter()
        user = named_user(request.read()) if kind == "login" else None
        outcome = overlay.settle(kind, user, request.headers.get(_HEADER))
        if outcome.answer is None:
            response = wrapped(*args, **kwargs)
            if outcome.stranger:
                overlay.remember_stranger(response.read())
            return response
        for hook in client.event_hooks["request"]:
            hook(request)
        response = self._answered(request, outcome.answer, started)
        for hook in client.event_hooks["response"]:
            hook(response)
        if not kwargs.get("stream"):
            response.read()
        return response

    async def asend(self, wrapped: Any, client: Any, args: Any, kwargs: Any) -> Any:
        """Stand in for `AsyncClient.send`."""
        request = args[0] if args else kwargs.get("request")
        overlay = self._overlay(client, request)
        if overlay is None:
            return await wrapped(*args, **kwargs)
        kind = self._own_call(overlay, client, request)
        if kind is None:
            return await wrapped(*args, **self._chained(overlay, client, request, kwargs))
        started = time.perf_counter()
        user = named_user(await _aread(request)) if kind == "login" else None
        outcome = await overlay.asettle(kind, user, request.headers.get(_HEADER))
        if outcome.answer is None:
            response = await wrapped(*args, **kwargs)
            if outcome.stranger:
                overlay.remember_stranger(await response.aread())
            return response
        for hook in client.event_hooks["request"]:
            await hook(request)
        response = self._answered(request, outcome.answer, started)
        for hook in client.event_hooks["response"]:
            await hook(response)
        if not kwargs.get("stream"):
            await response.aread()
        return response

    def _overlay(self, client: Any, request: Any) -> Overlay | None:
        usable = isinstance(request, self._library.Request) and not client.is_closed
        return overlay_for(self._name, client) if usable else None

    def _own_call(self, overlay: Overlay, client: Any, request: Any) -> AuthCall | None:
        """Return which auth call to our own environment a request is, if it is one that we may look after."""
        kind = auth_call(request.method, request.url.path)
        if kind is None or not self.touches(overlay, kind, request):
            return None
        return kind if overlay.admits(self._name, checked=_checks(client, request.url)) else None

    def touches(self, overlay: Overlay, kind: AuthCall | None, request: Any) -> bool:
        """Return whether a request goes to a trusted origin."""
        return overlay.touches(self._name, kind, *_origin(request))

    def _chained(self, overlay: Overlay, client: Any, request: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of `send`, with our auth around the one that the client would use."""
        auth = kwargs.get("auth", self._library.USE_CLIENT_DEFAULT)
        if isinstance(auth, self._default):
            auth = client.auth
        follow = kwargs.get("follow_redirects", self._library.USE_CLIENT_DEFAULT)
        if isinstance(follow, self._default):
            follow = client.follow_redirects
        if isinstance(auth, HttpxBearer) and trusts(auth, *_origin(request)):
            return kwargs
        if isinstance(auth, _Chain) or not (follow or self.touches(overlay, None, request)):
            return kwargs
        if (inner := self._as_auth(auth, request.url)) is None:
            return kwargs
        return {
            **kwargs,
            "auth": self._chain(self, overlay, client, inner, follow=follow),
            "follow_redirects": False,
        }

    def _as_auth(self, auth: Any, url: Any) -> Any:
        """Return what the client makes of an `auth=`; None if it refuses it, and is to say so itself."""
        library = self._library
        if auth is None:
            named = bool(url.username or url.password)
            return library.BasicAuth(url.username, url.password) if named else library.Auth()
        if isinstance(auth, tuple):
            return library.BasicAuth(auth[0], auth[1])
        if isinstance(auth, library.Auth):
            return auth
        return self._function(auth) if callable(auth) else None

    def signer(self, overlay: Overlay, client: Any, request: Any) -> Any:
        """Return the auth for one hop: the shared one, or one that does nothing."""
        kind = auth_call(request.method, request.url.path)
        if (
            self.touches(overlay, kind, request)
            and kind is None
            and overlay.admits(self._name, checked=_checks(client, request.url))
            and not overlay.is_stranger(request.headers.get(_HEADER))
        ):
            return overlay.auth(self._name)
        return self._library.Auth()

    def onward(self, request: Any, response: Any) -> Any:
        """Return the request that a redirect leads to, or None if the answer is none."""
        if response.next_request is None and response.has_redirect_location:
            raise self._library.RemoteProtocolError("Invalid URL in location header", request=request)
        return response.next_request

    def _answered(self, request: Any, body: bytes, started: float) -> Any:
        response = self._library.Response(
            200,
            headers={"Content-Type": "application/json", "Content-Length": str(len(body))},
            stream=self._library.ByteStream(body),
            request=request,
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": b"OK"},
        )
        response.elapsed = dt.timedelta(seconds=time.perf_counter() - started)
        return response


class _Chain:
    """The auth of one call: around the client's own, hop for hop."""

    def __init__(self, hooks: _Hooks, overlay: Overlay, client: Any, inner: Any, *, follow: bool) -> None:
        self._hooks = hooks
        self._overlay = overlay
        self._client = client
        self._inner = inner
        self._follow = follow

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Drive the client's own auth; the client calls this."""
        with closing(self._inner.sync_auth_flow(request)) as inner:
            request = next(inner)
            while True:
                signer = self._hooks.signer(self._overlay, self._client, request)
                with closing(signer.sync_auth_flow(request)) as hop:
                    outgoing = next(hop)
                    while outgoing is not None:
                        response = yield outgoing
                        outgoing = _send(hop, response)
                onward = self._hooks.onward(request, response) if self._follow else None
                request = onward if onward is not None else _send(inner, response)
                if request is None:
                    return

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Drive the client's own auth; the client calls this."""
        async with aclosing(self._inner.async_auth_flow(request)) as inner:
            request = await anext(inner)
            while True:
                signer = self._hooks.signer(self._overlay, self._client, request)
                async with aclosing(signer.async_auth_flow(request)) as hop:
                    outgoing = await anext(hop)
                    while outgoing is not None:
                        response = yield outgoing
                        outgoing = await _asend(hop, response)
                onward = self._hooks.onward(request, response) if self._follow else None
                request = onward if onward is not None else await _asend(inner, response)
                if request is None:
                    return


class _Function:
    """A client's `auth=` that is a plain function."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """See `httpx.Auth.auth_flow`."""
        yield self._function(request)


def _send(flow: Generator[Any, Any, None], response: Any) -> Any:
    try:
        return flow.send(response)
    except StopIteration:
        return None


async def _asend(flow: AsyncGenerator[Any, Any], response: Any) -> Any:
    try:
        return await flow.asend(response)
    except StopAsyncIteration:
        return None


def _origin(request: Any) -> tuple[str, str]:
    return request.url.scheme, request.url.netloc.decode("ascii")


async def _aread(request: Any) -> bytes:
    asynchronous = isinstance(request.stream, AsyncIterable)
    return await request.aread() if asynchronous else request.read()  # type: ignore[no-any-return]  # httpx's


def _checks(client: Any, url: Any) -> bool:
    """Return whether a client checks certificates, as far as its transport lets us know."""
    find = getattr(client, "_transport_for_url", None)
    pool = getattr(find(url), "_pool", None) if find is not None else None
    return getattr(getattr(pool, "_ssl_context", None), "verify_mode", None) != ssl.CERT_NONE

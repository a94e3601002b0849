"""Where instrumentation meets httpx and httpx2: `_send_single_request`, through which each request of a client goes last.

There it is final: auth flows, the redirects that the client follows and its event hooks have done their work. So it does not
matter where a header comes from, and a login is answered whoever makes it, also an auth flow on its way to something else.
What comes back goes up through hooks and flow like any answer; a 401 that another token cures is seen by none of them.

`send` is wrapped as well, to know of a client with a `TradovateAuth` of its own. See docs/decisions/0013.
"""

import datetime as dt
import time
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable
from contextlib import aclosing, closing, suppress
from contextvars import ContextVar, Token
from types import ModuleType
from typing import Any, Final, NamedTuple

from ._httpx_checks import Checks
from ._httpx_flow import HttpxBearer
from ._overlay import Outcome, Overlay, answer_headers, overlay_for, trusts
from ._own_logins import AuthCall, auth_call, named_user
from .errors import ProviderClosed

__all__ = ["points"]

_HEADER: Final = "Authorization"

_signing: Final[ContextVar[HttpxBearer[Any, Any] | None]] = ContextVar("tradovate_auth_signing", default=None)
"""The `TradovateAuth` that signs the requests of the call that is under way, if one does."""


def points(library: ModuleType) -> list[tuple[type, str, Any]]:
    """Return what is wrapped in httpx or httpx2: class, attribute, wrapper."""
    hooks = _Hooks(library)
    return [
        (library.Client, "send", hooks.send),
        (library.AsyncClient, "send", hooks.asend),
        (library.Client, "_send_single_request", hooks.deliver),
        (library.AsyncClient, "_send_single_request", hooks.adeliver),
    ]


class _Case(NamedTuple):
    """A request that is our business."""

    overlay: Overlay
    kind: AuthCall | None
    here: bool
    """Whether it goes to a trusted origin; otherwise it is a login at a kindred one."""
    admitted: bool
    """Whether the client may have our token."""
    bare: bool
    """Whether our token is taken off a request that is not signed: not where the client has a `TradovateAuth` of its own."""


class _Hooks:
    """The wrappers for one of the libraries."""

    def __init__(self, library: ModuleType) -> None:
        self._library = library
        self._name = library.__name__
        self._default = type(library.USE_CLIENT_DEFAULT)
        self._checks = Checks(library)

    def send(self, wrapped: Any, client: Any, args: Any, kwargs: Any) -> Any:
        """Stand in for `Client.send`."""
        with _SignedBy(self._own_auth(client, kwargs)):
            return wrapped(*args, **kwargs)

    async def asend(self, wrapped: Any, client: Any, args: Any, kwargs: Any) -> Any:
        """Stand in for `AsyncClient.send`."""
        with _SignedBy(self._own_auth(client, kwargs)):
            return await wrapped(*args, **kwargs)

    def _own_auth(self, client: Any, kwargs: dict[str, Any]) -> HttpxBearer[Any, Any] | None:
        auth = kwargs.get("auth", self._library.USE_CLIENT_DEFAULT)
        if isinstance(auth, self._default):
            auth = client.auth
        return auth if isinstance(auth, HttpxBearer) else None

    def deliver(self, wrapped: Any, client: Any, args: Any, kwargs: Any) -> Any:
        """Stand in for `Client._send_single_request`."""
        request = args[0] if args else kwargs["request"]
        case = self._case(client, request)
        if case is None:
            return wrapped(*args, **kwargs)
        if case.kind is not None:
            return self._auth_call(case, case.kind, wrapped, request)
        whose = case.overlay.whose(request.headers.get(_HEADER), admitted=case.admitted)
        if case.admitted and whose != "stranger":
            return self._signed(case.overlay, wrapped, request)
        if whose == "ours" and not case.admitted:
            del request.headers[_HEADER]
        return wrapped(request)

    async def adeliver(self, wrapped: Any, client: Any, args: Any, kwargs: Any) -> Any:
        """Stand in for `AsyncClient._send_single_request`."""
        request = args[0] if args else kwargs["request"]
        case = self._case(client, request)
        if case is None:
            return await wrapped(*args, **kwargs)
        if case.kind is not None:
            return await self._aauth_call(case, case.kind, wrapped, request)
        whose = await case.overlay.awhose(request.headers.get(_HEADER), admitted=case.admitted)
        if case.admitted and whose != "stranger":
            return await self._asigned(case.overlay, wrapped, request)
        if whose == "ours" and not case.admitted:
            del request.headers[_HEADER]
        return await wrapped(request)

    def _case(self, client: Any, request: Any) -> _Case | None:
        """Return what is to be known of a request; None if it is not our business."""
        overlay = overlay_for(self._name, client)
        if overlay is None:
            return None
        kind = auth_call(request.method, request.url.path)
        scheme, netloc = _origin(request)
        if not overlay.touches(self._name, kind, scheme, netloc):
            kindred = overlay.strange_elsewhere(kind, None, netloc)
            return _Case(overlay, kind, here=False, admitted=False, bare=False) if kindred else None
        auth = _signing.get()
        own = auth is not None and trusts(auth, scheme, netloc)
        if kind is None and own:
            return None
        admitted = overlay.admits(self._name, checked=self._checks.of(client, request.url))
        return _Case(overlay, kind, here=True, admitted=admitted, bare=not (admitted or own))

    def _auth_call(self, case: _Case, kind: AuthCall, wrapped: Any, request: Any) -> Any:
        started = time.perf_counter()
        user = named_user(_body(request)) if kind == "login" else None
        header = request.headers.get(_HEADER)
        if case.here:
            outcome = case.overlay.settle(kind, user, header, admitted=case.admitted)
        else:
            outcome = _elsewhere(case.overlay, kind, user, request)
        if outcome.answer is not None:
            return self._answered(request, outcome.answer, started)
        if case.bare and case.overlay.whose(header, admitted=False) == "ours":
            del request.headers[_HEADER]
        response = wrapped(request)
        if outcome.stranger:
            try:
                case.overlay.remember_stranger(response.read())
            except BaseException:
                response.close()
                raise
        return response

    async def _aauth_call(self, case: _Case, kind: AuthCall, wrapped: Any, request: Any) -> Any:
        started = time.perf_counter()
        user = named_user(await _abody(request)) if kind == "login" else None
        header = request.headers.get(_HEADER)
        if case.here:
            outcome = await case.overlay.asettle(kind, user, header, admitted=case.admitted)
        else:
            outcome = _elsewhere(case.overlay, kind, user, request)
        if outcome.answer is not None:
            return self._answered(request, outcome.answer, started)
        if case.bare and await case.overlay.awhose(header, admitted=False) == "ours":
            del request.headers[_HEADER]
        response = await wrapped(request)
        if outcome.stranger:
            try:
                await case.overlay.aremember_stranger(await response.aread())
            except BaseException:
                await response.aclose()
                raise
        return response

    def _signed(self, overlay: Overlay, wrapped: Any, request: Any) -> Any:
        auth = overlay.auth(self._name)
        with _SignedBy(auth), closing(auth.sync_auth_flow(request)) as flow:
            try:
                outgoing = next(flow)
            except ProviderClosed:
                if overlay.ended:  # since this call began
                    return wrapped(request)
                raise
            while True:
                header = outgoing.headers.get(_HEADER)
                response = wrapped(outgoing)
                try:
                    self._notice(overlay, outgoing, header)
                    outgoing = _send(flow, response)
                    if outgoing is None:
                        return response
                    response.read()
                except BaseException:
                    response.close()
                    raise

    async def _asigned(self, overlay: Overlay, wrapped: Any, request: Any) -> Any:
        auth = overlay.auth(self._name)
        with _SignedBy(auth):
            async with aclosing(auth.async_auth_flow(request)) as flow:
                try:
                    outgoing = await anext(flow)
                except ProviderClosed:
                    if overlay.ended:
                        return await wrapped(request)
                    raise
                while True:
                    header = outgoing.headers.get(_HEADER)
                    response = await wrapped(outgoing)
                    try:
                        self._notice(overlay, outgoing, header)
                        outgoing = await _asend(flow, response)
                        if outgoing is None:
                            return response
                        await response.aread()
                    except BaseException:
                        await response.aclose()
                        raise

    def _notice(self, overlay: Overlay, request: Any, header: str | None) -> None:
        if request.headers.get(_HEADER) != header:
            overlay.warn(
                f"a transport of a client of {self._name} puts an Authorization of its own over ours"
            )

    def _answered(self, request: Any, body: bytes, started: float) -> Any:
        response = self._library.Response(
            200,
            headers=answer_headers(body),
            stream=self._library.ByteStream(body),
            request=request,
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": b"OK"},
        )
        response.elapsed = dt.timedelta(seconds=time.perf_counter() - started)
        return response


class _SignedBy:
    """For as long as it lasts, the requests of the call that is under way are signed by a `TradovateAuth`, or by none."""

    def __init__(self, auth: HttpxBearer[Any, Any] | None) -> None:
        self._auth = auth

    def __enter__(self) -> None:
        self._before: Token[HttpxBearer[Any, Any] | None] = _signing.set(self._auth)

    def __exit__(self, *_: object) -> None:
        # A coroutine that nobody awaits to its end may be closed in another context, where nothing was set.
        with suppress(ValueError):
            _signing.reset(self._before)


def _elsewhere(overlay: Overlay, kind: AuthCall, user: str | None, request: Any) -> Outcome:
    return Outcome(None, stranger=overlay.strange_elsewhere(kind, user, _origin(request)[1]))


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


def _body(request: Any) -> bytes:
    """Return what is in a body; nothing of one that the client will refuse."""
    return request.read() if isinstance(request.stream, Iterable) else b""


async def _abody(request: Any) -> bytes:
    return await request.aread() if isinstance(request.stream, AsyncIterable) else _body(request)

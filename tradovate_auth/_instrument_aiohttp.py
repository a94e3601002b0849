"""Where instrumentation meets aiohttp: a middleware, innermost, of each session and of each call that brings its own.

`ClientSession.__init__` adds it to what the session is given, `_request` to what a call is given and to sessions that were
made before. The innermost one sees a request as it will go out, on each hop. An answer of our own comes out of
aiohttp's own parser, over a connection that leads nowhere: there is no public way to make one. See docs/decisions/0013.
"""

import asyncio
import ssl
from types import ModuleType
from typing import Any, Final

import aiohttp
from aiohttp import hdrs
from aiohttp.client_proto import ResponseHandler

from ._bearer import Bearer
from ._overlay import Overlay, answer_headers, checks_names, overlay_for, trusts
from ._own_logins import AuthCall, auth_call, named_user
from .errors import ProviderClosed

__all__ = ["points"]

_HEADER: Final = hdrs.AUTHORIZATION


def points(library: ModuleType) -> list[tuple[type, str, Any]]:
    """Return what is wrapped: class, attribute, wrapper."""
    return [(library.ClientSession, "__init__", _init), (library.ClientSession, "_request", _request)]


def _init(wrapped: Any, session: aiohttp.ClientSession, args: Any, kwargs: Any) -> None:
    given = kwargs.get("middlewares", ())
    # A list may be changed as long as the session lives: it is looked at in each request.
    if overlay_for("aiohttp", session) is not None and isinstance(given, tuple):
        kwargs = {**kwargs, "middlewares": _with_ours(given)}
    wrapped(*args, **kwargs)


def _request(wrapped: Any, session: aiohttp.ClientSession, args: Any, kwargs: Any) -> Any:
    if overlay_for("aiohttp", session) is None:
        return wrapped(*args, **kwargs)
    given = kwargs.get("middlewares")
    if given is None:
        given = getattr(session, "_middlewares", None)
        if given is None:
            return wrapped(*args, **kwargs)
    return wrapped(*args, **{**kwargs, "middlewares": _with_ours(given)})


class _Middleware:
    """Answers the logins of a session, and signs its requests.

    Args:
        others: What the session or the call has for the same purpose already; these sign where they trust.
    """

    def __init__(self, others: tuple[Bearer, ...] = ()) -> None:
        self._others = others

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Sign or answer a request, or let it pass. aiohttp calls this, for every hop."""
        overlay, url = overlay_for("aiohttp", request.session), request.url
        if overlay is None:
            return await handler(request)
        kind = auth_call(request.method, url.raw_path)
        if not overlay.touches("aiohttp", kind, url.scheme, url.raw_authority):
            return await self._elsewhere(overlay, kind, request, handler)
        signed_already = any(trusts(each, url.scheme, url.raw_authority) for each in self._others)
        if signed_already and kind is None:
            return await handler(request)
        admitted = overlay.admits("aiohttp", checked=_checks(request))
        if kind is not None:
            return await self._auth_call(
                overlay, kind, request, handler, admitted=admitted, bare=not (admitted or signed_already)
            )
        whose = await overlay.awhose(request.headers.get(_HEADER), admitted=admitted)
        if admitted and whose != "stranger":
            return await self._signed(overlay, request, handler)
        if not admitted and whose == "ours":
            del request.headers[_HEADER]
        return await handler(request)

    @staticmethod
    async def _signed(
        overlay: Overlay, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        try:
            signed: aiohttp.ClientResponse = await overlay.auth("aiohttp")(request, handler)
        except ProviderClosed:
            if overlay.ended:  # since this request began; it has not been sent
                return await handler(request)
            raise
        return signed

    @staticmethod
    async def _auth_call(
        overlay: Overlay,
        kind: AuthCall,
        request: aiohttp.ClientRequest,
        handler: aiohttp.ClientHandlerType,
        *,
        admitted: bool,
        bare: bool,
    ) -> aiohttp.ClientResponse:
        header = request.headers.get(_HEADER)
        outcome = await overlay.asettle(kind, await _user(kind, request), header, admitted=admitted)
        if outcome.answer is not None:
            return await _answered(request, outcome.answer)
        if bare and await overlay.awhose(header, admitted=False) == "ours":
            del request.headers[_HEADER]
        response = await handler(request)
        if outcome.stranger:
            await overlay.aremember_stranger(await response.read())
        return response

    @staticmethod
    async def _elsewhere(
        overlay: Overlay,
        kind: AuthCall | None,
        request: aiohttp.ClientRequest,
        handler: aiohttp.ClientHandlerType,
    ) -> aiohttp.ClientResponse:
        if kind is None:
            return await handler(request)
        strange = overlay.strange_elsewhere(kind, await _user(kind, request), request.url.raw_authority)
        response = await handler(request)
        if strange:
            await overlay.aremember_stranger(await response.read())
        return response


_OURS: Final = _Middleware()


def _with_ours(middlewares: Any) -> tuple[Any, ...]:
    """Return the middlewares with ours innermost, once."""
    theirs = tuple(each for each in middlewares if not isinstance(each, _Middleware))
    others = tuple(each for each in theirs if isinstance(each, Bearer))
    return *theirs, _Middleware(others) if others else _OURS


def _checks(request: aiohttp.ClientRequest) -> bool:
    """Return whether a request checks certificates; one that leaves it to the connector is asked for there."""
    wanted: Any = request.ssl
    if wanted is True:
        wanted = getattr(request.session.connector, "_ssl", True)
    if isinstance(wanted, ssl.SSLContext):
        return checks_names(wanted)
    return wanted is not False


async def _user(kind: AuthCall, request: aiohttp.ClientRequest) -> str | None:
    return named_user(await request.body.as_bytes()) if kind == "login" and request.body else None


async def _answered(request: aiohttp.ClientRequest, body: bytes) -> aiohttp.ClientResponse:
    """Return an answer of ours as aiohttp would have read it from a server."""
    connector = _Nowhere(force_close=True)
    try:
        connection = await connector.connect(request, traces=[], timeout=aiohttp.ClientTimeout())
        response = await request.send(connection)
        if hdrs.EXPECT not in request.headers:
            await request.close()  # as far as it knows, its body has been sent
        protocol: Any = connection.protocol
        fields = "".join(f"{name}: {value}\r\n" for name, value in answer_headers(body).items())
        head = f"HTTP/1.1 200 OK\r\n{fields}\r\n"
        # "Continue" is for a client that waits with its body until it is told to; others do not notice.
        protocol.data_received(b"HTTP/1.1 100 Continue\r\n\r\n" + head.encode() + body)
        await response.start(connection)
        await request.close()
        return response
    finally:
        await connector.close()


class _Nowhere(aiohttp.BaseConnector):
    """Connects a request with nobody."""

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,  # noqa: ARG002  # as aiohttp calls it
        traces: Any,  # noqa: ARG002
        timeout: aiohttp.ClientTimeout,  # noqa: ARG002, ASYNC109
    ) -> ResponseHandler:
        protocol = ResponseHandler(asyncio.get_running_loop())
        protocol.connection_made(_Sink())
        protocol.set_response_params()
        return protocol


class _Sink(asyncio.Transport):
    """Swallows what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self._closing = False

    def write(self, data: Any) -> None:
        """Forget it."""

    def writelines(self, list_of_data: Any) -> None:
        """Forget it."""

    def is_closing(self) -> bool:
        """See `asyncio.BaseTransport`."""
        return self._closing

    def close(self) -> None:
        """See `asyncio.BaseTransport`."""
        self._closing = True

    abort = close

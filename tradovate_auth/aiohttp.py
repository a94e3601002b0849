"""The adapter for aiohttp: `aiohttp.ClientSession(middlewares=(TradovateAuth(...),))`.

    import aiohttp
    from tradovate_auth import Credentials
    from tradovate_auth.aiohttp import TradovateAuth

    async with aiohttp.ClientSession(middlewares=(TradovateAuth(Credentials.from_env()),)) as session:
        ...

aiohttp runs its middlewares anew for each hop of a redirect, after it has stripped the header. So the origin is asked for at
each hop, and a hop to anywhere else passes untouched. Middlewares that a call brings replace those of the session.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from ._bearer import ONE_SHOT_TTL, RENEW, Bearer, Seen
from ._missing import missing_extra
from ._sending import CONNECT_SHARE, Outcome, environment_proxy, tls_context, unreachable
from .errors import TradovateAuthError, TransportError
from .models import AccessToken
from .transport import ANSWER_LIMIT, Call, Reply

try:
    import aiohttp
    from aiohttp import hdrs, payload
    from yarl import URL
except ImportError as error:
    raise missing_extra("aiohttp") from error

__all__ = ["AiohttpTransport", "TradovateAuth"]

_HEADER: Final = hdrs.AUTHORIZATION
_NOT_SENT: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientHttpProxyError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
)


class TradovateAuth(Bearer):
    """Puts the shared access token on the requests of a session, and sends one again after a 401.

    For `middlewares=` of a session or of a call; one object for any number of sessions and event loops. A request waits only
    while there is no usable token, within the total time-out of the call and for `patience` seconds at most; the errors of
    `TokenProvider.get` come out of the call then. See `Bearer` for the arguments; `resend_limit` means nothing here, because
    aiohttp can rewind what can be rewound.
    """

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Sign a request and judge its answer. aiohttp calls this, for every hop."""
        routes, elapsed, url = self._routes, self._elapsed, request.url
        if (
            elapsed() < routes.held.fresh_until
            and url.raw_authority in routes.netlocs
            and url.scheme == routes.scheme
        ):
            token = routes.held.token
            request.headers[_HEADER] = token.authorization
        elif self._target(url) is not None:
            token = await self._aget(self._patience, self._ttl_for(request))
            self._stamp(request, token)
        else:
            return await handler(request)
        response = await handler(request)
        if response.status < 300 and not token.strikes.count:
            return response
        seen = _seen(request, response)
        if seen.carried != token.authorization:
            return response  # a middleware behind ours has put something else there
        if seen.status == 401:
            worth_while = self._rejected(token, seen)
            return await self._again(request, handler, response, token) if worth_while else response
        if seen.status >= 400 or token.strikes.count:
            self.provider.report(token, seen.status)
        # The body is not read, for the caller may want to do that by himself; but it may have ended with the head.
        empty = self._unclear(token, seen) and response.content.at_eof()
        if self._moved(token, seen, empty=empty):
            return await self._again(request, handler, response, token, RENEW)
        return response

    async def _again(
        self,
        request: aiohttp.ClientRequest,
        handler: aiohttp.ClientHandlerType,
        response: aiohttp.ClientResponse,
        token: AccessToken,
        min_ttl: float = 0.0,
    ) -> aiohttp.ClientResponse:
        """Ask for another token and send the request again; return the answer in hand where that is not possible."""
        if _is_spent(request):
            return response
        try:
            fresh = await self._aget(self._patience, min_ttl)
        except TradovateAuthError:
            return response
        stays = min_ttl and self._routes_for(fresh).targets.get(request.url.raw_authority) is None
        if fresh.generation == token.generation or stays:
            return response
        # aiohttp itself looks only at the answer that comes out of here.
        request.session.cookie_jar.update_cookies(response.cookies, response.url)
        # A refused answer that nobody reads would keep its connection, and the only one of a small pool at that. Closing
        # the request waits until nothing writes the body any more: two readers of one file would mix it up.
        response.release()
        await request.close()
        self._stamp(request, fresh)
        again = await handler(request)
        self._conclude(fresh, _seen(request, again))
        return again

    def _target(self, url: URL) -> str | None:
        return self._routes.find(url.scheme, url.raw_authority.rpartition("@")[2])

    def _stamp(self, request: aiohttp.ClientRequest, token: AccessToken) -> None:
        self._routes_for(token)
        if self._routes.targets:
            self._reroute(request)
        request.headers[_HEADER] = token.authorization

    def _reroute(self, request: aiohttp.ClientRequest) -> None:
        target = self._target(request.url)
        if target is not None and target != request.url.raw_authority:
            request.url = URL.build(
                scheme=request.url.scheme,
                authority=target,
                path=request.url.raw_path,
                query_string=request.url.raw_query_string,
                encoded=True,
            )
            # Without it the connection would go to the new host, and the request on it name the old one.
            request.headers[hdrs.HOST] = target

    @staticmethod
    def _ttl_for(request: aiohttp.ClientRequest) -> float:
        one_shot = isinstance(request.body, payload.AsyncIterablePayload | aiohttp.MultipartWriter)
        return ONE_SHOT_TTL if one_shot else 0.0

    def _own_transport(self) -> "AiohttpTransport":
        return AiohttpTransport()


def _seen(request: aiohttp.ClientRequest, response: aiohttp.ClientResponse) -> Seen:
    url, carried = request.url, request.headers.get(_HEADER)
    netloc = url.raw_authority.rpartition("@")[2]
    return Seen(request.method, url.scheme, netloc, url.raw_path, carried, response.status, response.headers)


def _is_spent(request: aiohttp.ClientRequest) -> bool:
    """Return whether the body cannot be sent again from where it began."""
    body = request.body
    return isinstance(body, payload.Payload) and body.consumed


class AiohttpTransport:
    """Sends the auth calls over aiohttp, on an event loop of its own in the thread that renews.

    Args:
        factory: Returns the session to send through, called on that loop; it is closed after the call. None opens a plain
            one, with the proxies of the environment.
        proxy: URL of a proxy.
        verify: False, or an SSL context, or the path of a CA bundle.
        cert: The path of a client certificate, or of it and its key.

    Raises:
        ConfigurationError: A certificate cannot be read.
    """

    def __init__(
        self,
        factory: Callable[[], aiohttp.ClientSession] | None = None,
        *,
        proxy: str | None = None,
        verify: ssl.SSLContext | str | bool = True,
        cert: str | tuple[str, str] | None = None,
    ) -> None:
        self._factory = factory
        self._proxy = proxy
        self._ssl = tls_context(verify, cert, ssl.create_default_context)

    def send(self, call: Call, timeout: float) -> Reply:
        """See `Transport.send`."""
        outcome = self._exchange(call, aiohttp.ClientTimeout(total=timeout, connect=timeout * CONNECT_SHARE))
        if isinstance(outcome, TransportError):
            raise outcome
        return outcome

    def _exchange(self, call: Call, limit: aiohttp.ClientTimeout) -> Outcome:
        runner = asyncio.Runner()
        try:
            return runner.run(self._send(call, limit))
        except (aiohttp.ClientError, TimeoutError) as error:
            return unreachable(error, sent=not isinstance(error, _NOT_SENT))
        finally:
            with contextlib.suppress(
                RuntimeError
            ):  # an interpreter that is leaving starts no thread to clean up with
                runner.close()

    async def _send(self, call: Call, limit: aiohttp.ClientTimeout) -> Reply:
        asyncio.get_running_loop().set_default_executor(_Unawaited())
        session = self._factory() if self._factory is not None else self._plain_session()
        async with session:
            request = session.request(
                call.method,
                call.url,
                data=call.body,
                timeout=limit,
                allow_redirects=False,
                raise_for_status=False,
                proxy=self._proxy or environment_proxy(call.url),
                ssl=self._ssl,
                middlewares=(_Exactly(call),),
            )
            async with request as response:
                body = await response.content.read(ANSWER_LIMIT + 1)
                while len(body) <= ANSWER_LIMIT and (chunk := await response.content.read(ANSWER_LIMIT)):
                    body += chunk
                if len(body) > ANSWER_LIMIT:
                    raise aiohttp.ClientPayloadError("the answer is too long")
                return Reply(response.status, dict(response.headers), body)

    @staticmethod
    def _plain_session() -> aiohttp.ClientSession:
        # Not trust_env: that would read the netrc as well, and aiohttp refuses a request that has both.
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True), cookie_jar=aiohttp.DummyCookieJar()
        )


class _Unawaited(ThreadPoolExecutor):
    """Lets its loop end while a name is still being looked up: nobody can interrupt that, and it may take for ever."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002  # theirs
        """See `ThreadPoolExecutor.shutdown`, but never wait."""
        super().shutdown(wait=False, cancel_futures=cancel_futures)


class _Exactly:
    """The only middleware of an auth call: its own headers, and no others' authorization.

    They are set here because aiohttp refuses a header beside a netrc or an `auth` of the user's session. And where a
    connection breaks off, aiohttp comes here a second time, to send a GET again: not a renewal, of which each counts.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._failed: aiohttp.ClientError | None = None

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        request.headers.popall(_HEADER, None)
        request.headers.update(self._call.headers)
        if self._failed is not None:
            raise self._failed
        try:
            return await handler(request)
        except aiohttp.ClientError as error:
            self._failed = error
            raise

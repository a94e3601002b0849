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
from typing import Any, Final
from urllib.request import getproxies, proxy_bypass

from ._bearer import ONE_SHOT_TTL, Bearer
from ._missing import missing_extra
from .errors import TradovateAuthError, TransportError
from .models import AccessToken
from .transport import ANSWER_LIMIT, Call, Reply, root_cause

try:
    import aiohttp
    from aiohttp import hdrs, payload
    from yarl import URL
except ImportError as error:
    raise missing_extra("aiohttp") from error

__all__ = ["AiohttpTransport", "TradovateAuth"]

_WHOLE: Final = frozenset({bytes, payload.BytesPayload, payload.StringPayload, payload.JsonPayload})
_NOT_SENT: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientHttpProxyError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
)


class TradovateAuth(Bearer):
    """Puts the shared access token on the requests of a session, and sends one again after a 401.

    For `middlewares=` of a session or of a call; one object for any number of sessions and event loops. A request waits only
    while there is no usable token, within the session's own time-out; the errors of `TokenProvider.aget` come out of the call
    then. See `Bearer` for the arguments; `resend_limit` means nothing here, because aiohttp can rewind what can be rewound.
    """

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Sign a request and judge its answer. aiohttp calls this, for every hop."""
        url = request.url
        if (url.scheme, url.raw_authority) not in self._routes.netlocs and self._target(url) is None:
            return await handler(request)
        ttl = 0.0 if request.body.__class__ in _WHOLE else self._ttl_for(request)
        token = await self.provider.aget(min_ttl=ttl)
        self._stamp(request, token)
        response = await handler(request)
        if response.status < 400 and not token.strikes.count:
            return response
        if response.status != 401:
            self.provider.report(token, response.status)
            return response
        return await self._after_401(request, handler, response, token)

    async def _after_401(
        self,
        request: aiohttp.ClientRequest,
        handler: aiohttp.ClientHandlerType,
        response: aiohttp.ClientResponse,
        token: AccessToken,
    ) -> aiohttp.ClientResponse:
        if not self._rejected(token, request.method, request.url.raw_path) or _is_spent(request):
            return response
        try:
            fresh = await self.provider.aget()
        except TradovateAuthError:
            return response
        if fresh.generation == token.generation:
            return response
        # A refused answer that nobody reads would keep its connection, and the only one of a small pool at that. Closing
        # the request waits until nothing writes the body any more: two readers of one file would mix it up.
        response.release()
        await request.close()
        self._stamp(request, fresh)
        again = await handler(request)
        if again.status == 401:
            self._rejected(fresh, request.method, request.url.raw_path)
        else:
            self.provider.report(fresh, again.status)
        return again

    def _target(self, url: URL) -> str | None:
        return self._routes.find(url.scheme, url.raw_authority.rpartition("@")[2])

    def _stamp(self, request: aiohttp.ClientRequest, token: AccessToken) -> None:
        if token is not self._routes.token:
            self._routes_for(token)
        if self._routes.targets:
            self._reroute(request)
        request.headers[hdrs.AUTHORIZATION] = token.authorization

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
        self._verify = verify
        self._cert = (cert,) if isinstance(cert, str) else cert

    def send(self, call: Call, timeout: float) -> Reply:
        """See `Transport.send`."""
        runner = asyncio.Runner()
        try:
            return runner.run(self._send(call, aiohttp.ClientTimeout(total=timeout)))
        except (aiohttp.ClientError, TimeoutError) as error:
            # Not chained: aiohttp's exceptions hold the request's headers, and with them the token.
            reason, sent = root_cause(error), not isinstance(error, _NOT_SENT)
            raise TransportError(
                f"The auth server could not be reached: {reason}.", None, None, sent
            ) from None
        finally:
            with contextlib.suppress(
                RuntimeError
            ):  # an interpreter that is leaving starts no thread to clean up with
                runner.close()

    async def _send(self, call: Call, limit: aiohttp.ClientTimeout) -> Reply:
        session = self._factory() if self._factory is not None else self._plain_session()
        async with session:
            request = session.request(
                call.method,
                call.url,
                headers=dict(call.headers),
                data=call.body,
                timeout=limit,
                allow_redirects=False,
                raise_for_status=False,
                proxy=self._proxy or _environment_proxy(call.url),
                ssl=self._ssl(),
                middlewares=(),
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

    def _ssl(self) -> Any:
        if isinstance(self._verify, ssl.SSLContext):
            return self._verify
        if self._verify is False or (self._verify is True and self._cert is None):
            return self._verify
        context = ssl.create_default_context(cafile=self._verify if isinstance(self._verify, str) else None)
        if self._cert is not None:
            context.load_cert_chain(*self._cert)
        return context


def _environment_proxy(url: str) -> str | None:
    target = URL(url)
    if target.host is None or proxy_bypass(target.host):
        return None
    return getproxies().get(target.scheme)

"""The adapter for httpx: `httpx.Client(auth=TradovateAuth(...))`, and the same for `httpx.AsyncClient`.

    import httpx
    from tradovate_auth import Credentials
    from tradovate_auth.httpx import TradovateAuth

    with httpx.Client(auth=TradovateAuth(Credentials.from_env(), environment="demo")) as client:
        ...

What it does is in `_httpx_flow`; httpx and httpx2 have the same interface, but each insists on its own base class.
"""

import ssl

from ._httpx_flow import HttpxBearer, Peeked
from ._httpx_transport import HttpxTransportBase
from ._missing import missing_extra

try:
    import httpx
except ImportError as error:
    raise missing_extra("httpx") from error

__all__ = ["HttpxTransport", "TradovateAuth"]


class _Peeked(Peeked, httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body as its library wants it."""


class TradovateAuth(HttpxBearer[httpx.Request, httpx.Response], httpx.Auth):
    """Puts the shared access token on the requests of a client, and sends one again after a 401.

    For `auth=` of a client or of a call; one object for any number of clients, threads and event loops, asyncio or trio. A
    request waits only while there is no usable token, for `patience` seconds at most and no longer than its own time-outs
    add up to; the errors of `TokenProvider.get` come out of the call then. A body with a known length up to `resend_limit`
    bytes is read before it is first sent. See `Bearer` for the arguments.
    """

    _byte_stream = httpx.ByteStream
    _peeked = _Peeked

    def _own_transport(self) -> "HttpxTransport":
        return HttpxTransport()


class HttpxTransport(HttpxTransportBase):
    """Sends the auth calls over httpx, with the proxies and certificates of the environment.

    Args:
        client: Send through this synchronous one, which must not be the authenticated one; None opens one for each call.
        proxy: URL of a proxy.
        verify: False, or an SSL context, or the path of a CA bundle.
        cert: The path of a client certificate, or of it and its key, or of both and the key's password.

    Raises:
        ConfigurationError: A certificate cannot be read, or a client of one's own came with options that it already has.
    """

    def __init__(
        self,
        client: httpx.Client | None = None,
        *,
        proxy: str | None = None,
        verify: ssl.SSLContext | str | bool = True,
        cert: str | tuple[str, str] | tuple[str, str, str] | None = None,
    ) -> None:
        super().__init__(httpx, client, proxy=proxy, verify=verify, cert=cert)

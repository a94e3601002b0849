"""The transport for httpx and httpx2, which have one interface under two names."""

import contextlib
import ssl
import time
from collections.abc import Iterable, Iterator
from typing import Any

from ._sending import CONNECT_SHARE, Outcome, look_up, tls_context, unreachable, within
from .errors import ConfigurationError
from .transport import ANSWER_LIMIT, Call, Reply

__all__ = ["HttpxTransportBase"]


class HttpxTransportBase:
    """Sends the auth calls over httpx or httpx2.

    Args:
        library: The module.
        client: Send through this synchronous one, which must not be the authenticated one; None opens a new one for each
            call, with the proxies and certificates of the environment.
        proxy: URL of a proxy.
        verify: False, or an SSL context, or the path of a CA bundle.
        cert: The path of a client certificate, or of it and its key, or of both and the key's password.

    Raises:
        ConfigurationError: A certificate cannot be read, or a client of one's own came with options that it already has.
    """

    def __init__(
        self,
        library: Any,
        client: Any,
        *,
        proxy: str | None,
        verify: ssl.SSLContext | str | bool,
        cert: str | tuple[str, str] | tuple[str, str, str] | None,
    ) -> None:
        self._library = library
        self._client = client
        if client is not None and (proxy, verify, cert) != (None, True, None):
            raise ConfigurationError("proxy, verify and cert belong to the client that was handed in.")
        context = tls_context(verify, cert, library.create_ssl_context)
        self._options = {"proxy": proxy, "verify": context}
        self._never_left = (
            library.ConnectError,
            library.ConnectTimeout,
            library.PoolTimeout,
            library.ProxyError,
            library.UnsupportedProtocol,
            library.InvalidURL,
        )

    def send(self, call: Call, timeout: float) -> Reply:
        """See `Transport.send`."""
        own = self._client is None and not self._options["proxy"]
        return within(
            timeout, lambda: self._exchange(call, timeout), lambda: look_up(call.url) if own else None
        )

    def _exchange(self, call: Call, timeout: float) -> Outcome:
        deadline = time.monotonic() + timeout
        try:
            with self._lease() as client:
                return self._send(client, call, timeout, deadline)
        except (self._library.HTTPError, self._library.InvalidURL) as error:
            return unreachable(error, sent=not isinstance(error, self._never_left))

    @contextlib.contextmanager
    def _lease(self) -> Iterator[Any]:
        if self._client is not None:
            yield self._client
        else:
            with self._library.Client(**self._options) as client:
                yield client

    def _send(self, client: Any, call: Call, timeout: float, deadline: float) -> Reply:
        # An explicit empty auth: neither the client's own nor a netrc has any business here.
        with client.stream(
            call.method,
            call.url,
            headers=dict(call.headers),
            content=call.body,
            timeout=self._library.Timeout(timeout, connect=timeout * CONNECT_SHARE),
            auth=self._library.Auth(),
            follow_redirects=False,
        ) as response:
            return Reply(
                response.status_code, dict(response.headers), self._read(response.iter_bytes(), deadline)
            )

    def _read(self, chunks: Iterable[bytes], deadline: float) -> bytes:
        body = b""
        for chunk in chunks:
            body += chunk
            if len(body) > ANSWER_LIMIT or time.monotonic() > deadline:
                raise self._library.ReadError("the answer is too long or too slow")
        return body

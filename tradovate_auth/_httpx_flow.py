"""The auth flow for httpx and httpx2, which have one interface under two names.

Their clients drive an auth object as a generator: it yields a request, gets the answer sent in, and may yield another. The
flow wraps the client's whole chain of redirects, so the answer may belong to another request than the one that was yielded;
what is judged, and sent again, is the answer's own request. Sending the first one again could repeat an order that was
placed before the redirect.

There are two flows because the clients want two; they differ in how they wait and in nothing else. No lock is held at a
`yield`: a client may close the generator from another task, or never come back.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Generator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from ._bearer import ONE_SHOT_TTL, READING, RENEW, Bearer
from .errors import TradovateAuthError
from .models import AccessToken

__all__ = ["HttpxBearer"]


class _Url(Protocol):
    @property
    def scheme(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int | None: ...
    @property
    def netloc(self) -> bytes: ...
    @property
    def path(self) -> str: ...


class _Request(Protocol):
    method: str
    url: Any
    stream: Any

    @property
    def headers(self) -> Any: ...
    def read(self) -> bytes: ...
    async def aread(self) -> bytes: ...


class _Response(Protocol):
    status_code: int

    @property
    def request(self) -> Any: ...
    @property
    def history(self) -> Any: ...


class _Retry(NamedTuple):
    request: Any
    min_ttl: float = 0.0


RequestT = TypeVar("RequestT", bound=_Request)
ResponseT = TypeVar("ResponseT", bound=_Response)


class HttpxBearer(Bearer, Generic[RequestT, ResponseT]):
    """Puts the shared access token on the requests of a client, and sends one again after a 401."""

    _byte_stream: type

    def sync_auth_flow(self, request: RequestT) -> Generator[RequestT, ResponseT, None]:
        """Sign a request of a synchronous client. The client calls this."""
        token, whole = self._sign_at_once(request), True
        if token is None:
            if self._target(request.url) is None:
                yield request
                return
            whole = isinstance(request.stream, self._byte_stream)
            if not whole and self._fits(request):
                whole = self._was_whole(request, request.read())
            token = self._get() if whole else self._get(min_ttl=ONE_SHOT_TTL)
            self._stamp(request, token)
        response = yield request
        if response.status_code < 300 and not token.strikes.count:
            return
        if (retry := self._judge(response, token, whole=whole)) is None:
            return
        try:
            fresh = self._get(min_ttl=retry.min_ttl)
        except TradovateAuthError:
            return
        if self._sign_again(retry, token, fresh):
            self._conclude((yield retry.request), fresh)

    async def async_auth_flow(self, request: RequestT) -> AsyncGenerator[RequestT, ResponseT]:
        """Sign a request of an asynchronous client, under asyncio or trio. The client calls this."""
        token, whole = self._sign_at_once(request), True
        if token is None:
            if self._target(request.url) is None:
                yield request
                return
            whole = isinstance(request.stream, self._byte_stream)
            if not whole and self._fits(request):
                # A file is synchronous also here; httpx itself refuses those that are too long to be read ahead.
                asynchronous = isinstance(request.stream, AsyncIterable)
                whole = self._was_whole(request, await request.aread() if asynchronous else request.read())
            token = await self.provider.aget(min_ttl=0.0 if whole else ONE_SHOT_TTL)
            self._stamp(request, token)
        response = yield request
        if response.status_code < 300 and not token.strikes.count:
            return
        if (retry := self._judge(response, token, whole=whole)) is None:
            return
        try:
            fresh = await self.provider.aget(min_ttl=retry.min_ttl)
        except TradovateAuthError:
            return
        if self._sign_again(retry, token, fresh):
            self._conclude((yield retry.request), fresh)

    def _sign_at_once(self, request: _Request) -> AccessToken | None:
        """Sign a request as nearly all are: bytes for a body, a trusted origin, a fresh token. None: do it the long way."""
        routes, elapsed, url = self._routes, self._elapsed, request.url
        if (
            elapsed() < routes.held.fresh_until
            and request.stream.__class__ is self._byte_stream
            and url.scheme == routes.scheme
            and (url.host, url.port) in routes.hosts
        ):
            request.headers["Authorization"] = routes.held.token.authorization
            return routes.held.token
        return None

    def _target(self, url: _Url) -> str | None:
        return self._routes.find(url.scheme, url.netloc.decode("ascii"))

    def _stamp(self, request: _Request, token: AccessToken) -> None:
        self._routes_for(token)
        if self._routes.targets:
            self._reroute(request)
        request.headers["Authorization"] = token.authorization

    def _reroute(self, request: _Request) -> None:
        target = self._target(request.url)
        if target is not None and target != request.url.netloc.decode("ascii"):
            request.url = request.url.copy_with(netloc=target.encode("ascii"))
            # Without it the connection would go to the new host, and the request on it name the old one.
            request.headers["Host"] = target

    def _fits(self, request: _Request) -> bool:
        """Return whether a body that is not bytes may be read before it is sent: its length is known, and not too much."""
        length = request.headers.get("Content-Length", "")
        if length == "0":
            # httpx takes a pipe for an empty file, announces that, and fails on the first byte. Sent in chunks it arrives.
            del request.headers["Content-Length"]
            request.headers["Transfer-Encoding"] = "chunked"
            return False
        if not (length.isdigit() and int(length) <= self._resend_limit):
            return False
        # A generator may come with a length that its caller has announced; it is httpx's to check that, and sent once. What
        # lies behind the stream is a private attribute, so one that is not there is taken for a multipart, which has none.
        source = getattr(request.stream, "_stream", None)
        return source is None or hasattr(source, "seek")

    def _was_whole(self, request: _Request, body: bytes) -> bool:
        """Return whether a body that was just read was the whole one, and announce its real length.

        httpx announces the size of the file, also for one that was handed over at an offset. More than was announced can
        only come from something that did not know its length: that is not sent twice.
        """
        announced = int(request.headers["Content-Length"])
        request.headers["Content-Length"] = str(len(body))
        return len(body) <= announced

    def _judge(self, response: ResponseT, token: AccessToken, *, whole: bool) -> "_Retry | None":
        """Report an answer; return which request to send again, if any, and what to ask of the next token."""
        request = response.request
        ours = self._target(request.url) is not None
        carried = request.headers.get("Authorization") == token.authorization
        status = response.status_code
        if carried and status != 401 and (status >= 400 or token.strikes.count):
            self.provider.report(token, status)
        if (moved := self._moved_hop(response, token)) is not None:
            return _Retry(moved, RENEW)
        if not ours or status != 401:
            return None
        if carried:
            again = self._rejected(token, request.method, request.url.path) and whole
        else:
            # The library took our header away on a redirect between two of our hosts.
            again = request.method in READING
        return _Retry(request) if again else None

    def _moved_hop(self, response: ResponseT, token: AccessToken) -> Any:
        """Return the request of a hop that came to a host which is ours no more, or None."""
        for answer in (*response.history, response):
            request = answer.request
            origin = request.url.scheme, request.url.netloc.decode("ascii")
            if (
                request.method in READING
                and request.headers.get("Authorization") == token.authorization
                and self._moved(token, origin, answer.status_code, answer.headers)
            ):
                return request
        return None

    def _sign_again(self, retry: "_Retry", token: AccessToken, fresh: AccessToken) -> bool:
        """Sign a request once more; return whether that makes a difference."""
        request, url = retry.request, retry.request.url
        # The generation counts: a server may extend a session without changing the token's text.
        if fresh.generation == token.generation and "Authorization" in request.headers:
            return False
        self._stamp(request, fresh)
        return not retry.min_ttl or request.url != url

    def _conclude(self, response: ResponseT, token: AccessToken) -> None:
        request = response.request
        if request.headers.get("Authorization") != token.authorization:
            return
        if response.status_code == 401:
            self._rejected(token, request.method, request.url.path)
        else:
            self.provider.report(token, response.status_code)

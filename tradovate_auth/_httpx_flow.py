"""The auth flow for httpx and httpx2, which have one interface under two names.

Their clients drive an auth object as a generator: it yields a request, gets the answer sent in, and may yield another. The
flow wraps the client's whole chain of redirects, so the answer may belong to another request than the one that was yielded;
what is judged, and sent again, is the answer's own request. Sending the first one again could repeat an order that was
placed before the redirect.

There are two flows because the clients want two; they differ in how they wait and in nothing else. No lock is held at a
`yield`: a client may close the generator from another task, or never come back.
"""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from ._bearer import ONE_SHOT_TTL, READING, RENEW, Bearer, Seen
from .errors import TradovateAuthError
from .models import AccessToken

__all__ = ["HttpxBearer", "Peeked"]


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
    @property
    def extensions(self) -> Any: ...
    def read(self) -> bytes: ...
    async def aread(self) -> bytes: ...


class _Response(Protocol):
    status_code: int
    stream: Any

    @property
    def headers(self) -> Any: ...
    @property
    def request(self) -> Any: ...
    @property
    def history(self) -> Any: ...


class _Retry(NamedTuple):
    request: Any
    min_ttl: float = 0.0


RequestT = TypeVar("RequestT", bound=_Request)
ResponseT = TypeVar("ResponseT", bound=_Response)


class Peeked:
    """A body that was looked at: it begins with the first piece once more, if there was one."""

    def __init__(self, body: Any, rest: Any, first: bytes | None) -> None:
        self._body, self._rest = body, rest
        self._first = () if first is None else (first,)

    def __iter__(self) -> Iterator[bytes]:
        yield from self._first
        yield from self._rest

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._first:
            yield piece
        async for piece in self._rest:
            yield piece

    @property
    def elapsed(self) -> Any:
        """What httpx2 asks a body for, once it is closed."""
        return self._body.elapsed

    def close(self) -> None:
        """Close the body itself."""
        self._body.close()

    async def aclose(self) -> None:
        """Close the body itself, and what reads it: under trio nobody else may."""
        await self._rest.aclose()
        await self._body.aclose()


class HttpxBearer(Bearer, Generic[RequestT, ResponseT]):
    """Puts the shared access token on the requests of a client, and sends one again after a 401."""

    _byte_stream: type
    _peeked: type[Peeked]

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
            token = self._get(self._patience_of(request), 0.0 if whole else ONE_SHOT_TTL)
            self._stamp(request, token)
        response = yield request
        if response.status_code < 300 and not token.strikes.count:
            return
        empty = self._unclear(token, _seen(response)) and self._peek(response) is None
        if (retry := self._judge(response, token, whole=whole, empty=empty)) is None:
            return
        try:
            fresh = self._get(self._patience_of(request), retry.min_ttl)
        except TradovateAuthError:
            return
        if self._sign_again(retry, token, fresh):
            self._conclude_all(fresh, (yield retry.request), len(response.history) + 1)

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
            token = await self._aget(self._patience_of(request), 0.0 if whole else ONE_SHOT_TTL)
            self._stamp(request, token)
        response = yield request
        if response.status_code < 300 and not token.strikes.count:
            return
        empty = self._unclear(token, _seen(response)) and await self._apeek(response) is None
        if (retry := self._judge(response, token, whole=whole, empty=empty)) is None:
            return
        try:
            fresh = await self._aget(self._patience_of(request), retry.min_ttl)
        except TradovateAuthError:
            return
        if self._sign_again(retry, token, fresh):
            self._conclude_all(fresh, (yield retry.request), len(response.history) + 1)

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

    def _patience_of(self, request: _Request) -> float:
        """Return how long a call may wait for a token: no longer than all that it may wait for otherwise."""
        limits = request.extensions.get("timeout", {})
        parts = [limits.get(name) for name in ("connect", "read", "write", "pool")]
        return self._patience if None in parts else min(self._patience, sum(parts))

    def _peek(self, response: ResponseT) -> bytes | None:
        """Return the first piece of a body that the caller may want to read by himself, or None if it has none."""
        rest = iter(response.stream)
        first = next((piece for piece in rest if piece), None)
        response.stream = self._peeked(response.stream, rest, first)
        return first

    async def _apeek(self, response: ResponseT) -> bytes | None:
        """Do the same for an asynchronous client."""
        rest = aiter(response.stream)
        first = None
        async for piece in rest:
            if piece:
                first = piece
                break
        response.stream = self._peeked(response.stream, rest, first)
        return first

    def _judge(self, response: ResponseT, token: AccessToken, *, whole: bool, empty: bool) -> "_Retry | None":
        """Report an answer; return which request to send again, if any, and what to ask of the next token."""
        seen = _seen(response)
        ours = self._target(response.request.url) is not None
        carried = seen.carried == token.authorization
        if carried and seen.status != 401 and (seen.status >= 400 or token.strikes.count):
            self.provider.report(token, seen.status)
        if (moved := self._moved_hop(response, token, empty=empty)) is not None:
            return _Retry(moved, RENEW)
        if not ours or seen.status != 401:
            return None
        # Without our header: the library took it away on a redirect between two of our hosts.
        again = self._rejected(token, seen) and whole if carried else seen.method in READING
        return _Retry(response.request) if again else None

    def _conclude_all(self, token: AccessToken, response: ResponseT, known: int) -> None:
        """Draw the conclusions from the answer to a request that was sent again, and from redirects on the way to it."""
        for answer in (*response.history[known:], response):
            self._conclude(token, _seen(answer))

    def _moved_hop(self, response: ResponseT, token: AccessToken, *, empty: bool) -> Any:
        """Return the request of a hop that came to a host which is ours no more, or None."""
        for answer in (*response.history, response):
            seen = _seen(answer)
            last = answer is response
            if seen.carried == token.authorization and self._moved(token, seen, empty=empty and last):
                return answer.request
        return None

    def _sign_again(self, retry: "_Retry", token: AccessToken, fresh: AccessToken) -> bool:
        """Sign a request once more; return whether that makes a difference."""
        request, url = retry.request, retry.request.url
        # The generation counts: a server may extend a session without changing the token's text.
        if fresh.generation == token.generation and "Authorization" in request.headers:
            return False
        self._stamp(request, fresh)
        return not retry.min_ttl or request.url != url


def _seen(response: _Response) -> Seen:
    request, url = response.request, response.request.url
    carried = request.headers.get("Authorization")
    netloc = url.netloc.decode("ascii")
    return Seen(request.method, url.scheme, netloc, url.path, carried, response.status_code, response.headers)

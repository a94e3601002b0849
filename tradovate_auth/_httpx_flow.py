"""The auth flow for httpx and httpx2, which have one interface under two names.

Their clients drive an auth object as a generator: it yields a request, gets the answer sent in, and may yield another. The
flow wraps the client's whole chain of redirects, so the answer may belong to another request than the one that was yielded;
what is judged, and sent again, is the answer's own request. Sending the first one again could repeat an order that was
placed before the redirect.

There are two flows because the clients want two; they differ in how they wait and in nothing else. No lock is held at a
`yield`: a client may close the generator from another task, or never come back.
"""

from collections.abc import AsyncGenerator, Generator
from typing import Any, Final, Generic, Protocol, TypeVar

from ._bearer import ONE_SHOT_TTL, Bearer
from .errors import TradovateAuthError
from .models import AccessToken

__all__ = ["HttpxBearer"]

_LOST_HEADER: Final = frozenset({"GET", "HEAD"})


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


RequestT = TypeVar("RequestT", bound=_Request)
ResponseT = TypeVar("ResponseT", bound=_Response)


class HttpxBearer(Bearer, Generic[RequestT, ResponseT]):
    """Puts the shared access token on the requests of a client, and sends one again after a 401."""

    _byte_stream: type

    def sync_auth_flow(self, request: RequestT) -> Generator[RequestT, ResponseT, None]:
        """Sign a request of a synchronous client. The client calls this."""
        if not self._is_ours(request):
            yield request
            return
        whole = isinstance(request.stream, self._byte_stream) or self._fits(request)
        if whole and not isinstance(request.stream, self._byte_stream):
            whole = self._was_whole(request, request.read())
        token = self._get() if whole else self._get(min_ttl=ONE_SHOT_TTL)
        self._stamp(request, token)
        response = yield request
        if response.status_code < 400 and not token.strikes.count:
            return
        if not self._worth_while(response, token, whole=whole):
            return
        try:
            fresh = self._get()
        except TradovateAuthError:
            return
        if (again := self._again(response, fresh)) is not None:
            self._conclude((yield again), fresh)

    async def async_auth_flow(self, request: RequestT) -> AsyncGenerator[RequestT, ResponseT]:
        """Sign a request of an asynchronous client, under asyncio or trio. The client calls this."""
        if not self._is_ours(request):
            yield request
            return
        whole = isinstance(request.stream, self._byte_stream) or self._fits(request)
        if whole and not isinstance(request.stream, self._byte_stream):
            whole = self._was_whole(request, await request.aread())
        token = await self.provider.aget(min_ttl=0.0 if whole else ONE_SHOT_TTL)
        self._stamp(request, token)
        response = yield request
        if response.status_code < 400 and not token.strikes.count:
            return
        if not self._worth_while(response, token, whole=whole):
            return
        try:
            fresh = await self.provider.aget()
        except TradovateAuthError:
            return
        if (again := self._again(response, fresh)) is not None:
            self._conclude((yield again), fresh)

    def _is_ours(self, request: _Request) -> bool:
        url: _Url = request.url
        if (url.scheme, url.host, url.port) in self._routes.triples:
            return True
        return self._target(url) is not None

    def _target(self, url: _Url) -> str | None:
        return self._routes.find(url.scheme, url.netloc.decode("ascii"))

    def _stamp(self, request: _Request, token: AccessToken) -> None:
        if token is not self._routes.token:
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
        """Return whether a body that is not bytes may be read before it is sent: its length is known, and not too much.

        A length of 0 for something that is no bytes is what httpx makes of a pipe.
        """
        length = request.headers.get("Content-Length", "")
        return bool(length.isdigit() and 0 < int(length) <= self._resend_limit)

    def _was_whole(self, request: _Request, body: bytes) -> bool:
        """Return whether a body that was just read was the whole one, and announce its real length.

        httpx announces the size of the file, also for one that was handed over at an offset. More than was announced can
        only come from something that did not know its length: that is not sent twice.
        """
        announced = int(request.headers["Content-Length"])
        request.headers["Content-Length"] = str(len(body))
        return len(body) <= announced

    def _worth_while(self, response: ResponseT, token: AccessToken, *, whole: bool) -> bool:
        """Report an answer; return whether to ask for another token and send its request again."""
        request = response.request
        if self._target(request.url) is None:
            return False
        carried = request.headers.get("Authorization") == token.authorization
        if response.status_code != 401:
            if carried:
                self.provider.report(token, response.status_code)
            return False
        if not carried:
            # The library took our header away on a redirect between two of our hosts.
            return request.method in _LOST_HEADER
        return self._rejected(token, request.method, request.url.path) and whole

    def _again(self, response: ResponseT, fresh: AccessToken) -> RequestT | None:
        request: RequestT = response.request
        if request.headers.get("Authorization") == fresh.authorization:
            return None
        self._stamp(request, fresh)
        return request

    def _conclude(self, response: ResponseT, token: AccessToken) -> None:
        request = response.request
        if request.headers.get("Authorization") != token.authorization:
            return
        if response.status_code == 401:
            self._rejected(token, request.method, request.url.path)
        else:
            self.provider.report(token, response.status_code)

"""The adapter for requests: `session.auth = TradovateAuth(...)`.

    import requests
    from tradovate_auth import Credentials
    from tradovate_auth.requests import TradovateAuth

    session = requests.Session()
    session.auth = TradovateAuth(Credentials.from_env(), environment="demo")

requests calls an auth object once, when a request is prepared, and the response hook that it leaves there for every answer,
also for those on a redirect. So the hook asks anew, at each hop, whether the origin is ours and the header our own.
"""

import contextlib
import datetime as dt
import ssl
import time
from collections.abc import Iterator
from typing import Any, Final, Unpack
from urllib.parse import urlsplit

from ._bearer import ONE_SHOT_TTL, PATIENCE, READING, RENEW, RESEND_LIMIT, Bearer, Seen
from ._missing import missing_extra
from ._options import ProviderOptions
from ._sending import CONNECT_SHARE, Outcome, look_up, tls_context, unreachable, within
from ._source import TokenSource
from .errors import TradovateAuthError
from .models import AccessToken, Credentials
from .transport import ANSWER_LIMIT, Call, Reply

try:
    import requests
    from requests.auth import AuthBase
    from requests.cookies import extract_cookies_to_jar, get_cookie_header
    from requests.utils import rewind_body
    from urllib3.exceptions import ConnectTimeoutError, HTTPError, MaxRetryError, NewConnectionError
except ImportError as error:
    raise missing_extra("requests") from error

__all__ = ["RequestsTransport", "TradovateAuth"]

_WHOLE: Final = frozenset({type(None), bytes, str})
_DRAIN_LIMIT: Final = 64 * 1024  # bytes of a refused answer that are worth reading to keep its connection
_NOT_SENT: Final = (
    requests.exceptions.ConnectTimeout,
    requests.exceptions.ProxyError,
    requests.exceptions.InvalidURL,
)


class TradovateAuth(Bearer, AuthBase):
    """Puts the shared access token on the requests of a `requests.Session`, and sends one again after a 401.

    For `session.auth` or `auth=` of a call; one object for any number of sessions and threads. A request waits only while
    there is no usable token; the errors of `TokenProvider.get` come out of the call then. See `Bearer` for the arguments.
    """

    def __init__(
        self,
        source: TokenSource | Credentials,
        *,
        route: bool = True,
        resend_limit: int = RESEND_LIMIT,
        patience: float | None = PATIENCE,
        **provider_options: Unpack[ProviderOptions],
    ) -> None:
        super().__init__(
            source, route=route, resend_limit=resend_limit, patience=patience, **provider_options
        )
        self._hook = self._on_response  # bound once, not for every request

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign a request. requests calls this."""
        routes, elapsed = self._routes, self._elapsed
        at_once = elapsed() < routes.held.fresh_until and r.url.startswith(routes.prefixes)  # type: ignore[union-attr]  # prepared
        if at_once:
            r.headers["Authorization"] = routes.held.token.authorization
            r.hooks["response"].append(self._hook)
            return r
        return self._sign(r)

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._target(request) is not None:
            token = self._get(self._patience, 0.0 if _is_whole(request) else ONE_SHOT_TTL)
            self._stamp(request, token)
            request.hooks["response"].append(self._hook)
        return request

    def _target(self, request: requests.PreparedRequest) -> str | None:
        parts = urlsplit(request.url or "")
        return self._routes.find(str(parts.scheme), str(parts.netloc.rpartition("@")[2]))

    def _stamp(self, request: requests.PreparedRequest, token: AccessToken) -> None:
        self._routes_for(token)
        parts, target = urlsplit(str(request.url)), self._target(request)
        if target is not None and self._routes.targets and target != parts.netloc:
            with _cookies_kept(request):
                request.url = parts._replace(netloc=target).geturl()
                if "Host" in request.headers:  # the caller's own, which would name the old one
                    request.headers["Host"] = target
        request.headers["Authorization"] = token.authorization

    def _on_response(self, response: requests.Response, **kwargs: Any) -> requests.Response:
        status, current = response.status_code, self._routes.token
        if status < 300 and current is not None and not current.strikes.count:
            return response
        if self._target(response.request) is None:
            return response
        seen = _seen(response)
        token = self._sent.get(str(seen.carried))
        if status == 401:
            return self._after_401(response, token, kwargs)
        if token is not None:
            if status >= 400 or token.strikes.count:
                self.provider.report(token, status)
            # Where nobody wants to read the answer by himself, requests would read it next.
            empty = self._unclear(token, seen) and not kwargs.get("stream") and not response.content
            if self._moved(token, seen, empty=empty):
                return self._after_move(response, kwargs)
        return response

    def _after_move(self, response: requests.Response, kwargs: dict[str, Any]) -> requests.Response:
        try:
            self._routes_for(self._get(self._patience_of(kwargs), RENEW))
        except TradovateAuthError:
            return response
        fresh, target = self._routes.token, self._target(response.request)
        if fresh is None or target in (None, urlsplit(str(response.request.url)).netloc):
            return response
        return self._resend(response, fresh, kwargs)

    def _after_401(
        self, response: requests.Response, token: AccessToken | None, kwargs: dict[str, Any]
    ) -> requests.Response:
        seen = _seen(response)
        # Without our header: a redirect between two of our hosts, or a netrc, took it away. No order is sent twice for that.
        worth_while = seen.method in READING if token is None else self._rejected(token, seen)
        if not worth_while or not _is_whole(response.request):
            return response
        try:
            fresh = self._get(self._patience_of(kwargs))
        except TradovateAuthError:
            return response
        if token is not None and fresh.generation == token.generation:
            return response
        return self._resend(response, fresh, kwargs)

    def _patience_of(self, kwargs: dict[str, Any]) -> float:
        """Return how long to wait in the middle of a call: no longer than it may take itself, if that is told in numbers."""
        limit = kwargs.get("timeout")
        parts = limit if isinstance(limit, tuple) else (limit, limit)
        told = all(isinstance(part, int | float) for part in parts)
        return min(self._patience, sum(parts)) if told else self._patience

    def _resend(
        self, response: requests.Response, token: AccessToken, kwargs: dict[str, Any]
    ) -> requests.Response:
        request = response.request
        connection = getattr(response, "connection", None)
        if connection is None:  # an adapter of another make, whose answers do not say where they come from
            return response
        if request.body.__class__ not in _WHOLE:
            try:
                rewind_body(request)
            except requests.exceptions.UnrewindableBodyError:
                return response
        # The answer keeps a picture of what was refused; the request itself goes on, so that a later redirect, which
        # requests copies from it, carries the new token.
        response.request = request.copy()
        _settle(response)
        self._stamp(request, token)
        cookies = request._cookies  # noqa: SLF001  # as requests' own digest auth does
        if cookies is not None:
            extract_cookies_to_jar(cookies, response.request, response.raw)
            request.prepare_cookies(cookies)
        started = time.perf_counter()
        again: requests.Response = connection.send(request, **kwargs)
        again.elapsed = dt.timedelta(seconds=time.perf_counter() - started)
        again.history.append(response)
        self._conclude(token, _seen(again))
        again.request = request
        return again

    def _own_transport(self) -> "RequestsTransport":
        return RequestsTransport()


def _seen(response: requests.Response) -> Seen:
    request = response.request
    parts = urlsplit(str(request.url))
    scheme, netloc = str(parts.scheme), str(parts.netloc.rpartition("@")[2])
    carried = str(request.headers.get("Authorization"))
    return Seen(
        str(request.method), scheme, netloc, str(parts.path), carried, response.status_code, response.headers
    )


@contextlib.contextmanager
def _cookies_kept(request: requests.PreparedRequest) -> Iterator[None]:
    """Give a request the cookies of the host that it is led to meanwhile; a Cookie header of the caller's own stays."""
    jar = request._cookies  # noqa: SLF001  # as requests' own digest auth does
    header = request.headers.pop("Cookie", None)
    from_jar = jar is not None and get_cookie_header(jar, request) == header
    yield
    if from_jar:
        request.prepare_cookies(jar)
    elif header is not None:
        request.headers["Cookie"] = header


def _is_whole(request: requests.PreparedRequest) -> bool:
    """Return whether the body can be sent again from where it began."""
    body = request.body
    if body.__class__ in _WHOLE:
        return True
    return hasattr(body, "seek") and isinstance(getattr(request, "_body_position", None), int)


def _settle(response: requests.Response) -> None:
    """Give the connection of a refused answer back: read a short one, cut off a long one."""
    with contextlib.suppress(requests.exceptions.RequestException, ValueError):
        if int(response.headers.get("Content-Length", _DRAIN_LIMIT + 1)) <= _DRAIN_LIMIT:
            response.content  # noqa: B018  # reading it is the point
    response.close()


class _NoAuth(AuthBase):
    """Keeps both a netrc and the session's own auth away from an auth call."""

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        return r


class RequestsTransport:
    """Sends the auth calls over requests, with the proxies and certificates of the environment.

    Args:
        session: Send through this one, which must not be the authenticated one; None opens a new one for each call.
        proxy: URL of a proxy for both schemes.
        verify: As in requests: False, or the path of a CA bundle.
        cert: As in requests: the path of a client certificate, or of it and its key.

    Raises:
        ConfigurationError: A certificate cannot be read.
    """

    def __init__(
        self,
        session: requests.Session | None = None,
        *,
        proxy: str | None = None,
        verify: bool | str = True,
        cert: str | tuple[str, str] | None = None,
    ) -> None:
        self._session = session
        self._proxies = {"http": proxy, "https": proxy} if proxy else {}
        self._verify = verify
        self._cert = cert
        tls_context(verify, cert, ssl.create_default_context)  # requests takes the paths; this reads them now

    def send(self, call: Call, timeout: float) -> Reply:
        """See `Transport.send`."""
        own = self._session is None and not self._proxies
        return within(
            timeout, lambda: self._exchange(call, timeout), lambda: look_up(call.url) if own else None
        )

    def _exchange(self, call: Call, timeout: float) -> Outcome:
        deadline = time.monotonic() + timeout
        try:
            if self._session is not None:
                return self._send(self._session, call, timeout, deadline)
            with requests.Session() as session:
                return self._send(session, call, timeout, deadline)
        except (requests.exceptions.RequestException, HTTPError) as error:
            return unreachable(error, sent=not _never_left(error))

    def _send(self, session: requests.Session, call: Call, timeout: float, deadline: float) -> Reply:
        request = requests.Request(
            call.method, call.url, headers=dict(call.headers), data=call.body, auth=_NoAuth()
        )
        prepared = session.prepare_request(request)
        verify = None if self._verify is True else self._verify
        settings = session.merge_environment_settings(
            str(prepared.url), dict(self._proxies), True, verify, self._cert
        )
        limits = (timeout * CONNECT_SHARE, timeout)
        with session.send(prepared, timeout=limits, allow_redirects=False, **settings) as response:
            body = b""
            # `iter_content` would wait for a full chunk, however slowly the server fills it.
            response.raw.decode_content = True
            while chunk := response.raw.read1(16 * 1024):
                body += chunk
                if len(body) > ANSWER_LIMIT or time.monotonic() > deadline:
                    raise requests.exceptions.ContentDecodingError("the answer is too long or too slow")
            return Reply(response.status_code, dict(response.headers), body)


def _never_left(error: Exception) -> bool:
    """Return whether the fault came before the request went out."""
    if isinstance(error, _NOT_SENT):
        return True
    cause = error.args[0] if error.args else None
    reason = cause.reason if isinstance(cause, MaxRetryError) else cause
    # requests has one error for a handshake that fails and for an answer that breaks off; only of a certificate that is
    # not trusted is it certain that nothing was sent.
    certificate = any(isinstance(item, ssl.SSLCertVerificationError) for item in getattr(reason, "args", ()))
    return certificate or isinstance(reason, NewConnectionError | ConnectTimeoutError)

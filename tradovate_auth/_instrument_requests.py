"""Where instrumentation meets requests: `Session.get_adapter`, through which each request and each hop of a redirect goes.

The adapter that a session has chosen is handed out in a wrapping that signs what goes through it. So it does not matter who
made the session and when, what was mounted on it since, and where a request got its headers: prepared by hand, by an
`auth=` of its own, out of a netrc. What is signed is a copy: the client's request stays as it was, and a redirect, which
requests makes from that one, never starts with our token. See docs/decisions/0013.

An adapter may switch the checks of certificates off where no argument shows it. So there is a second point,
`HTTPAdapter.add_headers`, where requests has just settled on a pool of connections and has not sent anything yet. Which pool
that is `HTTPAdapter.cert_verify` has been told a moment before; an adapter that has its own way there is asked once more.
"""

import contextvars
import io
import re
import ssl
from types import ModuleType
from typing import Any, Final, Self
from urllib.parse import SplitResult, urlsplit

import requests
import wrapt
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from ._bearer import Bearer
from ._overlay import Overlay, answer_headers, overlay_for
from ._own_logins import AuthCall, auth_call, named_user
from .errors import ProviderClosed

__all__ = ["points"]

_HEADER: Final = "Authorization"
_ARGUMENTS: Final = (
    "stream",
    "timeout",
    "verify",
    "cert",
    "proxies",
)  # of an adapter's `send`, in their order
_NOWHERE: Final = SplitResult("", "", "", "", "")
_GAVE_UP: Final = re.compile(r"too many (\d{3}) error responses")
_signing: "contextvars.ContextVar[_Watched | None]" = contextvars.ContextVar("_signing", default=None)


def points(library: ModuleType) -> list[tuple[type, str, Any]]:
    """Return what is wrapped: class, attribute, wrapper."""
    return [
        (library.Session, "get_adapter", _get_adapter),
        (library.adapters.HTTPAdapter, "cert_verify", _cert_verify),
        (library.adapters.HTTPAdapter, "add_headers", _add_headers),
    ]


def _get_adapter(wrapped: Any, session: requests.Session, args: Any, kwargs: Any) -> Any:
    adapter = wrapped(*args, **kwargs)
    overlay = overlay_for("requests", session)
    if overlay is None:
        return adapter
    parts = _split(args[0] if args else kwargs.get("url"))
    perhaps = auth_call("POST", parts.path)  # told of, also where it goes elsewhere
    if perhaps is None and not overlay.touches("requests", None, parts.scheme, parts.netloc):
        return adapter
    return _Signing(adapter, overlay)


class _Signing(wrapt.ObjectProxy[Any]):
    """The adapter of a session, in every respect but one: what it sends to a trusted origin carries our token."""

    def __init__(self, adapter: Any, overlay: Overlay) -> None:
        super().__init__(adapter)
        self._self_overlay = overlay

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request. The session calls this."""
        overlay: Overlay = self._self_overlay
        kwargs.update(zip(_ARGUMENTS, args, strict=False))
        parts = _split(request.url)
        kind = auth_call(str(request.method), parts.path)
        if not overlay.touches("requests", kind, parts.scheme, parts.netloc):
            return self._elsewhere(overlay, kind, request, kwargs)
        if kind is None and _is_signed(request):
            return self._plain(request, kwargs)
        admitted = overlay.admits("requests", checked=bool(kwargs.get("verify", True)))
        if kind is not None:
            return self._auth_call(overlay, kind, request, kwargs, admitted=admitted)
        if not admitted:
            return self._plain(_bared(overlay, request), kwargs)
        if overlay.whose(request.headers.get(_HEADER)) == "stranger":
            return self._plain(request, kwargs)
        with _Watched(overlay) as watched:
            return self._signed(watched, request, kwargs)

    def _plain(self, request: requests.PreparedRequest, kwargs: dict[str, Any]) -> requests.Response:
        return self.__wrapped__.send(request, **kwargs)  # type: ignore[no-any-return]  # an adapter's

    def _signed(
        self, watched: "_Watched", request: requests.PreparedRequest, kwargs: dict[str, Any]
    ) -> requests.Response:
        ours, overlay = request.copy(), watched.overlay
        ours.hooks = {"response": []}
        try:
            ours = overlay.auth("requests")(ours)
        except ProviderClosed:
            if overlay.ended:  # since this request began
                return self._plain(request, kwargs)
            raise
        try:
            response = self._plain(ours, kwargs)
            if not hasattr(response, "connection"):  # from an adapter of somebody's own
                response.connection = self.__wrapped__
            # What went out without our token, on purpose, is not to be sent again for an answer that says so.
            for hook in [] if watched.bared else ours.hooks["response"]:
                response = hook(response, **kwargs)
        except requests.exceptions.RetryError as error:
            _tell_of(overlay, ours, error)
            raise
        response.request.hooks = request.hooks
        return response

    def _auth_call(
        self,
        overlay: Overlay,
        kind: AuthCall,
        request: requests.PreparedRequest,
        kwargs: dict[str, Any],
        *,
        admitted: bool,
    ) -> requests.Response:
        outcome = overlay.settle(kind, _user(kind, request), request.headers.get(_HEADER), admitted=admitted)
        if outcome.answer is not None:
            return _answered(request, outcome.answer)
        if not admitted and not _is_signed(request):
            request = _bared(overlay, request)
        response = self._plain(request, kwargs)
        if outcome.stranger:
            overlay.remember_stranger(response.content)
        return response

    def _elsewhere(
        self,
        overlay: Overlay,
        kind: AuthCall | None,
        request: requests.PreparedRequest,
        kwargs: dict[str, Any],
    ) -> requests.Response:
        strange = overlay.strange_elsewhere(kind, _user(kind, request), _split(request.url).netloc)
        response = self._plain(request, kwargs)
        if strange:
            overlay.remember_stranger(response.content)
        return response


class _Watched:
    """An eye on what an adapter makes of a request that we sign, for as long as it lasts."""

    def __init__(self, overlay: Overlay) -> None:
        self.overlay = overlay
        self.pool: Any = None
        self.bared = False

    def __enter__(self) -> Self:
        self._before = _signing.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _signing.reset(self._before)


def _cert_verify(wrapped: Any, _: HTTPAdapter, args: Any, kwargs: Any) -> None:
    wrapped(*args, **kwargs)
    watched = _signing.get()
    if watched is not None:
        watched.pool = args[0] if args else kwargs.get("conn")


def _add_headers(wrapped: Any, adapter: HTTPAdapter, args: Any, kwargs: Any) -> None:
    wrapped(*args, **kwargs)
    watched = _signing.get()
    if watched is None:
        return
    pool, watched.pool = watched.pool, None
    overlay, request = watched.overlay, args[0] if args else kwargs.get("request")
    ours = overlay.whose(request.headers.get(_HEADER), admitted=False) == "ours"
    if ours and not _checks(adapter, pool, request, kwargs) and not overlay.admits("requests", checked=False):
        del request.headers[_HEADER]
        watched.bared = True


def _checks(adapter: HTTPAdapter, pool: Any, request: Any, kwargs: dict[str, Any]) -> bool:
    """Return whether the connection for a request checks certificates, by what its adapter has settled on."""
    verify = kwargs.get("verify", True)
    if not verify or not str(request.url).lower().startswith("https"):
        return bool(verify)
    if pool is None:
        # The very one that is about to be used: an adapter keeps its pools by what they are for. Asked as requests asks.
        pool = adapter.get_connection_with_tls_context(
            request, verify, proxies=kwargs.get("proxies"), cert=kwargs.get("cert")
        )
    if pool.cert_reqs in ("CERT_NONE", ssl.CERT_NONE):
        return False
    return pool.assert_hostname is not False or pool.assert_fingerprint is not None


def _tell_of(
    overlay: Overlay, request: requests.PreparedRequest, error: requests.exceptions.RetryError
) -> None:
    """Tell the provider of an answer that the client's own `Retry` keeps to itself: nobody else will see it."""
    auth = overlay.auth("requests")
    token = auth._sent.get(str(request.headers.get(_HEADER)))  # noqa: SLF001
    found = _GAVE_UP.search(str(error))
    if token is None or found is None:
        return
    status = int(found[1])
    if status == 401:
        auth.provider.reject(token, method=str(request.method), path=_split(request.url).path)
    else:
        auth.provider.report(token, status)


def _bared(overlay: Overlay, request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Return a request without our token, which its client was once given; it stays as it is with any other."""
    if overlay.whose(request.headers.get(_HEADER), admitted=False) != "ours":
        return request
    bare = request.copy()
    del bare.headers[_HEADER]
    return bare


def _is_signed(request: requests.PreparedRequest) -> bool:
    """Return whether the client has a `TradovateAuth` of its own, which also judges the answer."""
    return any(isinstance(getattr(hook, "__self__", None), Bearer) for hook in request.hooks["response"])


def _answered(request: requests.PreparedRequest, body: bytes) -> requests.Response:
    raw = HTTPResponse(
        io.BytesIO(body),
        answer_headers(body),
        200,
        reason="OK",
        version=11,
        preload_content=False,
    )
    return HTTPAdapter().build_response(request, raw)


def _user(kind: AuthCall | None, request: requests.PreparedRequest) -> str | None:
    return named_user(_bytes(request.body)) if kind == "login" else None


def _bytes(body: Any) -> bytes:
    """Return what is in a body, which stays as it was; nothing of one that can be read only once."""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    try:
        start = body.tell()
        read = body.read()
        body.seek(start)
    except (AttributeError, OSError, ValueError):
        return b""
    return _bytes(read)


def _split(url: object) -> SplitResult:
    try:
        return urlsplit(url if isinstance(url, str) else "")
    except ValueError:
        return _NOWHERE

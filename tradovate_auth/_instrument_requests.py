"""Where instrumentation meets requests: `Session.get_adapter`, through which each request and each hop of a redirect goes.

The adapter that a session has chosen is handed out in a wrapping that signs what goes through it. So it does not matter who
made the session and when, what was mounted on it since, and where a request got its headers: prepared by hand, by an
`auth=` of its own, out of a netrc. What is signed is a copy: the client's request stays as it was, and a redirect, which
requests makes from that one, never starts with our token. See docs/decisions/0013.
"""

import io
from types import ModuleType
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import requests
import wrapt
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from ._bearer import Bearer
from ._overlay import Overlay, overlay_for
from ._own_logins import AuthCall, auth_call, named_user

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


def points(library: ModuleType) -> list[tuple[type, str, Any]]:
    """Return what is wrapped: class, attribute, wrapper."""
    return [(library.Session, "get_adapter", _get_adapter)]


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
        if not (
            overlay.touches("requests", kind, parts.scheme, parts.netloc)
            and overlay.admits("requests", checked=bool(kwargs.get("verify", True)))
        ):
            return self._plain(request, kwargs)
        if kind is not None:
            return self._auth_call(overlay, kind, request, kwargs)
        if _is_signed(request) or overlay.is_stranger(request.headers.get(_HEADER)):
            return self._plain(request, kwargs)
        return self._signed(overlay, request, kwargs)

    def _plain(self, request: requests.PreparedRequest, kwargs: dict[str, Any]) -> requests.Response:
        return self.__wrapped__.send(request, **kwargs)  # type: ignore[no-any-return]  # an adapter's

    def _signed(
        self, overlay: Overlay, request: requests.PreparedRequest, kwargs: dict[str, Any]
    ) -> requests.Response:
        ours = request.copy()
        ours.hooks = {"response": []}
        response = self._plain(overlay.auth("requests")(ours), kwargs)
        for hook in ours.hooks["response"]:
            response = hook(response, **kwargs)
        response.request.hooks = request.hooks
        return response

    def _auth_call(
        self, overlay: Overlay, kind: AuthCall, request: requests.PreparedRequest, kwargs: dict[str, Any]
    ) -> requests.Response:
        user = named_user(_bytes(request.body)) if kind == "login" else None
        outcome = overlay.settle(kind, user, request.headers.get(_HEADER))
        if outcome.answer is not None:
            return _answered(request, outcome.answer)
        response = self._plain(request, kwargs)
        if outcome.stranger:
            overlay.remember_stranger(response.content)
        return response


def _is_signed(request: requests.PreparedRequest) -> bool:
    """Return whether the client has a `TradovateAuth` of its own, which also judges the answer."""
    return any(isinstance(getattr(hook, "__self__", None), Bearer) for hook in request.hooks["response"])


def _answered(request: requests.PreparedRequest, body: bytes) -> requests.Response:
    raw = HTTPResponse(
        io.BytesIO(body),
        {"Content-Type": "application/json", "Content-Length": str(len(body))},
        200,
        reason="OK",
        version=11,
        preload_content=False,
    )
    return HTTPAdapter().build_response(request, raw)


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

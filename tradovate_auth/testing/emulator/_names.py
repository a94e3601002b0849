"""How requests are read: the one name of an endpoint, and the token in a header."""

from __future__ import annotations

BASE = "/v1"
LOGIN = "login"
RENEWAL = "renewal"
AUTHORIZE = "authorize"  # no endpoint: the frame on a WebSocket
_AUTH_NAMES = {"auth/accesstokenrequest": LOGIN, "auth/renewaccesstoken": RENEWAL}


def endpoint_name(path: str) -> str:
    """The name of an endpoint: "login", "renewal", or the path without ``/v1`` and outer slashes, in lower case (P§9.25).

    >>> endpoint_name("/v1/auth/accessTokenRequest"), endpoint_name("/account/list")
    ('login', 'account/list')
    """
    name = path.lower().strip("/").removeprefix("v1/")
    return _AUTH_NAMES.get(name, name)


def bearer(header: str | None) -> str | None:
    """The token of an Authorization header: None without a header, "" if it is not a bearer token."""
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""

"""The frame that authorises a WebSocket of the vendor's (P§1.4): one text of four lines.

    authorize
    <request id>
    <empty: there is no query>
    <token>

The server greets with `o` and answers the frame with `a[{"s":200,"i":<request id>}]`, or with status 401 and the text
`Invalid access token`. A socket is authorised once and stays open when the token ends or is renewed; whoever connects again
needs the token of that moment (P§9.35). The token stands there raw: the vendor's examples have it raw and in quotes, so that
either should do, and raw is what the API guide shows (P§9.34).

Everything else on the socket is not this package's business; `docs/websocket.md` has a program that keeps one authorised.
"""

from typing import Final

from .errors import ConfigurationError
from .models import AccessToken

__all__ = ["authorize_frame"]

_LAST_ID: Final = 2**53 - 1  # the answer repeats it as a JSON number, which many readers take for a float


def authorize_frame(token: AccessToken, request_id: int, market_data: bool = False) -> str:
    """Return the text to send, once per connection, after the server's greeting. It holds the token in the clear.

    Never blocks; any thread, any loop.

    Args:
        token: From `TokenProvider.get` or `aget`, asked for at each connection anew.
        request_id: What the server's answer is known by, from 0 to 2**53 - 1: any that is not in use on this connection.
        market_data: Authorise with `token.md_value`, for the hosts under `mdLive` and `mdDemo`.

    Raises:
        ConfigurationError: The id is no such number, the token is none or would break the frame, or it has no part for
            market data.
    """
    if not isinstance(token, AccessToken):
        raise ConfigurationError(f"authorize_frame takes an AccessToken, not {type(token).__name__}.")
    if not isinstance(request_id, int) or isinstance(request_id, bool) or not 0 <= request_id <= _LAST_ID:
        raise ConfigurationError("The request id of a frame is a whole number from 0 to 2**53 - 1.")
    value = token.md_value if market_data else token.value
    if market_data and value is None:
        raise ConfigurationError(
            "The server has given no token for market data.",
            None,
            "Leave market_data out: some of the vendor's examples open these sockets with the ordinary token.",
        )
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise ConfigurationError(
            "The token cannot be put into a frame.",
            None,
            "Whatever it came from has changed it: a server's token has no blanks and no line breaks.",
        )
    return f"authorize\n{request_id}\n\n{value}"

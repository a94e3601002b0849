"""What a human should do about a refusal, chosen by the words that it came with.

A refusal lies in the storage as its words alone, and whoever finds it there is advised like whoever was refused. Some of the
words are the server's own; others stand for answers that have none.
"""

from typing import Final

__all__ = ["BADLY_FORMED", "INVALID_FIELDS", "USER_STATUS", "advice_on"]

BADLY_FORMED: Final = "the server calls the request badly formed"
INVALID_FIELDS: Final = "the server calls these fields invalid"
USER_STATUS: Final = "the server calls this user"

_LOCKED: Final = (
    "Stop everything that logs in with this user. Wait until the vendor unlocks it, or have it unlocked on the vendor's own "
    "site; then call reset()."
)
_CLOSED: Final = "Ask the vendor's support why this user is closed, or log in with another one."
_UNCONFIRMED: Final = (
    "Confirm the user's e-mail address by the link in the vendor's message; then call reset()."
)
_INITIATED: Final = "Finish the registration of this user on the vendor's own site; then call reset()."
_NOT_ACTIVE: Final = (
    "Log in once on the vendor's own site, which says what this user's status means; then call reset()."
)
_INVALID: Final = (
    "Correct the fields that are named here, and start again with the corrected credentials. If none of them is a credential, "
    "something waits to be confirmed: log in once on the vendor's own site, then call reset()."
)
_MALFORMED: Final = (
    "Look for a credential of the wrong kind, such as a cid that is no number, and start again with the corrected "
    "credentials. Otherwise the protocol has changed: look for a newer version of this package, then call reset()."
)
_WRONG_SERVER: Final = "Build the provider with the environment that the host named here belongs to."
_UNREGISTERED: Final = (
    "Give app id, cid and sec together, exactly as they stand beside the API key on the vendor's own site."
)
_DENIED: Final = (
    "Check on the vendor's own site what the API key is permitted to do, and whether this user may use the API; then call "
    "reset()."
)
_BY_WORDS: Final = (
    (f"{USER_STATUS} 'TemporaryLocked'", _LOCKED),
    (f"{USER_STATUS} 'TemporarilyLocked'", _LOCKED),
    (f"{USER_STATUS} 'Closed'", _CLOSED),
    (f"{USER_STATUS} 'UnconfirmedEmail'", _UNCONFIRMED),
    (f"{USER_STATUS} 'Initiated'", _INITIATED),
    (USER_STATUS, _NOT_ACTIVE),
    (INVALID_FIELDS, _INVALID),
    (BADLY_FORMED, _MALFORMED),
)
_BY_THE_SERVERS_WORDS: Final = (
    ("should be called on", _WRONG_SERVER),
    ("app is not registered", _UNREGISTERED),
    ("access denied", _DENIED),
    ("access is denied", _DENIED),
)
"""Those of P§3.1. Somebody on the way to the server may use them of other things: in a refusal alone they mean this."""


def advice_on(text: str, *, refused: bool) -> str | None:
    """Return the advice on these words, or None where the error's own is the best there is.

    Args:
        text: What lies in the storage of the answer.
        refused: Whether it was a refusal, and its words are the server's.
    """
    told, known = text.casefold(), (*_BY_WORDS, *(_BY_THE_SERVERS_WORDS if refused else ()))
    return next((advice for words, advice in known if words.casefold() in told), None)

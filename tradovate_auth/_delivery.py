"""Handing one call to the transport, and reading what comes back: what it means, and when that was, by the server's clock.

A call that never left this machine is tried again for about ten seconds, if nobody has a token to work with meanwhile.
A renewal goes to the host that the server assigned, and to the one that everybody starts from if that one is gone, does not
answer properly, or says that it is not the one to ask (P§1.2, P§9.23).
"""

from typing import Final

from ._account import Account
from ._server_clock import Term
from ._wire import Faulty, Granted, LockedOut, Refused, Verdict, read_reply, renewal_call, server_time
from .errors import TradovateAuthError, TransportError
from .models import AccessToken
from .storage import Record
from .transport import Call, Reply

__all__ = ["deliver", "deliver_renewal"]

_PATIENCE: Final = 10.0  # seconds for a server that cannot even be connected to, while nobody has a token
_FIRST_BACKOFF: Final = 0.1
_LONGEST_BACKOFF: Final = 2.0


def deliver_renewal(
    account: Account, record: Record, token: AccessToken, *, patient: bool
) -> tuple[Verdict, float, str]:
    """Send a renewal; see `deliver`. Return also the name of the assigned host, if another one had to be asked, and has answered."""
    here = account.environment
    name = record.hosts.get(here.kind, here.host)
    assigned, base = (renewal_call(token, url) for url in (here.base(name), here.url))
    if assigned.url == base.url:
        return (*deliver(account, base, record, patient=patient), "")
    if account.silent != name:  # otherwise it is the other one's turn
        try:
            verdict, at = deliver(account, assigned, record, patient=False)
        except TransportError as error:
            if error.sent:
                account.silent = name
                raise
        else:
            if not (isinstance(verdict, Faulty | Refused) and verdict.elsewhere):
                return verdict, at, ""
    account.silent = ""
    verdict, at = deliver(account, base, record, patient=patient)
    return verdict, at, "" if isinstance(verdict, Faulty) else name


def deliver(account: Account, call: Call, record: Record, *, patient: bool) -> tuple[Verdict, float]:
    """Send a call; return what the answer means, and the server's time at which it was read. Blocks.

    Args:
        account: Whose call it is.
        call: What to send.
        record: The newest record, for the clock offset in it.
        patient: Try again for about ten seconds while no connection can be made.

    Raises:
        TransportError: No answer came.
        ProviderClosed: The provider was closed between two tries.
    """
    clock = account.clock
    started, pause = clock.elapsed(), _FIRST_BACKOFF
    while True:
        asked, begun = account.storage.now(), clock.elapsed()
        try:
            reply = _send_once(account, call)
            break
        except TransportError as error:
            late = clock.elapsed() - started + pause > _PATIENCE
            if error.sent or late or not patient:
                raise
        account.sit_out(account.jitter(pause))
        pause = min(pause * 2, _LONGEST_BACKOFF)
    verdict = read_reply(reply)
    # A gateway's error has a clock too: only what can be nobody's but the server's own answer tells the server's time.
    foreign = isinstance(verdict, Faulty | LockedOut) or (
        isinstance(verdict, Refused) and not verdict.ends_session
    )
    date = None if foreign else server_time(reply)
    at = account.server.read(
        date,
        account.storage,
        asked=asked,
        begun=begun,
        believed=record.offset,
        term=_term(verdict, record.tokens.get(account.slot)),
    )
    return verdict, at


def _term(verdict: Verdict, token: AccessToken | None) -> Term | None:
    if not isinstance(verdict, Granted):
        return None
    return Term(verdict.expires_at, token.lifetime if token is not None and token.known_expiry else None)


def _send_once(account: Account, call: Call) -> Reply:
    try:
        return account.transport.send(call, account.timeout)
    except TradovateAuthError:
        raise
    except Exception as error:  # noqa: BLE001  # a transport of the user's own may raise anything
        kind = type(error).__name__
    # Raised out here, not even as context: a foreign exception may hold the request, and with it the password.
    raise TransportError(f"The transport failed with {kind}.", None, None, True)

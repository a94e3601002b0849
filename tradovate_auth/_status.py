"""How a provider and its storage stand, for humans and probes. Pure."""

import datetime as dt

from ._account import Account
from ._view import View
from .events import Event
from .models import State, Status
from .storage import Record

__all__ = ["status_of"]


def status_of(
    account: Account,
    record: Record,
    view: View,
    *,
    closed: bool,
    last_event: Event | None,
    last_event_at: float | None,
) -> Status:
    """Return the status that a record and a view of it amount to."""
    ledger = record.ledger.pruned(view.now, view.pace.hour)
    living = view.living
    hold, hold_until = _hold(view)
    state: State = "absent" if hold is None else "held"
    if living is not None:
        state = "stale" if view.scheduled else "fresh"
    renews_at = None
    if living is not None:
        held_until = view.hold.until if view.hold is not None else view.now
        renews_at = max(view.stale_at, view.now + view.renewal_wait, held_until)
    return Status(
        state="closed" if closed else state,
        expires_at=living.expires_at if living is not None else None,
        renews_at=_moment(renews_at),
        generation=record.generation,
        failed_logins=len(ledger.failed_logins),
        logins=len(ledger.logins),
        renewals=len(ledger.renewals),
        hold=hold,
        hold_until=_moment(hold_until),
        last_event=None if last_event is None else str(last_event),
        hosts={**account.environment.hosts, **record.hosts},
        storage=account.storage.name,
        last_event_at=_moment(last_event_at),
        evicted_at=_moment(ledger.evicted_at),
    )


def _hold(view: View) -> tuple[str | None, float | None]:
    if view.hold is not None:
        return view.hold.reason, view.hold.until
    if view.latched is not None:
        return f"the server refused the login: {view.latched.text}", view.latched.until
    return None, None


def _moment(seconds: float | None) -> dt.datetime | None:
    return None if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC)

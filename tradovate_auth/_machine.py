"""What the server counts by address: one ledger for all accounts that this machine uses through one storage.

Of an account's own ledger it has the renewals, the failed logins, and a hold where the server has locked the address out or
asked it for a captcha (P§4.1, P§4.3). Logins are entered before they are sent, as there, and taken back when they are granted.

Each account holds a lock of its own while it calls the server, so two may enter at the same moment: what the budget allows is
looked at again by the very change that enters. And each account has learnt the server's clock for itself, or not yet. So the
moments in here are the storage's, which all accounts share.
"""

import functools
import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from ._holds import Hold
from ._ledger import Ledger
from ._pace import Pace
from ._shared_record import SharedRecord
from .environments import Environment
from .models import Budget
from .storage import Record

__all__ = ["Machine", "machine_id", "machine_key"]


@functools.cache
def machine_id() -> str:
    """Return what tells this machine from others that share a storage: a hash of the system's own id, or of its name."""
    try:
        own = Path("/etc/machine-id").read_text("ascii").strip()
    except (OSError, UnicodeError):
        own = ""
    return hashlib.sha256((own or platform.node()).encode()).hexdigest()[:12]


def machine_key(environment: Environment, machine: str) -> str:
    """Return the key of a machine's record. No account's key begins like that."""
    return f"machine {machine} at {environment.origin}{environment.path}"


@dataclass(frozen=True, slots=True)
class Machine(SharedRecord):
    """The ledger of one machine, in a storage. Every method blocks on that, and raises its `StorageError`.

    All moments are the storage's own.
    """

    called: ClassVar[str] = "this machine's record"

    def change(self, change: Callable[[Ledger], Ledger]) -> bool:
        """Apply a change to the newest ledger and save it; return whether it has changed anything."""

        def changing(record: Record) -> Record:
            ledger = change(record.ledger)
            return record if ledger is record.ledger else replace(record, ledger=ledger)

        return self.update(changing)[1]

    def renewal(self, now: float, pace: Pace, budget: Budget, *, scheduled: bool = True) -> bool:
        """Enter a renewal that is about to be sent; return False if the budget does not allow it."""

        def entering(ledger: Ledger) -> Ledger:
            if ledger.renewals_spent(now, pace, budget, scheduled=scheduled) > 0:
                return ledger
            pruned = ledger.pruned(now, pace.hour)
            unscheduled = pruned.unscheduled if scheduled else (*pruned.unscheduled, now)
            return replace(pruned, renewals=(*pruned.renewals, now), unscheduled=unscheduled)

        return self.change(entering)

    def renewal_not_sent(self, now: float) -> None:
        """Take back a renewal that never left this machine."""

        def taking_back(ledger: Ledger) -> Ledger:
            kept = _without(ledger.renewals, now), _without(ledger.unscheduled, now)
            return replace(ledger, renewals=kept[0], unscheduled=kept[1])

        self.change(taking_back)

    def login(self, now: float, pace: Pace, budget: Budget) -> bool:
        """Enter a login that is about to be sent, as failed until it is granted; return False if the budget does not
        allow it.
        """

        def entering(ledger: Ledger) -> Ledger:
            if ledger.login_wait(now, pace, budget) > 0:
                return ledger
            pruned = ledger.pruned(now, pace.hour)
            return replace(pruned, failed_logins=(*pruned.failed_logins, now))

        return self.change(entering)

    def login_not_failed(self, now: float) -> None:
        """Take back a login that was granted, not processed, or never sent."""
        self.change(lambda ledger: replace(ledger, failed_logins=_without(ledger.failed_logins, now)))

    def hold(self, hold: Hold, seconds: float) -> None:
        """Place a hold for so long on every account of this machine."""
        placed = replace(hold, until=self.storage.now() + seconds)
        self.change(lambda ledger: ledger.with_hold(placed))


def _without(entries: tuple[float, ...], entry: float) -> tuple[float, ...]:
    """Return the entries without this one, of which others may have been made since."""
    if entry not in entries:
        return entries
    index = entries.index(entry)
    return (*entries[:index], *entries[index + 1 :])

"""What the server counts by address: one ledger for all accounts that this machine uses through one storage.

Of an account's own ledger it has the renewals, the failed logins, and a hold where the server has locked the address out or
asked it for a captcha (P§4.1, P§4.3). Logins are entered before they are sent, as there, and taken back when they are granted.
"""

import functools
import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ._holds import Hold
from ._ledger import Ledger
from ._pace import Pace
from .environments import Environment
from .errors import StorageError
from .storage import Record, Storage

__all__ = ["MOST_TRIES", "Machine", "machine_id", "machine_key"]

MOST_TRIES: Final = 16
"""How often a change is tried anew when others save in between."""


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
class Machine:
    """The ledger of one machine, in a storage. Every method blocks on that, and raises its `StorageError`."""

    storage: Storage
    key: str

    def load(self) -> Ledger:
        """Return the newest ledger."""
        record = self.storage.load(self.key)
        return record.ledger if record is not None else Ledger()

    def change(self, change: Callable[[Ledger], Ledger]) -> None:
        """Apply a change to the newest ledger and save it."""
        for _ in range(MOST_TRIES):
            record = self.storage.load(self.key) or Record()
            ledger = change(record.ledger)
            if ledger is record.ledger:
                return
            changed = replace(record, ledger=ledger, revision=record.revision + 1, set_aside=None)
            if self.storage.save(self.key, changed):
                return
        raise StorageError("Other processes keep changing this machine's record.")

    def renewal(self, now: float, pace: Pace) -> None:
        """Enter a renewal that is about to be sent."""
        self.change(lambda ledger: ledger.with_renewal(now, pace, scheduled=True))

    def renewal_not_sent(self, now: float) -> None:
        """Take back a renewal that never left this machine."""
        self.change(lambda ledger: replace(ledger, renewals=_without(ledger.renewals, now)))

    def login(self, now: float, pace: Pace) -> None:
        """Enter a login that is about to be sent: as failed, until it is granted."""

        def entering(ledger: Ledger) -> Ledger:
            pruned = ledger.pruned(now, pace.hour)
            return replace(pruned, failed_logins=(*pruned.failed_logins, now))

        self.change(entering)

    def login_not_failed(self, now: float) -> None:
        """Take back a login that was granted, not processed, or never sent."""
        self.change(lambda ledger: replace(ledger, failed_logins=_without(ledger.failed_logins, now)))

    def hold(self, hold: Hold) -> None:
        """Place a hold on every account of this machine."""
        self.change(lambda ledger: ledger.with_hold(hold))


def _without(entries: tuple[float, ...], entry: float) -> tuple[float, ...]:
    """Return the entries without this one, of which others may have been made since."""
    if entry not in entries:
        return entries
    index = entries.index(entry)
    return (*entries[:index], *entries[index + 1 :])

"""A record that belongs to no single account: whoever shares the storage reads it, and changes it without a lock.

Each change is a pure function of the newest record, saved with compare-and-swap: what others have written in between is
never lost, the change is made again from there.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final

from .storage import Record, Storage, StorageBusy

__all__ = ["SharedRecord"]

_MOST_TRIES: Final = 64  # how often a change is tried anew: many may save in between
_STEP: Final = 0.0005  # seconds by which the longest pause before the next try grows


@dataclass(frozen=True, slots=True)
class SharedRecord:
    """One such record. Every method blocks on the storage, and raises its `StorageError`."""

    storage: Storage
    key: str
    set_aside: list[str] = field(default_factory=list)
    """Where it is told what was no record, and was put aside."""
    called: ClassVar[str] = "a record that all accounts share"
    """What it is, in the text of an error."""

    def load(self) -> Record:
        """Return the newest record; of revision 0 where there is none."""
        record = self.storage.load(self.key) or Record()
        if record.set_aside is not None:
            self.set_aside.append(record.set_aside)
        return replace(record, set_aside=None)

    def update(self, change: Callable[[Record], Record]) -> tuple[Record, bool]:
        """Apply a change to the newest record and save it; return what is stored then, and whether that has changed it."""
        for tries in range(_MOST_TRIES):
            time.sleep(random.uniform(0, _STEP * tries))  # noqa: S311  # out of step with those who save in between
            record = self.load()
            changed = change(record)
            if changed is record:
                return record, False
            changed = replace(changed, revision=record.revision + 1)
            if self.storage.save(self.key, changed):
                return changed, True
        raise StorageBusy(f"Other processes keep changing {self.called}.")

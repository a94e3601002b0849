"""What a storage is given back that had been away, or has lost something. Pure."""

import datetime as dt
from dataclasses import dataclass, field, replace

from ._ledger import Ledger
from .models import AccessToken
from .storage import Record

__all__ = ["Left", "rank"]


@dataclass(frozen=True, slots=True)
class Left:
    """What was known when the storage went away: whatever else is known now has come since."""

    record: Record = field(default_factory=Record)
    machine: Ledger = field(default_factory=Ledger)

    def joined(self, found: Record, known: Record) -> Record:
        """Return a record that was found, with what has come to be known since.

        Args:
            found: What lies in the storage now: others may have gone on from where this process left.
            known: The newest record by what this process knows.
        """
        refused = dict(found.refused)
        for slot, generation in known.refused.items():
            # Not above what both have seen: what lies there above it is not what was refused here.
            refused[slot] = max(refused.get(slot, 0), min(generation, self.record.generation))
        missing = {
            slot: token
            for slot, token in known.tokens.items()
            if slot not in found.tokens and token.generation > refused.get(slot, 0)
        }
        ledger = found.ledger.joined(known.ledger, since=self.record.ledger)
        return replace(
            found,
            generation=max(found.generation, known.generation),  # none is given twice
            refused=refused,
            tokens={**missing, **found.tokens},
            ledger=ledger,
        )


def rank(token: AccessToken, now: float) -> tuple[bool, int, dt.datetime]:
    """Return what the tokens of one account are ordered by: those that live before those that have ended, since a login
    without the storage starts to count anew; then the generation, then the server's moment of issue.
    """
    return token.expires_at.timestamp() > now, token.generation, token.issued_at

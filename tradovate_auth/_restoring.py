"""What a storage is given back that had been away, or has lost something. Pure."""

import datetime as dt
from dataclasses import dataclass, field, replace

from ._ledger import Ledger
from .models import AccessToken
from .storage import Record

__all__ = ["Left", "gone_back", "rank", "restored"]


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


def gone_back(found: Record, known: Record) -> bool:
    """Return whether a record is an earlier state of the one that is known, with which nobody has obtained a token since."""
    grants = [record.ledger.renewed_at or 0.0 for record in (found, known)]
    return found.revision > 0 and found.saves < known.saves and grants[0] <= grants[1]


def restored(found: Record, known: Record) -> Record:
    """Return the known record instead of an earlier state of it, with what was refused or spent in that since."""
    refused = dict(known.refused)
    for slot, generation in found.refused.items():
        refused[slot] = max(refused.get(slot, 0), generation)
    tokens = {slot: token for slot, token in known.tokens.items() if token.generation > refused.get(slot, 0)}
    return replace(known, refused=refused, tokens=tokens, ledger=found.ledger.joined(known.ledger, Ledger()))


def rank(token: AccessToken, now: float) -> tuple[bool, int, dt.datetime]:
    """Return what the tokens of one account are ordered by: those that live before those that have ended, since a login
    without the storage starts to count anew; then the generation, then the server's moment of issue.
    """
    return token.expires_at.timestamp() > now, token.generation, token.issued_at

"""What one process remembers of the shared record, and gives back to a storage that has lost it.

A storage can lose what it held: it is restarted empty, or a replica takes over that had missed the last words. So whoever
holds a living token puts it back where there is no record, or an earlier state of the one that was seen, and the process that
obtained it also over an older token. That process looks for it more often than the schedule would have it; the others do so
less often, in case that one has ended.
"""

import math
import os
import random
from dataclasses import replace
from typing import Final

from ._account import Account
from ._journal import Journal
from ._restoring import Left, gone_back, rank, restored
from .models import AccessToken
from .storage import Record

__all__ = ["Recollection"]

_WATCH: Final = (
    30.0  # seconds between two looks of the process that obtained the token, where others could lose it
)
_GUARD: Final = (
    600.0  # the same of the others, at most: between half of it and all, so that they do not look in step
)


class Recollection:
    """What one lifecycle remembers of its account. Not for two threads at once; whatever reads the storage blocks on it."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self.known = Record()
        """The newest record that was seen: what a storage that has lost everything is given back."""
        self.machine = Record()
        """The newest record of this machine that was seen."""
        self.skew = account.clock.time() - account.clock.elapsed()
        """The storage's clock minus the one that never jumps, in seconds, as it was when the record was last seen."""
        self.writing = False
        """Whether the storage was being written, or locked, rather than read, when it was last used."""
        self._away: Left | None = None
        """What was known when the storage went away, if it has not been told what was spent since."""
        self._own: tuple[int, AccessToken] | None = None
        """The token that this very process has obtained last, a fork of it not being it."""

    def owns(self, token: AccessToken | None) -> bool:
        """Return whether this process has obtained the token from the server."""
        return self._own is not None and self._own[0] == os.getpid() and self._own[1] is token

    def obtained(self, token: AccessToken) -> None:
        """Remember a token that the server has just granted."""
        self._own = os.getpid(), token

    def unsaved(self, token: AccessToken) -> None:
        """Remember a token that was granted but not stored, without asking the storage for anything."""
        self.obtained(token)
        known = self.known
        self.known = replace(
            known,
            revision=max(known.revision, 1),
            generation=max(known.generation, token.generation),
            tokens={**known.tokens, self._account.slot: token},
            offset=token.issued_at.timestamp() - self._account.clock.elapsed() - self.skew,
        )

    def succeed(self, other: "Recollection", *, away: bool) -> None:
        """Take over what is remembered of the same account.

        Args:
            other: By whom, of another storage.
            away: What it has spent is not in this one's storage yet.
        """
        if away:
            self._away = self._away or Left(self.known, self.machine.ledger)
        # Revisions are each storage's own.
        self.known = replace(other.known, revision=self.known.revision) if away else other.known
        self.machine, self._own, self.skew = other.machine, other._own, other.skew  # noqa: SLF001
        self._account.saved = None  # older than what is known now

    def record(self, held: AccessToken | None, journal: Journal) -> Record:
        """Return what is stored now, put right if the storage has lost it."""
        account, saved = self._account, self._account.saved
        self.writing = False
        record = account.load()
        if saved is not None and saved.saves > self.known.saves:
            self.known = saved
        lost = self._misses(record, held)
        # What came to be known while it was away is no loss of the storage's.
        told = lost and (self._away is None or not record.revision)
        if lost or self._away is not None:
            record = self._put_back(held)
        if told:
            journal.warn("the storage had lost what was last known of the session; it was put back")
        if record.revision:
            self.known = record
        return record

    def read_at(self, record: Record, now: float) -> None:
        """Remember how the storage's clock stands, given a record that was read at `now` by the server's."""
        self.skew = now - record.offset - self._account.clock.elapsed()

    def look_again_in(self, token: AccessToken) -> float:
        """Return in how many seconds the storage is to be looked at, in case it loses the token."""
        if not self._account.shared:
            return math.inf
        return _WATCH if self.owns(token) else random.uniform(_GUARD / 2, _GUARD)  # noqa: S311  # spreads load

    def _misses(self, record: Record, held: AccessToken | None) -> bool:
        """Return whether the storage has lost what this process knows, rather than that others have done away with it."""
        if record.saves < self.known.saves:
            return True
        if not record.revision:
            return held is not None
        return self.owns(held) and self._better(record, held)

    def _better(self, record: Record, token: AccessToken | None) -> bool:
        """Return whether a token belongs in the place of what a record holds."""
        slot, now = self._account.slot, self._account.now(record)
        if token is None or token.generation <= record.refused.get(slot, 0):
            return False
        stored, own = record.tokens.get(slot), rank(token, now)
        return own > rank(stored, now) if stored is not None else own[0]

    def _put_back(self, held: AccessToken | None) -> Record:
        """Give the storage what it does not have; that is also told what was spent while it was away."""
        account, machine, left = self._account, self.machine, self._away or Left()

        def restoring(found: Record) -> Record:
            base, gone = self._base(found, left)
            if base is not found:  # counted on from what anybody knows, though the storage may begin anew
                saves = max(found.saves, self.known.saves)
                base = replace(base, earlier=max(saves - found.revision, 0))
            if held is None or not self._better(base, held) or not (gone or self.owns(held)):
                return base
            tokens = {**base.tokens, account.slot: held}
            return replace(base, generation=max(base.generation, held.generation), tokens=tokens)

        self.writing = True
        record = account.update(restoring)
        self.writing = False
        if machine.revision and (
            self._away is not None or account.machine.load().revision < machine.revision
        ):
            account.machine.change(lambda ledger: ledger.joined(machine.ledger, left.machine))
        self._away = None
        return record

    def _base(self, found: Record, left: Left) -> tuple[Record, bool]:
        """Return what the storage should hold, whatever is in hand, and whether it has lost that rather than moved on."""
        known = self.known
        if not found.revision:
            return replace(known, offset=self._offset()), True
        if self._away is None and gone_back(found, known):
            return replace(restored(found, known), offset=self._offset()), True
        if self._away is None and found.saves >= known.saves:
            return found, False
        joined = left.joined(found, known)  # others have gone on from what they found
        if known.offset != left.record.offset:
            joined = replace(joined, offset=self._offset())
        return joined, False

    def _offset(self) -> float:
        """Return the server's clock minus the storage's, which may be another one than it was."""
        account = self._account
        return self.known.offset + account.clock.elapsed() + self.skew - account.storage.now()

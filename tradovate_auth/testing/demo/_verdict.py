"""What the demonstration has shown, judged: pure."""

from collections import Counter
from dataclasses import dataclass

__all__ = ["Outcome", "verdict"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was seen from outside: by those who called, and by the server."""

    seconds: float
    stacks: int
    calls: int
    failures: int
    first_failure: str | None
    resends: int
    logins: int
    revoked: int
    """How many sessions the server ended in the middle."""
    renewals: int
    sent: tuple[str, ...]
    """The orders that were sent, by their names."""
    placed: tuple[str, ...]
    """Those that the server has."""


def verdict(outcome: Outcome) -> tuple[bool, str]:
    """Return whether all went as it should, and a sentence that says so, or what did not."""
    faults = _faults(outcome)
    if faults:
        return False, f"Not as it should be: {'; '.join(faults)}."
    after = " and one more after the server had ended the session" if outcome.revoked else ""
    return True, (
        f"All well: in {outcome.seconds:.0f} seconds {outcome.stacks} HTTP stacks made {outcome.calls:,} calls, and none"
        f" failed. One login opened the session they shared{after}; {outcome.renewals} renewals kept it alive beside the"
        f" traffic. {outcome.resends} calls met a dead token and were sent again without their callers noticing, and all"
        f" {len(outcome.sent)} orders are on the server exactly once."
    )


def _faults(outcome: Outcome) -> list[str]:
    faults = []
    if not outcome.calls:
        faults.append("no call was made")
    if outcome.failures:
        faults.append(f"{outcome.failures} calls failed, the first with {outcome.first_failure}")
    due = 1 + bool(outcome.revoked)
    if outcome.logins != due:
        faults.append(f"{outcome.logins} logins instead of {due}")
    placed = Counter(outcome.placed)
    missing = sum(name not in placed for name in outcome.sent)
    repeated = sum(count > 1 for count in placed.values())
    strange = len(placed.keys() - set(outcome.sent))
    if missing:
        faults.append(f"{missing} orders are not on the server")
    if repeated:
        faults.append(f"{repeated} orders are on the server more than once")
    if strange:
        faults.append(f"{strange} orders on the server are nobody's")
    return faults

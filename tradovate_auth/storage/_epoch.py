"""The moment at which a machine's unjumping clock began, as bytes: what its processes agree on. Pure.

A wall clock can be set, by hand or by a time server, in mid-session; then a token would seem to have ended, or to live on. So
the first process after a boot writes down what the wall clock says, and from there all count on with the clock that never
jumps. Whether that first word was right matters little: what the server's clock shows instead is learnt from its answers.
"""

import json
import math

__all__ = ["epoch_of", "written_epoch"]


def written_epoch(boot: str, epoch: float) -> bytes:
    """Return what is kept: the moment in seconds since the epoch of Unix, and the run of the machine for which it holds."""
    return json.dumps({"boot": boot, "epoch": epoch}).encode()


def epoch_of(data: bytes | None, boot: str) -> float | None:
    """Return the moment that was kept for this run of the machine, or None."""
    try:
        kept = json.loads(data or b"")
    except (ValueError, RecursionError):
        return None
    if not isinstance(kept, dict) or kept.get("boot") != boot:
        return None
    epoch = kept.get("epoch")
    return epoch if isinstance(epoch, float) and math.isfinite(epoch) else None

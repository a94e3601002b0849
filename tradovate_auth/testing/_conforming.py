"""What the storage conformance suite is made of: a record with everything in it, and callers in other threads."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from .._holds import Hold, Latch
from .._ledger import Ledger
from ..models import AccessToken
from ..storage import Record, Storage

__all__ = [
    "PATIENCE",
    "SECRETS",
    "differences",
    "enter",
    "failure",
    "full_record",
    "held",
    "in_threads",
    "insist",
]

T = TypeVar("T")

PATIENCE: Final = 60.0
"""Seconds after which something that should have happened has not."""
SECRETS: Final = ("conformance-token", "conformance-md-token", "conformance-ticket")
"""What `full_record` holds and nothing may show."""


def full_record() -> Record:
    """Return a first record in which every field has something to keep; its secrets are made up."""
    moment = datetime.now(UTC).replace(microsecond=123_457)
    now = moment.timestamp()
    token = AccessToken(
        value=SECRETS[0],
        md_value=SECRETS[1],
        issued_at=moment,
        expires_at=moment + timedelta(minutes=80),
        generation=4,
        user_id=7,
        name="tr\u00e4der",
        device_id="device",
        known_expiry=False,
        hosts={"demo": "demo-d2.tradovateapi.com"},
        details={"hasLive": True, "nested": [1, None, {"x": 1.5}], "text": "\u4e2d"},
    )
    plain = AccessToken(value="another", issued_at=moment, expires_at=moment, generation=3)
    return Record(
        1,
        4,
        {"": plain, "8": token},
        {"8": 2},
        {"8": 1},
        {"live": "live.tradovateapi.com"},
        _full_ledger(now),
        -0.25,
        {"digest": now - 4.5},
        3,
    )


def _full_ledger(now: float) -> Ledger:
    return Ledger(
        failed_logins=(now - 3.5,),
        logins=(now - 2.25, now - 1),
        renewals=(now, now),
        unscheduled=(now,),
        renewed_at=now,
        failures=2,
        retry_at=now + 1,
        unscheduled_at=now + 2,
        pause=120.0,
        lost=1,
        puzzled=2,
        evicted_at=now - 9,
        eviction_pause=600.0,
        hold=Hold("penalty", now + 15, "the server asked to slow down", SECRETS[2], 1, "here"),
        latches=(Latch("other", "no", None), Latch("fingerprint", "no \u00df", now + 3600.0, 3600.0)),
        proven=("fingerprint",),
    )


def differences(found: Record | None, wanted: Record) -> list[str]:
    """Return the names of what differs, also in the fields that tokens leave out when they are compared."""
    if found is None:
        return ["everything"]
    names = [name for name in Record.__dataclass_fields__ if name != "set_aside"]
    wrong = [name for name in names if getattr(found, name) != getattr(wanted, name)]
    for cid in found.tokens.keys() & wanted.tokens.keys():
        one, two = found.tokens[cid], wanted.tokens[cid]
        wrong += [name for name in ("hosts", "details") if getattr(one, name) != getattr(two, name)]
    return wrong


def insist(truth: bool, text: str) -> None:
    """Fail with the truth that does not hold."""
    # Not an assert: those of a module that pytest does not rewrite tell nothing, and are gone under -O.
    if not truth:
        raise AssertionError(f"not so: {text}")


def enter(storage: Storage, key: str, timeout: float) -> None:
    """Enter a key and leave it at once."""
    with storage.exclusive(key, timeout):
        pass


def failure(call: Callable[[], object]) -> Exception | None:
    """Make a call in another thread, as another caller would, and return what it raised."""
    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(call).exception(PATIENCE)
    return error if isinstance(error, Exception) else None


def in_threads(work: Callable[[int], T], count: int) -> list[T]:
    """Do the same work in so many threads; return what each came to."""
    with ThreadPoolExecutor(count) as pool:
        return [done.result(PATIENCE) for done in [pool.submit(work, number) for number in range(count)]]


@contextmanager
def held(storage: Storage, key: str) -> Iterator[None]:
    """Hold the key in another thread."""
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with storage.exclusive(key, PATIENCE):
            entered.set()
            leave.wait(PATIENCE)

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(hold)
        holding.add_done_callback(lambda _: entered.set())
        entered.wait(PATIENCE)
        try:
            yield
        finally:
            leave.set()
        holding.result(PATIENCE)

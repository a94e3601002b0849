"""How the benchmarks compare: contestants take turns in random order, and ratios are taken round by round.

So a slow phase of the machine hits all of them alike. No number here means anything but as a ratio within one run.
"""

import gc
import os
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["BATCH", "Contestant", "compare", "pin", "ratios"]

BATCH: Final = 32
"""Requests made in advance, outside the timed part: few enough to be in the processor's cache still, as in real use."""


@dataclass(frozen=True)
class Contestant:
    """One way to do a thing: `prepare` makes the argument of one call, `run` makes the calls of a whole batch."""

    prepare: Callable[[], Any]
    run: Callable[[Sequence[Any]], object]


def compare(contestants: Mapping[str, Contestant], *, rounds: int, batches: int) -> dict[str, list[float]]:
    """Return what one call takes, in nanoseconds, by contestant and round; every round has a block of each of them."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    order = list(contestants)
    for each in contestants.values():
        _block(each, batches)  # caches fill, and the interpreter specialises, before anything counts
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            times[name].append(_block(contestants[name], batches))
        gc.collect()
    return times


def ratios(times: Mapping[str, Sequence[float]], baseline: str) -> dict[str, float]:
    """Return each contestant's time as a multiple of the baseline's: the median over the rounds."""
    return {
        name: statistics.median(a / b for a, b in zip(mine, times[baseline], strict=True))
        for name, mine in times.items()
    }


def _block(contestant: Contestant, batches: int) -> float:
    prepare, run, clock = contestant.prepare, contestant.run, time.perf_counter_ns
    spent = 0
    gc.disable()
    try:
        for _ in range(batches):
            batch = [prepare() for _ in range(BATCH)]
            started = clock()
            run(batch)
            spent += clock() - started
    finally:
        gc.enable()
    return spent / (batches * BATCH)


def pin() -> None:
    """Keep this process on one core, where the platform lets it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {random.choice(sorted(os.sched_getaffinity(0)))})

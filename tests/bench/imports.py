"""What importing this package costs, as a multiple of importing the HTTP library that it is used with.

Each import happens in a fresh interpreter; they take turns. What an adapter costs is measured after its library is there.
"""

import statistics
import subprocess
import sys
from typing import Final

from bench.tables import table

__all__ = ["main"]

_ROUNDS: Final = 7
_STANDARD: Final = (
    "threading, time, json, datetime, logging, typing, enum, dataclasses, asyncio, concurrent.futures"
)
_PROGRAM: Final = """
import time
{before}
started = time.perf_counter()
import {what}
print(time.perf_counter() - started)
"""


def main() -> None:
    """Print the table; there is no limit to keep."""
    targets: dict[str, tuple[str, str]] = {
        "the standard library's part": (_STANDARD, ""),
        "tradovate_auth": ("tradovate_auth", ""),
        "tradovate_auth, after that part": ("tradovate_auth", f"import {_STANDARD}"),
    }
    for library in ("requests", "httpx", "httpx2", "aiohttp"):
        targets[library] = (library, "")
        targets[f"tradovate_auth.{library}, after it"] = (f"tradovate_auth.{library}", f"import {library}")
    times: dict[str, list[float]] = {name: [] for name in targets}
    for _ in range(_ROUNDS):
        for name, (what, before) in targets.items():
            times[name].append(_seconds(what, before))
    rows = []
    for name, found in times.items():
        cells = [
            f"{statistics.median(a / b for a, b in zip(found, times[other], strict=True)):.2f}"
            for other in ("requests", name.removeprefix("tradovate_auth.").removesuffix(", after it"))
            if other in times
        ]
        rows.append((name, cells[0], cells[1] if name.endswith("after it") else ""))
    table("Import", ("", "to requests", "to its own library"), rows)


def _seconds(what: str, before: str) -> float:
    program = _PROGRAM.format(what=what, before=before)
    return float(subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE).stdout)


if __name__ == "__main__":
    main()

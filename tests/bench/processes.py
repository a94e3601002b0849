"""64 processes at once and nobody has a token: how many logins, how many tokens, by the storage that they share.

The control is the same crowd whose members only wait until somebody has written a file, for as long as a login takes: what
it costs to run so many processes on this machine, without this package.
"""

import json
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.tables import table
from process_tools import KINDS, Machine, Nursery, Process, place
from redis_servers import BINARIES

from tradovate_auth.testing import Emulator

__all__ = ["main"]

_CROWD: Final = 64
_LOGIN: Final = 0.5  # seconds

_WAITS: Final = """
wait()
started = time.monotonic()
while not os.path.exists(given["sign"]):
    time.sleep(0.02)
tell(waited=time.monotonic() - started)
"""
_GETS: Final = """
provider = make()
wait()
started = time.monotonic()
token = provider.get(60)
tell(waited=time.monotonic() - started)
tell_token(token)
"""


@dataclass
class Stampede:
    """What a crowd saw."""

    waited: list[float]
    tokens: int = 0
    logins: int = 0


def control(nursery: Nursery, folder: Path) -> Stampede:
    """Return what a crowd saw that waited for a file."""
    sign = folder / "sign"
    writes = "wait()\ntime.sleep(given['seconds'])\nopen(given['sign'], 'w').close()\ntell(written=True)"
    with Emulator() as server, Machine(nursery, server, "memory://") as machine:
        writer = machine.process(writes, sign=str(sign), seconds=_LOGIN)
        writer.ready()
        crowd = [machine.process(_WAITS, sign=str(sign)) for _ in range(_CROWD)]
        _started([writer, *crowd], ready=crowd)
        return Stampede([process.hear()["waited"] for process in crowd])


def _started(processes: list[Process], ready: list[Process]) -> None:
    for process in ready:
        process.ready()
    for process in processes:
        process.go()


def stampede(nursery: Nursery, kind: str, folder: Path) -> Stampede:
    """Return what a crowd saw that wanted a token from a storage in which nothing is."""
    with (
        place(kind, folder) as shared,
        Emulator(login_delay=_LOGIN) as server,
        Machine(nursery, server, shared.url) as machine,
    ):
        told: list[tuple[dict[str, Any], dict[str, Any]]] = [
            (process.hear(), process.hear()) for process in machine.at_once(_CROWD, _GETS)
        ]
        tokens = {json.dumps(token) for _, token in told}
        return Stampede([first["waited"] for first, _ in told], len(tokens), server.counts.logins)


def main() -> bool:
    """Print the table; return whether each crowd had exactly one login and one token."""
    rows, good = [], True
    with Nursery() as nursery, tempfile.TemporaryDirectory() as name:
        bare = control(nursery, Path(name))
        rows.append(("a file that is waited for", "", "", *_waits(bare), ""))
        for kind in KINDS:
            if kind == "redis" and not BINARIES:
                continue
            seen = stampede(nursery, kind, Path(name))
            alone = seen.logins == seen.tokens == 1
            good = good and alone
            counts = str(seen.logins), str(seen.tokens)
            rows.append((f"{kind} storage", *counts, *_waits(seen), "OK" if alone else "over"))
    header = (
        f"{_CROWD} processes, cold",
        "logins",
        "tokens",
        "median wait / login",
        "longest wait / login",
        "",
    )
    table("Stampede of processes", header, rows)
    return good


def _waits(seen: Stampede) -> tuple[str, str]:
    return f"{statistics.median(seen.waited) / _LOGIN:.2f}", f"{max(seen.waited) / _LOGIN:.2f}"


if __name__ == "__main__":
    main()

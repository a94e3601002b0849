"""`make bench`: every benchmark, one table after another. Nothing in them is an absolute time."""

import os
import platform
import sys
from importlib.metadata import version

from bench import fleet, hot_path, imports, instrumentation, processes, stampede, throughput

__all__ = ["main"]


def main() -> int:
    """Run all benchmarks; return 1 if a stampede or a fleet had a login too many: that is a count, and never chance."""
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"  # everything happens on this machine
    used = ", ".join(f"{name} {version(name)}" for name in ("requests", "httpx", "httpx2", "aiohttp"))
    print(f"{platform.python_implementation()} {platform.python_version()}, {used}")
    print(
        "Ratios are to the first row of a table: medians over interleaved rounds, in processes of their own."
    )
    within = hot_path.main()
    alone = stampede.main()
    alone = processes.main() and alone
    frugal = fleet.main()
    throughput.main()
    instrumentation.main()
    imports.main()
    print("\nAll limits kept." if within and alone and frugal else "\nA limit was missed: see 'over' above.")
    return 0 if alone and frugal else 1


if __name__ == "__main__":
    sys.exit(main())

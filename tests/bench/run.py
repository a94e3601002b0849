"""`make bench`: every benchmark, one table after another. Nothing in them is an absolute time."""

import os
import platform
import sys
from importlib.metadata import version

from bench import hot_path, imports, stampede, throughput

__all__ = ["main"]


def main() -> int:
    """Run all benchmarks; return 1 if a stampede had more than one login: that is a count, and never chance."""
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"  # everything happens on this machine
    used = ", ".join(f"{name} {version(name)}" for name in ("requests", "httpx", "httpx2", "aiohttp"))
    print(f"{platform.python_implementation()} {platform.python_version()}, {used}")
    print(
        "Ratios are to the first row of a table: medians over interleaved rounds, in processes of their own."
    )
    within = hot_path.main()
    alone = stampede.main()
    throughput.main()
    imports.main()
    print("\nAll limits kept." if within and alone else "\nA limit was missed: see 'over' above.")
    return 0 if alone else 1


if __name__ == "__main__":
    sys.exit(main())

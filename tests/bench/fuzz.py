"""`make fuzz`: inputs that nobody thought of, for the parts that read what others wrote. Ends with 1 if one breaks a promise.

Each target of `bench.fuzz_targets` gets its share of the time in a process of its own, because libFuzzer ends the process it
runs in. What broke is printed with its traceback, and as a line of Python to put into a test.
"""

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.fuzz_targets import TARGETS, WORDS
from bench.tables import table

__all__ = ["Outcome", "fuzz", "main"]

_GRACE: Final = 60.0  # seconds beyond its time that a process may take to start and to end
_INPUTS = re.compile(r"stat::number_of_executed_units: (\d+)")
_COVERAGE = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)")


@dataclass(frozen=True)
class Outcome:
    """What one target has come to."""

    target: str
    inputs: int
    edges: int
    features: int
    corpus: int
    report: str
    """What was printed, if a promise was broken; else empty."""


def fuzz(target: str, seconds: int, *, seed: int | None = None, command: tuple[str, ...] = ()) -> Outcome:
    """Feed one target for so many seconds; blocks that long and a little longer.

    Args:
        target: A name in `TARGETS`.
        seconds: At least 1.
        seed: Of libFuzzer's random numbers; None takes another one each time.
        command: What to run in place of the target's own process, for tests of this function.
    """
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        for number, data in enumerate(TARGETS[target]().seeds):
            (corpus / f"seed-{number}").write_bytes(data)
        words = Path(folder, "words")
        words.write_text("".join(f'"{_quoted(word)}"\n' for word in WORDS))
        options = [
            f"-max_total_time={seconds}",
            f"-dict={words}",
            f"-artifact_prefix={folder}/found-",
            *([] if seed is None else [f"-seed={seed}"]),
            *("-print_final_stats=1", "-max_len=8192", "-timeout=20", "-rss_limit_mb=2048"),
        ]
        ended = subprocess.run(
            [*(command or (sys.executable, "-m", "bench.fuzz_targets")), target, *options, str(corpus)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds + _GRACE,
        )
        printed = ended.stdout + ended.stderr
        found = [f"{path.name}: {path.read_bytes()!r}" for path in sorted(Path(folder).glob("found-*"))]
    inputs, seen = _INPUTS.findall(printed), _COVERAGE.findall(printed)
    broken = ended.returncode != 0 or not inputs
    edges, features, kept = map(int, seen[-1]) if seen else (0, 0, 0)
    report = "\n".join([printed[-6000:], *found]) if broken else ""
    return Outcome(target, int(inputs[-1]) if inputs else 0, edges, features, kept, report)


def _quoted(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"')


def main(arguments: list[str] | None = None) -> int:
    """Fuzz every target and print a table; return 0 if all is well, 1 after a finding, 2 without a fuzzer."""
    parser = argparse.ArgumentParser(prog="bench.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="for all targets together; 20 by default")
    parser.add_argument("--seed", type=int, help="of the random numbers, to repeat a run")
    chosen = parser.parse_args(arguments)
    if importlib.util.find_spec("atheris") is None:
        print("This needs atheris: pip install -e '.[fuzz]' (Linux; it has no wheel for every Python).")
        return 2
    share = max(chosen.seconds // len(TARGETS), 1)
    outcomes = [fuzz(target, share, seed=chosen.seed) for target in TARGETS]
    rows = [
        (each.target, f"{each.inputs:,}", str(each.edges), str(each.features), str(each.corpus))
        for each in outcomes
    ]
    table("Fuzzing", ("target", "inputs tried", "edges", "features", "inputs kept"), rows)
    for each in outcomes:
        if each.report:
            print(f"\nA promise was broken by the {each.target}:\n{each.report}")
    broken = any(each.report for each in outcomes)
    print("" if broken else "\nNothing was found.")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

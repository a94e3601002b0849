"""``python -m tradovate_auth.testing.emulator``: the emulator as a process, until SIGTERM or SIGINT.

Prints one line on stdout once it listens: ``{"url": ..., "pid": ..., "credentials": {...}}``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from tradovate_auth.testing.emulator import Rules


def _value(text: str) -> Any:
    """A rule's value: JSON where it is JSON, text otherwise."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tradovate_auth.testing.emulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--rules", type=json.loads, default={}, help="rules as one JSON object")
    parser.add_argument(
        "--until-stdin-closes", action="store_true", help="end with the process at the other end"
    )
    rules = parser.add_argument_group("single rules, described in the class Rules")
    for rule in fields(Rules):
        flag = f"--{rule.name.replace('_', '-')}"
        rules.add_argument(
            flag, dest=f"rule_{rule.name}", type=_value, default=argparse.SUPPRESS, metavar="VALUE"
        )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until SIGTERM, SIGINT or, if asked, the end of stdin; blocks as long. Main thread only.

    Raises:
        ImportError: aiohttp is not installed.
        SystemExit: A rule is wrong, or the port cannot be had.
    """
    from tradovate_auth.testing.emulator import Emulator

    options = vars(_parser().parse_args(arguments))
    single = {
        name.removeprefix("rule_"): value for name, value in options.items() if name.startswith("rule_")
    }
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if options["until_stdin_closes"]:
        threading.Thread(target=_watch_stdin, args=(stop,), daemon=True).start()
    try:
        rules = Rules().changed(**(options["rules"] | single))
        emulator = Emulator(rules, host=options["host"], port=options["port"])
        emulator.start()
    except (ValueError, TypeError, OverflowError, OSError) as error:
        sys.exit(f"The emulator cannot start: {error}")
    with emulator as server:
        sys.stdout.write(
            json.dumps({"url": server.url, "pid": os.getpid(), "credentials": server.credentials}) + "\n"
        )
        sys.stdout.flush()
        while not stop.wait(0.5):  # a bare wait cannot be interrupted on every platform
            pass


def _watch_stdin(stop: threading.Event) -> None:
    # The descriptor itself: a reader inside sys.stdin would hold its lock when the interpreter ends.
    while os.read(0, 4096):
        pass
    stop.set()


if __name__ == "__main__":
    main()

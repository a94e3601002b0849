"""The command: shows the demonstration, and ends with 0 only if all went as it should."""

import argparse
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; blocks until it is over.

    Args:
        arguments: The command line; None takes the process's own.

    Returns:
        0: all went as it should. 1: something did not. 2: a library is missing. 130: Ctrl-C.
    """
    parser = argparse.ArgumentParser(prog="python -m tradovate_auth.testing.demo")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long it goes on (20)")
    parser.add_argument("--lifetime", type=float, default=6.0, help="how long a token lives, in seconds (6)")
    options = parser.parse_args(arguments)
    if not (options.seconds >= 1 and options.lifetime >= 1):
        parser.error("--seconds and --lifetime are 1 or more")
    try:
        from ._board import Board
        from ._play import play
    except ImportError as error:
        sys.stderr.write(f"{error}\nThe demonstration uses every stack: pip install 'tradovate-auth[all]'\n")
        return 2
    from ._verdict import verdict

    board = Board()
    try:
        outcome = play(board, seconds=options.seconds, lifetime=options.lifetime)
    except KeyboardInterrupt:
        board.say("Stopped before the end; nothing is judged.")
        return 130
    good, sentence = verdict(outcome)
    board.say(f"\n{sentence}", "bold green" if good else "bold red")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

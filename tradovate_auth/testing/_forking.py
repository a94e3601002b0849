"""Processes for the storage conformance suite: forks of the test's own, for a storage's maker cannot be sent anywhere else."""

import contextlib
import os
import select
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NoReturn

from ._conforming import PATIENCE, insist

__all__ = ["Fork", "forked", "in_processes"]

Tell = Callable[[str], None]


class Fork:
    """A child of this process.

    Args:
        pid: Its id.
        pipe: Where it tells lines.
    """

    def __init__(self, pid: int, pipe: int) -> None:
        self._pid = pid
        self._pipe = pipe
        self._heard = b""

    def hear(self) -> str:
        """Return the next line that it tells, or nothing if it has ended. Blocks for as long as the suite is patient."""
        while b"\n" not in self._heard:
            ready = select.select([self._pipe], [], [], PATIENCE)[0]
            more = os.read(self._pipe, 4096) if ready else b""
            if not more:
                return ""
            self._heard += more
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode()

    def kill(self) -> None:
        """End it with SIGKILL, and wait for that."""
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)


@contextmanager
def forked(work: Callable[[Tell], object]) -> Iterator[Fork]:
    """Do something in a child, which is killed in the end; `work` is given what tells a line."""
    heard, told = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 and newer warn of forks beside threads. A child has nothing of the threads but what it makes itself.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        _work(work, told)
    os.close(told)
    child = Fork(pid, heard)
    try:
        yield child
    finally:
        child.kill()
        os.close(heard)


def in_processes(work: Callable[[], int], count: int) -> list[int]:
    """Do the same work in so many children at the same moment; return the number that each came to.

    Raises:
        AssertionError: One came to none: why, it has printed.
    """
    waiting, starting = os.pipe()

    def begin(tell: Tell) -> None:
        os.close(starting)
        os.read(waiting, 1)  # until nobody can write any more
        tell(str(work()))

    with ExitStack() as stack:
        stack.callback(os.close, waiting)
        try:
            children = [stack.enter_context(forked(begin)) for _ in range(count)]
        finally:
            os.close(starting)
        told = [child.hear() for child in children]
        for child in children:
            child.hear()  # that there is nothing more: it has ended
    insist("" not in told, "every process comes to an end, without an error")
    return [int(number) for number in told]


def _work(work: Callable[[Tell], object], pipe: int) -> NoReturn:
    try:
        work(lambda line: _tell(pipe, line))
    except BaseException:  # noqa: BLE001  # the child must not go on with the tests
        traceback.print_exc()
    finally:
        os._exit(0)


def _tell(pipe: int, line: str) -> None:
    os.write(pipe, f"{line}\n".encode())

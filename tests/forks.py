"""Children of a test: forks of this process, threads and all."""

import os
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

__all__ = ["Child", "in_a_fork", "waiting_fork"]


class Child(NamedTuple):
    """A fork of this process."""

    pid: int

    def wait(self) -> int:
        """Return its exit code when it has ended."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def in_a_fork(work: Callable[[], object]) -> Child:
    """Begin to do something in a child, which ends with it: with code 0, or with 1 and a traceback."""
    with warnings.catch_warnings():
        # Python 3.12 and newer warn of threads beside a fork: here they are the point.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001  # the child must not go on with the tests
            traceback.print_exc()
        finally:
            os._exit(code)
    return Child(pid)


@contextmanager
def waiting_fork(work: Callable[[], object]) -> Iterator[int]:
    """Do something in a child, which then waits until it is killed at the end; yield its id."""
    ready, done = os.pipe()

    def go() -> None:
        work()
        os.write(done, b"x")
        signal.pause()

    child = in_a_fork(go)
    os.close(done)
    try:
        assert os.read(ready, 1) == b"x"
        yield child.pid
    finally:
        os.close(ready)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()

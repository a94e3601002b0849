"""Around the lock over an exchange in a folder: who holds it, and whether there is still something to wait for."""

import os
from collections.abc import Callable
from pathlib import Path

from ._files import read

__all__ = ["Newer", "holder", "sign"]


class Newer:
    """Says, again and again, whether a record of a newer generation has come: it reads only what is another file than before.

    Args:
        path: The record's file.
        generation: Reads its generation.
        seen: The generation that is not newer.
    """

    def __init__(self, path: Path, generation: Callable[[], int], seen: int) -> None:
        self._path = path
        self._generation = generation
        self._seen = seen
        self._known: tuple[int, int, int] | None = None
        self._come = False

    def __call__(self) -> bool:
        try:
            found = os.lstat(self._path)
        except OSError:
            return False
        known = (found.st_ino, found.st_mtime_ns, found.st_size)
        if known != self._known:
            self._known = known
            self._come = self._generation() > self._seen
        return self._come


def sign(opened: int) -> None:
    """Write into a lock's file who holds it, for the error of those who wait in vain. It may fail: the lock holds anyway."""
    try:
        os.ftruncate(opened, 0)
        os.lseek(opened, 0, os.SEEK_SET)
        os.write(opened, f"{os.getpid()}\n".encode())
    except OSError:
        pass


def holder(path: Path) -> str:
    """Return who holds a lock, as a sentence begins: what its file says about that."""
    try:
        signature = read(path) or b""
    except OSError:  # Windows lets nobody else read what is locked
        signature = b""
    pid = signature.strip()
    if pid == str(os.getpid()).encode():
        return "Another thread of this process"
    return f"Process {pid.decode()}" if pid.isdigit() else "Another process"

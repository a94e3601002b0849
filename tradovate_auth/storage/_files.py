"""Files that only this user can read: made so, kept so, and replaced in one step. Everything in here blocks on the disk.

Nothing follows a symbolic link in its last part, nothing writes where another process could see half of it, and nobody's
umask matters. Errors of the operating system come out as they are, inside `explained` as a `StorageError`.
"""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ..errors import StorageError

__all__ = ["LARGEST", "admit_folder", "explained", "put_aside", "read", "refused", "tighten", "write"]

LARGEST: Final = 4 * 1024 * 1024
"""Bytes of a file that are read. A record has some thousands."""
_MOST_ASIDE: Final = 3
# Windows has none of these, nor owners and modes that mean what they mean here: there a folder's own ACL has to do.
_SAFE: Final = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
_user: Callable[[], int] | None = getattr(os, "geteuid", None)
_PRIVATE: Final = 0o600
_OTHERS: Final = 0o077
_OTHERS_WRITE: Final = 0o022
_OURS: Final = re.compile(
    r"[a-z0-9-]*-[0-9a-f]{32}\.(json|lock|write\.lock|json\.tmp|json\.set-aside-[a-z0-9-]+)"
)
_LINKS: Final = frozenset({errno.ELOOP, errno.EMLINK})  # how systems say that O_NOFOLLOW met a link
_COMFORT: Final = "Valid tokens stay in use until they end; nobody logs in meanwhile."
_ADVICE: Final = {
    errno.ENOSPC: "Make room on the disk.",
    errno.EDQUOT: "Make room within this user's quota.",
    errno.EFBIG: "Raise this process's limit on the size of files.",
    errno.EROFS: "Name a folder on a file system that can be written.",
    errno.EACCES: "Let this process's user read and write there, or name another folder.",
    errno.EPERM: "Let this process's user read and write there, or name another folder.",
    errno.ENOTDIR: "A part of the path is a file: name a folder.",
    errno.ENOSYS: "This file system has no locks: name a folder on a local disk.",
    errno.ENOTSUP: "This file system has no locks: name a folder on a local disk.",
    errno.ENOLCK: "This file system has no locks: name a folder on a local disk.",
    errno.EMFILE: "Raise this process's limit on open files.",
}


def refused(path: Path, why: str, remedy: str) -> StorageError:
    """Return the error for a path that is not as it must be."""
    return StorageError(f"{path} {why}.", None, f"{remedy} {_COMFORT}")


@contextmanager
def explained(doing: str, path: Path) -> Iterator[None]:
    """Turn the operating system's errors into a `StorageError` that says what is the matter and what to do.

    Args:
        doing: What cannot be done then, such as "written".
        path: What cannot be dealt with.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _LINKS:
            raise refused(path, "is, or lies behind, a symbolic link", "Name what it points to.") from error
        why = error.strerror or type(error).__name__
        remedy = _ADVICE.get(error.errno or 0, "Repair the folder, or name another one.")
        raise refused(path, f"cannot be {doing}: {why}", remedy) from error


def admit_folder(folder: Path, *, create: bool) -> bool:
    """Make sure that a folder is one, is ours and is closed to others; return whether it is there.

    Args:
        folder: Absolute.
        create: Make it, and what is missing above it, with mode 0700.

    Raises:
        StorageError: It is something else, or somebody else's, or shared.
        OSError: The system refused something.
    """
    try:
        found = os.lstat(folder)
    except FileNotFoundError:
        if not create:
            return False
        _make(folder)
        found = os.lstat(folder)
    if stat.S_ISLNK(found.st_mode):
        raise refused(folder, "is a symbolic link", "Name the folder that it points to.")
    if not stat.S_ISDIR(found.st_mode):
        raise refused(folder, "is a file, not a folder", "Name a folder.")
    if _check_owner(folder, found) and found.st_mode & _OTHERS:
        _close(folder, found.st_mode)
    return True


def tighten(path: Path) -> None:
    """Make sure that a file, if it is there, is ours and closed to others.

    Raises:
        StorageError: It is something else, or somebody else's.
        OSError: The system refused something.
    """
    opened = _open(path)
    if opened is not None:
        os.close(opened)


def read(path: Path) -> bytes | None:
    """Return what a file holds, at most a byte more than `LARGEST`, or None if there is none; close it to others.

    Raises:
        StorageError: It is something else, or somebody else's.
        OSError: The system refused something.
    """
    opened = _open(path)
    if opened is None:
        return None
    with os.fdopen(opened, "rb") as stream:
        return stream.read(LARGEST + 1)


def write(path: Path, data: bytes) -> None:
    """Replace a file, or make it: others see the old bytes or the new ones, and nobody but this user sees any.

    Only for whoever holds the lock over the writers of this file. A draft that a killed writer left is removed.

    Raises:
        OSError: The system refused something; the file is as it was.
    """
    draft = path.with_name(f"{path.name}.tmp")
    draft.unlink(missing_ok=True)
    opened = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE, _PRIVATE)
    try:
        with os.fdopen(opened, "wb") as stream:
            _change_mode(stream.fileno())  # a umask may have taken away even our own rights
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def put_aside(path: Path, why: str) -> str:
    """Give a file another name that says why, and forget all but the last three of its kind; return that name.

    Only for whoever holds the lock over the writers of this file.

    Raises:
        OSError: The system refused something.
    """
    stem = f"{path.name}.set-aside-"
    numbered = re.compile(re.escape(stem) + r"[a-z0-9-]*-(\d{1,9})", re.ASCII)
    matches = [
        match
        for match in (numbered.fullmatch(each.name) for each in path.parent.iterdir())
        if match is not None
    ]
    earlier = sorted((int(match[1]), match[0]) for match in matches)
    slug = re.sub(r"[^a-z0-9]+", "-", why.lower())
    name = f"{stem}{slug}-{earlier[-1][0] + 1 if earlier else 1}"
    path.rename(path.with_name(name))
    for _, old in earlier[: max(len(earlier) - _MOST_ASIDE + 1, 0)]:
        path.with_name(old).unlink(missing_ok=True)
    _sync(path.parent)
    return name


def _open(path: Path) -> int | None:
    try:
        opened = os.open(path, os.O_RDONLY | _SAFE)
    except FileNotFoundError:
        return None
    except PermissionError:
        _check_owner(path, os.lstat(path))  # if that is the reason, it is said
        raise
    try:
        _claim(path, opened)
    except BaseException:
        os.close(opened)
        raise
    return opened


def _claim(path: Path, opened: int) -> None:
    found = os.fstat(opened)
    if not stat.S_ISREG(found.st_mode):
        raise refused(path, "is not a regular file", "Move it away.")
    if _check_owner(path, found) and found.st_mode & _OTHERS:
        _change_mode(opened)


def _check_owner(path: Path, found: os.stat_result) -> bool:
    """Return whether owners and modes mean something on this system; if they do, it is ours."""
    if _user is None:
        return False
    if found.st_uid != _user():
        raise refused(
            path,
            f"belongs to another user (uid {found.st_uid}, this process runs as {_user()})",
            "Give it to this process's user, or name a folder that is not there yet: it will be made.",
        )
    return True


def _change_mode(opened: int) -> None:
    if _user is not None:
        os.fchmod(opened, _PRIVATE)


def _make(folder: Path) -> None:
    missing = [folder]
    while not os.path.lexists(missing[-1].parent):
        missing.append(missing[-1].parent)
    for each in reversed(missing):
        try:
            each.mkdir(0o700)
        except FileExistsError:
            continue  # another process was faster
        each.chmod(0o700)  # a umask may have taken away even our own rights


def _close(folder: Path, mode: int) -> None:
    """Close a folder to others if it holds nothing but our files: somebody may have named /tmp, or his home."""
    shared = mode & stat.S_ISVTX or not all(_OURS.fullmatch(each.name) for each in folder.iterdir())
    if not shared:
        folder.chmod(0o700)
    elif mode & _OTHERS_WRITE:
        raise refused(folder, "holds other files too and others may write there", "Name a folder of its own.")


def _sync(folder: Path) -> None:
    # The new name is there for everybody already. That a power failure could undo it is no reason to report a failure,
    # and not every system can sync a folder.
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY | _SAFE)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)

"""A storage in a folder: every process of one machine that names it shares the session.

Of each key there are

    NAME.json         the record, replaced in one step: readers need no lock and never see half of one
    NAME.lock         held over a whole exchange, so that one process calls the server; in it, who holds it
    NAME.write.lock   held for the moment of a save: savers that do not exchange, such as `reset()`, hold only this one
    NAME.json.tmp     while a save is at work
    NAME.json.set-aside-WHY-N   what lay there and was no record, the last three

where NAME is a readable part of the key and a hash of it; and of the folder `the-clock-of-this-boot-HASH.json`, see `_epoch`. The locks are the kernel's, by `filelock`: they end with their
holder, however it ends. A forked child inherits none of them. For a local disk; network file systems are for nobody who
relies on locks.
"""

import hashlib
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .._clock import SYSTEM_CLOCK, Clock
from ..errors import ConfigurationError, StorageError
from ._codec import NotARecord
from ._discreet import discreet
from ._epoch import epoch_of, written_epoch
from ._file_lock import Newer, holder, sign
from ._files import LARGEST, admit_folder, explained, put_aside, read, tighten, write
from ._packing import pack, unpack
from ._record import OVERTAKEN, OWNED, Lease, Record, StorageBusy
from ._seal import KeyRing

if TYPE_CHECKING:
    from filelock import BaseFileLock

__all__ = ["FileStorage"]

_LOOK: Final = 0.02  # seconds between two tries to get the lock over an exchange, which takes a second or so
_WRITE_LOOK: Final = 0.002  # the same, over a save, which takes some milliseconds
_WRITE_PATIENCE: Final = 10.0  # seconds after which a saver must have been stopped rather than slow
_CLOCK: Final = "the clock of this boot"  # a key that no record has
_READABLE: Final = 48  # characters of a key in the names of its files


class FileStorage:
    """Keeps records in a folder of this user: shared by all processes of this machine, and by their forks.

    Any thread may use it, and any number of objects may name the same folder. Nothing is touched before it is first used;
    then the folder is made, with mode 0700, and every file in it has 0600 from its first byte, whatever the umask.
    A folder for nothing else is best: one that others may write to is refused if it holds other files.

    Args:
        folder: Where; made if missing. A relative one is meant from where the process stands now.
        keys: Seal the records; without them a token lies in its file in the clear.
        clock: Tells the time, for tests that move it.

    Raises:
        ConfigurationError: No folder has such a name, or the keys are no `KeyRing`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        keys: KeyRing | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        name = os.fspath(folder)
        if not isinstance(name, str) or not name or "\0" in name:
            raise ConfigurationError("FileStorage needs the name of a folder.")
        if keys is not None and not isinstance(keys, KeyRing):
            raise ConfigurationError(
                "FileStorage needs a KeyRing as keys.", None, "Make one of text with KeyRing.parse()."
            )
        self._folder = Path(os.path.abspath(name))  # noqa: PTH100  # takes out "..", which Path.absolute leaves
        self._keys = keys
        self._clock = clock
        self._epoch: float | None = None

    @property
    def name(self) -> str:
        """See `Storage.name`. Never blocks."""
        return f"file {self._folder}" + (", sealed" if self._keys is not None else "")

    def __repr__(self) -> str:
        keys = f", keys={self._keys!r}" if self._keys is not None else ""
        return f"FileStorage({str(self._folder)!r}{keys})"

    def now(self) -> float:
        """Return a clock that all processes of this machine share, and that setting the wall clock does not move.

        Where the system does not tell one boot from another (Linux does), it is the wall clock. Blocks on the disk once.
        """
        boot = getattr(self._clock, "boot", None)
        if boot is None:
            return self._clock.time()
        if self._epoch is None:
            try:
                self._epoch = self._agreed_epoch(boot)
            except StorageError:  # a folder that cannot be written holds nothing that depends on it either
                return self._clock.time()
        return self._epoch + self._clock.elapsed()

    @discreet
    def load(self, key: str) -> Record | None:
        """See `Storage.load`. Blocks on the disk, and on no lock unless there is something to put aside.

        Raises:
            StorageError: The file cannot be read or put aside.
            UnreadableRecord: A newer version of this package has written it, or it is sealed with a key that is missing here.
        """
        path = self._path(key, "json")
        if not self._admitted(create=False):
            return None
        with explained("read", path):
            try:
                return self._recorded(key, path)
            except NotARecord:
                pass
        return self._started_anew(key, path)

    @discreet
    def save(self, key: str, record: Record) -> bool:
        """See `Storage.save`. Blocks on the disk, and on others that save under this key at the same moment.

        Raises:
            StorageError: The file cannot be written; it is as it was.
            UnreadableRecord: There is one that cannot be read, as with `load`; it is as it was.
        """
        path = self._path(key, "json")
        with self._writing(path), explained("written", path):
            try:
                kept = self._recorded(key, path)
            except NotARecord:
                return False  # the saver loads again, which puts it aside and says so
            if record.revision != (kept.revision if kept is not None else 0) + 1:
                return False
            write(path, pack(record, key, self._keys))
            return True

    @contextmanager
    def exclusive(self, key: str, timeout: float, *, seen: int | None = None) -> Iterator[Lease]:
        """See `Storage.exclusive`. Blocks while another process or thread holds the key; free when that one dies.

        Not reentrant. A key that is free is had, whatever was seen. Saving needs no hold of this lock, and is not kept waiting
        by it.

        Raises:
            StorageBusy: It was not free in time (the text names the process).
            StorageError: It cannot be locked.
        """
        newer = None if seen is None else Newer(self._path(key, "json"), lambda: self._generation(key), seen)
        with self._held(self._path(key, "lock"), timeout, _LOOK, newer) as had:
            yield OWNED if had else OVERTAKEN

    def _path(self, key: str, kind: str) -> Path:
        readable = re.sub(r"[^a-z0-9]+", "-", key.lower().partition("://")[2] or key.lower())
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return self._folder / f"{readable[:_READABLE].strip('-')}-{digest}.{kind}"

    def _admitted(self, *, create: bool) -> bool:
        with explained("used", self._folder):
            return admit_folder(self._folder, create=create)

    def _recorded(self, key: str, path: Path) -> Record | None:
        data = read(path)
        if data is None:
            return None
        if len(data) > LARGEST:
            raise NotARecord("too large")
        return unpack(data, key, self._keys)

    def _generation(self, key: str) -> int:
        """Return the generation of what is kept, 0 where that cannot be told: whoever has the lock finds out why."""
        try:
            record = self._recorded(key, self._path(key, "json"))
        except (OSError, StorageError, NotARecord):
            return 0
        return record.generation if record is not None else 0

    def _agreed_epoch(self, boot: str) -> float:
        path = self._path(_CLOCK, "json")
        self._admitted(create=True)
        with explained("read", path):
            kept = epoch_of(read(path), boot)
        if kept is not None:
            return kept
        with self._writing(path), explained("written", path):
            kept = epoch_of(read(path), boot)
            if kept is None:
                kept = self._clock.time() - self._clock.elapsed()
                write(path, written_epoch(boot, kept))
            return kept

    def _started_anew(self, key: str, path: Path) -> Record | None:
        """Put aside what is no record. Looks again under the lock: somebody may have saved one meanwhile."""
        with self._writing(path), explained("put aside", path):
            try:
                return self._recorded(key, path)
            except NotARecord as error:
                name = put_aside(path, error.reason)
                return Record(set_aside=f"{name}: {error.reason}")

    @contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        with self._held(path.with_suffix(".write.lock"), _WRITE_PATIENCE, _WRITE_LOOK):
            yield

    @contextmanager
    def _held(self, path: Path, timeout: float, look: float, newer: Newer | None = None) -> Iterator[bool]:
        """Hold a lock (True), or none where something newer has come meanwhile (False)."""
        lock = self._acquired(path, timeout, look, newer)
        if lock is None:
            yield False
            return
        try:
            yield True
        finally:
            with explained("unlocked", path):
                lock.release()

    def _acquired(
        self, path: Path, timeout: float, look: float, newer: Newer | None
    ) -> "BaseFileLock | None":
        from filelock import FileLock, Timeout

        self._admitted(create=True)
        with explained("locked", path):
            tighten(path)
            # A new object each time: one that was made before a fork is of no use after it. No fallback to a lock that
            # is only a file: it would outlive a killed holder.
            lock = FileLock(
                path, mode=0o600, fallback_to_soft=False, preserve_lock_file=True, on_acquired=sign
            )
            try:
                # filelock would take a negative wait, and an infinite one, for one without an end.
                lock.acquire(min(max(timeout, 0.0), threading.TIMEOUT_MAX), look, cancel_check=newer)
            except Timeout:
                if newer is not None and newer():
                    return None
                raise StorageBusy(
                    f"{holder(path)} holds the stored session.",
                    None,
                    "Valid tokens stay in use. If that process hangs, end it: its lock ends with it.",
                ) from None
        return lock

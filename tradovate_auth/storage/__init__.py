"""Where processes keep the session that they share.

A storage keeps one `Record` per user of one environment, under a key that the provider chooses. It need not know what is
in a record. Storages block, on purpose: only the one thread of a flight calls them, never an event loop.
"""

import os
from urllib.parse import unquote, urlsplit

from ..errors import ConfigurationError
from ._record import Lease, Record, Storage, UnreadableRecord
from .file import FileStorage
from .memory import MemoryStorage

__all__ = ["FileStorage", "Lease", "MemoryStorage", "Record", "Storage", "UnreadableRecord", "from_url"]


def from_url(url: str) -> Storage:
    """Return the storage that a URL names. Does not block, and touches nothing.

    `memory://` is a private one in this process, `file:///folder` one in that folder, for all processes of this machine.

    Raises:
        ConfigurationError: No storage goes by that URL. The text does not repeat it: it may hold a password.
    """
    scheme = url.partition("://")[0].lower()
    if scheme == "memory":
        return MemoryStorage()
    if scheme == "file":
        return _file_storage(url)
    raise ConfigurationError(
        "No storage goes by that URL's scheme.", None, "Known are memory:// and file:///folder."
    )


def _file_storage(url: str) -> FileStorage:
    wrong = ConfigurationError(
        "The file storage's URL names no folder of this machine.",
        None,
        "Write file:///absolute/folder, with three slashes, and %3F for ?, %23 for # and %25 for % in it.",
    )
    try:
        parts = urlsplit(url)
    except ValueError:
        raise wrong from None
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        raise wrong
    # As the system's own names are decoded, so that one in another encoding than UTF-8 can be named too.
    folder = unquote(parts.path, errors="surrogateescape")
    if os.name == "nt":  # pragma: no cover  # file:///C:/folder
        folder = folder.lstrip("/")
    if not folder.strip("/") or "\0" in folder:
        raise wrong
    return FileStorage(folder)

"""Where processes keep the session that they share.

A storage keeps one `Record` per user of one environment, under a key that the provider chooses. It need not know what is
in a record. Storages block, on purpose: only the one thread of a flight calls them, never an event loop.
"""

from ..errors import ConfigurationError
from ._record import Record, Storage
from .memory import MemoryStorage

__all__ = ["MemoryStorage", "Record", "Storage", "from_url"]


def from_url(url: str) -> Storage:
    """Return the storage that a URL names: `memory://` for a private one in this process. Does not block.

    Raises:
        ConfigurationError: No storage goes by that scheme. The text does not repeat the URL: it may hold a password.
    """
    scheme = url.partition("://")[0]
    if scheme == "memory":
        return MemoryStorage()
    raise ConfigurationError("No storage goes by that URL's scheme.", None, "Known schemes: memory.")

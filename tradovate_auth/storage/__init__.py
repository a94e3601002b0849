"""Where processes keep the session that they share.

A storage keeps one `Record` per user of one environment, under a key that the provider chooses. It need not know what is
in a record. Storages block, on purpose: only the one thread of a flight calls them, never an event loop.
"""

import os
from urllib.parse import unquote, urlsplit

from ..errors import ConfigurationError
from . import _discreet, _redis_url
from ._codec import NotARecord
from ._packing import pack, unpack
from ._record import Lease, Record, Storage, StorageBusy, UnreadableRecord
from ._seal import KeyRing
from .file import FileStorage
from .memory import MemoryStorage
from .redis import RedisStorage

__all__ = [
    "FileStorage",
    "KeyRing",
    "Lease",
    "MemoryStorage",
    "NotARecord",
    "Record",
    "RedisStorage",
    "Storage",
    "StorageBusy",
    "UnreadableRecord",
    "from_url",
    "pack",
    "unpack",
]


@_discreet.discreet
def from_url(url: str, *, keys: KeyRing | None = None) -> Storage:
    """Return the storage that a URL names. Does not block, and touches nothing.

    `memory://` is a private one in this process, `file:///folder` one in that folder, for all processes of this machine.
    The others are a Redis or Valkey, for all hosts: `redis://[user:password@]host[:port][/db]`, `rediss://` the same over TLS,
    `unix:///path`, `redis+sentinel://host,host/service[/db]`, `redis+cluster://host,host`, and `rediss+` for these two.
    Behind a question mark may stand `db`, `prefix`, `lease` and `timeout` (seconds, 10 and 2), for TLS `ssl_ca_certs`,
    `ssl_certfile` and `ssl_keyfile`, for Sentinel `sentinel_username` and `sentinel_password`.

    Args:
        url: See above.
        keys: Seal what leaves the process: see `KeyRing`. What stays in this process's memory is not sealed.

    Raises:
        ConfigurationError: No storage goes by that URL. The text does not repeat it: it may hold a password.
        ImportError: It is a Redis, and the extra `redis` is not installed.
    """
    scheme = url.partition("://")[0].lower()
    if scheme == "memory":
        return MemoryStorage()
    if scheme == "file":
        return _file_storage(url, keys)
    if scheme in _redis_url.SCHEMES:
        client, options = _redis_url.from_redis_url(url)
        return RedisStorage(client, keys=keys, **options)
    raise ConfigurationError(
        "No storage goes by that URL's scheme, whether given as `storage` or in TRADOVATE_STORAGE.",
        None,
        "Known are redis://, rediss://, unix://, redis+sentinel://, redis+cluster://, memory:// and file:///folder.",
    )


def _file_storage(url: str, keys: KeyRing | None) -> FileStorage:
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
    return FileStorage(folder, keys=keys)

"""Where the text of a key ring comes from, and what is in it. No error shows any of it, or the path where it lies."""

import base64
import logging
import os
import re
import stat
from pathlib import Path
from typing import Final

from .._missing import missing_extra
from ..errors import ConfigurationError

__all__ = ["ID", "KEY_BYTES", "contents", "entries", "secret", "variable"]

ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
"""What an id looks like. Shorter than a key's text, so that one in the place of an id is never taken for it and shown."""
KEY_BYTES: Final = 32
_KEY: Final = re.compile(r"[A-Za-z0-9+/_-]{43}=?")
_OTHERS: Final = 0o077
_MODES: Final = os.name != "nt"  # there they say nothing
_URL_SAFE: Final = str.maketrans("+/", "-_")
_log: Final = logging.getLogger("tradovate_auth")
_TOLD: Final[set[str]] = set()  # of which files the log has been told that they are open to others
_CLOSE: Final = "Close it with chmod 600. If others may have read it, replace the keys."
_FORM: Final = (
    "A key ring is text of the form id:key, one per line or with commas between, the key that seals last."
)


def entries(text: str) -> dict[str, bytes]:
    """Return the keys in a text, by id.

    Raises:
        ConfigurationError: It is something else.
    """
    keys: dict[str, bytes] = {}
    found = [entry.strip() for entry in re.split(r"[\n,]", re.sub(r"#.*", "", text))]
    for number, entry in enumerate(filter(None, found), 1):
        name, colon, key = (part.strip() for part in entry.partition(":"))
        if not colon or not ID.fullmatch(name) or not _KEY.fullmatch(key):
            raise ConfigurationError(
                f"Entry {number} of the key ring is not an id, a colon and a key of {KEY_BYTES} bytes in base64.",
                None,
                f"{_FORM} Make a key with KeyRing.generate_key().",
            )
        if name in keys:
            raise ConfigurationError(f"The key ring has two keys with the id {name!r}.")
        keys[name] = base64.urlsafe_b64decode(key.translate(_URL_SAFE).rstrip("=") + "=")
    return keys


def variable(name: str) -> str:
    """Return what an environment variable holds, or the file that the one with `_FILE` behind its name names.

    A file that is open to others is read all the same, and the log is told once: containers often mount their secrets so.

    Raises:
        ConfigurationError: Neither is set, or both, or the file cannot be read.
    """
    file = f"{name}_FILE"
    found = [each for each in (name, file) if os.environ.get(each)]
    if len(found) > 1:
        raise ConfigurationError(f"{name} and {file} are both set; set one of them.")
    if not found:
        raise ConfigurationError(f"The environment variable {name} is not set, or empty.", None, _FORM)
    if found == [name]:
        return os.environ[name]
    return contents(os.environ[file], f"The file that {file} names", private=False)


def contents(path: str | os.PathLike[str], what: str, *, private: bool) -> str:
    """Return what a file holds.

    Args:
        path: Where it is. Errors do not repeat it: somebody may have handed over the keys themselves.
        what: What it is called instead.
        private: If others than its owner have any right to it, that is an error, and not only worth a warning.

    Raises:
        ConfigurationError: It cannot be read, or is open to others and private.
    """
    try:
        with Path(path).open("rb") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            data = stream.read()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{what} cannot be read: {type(error).__name__}.") from None
    if _MODES and mode & _OTHERS:
        wide = f"{what} is open to others than its owner: its mode is {mode:04o}."
        if private:
            del data
            raise ConfigurationError(wide, None, _CLOSE)
        if what not in _TOLD:
            _TOLD.add(what)
            _log.warning("%s %s", wide, _CLOSE)
    return data.decode("utf-8-sig", "replace")  # an error would hold the bytes; what was replaced is no key


def secret(service: str, user: str) -> str:
    """Return what the keychain holds. Blocks on it, and on whoever has to unlock it.

    Raises:
        ConfigurationError: There is no keychain, or nothing in it under that name.
        ImportError: The extra `keyring` is not installed.
    """
    try:
        import keyring
    except ImportError:
        raise missing_extra("keyring") from None
    try:
        text = keyring.get_password(service, user)
    except Exception as error:  # noqa: BLE001  # each keychain has errors of its own
        raise ConfigurationError(
            f"The keychain cannot be asked for the key ring: {type(error).__name__}.",
            None,
            "Unlock it, or hand the keys over as TRADOVATE_STORAGE_KEYS where there is none, as in containers.",
        ) from None
    if not text:
        raise ConfigurationError(
            f"The keychain has nothing under {service!r} and {user!r}.",
            None,
            f"Put the key ring there, with: keyring set {service} {user}. {_FORM}",
        )
    return text

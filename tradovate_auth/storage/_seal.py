"""The keys that seal what is stored: AES-256-GCM, several keys at once, so that one can follow another without a login.

A ring knows its keys by ids. One key seals, every key opens. What a seal says and where it lies is in `_packing`.
"""

import base64
import os
from collections.abc import Callable, Mapping
from typing import Final, Literal, NoReturn, Protocol, Self

from .._guarded import Guarded
from .._missing import missing_extra
from ..errors import ConfigurationError
from ._keytext import ID, KEY_BYTES, contents, entries, secret, variable

__all__ = ["OVERHEAD", "KeyRing"]

_NONCE: Final = 12
OVERHEAD: Final = _NONCE + 16
"""Bytes by which sealed data is longer: the nonce before it and the tag behind it."""


class _Cipher(Protocol):
    """What is used of the library's AES-GCM."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes: ...

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes: ...


class KeyRing(Guarded):
    """Keys that seal stored sessions: the current one seals, each of them opens what it has sealed.

    Hand it to a storage as `keys`. It never changes, any thread may use it, its `repr` shows the ids alone, and pickling it
    fails. Needs the extra `crypto`.

    Args:
        keys: 32 random bytes each, by id: a letter or digit and up to 31 more, or any of `.`, `_` and `-`. Ids are no
            secret: they stand in what is stored, and in errors.
        current: The id of the key that seals; the last one unless named.
        plain: What to do about a record that is not sealed. `"accept"` reads it, and the next save seals it: that is how a
            storage in use is sealed. `"refuse"` makes it an `UnreadableRecord`, for storages that others can write to.

    Raises:
        ConfigurationError: There is no key, one has another length, an id is odd or not there. No text shows a key.
        ImportError: The extra is not installed.
    """

    __slots__ = ("_ciphers", "_current", "_plain")

    _ciphers: Mapping[str, _Cipher]
    _current: str
    _plain: Literal["accept", "refuse"]

    def __init__(
        self,
        keys: Mapping[str, bytes],
        *,
        current: str | None = None,
        plain: Literal["accept", "refuse"] = "accept",
    ) -> None:
        problem = _problem(keys, current, plain)
        if problem is not None:
            del self, keys, current  # reports of an error may show the local variables on its way
            raise problem
        ciphers = {name: _cipher()(value) for name, value in keys.items()}
        object.__setattr__(self, "_ciphers", ciphers)
        object.__setattr__(self, "_current", current if current is not None else list(ciphers)[-1])
        object.__setattr__(self, "_plain", plain)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a key ring does not change: make another one")

    def __repr__(self) -> str:
        return f"KeyRing(ids={list(self.ids)!r}, current={self._current!r}, plain={self._plain!r})"

    @staticmethod
    def generate_key() -> str:
        """Return a new random key as text: 44 characters of URL-safe base64. Keep it as the secret that it is."""
        return base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).decode()

    @classmethod
    def parse(cls, text: str, *, plain: Literal["accept", "refuse"] = "accept") -> Self:
        """Return the ring that a text holds: `id:key`, one per line or with commas between; the last key seals.

        Keys are base64, either alphabet. Empty lines and what follows a `#` mean nothing. Does not block.

        Args:
            text: The keys.
            plain: See the class.

        Raises:
            ConfigurationError: The text is something else. The error shows none of it but good ids.
            ImportError: The extra `crypto` is not installed.
        """
        try:
            return cls(entries(text), plain=plain)
        except (ConfigurationError, ImportError) as error:
            problem = error.with_traceback(None)
        del text  # as in the constructor
        raise problem

    @classmethod
    def from_env(
        cls, name: str = "TRADOVATE_STORAGE_KEYS", *, plain: Literal["accept", "refuse"] = "accept"
    ) -> Self:
        """Return the ring that an environment variable holds, as text for `parse`.

        The variable with `_FILE` behind its name may name a file that holds it instead. If that file is open to others than
        its owner, the log gets one warning and the keys are used: containers often mount their secrets so. Blocks only on
        that file.

        Args:
            name: The variable.
            plain: See the class.

        Raises:
            ConfigurationError: Neither is set, or both are, or the file or the text cannot be read.
            ImportError: The extra `crypto` is not installed.
        """
        return cls.parse(variable(name), plain=plain)

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], *, plain: Literal["accept", "refuse"] = "accept"
    ) -> Self:
        """Return the ring that a file of this user holds, as text for `parse`. Blocks on the disk.

        Args:
            path: The file, which nobody but its owner may read or write.
            plain: See the class.

        Raises:
            ConfigurationError: It cannot be read, is open to others, or holds something else.
            ImportError: The extra `crypto` is not installed.
        """
        return cls.parse(contents(path, "The file of the key ring", private=True), plain=plain)

    @classmethod
    def from_keyring(
        cls,
        service: str = "tradovate_auth",
        user: str = "storage-keys",
        *,
        plain: Literal["accept", "refuse"] = "accept",
    ) -> Self:
        """Return the ring that the operating system's keychain holds, as text for `parse`. Needs the extra `keyring`.

        Blocks on the keychain, which may ask a human to unlock it.

        Args:
            service: Under what the text was put there, as in `keyring set tradovate_auth storage-keys`.
            user: The second half of that name.
            plain: See the class.

        Raises:
            ConfigurationError: There is no keychain, nothing in it under that name, or something else.
            ImportError: The extra `keyring`, or `crypto`, is not installed.
        """
        return cls.parse(secret(service, user), plain=plain)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all keys."""
        return tuple(self._ciphers)

    @property
    def current(self) -> str:
        """The id of the key that seals."""
        return self._current

    @property
    def plain(self) -> Literal["accept", "refuse"]:
        """What is done about a record that is not sealed."""
        return self._plain

    def seal(self, data: bytes, context: bytes) -> bytes:
        """Return data sealed with the current key, `OVERHEAD` bytes longer: a fresh random nonce, then data and tag.

        Args:
            data: What nobody without the key is to read.
            context: What has to be the same when it is opened. Not stored.
        """
        nonce = os.urandom(_NONCE)
        return nonce + self._ciphers[self._current].encrypt(nonce, data, context)

    def unseal(self, key_id: str, sealed: bytes, context: bytes) -> bytes | None:
        """Return the data in what `seal` returned, or None if this key did not seal it in this context, byte for byte.

        Args:
            key_id: One of `ids`.
            sealed: What `seal` returned, `OVERHEAD` bytes or more.
            context: As it was then.
        """
        from cryptography.exceptions import InvalidTag

        try:
            return self._ciphers[key_id].decrypt(sealed[:_NONCE], sealed[_NONCE:], context)
        except InvalidTag:
            return None


def _cipher() -> Callable[[bytes], _Cipher]:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise missing_extra("crypto") from None
    return AESGCM


def _problem(keys: object, current: str | None, plain: str) -> ConfigurationError | ImportError | None:
    """Return what is wrong with the arguments of a key ring, or that the extra is missing."""
    try:
        _cipher()
    except ImportError as error:
        return error.with_traceback(None)
    if not isinstance(keys, Mapping):
        return ConfigurationError(
            "KeyRing needs a mapping of ids to keys.", None, "Make one of text with KeyRing.parse()."
        )
    for number, (name, value) in enumerate(keys.items(), 1):
        if not isinstance(name, str) or not ID.fullmatch(name):
            return ConfigurationError(
                f"Key {number} of the key ring has an id that cannot be one.",
                None,
                "An id is 1 to 32 letters and digits, and after the first also dots, dashes and underscores.",
            )
        if not isinstance(value, bytes) or len(value) != KEY_BYTES:
            return ConfigurationError(
                f"The key {name!r} is not {KEY_BYTES} bytes.", None, "Make one with KeyRing.generate_key()."
            )
    if not keys:
        return ConfigurationError("A key ring needs a key.", None, "Make one with KeyRing.generate_key().")
    if current is not None and current not in keys:
        return ConfigurationError("The current key of the key ring is not among its keys.")
    if plain not in ("accept", "refuse"):
        return ConfigurationError('The key ring\'s plain is "accept" or "refuse".')
    return None

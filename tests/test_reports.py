"""What reports of a storage's error show that have the local variables of each frame on its way: nothing secret."""

import contextlib
import errno
import gc
import json
import os
import resource
import sys
import traceback
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from core_tools import SocketTransport
from redis_servers import RedisServer, running, server
from test_sql_storage import MAKE, in_database
from values import token as some_token

from tradovate_auth import ConfigurationError, Credentials, StorageError, TokenProvider
from tradovate_auth.storage import (
    FileStorage,
    KeyRing,
    NotARecord,
    Storage,
    UnreadableRecord,
    from_url,
    pack,
    unpack,
)
from tradovate_auth.storage._files import LARGEST
from tradovate_auth.testing import Emulator
from tradovate_auth.testing._conforming import SECRETS, enter, full_record

__all__ = ["running", "server"]  # fixtures

KEY = "https://demo.tradovateapi.com/v1 trader"
RING, OTHER = KeyRing({"a": b"1" * 32}), KeyRing({"b": b"2" * 32})
FULL = full_record()
NEXT = replace(FULL, revision=2)
PLAIN = pack(FULL, KEY)
NEWER = PLAIN.replace(b'"schema":1', b'"schema":99')


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and everything that a report could say that it came from."""
    ahead: list[BaseException | None] = [error]
    while ahead:
        each = ahead.pop()
        if each is not None:
            yield each
            ahead += {each.__cause__, each.__context__}


def report(error: BaseException) -> str:
    """Return all that can be said of an error, without the frames of the test itself."""
    texts = []
    for each in chain(error):
        texts.append(f"{each!r} {each} {vars(each)}")
        shown = traceback.TracebackException.from_exception(each, capture_locals=True)
        texts += [f"{frame.name} {frame.locals}" for frame in shown.stack if frame.filename != __file__]
    return "\n".join(texts)


def discreet(call: Callable[[], object], *kinds: type[Exception], hidden: tuple[str, ...] = SECRETS) -> str:
    """Return the report of the error that a call raises, in which none of these texts is."""
    with pytest.raises(kinds or StorageError) as caught:
        call()
    text = report(caught.value)
    assert not [secret for secret in hidden if secret in text]
    return text


def failing(number: int) -> Callable[..., Any]:
    """Return a call of the operating system that fails."""

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_the_check_would_notice() -> None:
    """A frame that has a record's bytes in it is shown, also in what an error came from, and in what that was."""

    def read(data: bytes) -> None:
        try:
            json.loads(data[:-1])
        except ValueError:
            raise KeyError from None

    namespace: dict[str, Any] = {}
    source = "def enter(read, data):\n    read(data)\n"
    exec(compile(source, "elsewhere", "exec"), namespace)
    with pytest.raises(KeyError) as caught:
        namespace["enter"](read, pack(FULL, KEY))
    text = report(caught.value)
    assert "enter {" in text
    assert "JSONDecodeError" in text
    assert all(secret in text for secret in SECRETS[:2])


class Kept(NamedTuple):
    """A place with the full record in it."""

    make: Callable[[KeyRing | None], Storage]
    put: Callable[[bytes], object]
    """Puts bytes in the place of the record."""


@pytest.fixture(params=["file", "redis", "database"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    """Return a place of each kind."""
    if request.param == "file":
        folder = tmp_path / "sessions"
        return Kept(
            lambda keys: FileStorage(folder, keys=keys),
            lambda data: FileStorage(folder)._path(KEY, "json").write_bytes(data),
        )
    if request.param == "redis":
        redis: RedisServer = request.getfixturevalue("server")
        name, fields = redis.storage()._name(KEY, "record"), {"nonce": "another"}
        return Kept(
            lambda keys: redis.storage(keys=keys),
            lambda data: redis.client().hset(name, mapping={**fields, "data": data}),
        )
    path = tmp_path / "sessions.db"
    return Kept(
        lambda keys: MAKE(path, keys),
        lambda data: in_database(path, "UPDATE session SET data = ?", data),
    )


@pytest.mark.parametrize("way", ["load", "save"])
@pytest.mark.parametrize(
    ("writing", "reading"),
    [
        (RING, None),
        (RING, OTHER),
        (RING, KeyRing({"a": b"3" * 32})),
        (None, KeyRing({"a": b"1" * 32}, plain="refuse")),
        (None, None),
    ],
    ids=["no key", "another key", "a broken seal", "not sealed", "a newer schema"],
)
def test_what_cannot_be_read(kept: Kept, writing: KeyRing | None, reading: KeyRing | None, way: str) -> None:
    """A record that only others can read is in no frame of the error about it."""
    kept.make(writing).save(KEY, FULL)
    if writing is reading:
        kept.put(NEWER)
    storage = kept.make(reading)
    ways = {"load": lambda: storage.load(KEY), "save": lambda: storage.save(KEY, NEXT)}
    discreet(ways[way], UnreadableRecord)


@pytest.mark.parametrize(
    "data",
    [
        PLAIN[:-1],
        PLAIN.replace(b'"schema":1', b'"schema":0'),
        PLAIN.replace(b'"revision":1', b'"revision":2'),
        pack(FULL, KEY, RING)[:-1],
    ],
)
def test_what_is_no_record(data: bytes) -> None:
    """Nor is a damaged one, for a storage of one's own that is told of it."""
    discreet(lambda: unpack(data, KEY), NotARecord)


def test_what_cannot_be_written_down() -> None:
    """Nor one with something in it that no server can have sent."""
    odd = some_token(value=SECRETS[0], details={"odd": {1, 2}})
    discreet(lambda: pack(replace(FULL, tokens={"": odd}), KEY))


class TestFiles:
    """What the operating system refuses."""

    @pytest.fixture
    def storage(self, tmp_path: Path) -> FileStorage:
        """Return a storage with the full record in it."""
        storage = FileStorage(tmp_path / "sessions")
        assert storage.save(KEY, FULL)
        return storage

    def test_a_full_disk(self, storage: FileStorage) -> None:
        """A save that breaks off half way; that it did is still said, with the system's own error."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            text = discreet(lambda: storage.save(KEY, NEXT))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "OSError(27, 'File too large')" in text

    @pytest.mark.parametrize("data", [NEWER[:-1], NEWER + b" " * LARGEST])
    def test_rubbish_that_cannot_be_put_aside(
        self, storage: FileStorage, monkeypatch: pytest.MonkeyPatch, data: bytes
    ) -> None:
        """What is no record, or too large for one, may hold a token all the same."""
        storage._path(KEY, "json").write_bytes(data)
        monkeypatch.setattr(Path, "rename", failing(errno.EROFS))
        discreet(lambda: storage.load(KEY))


class TestRedis:
    """What a Redis refuses, and what its URL says."""

    def test_one_that_is_full(self, server: RedisServer) -> None:
        """A save that is refused."""
        storage = server.storage()
        storage.save(KEY, FULL)
        server.client().config_set("maxmemory", "1")
        try:
            assert "has no memory left" in discreet(lambda: storage.save(KEY, NEXT))
        finally:
            server.client().config_set("maxmemory", "0")

    @pytest.mark.parametrize("way", ["load", "save", "exclusive"])
    def test_one_that_is_gone(self, way: str) -> None:
        """Neither the record nor the password of the URL."""
        storage = from_url("redis://user:password-4711@127.0.0.1:1/0")
        ways = {
            "load": lambda: storage.load(KEY),
            "save": lambda: storage.save(KEY, FULL),
            "exclusive": lambda: enter(storage, KEY, 0.0),
        }
        discreet(ways[way], hidden=("4711", *SECRETS))

    @pytest.mark.parametrize(
        "url",
        [
            "redis://user:password-4711@host/x",
            "redis://user:password-4711@host?prefix=%7B",
            "file:///folder?password-4711",
            "nosuch://user:password-4711@host",
        ],
    )
    def test_a_url_that_is_none(self, url: str) -> None:
        """No frame of ours has a URL in it that cannot be used."""
        discreet(lambda: from_url(url), ConfigurationError, hidden=("4711",))

    def test_without_the_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nor one that could be used if the extra were installed."""
        monkeypatch.setitem(sys.modules, "redis", None)
        discreet(lambda: from_url("redis://user:password-4711@host"), ImportError, hidden=("4711",))


def test_what_a_provider_raises(tmp_path: Path, tradovate_emulator: Emulator) -> None:
    """Whoever asks for a token that lies in a record of a newer version gets an error with no token on its way."""

    def make() -> TokenProvider:
        return TokenProvider(
            Credentials(**tradovate_emulator.credentials),
            environment=tradovate_emulator.url,
            storage=FileStorage(tmp_path / "sessions"),
            transport=SocketTransport(),
            renewal="on-demand",
        )

    with make() as first:
        value, path = first.get().value, FileStorage(tmp_path / "sessions")._path(first._account.key, "json")
    path.write_bytes(path.read_bytes().replace(b'"schema":1', b'"schema":99'))
    with make() as second:
        text = discreet(
            second.get, UnreadableRecord, hidden=(value, tradovate_emulator.credentials["password"])
        )
    assert "newer version" in text


def test_an_error_holds_no_frames() -> None:
    """When an error is forgotten, the frames that it came through are gone too, with what their callers hold, at once."""

    class Held:
        """Something that a caller has in hand."""

    held: list[weakref.ref[Held]] = []

    def caller() -> None:
        mine = Held()
        held.append(weakref.ref(mine))
        with contextlib.suppress(StorageError):
            unpack(NEWER, KEY)

    gc.disable()
    try:
        caller()
        assert held[0]() is None
    finally:
        gc.enable()

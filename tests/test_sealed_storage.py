"""Sealed files: what providers and processes make of them, with the right keys, with old ones, and with none."""

import base64
import itertools
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import pytest
from core_tools import SocketTransport, World
from values import token as some_token

from tradovate_auth import ConfigurationError, Credentials, LoginRefused, StorageError, TokenProvider
from tradovate_auth._defaults import options_from_env
from tradovate_auth.requests import TradovateAuth
from tradovate_auth.storage import (
    FileStorage,
    KeyRing,
    MemoryStorage,
    Record,
    Storage,
    UnreadableRecord,
    from_url,
    pack,
)
from tradovate_auth.testing import Emulator
from tradovate_auth.testing.conformance import StorageConformance

KEY = "https://demo.tradovateapi.com/v1 trader"
OLD, NEW, OTHER = (bytes([number]) * 32 for number in (1, 2, 3))
RING = KeyRing({"old": OLD, "new": NEW})
SECRET = "token-value-4711"
FIRST = Record(revision=1, generation=1, tokens={"": some_token(value=SECRET)})
SECOND = Record(revision=2, generation=1)
VARIABLE = "TRADOVATE_STORAGE_KEYS"
TEXT = ",".join(f"{name}:{base64.b64encode(key).decode()}" for name, key in (("old", OLD), ("new", NEW)))


class TestSealedFileStorage(StorageConformance):
    """A folder of sealed records is a storage like any other."""

    @pytest.fixture
    def make_storage(self, tmp_path: Path) -> Callable[[], Storage]:
        """Return a maker of storages over one folder that is not there yet."""
        return lambda: FileStorage(tmp_path / "deep" / "sessions", keys=RING)

    @pytest.fixture
    def overwrite(self, storage: FileStorage) -> Callable[[str, bytes], None]:
        """Return what puts bytes in the place of a record."""

        def put(key: str, data: bytes) -> None:
            storage._path(key, "json").write_bytes(data)

        return put

    @pytest.fixture
    def unreachable(self, tmp_path: Path) -> Storage:
        """Return a storage whose folder is a file."""
        folder = tmp_path / "file"
        folder.touch()
        return FileStorage(folder, keys=RING)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return where the storage's folder will be."""
    return tmp_path / "sessions"


def record_file(folder: Path) -> Path:
    """Return the only record's file."""
    (path,) = folder.glob("*.json")
    return path


def kept(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file but the locks, by name."""
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.suffix != ".lock"}


def spellings(secret: str) -> list[bytes]:
    """Return a secret as it could lie somewhere: in the clear, or in what somebody takes for no longer in the clear."""
    raw = secret.encode()
    shifted = [base64.b64encode(b"x" * shift + raw)[shift + 1 : -4] for shift in range(3)]
    wide = [secret.encode("utf-16-le"), raw.hex().encode(), raw.hex().upper().encode()]
    return [raw, raw[::-1], quote(secret, safe="").encode(), *shifted, *wide]


def lying(folder: Path) -> bytes:
    """Return every byte of every file in a folder, and their names."""
    return b"\n".join(each.read_bytes() + os.fsencode(each.name) for each in sorted(folder.iterdir()))


class TestFiles:
    """What lies in the folder."""

    def test_the_token_is_not_readable(self, folder: Path) -> None:
        """With keys nothing of a token is in any file, in no spelling; without them it is."""
        FileStorage(folder, keys=RING).save(KEY, FIRST)
        assert not [form for form in spellings(SECRET) if form in lying(folder)]
        FileStorage(folder.with_name("plain")).save(KEY, FIRST)
        assert SECRET.encode() in lying(folder.with_name("plain"))

    def test_it_says_that_it_is_sealed(self, folder: Path) -> None:
        """The status shows that the storage seals; the repr shows with which ids, and no key."""
        storage = FileStorage(folder, keys=RING)
        assert storage.name == f"file {folder}, sealed"
        assert repr(storage) == f"FileStorage({str(folder)!r}, keys={RING!r})"

    @pytest.mark.parametrize("keys", [TEXT, {"old": OLD}, b""])
    def test_keys_are_a_ring(self, folder: Path, keys: Any) -> None:
        """Keys in another shape are a ConfigurationError at once, and are not shown."""
        with pytest.raises(ConfigurationError, match="needs a KeyRing") as caught:
            FileStorage(folder, keys=keys)
        assert TEXT not in str(caught.value)

    def test_it_is_not_handed_to_a_process(self, folder: Path) -> None:
        """A storage with keys is not pickled, as the keys are not."""
        with pytest.raises(TypeError, match="KeyRing is not pickled"):
            pickle.dumps(FileStorage(folder, keys=RING))

    def test_a_storage_in_use_is_sealed(self, folder: Path) -> None:
        """Whoever opens a plain record with keys reads it, and the next save seals it."""
        FileStorage(folder).save(KEY, FIRST)
        storage = FileStorage(folder, keys=RING)
        assert storage.load(KEY) == FIRST
        assert SECRET.encode() in lying(folder)
        assert storage.save(KEY, SECOND)
        assert b'"sealed"' in record_file(folder).read_bytes()
        assert storage.load(KEY) == SECOND

    def test_rubbish_is_put_aside(self, folder: Path) -> None:
        """A sealed file that was cut short is as little a record as a plain one: it is kept under another name."""
        storage = FileStorage(folder, keys=RING)
        storage.save(KEY, FIRST)
        whole = record_file(folder).read_bytes()
        record_file(folder).write_bytes(whole[:-1])
        found = storage.load(KEY)
        assert found is not None
        assert found.set_aside is not None
        assert "no JSON" in found.set_aside
        assert [each.read_bytes() for each in folder.glob("*aside*")] == [whole[:-1]]


UNREADABLE: dict[str, tuple[KeyRing | None, KeyRing | None, str]] = {
    "no keys": (RING, None, "sealed with the key 'new', which this process does not have"),
    "another ring": (
        RING,
        KeyRing({"old": OLD}),
        "sealed with the key 'new', which this process does not have",
    ),
    "another key": (RING, KeyRing({"new": OTHER}), "does not open with the key 'new'"),
    "not sealed": (None, KeyRing({"new": NEW}, plain="refuse"), "is not sealed"),
}


@pytest.mark.parametrize(("writer", "reader", "why"), UNREADABLE.values(), ids=list(UNREADABLE))
class TestUnreadable:
    """A record that is there and cannot be read."""

    def test_it_is_left_alone(
        self, folder: Path, writer: KeyRing | None, reader: KeyRing | None, why: str
    ) -> None:
        """Neither load nor save changes a byte or puts anything aside; both say why."""
        FileStorage(folder, keys=writer).save(KEY, FIRST)
        before = record_file(folder).read_bytes()
        storage = FileStorage(folder, keys=reader)
        for go in (
            lambda: storage.load(KEY),
            lambda: storage.save(KEY, FIRST),
            lambda: storage.save(KEY, SECOND),
        ):
            with pytest.raises(UnreadableRecord, match=re.escape(why)) as caught:
                go()
            assert "nobody logs in" in caught.value.advice
            assert SECRET not in str(caught.value)
        assert record_file(folder).read_bytes() == before
        assert not list(folder.glob("*aside*"))
        assert FileStorage(folder, keys=writer).load(KEY) == FIRST

    def test_nobody_logs_in(
        self,
        folder: Path,
        tradovate_emulator: Emulator,
        writer: KeyRing | None,
        reader: KeyRing | None,
        why: str,
    ) -> None:
        """Who has no token gets the error, whatever he was allowed to do without the storage; the session lives on."""
        with (
            provider(tradovate_emulator, FileStorage(folder, keys=writer)) as owner,
            provider(tradovate_emulator, FileStorage(folder, keys=reader)) as stranger,
            provider(
                tradovate_emulator, FileStorage(folder, keys=reader), login_without_storage=True
            ) as eager,
        ):
            token = owner.get()
            before = kept(folder)
            for each in (stranger, eager):
                with pytest.raises(StorageError, match=re.escape(why)):
                    each.get()
            assert tradovate_emulator.counts.logins == 1
            assert kept(folder) == before
            assert owner.renew().generation == token.generation + 1

    def test_a_token_in_hand_stays_in_use(
        self, world: World, folder: Path, writer: KeyRing | None, reader: KeyRing | None, why: str
    ) -> None:
        """Who has a token uses it until its end, though the record became unreadable; then comes the error, and no login."""
        world.provider(storage=FileStorage(folder, keys=writer, clock=world.clock)).get()
        storage = FileStorage(folder, keys=writer, clock=world.clock)
        adopter = world.provider(storage=storage)
        token = adopter.get()
        storage._keys = reader  # as if another process had sealed the record anew
        before = kept(folder)
        world.clock.advance(token.lifetime * 0.9)  # stale: each of these starts a flight beside the caller
        for _ in range(3):
            assert adopter.get() is token
            world.settled(adopter)
        world.clock.advance(token.lifetime * 0.2)
        with pytest.raises(StorageError, match=re.escape(why)):
            adopter.get()
        assert kept(folder) == before
        counts = world.server.counts
        assert (counts.logins, counts.renewals) == (1, 0)


def provider(
    server: Emulator, storage: Storage, *, who: dict[str, Any] | None = None, **options: Any
) -> TokenProvider:
    """Return a provider of the emulator's user, or of somebody else."""
    return TokenProvider(
        Credentials(**(who or server.credentials)),
        environment=server.url,
        storage=storage,
        transport=SocketTransport(),
        renewal="on-demand",
        **options,
    )


class Watched(FileStorage):
    """Remembers every record that it was to keep, in the clear."""

    def __init__(self, folder: Path, keys: KeyRing | None) -> None:
        super().__init__(folder, keys=keys)
        self.saved = b""

    def save(self, key: str, record: Record) -> bool:
        """See `Storage.save`."""
        self.saved += pack(record, key)
        return super().save(key, record)


class TestCredentials:
    """What is never stored."""

    @pytest.mark.parametrize("keys", [None, RING], ids=["plain", "sealed"])
    def test_neither_password_nor_secret(
        self, folder: Path, tradovate_emulator: Emulator, keys: KeyRing | None
    ) -> None:
        """After a login and a renewal neither is anywhere, in no spelling, in the files or under their seals. The token is,
        where there is no seal.
        """
        storage = Watched(folder, keys)
        with provider(tradovate_emulator, storage) as made:
            made.get()
            value = made.renew().value
        lies = lying(folder)
        assert value.encode() in storage.saved
        assert (value.encode() in lies) == (keys is None)
        secrets = Credentials(**tradovate_emulator.credentials).secrets()
        assert len(secrets) == 2
        for form in itertools.chain.from_iterable(map(spellings, secrets)):
            assert form not in lies
            assert form not in storage.saved

    @pytest.mark.parametrize("keys", [None, RING], ids=["plain", "sealed"])
    def test_nor_a_refused_one(
        self, folder: Path, tradovate_emulator: Emulator, keys: KeyRing | None
    ) -> None:
        """That credentials were refused is remembered by what does not betray them."""
        storage = Watched(folder, keys)
        wrong = {**tradovate_emulator.credentials, "password": "wrong-password-4714"}
        with provider(tradovate_emulator, storage, who=wrong) as made, pytest.raises(LoginRefused):
            made.get()
        lies = lying(folder)
        assert b'"latches":[{' in storage.saved
        for form in itertools.chain.from_iterable(map(spellings, Credentials(**wrong).secrets())):
            assert form not in lies
            assert form not in storage.saved


class TestEnvironment:
    """Keys that come with the environment's storage."""

    @pytest.fixture(autouse=True)
    def bare(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take away every variable of ours."""
        for name in [name for name in os.environ if name.startswith("TRADOVATE_")]:
            monkeypatch.delenv(name)

    def test_the_url_of_a_storage_and_keys(self, folder: Path) -> None:
        """A storage is opened with keys; what stays in memory needs none."""
        storage = from_url(folder.as_uri(), keys=RING)
        storage.save(KEY, FIRST)
        assert storage.name.endswith(", sealed")
        assert b'"sealed"' in record_file(folder).read_bytes()
        assert isinstance(from_url("memory://", keys=RING), MemoryStorage)

    @pytest.mark.parametrize("where", ["environment", "options"])
    def test_a_named_storage_is_sealed(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, where: str
    ) -> None:
        """The keys in the environment are for the storage that is named there, or by its URL in the program."""
        monkeypatch.setenv(VARIABLE, TEXT)
        if where == "environment":
            monkeypatch.setenv("TRADOVATE_STORAGE", folder.as_uri())
        options = options_from_env({"storage": folder.as_uri()} if where == "options" else {})
        assert repr(options["storage"]) == repr(FileStorage(folder, keys=RING))

    def test_a_file_of_keys(self, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """The keys may lie in a file that a variable names."""
        (tmp_path / "keys").write_text(TEXT)
        monkeypatch.setenv(f"{VARIABLE}_FILE", str(tmp_path / "keys"))
        options = options_from_env({"storage": folder.as_uri()})
        assert repr(options["storage"]) == repr(FileStorage(folder, keys=RING))

    def test_without_keys(self, folder: Path) -> None:
        """No variable, no seal: the URL is handed on as it is."""
        assert options_from_env({"storage": folder.as_uri()}) == {"storage": folder.as_uri()}

    @pytest.mark.parametrize("suffix", ["", "_FILE"])
    def test_keys_that_got_lost(self, folder: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
        """An empty variable of keys is an error, and not a storage that anybody can read."""
        monkeypatch.setenv(VARIABLE + suffix, "")
        with pytest.raises(ConfigurationError, match=f"{VARIABLE} is not set, or empty"):
            options_from_env({"storage": folder.as_uri()})

    @pytest.mark.parametrize("storage", [None, MemoryStorage()])
    def test_a_storage_that_is_none_of_them(
        self, monkeypatch: pytest.MonkeyPatch, storage: Storage | None
    ) -> None:
        """Where the program hands over a storage, or wants the process's own, keys are not even looked at."""
        monkeypatch.setenv("TRADOVATE_STORAGE", "file:///nowhere")
        monkeypatch.setenv(VARIABLE, "rubbish")
        assert options_from_env({"storage": storage}) == {"storage": storage}

    @pytest.mark.parametrize("suffix", ["", "_FILE"])
    def test_keys_for_nothing(self, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
        """Keys without any storage are an error: its name got lost, and each process would open a session of its own."""
        monkeypatch.setenv(VARIABLE + suffix, "rubbish-4711")
        for storage in (None, ""):
            if storage is not None:
                monkeypatch.setenv("TRADOVATE_STORAGE", storage)
            with pytest.raises(
                ConfigurationError, match=f"{VARIABLE}{suffix} is set, but no storage"
            ) as caught:
                options_from_env({})
            assert "TRADOVATE_STORAGE" in caught.value.advice
            assert "4711" not in str(caught.value)
        monkeypatch.setenv(VARIABLE + suffix, "")
        assert options_from_env({}) == {}

    def test_providers_and_adapters(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, tradovate_emulator: Emulator
    ) -> None:
        """`from_env()` of both goes by it, and they share the sealed session."""
        for name, value in tradovate_emulator.credentials.items():
            monkeypatch.setenv(f"TRADOVATE_{name.upper()}", str(value))
        monkeypatch.setenv("TRADOVATE_ENVIRONMENT", tradovate_emulator.url)
        monkeypatch.setenv("TRADOVATE_STORAGE", folder.as_uri())
        monkeypatch.setenv(VARIABLE, TEXT)
        with TokenProvider.from_env() as made:
            token = made.get()
            assert made.status().storage.endswith(", sealed")
        auth = TradovateAuth.from_env()
        assert auth.provider.get().value == token.value
        auth.close()
        assert not [form for form in spellings(token.value) if form in lying(folder)]
        assert tradovate_emulator.counts.logins == 1


BOT = """
import json, sys
from dataclasses import replace
from tradovate_auth import Credentials, TokenProvider
from tradovate_auth.storage import FileStorage, KeyRing
given = json.loads(sys.argv[1])
storage = FileStorage(given["folder"], keys=KeyRing.from_env())
provider = TokenProvider(
    Credentials(**given["credentials"]), environment=given["url"], storage=storage, renewal="on-demand"
)
for _ in sys.stdin:
    token = provider.get()
    record = storage.load(given["key"])
    saved = storage.save(given["key"], replace(record, revision=record.revision + 1))
    print(json.dumps([token.generation, record.revision, saved]), flush=True)
provider.close()
"""


class Bot:
    """A process with keys of its own that uses the session, and saves its record again, when it is told to."""

    def __init__(self, given: dict[str, Any], keys: str) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", BOT, json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, VARIABLE: keys},
        )

    def works(self) -> list[int]:
        """Return the generation of its token, the revision that it found, and whether it could save the next one."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.write("\n")
        self._popen.stdin.flush()
        told: list[int] = json.loads(self._popen.stdout.readline())
        return told

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.communicate()


def test_a_rotation_over_two_processes(folder: Path, tradovate_emulator: Emulator) -> None:
    """Processes that are restarted with another ring, one after another, share one session all the time: the new key comes
    in front of the old one, then behind it, then the old one goes.
    """
    server = tradovate_emulator
    with provider(server, FileStorage(folder)) as made:
        key = made._account.key
    given = {"credentials": server.credentials, "url": server.url, "folder": str(folder), "key": key}
    old, new = TEXT.split(",")
    seals = []
    for before, after in itertools.pairwise([old, f"{new},{old}", f"{old},{new}", new]):
        with Bot(given, before) as late, Bot(given, after) as early:
            revisions = []
            for bot in (late, early, late, early):
                generation, revision, saved = bot.works()
                assert (generation, saved) == (1, True)
                revisions.append(revision)
                seals.append(json.loads(FileStorage(folder)._path(key, "json").read_bytes())["key"])
            assert revisions == list(range(revisions[0], revisions[0] + 4))
    assert seals == ["old"] * 4 + ["old", "new"] * 2 + ["new"] * 4
    assert server.counts.logins == 1

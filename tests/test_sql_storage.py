"""The storage in a database that the how-to shows: the very code on the page, under the suite, and with processes' faults."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from core_tools import SocketTransport, at_once, eventually

from tradovate_auth import Credentials, TokenProvider
from tradovate_auth.storage import KeyRing, Record, Storage, StorageBusy, UnreadableRecord
from tradovate_auth.testing import Emulator
from tradovate_auth.testing._conforming import SECRETS, enter, full_record
from tradovate_auth.testing.conformance import StorageConformance

PAGE = Path(__file__).resolve().parents[1] / "docs" / "how-to.md"
KEY = "https://demo.tradovateapi.com/v1 trader"
KEYS = KeyRing({"a": bytes(32)})


def shown() -> dict[str, Any]:
    """Return what the page's example defines."""
    page = PAGE.read_text(encoding="utf-8")
    before, code = page.split("class SqliteStorage", 1)
    start = before.rindex("```python\n") + len("```python\n")
    source = before[start:] + "class SqliteStorage" + code[: code.index("```")]
    names: dict[str, Any] = {"__name__": "shown"}
    # Below as many empty lines as stand above it, so that a traceback shows the page's own line.
    exec(compile("\n" * page.count("\n", 0, start) + source, str(PAGE), "exec"), names)
    return names


SHOWN = shown()
MAKE: Callable[..., Storage] = SHOWN["SqliteStorage"]


class TestSqliteStorage(StorageConformance):
    """Records in the clear."""

    keys: KeyRing | None = None

    @pytest.fixture
    def make_storage(self, tmp_path: Path) -> Callable[[], Storage]:
        """Return a maker of storages over one database that is not there yet."""
        return lambda: MAKE(tmp_path / "sessions.db", self.keys)

    @pytest.fixture
    def make_mortal(
        self, make_storage: Callable[[], Storage], monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[], Storage]:
        """Return a maker of storages with a short lease."""
        monkeypatch.setitem(SHOWN, "LEASE", 0.5)
        return make_storage

    @pytest.fixture
    def overwrite(self, tmp_path: Path) -> Callable[[str, bytes], None]:
        """Return what puts bytes in the place of a record."""

        def put(key: str, data: bytes) -> None:
            in_database(tmp_path / "sessions.db", "UPDATE session SET data = ? WHERE key = ?", data, key)

        return put

    @pytest.fixture
    def unreachable(self, tmp_path: Path) -> Storage:
        """Return a storage whose folder is not there."""
        return MAKE(tmp_path / "absent" / "sessions.db", self.keys)


class TestSealedSqliteStorage(TestSqliteStorage):
    """Sealed records."""

    keys = KEYS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the database will be."""
    return tmp_path / "sessions.db"


def in_database(path: Path, statement: str, *values: object) -> list[Any]:
    """Run a statement on the database from outside."""
    with sqlite3.connect(path) as database:
        rows = database.execute(statement, values).fetchall()
    database.close()
    return rows


def test_it_is_sealed_with_keys_only(path: Path) -> None:
    """With keys no secret of a record is in the database, without them all are."""
    MAKE(path, KEYS).save(KEY, full_record())
    assert not [secret for secret in SECRETS if secret.encode() in path.read_bytes()]
    MAKE(path).save("another key", full_record())
    assert all(secret.encode() in path.read_bytes() for secret in SECRETS)


def test_what_cannot_be_read_is_left_alone(path: Path) -> None:
    """Without the key, load and save change nothing and say which key is missing."""
    MAKE(path, KEYS).save(KEY, Record(revision=1))
    before = in_database(path, "SELECT * FROM session")
    for go in (lambda: MAKE(path).load(KEY), lambda: MAKE(path).save(KEY, Record(revision=2))):
        with pytest.raises(UnreadableRecord, match="key 'a'"):
            go()
    assert in_database(path, "SELECT * FROM session") == before


def test_what_is_no_record_is_put_aside(path: Path) -> None:
    """Rubbish is not overwritten by a save; a load keeps it under another key, says so once, and a new record follows."""
    storage = MAKE(path)
    storage.save(KEY, Record(revision=1))
    in_database(path, "UPDATE session SET data = X'3031'")
    assert not storage.save(KEY, Record(revision=2))
    found = storage.load(KEY)
    assert found is not None
    assert found.set_aside is not None
    assert found.set_aside.endswith(": no JSON")
    assert storage.load(KEY) is None
    assert storage.save(KEY, Record(revision=1))
    kept = dict(in_database(path, "SELECT key, data FROM session WHERE key != ?", KEY))
    assert kept == {found.set_aside.removesuffix(": no JSON"): b"01"}


def test_a_lease_ends(path: Path) -> None:
    """A holder that was killed keeps others out for the length of its lease; one that comes back later is told."""
    storage = MAKE(path)
    with storage.exclusive(KEY, 0.0) as lease:
        assert lease.held()
        with pytest.raises(StorageBusy, match="Somebody else holds"):
            enter(storage, KEY, 0.0)
        in_database(path, "UPDATE lease SET until = 0")
        assert not lease.held()
        with storage.exclusive(KEY, 0.0) as other:
            assert other.held()
            assert not lease.held()
        assert in_database(path, "SELECT * FROM lease") == []


def test_providers_share_a_session(path: Path, tradovate_emulator: Emulator) -> None:
    """Providers with a storage of their own each, started at the same moment, log in once."""
    tradovate_emulator.configure(login_delay=0.2)

    def work() -> str:
        with TokenProvider(
            Credentials(**tradovate_emulator.credentials),
            environment=tradovate_emulator.url,
            storage=MAKE(path, KEYS),
            transport=SocketTransport(),
            renewal="on-demand",
        ) as provider:
            return provider.get(60).value

    assert len(set(at_once(4, work))) == 1
    assert tradovate_emulator.counts.logins == 1
    eventually(lambda: in_database(path, "SELECT * FROM lease") == [])

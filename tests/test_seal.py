"""The keys that seal: where they come from, what is no key, and that nothing ever shows one."""

import base64
import copy
import logging
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keyring
import pytest
from core_tools import run_script
from hypothesis import given, settings
from hypothesis import strategies as st
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked

from tradovate_auth import ConfigurationError
from tradovate_auth.storage import KeyRing, _keytext

OLD, NEW = bytes(range(32)), bytes([251, 255] * 16)  # the second one has + and / in its base64
OLD_TEXT, NEW_TEXT = (base64.b64encode(key).decode() for key in (OLD, NEW))
TEXT = f"old:{OLD_TEXT}\nnew:{NEW_TEXT}\n"
VARIABLE = "TRADOVATE_STORAGE_KEYS"
CONTEXT = b"where it lies"


def forms(key: bytes) -> list[str]:
    """Return a key as it could be shown."""
    return [
        base64.b64encode(key).decode()[:-1],
        base64.urlsafe_b64encode(key).decode()[:-1],
        key.hex(),
        repr(key)[2:-1],
        str(list(key))[1:-1],
    ]


def assert_hidden(*texts: str) -> None:
    """Assert that no text shows a key in any form."""
    assert not [form for key in (OLD, NEW) for form in forms(key) for text in texts if form in text]


def problem(call: Callable[[], object]) -> ConfigurationError:
    """Return the ConfigurationError of a call. Neither it, nor a report of it with local variables, shows a key."""
    with pytest.raises(ConfigurationError) as caught:
        call()
    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack
    # Without the frames of the test itself, which has to name the keys somewhere.
    shown = [f"{frame.name} {frame.locals}" for frame in frames if frame.filename != __file__]
    assert shown
    assert_hidden(str(caught.value), repr(caught.value), *shown)
    assert caught.value.__cause__ is None
    return caught.value


def opens(ring: KeyRing, key_id: str, key: bytes) -> bool:
    """Return whether a ring has this key under this id."""
    return ring.unseal(key_id, KeyRing({key_id: key}).seal(b"data", CONTEXT), CONTEXT) == b"data"


class TestRing:
    """What a ring is."""

    def test_the_last_key_seals(self) -> None:
        """Keys stand in the order of their age, so the newest one seals, unless another is named."""
        keys = {"old": OLD, "new": NEW}
        assert (KeyRing(keys).current, KeyRing(keys).ids) == ("new", ("old", "new"))
        assert KeyRing(keys, current="old").current == "old"
        assert (
            KeyRing(keys, current="old").unseal("old", KeyRing(keys, current="old").seal(b"x", b""), b"")
            == b"x"
        )

    def test_it_keeps_what_it_was_given(self) -> None:
        """Changing the mapping afterwards changes nothing."""
        keys = {"old": OLD}
        ring = KeyRing(keys)
        keys["old"] = NEW
        keys["new"] = NEW
        assert ring.ids == ("old",)
        assert opens(ring, "old", OLD)

    def test_it_does_not_change(self) -> None:
        """No attribute can be set, and there is room for no other."""
        ring: Any = KeyRing({"old": OLD})
        for name in ("current", "plain", "_current", "_ciphers", "anything"):
            with pytest.raises(AttributeError):
                setattr(ring, name, "new")
        assert ring.current == "old"
        assert not hasattr(ring, "__dict__")

    @given(st.binary(max_size=300), st.binary(max_size=60))
    @settings(deadline=None)
    def test_what_is_sealed_is_opened(self, data: bytes, context: bytes) -> None:
        """Data comes back in the same context, and in no other; it is as much longer as is said."""
        ring = KeyRing({"old": OLD, "new": NEW})
        sealed = ring.seal(data, context)
        assert len(sealed) == len(data) + 28
        assert ring.unseal("new", sealed, context) == data
        assert ring.unseal("new", sealed, context + b"!") is None
        assert ring.unseal("old", sealed, context) is None

    def test_the_standards_own_example(self) -> None:
        """It is AES-256-GCM with a nonce of 12 bytes in front and a tag of 16 behind: a known answer opens (NIST, case 14)."""
        sealed = bytes(12) + bytes.fromhex("cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919")
        assert KeyRing({"zero": bytes(32)}).unseal("zero", sealed, b"") == bytes(16)

    @pytest.mark.parametrize("name", ["a", "2026-11", "A.b_c-9", "x" * 32])
    def test_ids(self, name: str) -> None:
        """An id is short and has no character that means something elsewhere."""
        assert KeyRing({name: OLD}).ids == KeyRing.parse(f"{name}:{OLD_TEXT}").ids == (name,)

    @pytest.mark.parametrize(
        "name", ["", "x" * 33, "-a", ".", "a b", "a\n", "\u00e4", "a:b", "a/b", OLD_TEXT, 7, None, b"a"]
    )
    def test_what_is_no_id(self, name: Any) -> None:
        """Anything else is refused by its place and not shown: it may be a key in the wrong place."""
        error = problem(lambda: KeyRing({"fine": NEW, name: OLD}))
        assert error.message == "Key 2 of the key ring has an id that cannot be one."
        assert "1 to 32 letters and digits" in error.advice

    @pytest.mark.parametrize("key", [b"", OLD[:31], OLD + b"x", OLD[:16], OLD_TEXT, bytearray(OLD), None])
    def test_what_is_no_key(self, key: Any) -> None:
        """A key of another length or type is refused by its id; a key as text belongs into `parse`."""
        error = problem(lambda: KeyRing({"old": key}))
        assert error.message == "The key 'old' is not 32 bytes."
        assert "generate_key" in error.advice

    @pytest.mark.parametrize("keys", [TEXT, OLD, [OLD], None])
    def test_what_is_no_mapping(self, keys: Any) -> None:
        """Text belongs into `parse`; the error says so, and does not show what was given."""
        error = problem(lambda: KeyRing(keys))
        assert error.message == "KeyRing needs a mapping of ids to keys."
        assert "KeyRing.parse" in error.advice

    def test_an_empty_ring(self) -> None:
        """No key is no way to seal anything."""
        for make in (lambda: KeyRing({}), lambda: KeyRing.parse(""), lambda: KeyRing.parse(" \n,# none\n")):
            assert "needs a key" in problem(make).message

    def test_the_current_key_is_one_of_them(self) -> None:
        """An id that is not there is refused, and not shown."""
        error = problem(lambda: KeyRing({"old": OLD}, current=NEW_TEXT))
        assert "current key of the key ring is not among" in error.message

    def test_what_to_do_about_plain_records(self) -> None:
        """There are two answers, and the first is the default."""
        assert KeyRing({"old": OLD}).plain == "accept"
        assert KeyRing({"old": OLD}, plain="refuse").plain == "refuse"
        wrong: Any = "sometimes"
        assert '"accept" or "refuse"' in problem(lambda: KeyRing({"old": OLD}, plain=wrong)).message


class TestText:
    """Keys as text."""

    def test_a_made_key_is_one(self) -> None:
        """A generated key is 32 bytes as URL-safe base64, another one each time, and can be read back."""
        made = {KeyRing.generate_key() for _ in range(50)}
        assert len(made) == 50
        for text in made:
            assert opens(KeyRing.parse(f"a:{text}"), "a", base64.urlsafe_b64decode(text))

    @pytest.mark.parametrize(
        "text",
        [
            TEXT,
            f"old:{OLD_TEXT},new:{NEW_TEXT}",
            f"  old : {OLD_TEXT} ,\r\n\r\n new:{NEW_TEXT},",
            f"# of October\nold:{OLD_TEXT}  # retired, but needed\n\nnew:{NEW_TEXT}",
            f"old:{OLD_TEXT[:-1]},new:{NEW_TEXT.replace('+', '-').replace('/', '_')}",
        ],
    )
    def test_lines_or_commas(self, text: str) -> None:
        """Entries stand on lines or between commas; either alphabet of base64 does, with or without its padding."""
        ring = KeyRing.parse(text)
        assert (ring.ids, ring.current) == (("old", "new"), "new")
        assert opens(ring, "old", OLD)
        assert opens(ring, "new", NEW)

    @pytest.mark.parametrize(
        "entry",
        [
            OLD_TEXT,
            f":{OLD_TEXT}",
            f"{OLD_TEXT}:new",
            f"a b:{OLD_TEXT}",
            "new:",
            f"new:{OLD_TEXT[:-2]}",
            f"new:{OLD_TEXT[:-1]}A",
            f"new:{OLD_TEXT}=",
            f"new:{OLD_TEXT[:20]} {OLD_TEXT[20:]}",
            f"new:{OLD.hex()}",
            f"new;{OLD_TEXT}",
            "new:" + "\u00e4" * 43,
        ],
    )
    def test_what_is_no_entry(self, entry: str) -> None:
        """Anything else is refused by its place, with how it is written, and nothing of it is shown."""
        error = problem(lambda: KeyRing.parse(f"# comment\nold:{NEW_TEXT}\n{entry}"))
        assert error.message.startswith("Entry 2 of the key ring is not an id, a colon and a key")
        assert "id:key, one per line" in error.advice

    def test_an_id_has_one_key(self) -> None:
        """Two keys under one id are a mistake, even if they are the same."""
        error = problem(lambda: KeyRing.parse(f"old:{OLD_TEXT},old:{OLD_TEXT}"))
        assert error.message == "The key ring has two keys with the id 'old'."

    def test_plain_is_handed_on(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chain: "Chain"
    ) -> None:
        """However the keys come, the caller says what becomes of records that are not sealed."""
        file = private(tmp_path)
        monkeypatch.setenv(VARIABLE, TEXT)
        chain.set_password("tradovate_auth", "storage-keys", TEXT)
        for ring in (
            KeyRing.parse(TEXT, plain="refuse"),
            KeyRing.from_env(plain="refuse"),
            KeyRing.from_file(file, plain="refuse"),
            KeyRing.from_keyring(plain="refuse"),
        ):
            assert ring.plain == "refuse"


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Return the patcher of an environment without our variables."""
    for name in (VARIABLE, f"{VARIABLE}_FILE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def private(folder: Path, text: str = TEXT) -> Path:
    """Return a file of this user alone that holds a text."""
    path = folder / "keys"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path


class TestEnvironment:
    """Keys from environment variables."""

    def test_the_variable(self, bare: pytest.MonkeyPatch) -> None:
        """The variable holds the text; another one can be named."""
        bare.setenv(VARIABLE, TEXT)
        bare.setenv("BOT_KEYS", f"bot:{OLD_TEXT}")
        assert KeyRing.from_env().ids == ("old", "new")
        assert KeyRing.from_env("BOT_KEYS").ids == ("bot",)

    def test_a_file_may_hold_it(
        self, bare: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """As with credentials."""
        bare.setenv(f"{VARIABLE}_FILE", str(private(tmp_path)))
        bare.setenv(VARIABLE, "")
        assert KeyRing.from_env().ids == ("old", "new")
        assert not caplog.records

    @pytest.mark.parametrize("mode", [0o444, 0o640, 0o620, 0o601])
    def test_a_file_that_is_open_to_others(
        self, bare: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int
    ) -> None:
        """Containers mount their secrets so: the keys are used, and the log is told once, without keys or path."""
        bare.setattr(_keytext, "_TOLD", set())
        path = private(tmp_path)
        path.chmod(mode)
        bare.setenv(f"{VARIABLE}_FILE", str(path))
        for _ in range(3):
            assert KeyRing.from_env().ids == ("old", "new")
        (record,) = caplog.records
        assert (record.name, record.levelname) == ("tradovate_auth", "WARNING")
        assert (
            f"{VARIABLE}_FILE names is open to others than its owner: its mode is {mode:04o}." in caplog.text
        )
        assert "chmod 600" in caplog.text
        assert str(path) not in caplog.text
        assert_hidden(caplog.text)

    @pytest.mark.parametrize("value", [None, ""])
    def test_nothing_there(self, bare: pytest.MonkeyPatch, value: str | None) -> None:
        """A variable that is not set, or empty, is named, with what belongs into it."""
        if value is not None:
            bare.setenv(VARIABLE, value)
        error = problem(KeyRing.from_env)
        assert error.message == f"The environment variable {VARIABLE} is not set, or empty."
        assert "id:key" in error.advice

    def test_two_sources(self, bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Both at once are a mistake."""
        bare.setenv(VARIABLE, TEXT)
        bare.setenv(f"{VARIABLE}_FILE", str(private(tmp_path)))
        assert problem(KeyRing.from_env).message.startswith(f"{VARIABLE} and {VARIABLE}_FILE are both set")

    def test_no_such_file(self, bare: pytest.MonkeyPatch) -> None:
        """A file that cannot be read is named by its variable, not by what somebody may have put there instead."""
        bare.setenv(f"{VARIABLE}_FILE", OLD_TEXT)
        with pytest.raises(
            ConfigurationError, match=f"file that {VARIABLE}_FILE names cannot be read"
        ) as caught:
            KeyRing.from_env()
        assert_hidden(str(caught.value))

    def test_wrong_text(self, bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """What is wrong with the text is said as by `parse`, and nothing of it is shown."""
        bare.setenv(VARIABLE, f"old:{OLD_TEXT},{NEW_TEXT}")
        assert problem(KeyRing.from_env).message.startswith("Entry 2")
        bare.delenv(VARIABLE)
        bare.setenv(f"{VARIABLE}_FILE", str(private(tmp_path, f"{OLD_TEXT}\n")))
        assert problem(KeyRing.from_env).message.startswith("Entry 1")


class TestFile:
    """Keys from a file."""

    @pytest.mark.parametrize("mode", [0o600, 0o400])
    def test_a_private_file(self, tmp_path: Path, mode: int) -> None:
        """A file that only its owner can read is read; a mark that an editor puts first means nothing."""
        path = private(tmp_path, "\ufeff" + TEXT)
        path.chmod(mode)
        assert KeyRing.from_file(path).ids == KeyRing.from_file(str(path)).ids == ("old", "new")

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o666, 0o601])
    def test_an_open_file(self, tmp_path: Path, mode: int) -> None:
        """One that others may read or write is refused, with what to do; it is not changed, for it may be too late."""
        path = private(tmp_path)
        path.chmod(mode)
        error = problem(lambda: KeyRing.from_file(path))
        assert f"open to others than its owner: its mode is {mode:04o}" in error.message
        assert "chmod 600" in error.advice
        assert "replace the keys" in error.advice
        assert path.stat().st_mode & 0o777 == mode

    def test_no_file(self, tmp_path: Path) -> None:
        """What cannot be read is said by the kind of error. The path is not repeated: it may be a key."""
        for path in (tmp_path, tmp_path / "absent", OLD_TEXT, "a\0b"):
            with pytest.raises(
                ConfigurationError, match="The file of the key ring cannot be read: "
            ) as caught:
                KeyRing.from_file(path)
            assert str(path) not in str(caught.value)

    def test_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        """A file of another kind is no key ring, and the error holds none of its bytes."""
        path = private(tmp_path)
        path.write_bytes(b"old:" + OLD)
        error = problem(lambda: KeyRing.from_file(path))
        assert error.message.startswith("Entry 1")
        assert error.__context__ is None

    def test_a_comment_in_any_encoding(self, tmp_path: Path) -> None:
        """A comment is nobody's business."""
        path = private(tmp_path)
        path.write_bytes(b"# f\xfcr den Bot\n" + TEXT.encode())
        assert KeyRing.from_file(path).current == "new"

    def test_systems_without_modes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where modes mean nothing, as on Windows, they are not looked at."""
        path = private(tmp_path)
        path.chmod(0o666)
        file = str(path)
        with monkeypatch.context() as patched:
            patched.setattr("tradovate_auth.storage._keytext._MODES", False)
            assert KeyRing.from_file(file).current == "new"


class Chain(KeyringBackend):
    """A keychain in memory, for the real keyring package."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the library's own is not typed
        self.kept: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service: str, username: str) -> str | None:
        """Return what is kept, unless it is locked."""
        if self.locked:
            raise KeyringLocked(TEXT)
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        """Keep a text."""
        self.kept[service, username] = password


@pytest.fixture
def chain() -> Iterator[Chain]:
    """Yield the keychain that the keyring package uses meanwhile."""
    before, made = keyring.get_keyring(), Chain()
    keyring.set_keyring(made)
    yield made
    keyring.set_keyring(before)


class TestKeychain:
    """Keys from the operating system's keychain."""

    def test_what_is_there(self, chain: Chain) -> None:
        """The text lies under a service and a user, both of which can be others."""
        keyring.set_password("tradovate_auth", "storage-keys", TEXT.strip().replace("\n", ","))
        keyring.set_password("bots", "mine", f"bot:{OLD_TEXT}")
        assert KeyRing.from_keyring().current == "new"
        assert KeyRing.from_keyring("bots", "mine").ids == ("bot",)

    @pytest.mark.parametrize("kept", [None, ""])
    def test_nothing_is_there(self, chain: Chain, kept: str | None) -> None:
        """The error says under what nothing was found, and how to put it there."""
        if kept is not None:
            keyring.set_password("tradovate_auth", "storage-keys", kept)
        error = problem(KeyRing.from_keyring)
        assert "has nothing under 'tradovate_auth' and 'storage-keys'" in error.message
        assert "keyring set tradovate_auth storage-keys" in error.advice

    def test_a_locked_one(self, chain: Chain) -> None:
        """A keychain that refuses is a typed error that shows nothing of what it says."""
        chain.locked = True
        error = problem(KeyRing.from_keyring)
        assert error.message == "The keychain cannot be asked for the key ring: KeyringLocked."
        assert "TRADOVATE_STORAGE_KEYS" in error.advice

    def test_none_at_all(self, chain: Chain) -> None:
        """A machine without a keychain, such as a container, is told so in the same way."""
        from keyring.backends.fail import Keyring as Nothing

        keyring.set_keyring(Nothing())  # type: ignore[no-untyped-call]  # as above
        assert problem(KeyRing.from_keyring).message.endswith("NoKeyringError.")

    def test_wrong_text(self, chain: Chain) -> None:
        """What lies there is read as any other text."""
        keyring.set_password("tradovate_auth", "storage-keys", OLD_TEXT)
        assert problem(KeyRing.from_keyring).message.startswith("Entry 1")


class TestSecrecy:
    """Nothing shows a key."""

    def test_no_text_shows_it(self) -> None:
        """A ring's repr has the ids; no other way of making text of it has more."""
        ring = KeyRing({"old": OLD, "new": NEW})
        record = logging.LogRecord("test", logging.INFO, __file__, 1, "%s %r", (ring, ring), None)
        texts = [repr(ring), str(ring), f"{ring}", repr([ring]), record.getMessage()]
        assert_hidden(*texts, *(repr(getattr(ring, name)) for name in dir(ring)))
        assert repr(ring) == "KeyRing(ids=['old', 'new'], current='new', plain='accept')"

    def test_no_traceback_shows_it(self) -> None:
        """Nor does a report of an error with local variables."""

        def fail(value: object) -> None:
            raise RuntimeError(type(value).__name__)

        try:
            fail(KeyRing({"old": OLD, "new": NEW}))
        except RuntimeError as error:
            text = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
        assert "KeyRing(ids=" in text
        assert_hidden(text)

    def test_the_check_would_notice(self) -> None:
        """The forms that these tests look for are those in which keys are shown."""
        for text in (OLD_TEXT, repr({"old": OLD}), OLD.hex(), KeyRing.parse.__doc__ or ""):
            shown = any(form in text for form in forms(OLD))
            assert shown == (text != KeyRing.parse.__doc__)

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_it_is_not_pickled(self, protocol: int) -> None:
        """A ring does not leave its process; a copy of it is itself."""
        ring = KeyRing({"old": OLD})
        with pytest.raises(TypeError, match="KeyRing is not pickled"):
            pickle.dumps([ring], protocol)
        assert copy.copy(ring) is copy.deepcopy(ring) is ring


def without(library: str, script: str) -> "subprocess.CompletedProcess[str]":
    """Run a script in a process in which a library is not installed; return how it ended."""
    return run_script(f"import sys\nsys.modules[{library!r}] = None\n{script}")


class TestExtras:
    """Libraries that are not installed."""

    @pytest.mark.parametrize(
        ("library", "extra", "make"),
        [
            ("cryptography", "crypto", "KeyRing({'a': bytes(32)})"),
            ("cryptography", "crypto", "KeyRing.from_env()"),
            ("keyring", "keyring", "KeyRing.from_keyring()"),
        ],
    )
    def test_the_extra_is_named(
        self, monkeypatch: pytest.MonkeyPatch, library: str, extra: str, make: str
    ) -> None:
        """The error says what to install, when the ring is made and not when it is first used; it shows no key."""
        monkeypatch.setenv(VARIABLE, TEXT)
        ended = without(library, f"from tradovate_auth.storage import KeyRing\n{make}")
        assert (
            f"ImportError: This needs the extra {extra}: pip install 'tradovate-auth[{extra}]'"
            in ended.stderr
        )
        assert_hidden(ended.stderr)

    def test_the_report_of_a_missing_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A report of that error with local variables shows no key either."""
        monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
        monkeypatch.setenv(VARIABLE, TEXT)
        with pytest.raises(ImportError, match="crypto") as caught:
            KeyRing.from_env()
        seen: BaseException | None = caught.value
        while seen is not None:
            report = traceback.TracebackException.from_exception(seen, capture_locals=True)
            assert_hidden("".join(report.format()))
            seen = seen.__context__

    @pytest.mark.parametrize("library", ["cryptography", "keyring"])
    def test_nobody_else_needs_them(self, library: str) -> None:
        """Without keys the storages work where the libraries are missing, and do not import them where they are not."""
        script = (
            "from tradovate_auth.storage import FileStorage, Record\n"
            "import tempfile, os\n"
            "storage = FileStorage(os.path.join(tempfile.mkdtemp(), 'x'))\n"
            "assert storage.save('key', Record(revision=1))\n"
            "assert storage.load('key') == Record(revision=1)\n"
        )
        assert without(library, script).stderr == ""
        assert run_script(script + f"import sys\nassert {library!r} not in sys.modules\n").stderr == ""

    def test_a_key_can_be_made_without(self) -> None:
        """Making a key needs only the standard library."""
        ended = without(
            "cryptography", "from tradovate_auth.storage import KeyRing\nprint(KeyRing.generate_key())"
        )
        assert len(base64.urlsafe_b64decode(ended.stdout.strip())) == 32

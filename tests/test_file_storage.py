"""The file storage: modes, links, owners, full disks, rubbish, locks. What holds for every storage is in the suite."""

import errno
import fcntl
import json
import os
import pickle
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NoReturn

import pytest
from core_tools import PATIENCE, SocketTransport, eventually, run_script
from forks import in_a_fork, waiting_fork
from values import token as some_token

from tradovate_auth import ConfigurationError, Credentials, StorageError, TokenProvider
from tradovate_auth.storage import FileStorage, MemoryStorage, Record, StorageBusy, _files, from_url
from tradovate_auth.storage._codec import encode
from tradovate_auth.storage._file_lock import Newer
from tradovate_auth.storage._files import LARGEST
from tradovate_auth.testing import Emulator, FakeClock
from tradovate_auth.testing._conforming import enter, failure, full_record, held

KEY = "https://demo.tradovateapi.com/v1 trader"
SECRET = "token-value-4711"
NOBODY = 65534
FIRST = Record(revision=1, generation=1, tokens={"": some_token(value=SECRET)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return where the storage's folder will be: two levels below what exists."""
    return tmp_path / "deep" / "sessions"


@pytest.fixture
def storage(folder: Path) -> FileStorage:
    """Return a storage whose folder is not there yet."""
    return FileStorage(folder)


@pytest.fixture
def kept(storage: FileStorage) -> FileStorage:
    """Return a storage with the first record in it."""
    assert storage.save(KEY, FIRST)
    return storage


@pytest.fixture
def path(kept: FileStorage) -> Path:
    """Return the file of the record."""
    return kept._path(KEY, "json")


def failing(number: int) -> Callable[..., NoReturn]:
    """Return a call of the operating system that fails."""

    def fail(*_: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


def mode(path: Path) -> int:
    """Return the permission bits of a file, not of what it points to."""
    return stat.S_IMODE(path.lstat().st_mode)


def refusal(call: Callable[[], object]) -> StorageError:
    """Return the StorageError that a call raises; it shows nothing of a record."""
    with pytest.raises(StorageError) as caught:
        call()
    assert SECRET not in f"{caught.value} {caught.value.__cause__!r}"
    return caught.value


def ways(storage: FileStorage) -> dict[str, Callable[[], object]]:
    """Return every way into a storage."""
    return {
        "load": lambda: storage.load(KEY),
        "save": lambda: storage.save(KEY, FIRST),
        "exclusive": lambda: enter(storage, KEY, 0.0),
    }


WAYS = ["load", "save", "exclusive"]


def as_ordinary_user(work: Callable[[], object]) -> int:
    """Do something in a child that has given up root's rights, if this process has them; return its exit code."""

    def go() -> None:
        if os.geteuid() == 0:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        work()

    return in_a_fork(go).wait()


class TestNames:
    """What the storage and its files are called."""

    def test_the_name_is_the_folder(self, storage: FileStorage, folder: Path) -> None:
        """The status shows which folder it is; so does the repr."""
        assert storage.name == f"file {folder}"
        assert repr(storage) == f"FileStorage({str(folder)!r})"

    def test_files_are_named_by_the_key(self, kept: FileStorage, folder: Path) -> None:
        """A readable part of the key says whose a file is; a hash of the whole key tells it from every other."""
        kept.save(KEY.replace("trader", "TRADER"), FIRST)
        kept.save("", FIRST)
        names = sorted(each.name for each in folder.glob("*.json"))
        assert len(names) == 3
        assert sum(name.startswith("demo-tradovateapi-com-v1-trader-") for name in names) == 2
        assert all(_files._OURS.fullmatch(each.name) for each in folder.iterdir())

    def test_nothing_is_touched_before_it_is_used(self, folder: Path) -> None:
        """Making a storage, and looking for a record that nobody saved, leave the disk as it is."""
        assert FileStorage(folder).load(KEY) is None
        assert not folder.parent.exists()

    def test_a_relative_folder_stays_where_it_was(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A process that goes elsewhere later does not take its folder along."""
        monkeypatch.chdir(tmp_path)
        storage = FileStorage("a/../sessions")
        monkeypatch.chdir("/")
        storage.save(KEY, FIRST)
        assert storage.name == f"file {tmp_path / 'sessions'}"
        assert (tmp_path / "sessions").is_dir()

    @pytest.mark.parametrize("name", ["", "a\0b", b"bytes"])
    def test_no_folder_has_such_a_name(self, name: Any) -> None:
        """A name that cannot be one is a ConfigurationError, not a folder in the wrong place."""
        with pytest.raises(ConfigurationError, match="name of a folder"):
            FileStorage(name)

    def test_it_can_be_handed_to_a_process(self, kept: FileStorage) -> None:
        """A file storage can be pickled: it names a place and holds nothing."""
        assert pickle.loads(pickle.dumps(kept)).load(KEY) == FIRST

    def test_the_clock_is_the_machines(self, folder: Path) -> None:
        """All processes of a machine share its wall clock, jumps included."""
        clock = FakeClock(1000.0)
        storage = FileStorage(folder, clock=clock)
        clock.jump(-500.0)
        assert storage.now() == 500.0


class TestUrls:
    """file:///folder."""

    @pytest.mark.parametrize(
        ("rest", "name"),
        [
            ("/sessions", "sessions"),
            ("/a%20b%25%23%3Fc", "a b%#?c"),
            ("/tr%C3%A4der/", "tr\u00e4der"),
            ("/%FF", os.fsdecode(b"\xff")),
        ],
    )
    def test_it_names_a_folder(self, tmp_path: Path, rest: str, name: str) -> None:
        """Three slashes and an absolute folder, percent-decoded as the system's own names are."""
        for start in ("file://", "FILE://", "file://localhost"):
            assert from_url(f"{start}{tmp_path}{rest}").name == f"file {tmp_path / name}"

    @pytest.mark.parametrize(
        "url",
        [
            "file://",
            "file:///",
            "file:////",
            "file://hunter2/folder",
            "file://user:hunter2@host/folder",
            "file:///folder?hunter2",
            "file:///folder#hunter2",
            "file:///hunter2%00",
            "file://[hunter2/folder",
        ],
    )
    def test_it_must_name_one(self, url: str) -> None:
        """Anything else is a ConfigurationError that says how, and does not repeat the URL."""
        with pytest.raises(ConfigurationError, match="names no folder") as caught:
            from_url(url)
        assert "hunter2" not in f"{caught.value} {caught.value.__cause__!r}"
        assert "three slashes" in caught.value.advice

    def test_other_schemes(self) -> None:
        """The error names the schemes that there are."""
        assert isinstance(from_url("memory://"), MemoryStorage)
        with pytest.raises(ConfigurationError, match="memory:// and file:///folder"):
            from_url("files:///folder")


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o377])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run a test under a umask: one that hides nothing, the usual one, a strict one, and a silly one."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


class TestModes:
    """Nobody but this user reads anything."""

    def test_whatever_the_umask(self, umask: int, kept: FileStorage, folder: Path) -> None:
        """Folders that were made have 0700, files 0600."""
        enter(kept, KEY, 0.0)
        assert [mode(each) for each in (folder.parent, folder)] == [0o700, 0o700]
        assert {mode(each) for each in folder.iterdir()} == {0o600}
        assert len(list(folder.iterdir())) == 3

    def test_from_the_first_byte(
        self, umask: int, storage: FileStorage, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No file is ever made with other rights and closed later."""
        real, made = os.open, []

        def opening(name: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
            if flags & os.O_CREAT:
                assert flags & os.O_EXCL
                assert flags & os.O_NOFOLLOW
                made.append(mode)
            return real(name, flags, mode, **more)

        monkeypatch.setattr(os, "open", opening)
        enter(storage, KEY, 0.0)
        storage.save(KEY, FIRST)
        assert made == [0o600] * 3

    def test_wider_files_are_repaired(self, kept: FileStorage, folder: Path) -> None:
        """Whoever finds a file open to others closes it, and the folder too."""
        enter(kept, KEY, 0.0)
        for each in folder.iterdir():
            each.chmod(0o666)
        folder.chmod(0o777)
        assert kept.load(KEY) == FIRST
        assert (mode(next(folder.glob("*.json"))), mode(folder)) == (0o600, 0o700)
        enter(kept, KEY, 0.0)
        kept.save(KEY, FIRST)
        assert {mode(each) for each in folder.iterdir()} == {0o600}

    def test_a_stricter_folder_stays(self, kept: FileStorage, folder: Path) -> None:
        """What is closed already is not opened."""
        folder.chmod(0o700 | stat.S_ISGID)
        assert kept.load(KEY) == FIRST
        assert mode(folder) == 0o700 | stat.S_ISGID

    def test_a_folder_with_other_files_stays_readable(self, kept: FileStorage, folder: Path) -> None:
        """Somebody's home is not closed to others for our sake: our files are closed, and others cannot write there."""
        (folder / "notes.txt").touch()
        folder.chmod(0o755)
        assert kept.load(KEY) == FIRST
        assert mode(folder) == 0o755

    @pytest.mark.parametrize(("bits", "stranger"), [(0o777, True), (0o770, True), (0o1777, False)])
    def test_a_shared_folder_is_refused(
        self, kept: FileStorage, folder: Path, bits: int, stranger: bool
    ) -> None:
        """Where others may write, and which is not ours alone, no session is kept: /tmp is neither used nor closed."""
        if stranger:
            (folder / "notes.txt").touch()
        folder.chmod(bits)
        for go in ways(kept).values():
            error = refusal(go)
            assert "others may write there" in error.message
            assert "folder of its own" in error.advice
        assert mode(folder) == bits

    def test_two_that_make_the_folder_at_once(
        self, storage: FileStorage, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A folder that another process made in between is as good as our own."""
        real = Path.mkdir

        def overtaken(self: Path, *arguments: Any, **more: Any) -> None:
            with suppress(FileExistsError):
                real(self, 0o700)
            real(self, *arguments, **more)

        monkeypatch.setattr(Path, "mkdir", overtaken)
        assert storage.save(KEY, FIRST)

    def test_systems_without_owners(self, storage: FileStorage, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where there are neither owners nor modes, as on Windows, everything else works."""
        monkeypatch.setattr(_files, "_user", None)
        assert storage.save(KEY, FIRST)
        assert storage.load(KEY) == FIRST

    def test_it_imports_where_the_kernel_is_another(self) -> None:
        """Importing needs none of what only some systems have, and loads no lock before one is wanted."""
        script = (
            "import os, sys\n"
            "for name in ('O_NOFOLLOW', 'O_NONBLOCK', 'O_CLOEXEC', 'fchmod', 'geteuid'):\n"
            "    delattr(os, name)\n"
            "sys.modules['fcntl'] = None\n"
            "from tradovate_auth.storage import _files, FileStorage\n"
            "assert _files._SAFE == 0 and _files._user is None\n"
            "assert 'filelock' not in sys.modules\n"
            "FileStorage('folder').load('key')\n"
        )
        assert run_script(script).stderr == ""


class TestLinks:
    """No symbolic link is followed in the last part of a path."""

    @pytest.mark.parametrize("way", WAYS)
    def test_a_linked_folder(self, tmp_path: Path, kept: FileStorage, folder: Path, way: str) -> None:
        """A link in the place of the folder is refused, even if it leads to one of ours."""
        link = tmp_path / "link"
        link.symlink_to(folder)
        error = refusal(ways(FileStorage(link))[way])
        assert "is a symbolic link" in error.message
        assert str(link) in error.message

    def test_a_link_above_the_folder(self, tmp_path: Path, kept: FileStorage, folder: Path) -> None:
        """Links further up are the administrator's business: homes are often behind one."""
        link = tmp_path / "link"
        link.symlink_to(folder.parent)
        assert FileStorage(link / folder.name).load(KEY) == FIRST

    @pytest.mark.parametrize("way", ["load", "save"])
    def test_a_linked_record(self, tmp_path: Path, kept: FileStorage, path: Path, way: str) -> None:
        """A link in the place of the record is refused; what it leads to is neither read nor changed."""
        elsewhere = path.rename(tmp_path / "elsewhere")
        elsewhere.chmod(0o644)
        path.symlink_to(elsewhere)
        assert "symbolic link" in refusal(ways(kept)[way]).message
        assert (elsewhere.read_bytes(), mode(elsewhere)) == (encode(FIRST), 0o644)

    @pytest.mark.parametrize(("ending", "way"), [(".lock", "exclusive"), (".write.lock", "save")])
    def test_a_linked_lock(
        self, tmp_path: Path, kept: FileStorage, path: Path, ending: str, way: str
    ) -> None:
        """A link in the place of a lock is refused, whether it leads anywhere or not."""
        lock, elsewhere = path.with_suffix(ending), tmp_path / "elsewhere"
        lock.unlink(missing_ok=True)
        lock.symlink_to(elsewhere)
        assert "symbolic link" in refusal(ways(kept)[way]).message
        assert not elsewhere.exists()
        elsewhere.write_text("mine")
        assert "symbolic link" in refusal(ways(kept)[way]).message
        assert elsewhere.read_text() == "mine"

    def test_a_linked_draft(self, tmp_path: Path, kept: FileStorage, path: Path) -> None:
        """A link in the place of a draft is taken away; nothing is written through it."""
        elsewhere = tmp_path / "elsewhere"
        elsewhere.write_text("mine")
        path.with_name(f"{path.name}.tmp").symlink_to(elsewhere)
        assert kept.save(KEY, Record(revision=2))
        assert elsewhere.read_text() == "mine"
        assert not path.is_symlink()


class TestStrangers:
    """What is not ours, or no file, is left alone and said."""

    @pytest.mark.parametrize("way", WAYS)
    def test_a_folder_that_is_a_file(self, tmp_path: Path, way: str) -> None:
        """The error says that it is a file."""
        (tmp_path / "file").touch()
        assert "is a file, not a folder" in refusal(ways(FileStorage(tmp_path / "file"))[way]).message
        below = refusal(ways(FileStorage(tmp_path / "file" / "below"))[way])
        assert "Not a directory" in below.message
        assert "name a folder" in below.advice

    @pytest.mark.parametrize("way", WAYS)
    def test_somebody_elses_folder(
        self, kept: FileStorage, folder: Path, monkeypatch: pytest.MonkeyPatch, way: str
    ) -> None:
        """The error says whose it is and who we are; nothing is changed."""
        folder.chmod(0o755)
        owner = os.geteuid()
        monkeypatch.setattr(_files, "_user", lambda: owner + 1)
        error = refusal(ways(kept)[way])
        assert (
            f"{folder} belongs to another user (uid {owner}, this process runs as {owner + 1})"
            in error.message
        )
        assert mode(folder) == 0o755

    @pytest.mark.parametrize(
        ("ending", "way"),
        [(".json", "load"), (".json", "save"), (".lock", "exclusive"), (".write.lock", "save")],
    )
    def test_somebody_elses_file(
        self, kept: FileStorage, path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, way: str
    ) -> None:
        """A record or a lock that belongs to somebody else is not used, though it could be read."""
        stranger, real = path.with_suffix(ending), os.fstat
        stranger.touch()
        number = stranger.stat().st_ino

        def owned(opened: int) -> os.stat_result:
            found = real(opened)
            fields = list(found)
            fields[stat.ST_UID] += found.st_ino == number
            return os.stat_result(fields)

        monkeypatch.setattr(os, "fstat", owned)
        assert f"{stranger} belongs to another user" in refusal(ways(kept)[way]).message

    @pytest.mark.parametrize("foreign", [True, False])
    def test_a_file_that_may_not_be_opened(
        self, kept: FileStorage, path: Path, monkeypatch: pytest.MonkeyPatch, foreign: bool
    ) -> None:
        """If a file may not be opened because it is somebody else's, the error says that, and else what the system says."""
        real, real_lstat = os.open, os.lstat

        def opening(name: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
            if Path(name) == path:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return real(name, flags, mode, **more)

        def owned(name: Any) -> os.stat_result:
            fields = list(real_lstat(name))
            fields[stat.ST_UID] += foreign and Path(name) == path
            return os.stat_result(fields)

        monkeypatch.setattr(os, "open", opening)
        monkeypatch.setattr(os, "lstat", owned)
        error = refusal(lambda: kept.load(KEY))
        assert (
            "belongs to another user" if foreign else "cannot be read: Permission denied"
        ) in error.message

    @pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
    def test_no_regular_file(self, kept: FileStorage, path: Path, make: Callable[[Path], None]) -> None:
        """A folder or a pipe in the place of the record is said, and nobody hangs on it."""
        path.unlink()
        make(path)
        for way in ("load", "save"):
            assert "is not a regular file" in refusal(ways(kept)[way]).message


class TestDisk:
    """What the system refuses is said in its own words, with what to do; the record is as it was."""

    @pytest.mark.parametrize(
        ("number", "advice"),
        [
            (errno.ENOSPC, "Make room on the disk"),
            (errno.EDQUOT, "quota"),
            (errno.EIO, "Repair the folder"),
        ],
    )
    def test_a_full_disk(
        self, kept: FileStorage, path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
    ) -> None:
        """A save that does not reach the disk is a StorageError, and leaves no draft."""
        monkeypatch.setattr(os, "fsync", failing(number))
        error = refusal(lambda: kept.save(KEY, Record(revision=2)))
        assert f"{path} cannot be written: {os.strerror(number)}" in error.message
        assert advice in error.advice
        assert "nobody logs in" in error.advice
        assert kept.load(KEY) == FIRST
        assert not list(path.parent.glob("*.tmp"))

    def test_a_limit_of_the_kernel(self, kept: FileStorage, path: Path) -> None:
        """The same with a real refusal half way through the bytes."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            error = failure(lambda: kept.save(KEY, Record(revision=2)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert isinstance(error, StorageError)
        assert "File too large" in error.message
        assert "limit on the size of files" in error.advice
        assert kept.load(KEY) == FIRST
        assert not list(path.parent.glob("*.tmp"))

    @pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
    @pytest.mark.parametrize("way", ["save", "exclusive"])
    def test_a_folder_that_cannot_be_written(
        self, kept: FileStorage, path: Path, monkeypatch: pytest.MonkeyPatch, number: int, way: str
    ) -> None:
        """Saving and locking say so; what lies there is still read."""
        for each in path.parent.glob("*.lock"):
            each.unlink()
        real = os.open

        def opening(name: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
            if flags & os.O_CREAT:
                raise OSError(number, os.strerror(number))
            return real(name, flags, mode, **more)

        monkeypatch.setattr(os, "open", opening)
        error = refusal(ways(kept)[way])
        assert os.strerror(number) in error.message
        assert "folder" in error.advice
        assert kept.load(KEY) == FIRST

    @pytest.mark.parametrize("way", ["save", "exclusive"])
    def test_a_read_only_folder(self, way: str) -> None:
        """The same with a real folder, for a user who is not root: nothing is read-only for root."""

        def work(folder: Path) -> None:
            storage = FileStorage(folder)
            assert storage.save(KEY, FIRST)
            for each in folder.glob("*.lock"):
                each.unlink()
            folder.chmod(0o500)
            assert "Permission denied" in refusal(ways(storage)[way]).message
            assert storage.load(KEY) == FIRST
            folder.chmod(0o700)

        with tempfile.TemporaryDirectory(dir="/tmp") as open_to_all:
            Path(open_to_all).chmod(0o777)
            assert as_ordinary_user(lambda: work(Path(open_to_all) / "sessions")) == 0
            shutil.rmtree(Path(open_to_all) / "sessions", ignore_errors=True)

    def test_it_is_on_the_disk_before_it_has_its_name(
        self, kept: FileStorage, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """First the bytes are synced, closed to others, then they replace the old ones, then the folder is synced."""
        draft, steps = path.with_name(f"{path.name}.tmp"), []
        real = os.fsync

        def syncing(opened: int) -> None:
            folder = stat.S_ISDIR(os.fstat(opened).st_mode)
            newest = kept.load(KEY)
            assert newest is not None
            steps.append((folder, draft.exists() and mode(draft), newest.revision))
            real(opened)

        monkeypatch.setattr(os, "fsync", syncing)
        kept.save(KEY, Record(revision=2))
        assert steps == [(False, 0o600, 1), (True, False, 2)]

    @pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
    @pytest.mark.parametrize("way", ["save", "exclusive"])
    def test_a_folder_that_cannot_be_made(
        self, storage: FileStorage, folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, way: str
    ) -> None:
        """The error names the folder, not a file that would have been in it; there is just nothing to load."""
        monkeypatch.setattr(Path, "mkdir", failing(number))
        assert f"{folder} cannot be used: {os.strerror(number)}" in refusal(ways(storage)[way]).message
        assert storage.load(KEY) is None

    def test_a_folder_that_cannot_be_synced(self, kept: FileStorage, monkeypatch: pytest.MonkeyPatch) -> None:
        """Once the record has its name it is saved, whatever the folder says."""
        real = os.fsync

        def syncing(opened: int) -> None:
            if stat.S_ISDIR(os.fstat(opened).st_mode):
                raise OSError(errno.EINVAL, "no")
            real(opened)

        monkeypatch.setattr(os, "fsync", syncing)
        assert kept.save(KEY, Record(revision=2))
        assert kept.load(KEY) == Record(revision=2)

    def test_the_leftovers_of_a_killed_writer(self, kept: FileStorage, path: Path) -> None:
        """A writer that was killed half way keeps nobody waiting, and the next one clears up after it."""
        script = (
            "import os, sys, time\n"
            "from tradovate_auth.storage import FileStorage, Record\n"
            "os.fsync = lambda opened: (print('half way', flush=True), time.sleep(60))\n"
            "FileStorage(sys.argv[1]).save(sys.argv[2], Record(revision=2))\n"
        )
        with child(script, path.parent) as writer:
            assert line_of(writer) == "half way"
            writer.kill()
        draft = path.with_name(f"{path.name}.tmp")
        assert mode(draft) == 0o600
        assert kept.load(KEY) == FIRST
        assert kept.save(KEY, Record(revision=2))
        assert not draft.exists()


class TestRubbish:
    """What lies in the place of a record and is none."""

    def test_it_is_put_aside(self, kept: FileStorage, path: Path) -> None:
        """It gets a name that says why, closed to others; whoever found it is told, and starts anew."""
        path.write_bytes(b"rubbish")
        path.chmod(0o644)
        found = kept.load(KEY)
        name = f"{path.name}.set-aside-no-json-1"
        assert found == Record()
        assert found is not None
        assert found.set_aside == f"{name}: no JSON"
        aside = path.with_name(name)
        assert (aside.read_bytes(), mode(aside)) == (b"rubbish", 0o600)
        assert kept.load(KEY) is None
        assert kept.save(KEY, FIRST)
        assert kept.load(KEY) == FIRST

    @pytest.mark.parametrize(
        ("data", "why"),
        [
            (b"", "no-json"),
            (encode(FIRST)[:-40], "no-json"),
            (encode(FIRST).replace(b'"generation":1', b'"generation":2'), "wrong-checksum"),
            (b" " * (LARGEST + 1), "too-large"),
            (b'{"schema":0}', "wrong-schema"),
        ],
    )
    def test_the_name_says_why(self, kept: FileStorage, path: Path, data: bytes, why: str) -> None:
        """Cut short, changed, or far too large: each has its reason."""
        path.write_bytes(data)
        kept.load(KEY)
        assert [each.name for each in path.parent.glob("*aside*")] == [f"{path.name}.set-aside-{why}-1"]

    def test_three_are_kept(self, kept: FileStorage, path: Path) -> None:
        """Of each key the last three are kept, in the order in which they were found; others' are not counted."""
        path.with_name(f"{path.name}.set-aside-mine").touch()
        for number in range(12):
            path.write_bytes(b"%d rubbish" % number)
            found = kept.load(KEY)
            assert found is not None
            assert found.set_aside is not None
        kept.save("other", FIRST)
        aside = sorted(
            (each.name.rpartition("-")[2], each.read_bytes()) for each in path.parent.glob("*json-*")
        )
        assert aside == [("10", b"9 rubbish"), ("11", b"10 rubbish"), ("12", b"11 rubbish")]

    def test_a_saver_leaves_it_to_the_next_load(self, kept: FileStorage, path: Path) -> None:
        """A save over rubbish is refused rather than granted in silence: the saver loads again and is told."""
        path.write_bytes(b"rubbish")
        assert not kept.save(KEY, FIRST)
        assert not kept.save(KEY, Record(revision=2))
        found = kept.load(KEY)
        assert found is not None
        assert found.set_aside

    def test_somebody_was_faster(
        self, kept: FileStorage, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where another process has saved a record before the rubbish could be put aside, that record counts."""
        path.write_bytes(b"rubbish")
        real = kept._writing

        @contextmanager
        def overtaken(at: Path) -> Iterator[None]:
            at.write_bytes(encode(FIRST))
            with real(at):
                yield

        monkeypatch.setattr(kept, "_writing", overtaken)
        assert kept.load(KEY) == FIRST
        assert not list(path.parent.glob("*aside*"))

    def test_where_it_cannot_be_put_aside(
        self, kept: FileStorage, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Then it stays, and loading says so: nobody starts anew on top of it."""
        path.write_bytes(b"rubbish")
        monkeypatch.setattr(Path, "rename", failing(errno.EROFS))
        assert "cannot be put aside: Read-only file system" in refusal(lambda: kept.load(KEY)).message
        assert path.read_bytes() == b"rubbish"

    def test_a_newer_schema_stays(self, kept: FileStorage, path: Path) -> None:
        """What a newer version wrote is neither moved nor overwritten."""
        newer = json.dumps({**json.loads(path.read_bytes()), "schema": 2}).encode()
        path.write_bytes(newer)
        for go in (lambda: kept.load(KEY), lambda: kept.save(KEY, FIRST)):
            assert "newer version" in refusal(go).message
        assert path.read_bytes() == newer
        assert not list(path.parent.glob("*aside*"))


class TestProviders:
    """What providers make of it."""

    @pytest.fixture
    def provider(self, folder: Path, tradovate_emulator: Emulator) -> Iterator[TokenProvider]:
        """Yield a provider on the folder."""
        with TokenProvider(
            Credentials(**tradovate_emulator.credentials),
            environment=tradovate_emulator.url,
            storage=folder.as_uri(),
            transport=SocketTransport(),
            renewal="on-demand",
        ) as made:
            yield made

    def test_rubbish_is_a_fresh_start(
        self, folder: Path, provider: TokenProvider, tradovate_emulator: Emulator
    ) -> None:
        """Over rubbish a provider logs in, once, and the rubbish is kept."""
        FileStorage(folder).save(provider._account.key, FIRST)
        (path,) = folder.glob("*.json")
        path.write_bytes(b"rubbish")
        assert provider.get().generation == 1
        assert tradovate_emulator.counts.logins == 1
        assert [each.read_bytes() for each in folder.glob("*aside*")] == [b"rubbish"]

    def test_a_newer_schema_is_no_reason_to_log_in(
        self, folder: Path, provider: TokenProvider, tradovate_emulator: Emulator
    ) -> None:
        """A record of a newer version is an error for whoever has no token, and never a login."""
        FileStorage(folder).save(provider._account.key, FIRST)
        (path,) = folder.glob("*.json")
        path.write_bytes(b'{"schema":2}')
        assert "newer version" in refusal(provider.get).message
        assert tradovate_emulator.counts.logins == 0

    def test_nothing_of_the_credentials_is_stored(
        self, folder: Path, provider: TokenProvider, tradovate_emulator: Emulator
    ) -> None:
        """Neither the password nor the API key's secret is in any file or any file's name."""
        token = provider.get()
        written = b"".join(each.read_bytes() + os.fsencode(each) for each in folder.iterdir())
        assert token.value.encode() in written
        for name in ("password", "sec"):
            assert tradovate_emulator.credentials[name].encode() not in written


@contextmanager
def child(script: str, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run a script in a process of its own, with the folder and the key as arguments; kill it at the end."""
    command = [sys.executable, "-W", "error", "-c", script, str(folder), KEY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: "subprocess.Popen[str]") -> str:
    """Wait for a line of the process and return it."""
    stream: IO[str] | None = process.stdout
    assert stream is not None
    return stream.readline().strip()


HOLDER = (
    "import sys\n"
    "from tradovate_auth.storage import FileStorage\n"
    "with FileStorage(sys.argv[1]).exclusive(sys.argv[2], 10):\n"
    "    print('inside', flush=True)\n"
    "    sys.stdin.readline()\n"
    "print('outside', flush=True)\n"
    "sys.stdin.readline()\n"
)


WAITER = (
    "import sys\n"
    "from tradovate_auth.storage import FileStorage\n"
    "print('outside', flush=True)\n"
    "with FileStorage(sys.argv[1]).exclusive(sys.argv[2], 60, seen=1) as lease:\n"
    "    print(lease.held(), flush=True)\n"
)


def enter_seeing(storage: FileStorage, seen: int) -> None:
    """Enter without a wait, if there is nothing newer."""
    with storage.exclusive(KEY, 0.0, seen=seen):
        pass


class TestLocks:
    """The lock over an exchange."""

    def test_another_process_is_named(self, storage: FileStorage, folder: Path) -> None:
        """Whoever waits in vain for another process is told which one; it is had as soon as that one leaves."""
        with child(HOLDER, folder) as holder:
            assert line_of(holder) == "inside"
            error = refusal(lambda: enter(storage, KEY, 0.01))
            assert error.message == f"Process {holder.pid} holds the stored session."
            assert "its lock ends with it" in error.advice
            assert error.__cause__ is None
            assert error.__suppress_context__
            assert holder.stdin is not None
            holder.stdin.write("\n")
            holder.stdin.flush()
            assert line_of(holder) == "outside"
            enter(storage, KEY, 0.0)

    def test_a_newer_record_ends_the_waits(self, kept: FileStorage, folder: Path) -> None:
        """Processes that wait for an exchange go and look when it has stored something newer: they make no convoy."""
        with held(kept, KEY), ExitStack() as stack:
            waiting = [stack.enter_context(child(WAITER, folder)) for _ in range(6)]
            assert {line_of(process) for process in waiting} == {"outside"}
            assert kept.save(KEY, Record(revision=2, generation=2))
            assert {line_of(process) for process in waiting} == {"False"}
            assert [process.wait(PATIENCE) for process in waiting] == [0] * 6

    def test_a_free_key_is_had_whatever_was_seen(self, kept: FileStorage) -> None:
        """What is newer ends waits; where there is none to end, the key is had: whoever has it looks anyway."""
        with kept.exclusive(KEY, 0.0, seen=0) as lease:
            assert lease.held()
            with kept.exclusive(KEY, 0.0, seen=0) as other:
                assert not other.held()
            with pytest.raises(StorageBusy):
                enter_seeing(kept, 1)
        enter(kept, KEY, 0.0)

    @pytest.mark.parametrize("data", [b"rubbish", b'{"schema":2}', None])
    def test_what_cannot_be_read_is_no_news(self, kept: FileStorage, path: Path, data: bytes | None) -> None:
        """Rubbish, a newer version's record, or none: whoever gets the key will see to it."""
        path.unlink()
        if data is not None:
            path.write_bytes(data)
        with held(kept, KEY), pytest.raises(StorageBusy):
            enter_seeing(kept, 0)
        assert (path.read_bytes() if path.exists() else None) == data

    def test_looking_for_news_is_cheap(self, tmp_path: Path) -> None:
        """The record is read only when its file is another one than at the last look."""
        path, read = tmp_path / "record", []

        def generation() -> int:
            read.append(path.read_text())
            return int(read[-1])

        newer = Newer(path, generation, 1)
        said = [newer()]
        for text in ("1", "0", "22"):
            path.write_text(text)
            said += [newer() for _ in range(3)]
        path.unlink()
        assert said == [False] * 7 + [True] * 3
        assert not newer()
        assert read in (
            ["1", "0", "22"],
            ["1", "22"],
        )  # a file of the same size within one tick of the system's clock

    def test_another_thread_is_named(self, storage: FileStorage) -> None:
        """A process that waits for itself is told so."""
        with held(storage, KEY):
            assert refusal(lambda: enter(storage, KEY, 0.0)).message.startswith("Another thread of this")

    @pytest.mark.parametrize("signature", [b"", b"rubbish", b"12x", "\u0663".encode()])
    def test_a_holder_without_a_name(self, storage: FileStorage, folder: Path, signature: bytes) -> None:
        """Where the lock's file does not say who holds it, nobody is made up."""
        with held(storage, KEY):
            next(folder.glob("*.lock")).write_bytes(signature)
            assert "Another process holds" in refusal(lambda: enter(storage, KEY, 0.0)).message

    def test_a_holder_that_cannot_be_read(
        self, storage: FileStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where what is locked cannot be read, as on Windows, it is the same."""
        with held(storage, KEY):
            monkeypatch.setattr("tradovate_auth.storage._file_lock.read", failing(errno.EACCES))
            assert "Another process holds" in refusal(lambda: enter(storage, KEY, 0.0)).message

    def test_a_full_disk_keeps_nobody_out(
        self, storage: FileStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The holder's name is for messages only: if it cannot be written, the lock is held all the same."""
        monkeypatch.setattr(os, "ftruncate", failing(errno.ENOSPC))
        with held(storage, KEY):
            assert isinstance(failure(lambda: enter(storage, KEY, 0.0)), StorageError)

    def test_a_killed_holder_frees_it(self, storage: FileStorage, folder: Path) -> None:
        """A process that is killed inside gives the lock back by that."""
        with child(HOLDER, folder) as holder:
            assert line_of(holder) == "inside"
            holder.kill()
            holder.wait()
            enter(storage, KEY, 0.0)

    def test_a_forked_child_does_not_keep_it(self, storage: FileStorage) -> None:
        """A child that was forked while its parent was inside holds nothing once the parent has left."""
        with held(storage, KEY):
            context = waiting_fork(lambda: None)
            context.__enter__()
        try:
            enter(storage, KEY, 0.0)
        finally:
            context.__exit__(None, None, None)

    def test_a_forked_child_does_not_give_it_back(self, storage: FileStorage) -> None:
        """A child that leaves where its parent entered takes nothing from the parent."""
        hold = storage.exclusive(KEY, 0.0)
        with hold:  # noqa: SIM117  # the fork belongs inside
            with waiting_fork(lambda: hold.__exit__(None, None, None)):
                assert isinstance(failure(lambda: enter(storage, KEY, 0.0)), StorageError)
        enter(storage, KEY, 0.0)

    def test_a_forked_child_takes_its_turn(self, storage: FileStorage) -> None:
        """A child may use its parent's storage: load, enter and save."""

        def work() -> None:
            with storage.exclusive(KEY, PATIENCE):
                assert storage.save(KEY, FIRST)

        with waiting_fork(work):
            assert storage.load(KEY) == FIRST

    @pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
    def test_a_file_system_without_locks(
        self, storage: FileStorage, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        """There is no second-best lock that would outlive its holder: the error says that there are none."""
        monkeypatch.setattr(fcntl, "flock", failing(number))
        for way in ("save", "exclusive"):
            error = refusal(ways(storage)[way])
            assert "cannot be locked" in error.message
            assert "name a folder on a local disk" in error.advice

    def test_a_lock_that_cannot_be_given_back(
        self, storage: FileStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A system that refuses to unlock is a StorageError too."""
        real = fcntl.flock

        def refuse(opened: int, operation: int) -> None:
            if operation == fcntl.LOCK_UN:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            real(opened, operation)

        with monkeypatch.context() as patched:
            patched.setattr(fcntl, "flock", refuse)
            assert "cannot be unlocked" in refusal(lambda: enter(storage, KEY, 0.0)).message

    def test_an_oserror_of_whoever_is_inside(self, storage: FileStorage) -> None:
        """Only our own errors are explained: what the exchange raises comes out as it is."""
        with pytest.raises(ConnectionResetError), storage.exclusive(KEY, 0.0):
            raise ConnectionResetError

    def test_a_stopped_saver_is_told_from_a_slow_one(
        self, kept: FileStorage, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Savers wait for each other for a while, and then say whom they wait for; loading goes on."""
        script = HOLDER.replace(
            "FileStorage(sys.argv[1]).exclusive(sys.argv[2], 10)",
            "(s := FileStorage(sys.argv[1]))._writing(s._path(sys.argv[2], 'json'))",
        )
        monkeypatch.setattr("tradovate_auth.storage.file._WRITE_PATIENCE", 0.05)
        with child(script, folder) as saver:
            assert line_of(saver) == "inside"
            saver.send_signal(signal.SIGSTOP)
            error = refusal(lambda: kept.save(KEY, Record(revision=2)))
            assert f"Process {saver.pid} holds the stored session" in error.message
            assert kept.load(KEY) == FIRST

    def test_many_objects_and_threads(self, storage: FileStorage, folder: Path) -> None:
        """Every thread with an object of its own excludes every other; nobody starves."""
        inside, most, lock = 0, 0, threading.Lock()

        def visit() -> None:
            nonlocal inside, most
            with FileStorage(folder).exclusive(KEY, PATIENCE):
                with lock:
                    inside += 1
                    most = max(most, inside)
                storage.load(KEY)
                with lock:
                    inside -= 1

        threads = [threading.Thread(target=visit) for _ in range(12)]
        for thread in threads:
            thread.start()
        eventually(lambda: not any(thread.is_alive() for thread in threads))
        assert most == 1

    def test_whole_records(self, storage: FileStorage) -> None:
        """Whoever loads while others save sees a whole record, an old one or a new one, and none that was put aside."""
        whole, seen, stop = full_record(), set(), threading.Event()

        def look() -> None:
            while not stop.is_set():
                found = storage.load(KEY)
                if found is not None:
                    assert found.set_aside is None
                    assert found.tokens == whole.tokens
                    seen.add(found.revision)

        reader = threading.Thread(target=look)
        reader.start()
        for revision in range(1, 60):
            fields = {name: getattr(whole, name) for name in Record.__dataclass_fields__}
            assert storage.save(KEY, Record(**{**fields, "revision": revision}))
        eventually(lambda: 59 in seen)
        stop.set()
        reader.join()
        assert seen <= set(range(1, 60))

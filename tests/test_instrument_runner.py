"""`python -m tradovate_auth.instrumentation`: a program finds what it would find without us, and ends as it would.

Most of these run the same program twice, by the interpreter and by the runner, and compare.
"""

import datetime as dt
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
from runner_tools import CALLED, CALLS, RUNNER, SITE, WARNED, WARNS, Bench, Ended, bench, how

from tradovate_auth import _instrument_runner, events
from tradovate_auth._instrument_notices import tell

__all__ = ["bench"]  # a fixture

SEES = """
    import json, multiprocessing.spawn, os, sys
    main = sys.modules["__main__"]
    spec, handed_on = main.__spec__, multiprocessing.spawn.get_preparation_data("a child")
    print(json.dumps({
        "name": __name__, "argv": sys.argv, "path": sys.path[0], "same": vars(main) is globals(), "doc": __doc__,
        "file": globals().get("__file__"), "cached": globals().get("__cached__"), "package": __package__,
        "spec": spec and [spec.name, spec.origin], "builtins": type(__builtins__).__name__,
        "loader": [type(__loader__).__name__, getattr(__loader__, "__name__", "")],
        "annotations": __annotations__ if sys.version_info < (3, 14) else {}, "names": sorted({*globals()} - {"handed_on"}),
        "spawned": [handed_on.get(key) for key in ("sys_argv", "init_main_from_name", "init_main_from_path")],
    }))
"""
WAYS = {
    "a script": ["bot.py"],
    "a script elsewhere": ["deep/bot.py"],
    "a link to one": ["link.py"],
    "a module": ["-m", "module"],
    "a package": ["-m", "package"],
    "a module of a package": ["-m", "package.module"],
    "a folder": ["package"],
    "an archive": ["archive.zip"],
    "behind the options": ["--", "bot.py"],
    "the name of an option": ["--", "-m"],
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_a_program_sees_what_it_would_see(bench: Bench, way: list[str]) -> None:
    """Its `__main__`, its arguments, its place in `sys.path` and what a spawned child is told of it are those that the
    interpreter makes.
    """
    for name in ("bot.py", "-m", "deep/bot.py", "module.py", "package/__main__.py", "package/module.py"):
        bench.write(name, SEES)
    bench.write("package/__init__.py", "import sys; print(sys.argv)")
    (bench.folder / "link.py").symlink_to("deep/bot.py")
    with zipfile.ZipFile(bench.folder / "archive.zip", "w") as archive:
        archive.writestr("__main__.py", textwrap.dedent(SEES))
    arguments = ["--logins", "-m", "", "two words"]
    ours, plain = bench.both(*way, *arguments)
    assert how(ours) == how(plain)


def test_code_on_the_command_line(bench: Bench) -> None:
    """`-c` works too."""
    ours, plain = bench.both("-c", textwrap.dedent(SEES), "a", "-b")
    assert how(ours) == how(plain)


@pytest.mark.parametrize("way", [["-"], ["--", "-"]], ids=str)
@pytest.mark.parametrize("source", [SEES, "def f():\n    1 / 0\nf()", "print('\xe9')"], ids=str)
def test_code_on_stdin(bench: Bench, way: list[str], source: str) -> None:
    """`-` reads the program from stdin, whole."""
    ours, plain = bench.both(*way, "a", "-b", given=textwrap.dedent(source))
    assert how(ours) == how(plain)


def test_code_on_a_stdin_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a stdin, as under pythonw, that is told in words."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SystemExit) as exited:
        _instrument_runner._stdin([])
    assert exited.value.code == 2
    assert "no stdin" in capsys.readouterr().err


def test_safe_path(bench: Bench) -> None:
    """Under `-P` nothing is put before the path, by us no more than by the interpreter."""
    bench.write("bot.py", "import sys; print(sys.path)")
    assert how(bench.python("-P", *RUNNER, "bot.py")) == how(bench.python("-P", "bot.py"))


ENDS = {
    "by itself": "print('done')",
    "exit": "raise SystemExit",
    "exit with a number": "import sys; sys.exit(3)",
    "exit with a text": "import sys; sys.exit('enough')",
    "at once": "import os; os._exit(4)",
    "error": "def f():\n    raise ValueError('wrong')\nf()",
    "error from another": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('wrong') from e",
    "error of a hook's own": "import sys\nsys.excepthook = lambda *a: print('hook', a[0], a[1], a[2].tb_lineno)\n1 / 0",
    "bad syntax": "def f(:\n",
    "Ctrl-C": "raise KeyboardInterrupt",
    "SIGTERM": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "SIGTERM, handled": "import os, signal, sys\nsignal.signal(15, lambda *a: sys.exit(5))\nos.kill(os.getpid(), 15)",
    "SIGINT, handled": "import os, signal\ntry:\n    os.kill(os.getpid(), 2)\nexcept KeyboardInterrupt:\n    print('bye')",
    "at exit": "import atexit; atexit.register(print, 'last'); raise SystemExit(6)",
    "a thread goes on": (
        "import pickle, threading, time\n"
        "def f():\n    threading.main_thread().join()\n    print(pickle.loads(pickle.dumps(f)) is f)\n"
        "threading.Thread(target=f).start()"
    ),
}


@pytest.mark.parametrize("source", ENDS.values(), ids=ENDS.keys())
def test_a_program_ends_as_it_would_end(bench: Bench, source: str) -> None:
    """Exit status, signal, output and traceback are the interpreter's, to the letter."""
    bench.write("bot.py", source)
    ours, plain = bench.both("bot.py")
    assert how(ours) == how(plain)


def test_bytecode(bench: Bench) -> None:
    """An archive of nothing but compiled files runs."""
    bench.write("program/__main__.py", "print(__name__)")
    assert bench.python("-m", "compileall", "-q", "-b", "program").returncode == 0
    (bench.folder / "program" / "__main__.py").unlink()
    assert how(bench.run("program")) == (0, "__main__\n", "")


MISTAKES: dict[str, tuple[list[str], str]] = {
    "nothing": ([], "usage: "),
    "no module": (["-m"], "usage: "),
    "no code": (["--logins", "pass", "-c"], "usage: "),
    "no program": (["--"], "usage: "),
    "an option that is none": (["--verbose", "bot.py"], "there is no option --verbose"),
    "an option without its value": (["--logins"], "--logins is answer or pass"),
    "a value that is none": (["--insecure=maybe", "bot.py"], "--insecure is warn or refuse"),
}


@pytest.mark.parametrize(("arguments", "text"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_command_line_that_makes_no_sense(
    capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    """It is told in words, with status 2."""
    with pytest.raises(SystemExit) as exited:
        _instrument_runner.main(arguments)
    told = capsys.readouterr()
    assert (exited.value.code, told.out) == (2, "")
    assert told.err.startswith("usage: ")
    assert text in told.err


def test_a_mistake_where_nobody_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no stderr, as under pythonw, the status alone tells."""
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(SystemExit) as exited:
        _instrument_runner.main([])
    assert exited.value.code == 2


MISSING: dict[str, tuple[list[str], int, str]] = {
    "nothing": ([], 2, "usage: "),
    "a file": (["missing.py"], 2, "missing.py' cannot be run: No such file"),
    "a folder without a program": (["."], 1, "can't find '__main__' module in "),
    "a module": (["-m", "missing"], 1, "there is no module missing"),
    "a package": (["-m", "missing.module"], 1, "there is no module missing.module"),
    "a module without code": (["-m", "sys"], 1, "this module holds no program"),
    "a package without a program": (
        ["-m", "package"],
        1,
        "there is no module package.__main__; 'package' is a package and cannot be directly executed",
    ),
}


@pytest.mark.parametrize(("arguments", "status", "text"), MISSING.values(), ids=MISSING.keys())
def test_a_program_that_is_not_there(bench: Bench, arguments: list[str], status: int, text: str) -> None:
    """A command line that names no program is told in words, and by the interpreter's own status."""
    bench.write("package/__init__.py", "")
    ended = bench.run(*arguments)
    assert (ended.returncode, ended.stdout) == (status, "")
    assert text in ended.stderr
    assert "Traceback" not in ended.stderr
    assert bench.server.counts.logins == 0


def test_a_package_that_fails_by_itself(bench: Bench) -> None:
    """An import that fails inside the package is the program's error, and is shown as one."""
    bench.write("package/__init__.py", "import nosuch_dependency")
    ended = bench.run("-m", "package")
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert "No module named 'nosuch_dependency'" in ended.stderr


def test_help(bench: Bench) -> None:
    """`--help` names the options and goes to stdout."""
    ended = bench.run("--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert all(word in ended.stdout for word in ("--logins", "--insecure", "-m MODULE", "TRADOVATE_"))


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"TRADOVATE_PASSWORD": None}, "TRADOVATE_PASSWORD is not set"),
        ({"TRADOVATE_ENVIRONMENT": "moon"}, "'moon' is no environment"),
        ({"TRADOVATE_STORAGE": "tape://1"}, "No storage goes by that URL's scheme"),
        ({"TRADOVATE_INSTRUMENTATION": "[]"}, "TRADOVATE_INSTRUMENTATION is no JSON object"),
    ],
    ids=str,
)
def test_settings_that_are_wrong(bench: Bench, changed: dict[str, str | None], text: str) -> None:
    """Without credentials, or with settings that make no sense, the program is not started: status 2, one line, no
    traceback and no secret.
    """
    bench.write("bot.py", "print('started')")
    ended = bench.run("bot.py", changed=changed)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert text in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "correct horse" not in ended.stderr


def files(folder: Path) -> dict[str, bytes]:
    """Return what lies in a folder, and in folders in it, but for compiled modules."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_the_session_is_kept_where_no_storage_is_named(bench: Bench) -> None:
    """Without TRADOVATE_STORAGE the next run finds the session of the last one, in a folder of this user alone; stderr
    says where that is, and the only file that holds a secret is the record there.
    """
    bench.write("calls.py", CALLS)
    bench.home.mkdir()
    temporary = bench.folder.parent / "temporary"
    temporary.mkdir()
    site = files(SITE)
    changed = {"TRADOVATE_STORAGE": None, "TMPDIR": str(temporary)}
    ended = [bench.run("-c", "from calls import call; print(call())", changed=changed) for _ in range(2)]
    folder = bench.home / ".local" / "state" / "tradovate_auth" / "sessions"
    notice = f"tradovate_auth: the session is kept in {folder}; TRADOVATE_STORAGE names another place\n"
    assert [how(each) for each in ended] == [(0, f"{CALLED}\n", notice)] * 2
    assert bench.server.counts.logins == 1
    assert {folder.stat().st_mode & 0o777, folder.parent.stat().st_mode & 0o777} == {0o700}
    who = bench.server.credentials
    secrets = [who["password"].encode(), who["sec"].encode()]
    assert not any(secret in kept for kept in files(bench.home).values() for secret in secrets)
    assert (files(temporary), files(SITE)) == ({}, site)


def test_the_state_folder(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """XDG_STATE_HOME wins, then LOCALAPPDATA, then the home folder; without any the variable must be set."""

    def homeless() -> Path:
        raise RuntimeError

    for name in ("XDG_STATE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(SystemExit) as exited:
        _instrument_runner._state_folder()
    assert exited.value.code == 2
    assert "TRADOVATE_STORAGE" in capsys.readouterr().err
    monkeypatch.setenv("LOCALAPPDATA", "/data")
    assert _instrument_runner._state_folder() == Path("/data/tradovate_auth/sessions")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert _instrument_runner._state_folder() == Path("/state/tradovate_auth/sessions")


def test_a_storage_in_memory(bench: Bench) -> None:
    """`memory://` is obeyed, and stderr says what that means for child processes."""
    bench.write("calls.py", CALLS)
    code = "from calls import call; print(call())"
    family = f"{code}; import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    ended = bench.run("-c", family, changed={"TRADOVATE_STORAGE": "memory://", "PYTHONUNBUFFERED": "1"})
    assert (ended.returncode, ended.stdout) == (0, f"{CALLED}\n{CALLED}\n")
    assert "with memory:// each process that the program starts opens a session of its own" in ended.stderr
    assert bench.server.counts.logins == 2


def warnings(ended: Ended) -> list[str]:
    """Return what has been told of on stderr, with no account."""
    start, end = "tradovate_auth: Warned: ", " (trader at "
    told = ended.stderr.splitlines()
    assert all(line.startswith(start) and end in line for line in told), told
    return [line.removeprefix(start).partition(end)[0] for line in told]


def test_what_is_odd_is_told(bench: Bench) -> None:
    """A client without certificate checks and a login for somebody else: one line for each on stderr, without a secret, of
    the program and of a process that it starts.
    """
    bench.server.add_user("colleague", "their secret", cid=9, sec="their key")
    bench.write("warns.py", WARNS)
    code = "import sys; from warns import warn; print(warn(), flush=True); sys.stdin.read()"
    family = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {code!r}]).returncode)"
    for program in (code, family):
        ended = bench.heard(2, "-c", program)
        assert (ended.returncode, ended.stdout) == (0, f"{WARNED}\n")
        assert sorted(warnings(ended)) == [
            "a client logs in as colleague, not as trader: it is left alone, and so is its token",
            "a client of requests does not check certificates: whoever sits in between can read the token",
        ]


def test_a_library_that_cannot_be_instrumented_is_told(bench: Bench) -> None:
    """So is a version that is too old, in the program and in a process that it starts."""
    bench.write("aiohttp.py", "__version__ = '3.11.18'\n")
    code = "import aiohttp, sys; print(aiohttp.__version__, flush=True); sys.stdin.read()"
    family = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {code!r}]).returncode)"
    for program in (code, family):
        ended = bench.heard(1, "-c", program)
        assert (ended.returncode, ended.stdout) == (0, "3.11.18\n")
        assert warnings(ended) == ["aiohttp 3.11.18 cannot be instrumented: 3.12.4 or newer is needed"]


@pytest.mark.parametrize("stderr", ["sys.stderr.close()", "sys.stderr = None", "sys.stderr = Broken()"])
def test_a_program_that_has_no_stderr(bench: Bench, stderr: str) -> None:
    """Where nothing can be told the program goes on as it would."""
    bench.server.add_user("colleague", "their secret", cid=9, sec="their key")
    bench.write("warns.py", WARNS)
    broken = """
        import sys
        from warns import warn
        class Broken:
            def write(self, text):
                raise RuntimeError(text)
            def flush(self):
                pass
    """
    bench.write("bot.py", f"{textwrap.dedent(broken)}\n{stderr}\nprint(warn())\nprint(warn())\n")
    assert how(bench.run("bot.py")) == (0, f"{WARNED}\n{WARNED}\n", "")


WHEN = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
TOLD = [
    events.Warned(account="a", reason="r"),
    events.Evicted(account="a", reason="r", generation=1),
    events.Held(account="a", reason="r", seconds=1.0),
    events.RenewalFailed(account="a", reason="r", retry_in=1.0),
    events.Refused(account="a", reason="r"),
    events.StorageLost(account="a", reason="r"),
    events.RecordSetAside(account="a", reason="r"),
]
NOT_TOLD = [
    events.LoggedIn(account="a", generation=1, expires_at=WHEN),
    events.Renewed(account="a", generation=1, expires_at=WHEN),
    events.Adopted(account="a", generation=1, expires_at=WHEN),
    events.HostsMoved(account="a", hosts={}),
    events.StorageBack(account="a"),
]


def test_which_events_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """All but those in the ordinary course of things, a line for each."""
    for event in (*TOLD, *NOT_TOLD):
        tell(event)
    assert capsys.readouterr().err == "".join(
        f"tradovate_auth: {type(event).__name__}: r (a)\n" for event in TOLD
    )


def test_an_event_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a server has put into its reason: no second line, and nothing that a terminal obeys."""
    tell(events.Refused(account="a", reason="one\r\n  two\x1b[2J\x00\u202e"))
    assert capsys.readouterr().err == "tradovate_auth: Refused: one two[2J (a)\n"

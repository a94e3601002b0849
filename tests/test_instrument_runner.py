"""`python -m tradovate_auth.instrumentation`: a program finds what it would find without us, ends as it would, and shares the
session with every Python that it starts.

Most of these run the same program twice, by the interpreter and by the runner, and compare.
"""

import json
import os
import subprocess
import sys
import textwrap
import threading
import venv
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from core_tools import eventually

import tradovate_auth
from tradovate_auth import _instrument_child, _instrument_runner
from tradovate_auth.testing import Emulator

RUNNER = ["-m", "tradovate_auth.instrumentation"]
SITE = Path(tradovate_auth.__file__).parent / "_site"

UNMEASURED = {name: None for name in os.environ if name.startswith("COV")}
"""Keeps the coverage of these tests out of a process."""

Ended = subprocess.CompletedProcess[str]


class Bench:
    """A folder with programs, and the environment that they are run in."""

    def __init__(self, server: Emulator, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.home = folder.parent / "home"
        self.environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("TRADOVATE_", "XDG_"))
            },
            **{f"TRADOVATE_{name.upper()}": str(value) for name, value in server.credentials.items()},
            "TRADOVATE_ENVIRONMENT": server.url,
            "TRADOVATE_STORAGE": (folder.parent / "session").as_uri(),
            "HOME": str(self.home),
            "API": server.url,
        }

    def write(self, name: str, source: str) -> Path:
        """Put a file into the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        return path

    def python(self, *arguments: str, changed: Mapping[str, str | None] = {}) -> Ended:
        """Run the interpreter in the folder, with some variables changed, or removed for None."""
        names = {name: value for name, value in {**self.environment, **changed}.items() if value is not None}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=names,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def run(self, *arguments: str, changed: Mapping[str, str | None] = {}) -> Ended:
        """Run the runner so."""
        return self.python(*RUNNER, *arguments, changed=changed)

    def both(self, *arguments: str) -> tuple[Ended, Ended]:
        """Run a program by the runner and by the interpreter, at the same time."""
        with ThreadPoolExecutor(2) as pool:
            ours, plain = (
                pool.submit(self.run, *arguments),
                pool.submit(self.python, *arguments, changed=UNMEASURED),
            )
            return ours.result(), plain.result()


@pytest.fixture
def bench(tmp_path: Path, tradovate_emulator: Emulator) -> Bench:
    """Return an empty folder, and an environment that names the emulator."""
    folder = tmp_path / "work"
    folder.mkdir()
    return Bench(tradovate_emulator, folder)


def how(ended: Ended) -> tuple[int, str, str]:
    """Return all that can be seen of an end."""
    return ended.returncode, ended.stdout, ended.stderr


SEES = """
    import json, multiprocessing.spawn, os, sys
    main = sys.modules["__main__"]
    spec, handed_on = main.__spec__, multiprocessing.spawn.get_preparation_data("a child")
    print(json.dumps({
        "name": __name__, "argv": sys.argv, "path": sys.path[0], "same": vars(main) is globals(), "doc": __doc__,
        "file": globals().get("__file__"), "cached": globals().get("__cached__"), "package": __package__,
        "spec": spec and [spec.name, spec.origin], "builtins": type(__builtins__).__name__,
        "loader": type(__loader__).__name__,
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
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_a_program_sees_what_it_would_see(bench: Bench, way: list[str]) -> None:
    """Its `__main__`, its arguments, its place in `sys.path` and what a spawned child is told of it are those that the
    interpreter makes.
    """
    for name in ("bot.py", "deep/bot.py", "module.py", "package/__main__.py", "package/module.py"):
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
    code = "import sys; print(sys.argv, sys.path[0] == '', __name__, '__file__' in globals())"
    ours, plain = bench.both("-c", code, "a", "-b")
    assert how(ours) == how(plain)


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
    "a folder without a program": (["."], 2, "cannot be run: Is a directory"),
    "a module": (["-m", "missing"], 1, "there is no module missing"),
    "a package": (["-m", "missing.module"], 1, "there is no module missing.module"),
    "a module without code": (["-m", "sys"], 1, "this module holds no program"),
    "a package without a program": (["-m", "package"], 1, "there is no module package.__main__"),
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


CALLS = """
    import os
    import requests

    def call():
        fields = {"name": "NAME", "password": "PASSWORD", "appId": "APP_ID", "cid": "CID", "sec": "SEC"}
        body = {field: os.environ["TRADOVATE_" + name] for field, name in fields.items()}
        answer = requests.post(os.environ["API"] + "/auth/accesstokenrequest", json=body, timeout=20).json()
        headers = {"Authorization": "Bearer of no good"}
        status = requests.get(os.environ["API"] + "/account/list", headers=headers, timeout=20).status_code
        return sorted({"accessToken", "expirationTime"} & set(answer)), status
"""
CALLED = "(['accessToken', 'expirationTime'], 200)"
FAMILY = """
    import multiprocessing, os, subprocess, sys
    from calls import call

    def child(queue):
        queue.put(call())

    if __name__ == "__main__":
        print("this one", call())
        for method in ("fork", "spawn", "forkserver"):
            context = multiprocessing.get_context(method)
            queue = context.SimpleQueue()
            process = context.Process(target=child, args=(queue,))
            process.start()
            print(method, queue.get())
            process.join()
        code = "from calls import call; print('a subprocess', call())"
        subprocess.run([sys.executable, "-c", code], check=True)
        grandchild = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {code!r}]).returncode)"
        subprocess.run([sys.executable, "-c", grandchild], check=True)
        successor = "from calls import call; print('its successor', call())"
        replaced = f"import os, sys; os.execv(sys.executable, [sys.executable, '-c', {successor!r}])"
        subprocess.run([sys.executable, "-c", replaced], check=True)
"""


def test_child_processes(bench: Bench) -> None:
    """Every Python process that the program starts, in whatever way, and theirs, is in the same session; one login is
    sent, and no header that a program set itself arrives.
    """
    bench.write("calls.py", CALLS)
    bench.write("family.py", FAMILY)
    ended = bench.run("family.py", changed=UNMEASURED)  # coverage has something to say in spawned children
    names = ["this one", "fork", "spawn", "forkserver", "a subprocess", "a subprocess", "its successor"]
    assert how(ended) == (0, "".join(f"{name} {CALLED}\n" for name in names), "")
    counts = bench.server.counts
    assert (counts.logins, counts.calls, counts.calls_ok) == (1, len(names), len(names))


def test_a_process_that_outlives_the_program(bench: Bench) -> None:
    """One that is left behind still instruments those that it starts later."""
    bench.write("calls.py", CALLS)
    late = "import subprocess, sys; sys.stdin.read(); subprocess.run([sys.executable, '-c', 'from calls import call; call()'])"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {late!r}], stdout=subprocess.DEVNULL)"
    with subprocess.Popen(
        [sys.executable, *RUNNER, "-c", code], cwd=bench.folder, env=bench.environment, stdin=subprocess.PIPE
    ) as program:
        assert program.wait(60) == 0
        assert program.stdin is not None
        program.stdin.close()
        eventually(lambda: bench.server.counts.calls_ok == 1, "the call of a grandchild")
    assert bench.server.counts.logins == 1


def test_a_runner_in_a_runner(bench: Bench) -> None:
    """The inner one instruments nothing twice: one login, one entry in PYTHONPATH; its options are its own, and what it
    does not say it takes from the outer one.
    """
    bench.write("calls.py", CALLS)
    inner = """
        import json, os
        from calls import call
        print(call(), os.environ["PYTHONPATH"].split(os.pathsep), json.loads(os.environ["TRADOVATE_INSTRUMENTATION"]))
    """
    bench.write("inner.py", inner)
    bench.write("early.py", "import requests\n" + textwrap.dedent(inner))
    outer = """
        import subprocess, sys
        runner = [sys.executable, "-m", "tradovate_auth.instrumentation"]
        subprocess.run([*runner, "inner.py"], check=True)
        subprocess.run([*runner, "--logins=answer", "inner.py"], check=True)
    """
    bench.write("outer.py", outer)
    (bench.folder / "other").mkdir()
    ended = bench.run(
        "--logins",
        "pass",
        "--insecure",
        "refuse",
        "outer.py",
        changed={"PYTHONPATH": str(bench.folder / "other")},
    )
    path = [str(SITE), str(bench.folder / "other")]
    assert how(ended) == (
        0,
        (
            f"{CALLED} {path} {{'logins': 'pass', 'insecure': 'refuse'}}\n"
            f"{CALLED} {path} {{'logins': 'answer', 'insecure': 'refuse'}}\n"
        ),
        "",
    )
    assert bench.server.counts.logins == 2  # the bot's own, which the first of them let pass, and ours


def test_a_runner_over_a_library_that_is_there(bench: Bench) -> None:
    """A child that has made requests already, as a `sitecustomize` may, can still run a program with other options."""
    bench.write("calls.py", CALLS)
    code = (
        "import sys\nfrom calls import call\nprint(call())\n"
        "from tradovate_auth._instrument_runner import main\nmain(['--logins=pass', '-c', 'from calls import call; print(call())'])"
    )
    bench.write("again.py", code)
    ended = bench.run(
        "-c", "import subprocess, sys; subprocess.run([sys.executable, 'again.py'], check=True)"
    )
    assert how(ended) == (0, f"{CALLED}\n{CALLED}\n", "")
    assert bench.server.counts.logins == 2


IMPORTED = "import json, sys; print(json.dumps(sorted(sys.modules)))"


def test_a_child_that_makes_no_request_pays_nothing(bench: Bench) -> None:
    """It loads the two files and what they need of the import system: no wrapt, no package of ours, no HTTP library."""
    ours = bench.python("-c", IMPORTED, changed={"PYTHONPATH": str(SITE)})
    plain = bench.python("-c", IMPORTED)
    more = set(json.loads(ours.stdout)) - set(json.loads(plain.stdout))
    assert {name for name in more if name.partition(".")[0] != "importlib"} <= {
        "__future__",
        "sitecustomize",
        "tradovate_auth._instrument_child",
        "warnings",
    }
    assert ours.stderr == ""


NEXT = "import sys\nprint('the next', __name__, sys.modules['sitecustomize'].__file__ == __file__)\n"


def test_a_sitecustomize_that_was_there(bench: Bench) -> None:
    """The one that ours hides is run, under its name and in its place."""
    bench.write("site/sitecustomize.py", NEXT)
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import sitecustomize; print(sitecustomize.__file__)'])"
    changed = {"PYTHONPATH": str(bench.folder / "site")}
    ended = bench.run("-c", code, changed=changed)
    told = "the next sitecustomize True\n"
    assert how(ended) == (0, f"{told}{told}{bench.folder / 'site' / 'sitecustomize.py'}\n", "")


@pytest.mark.parametrize("source", ["1 / 0", "import nosuch_dependency", "raise SystemExit(3)"])
def test_a_sitecustomize_that_fails(bench: Bench, source: str) -> None:
    """What the hidden one raises has the consequences that it would have had, and the child is instrumented first."""
    bench.write("site/sitecustomize.py", source)
    code = "import sys; print(type(sys.meta_path[0]).__name__, 'sitecustomize' in sys.modules)"
    changed: dict[str, str | None] = {"PYTHONPATH": f"{SITE}{os.pathsep}{bench.folder / 'site'}"}
    ours = bench.python("-c", code, changed=changed)
    plain = bench.python("-c", code, changed={"PYTHONPATH": str(bench.folder / "site")})
    assert (ours.returncode, ours.stderr.splitlines()[-2:]) == (
        plain.returncode,
        plain.stderr.splitlines()[-2:],
    )
    assert ours.stdout.split() == (["_Watch", "False"] if plain.stdout else [])


def test_no_other_sitecustomize(bench: Bench) -> None:
    """Where there is no other one, ours can be imported again as what it is, and its folder is not in the path."""
    code = "import sys, sitecustomize; print(sitecustomize.__file__, [entry for entry in sys.path if entry.endswith('_site')])"
    ended = bench.python("-S", "-c", f"import site; site.main(); {code}", changed={"PYTHONPATH": str(SITE)})
    assert how(ended) == (0, f"{SITE / 'sitecustomize.py'} []\n", "")


REQUEST = "import os, requests; print(requests.get(os.environ['API'] + '/account/list').status_code)"


@pytest.mark.parametrize("option", ["-E", "-I"])
def test_what_is_not_reached(bench: Bench, option: str) -> None:
    """A process that is told to heed no environment, or is given none, is not instrumented: the page says so."""
    code = f"""
        import subprocess, sys
        code = {REQUEST!r}
        subprocess.run([sys.executable, {option!r}, "-c", code], check=True)
        subprocess.run([sys.executable, "-c", code], check=True, env={{"API": {bench.server.url!r}}})
    """
    assert how(bench.run("-c", textwrap.dedent(code))) == (0, "404\n404\n", "")
    assert bench.server.counts.logins == 0


def complaint(ended: Ended) -> str:
    """Return the one line on stderr, without its process id."""
    assert ended.stderr.count("\n") == 1, ended.stderr
    start, _, reason = ended.stderr.strip().partition(" does not share the session: ")
    assert start.startswith("tradovate_auth: process ")
    return reason


@pytest.mark.parametrize(
    ("changed", "before", "reason"),
    [
        ({"TRADOVATE_NAME": None}, "pass", "The environment variable TRADOVATE_NAME is not set. "),
        ({"TRADOVATE_INSTRUMENTATION": '{"nosuch": 1}'}, "pass", "TypeError"),
        ({"TRADOVATE_INSTRUMENTATION": "no JSON"}, "pass", "JSONDecodeError"),
        ({}, "sys.modules['tradovate_auth._overlay'] = None", "import of tradovate_auth._overlay halted"),
    ],
    ids=str,
)
def test_a_child_that_cannot_be_instrumented(
    bench: Bench, changed: dict[str, str | None], before: str, reason: str
) -> None:
    """One that lacks what is needed says so in one line, once, and goes on by itself."""
    code = f"import sys; {before}; {REQUEST}; import httpx"
    ended = bench.python("-c", code, changed={"PYTHONPATH": str(SITE), **changed})
    assert (ended.returncode, ended.stdout) == (0, "404\n")
    assert complaint(ended).startswith(reason)


def test_a_child_without_the_package(bench: Bench) -> None:
    """Another Python, in which this package is not installed, goes on by itself too."""
    elsewhere = bench.folder / "venv"
    venv.create(elsewhere)
    bench.write("requests.py", "print('another requests')")
    python = next(path for path in elsewhere.rglob("python*") if path.stem == "python")
    environment = {**bench.environment, "PYTHONPATH": str(SITE)}
    ended = subprocess.run(
        [python, "-c", "import requests"],
        cwd=bench.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == "another requests\n"
    assert complaint(ended) == "No module named 'tradovate_auth'"


def test_a_child_without_stderr(bench: Bench) -> None:
    """One that has no stderr, as under pythonw, goes on without a word."""
    ended = bench.python(
        "-c",
        f"import sys; sys.stderr = None; {REQUEST}",
        changed={"PYTHONPATH": str(SITE), "TRADOVATE_NAME": None},
    )
    assert how(ended) == (0, "404\n", "")


def test_a_library_that_is_imported_even_earlier(bench: Bench) -> None:
    """What starts before `sitecustomize` may have imported a library: then the child is instrumented at once."""
    bench.write("calls.py", CALLS)
    code = "import sys, requests; sys.path.insert(0, sys.argv[1]); import site; site.main(); from calls import call; print(call())"
    packages = os.pathsep.join([entry for entry in sys.path if entry.endswith("-packages")])
    bench_path = os.pathsep.join([packages, str(SITE.parents[1])])
    ended = bench.python("-S", "-c", code, str(SITE), changed={"PYTHONPATH": bench_path})
    assert how(ended) == (0, f"{CALLED}\n", "")
    assert bench.server.counts.logins == 1


def test_two_libraries_in_two_threads(bench: Bench) -> None:
    """Two threads that import two libraries at the same moment: both are instrumented when their import returns."""
    code = """
        import os, threading
        api, start, told = os.environ["API"], threading.Barrier(2), []
        def one():
            start.wait()
            import requests
            told.append(requests.get(api + "/account/list", timeout=20).status_code)
        def another():
            start.wait()
            import httpx
            told.append(httpx.get(api + "/account/list", timeout=20).status_code)
        threads = [threading.Thread(target=each) for each in (one, another)]
        for each in threads: each.start()
        for each in threads: each.join()
        print(told)
    """
    ended = bench.python("-c", textwrap.dedent(code), changed={"PYTHONPATH": str(SITE)})
    assert how(ended) == (0, "[200, 200]\n", "")
    assert bench.server.counts.logins == 1


def test_a_thread_that_waits_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits too long for a thread that is instrumenting this process imports his library all the same."""
    monkeypatch.setattr(_instrument_child, "_PATIENCE", 0.01)
    watch, held, done = _instrument_child._Watch(), threading.Event(), threading.Event()

    def hold() -> None:
        with watch._lock:
            held.set()
            done.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(20)
    spec = watch.find_spec("requests")
    done.set()
    holder.join()
    assert spec is not None
    assert spec.origin == requests.__file__
    assert watch.find_spec("json") is None


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


def test_coverage_over_child_processes(bench: Bench) -> None:
    """`coverage run` measures the program, and its children through the start-up file of its own."""
    bench.write("calls.py", CALLS)
    bench.write("child.py", "from calls import call\nprint(call())\n")
    bench.write(
        "bot.py", "import subprocess, sys\nsubprocess.run([sys.executable, 'child.py'], check=True)\n"
    )
    bench.write(".coveragerc", "[run]\npatch = subprocess\nparallel = true\nsource = .\n")
    ended = bench.python("-m", "coverage", "run", *RUNNER, "bot.py", changed=UNMEASURED)
    assert how(ended) == (0, f"{CALLED}\n", "")
    assert bench.python("-m", "coverage", "combine", "-q", changed=UNMEASURED).returncode == 0
    report = json.loads(bench.python("-m", "coverage", "json", "-q", "-o", "-", changed=UNMEASURED).stdout)
    covered = {name: found["summary"]["percent_covered"] for name, found in report["files"].items()}
    assert covered == {"bot.py": 100.0, "calls.py": 100.0, "child.py": 100.0}
    assert bench.server.counts.logins == 1

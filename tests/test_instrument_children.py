"""Processes that an instrumented program starts: every Python among them shares the session, and none is in its way."""

import json
import os
import subprocess
import sys
import textwrap
import threading
import venv

import pytest
import requests
from core_tools import eventually
from runner_tools import CALLED, CALLS, REQUEST, RUNNER, SITE, UNMEASURED, Bench, Ended, bench, how

from tradovate_auth import _instrument_child

__all__ = ["bench"]  # a fixture

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

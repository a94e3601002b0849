"""A program whose own modules have the names of those that the package needs: each finds its own, in every process."""

import importlib.util
import os
import sys
import textwrap
import threading
import zipfile
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from runner_tools import CALLED, CALLS, RUNNER, SITE, UNMEASURED, Bench, bench, how

from tradovate_auth import _instrument_shelter
from tradovate_auth._instrument_shelter import SHELTER, Shelter

__all__ = ["bench"]  # a fixture

TAKEN = [
    "ast",
    "asyncio",
    "concurrent",
    "contextvars",
    "cryptography",
    "dataclasses",
    "dis",
    "filelock",
    "inspect",
    "opcode",
    "platform",
    "redis",
    "secrets",
    "signal",
    "subprocess",
    "wrapt",
]
"""What the package, or the library that its logins go over, imports, and requests does not."""

OWN = f"""
    import importlib
    def own():
        found = [importlib.import_module(name) for name in {TAKEN}]
        return {{module.MINE for module in found}}
"""
BOT = "from own import own\nprint(own())\nfrom calls import call\nprint(call(), own())\n"
LATE = "from calls import call\nprint(call())\nfrom own import own\nprint(own(), call())\n"


def with_names_of_its_own(bench: Bench, folder: str = ".") -> None:
    """Put a bot into a folder that knows no other modules by these names than its own."""
    for name in TAKEN:
        bench.write(f"{folder}/{name}.py", "MINE = 'mine'\n")
    bench.write(f"{folder}/own.py", OWN)
    bench.write(f"{folder}/calls.py", CALLS)
    bench.write(f"{folder}/bot.py", BOT)
    bench.write(f"{folder}/late.py", LATE)


FOUND = f"{{'mine'}}\n{CALLED} {{'mine'}}\n"


@pytest.mark.parametrize(
    "way",
    [["bot.py"], ["-m", "bot"], ["-"], ["-c", "import bot"]],
    ids=str,
)
def test_names_beside_the_program(bench: Bench, way: list[str]) -> None:
    """With the program's folder as the one that the runner is called in, both of them work."""
    with_names_of_its_own(bench)
    assert how(bench.run(*way, changed=UNMEASURED, given=BOT)) == (0, FOUND, "")
    assert bench.server.counts.logins == 1


def test_names_beside_a_program_elsewhere(bench: Bench) -> None:
    """So they do in a folder that the runner comes to later, and when the program imports its own after a call."""
    with_names_of_its_own(bench, "bots")
    assert how(bench.run("bots/bot.py", changed=UNMEASURED)) == (0, FOUND, "")
    late = f"{CALLED}\n{{'mine'}} {CALLED}\n"
    assert how(bench.run("bots/late.py", changed=UNMEASURED)) == (0, late, "")


def test_names_in_a_folder_of_pythonpath(bench: Bench) -> None:
    """So they do in a folder that PYTHONPATH names."""
    with_names_of_its_own(bench, "library")
    bench.write("bot.py", BOT)
    changed = {**UNMEASURED, "PYTHONPATH": str(bench.folder / "library")}
    assert how(bench.run("bot.py", changed=changed)) == (0, FOUND, "")


def test_names_where_the_runner_is_called(bench: Bench) -> None:
    """Modules that lie there, but not beside the program, are nobody's."""
    for name in TAKEN:
        bench.write(f"{name}.py", "raise RuntimeError('this is nobody')\n")
    with_names_of_its_own(bench, "bots")
    assert how(bench.run("bots/bot.py", changed=UNMEASURED)) == (0, FOUND, "")


def test_names_of_a_child(bench: Bench) -> None:
    """Children find theirs as well, whether they import them before an HTTP library or after it."""
    with_names_of_its_own(bench, "bots")
    code = """
        import subprocess, sys
        for bot in ("bots/bot.py", "bots/late.py"):
            subprocess.run([sys.executable, bot], check=True)
        subprocess.run([sys.executable, "-m", "bot"], check=True, cwd="bots")
    """
    late = f"{CALLED}\n{{'mine'}} {CALLED}\n"
    ended = bench.run("-c", textwrap.dedent(code), changed=UNMEASURED)
    assert how(ended) == (0, FOUND + late + FOUND, "")
    assert bench.server.counts.logins == 1


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_names_of_a_spawned_child(bench: Bench, method: str) -> None:
    """So do those of multiprocessing; that needs `signal` itself, so the bot has fewer of its own."""
    bench.write("bots/secrets.py", "MINE = 'mine'\n")
    bench.write("bots/platform.py", "MINE = 'mine'\n")
    bench.write("bots/calls.py", CALLS)
    code = f"""
        import multiprocessing, platform, secrets
        from calls import call

        def work(queue):
            queue.put((call(), platform.MINE, secrets.MINE))

        if __name__ == "__main__":
            context = multiprocessing.get_context({method!r})
            queue = context.SimpleQueue()
            process = context.Process(target=work, args=(queue,))
            process.start()
            print(*queue.get())
            process.join()
    """
    bench.write("bots/family.py", code)
    assert how(bench.run("bots/family.py", changed=UNMEASURED)) == (0, f"{CALLED} mine mine\n", "")


def test_libraries_find_what_they_would_find(bench: Bench) -> None:
    """What a library of the program imports is not ours to choose: requests fails over this name with us as without us."""
    bench.write("calendar.py", "MINE = 'mine'\n")
    bench.write("bot.py", "import calendar, requests\n")
    ours, plain = bench.both("bot.py")
    assert (ours.returncode, ours.stderr.splitlines()[-1]) == (
        plain.returncode,
        plain.stderr.splitlines()[-1],
    )
    assert "cannot import name 'timegm' from 'calendar'" in plain.stderr


def test_a_library_that_comes_with_the_program(bench: Bench) -> None:
    """A copy of requests in the program's folder is the one that is instrumented."""
    source = Path(importlib.util.find_spec("requests").origin).parent  # type: ignore[union-attr, arg-type]  # it is installed
    (bench.folder / "requests").symlink_to(source)
    bench.write("secrets.py", "MINE = 'mine'\n")
    bench.write("calls.py", CALLS)
    bench.write(
        "bot.py", "import secrets, requests, calls\nprint(requests.__file__, secrets.MINE, calls.call())"
    )
    place = bench.folder / "requests" / "__init__.py"
    for way in (
        [*RUNNER, "bot.py"],
        [*RUNNER, "-c", "import subprocess, sys; subprocess.run([sys.executable, 'bot.py'])"],
    ):
        assert how(bench.python(*way)) == (0, f"{place} mine {CALLED}\n", "")


def test_a_library_that_only_the_login_goes_over(bench: Bench) -> None:
    """It is instrumented too when the program comes to it later, also where another package waits for imports by wrapt."""
    bench.write("calls.py", CALLS)
    bench.write("secrets.py", "MINE = 'mine'\n")
    code = """
        import os
        import wrapt
        wrapt.register_post_import_hook(print, "nothing")
        from calls import call
        print(call())
        import httpx2, secrets
        print(httpx2.get(os.environ["API"] + "/account/list").status_code, secrets.MINE)
    """
    bench.write("bot.py", code)
    child = "import subprocess, sys; subprocess.run([sys.executable, 'bot.py'])"
    for way in (["bot.py"], ["-c", child]):
        assert how(bench.run(*way)) == (0, f"{CALLED}\n200 mine\n", "")


def test_a_module_that_is_written_and_imported_at_once(bench: Bench) -> None:
    """The program's folder is read anew when the program looks for its first module."""
    code = "open('fresh.py', 'w').write('print(1)'); import fresh"
    for _ in range(3):
        assert how(bench.run("-c", code)) == (0, "1\n", "")
        (bench.folder / "fresh.py").unlink()


def test_a_runner_that_nobody_has_announced(bench: Bench) -> None:
    """Where something else than `-m` calls the runner, the program finds its own, but for what had been loaded by then."""
    for name in ("secrets", "platform"):
        bench.write(f"bots/{name}.py", "MINE = 'mine'\n")
    bench.write("bots/calls.py", CALLS)
    bench.write(
        "bots/bot.py",
        "import calls, platform, secrets\nprint(calls.call(), secrets.MINE, hasattr(platform, 'MINE'))",
    )
    code = "import platform; from tradovate_auth._instrument_runner import main; main(['bots/bot.py'])"
    assert how(bench.python("-c", code, changed=UNMEASURED)) == (0, f"{CALLED} mine False\n", "")


def test_a_start_without_site(bench: Bench) -> None:
    """Under `-S` the runner shelters itself as well."""
    for name in ("secrets", "platform"):
        bench.write(f"{name}.py", "MINE = 'mine'\n")
    bench.write("calls.py", CALLS)
    bench.write(
        "bot.py", "import calls, platform, secrets\nprint(calls.call(), platform.MINE, secrets.MINE)\n"
    )
    packages = [entry for entry in sys.path if entry.endswith("-packages")]
    changed = {"PYTHONPATH": os.pathsep.join([*packages, str(SITE.parents[1])])}
    assert how(bench.python("-S", *RUNNER, "bot.py", changed=changed)) == (0, f"{CALLED} mine mine\n", "")


def test_other_modules_are_not_sheltered(bench: Bench) -> None:
    """`python -m` of anything else leaves the import system alone, also with the runner's name among its arguments."""
    code = """
        import sys
        import tradovate_auth
        from tradovate_auth._instrument_shelter import SHELTER
        print(SHELTER in sys.meta_path)
    """
    bench.write("other/__init__.py", code)
    bench.write("other/__main__.py", "")
    ended = bench.python("-m", "other", RUNNER[1])
    assert how(ended) == (0, "False\n", "")


def test_a_child_that_has_the_package_already(bench: Bench) -> None:
    """A child that is a module, and imports this package before an HTTP library, shares the session like others."""
    bench.write("other/__init__.py", "import tradovate_auth")
    bench.write("other/__main__.py", "from calls import call; print(call())")
    bench.write("calls.py", CALLS)
    ended = bench.python("-m", "other", changed={"PYTHONPATH": str(SITE)})
    assert how(ended) == (0, f"{CALLED}\n", "")
    assert bench.server.counts.logins == 1


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a folder at the head of `sys.path` with a `colorsys` and a `filelock` of its own, while nobody has the real ones."""
    made_up = ("colorsys", "filelock", "only_here")
    for name in made_up[:2]:
        (tmp_path / f"{name}.py").write_text("MINE = True\n")
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = forget(made_up)
    yield tmp_path
    forget(made_up)
    sys.modules.update(before)


def forget(tops: tuple[str, ...]) -> dict[str, ModuleType]:
    """Take modules, and their submodules, out of `sys.modules`."""
    names = [name for name in sys.modules if name.partition(".")[0] in tops]
    return {name: sys.modules.pop(name) for name in names}


def is_mine(module: ModuleType) -> bool:
    """Return whether a module is the program's."""
    return hasattr(module, "MINE")


@pytest.mark.usefixtures("names")
def test_two_views() -> None:
    """Inside, a name is the installed module's; outside, the program's; and both stay the same objects."""
    shelter = Shelter()
    theirs = shelter_free_import("colorsys")
    with shelter:
        ours = shelter_free_import("colorsys")
    assert (is_mine(theirs), is_mine(ours)) == (True, False)
    assert shelter_free_import("colorsys") is theirs
    with shelter:
        assert shelter_free_import("colorsys") is ours
        with shelter:
            assert shelter_free_import("colorsys") is ours
        assert shelter_free_import("colorsys") is ours
    assert shelter_free_import("colorsys") is theirs
    assert shelter.import_("colorsys") is ours
    assert shelter.import_("filelock").FileLock
    assert is_mine(shelter_free_import("filelock"))


def shelter_free_import(name: str) -> ModuleType:
    """Import a module as a program does."""
    return __import__(name)


def test_a_thread_outside(names: Path) -> None:
    """The finder answers to threads inside alone; the last one to leave restores the program's view."""
    shelter, entered, done = Shelter(), threading.Event(), threading.Event()

    def stay() -> None:
        with shelter:
            entered.set()
            assert done.wait(20)

    another = threading.Thread(target=stay)
    another.start()
    assert entered.wait(20)
    assert is_mine(shelter_free_import("colorsys"))
    with shelter:
        found = shelter.find_spec("colorsys")
        assert found is not None
        assert found.origin != str(names / "colorsys.py")
    assert shelter.find_spec("colorsys") is None
    shelter.leave()  # without effect: this thread is outside
    done.set()
    another.join()
    assert shelter._inside == []


@pytest.mark.parametrize("known", [True, False])
def test_a_module_that_another_thread_is_importing(known: bool, names: Path) -> None:
    """It stays where its import will look for it, at both ends of the shelter, whether we know ours by then or not."""
    shelter, found = Shelter(), list[ModuleType]()
    if known:
        with shelter:
            shelter_free_import("colorsys")
    (names / "gates.py").write_text("from threading import Event\nBEGUN, END = Event(), Event()\n")
    (names / "colorsys.py").write_text("import gates\ngates.BEGUN.set()\nMINE = gates.END.wait(20)\n")
    gates: Any = shelter_free_import("gates")
    another = threading.Thread(target=lambda: found.append(shelter_free_import("colorsys")))
    another.start()
    assert gates.BEGUN.wait(20)
    begun = sys.modules["colorsys"]
    with shelter:
        assert sys.modules["colorsys"] is begun
    assert sys.modules["colorsys"] is begun
    gates.END.set()
    another.join()
    assert found == [begun]
    with shelter:
        assert not is_mine(shelter_free_import("colorsys"))
    assert shelter_free_import("colorsys") is begun
    forget(("gates",))


def test_a_module_whose_import_begins_meanwhile(names: Path) -> None:
    """A thread outside that begins while we are inside comes to its end as well, and has what the program had."""
    shelter, found = Shelter(), list[ModuleType]()
    theirs = shelter_free_import("colorsys")
    (names / "gates.py").write_text("from threading import Event\nBEGUN, END = Event(), Event()\n")
    (names / "colorsys.py").write_text("import gates\ngates.BEGUN.set()\nMINE = gates.END.wait(20)\n")
    gates: Any = shelter_free_import("gates")
    another = threading.Thread(target=lambda: found.append(shelter_free_import("colorsys")))
    with shelter:
        another.start()
        assert gates.BEGUN.wait(20)
    gates.END.set()
    another.join()
    assert found == [theirs]
    with shelter:
        assert not is_mine(shelter_free_import("colorsys"))
    forget(("gates",))


def test_a_module_that_asks_while_it_is_imported(names: Path) -> None:
    """A module that comes to us in the middle of its own import, in the same thread, is set aside for that time."""
    shelter = Shelter()
    (names / "colorsys.py").write_text("import asked\nMINE = asked.ask()\n")
    asked: Any = ModuleType("asked")

    def ask() -> bool:
        with shelter:
            return not is_mine(shelter_free_import("colorsys"))

    asked.ask = ask
    sys.modules["asked"] = asked
    assert shelter_free_import("colorsys").MINE is True
    forget(("asked",))


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.usefixtures("names")
def test_a_fork_of_somebody_inside(here: bool) -> None:
    """A child process has the program's view, unless the one who forked is inside himself."""
    theirs = shelter_free_import("colorsys")
    shelter, entered, done = Shelter(), threading.Event(), threading.Event()

    def stay() -> None:
        with shelter:
            shelter_free_import("colorsys")
            entered.set()
            assert done.wait(20)

    another = threading.Thread(target=stay)
    another.start()
    assert entered.wait(20)
    if here:
        shelter.enter()
    shelter.after_fork()
    assert (sys.modules["colorsys"] is theirs) is not here
    shelter.leave()
    assert sys.modules["colorsys"] is theirs
    shelter.after_fork()
    assert sys.modules["colorsys"] is theirs
    done.set()
    another.join()


@pytest.mark.usefixtures("names")
def test_modules_of_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made without the import system, or blocked, is left where it is."""
    made = ModuleType("filelock")
    monkeypatch.setitem(sys.modules, "filelock", made)
    monkeypatch.setitem(sys.modules, "$odd.name", ModuleType("$odd.name"))
    shelter = Shelter()
    with shelter:
        sys.modules["colorsys"] = ModuleType("colorsys")
        assert sys.modules["filelock"] is made
    assert "colorsys" in sys.modules
    assert "$odd.name" in sys.modules


def test_an_installation_before_the_standard_library(names: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed nowhere else than in a folder of PYTHONPATH is what we want."""
    shelter = Shelter()
    monkeypatch.setattr(_instrument_shelter, "_NAMES", {"only_here"})
    (names / "only_here.py").write_text("")
    here = shelter_free_import("only_here")
    assert shelter.import_("only_here") is here
    with shelter:
        assert sys.modules["only_here"] is here


def test_an_import_system_of_somebody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the usual finder, or without the standard library in `sys.path`, nothing is hidden and nothing fails."""
    finders = [finder for finder in sys.meta_path if finder is not PathFinder]
    monkeypatch.setattr(sys, "meta_path", finders)
    monkeypatch.setattr(sys, "path", [])
    shelter = Shelter()
    with shelter:
        assert finders[-1] is shelter
        assert shelter.find_spec("nosuch_module") is None
    assert shelter.find_spec("nosuch_package.module", []) is None
    assert shelter.find_spec("tradovate_auth.nosuch", []) is None


def test_our_modules_from_an_archive(tmp_path: Path) -> None:
    """A module of ours that comes out of something else than a file keeps its loader."""
    with zipfile.ZipFile(tmp_path / "ours.zip", "w") as archive:
        archive.writestr("made_up.py", "")
    spec = SHELTER.find_spec("tradovate_auth.made_up", [str(tmp_path / "ours.zip")])
    assert spec is not None
    assert type(spec.loader).__name__ == "zipimporter"

"""`python -m tradovate_auth.instrumentation bot.py`: a program that knows nothing of this package, run in our session.

The program runs in this process, as the interpreter would run it: it finds itself as `__main__`, its own folder first in
`sys.path` and its own `sys.argv`; what it raises, how it exits and which signal ends it is seen from outside as it would be
without us. (`runpy` takes `__main__` away again when the module's last line has run, while threads of the program may still
live; then nothing they made in it can be pickled. So the module is made here.)

Everything before that happens under a shelter, so that the program's own modules are not taken for those that we need, nor ours
for its: see `_instrument_shelter`.

Python processes that it starts find the folder `_site` first in PYTHONPATH and in it a `sitecustomize`, which instruments them
too and goes on to the one that it hides. It is a part of this package and not made for each run: a process that outlives
the program may still start others, and a killed program leaves nothing behind.
"""

import builtins
import importlib.util
import json
import linecache
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import BuiltinImporter, ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import Any, Final, NoReturn

from ._instrument_child import VARIABLE, disarm, options, say
from ._instrument_shelter import SHELTER
from .errors import TradovateAuthError

__all__ = ["main"]

_Hook = Callable[[type[BaseException], BaseException, TracebackType | None], object]
_SITE: Final = str(Path(__file__).resolve().parent / "_site")
_USAGE: Final = """\
usage: python -m tradovate_auth.instrumentation [OPTIONS] PROGRAM.py [ARGS ...]
       python -m tradovate_auth.instrumentation [OPTIONS] -m MODULE [ARGS ...]
       python -m tradovate_auth.instrumentation [OPTIONS] -c CODE [ARGS ...]
       python -m tradovate_auth.instrumentation [OPTIONS] - [ARGS ...]    (the program is read from stdin)
"""
_HELP: Final = """
Runs a program whose requests to Tradovate, and those of the Python processes it starts, go out in one shared session.
The user, the API key, the environment and the storage come from the TRADOVATE_ variables.

options:
  --logins answer|pass    the program's own logins and renewals: answer them from the shared session, or let them pass
  --insecure warn|refuse  a client that checks no certificate: give it the token and warn, or withhold the token
  --help                  show this
"""
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "--logins": ("answer", "pass"),
    "--insecure": ("warn", "refuse"),
}


def main(argv: Sequence[str]) -> int:
    """Run a program in an instrumented process; return 0 when it has come to its end. Main thread only, once.

    Args:
        argv: The command line behind `python -m tradovate_auth.instrumentation`.

    Raises:
        SystemExit: The program has exited so; or it could not be started, which stderr says: 2 for a wrong command line,
            missing credentials or a missing file, 1 for a missing module, as from the interpreter itself.
        BaseException: Whatever else the program raised and did not catch.
    """
    SHELTER.enter()  # unless it was entered as the package was imported
    try:
        chosen, rest = _options(argv)
        arrange = _arrangement(rest)
        _share(chosen)
    finally:
        SHELTER.leave(wholly=True)
    _execute(arrange())
    return 0


def _options(argv: Sequence[str]) -> tuple[dict[str, str], Sequence[str]]:
    """Return our own options, and the program with its arguments."""
    chosen: dict[str, str] = {}
    rest = list(argv)
    while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c", "-", "--"):
        option, equals, value = rest.pop(0).partition("=")
        if option in ("--help", "-h"):
            sys.stdout.write(_USAGE + _HELP)
            raise SystemExit(0)
        if option not in _CHOICES:
            _refuse(f"{_USAGE}tradovate_auth: there is no option {option}", 2)
        if not equals:
            value = rest.pop(0) if rest else ""
        if value not in _CHOICES[option]:
            _refuse(f"{_USAGE}tradovate_auth: {option} is {' or '.join(_CHOICES[option])}", 2)
        chosen[option.removeprefix("--")] = value
    return chosen, rest


def _say(message: str) -> None:
    if sys.stderr is not None:  # under pythonw there is none
        sys.stderr.write(f"{message}\n")


def _refuse(message: str, status: int) -> NoReturn:
    _say(message)
    raise SystemExit(status)


def _share(chosen: Mapping[str, str]) -> None:
    """Instrument this process, and make the environment such that its children are instrumented too."""
    from ._instrument_notices import tell
    from .instrumentation import instrument, uninstrument

    notices = _arrange_storage()
    disarm()
    uninstrument()  # a runner above may have seen to it already; the nearest one decides about the options
    try:
        settings: dict[str, Any] = {**options(), **chosen}
        instrument(**settings, on_event=tell)
    except (TradovateAuthError, ValueError) as error:
        _refuse(f"tradovate_auth: {error}", 2)
    os.environ[VARIABLE] = json.dumps(settings)
    inherited = os.environ.get("PYTHONPATH")
    others = [entry for entry in inherited.split(os.pathsep) if entry != _SITE] if inherited else []
    os.environ["PYTHONPATH"] = os.pathsep.join([_SITE, *others])
    for notice in notices:
        say(notice)


def _arrange_storage() -> list[str]:
    """See to it that the processes of this program share a storage; return what its user should know of that."""
    named = os.environ.get("TRADOVATE_STORAGE", "")
    if not named:
        folder = _state_folder()
        os.environ["TRADOVATE_STORAGE"] = folder.as_uri()
        return [f"the session is kept in {folder}; TRADOVATE_STORAGE names another place"]
    if named.lower().startswith("memory:"):
        return ["with memory:// each process that the program starts opens a session of its own"]
    return []


def _state_folder() -> Path:
    """Return this user's folder for what programs keep from one run to the next. Nothing is touched."""
    try:
        parent = (
            os.environ.get("XDG_STATE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".local/state"
        )
    except RuntimeError:
        _refuse(
            "tradovate_auth: set TRADOVATE_STORAGE: this user has no home folder to keep the session in", 2
        )
    return Path(parent).absolute() / "tradovate_auth" / "sessions"


@dataclass(frozen=True)
class _Program:
    """A program as the interpreter sees it."""

    code: Callable[[], CodeType | None]
    arguments: Sequence[str]
    names: Mapping[str, object] = field(default_factory=dict)
    """What its `__main__` holds from the beginning."""


def _arrangement(rest: Sequence[str]) -> Callable[[], _Program]:
    """Put the program's folder into `sys.path`; return what finds the program.

    That is not called before this process is instrumented, for it may run code of a package.
    """
    if not rest or (rest[0] in ("-m", "-c", "--") and len(rest) == 1):
        _refuse(_USAGE.rstrip(), 2)
    if rest[0] == "-m":
        _lead(str(Path.cwd()))
        return lambda: _module(rest[1], rest[2:])
    if rest[0] == "-c":
        _lead("")
        return lambda: _text(rest[1], rest[2:])
    if rest[0] == "--":
        rest = rest[1:]
    if rest[0] == "-":
        _lead("")
        return lambda: _stdin(rest[1:])
    program, folder = _file(rest[0], rest[1:])
    _lead(folder)
    return lambda: program


def _lead(folder: str) -> None:
    """Make a folder the first one in `sys.path`."""
    if not sys.flags.safe_path:
        sys.path[0] = folder


def _text(source: str, arguments: Sequence[str]) -> _Program:
    names = {"__loader__": BuiltinImporter}
    if sys.version_info >= (3, 13):  # pragma: no cover  # since then tracebacks show these lines
        linecache.cache["<string>"] = (len(source), None, source.splitlines(keepends=True), "<string>")
    return _Program(lambda: compile(source, "<string>", "exec", dont_inherit=True), ["-c", *arguments], names)


def _stdin(arguments: Sequence[str]) -> _Program:
    if sys.stdin is None:
        _refuse("tradovate_auth: there is no stdin to read a program from", 2)
    source = sys.stdin.buffer.read()
    names = {"__file__": "<stdin>", "__loader__": BuiltinImporter, "__cached__": None}
    return _Program(lambda: compile(source, "<stdin>", "exec", dont_inherit=True), ["-", *arguments], names)


def _file(path: str, arguments: Sequence[str]) -> tuple[_Program, str]:
    """Return the program in a file, a folder or an archive, and what is to stand first in its `sys.path`."""
    full = os.path.abspath(path)  # noqa: PTH100  # as the interpreter does: ".." goes, symbolic links stay
    spec = PathFinder.find_spec("__main__", [full])
    if spec is not None and spec.loader is not None:  # a folder, or an archive, that holds a program
        return _found(spec, [path, *arguments]), full
    if Path(full).is_dir():
        _refuse(f"tradovate_auth: can't find '__main__' module in {full!r}", 1)
    loader = SourceFileLoader("__main__", full)
    try:
        source = loader.get_data(full)
    except OSError as error:
        _refuse(f"tradovate_auth: {full!r} cannot be run: {error.strerror}", 2)
    names = {"__file__": full, "__loader__": loader, "__cached__": None}
    folder = str(Path(full).resolve().parent)
    return _Program(lambda: loader.source_to_code(source, full), [path, *arguments], names), folder


def _module(name: str, arguments: Sequence[str]) -> _Program:
    sys.argv = ["-m", *arguments]  # what a package sees that is imported on the way to its module
    hint = ""
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            hint = f"; {name!r} is a package and cannot be directly executed"
            name += ".__main__"
            spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # something that the package itself is missing
        spec = None
    if spec is None:
        _refuse(f"tradovate_auth: there is no module {name}{hint}", 1)
    return _found(spec, [spec.origin or "-m", *arguments])


def _found(spec: ModuleSpec, arguments: Sequence[str]) -> _Program:
    """Return the program that the import system has found."""
    loader: Any = spec.loader
    names = {
        "__file__": spec.origin,
        "__loader__": loader,
        "__cached__": spec.cached,
        "__package__": spec.parent,
        "__spec__": spec,
    }
    return _Program(lambda: loader.get_code(spec.name), arguments, names)


def _execute(program: _Program) -> None:
    """Run the program in a new `__main__`, which stays: threads of the program may outlive its last line."""
    sys.argv = list(program.arguments)
    main_module = sys.modules["__main__"] = ModuleType("__main__")
    annotations: dict[str, object] = {} if sys.version_info >= (3, 14) else {"__annotations__": {}}
    vars(main_module).update(annotations, **program.names, __builtins__=builtins)
    code = None
    try:
        code = program.code()
        if code is None:  # it is compiled into the interpreter, or to machine code
            _refuse("tradovate_auth: this module holds no program", 1)
        exec(code, vars(main_module))  # noqa: S102  # that is what it is for
    except BaseException as error:
        # The interpreter will do with it what it always does; only our frames are not in what it shows.
        trace = error.__traceback__.tb_next if code is not None and error.__traceback__ is not None else None
        sys.excepthook = _without_us(sys.excepthook, trace)
        raise


def _without_us(hook: _Hook, trace: TracebackType | None) -> _Hook:
    def shown(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
        hook(kind, error.with_traceback(trace), trace)

    return shown

"""Two views of one process: a bot keeps its keys in a `secrets.py` of its own, and we need Python's.

A program that is run by the runner, or started by one, was written without us: modules beside it may hide modules of the
standard library, or packages, that it does not use and we do. Under a shelter a thread's imports find what is installed, and not
what lies before that in `sys.path`; afterwards what was loaded so is taken out of `sys.modules` again wherever the program has a
module of that name, and is kept for the next time. The package's modules have an `__import__` of their own that goes under the
shelter, because some of what they need is imported late.

HTTP libraries are excepted: one that the program has loaded is the one that is instrumented, wherever it comes from.

It is loaded from its file, as `_instrument_child` is and for the same reason: nothing of the package may come before it.
"""

# ruff: noqa: PTH120  # pathlib is one of the modules that a program may hide

from __future__ import annotations

import builtins
import os
import sys
from _thread import RLock, get_ident
from importlib import _bootstrap  # who is importing what is told nowhere else
from importlib.machinery import PathFinder, SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

__all__ = ["SHELTER", "Shelter", "cover_runner"]

_PACKAGE = "tradovate_auth"
_RUNNER = "tradovate_auth.instrumentation"
_NAMES = frozenset(getattr(sys, "stdlib_module_names", ())) | {
    "cryptography",
    "filelock",
    "keyring",
    "redis",
    "wrapt",
}
"""What a program may hide from us. Other libraries are its own business."""

_LATE = {"httpx": "httpcore", "httpx2": "httpcore2"}
"""What a library that only our logins go over would import when it sends the first one: outside, where it could fail."""


class Shelter:
    """A context manager, and a finder as long as it lives. Any thread; several at once.

    While anybody is inside, `sys.modules` shows our view to all threads: there is only one of it. No lock is held meanwhile, for
    whoever imports may have to wait for another one who does.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._inside: list[int] = []
        self._before: frozenset[str] = frozenset()
        self._ours: dict[str, ModuleType] = {}
        self._theirs: dict[str, ModuleType] = {}
        self._left: set[str] = set()

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *_: object) -> None:
        self.leave()

    def enter(self, before: Iterable[str] | None = None) -> None:
        """Go under the shelter. Never blocks.

        Args:
            before: What the program would have found in `sys.modules` without us; None is all that is there now.
        """
        with self._lock:
            if not self._inside:
                self._before = frozenset(sys.modules if before is None else before)
                self._show_ours()
            self._inside.append(get_ident())

    def leave(self, *, wholly: bool = False) -> None:
        """Undo one `enter` of this thread, or with `wholly` all of them. Never blocks; without effect outside."""
        with self._lock:
            here = self._inside.count(get_ident())
            for _ in range(here if wholly else min(here, 1)):
                self._inside.remove(get_ident())
            if here and not self._inside:
                self._show_theirs()

    def after_fork(self) -> None:
        """Go on in a child process, where no thread is left but the one that forked."""
        self._lock = RLock()
        if self._inside:
            self._inside = [thread for thread in self._inside if thread == get_ident()]
            if not self._inside:
                self._show_theirs()

    def import_(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,  # noqa: A002  # as the interpreter calls it
        locals: Mapping[str, object] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Do what `__import__` does, for our own modules. See there."""
        if level or self._is_settled(name.partition(".")[0]):
            return builtins.__import__(name, globals, locals, fromlist, level)
        with self:
            found = builtins.__import__(name, globals, locals, fromlist, level)
            if name in _LATE:
                builtins.__import__(_LATE[name])
            return found

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find what is installed, for threads inside; and our own modules, which get our `__import__`, for all."""
        if path is None:
            if get_ident() not in self._inside:
                return None
            installed, program = _parts()
            return PathFinder.find_spec(name, [*installed, *program], target)
        spec = PathFinder.find_spec(name, path, target) if name.startswith(f"{_PACKAGE}.") else None
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(name, spec.loader.path)
        return spec

    def _is_settled(self, top: str) -> bool:
        """Return whether what `sys.modules` holds by this name is what we want."""
        module = sys.modules.get(top)
        if module is None:
            return False
        return top not in _NAMES or (top not in self._ours and not _is_programs(top, module))

    def _show_ours(self) -> None:
        finders: list[Any] = sys.meta_path
        if self not in finders:  # behind those who only listen, such as wrapt's
            finders.insert(finders.index(PathFinder) if PathFinder in finders else len(finders), self)
        self._left = set()
        for top in _NAMES.intersection(sys.modules):
            if _is_programs(top, sys.modules.get(top)):
                if _is_begun_elsewhere(top):
                    self._left.add(top)
                else:
                    self._theirs.update(_take(top))
        ours = {
            name: module for name, module in self._ours.items() if name.partition(".")[0] not in self._left
        }
        sys.modules.update(ours)

    def _show_theirs(self) -> None:
        again = {name.partition(".")[0] for name in (*self._ours, *self._theirs)}
        _, program = _parts()
        for top in {name.partition(".")[0] for name in list(sys.modules)} - {_PACKAGE, *self._left}:
            wanted = top in again or (top not in self._before and _is_hidden(top, program))
            if wanted and not _is_begun_elsewhere(top):  # by the program then: no other thread is inside
                self._ours.update(_take(top))
        sys.modules.update(self._theirs)
        self._theirs = {}
        for (
            folder
        ) in program:  # whoever writes a module there and imports it at once must not meet what we remember
            sys.path_importer_cache.pop(folder, None)


class _Loader(SourceFileLoader):
    """Gives a module of ours an `__import__` that the program's modules do not mislead."""

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": SHELTER.import_}
        super().exec_module(module)


def cover_runner() -> None:
    """Go under the shelter if the interpreter is just now looking for the runner, the module of its `-m`.

    The program's folder, or another that is none of our business, stands first in `sys.path` then. The runner leaves.
    """
    ahead = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    if sys.argv[:1] == ["-m"] and "".join(ahead[-1:]).endswith(_RUNNER):
        names = list(
            sys.modules
        )  # in the order in which they were complete: the start-up of Python ends with site
        SHELTER.enter(names[: names.index("site")] if "site" in names else names)


def _parts() -> tuple[list[str], list[str]]:
    """Return `sys.path` in two parts: from the standard library on, and what a program or PYTHONPATH has put before that."""
    home = os.path.dirname(getattr(os, "__file__", ""))
    at = sys.path.index(home) if home in sys.path else 0
    return sys.path[at:], sys.path[:at]


def _take(top: str) -> dict[str, ModuleType]:
    """Take a module, and its submodules, out of `sys.modules`."""
    names = [name for name in list(sys.modules) if name == top or name.startswith(f"{top}.")]
    return {name: sys.modules.pop(name) for name in names}


def _is_begun_elsewhere(top: str) -> bool:
    """Return whether another thread is in the middle of importing a module, or a submodule of it: it must find it in
    `sys.modules` when it has come to the end, or its import fails.
    """
    names = [name for name in list(sys.modules) if name == top or name.startswith(f"{top}.")]
    specs = [(name, getattr(sys.modules.get(name), "__spec__", None)) for name in names]
    return any(getattr(spec, "_initializing", False) and not _is_begun_here(name) for name, spec in specs)


def _is_begun_here(name: str) -> bool:
    """Return whether it is this thread that imports a module, and so will not come to its end before it has left."""
    locks: dict[str, Any] = getattr(_bootstrap, "_module_locks", {})
    lock = locks.get(name)
    return lock is not None and getattr(lock(), "owner", None) == get_ident()


def _file_of(module: Any) -> tuple[str | None, bool]:
    """Return from which file a module was loaded, None for one that the interpreter has in itself; and if it is a package."""
    spec: Any = getattr(module, "__spec__", None)
    if not getattr(spec, "has_location", False):
        return None, False
    return spec.origin, spec.submodule_search_locations is not None


def _is_programs(top: str, module: ModuleType | None) -> bool:
    """Return whether a module is not the installed one of that name."""
    origin, package = _file_of(module)
    if origin is None:
        return False
    installed, program = _parts()
    folder = os.path.dirname(origin)
    if (os.path.dirname(folder) if package else folder) in installed:
        return False
    found = PathFinder.find_spec(top, [*installed, *program])
    return found is not None and found.origin not in (None, origin)


def _is_hidden(top: str, program: list[str]) -> bool:
    """Return whether the program would find another module by the name of one that we have loaded."""
    origin, _ = _file_of(sys.modules.get(top))
    if origin is None:
        return False
    found = PathFinder.find_spec(top, program)
    return found is not None and found.origin not in (None, origin)


SHELTER = Shelter()

if hasattr(os, "register_at_fork"):  # pragma: no branch  # the other way on Windows
    os.register_at_fork(after_in_child=SHELTER.after_fork)

"""The package as a whole: what it exports, what it imports, how it is typed and documented, and how large its parts are."""

import ast
import importlib
import inspect
import json
import os
import subprocess
import sys
import typing
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tradovate_auth

ROOT = Path(tradovate_auth.__file__).parent
PACKAGE = "tradovate_auth"
CONTRACT = [
    "AccessToken",
    "Budget",
    "CaptchaRequired",
    "ConfigurationError",
    "Credentials",
    "Environment",
    "LockedOut",
    "LoginRefused",
    "LoginRequired",
    "ProtocolError",
    "ProviderClosed",
    "SessionEvicted",
    "Status",
    "StorageError",
    "Throttled",
    "TokenProvider",
    "TokenSource",
    "TokenTimeout",
    "TradovateAuthError",
    "TransportError",
]
# Each of these may import those before it, and none after it.
LAYERS = [
    "errors",
    "environments",
    "models",
    "transport",
    "_advice",
    "_verdicts",
    "_fields",
    "_wire",
    "_grant",
    "_holds",
    "_pace",
    "_ledger",
    "storage",
    "_options",
    "_shared_record",
    "_machine",
    "_view",
    "_decision",
    "_given",
    "_journal",
    "_server_clock",
    "_account",
    "_delivery",
    "_dispatch",
    "_exchange",
    "_restoring",
    "_recollection",
    "_lifecycle",
    "_refuge",
    "_held",
    "_listener",
    "_keeper",
    "provider",
    "_routes",
    "_patience",
    "_bearer",
    "_httpx_flow",
    "_own_logins",
    "_own_calls",
    "_outcome",
    "_strangers",
    "_overlay",
    "_instrument_state",
    "instrumentation",
]
ADAPTERS = {"requests", "httpx", "httpx2", "aiohttp"}
POINTS = {"_instrument_requests", "_instrument_aiohttp"}  # as much at home in a library as its adapter
PURE = [
    "errors",
    "events",
    "environments",
    "_advice",
    "_verdicts",
    "_fields",
    "_wire",
    "_grant",
    "_holds",
    "_pace",
    "_ledger",
    "_view",
    "_decision",
    "_refusals",
    "_restoring",
    "_status",
    "_own_logins",
]
IMPURE = {
    "asyncio",
    "http",
    "os",
    "random",
    "secrets",
    "select",
    "signal",
    "socket",
    "subprocess",
    "threading",
    "time",
}
ANY_ALLOWED = {"overrides", "details"}
LAZY = {"Emulator", "__version__"}  # made when they are asked for
LONGEST_MODULE = 320
LONGEST_FUNCTION = 45

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def sources() -> dict[str, Path]:
    """Return every module of the package, by name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(name: str) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(sources()[name].read_text(encoding="utf-8"))


def is_public(name: str) -> bool:
    """Return whether no part of a dotted name begins with an underscore."""
    return not any(part.startswith("_") for part in name.split("."))


MODULES = list(sources())
PUBLIC = [name for name in MODULES if is_public(name)]
modules = pytest.mark.parametrize("name", MODULES)
public_modules = pytest.mark.parametrize("name", PUBLIC)


def top_level(nodes: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield what runs when a module is imported, also within `try` and `if`, but not for type checkers alone."""
    for node in nodes:
        yield node
        if isinstance(node, ast.Try):
            yield from top_level(node.body)
        elif isinstance(node, ast.If) and ast.unparse(node.test) != "TYPE_CHECKING":
            yield from top_level(node.body + node.orelse)


def resolved(name: str, node: ast.ImportFrom) -> str:
    """Return the module from which an import takes its names."""
    if not node.level:
        return node.module or ""
    package = name if sources()[name].name == "__init__.py" else name.rpartition(".")[0]
    for _ in range(node.level - 1):
        package = package.rpartition(".")[0]
    return f"{package}.{node.module}" if node.module else package


@cache
def imports(name: str) -> frozenset[str]:
    """Return the modules that a module imports when it is imported itself, of ours and of others."""
    found = set()
    for node in top_level(tree(name).body):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = resolved(name, node)
            submodules = {f"{module}.{alias.name}" for alias in node.names} & set(MODULES)
            found |= submodules or {module}
    return frozenset(found)


def ours(name: str) -> set[str]:
    """Return those of our own modules that a module imports."""
    return {found for found in imports(name) if found in sources()} - {name}


def run(code: str, *arguments: str) -> Any:
    """Run code in a fresh interpreter that knows nothing of ours but the package; return what it prints, as JSON."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV"))}
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            f"import sys; sys.path.insert(0, {str(ROOT.parent)!r})\n{code}",
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def order(name: str) -> tuple[int, str]:
    """Return what names are sorted by: constants, then classes, then the rest."""
    return 0 if name.isupper() else 1 if name[0].isupper() else 2, name


def defined(name: str) -> Iterator[str]:
    """Yield what a module defines; a package also defines what it takes from its own modules."""
    package = sources()[name].name == "__init__.py"
    for node in top_level(tree(name).body):
        if isinstance(node, Function | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))
        elif package and isinstance(node, ast.ImportFrom) and node.level == 1:
            yield from (alias.asname or alias.name for alias in node.names)


def reexported(name: str) -> set[str]:
    """Return what a module exports on purpose although another module defines it."""
    exported = importlib.import_module(name).__all__
    return set(exported) - set(defined(name)) - LAZY


class TestNames:
    """What the package exports."""

    def test_the_contract(self) -> None:
        """The package exports the names that were promised, the version, and nothing else."""
        assert tradovate_auth.__all__ == [*CONTRACT, "__version__"]

    @public_modules
    def test_all_is_sorted_and_importable(self, name: str) -> None:
        """`__all__` is sorted and without repetition, and each name in it can be imported."""
        module = importlib.import_module(name)
        if name.endswith("__main__"):
            return
        assert list(module.__all__) == sorted(set(module.__all__), key=order)
        for exported in module.__all__:
            assert getattr(module, exported) is not None

    @public_modules
    def test_all_is_complete(self, name: str) -> None:
        """Whatever a public module defines without an underscore, and a package takes from its own modules, is in
        `__all__`: nothing can be imported by accident.
        """
        if name.endswith("__main__"):
            return
        public = {found for found in defined(name) if is_public(found) and f"{name}.{found}" not in sources()}
        assert public == set(importlib.import_module(name).__all__) - reexported(name) - LAZY

    def test_the_version(self) -> None:
        """The version is the distribution's; no other name comes out of nothing."""
        assert tradovate_auth.__version__.split(".")[0].isdigit()
        with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
            _ = tradovate_auth.nosuch

    def test_the_version_where_nothing_was_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A copy of the package in a folder, or in a frozen program, has no distribution to ask: all its names can be
        imported just the same.
        """
        monkeypatch.setattr(sys, "path", [str(ROOT.parent)])
        names: dict[str, object] = {}
        exec("from tradovate_auth import *", names)  # a star is allowed at the top of a module alone
        assert names["__version__"] == "0+unknown"
        assert names["TokenProvider"] is tradovate_auth.TokenProvider

    def test_the_emulator_is_exported_lazily(self) -> None:
        """`tradovate_auth.testing` hands out the emulator when it is asked for, and no name that it has not."""
        from tradovate_auth import testing
        from tradovate_auth.testing import emulator

        assert testing.Emulator is emulator.Emulator
        with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
            _ = testing.nosuch

    def test_the_package_is_typed(self) -> None:
        """Type checkers may trust our annotations."""
        assert (ROOT / "py.typed").is_file()


class TestImports:
    """What the package imports."""

    def test_the_package_needs_the_standard_library_alone(self) -> None:
        """`import tradovate_auth` in a fresh interpreter loads nothing else, and no client library of ours."""
        loaded = run(
            "before = set(sys.modules); import tradovate_auth, json\n"
            "print(json.dumps(sorted(set(sys.modules) - before)))"
        )
        assert "tradovate_auth.provider" in loaded
        roots = {name.partition(".")[0] for name in loaded}
        assert roots - set(sys.stdlib_module_names) == {PACKAGE}
        assert not {f"{PACKAGE}.{adapter}" for adapter in ADAPTERS} & set(loaded)
        assert not {name for name in loaded if name.startswith((f"{PACKAGE}.testing", f"{PACKAGE}.service"))}
        assert "asyncio.base_events" not in loaded or "asyncio" in imports(f"{PACKAGE}._flight")

    @pytest.mark.parametrize("extra", sorted(ADAPTERS))
    def test_an_adapter_names_its_extra(self, extra: str) -> None:
        """Without its library an adapter is an ImportError that says what to install; the package itself works."""
        told = run(
            f"sys.modules[{extra!r}] = None; import importlib, json, tradovate_auth\n"
            "try:\n"
            f"    importlib.import_module('tradovate_auth.{extra}')\n"
            "except ImportError as error:\n"
            "    print(json.dumps([type(error).__name__, str(error)]))"
        )
        assert told[0] == "ImportError"
        assert f"pip install 'tradovate-auth[{extra}]'" in told[1]

    def test_the_emulator_names_its_extra(self) -> None:
        """So does the emulator."""
        told = run(
            "sys.modules['aiohttp'] = None; import json, tradovate_auth.testing\n"
            "try:\n"
            "    tradovate_auth.testing.Emulator\n"
            "except ImportError as error:\n"
            "    print(json.dumps(str(error)))"
        )
        assert "pip install 'tradovate-auth[emulator]'" in told

    def test_there_is_no_cycle(self) -> None:
        """Our modules can be put into an order in which each imports only those before it."""
        order = list(TopologicalSorter({name: ours(name) for name in MODULES}).static_order())
        assert set(order) == set(MODULES)
        assert order.index(f"{PACKAGE}.errors") < order.index(f"{PACKAGE}.provider")

    def test_errors_are_at_the_bottom(self) -> None:
        """The errors import nothing of ours, so everything may import them."""
        assert ours(f"{PACKAGE}.errors") == set()

    @pytest.mark.parametrize("layer", LAYERS)
    def test_layers_import_downwards(self, layer: str) -> None:
        """No module imports one from a layer above it, directly or by way of others."""
        above = {f"{PACKAGE}.{name}" for name in LAYERS[LAYERS.index(layer) + 1 :]}
        reached, ahead = set[str](), {f"{PACKAGE}.{layer}"}
        while ahead:
            name = ahead.pop()
            reached.add(name)
            ahead |= ours(name) - reached
        assert reached & above == set()

    @modules
    def test_nothing_below_imports_an_adapter(self, name: str) -> None:
        """Adapters are at the top: nothing imports one, except when it is called for, and the demonstration of them."""
        if name.startswith(f"{PACKAGE}.testing.demo."):
            return
        assert ours(name) & {f"{PACKAGE}.{adapter}" for adapter in ADAPTERS | POINTS} == set()

    @pytest.mark.parametrize("name", PURE)
    def test_pure_modules_do_nothing(self, name: str) -> None:
        """What decides and what reads has no clock, no chance, no thread and no network to ask."""
        assert {found.partition(".")[0] for found in imports(f"{PACKAGE}.{name}")} & IMPURE == set()

    @modules
    def test_libraries_are_imported_by_those_who_need_them(self, name: str) -> None:
        """Outside the adapters, the tests' tools and what has an extra of its own, only the standard library and the
        two dependencies are imported.
        """
        allowed = {*sys.stdlib_module_names, PACKAGE, "wrapt", "filelock"}
        foreign = {found.partition(".")[0] for found in imports(name)} - allowed
        part = name.split(".")[1] if "." in name else ""
        extra = part in ADAPTERS | POINTS or part in {"testing", "service", "cli"}
        assert (
            not foreign
            or extra
            or f"missing_extra({min(foreign)!r})".replace("'", '"')
            in sources()[name].read_text(encoding="utf-8")
        ), foreign


def functions_of(name: str) -> Iterator[tuple[str, Any]]:
    """Yield every public function of a module, and every public method that its classes define."""
    module = importlib.import_module(name)
    for exported in getattr(module, "__all__", ()):
        found = getattr(module, exported)
        if not getattr(found, "__module__", "").startswith(PACKAGE):
            continue
        if inspect.isfunction(found):
            yield f"{name}.{exported}", found
        elif inspect.isclass(found):
            yield from methods_of(f"{name}.{exported}", found)


def methods_of(label: str, kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods that a class has from us, and its constructor."""
    for method in dir(kind):
        found = inspect.getattr_static(kind, method)
        function = found.fget if isinstance(found, property) else getattr(found, "__func__", found)
        if inspect.isfunction(function) and (is_public(method) or method in ("__init__", "__call__")):
            written = function.__code__.co_filename.startswith(str(ROOT))  # by us, and not by @dataclass
            if written:
                yield f"{label}.{method}", function


def mentions_any(annotation: object) -> bool:
    """Return whether an annotation is Any, or has it somewhere inside."""
    return annotation is Any or any(mentions_any(inner) for inner in typing.get_args(annotation))


def speaks_json(found: Any) -> bool:
    """Return whether something belongs to the emulator, whose users put any JSON into the server's mouth."""
    return str(found.__module__).startswith(f"{PACKAGE}.testing.emulator")


class TestTypes:
    """How the package is typed."""

    @public_modules
    def test_signatures_are_annotated_without_any(self, name: str) -> None:
        """Every argument and result of a public function is annotated, and says what it is; only options that are
        handed on, and the server's further fields, may be anything.
        """
        for label, function in functions_of(name):
            hints = typing.get_type_hints(function)
            parameters = inspect.signature(function).parameters.values()
            wanted = {item.name for item in parameters if item.name not in ("self", "cls")}
            if function.__name__ != "__init__":
                wanted.add("return")
            assert wanted <= hints.keys(), f"{label}: not annotated"
            loose = {item for item in wanted if mentions_any(hints[item])} - ANY_ALLOWED
            assert not loose or speaks_json(function), f"{label}: {loose}"

    @public_modules
    def test_fields_are_annotated_without_any(self, name: str) -> None:
        """So are the fields of public values."""
        module = importlib.import_module(name)
        for exported in getattr(module, "__all__", ()):
            kind = getattr(module, exported)
            if inspect.isclass(kind) and kind.__module__.startswith(PACKAGE) and not speaks_json(kind):
                hints = {key: hint for key, hint in typing.get_type_hints(kind).items() if is_public(key)}
                assert {key for key, hint in hints.items() if mentions_any(hint)} <= ANY_ALLOWED, exported


def documented(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, bool]]:
    """Yield every public class and function in here, and whether it has a docstring."""
    for node in body:
        if isinstance(node, Function | ast.ClassDef) and is_public(node.name):
            overload = any(
                ast.unparse(item).endswith(("overload", ".setter")) for item in node.decorator_list
            )
            yield f"{prefix}.{node.name}", overload or ast.get_docstring(node) is not None
            if isinstance(node, ast.ClassDef):
                yield from documented(node.body, f"{prefix}.{node.name}")


class TestForm:
    """How the package is written."""

    @modules
    def test_everything_public_is_documented(self, name: str) -> None:
        """Every module has a docstring, and so has every class, function and method without an underscore."""
        assert ast.get_docstring(tree(name))
        assert [label for label, has in documented(tree(name).body, name) if not has] == []

    @modules
    def test_modules_are_short(self, name: str) -> None:
        """No module is longer than can be read in one sitting."""
        assert len(sources()[name].read_text(encoding="utf-8").splitlines()) <= LONGEST_MODULE

    @modules
    def test_functions_are_short(self, name: str) -> None:
        """No function is longer than a screen."""
        long = {
            node.name: (node.end_lineno or 0) - node.lineno + 1
            for node in ast.walk(tree(name))
            if isinstance(node, Function)
        }
        assert {function: lines for function, lines in long.items() if lines > LONGEST_FUNCTION} == {}

    def test_the_parts_are_found(self) -> None:
        """These checks look at the whole package."""
        found: list[ModuleType] = [importlib.import_module(name) for name in PUBLIC if "__main__" not in name]
        assert {f"{PACKAGE}.{adapter}" for adapter in ADAPTERS} <= {module.__name__ for module in found}
        assert sum(1 for name in PUBLIC for _ in functions_of(name)) > 50

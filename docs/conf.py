"""How the pages are built: `sphinx-build -W -n -b html docs docs/_build/html`. No network is needed."""

import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Final

from docutils import nodes  # type: ignore[import-untyped]  # docutils ships no types
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

project = "tradovate_auth"
author = "The tradovate_auth authors"
copyright = "2026, The tradovate_auth authors"
version = release = installed_version("tradovate-auth")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"tradovate_auth {release}"
templates_path: list[str] = []
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

default_role = "code"  # the docstrings put names into single backticks
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False

# Types that stand in signatures and are described nowhere in these pages.
nitpick_ignore_regex = [
    # The standard library and the HTTP clients: linking them would take an inventory from the network for each build.
    (r"py:.*", rf"({'|'.join(sorted(sys.stdlib_module_names))}|dt|requests|httpx2?|aiohttp)\..*"),
    (r"py:.*", r"(optional|ValueError|TimeoutError|ImportError|Exception)"),
    # Private types: they are handed through and never made by a user.
    (r"py:.*", r"(tradovate_auth\._\w+\.)?(Clock|Waitable|Ledger)"),
    (r"py:.*", r"tradovate_auth\.storage\._redis_client\.Client"),
    # Type variables and private names of unions that a signature shows.
    (r"py:.*", r"(tradovate_auth\.\w+\.)?(Kind|State)"),
]


def decision_rows() -> list[tuple[str, str, str]]:
    """Return the decision table: name, condition and decision of each row, as the module that decides describes it.

    Raises:
        ValueError: The description and the table in the code have parted.
    """
    from tradovate_auth import _decision

    lines = [line.strip() for line in (_decision.__doc__ or "").splitlines() if line.startswith("    ")]
    rows = [tuple(re.split(r"\s{2,}", line, maxsplit=2)) for line in lines][1:]
    described, decided = [row[0] for row in rows], [row[0] for row in _decision.TABLE]
    if described != decided:
        raise ValueError(f"the docstring of _decision describes {described}, its table has {decided}")
    return [(name, when, then) for name, when, then in rows]


class DecisionTable(SphinxDirective):
    """The decision table, written out when the pages are built, so that page and code cannot part."""

    def run(self) -> list[nodes.Node]:
        """Return the table's nodes."""
        head = ["| row | matches when | decision |", "|---|---|---|"]
        rows = [f"| {name} | {when} | {then} |" for name, when, then in decision_rows()]
        return self.parse_text_to_nodes("\n".join([*head, *rows]))


_INDENT: Final = re.compile(r"    \S")
_as_written: dict[str, list[str]] = {}


def draw_as_it_stands(
    _app: Sphinx, what: str, _name: str, _value: object, _options: object, lines: list[str]
) -> None:
    """Make literal blocks of the trees, tables and examples that module docstrings hold, indented."""
    if what != "module":
        return
    for number in range(len(lines) - 1, 0, -1):
        before = next((line for line in reversed(lines[:number]) if line), "")
        if _INDENT.match(lines[number]) and not lines[number - 1] and not before.startswith(" "):
            lines[number:number] = ["::", ""]


def keep_value(
    _app: Sphinx, what: str, name: str, _value: object, _options: object, lines: list[str]
) -> None:
    """Remember the docstring of a value: napoleon takes what stands before its first colon for a type."""
    if what in ("attribute", "data", "property", "type"):
        _as_written[name] = list(lines)


def restore_value(
    _app: Sphinx, _what: str, name: str, _value: object, _options: object, lines: list[str]
) -> None:
    """Put the docstring of a value back as it was written."""
    lines[:] = _as_written.pop(name, lines)


def plain_defaults(
    _app: Sphinx,
    _what: str,
    _name: str,
    _value: object,
    _options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """Write the default of a dataclass field that is made anew for each object as `...`, which can be parsed."""
    return signature and signature.replace("<factory>", "..."), returns


def setup(app: Sphinx) -> None:
    """Register what this file adds to Sphinx."""
    app.add_directive("decision-table", DecisionTable)
    app.connect("autodoc-process-docstring", draw_as_it_stands)
    app.connect("autodoc-process-docstring", keep_value, priority=100)
    app.connect("autodoc-process-docstring", restore_value, priority=900)
    app.connect("autodoc-process-signature", plain_defaults)

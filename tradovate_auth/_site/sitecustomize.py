"""Python imports this as it starts, in every process that inherits the runner's PYTHONPATH: see `_instrument_child`.

That module is loaded from its file, and not through the package, which would cost each child a twentieth of a second.
"""

# ruff: noqa: INP001, PTH120  # a folder for PYTHONPATH and not a package; pathlib would cost as much as all the rest

import os
import sys
from importlib.machinery import SourceFileLoader


def _enter() -> None:
    folder, name = os.path.dirname(__file__), "tradovate_auth._instrument_child"
    loader = SourceFileLoader(name, os.path.dirname(folder) + "/_instrument_child.py")
    module = sys.modules[name] = type(sys)(name)
    module.__file__ = loader.path
    loader.exec_module(module)
    module.enter(folder)


_enter()

"""What needs RecBole and torch is loaded when it is first asked for, and then all of it, in one order
(``whole.py``).

A finder of modules looks at every import of RecBole and of this package. The first that needs more than
serving loads ``whole.py`` before it goes on, so that RecBole knows our models before anyone can ask for one,
and nobody sees it without what ``compat`` cures.

Two threads that are the first to need it at the same moment can meet in each other's import locks, as with
any modules that import each other; Python then raises in one of them. Programs with such threads call
``load()`` before they start them.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any

_PACKAGE = __name__.rpartition(".")[0]
_WHOLE = f"{_PACKAGE}.whole"
# what is imported without the rest: it needs neither RecBole nor torch, and nothing that does
ALONE = (
    "cli", "door", "files", "late", "memory", "moved", "processes", "recbole_commands", "serving", "settings",
    "tensors", "threads",
)  # fmt: skip
_MAKERS = f"{_PACKAGE}.serving.make"  # how the names of those modules of serving begin that need the rest


def install() -> None:
    """Look at every import from now on, until everything is loaded. A second call changes nothing."""
    if _FIRST not in sys.meta_path and _WHOLE not in sys.modules:
        sys.meta_path.insert(0, _FIRST)


def load() -> ModuleType:
    """Load everything and register it with RecBole; a second call gives what is there."""
    thread = threading.get_ident()
    if thread in _FIRST.loading:  # in the midst of it
        return importlib.import_module(_WHOLE)
    _FIRST.loading.add(thread)
    try:
        whole = importlib.import_module(_WHOLE)
    finally:
        _FIRST.loading.discard(thread)
    if _FIRST in sys.meta_path:
        sys.meta_path.remove(_FIRST)
    return whole


def attribute(name: str) -> Any:
    """An attribute of the package which it does not have yet: a module, or what the whole of it offers.

    Raises:
        AttributeError: there is none.
    """
    if name in ALONE:
        return importlib.import_module(f"{_PACKAGE}.{name}")
    if not name.startswith("__"):
        whole = load()
        if name in getattr(whole, "__all__", ()):
            return getattr(whole, name)
        if name in vars(sys.modules[_PACKAGE]):  # a module that came with it
            return vars(sys.modules[_PACKAGE])[name]
    raise AttributeError(f"module {_PACKAGE!r} has no attribute {name!r}")


def _needs_all(name: str) -> bool:
    package, _, rest = name.partition(".")
    if package != _PACKAGE:
        return package == "recbole"
    return name != _WHOLE and (rest.partition(".")[0] not in ALONE or name.startswith(_MAKERS))


class _First(importlib.abc.MetaPathFinder):
    """Finds the first module that needs everything."""

    def __init__(self) -> None:
        self.loading: set[int] = set()  # threads that load everything

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if not _needs_all(fullname) or threading.get_ident() in self.loading:
            return None
        for finder in [one for one in sys.meta_path if one is not self]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _AfterAll(spec.loader)
                return spec
        return None


class _AfterAll(importlib.abc.Loader):
    """Loads everything, and then gives the module as it came with that or would be loaded without this."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._spec: Any = None

    def __getattr__(self, name: str) -> Any:  # such as the code of a module, for ``python -m``
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        load()
        module = importlib.import_module(spec.name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has put that of this loader there


_FIRST = _First()

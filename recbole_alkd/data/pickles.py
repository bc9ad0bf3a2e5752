"""Pickles of somebody else, without running what is in them.

A pickle is a program: it names functions and calls them. This loader knows a closed list of names, which make
plain containers, NumPy arrays and pandas frames, and refuses every other one before anything is called.
"""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from pandas.compat import pickle_compat

from recbole_alkd.settings.error import AlkdError

_NUMPY = "numpy._core" if hasattr(np, "_core") else "numpy.core"
_PLAIN = ("set", "frozenset", "slice", "list", "dict", "tuple", "bytearray", "int", "float", "bool", "str")
# where releases of Python, NumPy and pandas had, or have, what is allowed
_MODULES = {
    "builtins": ("builtins", "__builtin__"),
    f"{_NUMPY}.multiarray": ("numpy._core.multiarray", "numpy.core.multiarray"),
    f"{_NUMPY}.numeric": ("numpy._core.numeric", "numpy.core.numeric"),
    "pandas.core.indexes.base": ("pandas.core.indexes.base", "pandas.core.index", "pandas.indexes.base"),
    "pandas.core.indexes.range": ("pandas.core.indexes.range", "pandas.indexes.range"),
    "pandas.core.internals.managers": ("pandas.core.internals.managers", "pandas.core.internals"),
}
_NAMES = {
    "builtins": _PLAIN,
    "collections": ("OrderedDict",),
    "numpy": ("ndarray", "dtype"),
    f"{_NUMPY}.multiarray": ("_reconstruct", "scalar"),
    f"{_NUMPY}.numeric": ("_frombuffer",),
    "pandas._libs.internals": ("_unpickle_block",),
    "pandas.core.frame": ("DataFrame",),
    "pandas.core.series": ("Series",),
    "pandas.core.indexes.base": ("_new_Index", "Index"),
    "pandas.core.indexes.range": ("RangeIndex",),
    "pandas.core.internals.managers": ("BlockManager", "SingleBlockManager"),
}
# (module, name) in the pickle -> where it is today
ALLOWED = {
    (old, name): (module, name)
    for module, names in _NAMES.items()
    for old in _MODULES.get(module, (module,))
    for name in names
} | {
    ("pandas.core.indexes.numeric", "Int64Index"): ("pandas.core.indexes.base", "Index"),
    ("pandas.indexes.numeric", "Int64Index"): ("pandas.core.indexes.base", "Index"),
    ("pandas.core.internals.blocks", "new_block"): ("pandas._libs.internals", "_unpickle_block"),
}


class _RefusedError(Exception):
    pass


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes. The real ``_codecs.encode`` knows codecs that do more."""
    if encoding not in ("latin1", "latin-1"):
        raise _RefusedError(f"_codecs.encode with {encoding!r}")
    return text.encode("latin1")


class _Loader(pickle_compat.Unpickler):
    """pandas' own reader of old frames, behind the list."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _encode
        place = ALLOWED.get((module, name))
        if place is None:
            raise _RefusedError(f"{module}.{name}")
        return getattr(importlib.import_module(place[0]), place[1])

    def load_build(self) -> None:
        # the state of an object may be set, but not that of a class or a function, which everybody shares
        if callable(self.stack[-2]):
            raise _RefusedError(f"a state for {self.stack[-2]!r}")
        super().load_build()

    def get_extension(self, code: int) -> Any:
        raise _RefusedError(f"extension code {code}")

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError("a persistent id")


_Loader.dispatch = {**_Loader.dispatch, pickle.BUILD[0]: _Loader.load_build}


def read_pickle(file: Path) -> Any:
    """What is in ``file``: plain containers, numbers, text, NumPy arrays, pandas frames and series.

    Raises:
        AlkdError: a file that cannot be read, or that wants anything else, which it names.
    """
    try:
        with file.open("rb") as stream:
            return _Loader(stream).load()
    except _RefusedError as error:
        raise AlkdError(
            f"{file}: this pickle wants {error}, which is none of the data types that are read from pickles"
        ) from None
    except OSError as error:
        raise AlkdError(f"{file}: cannot be read: {error.strerror}") from None
    except Exception as error:  # a broken pickle can fail in any way
        text = str(error).splitlines()
        raise AlkdError(
            f"{file}: not readable as a pickle: {type(error).__name__}: {text[0] if text else ''}"
        ) from None

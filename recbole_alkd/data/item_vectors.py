"""Vectors of items that a user brings: ``NAME.npy`` with one row an item, and ``NAME.ids`` beside it with the
items' ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np

from recbole_alkd.data.tables import shown
from recbole_alkd.settings.error import AlkdError


def read_item_vectors(name: str, items: Sequence[str]) -> np.ndarray:
    """The vectors of ``items``, (len(items), d) float32; rows of 0 for those that the file does not have.

    How many items have none, and how many of the file's are in no session, is logged.

    Args:
        name: a ``.npy`` file of numbers, (m, d) for any d. The file of the same name that ends in ``.ids``
            holds m lines of UTF-8, the id of each row as the clicks have it. Nothing is unpickled.
        items: ids of the data set's items.

    Raises:
        AlkdError: a file that is not there or cannot be read, another shape, a value that is no finite number
            (its row and id are named), another number of ids than of rows, an id that is empty or stands
            twice, no vector for any item.
    """
    path = Path(name).expanduser()
    ids_path = path.with_suffix(".ids")
    vectors, ids = _vectors(path), _ids(ids_path)
    if len(ids) != len(vectors):
        raise AlkdError(
            f"item_text: {ids_path} has {len(ids):,} ids, and {path} has {len(vectors):,} rows; "
            "allowed: one id a row"
        )
    row: dict[str, int] = {}
    for line, item in enumerate(ids, 1):
        if not item:
            raise AlkdError(f"item_text: {ids_path}, line {line}: no id")
        if row.setdefault(item, line - 1) != line - 1:
            raise AlkdError(
                f"item_text: {ids_path}, line {line}: {item!r} stands in line {row[item] + 1} as well"
            )
    bad = np.flatnonzero(~np.isfinite(vectors).all(1))
    if len(bad):
        first = int(bad[0])
        raise AlkdError(
            f"item_text: {path}, row {first + 1} ({ids[first]!r}) holds a value that is no finite number, as "
            f"do {len(bad) - 1:,} other rows; allowed: finite numbers"
        )
    at = np.array([row.get(item, -1) for item in items], dtype=np.int64)
    if not (at >= 0).any():
        raise AlkdError(
            f"item_text: {path} has a vector for none of the {len(items):,} items of the clicks, whose ids "
            f"are {shown(list(items))}; the ids of {ids_path.name} are {shown(ids)}"
        )
    missing, unknown = int((at < 0).sum()), len(row) - int((at >= 0).sum())
    if missing or unknown:
        first_missing = next((item for item, place in zip(items, at, strict=True) if place < 0), None)
        words = f"; the first without one is {first_missing!r}" if missing else ""
        getLogger().warning(
            f"{path.name}: {missing:,} of {len(items):,} items have no vector and get no edges, and "
            f"{unknown:,} vectors are of no item of this data set{words}"
        )
    matched = np.zeros((len(items), vectors.shape[1]), dtype=np.float32)
    matched[at >= 0] = vectors[at[at >= 0]]
    return _in_range(matched)


def _in_range(vectors: np.ndarray) -> np.ndarray:
    """``vectors`` times a power of two, where float32 does not hold the squares of their numbers: only
    directions are looked at, and lengths of 0 or infinity have none."""
    largest = float(np.abs(vectors).max())
    if not largest or 1e-12 < largest < 1e12:
        return vectors
    return np.ldexp(vectors, -int(np.frexp(largest)[1]))


def _vectors(path: Path) -> np.ndarray:
    if not path.is_file():
        raise AlkdError(f"item_text: {path}: no such file")
    try:
        content: Any = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:  # the last: a size that no file has
        raise AlkdError(f"item_text: {path} cannot be read as an array of numbers ({error})") from None
    if (
        not isinstance(content, np.ndarray)
        or content.ndim != 2
        or not min(content.shape)
        or content.dtype.kind not in "fiu"
    ):
        said = f"{content.dtype} {content.shape}" if isinstance(content, np.ndarray) else "several arrays"
        raise AlkdError(
            f"item_text: {path} holds {said}; allowed: numbers with one row an item, (items, size)"
        )
    with np.errstate(over="ignore"):  # what float32 does not hold is infinite, and said to be
        return content.astype(np.float32)


def _ids(path: Path) -> list[str]:
    if not path.is_file():
        raise AlkdError(
            f"item_text: {path}: no such file; it has the id of each row of the vectors, one a line"
        )
    try:
        # "-sig": spreadsheets begin a file with a mark, which is no part of the first id
        return path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise AlkdError(f"item_text: {path} cannot be read as lines of UTF-8 ({error})") from None

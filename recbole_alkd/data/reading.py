"""Reads RecBole's atomic files as they are written: tokens as text, timestamps as exact integers.

RecBole itself keeps a timestamp as float32, whose steps are 64 to 128 seconds today, and so loses the order of clicks.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import lzma
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Context, Decimal, DecimalException, Inexact, InvalidOperation
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from recbole_alkd.config import AlkdError

# What pandas, and so RecBole, takes for a missing value in a column of text.
MISSING = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"}
    | {"N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)
# Timestamps without a unit stay the integers they are; with one they become nanoseconds.
TIME_UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_EXACT = Context(prec=60, traps=[Inexact, InvalidOperation])


@dataclass(frozen=True)
class Clicks:
    """The clicks of one file, in file order.

    Attributes:
        user, item: (N,) codes in order of first appearance, -1 where RecBole reads a missing value.
        time: (N,) int64, in seconds as they stand in the file, or in nanoseconds when a time unit was given; 0 without an id.
        users, items: the tokens behind the codes.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    users: list[str]
    items: list[str]


@contextlib.contextmanager
def open_text(path: Path, encoding: str = "utf-8-sig") -> Iterator[TextIO]:
    """Open a plain, ``.gz`` or ``.xz`` text file. AlkdError when it does not exist or cannot be read to its end."""
    opener: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    try:
        with opener(path, "rt", encoding=encoding, newline="") as stream:
            yield stream
    except FileNotFoundError:
        raise AlkdError(f"{path}: no such file") from None
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError, csv.Error) as error:
        raise AlkdError(f"{path}: cannot be read: {error}") from None


def columns_of(header: list[str], path: Path) -> list[str]:
    """Field names of an atomic file's header, ``field:type`` in every column."""
    if not header or not all(":" in column for column in header):
        raise AlkdError(f"{path}, line 1: {header!r} is not a header of RecBole's atomic files; expected field:type, tab separated")
    return [column.split(":")[0] for column in header]


def index_of(field: str, columns: list[str], path: Path, what: str) -> int:
    """Where ``field`` stands among ``columns``; AlkdError that lists them when it is not there."""
    if field not in columns:
        raise AlkdError(f"{path}: no column {field!r} ({what}); it has {', '.join(columns)}")
    return columns.index(field)


def read_clicks(
    path: Path,
    user_field: str,
    item_field: str,
    time_field: str,
    time_unit: str | None = None,
    separator: str = "\t",
    encoding: str = "utf-8-sig",
) -> Clicks:
    """Read three columns of an ``.inter`` file, line by line; memory holds codes and distinct tokens, not the text.

    Quotes are read as RecBole's reader does (csv), so both see the same rows and the same tokens.

    Raises:
        AlkdError: file, header, a line with another number of columns, or a timestamp that is not exact in whole seconds
            (in whole nanoseconds with ``time_unit``); it names file, line and value.
    """
    user, item, time = array("q"), array("q"), array("q")
    users, items = dict.fromkeys(MISSING, -1), dict.fromkeys(MISSING, -1)
    factor = 1 if time_unit is None else TIME_UNITS[time_unit]
    with open_text(path, encoding) as stream:
        rows = csv.reader(stream, delimiter=separator)
        columns = columns_of(next(rows, []), path)
        at_user = index_of(user_field, columns, path, "the user or session")
        at_item = index_of(item_field, columns, path, "the item")
        at_time = index_of(time_field, columns, path, "the time that orders a session")
        for row in rows:
            if len(row) != len(columns) or "\n" in row[at_user] or "\n" in row[at_item]:
                if not "".join(row).strip():
                    continue  # RecBole skips blank lines too
                found = f"found {len(row)}" if len(row) != len(columns) else "found a quote that stays open"
                raise AlkdError(f"{path}, line {rows.line_num}: {len(columns)} columns expected, {found}")
            user.append(users.setdefault(row[at_user], len(users) - len(MISSING)))
            item.append(items.setdefault(row[at_item], len(items) - len(MISSING)))
            if user[-1] < 0 or item[-1] < 0:
                time.append(0)
                continue
            try:
                time.append(int(row[at_time]) * factor)
            except (ValueError, OverflowError):
                time.append(_exact_time(row[at_time], factor, time_unit, f"{path}, line {rows.line_num}: {time_field}"))
    return Clicks(
        user=np.array(user, dtype=np.int64),
        item=np.array(item, dtype=np.int64),
        time=np.array(time, dtype=np.int64),
        users=list(users)[len(MISSING) :],
        items=list(items)[len(MISSING) :],
    )


def _exact_time(text: str, factor: int, unit: str | None, where: str) -> int:
    """A timestamp that Python does not read as an int64: "881250949.0" is one, 881250949.5 needs a unit."""
    try:
        value = _EXACT.multiply(_EXACT.create_decimal(text.strip()), Decimal(factor))
    except DecimalException:
        raise AlkdError(f"{where} {text!r} is not a number that can be kept exactly") from None
    if not value.is_finite() or abs(value) >= 2**63:
        raise AlkdError(f"{where} {text!r} is out of range")
    if value != value.to_integral_value():
        if unit is None:
            raise AlkdError(f"{where} {text!r} is not an integer; give its time_unit (session_time_unit): s, ms, us or ns")
        raise AlkdError(f"{where} {text!r} ({unit}) is finer than a nanosecond")
    return int(value)

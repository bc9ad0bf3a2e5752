"""Clicks in blocks, from files of any size: text as ``tables.py`` reads it, and Parquet (extra ``scale``).

Memory holds a block, and the distinct items. Sessions are known by a hash of 64 bits; of a hundred million,
two share one with a probability of 0.03 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from recbole_alkd.data.reading import TIME_UNITS, exact_time
from recbole_alkd.data.row_blocks import ROWS
from recbole_alkd.data.rows import farthest, window_index
from recbole_alkd.data.tables import MAX_ID, checked_id, clean_id, open_table
from recbole_alkd.settings.error import AlkdError

TEXT, PARQUET = (".inter", ".csv", ".tsv", ".txt"), (".parquet", ".pq")
# splitmix64: Steele, Lea & Flood (OOPSLA 2014)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class Block(NamedTuple):
    """Some clicks in the order of their file, all (N,): the hash of the session, uint64; the code of the item
    (``Items``), int64; the time, int64, in seconds, or in nanoseconds where the columns name a unit.
    """

    session: np.ndarray
    item: np.ndarray
    time: np.ndarray


@dataclass(frozen=True)
class ClickColumns:
    """Which columns of a file of clicks say what, and how it is read.

    Attributes:
        session, item, time: columns; ``session`` is that of the user where sessions are windows of time.
        window: seconds of a session, in UTC; None: the column is the session. time_unit: of numbers, as for
            ``read_clicks``.
        separator, encoding: of text.
    """

    session: str = "user_id"
    item: str = "item_id"
    time: str = "timestamp"
    window: int | None = 86400
    time_unit: str | None = None
    separator: str | None = None
    encoding: str | None = None


@dataclass
class Items:
    """Distinct items in order of their appearance, and how many rows had no session or no item."""

    codes: dict[str, int] = field(default_factory=dict)
    blank: int = 0

    def code(self, tokens: list[str]) -> np.ndarray:
        """Codes of tokens, (N,) int64, -1 for an empty one; new ones get the next codes."""
        codes = self.codes
        return np.array(
            [codes.setdefault(token, len(codes)) if token else -1 for token in tokens], dtype=np.int64
        )


def mixed(keys: np.ndarray) -> np.ndarray:
    """Whole numbers, (N,) uint64, one to one, so that each bit of the result depends on all bits."""
    keys = keys ^ (keys >> np.uint64(30))
    keys = keys * _MIX[0]
    keys ^= keys >> np.uint64(27)
    keys *= _MIX[1]
    return keys ^ (keys >> np.uint64(31))


def hashed(texts: list[str]) -> np.ndarray:
    """A hash of each text, (N,) uint64, the same in every process."""
    if not texts:
        return np.zeros(0, dtype=np.uint64)
    return pd.util.hash_array(np.array(texts, dtype=object), categorize=False)


def session_keys(user: np.ndarray, time: np.ndarray, columns: ClickColumns) -> np.ndarray:
    """Hashes of sessions from those of their users and the times of the clicks, (N,) uint64."""
    if columns.window is None:
        return user
    return mixed(user ^ mixed(window_index(time, columns.window, columns.time_unit).astype(np.uint64)))


def click_blocks(path: Path, columns: ClickColumns, items: Items) -> Iterator[Block]:
    """The clicks of a file or of all files in a folder, in blocks.

    Args:
        path: text (``.inter``, ``.csv``, ``.tsv``, ``.txt``; plain, ``.gz`` or ``.xz``), Parquet, or a folder
            of one kind, at any depth, read in the order of their names. items: takes the items in.

    Raises:
        AlkdError: nothing that can be read there, or something in it; it names the file and where.
    """
    for file in files_of_clicks(path):
        yield from (_parquet if _kind(file) in PARQUET else _text)(file, columns, items)


def files_of_clicks(path: Path) -> list[Path]:
    """The files of clicks of a part; AlkdError without one, or with text and Parquet in one folder."""
    if not path.is_dir():
        if not path.is_file():
            raise AlkdError(f"{path}: no such file or folder of clicks")
        return [path]
    files = [one for one in sorted(path.rglob("*")) if one.is_file() and not one.name.startswith((".", "_"))]
    known = [one for one in files if _kind(one) in (*TEXT, *PARQUET)]
    if not known:
        raise AlkdError(
            f"{path}: no clicks in it; allowed: files that end in {', '.join((*TEXT, *PARQUET))} "
            "(or .gz, .xz after it)"
        )
    if len({_kind(one) in PARQUET for one in known}) > 1:
        raise AlkdError(
            f"{path}: text and Parquet in one folder, which may be the same clicks twice; give one of the two"
        )
    return known


def _kind(file: Path) -> str:
    name = file.name.lower().removesuffix(".gz").removesuffix(".xz")
    return next((ending for ending in (*TEXT, *PARQUET) if name.endswith(ending)), "")


def _text(file: Path, columns: ClickColumns, items: Items) -> Iterator[Block]:
    with open_table(file, columns.separator, columns.encoding) as table:
        at = (
            table.index(columns.session, "the user or session"),
            table.index(columns.item, "the item"),
            table.index(columns.time, "the time that orders a session"),
        )
        for rows in table.blocks:
            users, clicked, times = (rows.columns[k] for k in at)
            user_code, users = _tokens(users, rows.lines, file)
            item_code, clicked = _tokens(clicked, rows.lines, file)
            code = items.code(clicked)[item_code]
            there = (code >= 0) & np.array([bool(one) for one in users])[user_code]
            time = _times(times, rows.lines, there, columns, file)
            yield _block(hashed(users)[user_code], code, time, there, columns, items)


def _tokens(texts: Sequence[str], lines: Sequence[int], file: Path) -> tuple[np.ndarray, list[str]]:
    """(N,) codes, and the token of each code."""
    code, distinct = pd.factorize(np.array(texts, dtype=object))
    tokens = [clean_id(text) for text in distinct]
    if max(map(len, tokens), default=0) > MAX_ID:
        longest = next(k for k, token in enumerate(tokens) if len(token) > MAX_ID)
        checked_id(tokens[longest], file, lines[int(np.flatnonzero(code == longest)[0])])
    return code, [*tokens, ""]


def _times(
    texts: Sequence[str], lines: Sequence[int], there: np.ndarray, columns: ClickColumns, file: Path
) -> np.ndarray:
    """(N,) int64, 0 for a click that is not ``there``."""
    factor = 1 if columns.time_unit is None else TIME_UNITS[columns.time_unit]
    if there.all():
        try:  # whole numbers, all at once; anything else is read and judged one by one
            if factor == 1:
                return np.fromiter(map(int, texts), dtype=np.int64, count=len(texts))
            return np.array([int(text) * factor for text in texts], dtype=np.int64)
        except (ValueError, OverflowError):
            pass
    times = np.zeros(len(texts), dtype=np.int64)
    for k in np.flatnonzero(there).tolist():
        times[k] = exact_time(texts[k], columns.time_unit, f"{file}, line {lines[k]}: {columns.time}")
    return times


def _block(
    user: np.ndarray,
    item: np.ndarray,
    time: np.ndarray,
    there: np.ndarray,
    columns: ClickColumns,
    items: Items,
) -> Block:
    """The clicks that are ``there``, (N,) bool; the others are counted as ``Items.blank``."""
    if not there.all():
        items.blank += int((~there).sum())
        user, item, time = user[there], item[there], time[there]
    return Block(session_keys(user, time, columns), item, time)


def _parquet(file: Path, columns: ClickColumns, items: Items) -> Iterator[Block]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ImportError:
        raise AlkdError(
            f"{file}: Parquet needs the package pyarrow: pip install 'recbole-alkd[scale]'"
        ) from None
    try:
        with parquet.ParquetFile(file) as opened:
            names = opened.schema_arrow.names
            for name in (columns.session, columns.item, columns.time):
                if name not in names:
                    raise AlkdError(f"{file}: no column {name!r}; it has {', '.join(names)}")
            wanted = list(dict.fromkeys((columns.session, columns.item, columns.time)))
            for batch in opened.iter_batches(ROWS, columns=wanted):
                yield arrow_block(batch, columns, items, str(file))
    except (pa.ArrowException, OSError) as error:
        raise AlkdError(f"{file}: cannot be read as Parquet: {str(error).splitlines()[0]}") from None


def arrow_block(batch: Any, columns: ClickColumns, items: Items, where: str) -> Block:
    """The clicks of a pyarrow RecordBatch: whole numbers or text as ids; whole numbers, timestamps or text as
    times.

    Raises:
        AlkdError: columns of another type, a time that is missing or cannot be kept; it begins with
            ``where``.
    """
    user_code, users = _arrow_tokens(batch.column(columns.session), f"{where}: {columns.session}")
    item_code, clicked = _arrow_tokens(batch.column(columns.item), f"{where}: {columns.item}")
    code = items.code(clicked)[item_code]
    there = (code >= 0) & np.array([bool(one) for one in users])[user_code]
    time = _arrow_times(batch.column(columns.time), there, columns, f"{where}: {columns.time}")
    return _block(hashed(users)[user_code], code, time, there, columns, items)


def _arrow_tokens(column: Any, where: str) -> tuple[np.ndarray, list[str]]:
    """As ``_tokens``; a missing value has the code of "", which stands last."""
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise AlkdError(f"{where} is of type {kind}; allowed for ids: whole numbers and text")
    column = column.cast(kind).dictionary_encode()
    code = column.indices.fill_null(len(column.dictionary)).to_numpy(zero_copy_only=False).astype(np.int64)
    texts = (str(one) for one in column.dictionary.to_pylist())
    return code, [checked_id(text, Path(where), 0) for text in texts] + [""]


def _arrow_times(column: Any, there: np.ndarray, columns: ClickColumns, where: str) -> np.ndarray:
    """As ``_times``. A timestamp is whole seconds, or nanoseconds where numbers have a unit, as its text
    would be read.
    """
    import pyarrow as pa

    kind, factor = column.type, 1 if columns.time_unit is None else TIME_UNITS[columns.time_unit]
    per_second = 0  # of a timestamp that must be whole seconds, what a second counts
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts = column.to_pylist()
        times = [
            exact_time(texts[k] or "", columns.time_unit, where) if there[k] else 0 for k in range(len(texts))
        ]
        return np.array(times, dtype=np.int64)
    if pa.types.is_timestamp(kind):
        factor = TIME_UNITS[kind.unit]
        per_second = 10**9 // factor if columns.time_unit is None else 0
    elif not pa.types.is_integer(kind):
        raise AlkdError(f"{where} is of type {kind}; allowed for times: whole numbers, timestamps and text")
    missing = column.is_null().to_numpy(zero_copy_only=False)
    if (missing & there).any():
        raise AlkdError(f"{where}: a click without a time")
    values = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    if per_second:
        if (values[there] % per_second).any():
            raise AlkdError(
                f"{where}: times finer than a second; give a time_unit (s, ms, us or ns), any of them"
            )
        return values // per_second
    far = farthest(values)
    if far is not None and abs(far) > (2**63 - 1) // factor:
        raise AlkdError(f"{where}: {far} is out of range")
    return values * factor

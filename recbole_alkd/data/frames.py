"""Columns of atomic files as the data frames that RecBole works on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_alkd.data.tables import MISSING, clean_id, open_table
from recbole_alkd.settings.error import AlkdError


@dataclass(frozen=True)
class Columns:
    """Some columns of one file.

    Attributes:
        path: the file.
        texts: name -> (N,) texts. kinds: name -> RecBole's type. line: (N,) the line of each row.
    """

    path: Path
    texts: dict[str, list[str]]
    kinds: dict[str, str]
    line: list[int]


def read_columns(
    path: Path, wanted: Iterable[str] | None, separator: str | None, encoding: str | None
) -> Columns:
    """Read the ``wanted`` columns (those that are there; None: all) of an atomic file.

    Raises:
        AlkdError: as ``open_table``.
    """
    with open_table(path, separator, encoding) as table:
        wanted = None if wanted is None else set(wanted)
        chosen = [(at, name) for at, name in enumerate(table.columns) if wanted is None or name in wanted]
        texts: dict[str, list[str]] = {name: [] for _, name in chosen}
        line = []
        for number, row in table.rows:
            line.append(number)
            for at, name in chosen:
                texts[name].append(row[at])
        kinds = {name: table.kinds[at] for at, name in chosen}
    return Columns(path, texts, kinds, line)


def frame_of(
    path: Path,
    texts: Mapping[str, list[str]],
    kinds: Mapping[str, str],
    line: Sequence[int],
    seq_separator: str,
) -> pd.DataFrame:
    """The columns as RecBole keeps them: tokens as text or None, numbers as float64, sequences as arrays.

    Raises:
        AlkdError: a number that is none; it names file, line and value.
    """
    return pd.DataFrame(
        {
            name: _values(name, column, kinds[name], path, line, seq_separator)
            for name, column in texts.items()
        }
    )


def _values(
    name: str, texts: list[str], kind: str, path: Path, line: Sequence[int], seq_separator: str
) -> pd.Series:
    if kind == "token":
        return pd.Series([clean_id(text) or None for text in texts], dtype=object)
    if kind == "float":
        return pd.Series(
            [_number(text, name, path, at) for text, at in zip(texts, line, strict=True)], dtype=np.float64
        )
    if kind == "token_seq":
        return pd.Series([np.array(split_list(text, seq_separator)) for text in texts], dtype=object)
    lists = (split_list(text, seq_separator) for text in texts)
    numbers = [
        [_number(word, name, path, at) for word in words] for words, at in zip(lists, line, strict=True)
    ]
    return pd.Series([np.array(values, dtype=np.float64) for values in numbers], dtype=object)


def split_list(text: str, seq_separator: str) -> list[str]:
    """The tokens of a sequence, as RecBole separates them."""
    words = text.split() if seq_separator == " " else [word.strip() for word in text.split(seq_separator)]
    return [word for word in words if word]


def _number(text: str, name: str, path: Path, line: int) -> float:
    if text.strip() in MISSING:
        return float("nan")  # RecBole puts the mean there
    try:
        return float(text)
    except ValueError:
        raise AlkdError(
            f"{path}, line {line}: {name} {text!r} is not a number, and the header says {name}:float; "
            "allowed: numbers, "
            f"or {name}:token"
        ) from None

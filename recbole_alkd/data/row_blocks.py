"""Rows of a table, many at a time: cheaper than one by one, and a block is all that memory holds."""

from __future__ import annotations

import lzma
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from recbole_alkd.settings.error import AlkdError

ROWS = 1 << 17  # of a block


class Rows(NamedTuple):
    """For each of some rows the number of the line on which it ends, and one text a column."""

    lines: Sequence[int]
    columns: Sequence[Sequence[str]]


def gathered(rows: Iterator[tuple[int, list[str]]]) -> Iterator[Rows]:
    """Rows, ``ROWS`` at a time. An error of ``rows`` is raised after the rows before it are given, as it is
    line by line.

    Args:
        rows: the number of the line on which a row ends, and its texts; all rows have equally many.
    """
    fault: Exception | None = None
    while fault is None:
        some: list[tuple[int, list[str]]] = []
        try:
            for one in islice(rows, ROWS):
                some.append(one)
        except (AlkdError, UnicodeError, OSError, EOFError, lzma.LZMAError) as error:
            fault = error
        if some:
            lines, texts = zip(*some, strict=True)
            yield Rows(lines, list(zip(*texts, strict=True)))
        elif fault is None:
            return
    raise fault

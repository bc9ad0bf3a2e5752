"""Text tables of others: any encoding, separator and compression; RecBole's typed headers and plain CSV.

Every file with clicks, rows or titles is read here, and RecBole gets what came out. Nothing is dropped:
a row that does not fit its header is an error with its line.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import lzma
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO, TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from recbole_alkd.data.plain_text import plain_columns
from recbole_alkd.data.row_blocks import Rows, gathered
from recbole_alkd.settings.error import AlkdError

# RecBole's types of a column.
KINDS = ("token", "token_seq", "float", "float_seq")
# What pandas, and so RecBole, takes for a missing value in a column of text.
MISSING = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"}
    | {"N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)
# RecBole's own name of item 0, which stands for "no item".
PADDING = "[PAD]"
SEPARATORS = ("\t", ",", ";", "|")
COMPRESSED = (".gz", ".xz")
# The longest mark first: the one of UTF-32 begins with the one of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
MAX_ID = 1000  # characters; RecBole keeps all ids as wide as the longest one
_LETTERS = 1 << 22  # of a block
_LONGEST = 1 << 27  # characters of a field; a history of 20,000 items is longer than Python's default


@dataclass(frozen=True)
class Table:
    """An open table.

    Attributes:
        path: where it lies.
        columns: names, without RecBole's types.
        kinds: RecBole's types; empty for a header without types.
        quoted: whether fields may stand in double quotes, which are taken off then.
        rows: pairs (number of the line on which the row ends, one text a column).
        blocks: the same rows, many at a time, in place of ``rows``.
    """

    path: Path
    columns: list[str]
    kinds: list[str]
    quoted: bool
    rows: Iterator[tuple[int, list[str]]]
    blocks: Iterator[Rows]

    def index(self, field: str, what: str) -> int:
        """Where ``field`` stands; AlkdError that lists the columns when it is not there."""
        if field not in self.columns:
            raise AlkdError(f"{self.path}: no column {field!r} ({what}); it has {', '.join(self.columns)}")
        return self.columns.index(field)


def existing(stem: Path) -> Path | None:
    """``stem`` itself, or the same with ``.gz`` or ``.xz`` behind it, whichever is a file."""
    return next(
        (path for path in (stem, *(Path(f"{stem}{ending}") for ending in COMPRESSED)) if path.is_file()), None
    )


def is_atomic(path: Path) -> bool:
    """Whether the name is that of RecBole's atomic files, which have a typed header."""
    suffixes = [suffix for suffix in path.suffixes if suffix not in COMPRESSED]
    return bool(suffixes) and suffixes[-1] in (".inter", ".item", ".user")


@contextlib.contextmanager
def open_text(path: Path, encoding: str | None = None) -> Iterator[TextIO]:
    """Open a plain, ``.gz`` or ``.xz`` text file.

    Args:
        encoding: what the user says. None: UTF-8. A byte order mark in the file says more.

    Raises:
        AlkdError: the file does not exist, or cannot be read to its end.
    """
    opener: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    if encoding is not None:
        _known(encoding)
    try:
        with opener(path, "rb") as binary:
            start = binary.read(4)
        codec = next((name for mark, name in _MARKS if start.startswith(mark)), encoding or "utf-8")
        with opener(path, "rt", encoding=codec, newline="") as stream:
            yield stream
    except FileNotFoundError:
        raise AlkdError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise AlkdError(
            f"{path}: cannot be read as {error.encoding} (byte 0x{error.object[error.start]:02x}); "
            "set encoding to the file's own, "
            "such as latin-1, cp1252 or utf-16"
        ) from None
    except UnicodeError:
        raise AlkdError(
            f"{path}: cannot be read as {codec}; set encoding to the file's own, such as latin-1 or cp1252"
        ) from None
    except (OSError, EOFError, lzma.LZMAError, csv.Error) as error:
        raise AlkdError(f"{path}: cannot be read: {error}") from None


@contextlib.contextmanager
def open_table(
    path: Path, separator: str | None = None, encoding: str | None = None, tabs_quoted: bool = True
) -> Iterator[Table]:
    """Open a table: an atomic file (``.inter``, ``.item``) with ``field:type`` in its header,
    or CSV with names.

    Args:
        separator: what the user says. None, or one that does not take the header apart: the header tells.
        encoding: as for ``open_text``.
        tabs_quoted: whether a field may stand in double quotes between tabs, as RecBole's reader has it;
            elsewhere it may.

    Raises:
        AlkdError: what cannot be read, a header that is none or names a column twice,
            a row with another number of columns.
    """
    typed = is_atomic(path)
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST))
    with open_text(path, encoding) as stream:
        lines = _checked(stream, path)
        first = next(lines, "")
        delimiter = _separator(first, separator, typed)
        quoted, lax = tabs_quoted or delimiter != "\t", typed and delimiter == "\t"
        rows = _split(chain([first], lines), path, delimiter, quoted, strict=not lax)
        last, names = next(rows, (1, []))
        header = [column.strip() for column in names]
        if typed and (not header or not all(":" in column for column in header)):
            raise AlkdError(
                f"{path}, line 1: {header!r} is not a header of RecBole's atomic files; "
                "expected field:type, with tabs"
            )
        kinds = [column.rpartition(":")[2] for column in header] if typed else []
        columns = [column.rpartition(":")[0] for column in header] if typed else header
        for name, kind in zip(columns, kinds, strict=False):
            if kind not in KINDS:
                raise AlkdError(
                    f"{path}, line 1: column {name!r} has the type {kind!r}; allowed: {', '.join(KINDS)}"
                )
        if not any(columns):
            raise AlkdError(
                f"{path}, line 1: a header with the names of the columns is expected, found nothing"
            )
        twice = next((name for name in columns if columns.count(name) > 1), None)
        if twice is not None:
            raise AlkdError(
                f"{path}, line 1: column {twice!r} stands there twice; columns need names of their own"
            )

        def by_line(text: str, before: int) -> Iterator[tuple[int, list[str]]]:
            """Rows of the rest of the file, which begins with ``text``, behind so many lines."""
            rest = _checked(chain(StringIO(text, newline=""), stream), path, before + 1)
            split = _split(rest, path, delimiter, quoted, not lax, before)
            # the row behind the header is looked at for an open quote, as it is line by line
            return _whole(split, path, len(columns), lax, 0 if before == last else before)

        by_block = _blocks(stream, last, len(columns), delimiter, by_line)
        yield Table(path, columns, kinds, quoted, _whole(rows, path, len(columns), one_line=lax), by_block)


def _known(encoding: str) -> None:
    try:
        TextIOWrapper(BytesIO(), encoding)
    except (LookupError, ValueError):  # no codec, one that is not of text (base64), a NUL in its name
        raise AlkdError(
            f"encoding: {encoding!r} is no encoding of text; allowed: utf-8, latin-1, cp1252, utf-16, ..."
        ) from None


def _blocks(
    stream: TextIO,
    before: int,
    width: int,
    separator: str,
    by_line: Callable[[str, int], Iterator[tuple[int, list[str]]]],
) -> Iterator[Rows]:
    """The rows behind so many lines: plain text at once, and line by line all that follows any other."""
    while text := stream.read(_LETTERS):
        text += stream.readline()
        columns = plain_columns(text, separator, width)
        if columns is None:
            yield from gathered(by_line(text, before))
            return
        end = before + len(columns[0])
        yield Rows(range(before + 1, end + 1), columns)
        before = end


def _checked(stream: Iterable[str], path: Path, first: int = 1) -> Iterator[str]:
    for number, line in enumerate(stream, first):
        if "\0" in line:
            raise AlkdError(
                f"{path}, line {number}: a NUL character; this is no text in the encoding that it is read in"
            )
        yield line


def _separator(header: str, wanted: str | None, typed: bool) -> str:
    """The separator of a header: the one that is wanted where it fits, else the one that gives the most
    columns."""

    def columns(separator: str) -> list[str]:
        return header.strip("\r\n").split(separator)

    if wanted and (len(columns(wanted)) > 1 or wanted not in SEPARATORS):
        return wanted
    fitting = [mark for mark in SEPARATORS if not typed or all(":" in column for column in columns(mark))]
    return max(fitting or ["\t"], key=lambda mark: len(columns(mark)))


def _split(
    lines: Iterable[str], path: Path, separator: str, quoted: bool, strict: bool, before: int = 0
) -> Iterator[tuple[int, list[str]]]:
    if len(separator) > 1:  # such as "::"; csv knows one character only
        for number, line in enumerate(lines, before + 1):
            yield number, line.rstrip("\r\n").split(separator)
        return
    quoting: Any = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    rows = csv.reader(lines, delimiter=separator, quoting=quoting, strict=strict and quoted)
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise AlkdError(
                f"{path}, line {before + rows.line_num}: the quotes are not those of CSV: {error}"
            ) from None
        if row is None:
            return
        yield before + rows.line_num, row


def _whole(
    rows: Iterator[tuple[int, list[str]]], path: Path, width: int, one_line: bool, before: int = 0
) -> Iterator[tuple[int, list[str]]]:
    for line, row in rows:
        # a field with a line feed in it takes more than one line, which is known without looking into every
        # field
        open_quote = one_line and line > before + 1 and any("\n" in field for field in row)
        before = line
        if len(row) == width and not open_quote:
            yield line, row
        elif "".join(row).strip():  # blank lines are none, to RecBole too
            problem = f"found {len(row)}" if len(row) != width else "found a quote that stays open"
            raise AlkdError(f"{path}, line {line}: {width} columns expected, {problem}")


def clean_id(text: str) -> str:
    """An id as it counts: without the spaces around it. Empty where RecBole reads a missing value,
    and for ``[PAD]``."""
    text = text.strip()
    return "" if text in MISSING or text == PADDING else text


def checked_id(text: str, path: Path, line: int) -> str:
    """``clean_id``, and AlkdError for one that is too long to be an id."""
    token = clean_id(text)
    if len(token) > MAX_ID:
        raise AlkdError(
            f"{path}, line {line}: an id of {len(token):,} characters ({token[:40]!r}...); "
            f"allowed: at most {MAX_ID:,}"
        )
    return token


def shown(values: Sequence[object], most: int = 3) -> str:
    """The first values, for a message."""
    return ", ".join(str(value) for value in values[:most]) + (", ..." if len(values) > most else "")

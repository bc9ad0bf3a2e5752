"""Item titles for prompts: read apart from RecBole (which would join them into every batch) and cleaned.

A title is somebody else's text inside our prompt: it keeps its words, and loses what could pass for the prompt's own markup.
"""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterable
from logging import getLogger
from pathlib import Path

from recbole_alkd.config import AlkdError
from recbole_alkd.data.reading import columns_of, index_of, open_text

TITLE_FIELDS = ("title", "movie_title", "name")
MAX_TITLE = 200  # characters
# Joiners shape letters and emoji; every other format character is invisible or turns the direction of the text.
_JOINERS = "\u200c\u200d"
_BRACKETS = str.maketrans("<>", "()")


class NoTitlesError(AlkdError):
    """The data set has no titles."""


def clean_title(text: str) -> str:
    """One line of at most ``MAX_TITLE`` characters, without control and direction characters; ``<ID7>`` becomes ``(ID7)``."""
    shown = []
    for char in text:
        kind = unicodedata.category(char)
        if kind in ("Cc", "Zl", "Zp"):
            shown.append(" ")
        elif kind not in ("Cf", "Cs") or char in _JOINERS:
            shown.append(char)
    return " ".join("".join(shown).translate(_BRACKETS).split())[:MAX_TITLE].rstrip()


def load_titles(
    data_path: str | Path, dataset: str, item_field: str, title_field: str | None = None, items: Iterable[str] = ()
) -> dict[str, str]:
    """Item token -> cleaned title, from ``<data_path>/<dataset>.item`` (or ``.item.gz``, ``.item.xz``).

    Args:
        data_path: folder with the data set's files.
        item_field: column with the item tokens.
        title_field: column with the titles. None: the first of title, movie_title and name that is there.
        items: tokens that need a title although the file may not list them.

    An item without a title is called ``item <token>``; how many there are is logged as a warning. Of two rows for one item
    the first counts, as in RecBole. Titles may repeat: the token decides, the title only shows.

    Raises:
        NoTitlesError: no such file, no title column (the columns are listed), or every title is empty.
        AlkdError: the file cannot be read; it names the line.
    """
    stem = Path(data_path) / f"{dataset}.item"
    path = next((p for p in (stem, Path(f"{stem}.gz"), Path(f"{stem}.xz")) if p.is_file()), None)
    if path is None:
        raise NoTitlesError(
            f"{stem}: no such file (nor .gz, .xz); item titles are read there, from columns {item_field}:token, title:token_seq"
        )
    found: dict[str, str] = {}
    with open_text(path) as stream:
        # a title may begin with a quote that never closes, so quotes are taken literally here
        rows = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        columns = columns_of(next(rows, []), path)
        at_item = index_of(item_field, columns, path, "the item")
        at_title = _title_index(columns, title_field, path)
        for row in rows:
            if len(row) == len(columns):
                found.setdefault(_unquote(row[at_item]), clean_title(_unquote(row[at_title])))
            elif "".join(row).strip():
                raise AlkdError(f"{path}, line {rows.line_num}: {len(columns)} columns expected, found {len(row)}")
    if not any(found.values()):
        raise NoTitlesError(f"{path}: column {columns[at_title]!r} holds no title")
    for token in items:
        found.setdefault(token, "")
    nameless = [token for token, title in found.items() if not title]
    if nameless:
        getLogger().warning(
            f"{path.name}: {len(nameless)} of {len(found)} items have no title and are shown as 'item {nameless[0]}'"
        )
        found.update({token: clean_title(f"item {token}") for token in nameless})
    return found


def _title_index(columns: list[str], title_field: str | None, path: Path) -> int:
    wanted = TITLE_FIELDS if title_field is None else (title_field,)
    for name in wanted:
        if name in columns:
            return columns.index(name)
    raise NoTitlesError(
        f"{path}: no title column {' / '.join(wanted)}; it has {', '.join(columns)}: set title_field to one of them"
    )


def _unquote(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"')
    return text

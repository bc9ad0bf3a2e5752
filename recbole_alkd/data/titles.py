"""Item titles for prompts: read apart from RecBole (which would join them into every batch) and cleaned.

A title is somebody else's text inside our prompt: it keeps its words, and loses what could pass for the
prompt's own markup.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping
from logging import getLogger
from pathlib import Path
from typing import Any

from recbole_alkd.data.tables import checked_id, existing, open_table, shown
from recbole_alkd.settings.error import AlkdError

TITLE_FIELDS = ("title", "movie_title", "name")
MAX_TITLE = 200  # characters
# Joiners shape letters and emoji; every other format character is invisible or turns the direction of the
# text.
_JOINERS = "\u200c\u200d"
# Angles in every form that reads as one: full-width and small ones become < and > in any reader that
# normalises.
_BRACKETS = str.maketrans("<>＜＞﹤﹥‹›〈〉⟨⟩❬❭❮❯❰❱⧼⧽\u2329\u232a", "()" * 11)


class NoTitlesError(AlkdError):
    """The data set has no titles."""


def clean_title(text: str) -> str:
    """One line of at most ``MAX_TITLE`` characters, without control and direction characters.

    ``<ID7>`` becomes ``(ID7)``, in full-width angles too.
    """
    shown = []
    for char in text:
        kind = unicodedata.category(char)
        if kind in ("Cc", "Zl", "Zp"):
            shown.append(" ")
        elif kind not in ("Cf", "Cs") or char in _JOINERS:
            shown.append(char)
    return " ".join("".join(shown).translate(_BRACKETS).split())[:MAX_TITLE].rstrip()


def load_titles(
    data_path: str | Path,
    dataset: str,
    item_field: str,
    title_field: str | None = None,
    items: Iterable[str] = (),
    separator: str | None = None,
    encoding: str | None = None,
) -> dict[str, str]:
    """Item token -> cleaned title, from ``<data_path>/<dataset>.item`` (or ``.item.gz``, ``.item.xz``).

    Args:
        data_path: folder with the data set's files.
        item_field: column with the item tokens.
        title_field: column with the titles. None: the first of title, movie_title and name that is there.
        items: tokens of the clicks. Those that the file does not list need a title none the less.
        separator, encoding: as for ``open_table``.

    An item without a title is called ``item <token>``; how many of the clicked items that are is logged as a
    warning. Of two rows for one item the first counts, as in RecBole.
    Titles may repeat: the token decides, the title only shows.

    Raises:
        NoTitlesError: no such file, no title column (the columns are listed), or every title is empty.
        AlkdError: the file cannot be read (it names the line), or it has a title for none of ``items``.
    """
    stem = Path(data_path) / f"{dataset}.item"
    path = existing(stem)
    if path is None:
        raise NoTitlesError(
            f"{stem}: no such file (nor .gz, .xz); item titles are read there, "
            f"from columns {item_field}:token, title:token_seq"
        )
    titles, column = read_titles(path, item_field, title_field, separator, encoding)
    if not any(titles.values()):
        raise NoTitlesError(f"{path}: column {column!r} holds no title")
    clicked = list(dict.fromkeys(items))
    check_known(path, titles, clicked)
    return {
        token: titles.get(token) or clean_title(f"item {token}")
        for token in dict.fromkeys([*titles, *clicked])
    }


def check_known(path: Path, titles: Mapping[str, str], items: Iterable[str]) -> None:
    """Say how many of ``items``, those of the clicks, have no title (of the file's own where none are given).

    Raises:
        AlkdError: none has one; it shows ids of both kinds.
    """
    clicked = list(dict.fromkeys(items))
    nameless = [token for token in clicked or titles if not titles.get(token)]
    if clicked and len(nameless) == len(clicked):
        raise AlkdError(_foreign(path, clicked, [token for token, title in titles.items() if title]))
    if nameless:
        getLogger().warning(
            f"{path.name}: {len(nameless):,} of {len(clicked or titles):,} items have no title and are shown "
            f"as 'item {nameless[0]}'"
        )


def titles_of(config: Any, item_field: str, items: Iterable[str] = ()) -> dict[str, str]:
    """``load_titles`` for the data set of a RecBole Config, read as its settings say."""
    form = config["field_separator"], config["encoding"]
    return load_titles(
        config["data_path"], config["dataset"], item_field, config["title_field"], items, *form
    )


def read_titles(
    path: Path,
    item_field: str,
    title_field: str | None,
    separator: str | None = None,
    encoding: str | None = None,
) -> tuple[dict[str, str], str]:
    """Item token -> cleaned title, and the title's column, of an ``.item`` file or of CSV.
    Errors as ``load_titles`` has them."""
    titles: dict[str, str] = {}
    blank, again = [], []
    # between tabs a title may begin with a quote that never closes, so quotes are taken literally there
    with open_table(path, separator, encoding, tabs_quoted=False) as table:
        at_item = table.index(item_field, "the item")
        at_title = _title_index(table.columns, title_field, path)
        for line, row in table.rows:
            token, title = (row[at] if table.quoted else _unquote(row[at]) for at in (at_item, at_title))
            token, title = checked_id(token, path, line), clean_title(title)
            if not token:
                blank.append(line)
            elif titles.setdefault(token, title) != title:
                again.append(line)
    if blank:
        getLogger().warning(
            f"{path.name}: {len(blank):,} rows have no item and are left out (line {shown(blank)})"
        )
    if again:
        getLogger().warning(
            f"{path.name}: {len(again):,} rows give an item that stands above another title; "
            f"the first counts (line {shown(again)})"
        )
    return titles, table.columns[at_title]


# What makes one id look like another: what is done to both, and what it is called.
_FORMS: tuple[tuple[Callable[[str], str], str], ...] = (
    (lambda token: token.removesuffix(".0"), "but for a '.0' at the end"),
    (lambda token: token.lstrip("0") or "0", "but for zeros at the beginning"),
    (lambda token: unicodedata.normalize("NFKC", token).casefold(), "but for case or Unicode form"),
)


def _foreign(path: Path, clicked: list[str], named: list[str]) -> str:
    """Why no clicked item has a title."""
    hint = ""
    for form, words in _FORMS:
        if {form(token) for token in clicked} & {form(token) for token in named}:
            hint = f"; they agree {words}"
            break
    return (
        f"{path}: it has a title for none of the {len(clicked):,} items of the clicks, "
        f"whose ids are {shown(clicked)}; the ids of "
        f"the file are {shown(named)}{hint}"
    )


def _title_index(columns: list[str], title_field: str | None, path: Path) -> int:
    wanted = TITLE_FIELDS if title_field is None else (title_field,)
    for name in wanted:
        if name in columns:
            return columns.index(name)
    raise NoTitlesError(
        f"{path}: no title column {' / '.join(wanted)}; it has {', '.join(columns)}: "
        "set title_field to one of them"
    )


def _unquote(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"')
    return text

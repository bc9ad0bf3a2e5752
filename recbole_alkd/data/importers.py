"""The data that the paper's authors published with ALKDRec, from a user's own clone,
as RecBole files and recorded rankings.

What is known of the release and read here, in ``datasets/NAME`` (NAME is ML or Games):

- ``NAME_title.csv``: ``itemID,title``; an item's number is its row, from 0;
  of two rows with one id the first counts;
- ``NAME_LLM_Database.data``: ``session <tab> [item numbers] <tab> hit``, the LLM's list and the place of the
  session's next item in it (the length asked for, 25, where it is not in it);
- ``NAME_*.base``: the sessions that a policy selected, one a line, in order;
- ``NAME.pkl``: the sessions. Its layout is described nowhere, so the columns can be named, and without names
  every way of reading it is tried: right is the one under which the recorded places of all rankings are true.

Sessions are numbered as the authors' own loader does it: items without a row among the titles are dropped
from a session's history, then sessions whose label has none, then sessions without history;
the others are numbered in order.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from recbole_alkd.data.own_settings import (
    SETTINGS_HEADER,
    benchmark_settings,
    check_dataset_name,
    settings_text,
)
from recbole_alkd.data.pickles import read_pickle
from recbole_alkd.data.tables import open_text
from recbole_alkd.data.writing import write_files
from recbole_alkd.settings.error import AlkdError

LLM = "gpt-4-turbo-2024-04-09"  # as the paper says
# Items of a session, its label among them: what the loader leaves, and the least of the paper's own data
# where a release has more.
MIN_ITEMS = (2, 5)
ASKED = 25  # items the LLM was asked for, and the recorded hit where the label is not among them
_SPLIT = (0.6, 0.8)  # where train and valid end; the published sessions are in random order
_POLICIES = {"ALKERec": "alkdrec", "RAD-BC": "rad_bc"}  # names of .base files that are spelt otherwise here


@dataclass(frozen=True)
class Recorded:
    """One line of the LLM's database. ``ranking``: item numbers."""

    session: int
    ranking: tuple[int, ...]
    hit: int


@dataclass(frozen=True)
class Layout:
    """One way to read the sessions.

    Attributes:
        items: column with a session's items, as lists, or one item a row.
        label: column with the item after them; None: the last of ``items`` is it.
        session: column with the session's number; None: the number of the row.
        raw: whether items are the ids of the title file; False: their numbers.
        min_items: shorter sessions are left out before the others are numbered.
    """

    items: str
    label: str | None = None
    session: str | None = None
    raw: bool = False
    min_items: int = field(default=MIN_ITEMS[0], compare=False)


def import_alkdrec(
    clone: Path,
    out: Path,
    data: str = "ML",
    *,
    items_column: str | None = None,
    label_column: str | None = None,
    session_column: str | None = None,
    raw_ids: bool | None = None,
    min_items: int | None = None,
) -> dict[str, Any]:
    """Write the sessions, titles, rankings and selections of a clone into ``out``,
    whose last part names the data set.

    Files: NAME.{train,valid,test}.inter (one session a row, its history whole and in order), NAME.item,
    NAME.llm.jsonl (for ``llm_teacher: replay``), NAME.selection.json (for ``alkd_picks: FILE#policy``),
    NAME.yaml (how a run reads them). The first 60 % of the sessions are train, the next 20 % valid.

    Args:
        clone: the clone, or the folder with its files.
        data: ML or Games.
        items_column, label_column, session_column, raw_ids: see ``Layout``; what is not given is found out.
        min_items: shorter sessions are left out before the others are numbered. None: 2, and where that
            contradicts the rankings 5.

    Returns:
        Counts, and ``layout``: how the sessions were read.

    Raises:
        AlkdError: a missing or unreadable file; sessions that no way of reading brings in line with the
            recorded rankings.
    """
    folder = next(
        (f for f in (clone / "datasets" / data, clone / data, clone) if (f / f"{data}.pkl").is_file()), None
    )
    if folder is None:
        raise AlkdError(
            f"{clone}: no datasets/{data}/{data}.pkl; give the authors' clone, and --data as its folder is "
            "called"
        )
    check_dataset_name(out.name)
    tokens, titles = _read_titles(folder / f"{data}_title.csv")
    recorded = list(_read_rankings(folder / f"{data}_LLM_Database.data"))
    table = _Table(folder / f"{data}.pkl", tokens)
    wanted = (items_column, label_column, session_column, raw_ids)
    layout, sessions = _find_layout(table, wanted, MIN_ITEMS if min_items is None else (min_items,), recorded)
    base = {_policy(file, data): _read_selection(file) for file in sorted(folder.glob(f"{data}_*.base"))}
    dropped, rankings = 0, []
    for one in recorded:
        inside = [tokens[item] for item in one.ranking if item < len(tokens)]
        dropped += len(one.ranking) - len(inside)
        rankings.append({"session_id": str(one.session), "ranking": inside, "hit": one.hit, "source": LLM})
    unknown = {item for picks in base.values() for item in picks} - sessions.keys()
    if unknown:
        raise AlkdError(f"{folder}: a .base file names session {min(unknown)}, which {data}.pkl has not")

    order = sorted(sessions)
    ends = [0, *(int(share * len(order)) for share in _SPLIT), len(order)]
    parts = {name: order[ends[k] : ends[k + 1]] for k, name in enumerate(("train", "valid", "test"))}

    def inter(chosen: Sequence[int], stream: TextIO) -> None:
        stream.write("session_id:token\titem_id_list:token_seq\titem_id:token\n")
        for number in chosen:
            *history, label = (tokens[item] for item in sessions[number])
            stream.write(f"{number}\t{' '.join(history)}\t{label}\n")

    def item(stream: TextIO) -> None:
        stream.write("item_id:token\ttitle:token_seq\n")
        stream.writelines(f"{token}\t{title}\n" for token, title in zip(tokens, titles, strict=True))

    name = out.name
    write_files(
        out,
        {
            **{f"{name}.{part}.inter": partial(inter, chosen) for part, chosen in parts.items()},
            f"{name}.item": item,
            f"{name}.llm.jsonl": lambda s: s.writelines(
                json.dumps(r, separators=(",", ":")) + "\n" for r in rankings
            ),
            f"{name}.yaml": lambda s: s.write(
                SETTINGS_HEADER + settings_text(benchmark_settings(title_field="title"))
            ),
            f"{name}.selection.json": lambda s: json.dump(
                {k: [str(x) for x in picks] for k, picks in base.items()}, s
            ),
        },
    )
    return {
        "sessions": len(order),
        **{part: len(chosen) for part, chosen in parts.items()},
        "items": len(tokens),
        "rankings": len(rankings),
        "ranked_items_dropped": dropped,
        **{f"selected_{key}": len(picks) for key, picks in base.items()},
        "layout": layout,
    }


# the text files


def _read_titles(file: Path) -> tuple[list[str], list[str]]:
    with open_text(file) as stream:
        rows = list(csv.reader(stream))
    if not rows or rows[0][:2] != ["itemID", "title"]:
        raise AlkdError(
            f"{file}: the columns itemID,title are expected, found {','.join(rows[0]) if rows else 'nothing'}"
        )
    titles: dict[str, str] = {}
    for line, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        if len(row) != 2 or not row[0] or re.search(r"\s", row[0]):
            raise AlkdError(
                f"{file}, row {line}: an item id without spaces and a title are expected, found {row!r}"
            )
        titles.setdefault(row[0], row[1])
    # RecBole reads quotes as pandas does, so that a lone one would swallow the lines behind it
    return list(titles), [" ".join(title.replace('"', "").split()) for title in titles.values()]


def _read_rankings(file: Path) -> Iterator[Recorded]:
    with open_text(file) as stream:
        for line, text in enumerate(stream, start=1):
            if not text.strip():
                continue
            try:
                session, ranking, hit = text.split("\t")
                items = json.loads(ranking)
                if not isinstance(items, list) or not all(type(item) is int and item >= 0 for item in items):
                    raise ValueError
                yield Recorded(int(session), tuple(items), int(hit))
            except ValueError:
                raise AlkdError(
                    f"{file}, line {line}: session, [item numbers] and hit, with tabs between, are expected"
                ) from None


def _read_selection(file: Path) -> list[int]:
    with open_text(file) as stream:
        words = stream.read().split()
    if not all(word.isascii() and word.isdigit() for word in words):
        raise AlkdError(f"{file}: one session number a line is expected")
    return [int(word) for word in words]


def _policy(file: Path, data: str) -> str:
    name = file.stem[len(data) + 1 :]
    return _POLICIES.get(name, name.lower().replace("-", "_"))


# the sessions


class _Table:
    """The pickled sessions as columns.

    Attributes:
        columns: name -> values; a list of sessions is one column called ``items``.
    """

    def __init__(self, file: Path, tokens: Sequence[str]) -> None:
        import pandas as pd

        self.file, self.count = file, len(tokens)
        self.number_of = {token: number for number, token in enumerate(tokens)}
        content = read_pickle(file)
        if isinstance(content, pd.DataFrame):
            self.columns = {str(name): content[name].tolist() for name in content.columns}
        elif (
            isinstance(content, dict)
            and content
            and all(isinstance(v, (list, tuple, np.ndarray)) for v in content.values())
        ):
            self.columns = {str(name): list(values) for name, values in content.items()}
        elif isinstance(content, (list, tuple, pd.Series)):
            self.columns = {"items": list(content)}
        else:
            raise AlkdError(
                f"{file}: a table or a list of sessions is expected, found {type(content).__name__}"
            )
        if len({len(values) for values in self.columns.values()}) != 1 or not len(
            next(iter(self.columns.values()))
        ):
            raise AlkdError(f"{file}: columns of one length, with at least one row, are expected")

    def __str__(self) -> str:
        first = ", ".join(f"{name} ({values[0]!r:.60})" for name, values in self.columns.items())
        return f"{len(next(iter(self.columns.values()))):,} rows with the columns (first value) {first}"

    def lists(self, column: str) -> bool:
        return all(isinstance(value, (list, tuple, np.ndarray)) for value in self.columns[column])

    def layouts(
        self, items: str | None, label: str | None, session: str | None, raw: bool | None
    ) -> Iterator[Layout]:
        """The ways to read the table that agree with what is given."""
        for name in (items, label, session):
            if name is not None and name not in self.columns:
                raise AlkdError(f"{self.file}: no column {name!r}; there are {self}")
        names = [items] if items else list(self.columns)
        encodings = [False, True] if raw is None else [raw]
        scalars = [name for name in self.columns if not self.lists(name)]
        for name, code in product(names, encodings):
            others = [column for column in scalars if column != name]
            for number in [session] if session else [None, *others]:
                if not self.lists(name):
                    if number:  # one item a row: rows of a session are told by its number
                        yield Layout(name, None, number, code)
                    continue
                for target in (
                    [label] if label else [None, *(column for column in others if column != number)]
                ):
                    yield Layout(name, target, number, code)

    def sessions(self, layout: Layout) -> dict[int, list[int]] | None:
        """Session number -> item numbers, the label last; None when the table cannot be read so."""
        try:
            numbers = (
                None
                if layout.session is None
                else [_integer(value) for value in self.columns[layout.session]]
            )
            values = self.columns[layout.items]
            if not self.lists(layout.items):
                assert numbers is not None
                rows: dict[int, list[Any]] = {}
                for number, value in zip(numbers, values, strict=True):
                    rows.setdefault(number, []).append(value)
                return {number: items for number, row in rows.items() if (items := self._known(row, layout))}
            if layout.label is not None:
                values = [
                    [*row, label] for row, label in zip(values, self.columns[layout.label], strict=True)
                ]
            known_items = [self._known(row, layout) for row in values]
            if numbers is None:
                return dict(enumerate(items for items in known_items if items))
            pairs = {number: items for number, items in zip(numbers, known_items, strict=True) if items}
            return pairs if len(set(numbers)) == len(numbers) else None
        except (ValueError, TypeError):
            return None

    def _known(self, row: Sequence[Any], layout: Layout) -> list[int] | None:
        """The items of a session that have a row among the titles; None when its label has none,
        or too few are left."""
        items = [self._item(value, layout.raw) for value in row]
        if not items or items[-1] is None:
            return None
        known = [item for item in items if item is not None]
        return known if len(known) >= layout.min_items else None

    def _item(self, value: Any, raw: bool) -> int | None:
        if raw:
            return self.number_of.get(str(value))
        if _is_missing(value):
            return None
        number = _integer(value)
        return number if 0 <= number < self.count else None


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _integer(value: Any) -> int:
    if isinstance(value, (bool, np.bool_)) or int(value) != value:
        raise ValueError
    return int(value)


def _find_layout(
    table: _Table,
    wanted: tuple[str | None, str | None, str | None, bool | None],
    least: Sequence[int],
    recorded: Sequence[Recorded],
) -> tuple[Layout, dict[int, list[int]]]:
    """The way of reading under which every recorded hit is where the session's label stands in its
    ranking."""
    if not recorded:
        raise AlkdError(f"{table.file}: without recorded rankings there is nothing to check the sessions by")
    best, right = 0, []
    for min_items in least:
        for layout in table.layouts(*wanted):
            layout = replace(layout, min_items=min_items)
            sessions = table.sessions(layout)
            if sessions is None:
                continue
            agreeing = sum(_agrees(one, sessions) for one in recorded)
            best = max(best, agreeing)
            if agreeing == len(recorded):
                right.append((layout, sessions))
        if right:
            break
    if not right:
        raise AlkdError(
            f"{table.file}: no way of reading its sessions makes the hits of all {len(recorded):,} recorded "
            "rankings true (at most "
            f"{best:,}); there are {table}; name the columns (--items, --label, --session, --raw-ids, "
            "--min-items)"
        )
    if any(sessions != right[0][1] for _, sessions in right[1:]):
        raise AlkdError(
            f"{table.file}: its sessions can be read in {len(right)} ways "
            f"({', '.join(str(layout) for layout, _ in right)}); "
            "name the columns (--items, --label, --session, --raw-ids)"
        )
    return right[0]


def _agrees(one: Recorded, sessions: dict[int, list[int]]) -> bool:
    label = sessions.get(one.session, [-1])[-1]
    if label in one.ranking:
        return one.ranking.index(label) == one.hit
    return label >= 0 and one.hit >= min(len(one.ranking), ASKED)

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
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from recbole_alkd.data.own_settings import (
    SETTINGS_HEADER,
    benchmark_settings,
    check_dataset_name,
    settings_text,
)
from recbole_alkd.data.recorded_tables import MIN_ITEMS, PickledTable, Recorded, find_layout
from recbole_alkd.data.tables import open_text
from recbole_alkd.data.writing import write_files
from recbole_alkd.settings.error import AlkdError

LLM = "gpt-4-turbo-2024-04-09"  # as the paper says
_SPLIT = (0.6, 0.8)  # where train and valid end; the published sessions are in random order
_POLICIES = {"ALKERec": "alkdrec", "RAD-BC": "rad_bc"}  # names of .base files that are spelt otherwise here


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
    table = PickledTable(folder / f"{data}.pkl", tokens)
    wanted = (items_column, label_column, session_column, raw_ids)
    layout, sessions = find_layout(table, wanted, MIN_ITEMS if min_items is None else (min_items,), recorded)
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



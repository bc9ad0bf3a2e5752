"""Raw clicks -> sessions -> split -> augmentation -> RecBole's atomic files.

The protocol of ALKDRec (AAAI 2025): a session is what one user clicks within one day, with five records or
more; sessions are split 6:2:2 at random; the last item is held out. What is written is read by every stock
RecBole sequential model (``benchmark_filename: [train, valid, test]``), so that baselines see the same
rows.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from logging import getLogger
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from recbole_alkd.data.own_settings import (
    SETTINGS_HEADER,
    benchmark_settings,
    check_dataset_name,
    settings_text,
)
from recbole_alkd.data.reading import TIME_UNITS, read_clicks
from recbole_alkd.data.rows import (
    AUGMENTATIONS,
    ORDERS,
    PARTS,
    Rows,
    check_split,
    cut_sessions,
    expand,
    only_positions,
    session_codes,
    split_sessions,
    window_index,
)
from recbole_alkd.data.tables import open_table, open_text
from recbole_alkd.data.titles import check_known, read_titles
from recbole_alkd.data.writing import write_files
from recbole_alkd.files import json_text
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.field import NO_DEFAULT, Field, at_least

_FIELDS = {
    "min_length": Field(NO_DEFAULT, int, check=at_least(2)),
    "max_length": Field(NO_DEFAULT, int, check=at_least(1)),
    "seed": Field(NO_DEFAULT, int, check=at_least(0)),
    "window": Field(NO_DEFAULT, int, null=True, check=at_least(1)),
    "order": Field(NO_DEFAULT, str, choices=ORDERS),
    "augmentation": Field(NO_DEFAULT, str, choices=AUGMENTATIONS),
    "time_unit": Field(NO_DEFAULT, str, null=True, choices=tuple(TIME_UNITS)),
}


def make_sessions(
    inter: str | Path,
    out: str | Path,
    *,
    user_field: str = "user_id",
    item_field: str = "item_id",
    time_field: str = "timestamp",
    session_field: str | None = None,
    window: int | None = 86400,
    min_length: int = 5,
    max_length: int = 50,
    split: Sequence[float] = (0.6, 0.2, 0.2),
    order: str = "random",
    augmentation: str = "prefix",
    seed: int = 2020,
    time_unit: str | None = None,
    titles: str | Path | None = None,
    title_field: str | None = None,
    separator: str | None = None,
    encoding: str | None = None,
) -> dict[str, int]:
    """Turn raw clicks into session files for RecBole.

    Args:
        inter: a RecBole ``.inter`` file, or CSV whose first line names the columns;
            plain, ``.gz`` or ``.xz``.
        out: folder of the new data set; its base name NAME is the data set's name (RecBole's
            ``data_path/NAME`` layout).
        user_field, item_field, time_field: columns of ``inter``. What is written always has ``item_id``.
        session_field: column that is the session already; the user and ``window`` are then left out.
        window: seconds; a session is a user's clicks with the same floor(timestamp / window), in UTC. None:
            the user is the session.
        min_length: sessions with fewer records are left out.
        max_length: histories keep their last ``max_length`` items.
        split: shares of the sessions in train, valid and test.
        order: "random", or "time": by the session's last click, earliest in train.
        augmentation: training rows; "prefix": one for every item after the first, "last": one a session.
            Valid and test always have one row a session, whose target is the last item.
        seed: of the random split.
        time_unit: unit of the timestamps, s, ms, us or ns. None: whole seconds, a fraction is an error.
            Dates (ISO 8601) have none.
        titles: an ``.item`` file, or CSV, with ``item_field`` and the title.
            None: the ``.item`` file beside ``inter``, if any.
        title_field: column of the titles. None: title, movie_title or name.
        separator, encoding: of both files. None: the header and a byte order mark tell; else UTF-8.

    Returns:
        Counts, the ones in ``NAME.sessions.json``: rows of the file, rows without an id (left out), sessions
        found, left out and kept, their interactions and items, sessions and rows of every part;
        with ``titles``, items that have one.

    Writes ``NAME.{train,valid,test}.inter`` (session_id, item_id_list, item_id), ``NAME.sessions.json``
    (counts and settings), ``NAME.yaml`` (the settings that read these files;
    a run finds it by itself) and, with titles, ``NAME.item``.

    Raises:
        AlkdError: a setting, column, timestamp or file that cannot be used, titles of other items,
            or nothing left to write.
    """
    source, folder = Path(inter), Path(out)
    settings: dict[str, Any] = {
        "user_field": user_field,
        "item_field": item_field,
        "time_field": time_field,
        "session_field": session_field,
        "window": None if session_field else window,
        "min_length": min_length,
        "max_length": max_length,
        "split": split,
        "order": order,
        "augmentation": augmentation,
        "seed": seed,
        "time_unit": time_unit,
    }
    _check(settings)
    name = folder.name if folder.name not in ("", "..") else folder.resolve().name
    check_dataset_name(name)
    clicks = read_clicks(
        source, session_field or user_field, item_field, time_field, time_unit, separator, encoding
    )
    if clicks.left_out():
        getLogger().warning(clicks.left_out())
    user, item, time = clicks.user, clicks.item, clicks.time
    windows = (
        np.zeros_like(time)
        if settings["window"] is None
        else window_index(time, settings["window"], time_unit)
    )
    session = session_codes(user, windows)
    long = np.bincount(session, minlength=1) >= min_length
    if not long.any():
        raise AlkdError(
            f"{source}: nothing to write, none of {session.max(initial=-1) + 1} sessions has {min_length} "
            "records (min_length)"
        )
    first = np.unique(session, return_index=True)[1][long]
    tokens = [clicks.users[code] for code in user[first]]
    if settings["window"] is not None:
        tokens = [f"{token}@{index}" for token, index in zip(tokens, windows[first], strict=True)]

    kept = long[session]
    session, item, time = np.cumsum(long)[session[kept]] - 1, item[kept], time[kept]
    sessions = cut_sessions(session, time)
    if order == "time" and only_positions(sessions, time):
        raise AlkdError(positions_message(time_field, "order='random'"))
    items = [clicks.items[code] for code in item[sessions.rows]]
    for token in set(items):
        if any(char.isspace() for char in token):
            raise AlkdError(
                f"{source}: {item_field} {token!r} holds a space, which separates items in RecBole's lists; "
                "rename it"
            )
    named = _titles(Path(titles), item_field, title_field, separator, encoding, items) if titles else {}

    split_parts = split_sessions(sessions.ended, split, order, seed)
    parts = {
        part: expand(sessions.offsets, chosen, augmentation if part == "train" else "last", max_length)
        for part, chosen in zip(PARTS, split_parts, strict=True)
    }
    counts = {
        "rows": clicks.rows,
        "rows_without_id": len(clicks.blank),
        "sessions_found": len(long),
        "sessions_too_short": int((~long).sum()),
        "sessions": len(tokens),
        "interactions": len(items),
        "items": len(set(items)),
        **{f"{part}_sessions": len(chosen) for part, chosen in zip(PARTS, split_parts, strict=True)},
        **{f"{part}_rows": len(rows) for part, rows in parts.items()},
        **({"items_with_title": sum(bool(named.get(token)) for token in set(items))} if titles else {}),
    }
    record = {"name": name, "input": source.name, "settings": settings, "counts": counts}
    files: dict[str, Callable[[TextIO], object]] = {
        f"{name}.{part}.inter": partial(_write_rows, tokens=tokens, items=items, rows=rows)
        for part, rows in parts.items()
    }
    described = None if titles else _item_file(source)
    if described:
        files[f"{name}.item"] = partial(_copy, described, item_field, separator, encoding)
    elif titles:
        files[f"{name}.item"] = partial(_write_titles, named)
    own = benchmark_settings(
        augmentation, max_length, title_field if described else "title" if titles else None
    )
    files[f"{name}.yaml"] = lambda stream: stream.write(SETTINGS_HEADER + settings_text(own))
    files[f"{name}.sessions.json"] = lambda stream: stream.write(json_text(record, indent=2) + "\n")
    write_files(folder, files)
    return counts


def positions_message(time_field: str, instead: str) -> str:
    """Why sessions cannot be split by time, and what to do."""
    return (
        f"{time_field}: every session's times are its positions (0, 1, 2, ... or 1, 2, 3, ...), not a clock, "
        "so sessions cannot be "
        f"split by time; use {instead}, or a {time_field} that says when"
    )


def _check(settings: dict[str, Any]) -> None:
    for key, spec in _FIELDS.items():
        spec.checked(key, settings[key])
    check_split(settings["split"], "split")


def _write_rows(stream: TextIO, tokens: list[str], items: list[str], rows: Rows) -> None:
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
    # RecBole's own models find benchmark lists under this name only
    writer.writerow(["session_id:token", "item_id_list:token_seq", "item_id:token"])
    columns = (rows.session.tolist(), rows.begin.tolist(), rows.target.tolist())
    writer.writerows(
        (tokens[s], " ".join(items[begin:target]), items[target])
        for s, begin, target in zip(*columns, strict=True)
    )


def _item_file(source: Path) -> Path | None:
    """The ``.item`` file beside ``source``, plain or compressed."""
    stem = source.name.removesuffix(source.suffix if source.suffix in (".gz", ".xz") else "").removesuffix(
        ".inter"
    )
    paths = (source.with_name(f"{stem}.item{ending}") for ending in ("", ".gz", ".xz"))
    return next((path for path in paths if path.is_file()), None)


def _copy(
    described: Path, item_field: str, separator: str | None, encoding: str | None, stream: TextIO
) -> None:
    """The ``.item`` file as it is where it has tabs and ``item_id``, else so rewritten; in UTF-8."""
    with open_table(described, separator, encoding, tabs_quoted=False) as table:
        if table.quoted or item_field != "item_id":
            renamed = ["item_id" if name == item_field else name for name in table.columns]
            if renamed.count("item_id") > 1:
                raise AlkdError(f"{described}: item_id stands beside {item_field}; rename one of the columns")
            stream.write(
                "\t".join(f"{name}:{kind}" for name, kind in zip(renamed, table.kinds, strict=True)) + "\n"
            )
            rows = ([" ".join(text.split()) for text in row] for _, row in table.rows)
            if table.quoted:
                csv.writer(stream, delimiter="\t", lineterminator="\n").writerows(rows)
            else:  # a quote is a character there
                stream.writelines("\t".join(row) + "\n" for row in rows)
            return
    with open_text(described, encoding) as text:
        shutil.copyfileobj(text, stream)


def _titles(
    file: Path,
    item_field: str,
    title_field: str | None,
    separator: str | None,
    encoding: str | None,
    items: list[str],
) -> dict[str, str]:
    titles, _ = read_titles(file, item_field, title_field, separator, encoding)
    check_known(file, titles, items)
    return titles


def _write_titles(named: dict[str, str], stream: TextIO) -> None:
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
    writer.writerow(["item_id:token", "title:token_seq"])
    writer.writerows((token, title) for token, title in named.items() if title)

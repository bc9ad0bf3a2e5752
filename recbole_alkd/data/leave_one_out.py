"""Leave one out: every session's last item is tested, the one before it validates, and the rest trains, as
RecBole's ``split: {LS: valid_and_test}`` has it. Written as benchmark files, in which a session stands in all
three parts."""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from recbole_alkd.data.own_settings import (
    SETTINGS_HEADER,
    benchmark_settings,
    check_dataset_name,
    settings_text,
)
from recbole_alkd.data.reading import read_clicks
from recbole_alkd.data.rows import cut_sessions
from recbole_alkd.data.writing import write_files
from recbole_alkd.files import json_text
from recbole_alkd.settings.error import AlkdError

# RecBole-GNN, results/sequential/diginetica.md ("diginetica-not-merged");
# its numbers of sessions and items count RecBole's padding
PUBLISHED = {"sessions": 72_013, "items": 29_453, "clicks": 580_490}
LEAST = 5  # clicks of a session, and of an item
LONGEST = 20  # items of a history
# what every part has as its target, counted from the end of a session
_TARGETS = {"train": 3, "valid": 2, "test": 1}


def import_recbole_gnn(
    inter: Path,
    out: Path,
    *,
    session_field: str = "session_id",
    item_field: str = "item_id",
    time_field: str = "timestamp",
    partly: bool = False,
) -> dict[str, int]:
    """Write diginetica as RecBole-GNN's published table evaluates it into ``out``,
    whose last part names the data set.

    Sessions and items with fewer than five clicks are left out until none is left; the rest is left one out.
    Files: NAME.{train,valid,test}.inter, NAME.yaml (how a run reads them), NAME.sessions.json (counts, and
    whether they are those that were published).

    Args:
        inter: the clicks, as ``read_clicks`` reads them. session_field, item_field, time_field: its columns.
        partly: write other data than the published too; its figures do not stand beside the published ones
            then.

    Returns:
        Counts of sessions, items and clicks.

    Raises:
        AlkdError: data of other counts than the published; nothing left.
    """
    check_dataset_name(out.name)
    clicks = read_clicks(inter, session_field, item_field, time_field)
    kept = core(clicks.user, clicks.item, LEAST)
    if not kept.any():
        raise AlkdError(f"{inter}: nothing to write, no sessions and items have {LEAST} clicks each")
    session = np.unique(clicks.user[kept], return_inverse=True)[1]
    item, time = clicks.item[kept], clicks.time[kept]
    counts = {"sessions": int(session.max()) + 1, "items": len(np.unique(item)), "clicks": len(item)}
    if counts != PUBLISHED and not partly:
        counted, wanted = (
            ", ".join(f"{n:,} {name}" for name, n in one.items()) for one in (counts, PUBLISHED)
        )
        raise AlkdError(
            f"{inter}: of sessions and items with {LEAST} clicks it has {counted}, "
            "and RecBole-GNN's table was "
            f"made with {wanted}: "
            "this is not its diginetica-not-merged; --partly writes it all the same"
        )
    sessions = cut_sessions(session, time)
    tokens = [clicks.users[code] for code in np.unique(clicks.user[kept])]
    items = [clicks.items[code] for code in item[sessions.rows]]
    bounds = list(zip(sessions.offsets[:-1].tolist(), sessions.offsets[1:].tolist(), strict=True))
    files: dict[str, Callable[[TextIO], object]] = {
        f"{out.name}.{part}.inter": partial(_write, tokens=tokens, items=items, bounds=bounds, target=target)
        for part, target in _TARGETS.items()
    }
    settings: dict[str, Any] = benchmark_settings("prefix", LONGEST)
    record = {
        "name": out.name,
        "input": inter.name,
        "counts": counts,
        "published": PUBLISHED,
        "as_published": counts == PUBLISHED,
    }
    files[f"{out.name}.yaml"] = lambda stream: stream.write(SETTINGS_HEADER + settings_text(settings))
    files[f"{out.name}.sessions.json"] = lambda stream: stream.write(json_text(record, indent=2) + "\n")
    write_files(out, files)
    return counts


def core(session: np.ndarray, item: np.ndarray, least: int) -> np.ndarray:
    """Which clicks are left, (clicks,) bool, when sessions and items with fewer than ``least`` go until all
    have as many."""
    kept = np.ones(len(session), dtype=bool)
    while True:
        enough = kept.copy()
        for codes in (session, item):
            enough &= np.bincount(codes[kept], minlength=int(codes.max(initial=-1)) + 1)[codes] >= least
        if enough.sum() == kept.sum():
            return kept
        kept = enough


def _write(
    stream: TextIO, tokens: list[str], items: list[str], bounds: list[tuple[int, int]], target: int
) -> None:
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
    writer.writerow(["session_id:token", "item_id_list:token_seq", "item_id:token"])
    for token, (begin, end) in zip(tokens, bounds, strict=True):
        writer.writerow([token, " ".join(items[begin : end - target]), items[end - target]])

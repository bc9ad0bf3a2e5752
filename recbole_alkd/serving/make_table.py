"""A bundle from counts: the table that they give under given settings, weighed and cut in bounded memory."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from recbole_alkd.data.pairs import AT_ONCE
from recbole_alkd.data.partial_counts import PartialCounts
from recbole_alkd.data.titles import read_titles
from recbole_alkd.data.work_folder import work_folder
from recbole_alkd.model.cut_table import cut_table
from recbole_alkd.model.grid_tables import Counting
from recbole_alkd.serving.card import card
from recbole_alkd.serving.items import write_items
from recbole_alkd.serving.manifest import CARD, STUDENT, write_bundle_folder
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.tensors import write_tensors


def table_bundle(
    counts: PartialCounts,
    out: Path,
    how: Counting,
    neighbors: int | None = 20,
    last_items: int = 10,
    titles: Path | None = None,
    name: str | None = None,
    at_once: int = AT_ONCE,
) -> Path:
    """Write the bundle of the table that counts give.

    Args:
        counts: of all parts. out: a folder that is not there. how: how they are weighed; nothing is chosen on
            validation here.
        neighbors: of an item; None: all. last_items: of a session, that count. titles: a file of titles.
            name: of the data.
        at_once: entries that are held in memory.

    Raises:
        AlkdError: ``out`` is there, titles that cannot be read, no pair of items in the counts, or weights
            that all round to 0.
    """
    if os.path.lexists(out):
        raise AlkdError(f"{out} is there already; allowed: a folder that is not there")
    named: dict[str, str] = {}
    if titles:
        named, _ = read_titles(titles, "item_id", None)
    with work_folder(out) as work:
        table = cut_table(counts, how, neighbors, work, at_once)
    if not table.nnz:
        raise AlkdError(f"{counts.file or 'counts'}: {_why_empty(counts, how)}")
    n_items = len(counts.ids)
    facts: dict[str, Any] = {
        "backbone": "SessionKNN",
        "items": n_items,
        "max_length": max(50, last_items),
        "mask_session_items": False,
        "kind": "table",
        "edges": table.nnz,
        "last_items": last_items,
        "decay": how.decay,
        "no_counts": "count the new sessions, merge both files of counts, and make the table anew",
    }
    content = {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "student": facts,
        "dataset": {
            "name": name or counts.parts[0].name,
            "training_sessions": sum(part.sessions for part in counts.parts),
            "items": n_items,
        },
        "counted": {
            "how": how._asdict(),
            "settings": vars(counts.settings),
            "parts": [vars(part) for part in counts.parts],
        },
        "limits": [
            "Settings were given and not chosen on validation sessions; nothing is measured.",
            "Nothing is known of users: a session is all that it looks at.",
        ],
    }

    def fill(folder: Path) -> None:
        arrays = {
            "indptr": np.concatenate([[0], table.indptr]).astype(np.int32),  # item 0 is the padding
            "indices": (table.indices + 1).astype(np.int32),
            "weights": table.data.astype(np.float16),
            "recency": recency(how.decay, last_items),
        }
        write_tensors(folder / STUDENT, arrays)
        write_items(
            folder, counts.ids, [named.get(item, "") for item in counts.ids], np.append(0, counts.sessions)
        )
        (folder / CARD).write_text(card(content), encoding="utf-8")

    return write_bundle_folder(out, content, fill)


def _why_empty(counts: PartialCounts, how: Counting) -> str:
    if not len(counts.pairs.target):
        return "no pair of items in them, so that the table would be empty"
    given = f"source_exponent {how.source_exponent:g} and target_exponent {how.target_exponent:g}"
    usual = f"{Counting().source_exponent:g} and {Counting().target_exponent:g}"
    return (
        f"under {given} every weight rounds to 0 (as numbers of 16 bits), so that the table would be empty; "
        f"allowed: smaller exponents, usually from 0 to 1 (default: {usual})"
    )


def recency(decay: float, last_items: int) -> np.ndarray:
    """What items count by their age, (last_items,) float32, as torch computes the powers in training."""
    import torch

    return (torch.tensor(decay, dtype=torch.float32) ** torch.arange(last_items)).float().numpy()

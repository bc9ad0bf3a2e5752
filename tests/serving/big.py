"""A bundle of a made-up table of any size, for timings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recbole_alkd.serving.items import write_items
from recbole_alkd.serving.manifest import STUDENT, write_bundle_folder
from recbole_alkd.tensors import write_tensors


def big_bundle(out: Path, n_items: int = 1_000_000, neighbours: int = 20, last_items: int = 10) -> Path:
    """A table with so many random neighbours an item; ids are numbers, titles three words, counts fall as in
    real data."""
    rng = np.random.default_rng(0)

    def fill(folder: Path) -> None:
        indices = rng.integers(1, n_items + 1, size=(n_items + 1, neighbours), dtype=np.int32)
        indices.sort(axis=1)
        weights = rng.random(indices.shape, dtype=np.float32).astype(np.float16)
        starts = np.concatenate([[0, 0], np.arange(1, n_items + 1) * neighbours]).astype(np.int32)
        recency = (0.7 ** np.arange(last_items)).astype(np.float32)
        table = {
            "indptr": starts,
            "indices": indices[1:].ravel(),
            "weights": weights[1:].ravel(),
            "recency": recency,
        }
        write_tensors(folder / STUDENT, table)
        counts = np.concatenate(
            [[0], rng.permutation(1e6 / np.arange(1, n_items + 1) ** 0.8).astype(np.int64)]
        )
        words = np.array(
            ["red", "blue", "small", "large", "old", "new", "lamp", "chair", "table", "clock", "frame", "mug"]
        )
        titles = [" ".join(row) for row in words[rng.integers(0, len(words), size=(n_items, 3))]]
        write_items(folder, [str(k) for k in range(10_000_000, 10_000_000 + n_items)], titles, counts)

    student = {
        "kind": "table",
        "backbone": "SessionKNN",
        "items": n_items,
        "max_length": 50,
        "last_items": last_items,
    }
    return write_bundle_folder(out, {"student": student}, fill)

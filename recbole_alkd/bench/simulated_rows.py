"""What a study of simulated answers has written: its rows, and the gain of every test session under each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

METRIC = "ndcg@10"  # of the test sessions


def read_rows(file: Path) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """The rows of a study, and the gains of the test sessions by their names; nothing where there is none."""
    if not file.is_file():
        return [], {}
    rows, gains = json.loads(file.read_text(encoding="utf-8"))["rows"], read_gains(file)
    return rows, {row["name"]: gains[row["name"]] for row in rows}


def read_gains(file: Path) -> dict[str, np.ndarray]:
    """Name of a row -> gain of every test session, (sessions,), of the study whose facts are in ``file``."""
    with np.load(file.with_suffix(".npz"), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays}

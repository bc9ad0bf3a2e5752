"""The tables of a report: all arms of one data set and backbone, compared with the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from recbole_alkd.bench.statistics import Comparison
from recbole_alkd.bench.target_groups import Part


@dataclass(frozen=True)
class Row:
    """One arm in one table.

    Attributes:
        base, point: see ``Arm``. reference: the arm it is compared with.
            is_reference: whether others are compared with it.
        values: metric -> its value for every finished seed. comparison: metric -> against the reference.
        groups: metric -> group of targets -> the same on these.
        against_best: metric -> against the best arm without LLM and titles (``Table.best``); empty for that
            arm itself.
        seconds: mean wall time of the stage itself. bytes: of the model's numbers.
        labels, tokens, usd, all_seconds: means over seeds of what a result rests on, shared stages and labels
            in full; usd is None where labels have no price.
    """

    name: str
    words: str
    base: str
    point: Any
    reference: str | None
    is_reference: bool
    values: dict[str, np.ndarray]
    comparison: dict[str, Comparison]
    groups: dict[str, dict[str, Part]]
    against_best: dict[str, Comparison]
    parameters: int
    bytes: int
    seconds: float
    labels: float
    tokens: float
    usd: float | None
    all_seconds: float


@dataclass(frozen=True)
class Table:
    """All arms of one data set and backbone. ``targets``: ``group_sizes``.

    best: name of the arm without LLM and titles that is best on validation in the first metric; None where
    every arm has some.
    """

    dataset: str
    backbone: str
    rows: list[Row]
    sessions: int
    targets: dict[str, list[int]]
    best: str | None

    def best_words(self) -> str:
        """What the report says of ``best``."""
        words = [row.words for row in self.rows if row.name == self.best]
        return f"Best without LLM and titles, chosen on validation: {words[0]}." if words else ""

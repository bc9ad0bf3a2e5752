"""What the table of a run shows and what it does not: its rows compared over the test sessions, pair by pair.

Every row ranks the same sessions, so two rows are compared by what each session gains
(``recbole_alkd.statistics``). One run is one training: how another seed would come out is in no interval
here; for that there is ``recbole-alkd bench``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from recbole_alkd.model.scoring import METRICS, gains
from recbole_alkd.statistics import LEVEL, paired_difference, paired_t, sign_flips

NO_DIFFERENCE = "no measurable difference"
FEW = 200  # so many sessions that differ are enough for a t-test; with fewer, swaps within sessions are drawn
KEYS = ("against", "metric", "difference", "low", "high", "sessions", "verdict")


@dataclass(frozen=True)
class RowComparison:
    """One row of the table against another one, in units of the metric.

    Attributes:
        row, against: names of the rows. metric: such as "ndcg@10".
        difference: mean over sessions of (row - against), by mean ranks at ties.
        low, high: its 95 % percentile bootstrap interval over sessions. p: of a paired test.
        detectable: the smallest true difference that as many sessions find in four of five cases;
            nan where none differ.
        sessions: how many it rests on.
    """

    row: str
    against: str
    metric: str
    difference: float
    low: float
    high: float
    p: float
    detectable: float
    sessions: int

    @property
    def verdict(self) -> str:
        """better, worse, or no measurable difference. Interval and test have to agree:
        few sessions can fool either."""
        if not self.p < LEVEL or self.low <= 0 <= self.high:
            return NO_DIFFERENCE
        return "better" if self.difference > 0 else "worse"

    def facts(self) -> dict[str, Any]:
        """What ``result.json`` holds as ``comparison``."""
        return {key: getattr(self, key) for key in KEYS}

    def words(self, names: Mapping[str, str]) -> str:
        """One line for the log. ``names``: row -> what the table calls it."""
        measured = f"{self.metric} {self.difference:+.4f}, 95 % interval [{self.low:+.4f}, {self.high:+.4f}]"
        line = f"{names[self.row]}, against {names[self.against]}: {measured}: {self.verdict}"
        if self.verdict != NO_DIFFERENCE:
            return f"{line} on {self.sessions:,} test sessions"
        if math.isnan(self.detectable):
            return f"{line}: all {self.sessions:,} test sessions gain the same"
        return f"{line}: {self.sessions:,} test sessions can show {shortest(self.detectable)} and more"


def comparison_metric(metrics: Iterable[str], valid_metric: str) -> str | None:
    """What rows are compared by: ``valid_metric``, else the first metric that follows from ranks;
    None without one."""
    known = [metric for metric in metrics if metric.partition("@")[0] in METRICS]
    return valid_metric.lower() if valid_metric.lower() in known else next(iter(known), None)


def compare_rows(
    ranks: Mapping[str, np.ndarray], row: str, against: str, metric: str, seed: int
) -> RowComparison:
    """Compare two rows by the ranks of their targets.

    Args:
        ranks: row -> (sessions,) ranks of the same sessions in the same order. seed: of the bootstrap.
    """
    ours, theirs = gains(ranks[row], metric), gains(ranks[against], metric)
    difference, low, high, detectable = paired_difference(ours, theirs, seed)
    return RowComparison(
        row, against, metric, difference, low, high, _p(ours - theirs, seed), detectable, len(ours)
    )


def told_apart(ranks: Mapping[str, np.ndarray], metric: str, seed: int) -> list[tuple[str, str]]:
    """The pairs (better row, worse row) that differ by a paired test,
    corrected for their number (Bonferroni)."""
    values = {name: gains(rank, metric) for name, rank in ranks.items()}
    pairs = list(combinations(values, 2))
    apart = []
    for one, other in pairs:
        difference = values[one] - values[other]
        if _p(difference, seed) * len(pairs) < LEVEL:
            apart.append((one, other) if difference.mean() > 0 else (other, one))
    return apart


def table_line(ranks: Mapping[str, np.ndarray], metric: str, seed: int, names: Mapping[str, str]) -> str:
    """How far the rows of the test table may be read as a ranking, in one line."""
    pairs, sessions = len(ranks) * (len(ranks) - 1) // 2, len(next(iter(ranks.values())))
    apart = told_apart(ranks, metric, seed)
    basis = f"{sessions:,} test sessions ({metric}, paired tests corrected for {pairs} pairs)"
    if not apart:
        return f"no two rows of this table can be told apart on its {basis}: it is no ranking"
    beaten: dict[str, list[str]] = {}
    for better, worse in apart:
        beaten.setdefault(better, []).append(names[worse])
    words = "; ".join(f"{names[name]} above {_listed(rows)}" for name, rows in beaten.items())
    left = pairs - len(apart)
    rest = f"; the other {left} pairs cannot, and are in no order" if left > 1 else ""
    if left == 1:
        rest = "; one pair cannot, and is in no order"
    return f"rows that can be told apart on {basis}: {words}{rest}"


def shortest(value: float) -> str:
    """Two digits that count, such as 0.0061."""
    return f"{float(f'{value:.1e}'):.{max(0, 1 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(f"({word})" if "," in word else word for word in words)


def _p(differences: np.ndarray, seed: int) -> float:
    if np.count_nonzero(differences) <= FEW:
        return sign_flips(differences, np.random.default_rng(seed))
    return paired_t(differences)

"""Every table once more, split by what training knows of the target:
warm, input-only, cold (``model.scoring.target_groups``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recbole_alkd.model.scoring import GROUPS, gains
from recbole_alkd.statistics import bootstrap_interval

if TYPE_CHECKING:
    from recbole_alkd.bench.results import Result

WORDS = {"warm": "warm", "input_only": "input-only", "cold": "cold"}
MEANING = (
    "warm: the target is the last item of a training session; input-only: it is in training sessions, "
    "never as their last item; "
    "cold: it is in none. Intervals as above, on the sessions of the group; no test was made."
)


@dataclass(frozen=True)
class Part:
    """An arm on the targets of one group: its mean, and its difference from the reference with the 95 %
    interval, or None."""

    mean: float
    difference: tuple[float, float, float] | None = None


def group_sizes(results: Sequence[Result]) -> dict[str, list[int]]:
    """Group -> the numbers of its test targets (several where seeds have different ones),
    for groups that have any."""
    sizes = {
        name: sorted({int((result.groups == k).sum()) for result in results}) for k, name in enumerate(GROUPS)
    }
    return {name: numbers for name, numbers in sizes.items() if numbers[-1]}


def size_words(sizes: Mapping[str, list[int]]) -> str:
    """How many targets are in each group."""
    spans = {name: dict.fromkeys((numbers[0], numbers[-1])) for name, numbers in sizes.items()}
    return ", ".join(f"{WORDS[name]} {' to '.join(f'{n:,}' for n in span)}" for name, span in spans.items())


def parts(
    ours: Sequence[Result],
    theirs: Sequence[Result],
    own: Sequence[Result],
    metric: str,
    crossed: bool,
    rng: np.random.Generator,
) -> dict[str, Part]:
    """Group -> what the arm does there; a group that a run has no target of is left out.

    Args:
        ours, theirs: runs of the arm and of its reference, paired by seed; empty where it has none.
            own: all runs of the arm.
        crossed: whether all seeds are evaluated on the same sessions in the same order.
    """
    by_group = {}
    for k, name in enumerate(GROUPS):
        if not all((run.groups == k).any() for run in own):
            continue
        mean = float(np.mean([gains(run.test[run.groups == k], metric).mean() for run in own]))
        by_group[name] = Part(mean)
        if ours:
            pairs = list(zip(ours, theirs, strict=True))
            differences = [(gains(a.test, metric) - gains(b.test, metric))[a.groups == k] for a, b in pairs]
            together = crossed and all(np.array_equal(a.groups, ours[0].groups) for a in ours)
            low, high = bootstrap_interval(differences, together, rng)
            by_group[name] = Part(mean, (float(np.mean([d.mean() for d in differences])), low, high))
    return by_group

"""How the student learns from labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recbole_alkd.settings.field import above, at_least, between, setting
from recbole_alkd.settings.groups.group import Group
from recbole_alkd.settings.rules import POSITION_WEIGHT


@dataclass(frozen=True)
class DistillSettings(Group):
    """How the student learns from the labels."""

    heading = "distillation"
    kd_loss: Any = setting("pairwise", str, dict, help="A loss, or {loss: weight, ...}.")
    kd_lists: str = setting(
        "llm",
        str,
        choices=("llm", "shuffled", "permuted", "target"),
        help="What is distilled: llm (the labels), or a control: shuffled (each list in random order), "
        "permuted (lists of other sessions), target (the true next item alone).",
    )
    kd_correct: float = setting(
        1.0,
        float,
        check=between(0, 1),
        help="Share of labelled sessions that keep their list; the others get random candidates (control).",
    )
    kd_init: str = setting(
        "student",
        str,
        choices=("student", "scratch"),
        help="Start from the trained student, or from scratch.",
    )
    kd_weight: float = setting(1.0, float, check=above(0), help="Weight of the distillation loss.")
    kd_rec_weight: float = setting(
        0.0,
        float,
        check=at_least(0),
        help="Weight of the recommendation loss beside it.",
    )
    kd_learning_rate: float | None = setting(
        None,
        float,
        check=above(0),
        help="~: learning_rate; that of the student, where kd_init is scratch.",
    )
    kd_position_weight: list[Any] = setting(
        [[5, 3], [15, 2], [25, 1]],
        list,
        check=POSITION_WEIGHT,
        help="Weight 3 up to rank 5, 2 up to 15, 1 up to 25.",
    )
    kd_negatives: str = setting(
        "in_batch",
        str,
        choices=("in_batch", "uniform", "candidates"),
        help="in_batch, uniform, candidates.",
    )
    kd_batch_size: int | None = setting(
        None,
        int,
        check=at_least(1),
        help="(session, ranked item) pairs a step. ~: train_batch_size, or less so that an epoch has ten "
        "steps.",
    )
    kd_config: dict[str, Any] = setting({}, dict, help="Settings of single losses: {loss: {setting: value}}.")

"""What a selection policy is given, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from recbole_alkd.active.sampling import PoolExhausted
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import SelectionSettings


@dataclass(frozen=True)
class Pool:
    """The N instances that may be labelled.

    Attributes:
        sessions: (N,) session tokens.
        difficulty: () -> (N,) difficulty, larger is harder; computed when first called.
        entropy: () -> (N,) entropy of the student's scores in nats.
        disagreement: () -> (N,) how far student and teacher recommender disagree, in [0, 1].
        counts: assumed numbers of (effective, similar, incorrect) labels in this pool, where evidence gives
            them (a pilot, earlier rounds); None: ``alkd_ratio`` times N.
    """

    sessions: np.ndarray
    difficulty: Callable[[], np.ndarray]
    entropy: Callable[[], np.ndarray]
    disagreement: Callable[[], np.ndarray]
    counts: tuple[int, int, int] | None = None

    def __len__(self) -> int:
        return len(self.sessions)


@dataclass(frozen=True)
class Selection:
    """The picks of one round.

    Attributes:
        picks: (size,) distinct indices into the pool, in the order they were drawn.
        log_p: (N,) log of the probabilities they were drawn with, or None for a deterministic policy.
        value, upper, gap: worst-case gain of ``log_p``, the adversary's upper bound on any policy's, and
            their difference (in units of the assumed gains); None where the policy solves no game. Under
            ``alkd_draw: pps`` with a budget that needs it, "any policy" means any whose probabilities are at
            most 1 / size.
        support: how many instances can be drawn at all.
        filled: how many picks came from outside of the support (``alkd_fill: next``).
    """

    picks: np.ndarray
    log_p: np.ndarray | None = None
    value: float | None = None
    upper: float | None = None
    gap: float | None = None
    support: int | None = None
    filled: int = 0


class Policy:
    """Base of all policies. A subclass is registered under its ``alkd_policy`` name.

    Its docstring states what it needs and what it guarantees.

    Attributes:
        needs: which of the pool's columns it calls: "difficulty", "entropy", "disagreement".
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, settings: SelectionSettings) -> None:
        self.settings = settings

    def select(self, pool: Pool, size: int, rng: np.random.Generator) -> Selection:
        """Choose ``size`` instances. PoolExhausted when the pool, or the policy's support, has fewer."""
        raise NotImplementedError


def take_highest(score: np.ndarray, size: int) -> Selection:
    """The deterministic selection of the ``size`` largest scores, (N,), largest first;
    equal scores keep their order.

    Raises:
        PoolExhausted: ``size`` > N.
        AlkdError: a score is NaN.
    """
    if size > len(score):
        raise PoolExhausted(len(score), size)
    if np.isnan(score).any():
        raise AlkdError(
            f"alkd_policy: {int(np.isnan(score).sum())} of {len(score)} scores are NaN; allowed: numbers"
        )
    return Selection(picks=np.argsort(-score, kind="stable")[:size], support=len(score))

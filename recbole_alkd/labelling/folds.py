"""Recommenders that were each trained without one fold of the training sessions.

A trained recommender finds its own training labels first, so whatever compares it with an LLM on training
sessions (the LoRA examples, the pilot that estimates the ratio) asks the one that never saw the session.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from recbole_alkd.model.backbone import Backbone


class Folds:
    """A random division of the training sessions into folds, and a recommender without each,
    trained when first used.

    Args:
        session_ids: (rows,) internal session id of every training row.
        count: number of folds.
        rng: decides the division.
        train: (fold, rows outside of it) -> the recommender trained on these rows.

    Attributes:
        sessions: (S,) the distinct session ids, sorted. fold_of_session: (S,). fold_of_row: (rows,).
    """

    def __init__(
        self,
        session_ids: np.ndarray,
        count: int,
        rng: np.random.Generator,
        train: Callable[[int, np.ndarray], Backbone],
    ) -> None:
        self.count, self._train = count, train
        self.sessions, session_of_row = np.unique(session_ids, return_inverse=True)
        self.fold_of_session = rng.permutation(len(self.sessions)) % count
        self.fold_of_row = self.fold_of_session[session_of_row]

    @cached_property
    def views(self) -> list[Backbone]:
        """One recommender a fold; ``views[f]`` never saw a session of fold f."""
        return [self._train(fold, np.flatnonzero(self.fold_of_row != fold)) for fold in range(self.count)]

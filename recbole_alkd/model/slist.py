"""SLIST: a linear item-item model of sessions in closed form (``linear.py`` has the formula).
With ``kd_loss: link`` it is LINK."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from recbole_alkd.model.choosing import Sessions, edge_choice
from recbole_alkd.model.counted import Counted
from recbole_alkd.model.edges import Edges
from recbole_alkd.model.knn_settings import numbers
from recbole_alkd.model.linear import (
    Sides,
    factor,
    gram,
    linear_scores,
    mixed,
    pasts_and_futures,
    whole_sessions,
)
from recbole_alkd.model.rival import Rival
from recbole_alkd.model.scoring import mean_ranks
from recbole_alkd.registry import backbones
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.field import NO_DEFAULT, Field, is_a, words

# Three matrices of n_items^2 float32 numbers are held while it is fitted: 2.7 GB for so many items, and
# a solution takes minutes on a core.
MOST_ITEMS = 15_000
_ROWS_AT_ONCE = 500


class Slist(NamedTuple):
    """The settings ``slist_...`` of these names; see ``linear.py``."""

    alpha: float = 0.5
    regularization: float = 10.0
    train_decay: float = 1.0
    predict_decay: float = 1.0


def _positive(largest: float) -> Field:
    def good(value: Any) -> bool:
        values = value if isinstance(value, list) else [value]
        return bool(values) and all(
            is_a(v, int, float) and 0 < v <= largest and v != math.inf for v in values
        )

    span = "above 0" if largest == math.inf else f"above 0 and up to {largest:g}"
    return Field(NO_DEFAULT, (float, list), check=words(f"a number {span}, or a list of such numbers", good))


SETTINGS = {
    "slist_alpha": numbers(1),
    **{f"slist_{name}": _positive(math.inf) for name in Slist._fields[1:]},
    "slist_edge_weight": numbers(math.inf),
}


@backbones.register("SLIST")
class SLIST(Rival):
    """Whole sessions and their pasts and futures in one ridge regression; its state is B, n_items^2 numbers.

    Edges (``kd_loss``, ``item_text``) are M, divided by their largest row sum; validation chooses w from
    ``slist_edge_weight``. The diagonal of B is free, as in the authors' code for alpha below 1,
    so that items of the session can come again.

    Raises:
        AlkdError: a data set of more than ``MOST_ITEMS`` items.
    """

    own_settings = SETTINGS
    heading = "linear item-item model"
    prefix, kind = "slist", Slist
    free_sizes: ClassVar[tuple[str, ...]] = ("weights",)
    decay: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        items = dataset.item_num - 1
        if items > MOST_ITEMS:
            gigabytes = 3 * 4 * items**2 / 1e9
            raise AlkdError(
                f"student_model: SLIST (and LINK) keeps n_items^2 numbers, {gigabytes:.0f} GB while it is "
                "fitted to the "
                f"{items:,} items of {dataset.dataset_name}; allowed: at most {MOST_ITEMS:,} items"
            )
        super().__init__(config, dataset)
        self.weights = nn.Parameter(torch.zeros(0), requires_grad=False)
        self.register_buffer("decay", torch.tensor(self.start().predict_decay, dtype=torch.float64))

    def count(self, train: Any, valid: Any = None, edges: Edges | None = None) -> Counted:
        """Solve for B, and choose on validation how sessions are weighed, and what edges weigh."""
        flat, offsets, counts = self.counted(train)
        rows, device = self.rows(valid), self.decay.device
        solve = _Solver(flat, offsets, self.n_items, device)

        def ranks_of(how: Slist) -> np.ndarray:
            assert rows is not None
            return _ranks(rows, solve(how), how.predict_decay)

        chosen = self.choose(rows, ranks_of)
        solution, factors = solve(chosen.how), solve.factor
        weights: dict[str, float] = {}
        for name, variants in self.edge_sets(edges, counts).items():
            taught = [torch.cholesky_solve(_dense(one, device), factors) for one in variants]
            choices = sorted(self.edge_weights)
            best, weight = 0, choices[len(choices) // 2]
            if rows is not None and (len(choices) > 1 or len(taught) > 1):
                best, weight = edge_choice(
                    len(taught), choices, _with(solution, taught, rows, chosen.how.predict_decay), rows
                )
            solution = solution + weight * taught[best]
            weights |= {f"{name}_edges": variants[best].nnz, f"{name}_weight": weight}
            if len(taught) > 1:
                weights[f"{name}_variant"] = best
        self.weights = nn.Parameter(solution.reshape(-1), requires_grad=False)
        self.decay = torch.tensor(chosen.how.predict_decay, dtype=torch.float64, device=device)
        return self.result(chosen, weights, f"{self.n_items:,}^2 numbers, {4 * self.n_items**2:,} bytes")

    def scores(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        if not len(self.weights):  # not fitted
            return self.weights.new_zeros(len(item_seq), self.n_items)
        matrix = self.weights.view(self.n_items, self.n_items)
        return linear_scores(matrix, item_seq, item_seq_len, float(self.decay))


class _Solver:
    """B of a setting; what the last settings share is kept."""

    def __init__(self, flat: np.ndarray, offsets: np.ndarray, n_items: int, device: torch.device) -> None:
        self.sessions, self.device = (flat, offsets, n_items), device
        self.whole = gram(whole_sessions(flat, offsets, n_items))
        self.parts: tuple[float, Sides] | None = None
        self.solved: tuple[Any, Tensor] | None = None
        self.factor = torch.zeros(0)

    def __call__(self, how: Slist) -> Tensor:
        key = how._replace(predict_decay=0.0)
        if self.solved is None or self.solved[0] != key:
            if self.parts is None or self.parts[0] != how.train_decay:
                self.parts = how.train_decay, gram(pasts_and_futures(*self.sessions, how.train_decay))
            self.solved = None
            left, right = (mixed(self.whole[k], self.parts[1][k], how.alpha, self.device) for k in range(2))
            self.factor = factor(left, how.regularization)
            self.solved = key, torch.cholesky_solve(right, self.factor)
        return self.solved[1]


def _dense(edges: Any, device: torch.device) -> Tensor:
    largest = float(np.asarray(edges.sum(axis=1)).max(initial=0.0)) or 1.0
    return torch.from_numpy((edges / largest).toarray().astype(np.float32)).to(device)


def _with(
    weights: Tensor, taught: list[Tensor], rows: Sessions, decay: float
) -> Callable[[int, float], np.ndarray]:
    return lambda variant, weight: _ranks(rows, weights + weight * taught[variant], decay)


def _ranks(rows: Sessions, weights: Tensor, decay: float) -> np.ndarray:
    """Ranks of the targets, (rows,)."""
    ranks = [np.zeros(0)]
    for start in range(0, len(rows.target), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        item_seq, length, target = (
            torch.from_numpy(np.asarray(one[part])).to(weights.device)
            for one in (rows.item_seq, rows.length, rows.target)
        )
        scores = linear_scores(weights, item_seq, length, decay)
        if rows.masked:
            scores.scatter_(1, item_seq, -torch.inf)
        ranks.append(mean_ranks(scores, target).cpu().numpy())
    return np.concatenate(ranks)

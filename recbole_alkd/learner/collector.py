"""RecBole's evaluation collector without its dense matrix of positives, for rows that have one
target each."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.evaluator import Collector
from torch import Tensor

from recbole_alkd.processes.group import Group

ROWS = ("rec.topk", "rec.meanrank", "rec.score", "rec.items", "data.label")  # what grows with every batch

_AT_ONCE = 1 << 19  # scores that are compared at once, so that the result stays in the cache


class SingleTargetCollector(Collector):
    """Collects what RecBole's collector collects, to the bit.

    collector.py looks for the best k of each row and builds a (B, n_items) integer matrix to mark one target
    a row; how many scores are above the target's gives the same columns. Whatever needs more than the top k
    (mean ranks, scores) goes the way of RecBole.

    Args:
        group: the processes that share the batches; each collects some, in order, and the data of all come
            together where they are asked for.
    """

    def __init__(self, config: Any, group: Group | None = None) -> None:
        super().__init__(config)
        self.group = group or Group()

    def get_data_struct(self) -> Any:
        if self.group.size > 1:
            every = self.group.gather(
                {name: self.data_struct[name].cpu() for name in ROWS if name in self.data_struct}
            )
            for name in {name for one in every for name in one}:
                self.data_struct.set(name, torch.cat([one[name] for one in every if name in one]))
        return super().get_data_struct()

    def eval_batch_collect(
        self, scores_tensor: Tensor | None, interaction: Any, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        if scores_tensor is None:  # of another process
            return
        rows = torch.arange(len(scores_tensor), device=positive_u.device)
        others = ("rec.meanrank", "rec.score", "data.label")
        if any(self.register.need(name) for name in others) or not torch.equal(positive_u, rows):
            super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
            return
        longest, wants_items = max(self.topk), self.register.need("rec.items")
        if wants_items:
            self.data_struct.update_tensor("rec.items", _top(scores_tensor, longest))
        if self.register.need("rec.topk"):
            if wants_items or not _countable(scores_tensor):
                hits = _hits(scores_tensor, positive_i, longest)
            else:
                hits = _counted_hits(scores_tensor, positive_i, longest)
            # as the sum over RecBole's matrix
            self.data_struct.update_tensor("rec.topk", torch.cat((hits, torch.ones_like(hits[:, :1])), dim=1))


def _top(scores: Tensor, longest: int) -> Tensor:
    return torch.topk(scores, longest, dim=-1).indices


def _hits(scores: Tensor, target: Tensor, longest: int) -> Tensor:
    """(B, longest) int64, 1 where the target stands among the best."""
    top = _top(scores, longest)
    return (top == target.to(top.device).unsqueeze(1)).long()


def _countable(scores: Tensor) -> bool:
    """Whether greater scores can be counted: on a CPU, and none of them is nan, which torch puts first."""
    return scores.is_cpu and scores.dtype == torch.float32 and not scores.amax().isnan()


def _counted_hits(scores: Tensor, target: Tensor, longest: int) -> Tensor:
    """``_hits`` from how many scores are above the target's. Where some are equal to it as well, torch's own
    order decides.
    """
    own = scores.gather(1, target.unsqueeze(1))
    values, bars = scores.detach().numpy(), own.detach().numpy()
    above, reached = np.empty(len(values), dtype=np.int64), np.empty(len(values), dtype=np.int64)
    step = max(1, _AT_ONCE // values.shape[1])
    for begin in range(0, len(values), step):
        rows = slice(begin, begin + step)
        above[rows] = np.count_nonzero(values[rows] > bars[rows], axis=1)
        reached[rows] = np.count_nonzero(values[rows] >= bars[rows], axis=1)
    hits = torch.zeros((len(values), longest), dtype=torch.int64)
    listed = above < longest
    alone = np.flatnonzero(listed & (reached == above + 1))
    hits[torch.from_numpy(alone), torch.from_numpy(above[alone])] = 1
    tied = torch.from_numpy(np.flatnonzero(listed & (reached > above + 1)))
    if len(tied):
        hits[tied] = _hits(scores[tied], target[tied], longest)
    return hits

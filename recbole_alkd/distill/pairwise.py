"""ALKDRec's own loss: weighted pair-wise imitation of the LLM's ranking (paper, Eq. 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import softplus

from recbole_alkd.distill.base import DistillationLoss, DistillBatch
from recbole_alkd.registry import losses


def position_weights(pairs: Sequence[Sequence[float]], length: int) -> Tensor:
    """Weights of ranks 1 to ``length``: ``[[5, 3], [15, 2], [25, 1]]`` gives 3 up to rank 5, 2 up to 15,
    1 up to 25, then 0."""
    weights = torch.zeros(length)
    start = 0
    for end, weight in pairs:
        weights[start : int(end)] = float(weight)
        start = int(end)
    return weights


@losses.register("pairwise")
class Pairwise(DistillationLoss):
    """-sum_s sum_v alpha_v log sigmoid(S(s, v) - S(s, v')), as a mean over the pairs of the batch weighted by
    alpha.

    The paper leaves open where the negative v' comes from. ``kd_negatives``: ``in_batch`` (the items that the
    LLM ranked for the batch's other sessions, those on the own list left out), ``uniform`` (drawn from all
    items, new in every batch), ``candidates`` (candidates of the same session that the LLM left out of its
    list, or ranked lower). A batch with the list of one session only has no other list, and ``in_batch``
    draws as ``uniform`` does. A pair without a negative (the last candidate) has loss 0.

    Inputs: ``lists`` (B, n), ``candidates`` (B, c). Memory: one (B, n, u) tensor and its gradient for
    ``in_batch``, u <= B n the number of distinct items in ``lists``; (B, n, c) for ``candidates``;
    (B, n, d) for ``uniform``.

    A student that counts learns the same lists and weights as edges (``listed``); there is no negative then.
    """

    needs = frozenset({"lists"})

    def listed(self, batch: DistillBatch) -> tuple[Tensor, Tensor]:
        """The LLM's lists, weighted by ``kd_position_weight``."""
        return batch.lists, position_weights(
            self.context.settings.distill.kd_position_weight, batch.lists.shape[1]
        )

    def forward(self, batch: DistillBatch) -> Tensor:
        distill = self.context.settings.distill
        lists = batch.lists
        weights = position_weights(distill.kd_position_weight, lists.shape[1]).to(lists.device) * (lists > 0)
        session, items = batch.student_session, batch.student_items
        positive = torch.einsum("bd,bnd->bn", session, items[lists])
        loss = {"in_batch": self._in_batch, "uniform": self._uniform, "candidates": self._candidates}[
            distill.kd_negatives
        ](batch, positive, session, items)
        return (weights * loss).sum() / weights.sum().clamp_min(1e-12)

    def _in_batch(self, batch: DistillBatch, positive: Tensor, session: Tensor, items: Tensor) -> Tensor:
        if int((batch.lists > 0).any(1).sum()) < 2:
            return self._uniform(batch, positive, session, items)
        # one column for each distinct item, weighted by how often it is listed:
        # the same sum as over all B n entries
        pool, place, count = torch.unique(batch.lists, return_inverse=True, return_counts=True)
        often = (count * (pool > 0)).to(positive.dtype).expand(len(place), -1).scatter(1, place, 0.0)
        margin = softplus((session @ items[pool].T).unsqueeze(1) - positive.unsqueeze(2))
        return torch.bmm(margin, often.unsqueeze(2)).squeeze(2) / often.sum(1, keepdim=True).clamp_min(1)

    def _uniform(self, batch: DistillBatch, positive: Tensor, session: Tensor, items: Tensor) -> Tensor:
        drawn = torch.randint(1, self.context.n_items, batch.lists.shape, device=batch.lists.device)
        return softplus(torch.einsum("bd,bnd->bn", session, items[drawn]) - positive)

    def _candidates(self, batch: DistillBatch, positive: Tensor, session: Tensor, items: Tensor) -> Tensor:
        lists, candidates = batch.lists, batch.candidates
        scores = torch.einsum("bd,bcd->bc", session, items[candidates])
        same = lists.unsqueeze(2) == candidates.unsqueeze(1)
        # rank of each candidate in the list; n (behind all) where the LLM left it out
        rank = torch.where(same.any(1), same.float().argmax(1), lists.shape[1])
        own = torch.arange(lists.shape[1], device=lists.device)
        allowed = (rank.unsqueeze(1) > own.view(1, -1, 1)) & (candidates > 0).unsqueeze(1)
        margin = softplus(scores.unsqueeze(1) - positive.unsqueeze(2)) * allowed
        return margin.sum(2) / allowed.sum(2).clamp_min(1)

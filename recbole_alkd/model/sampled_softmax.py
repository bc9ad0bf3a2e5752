"""Sampled softmax (``train_loss: sampled_softmax``): the loss of a strong small student,
for every backbone with item vectors.

The softmax over all items is taken over the target and K drawn items that a batch shares; a drawn item stands
for 1 / (K q) of its kind, so log(K q) is taken off its logit (Bengio & Senecal, "Adaptive importance sampling
to accelerate training of a neural probabilistic language model", 2008). q mixes label frequency and the
uniform law. Nothing of the size (B, n_items) is made, and only rows of the tables that a batch looks up get a
gradient.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from recbole_alkd.model.lookups import lookups, sum_of_squares
from recbole_alkd.model.matrices import aligned_matrix
from recbole_alkd.model.view import Backbone
from recbole_alkd.settings.groups import TrainingSettings


class SampledSoftmax:
    """The loss of a batch of training rows under one backbone.

    loss = mean over rows of -log softmax(logits)[target] + softmax_l2 * (sum of squares of the looked-up
    vectors) / B

    Args:
        view: the backbone.
        settings: ``softmax_negatives`` (K), ``softmax_uniform`` (the share of the uniform law in q),
            ``softmax_l2``, ``softmax_dropout`` (the share of a session's items that is left out of the input;
            one always stays).
        targets: (rows,) item ids of all training labels.
        n_items: size of the item table, the padding 0 included.
        sparse: whether gradients of item tables hold the touched rows only (for ``RowAdam``).
    """

    def __init__(
        self, view: Backbone, settings: TrainingSettings, targets: Tensor, n_items: int, sparse: bool
    ) -> None:
        self.view, self.settings, self.targets = view, settings, targets
        self.n_items, self.sparse = n_items, sparse
        frequency = torch.bincount(targets, minlength=n_items) / len(targets)
        uniform = settings.softmax_uniform
        self.log_q = ((1 - uniform) * frequency + uniform / (n_items - 1)).log()

    def __call__(self, interaction: Any) -> Tensor:
        """The loss, a scalar."""
        model, settings = self.view.model, self.settings
        target = interaction[model.POS_ITEM_ID]
        if self.log_q.device != target.device:
            self.log_q, self.targets = self.log_q.to(target.device), self.targets.to(target.device)
        item_seq, length = interaction[model.ITEM_SEQ], interaction[model.ITEM_SEQ_LEN]
        if settings.softmax_dropout:
            item_seq, length = drop_items(item_seq, length, settings.softmax_dropout)
        drawn = self.draw(settings.softmax_negatives)
        squares = bool(settings.softmax_l2)
        with lookups(self.view.model, self.n_items, self.sparse, squares) as inputs:
            session = self.view.encode(item_seq, length)
            outputs = self.view.item_vectors(torch.cat([target, drawn]), self.sparse)
        positive, negative = outputs[: len(target)], outputs[len(target) :]
        loss = sampled_loss(
            session, positive, negative, target, drawn, self.log_q[drawn] + math.log(len(drawn))
        )
        if squares:
            every = torch.stack([sum_of_squares(positive), *inputs.squares])
            loss = loss + settings.softmax_l2 / len(target) * every.sum()
        return loss

    def draw(self, count: int) -> Tensor:
        """``count`` items from q, with replacement, (count,). O(count), whatever the number of items."""
        device = self.targets.device
        label = self.targets[torch.randint(len(self.targets), (count,), device=device)]
        anything = torch.randint(1, self.n_items, (count,), device=device)
        return torch.where(torch.rand(count, device=device) < self.settings.softmax_uniform, anything, label)


class _SampledLoss(torch.autograd.Function):
    """The mean cross entropy and its gradients in one pass over one (B, K) buffer.

    Left to autograd, the same takes a dozen passes over matrices of that size, which is most of the time of a
    step on a CPU.
    """

    @staticmethod
    def forward(
        ctx: Any,
        session: Tensor,
        positive: Tensor,
        negative: Tensor,
        target: Tensor,
        drawn: Tensor,
        log_expected: Tensor,
    ) -> Tensor:
        own = (session * positive).sum(1)
        _, others = aligned_matrix(session, len(session), len(negative))
        torch.addmm(-log_expected, session, negative.T, out=others)
        hits = accidental_hits(target, drawn)
        others[hits] = -torch.inf
        largest = torch.maximum(others.amax(1), own)
        # the largest term is 1, and beside it e^-60 is nothing; results below the normal numbers take exp ten
        # times as long
        others.sub_(largest.unsqueeze(1)).clamp_min_(-60).exp_()
        others[hits] = 0
        own_share = (own - largest).exp_()
        total = others.sum(1).add_(own_share)
        loss = (total.log() + largest - own).mean()
        scale = 1 / (len(target) * total)
        by_own = own_share * scale - 1 / len(target)  # derivative by the target's logit
        others.mul_(scale.unsqueeze(1))  # and by those of the drawn items
        # the few rows (d) on the left: on a CPU these products take a fifth of the time of their transposes
        by_session = (negative.T.contiguous() @ others.T).T + by_own.unsqueeze(1) * positive
        by_negative = (session.T.contiguous() @ others).T
        ctx.save_for_backward(by_session, by_own.unsqueeze(1) * session, by_negative)
        return loss

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        return *(outer[0] * grad for grad in ctx.saved_tensors), None, None, None


def sampled_loss(
    session: Tensor, positive: Tensor, negative: Tensor, target: Tensor, drawn: Tensor, log_expected: Tensor
) -> Tensor:
    """Mean over rows of the cross entropy of the target among itself and the drawn items;
    one derivative only.

    Args:
        session, positive: (B, d), with gradient. negative: (K, d), with gradient.
            target: (B,) and drawn: (K,) item ids.
        log_expected: (K,) log of how often each drawn item is expected among the K;
            it is taken off the item's logit.

    Returns:
        A scalar. A drawn item that is the row's target does not count for that row.
    """
    return _SampledLoss.apply(session, positive, negative, target, drawn, log_expected)


def accidental_hits(target: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns (n,), (n,) where ``target[row] == drawn[column]``, without a matrix of that size."""
    ordered, order = drawn.sort()
    first = torch.searchsorted(ordered, target)
    count = torch.searchsorted(ordered, target, right=True) - first
    row = torch.arange(len(target), device=target.device).repeat_interleave(count)
    within = torch.arange(len(row), device=target.device) - (count.cumsum(0) - count)[row]
    return row, order[first[row] + within]


def drop_items(item_seq: Tensor, item_seq_len: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    """Leave each item out with probability ``rate``, at least one stays: (B, L), (B,) -> the same,
    the rest moved together."""
    place = torch.arange(item_seq.shape[1], device=item_seq.device)
    draw = torch.rand(item_seq.shape, device=item_seq.device).masked_fill(
        place >= item_seq_len.unsqueeze(1), -1
    )
    kept = (draw >= rate) | (draw == draw.amax(1, keepdim=True))
    length = kept.sum(1)
    moved = torch.zeros_like(item_seq)
    return moved.masked_scatter_(place < length.unsqueeze(1), item_seq[kept]), length

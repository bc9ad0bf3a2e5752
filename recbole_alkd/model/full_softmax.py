"""The softmax over all items as a loss (``loss_type: CE``), with one matrix of scores in place of four."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy, nll_loss

from recbole_alkd.model.matrices import aligned_matrix

_AT_ONCE = 1 << 18  # numbers of a piece of the matrix: 1 MiB of float32, which a core's own cache holds
_PLAIN = (torch.float32, torch.float64)


def full_softmax_loss(session: Tensor, table: Tensor, target: Tensor) -> Tensor:
    """``cross_entropy(session @ table.T, target)``, the mean over rows, with its gradients by ``session`` and
    ``table``.

    Left to autograd, the scores, their logarithms, the gradient by those and the one by the scores are
    matrices of their own. Here each takes the place of the one before. On x86 all bits are autograd's.
    ``backward`` may be called once, and there is no second derivative.

    Args:
        session: (B, d) session vectors. table: (n, d) item vectors. target: (B,) of 0 to n - 1.

    Returns:
        A scalar. On other devices than a CPU, under autocast, and for other numbers than float32 and float64,
        torch's own loss.
    """
    plain = session.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    if not plain or session.dtype != table.dtype or table.dtype not in _PLAIN:
        return cross_entropy(session @ table.T, target)
    return _FullLoss.apply(session, table, target)


class _FullLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, session: Tensor, table: Tensor, target: Tensor) -> Tensor:
        whole, scores = aligned_matrix(session, len(session), len(table))
        torch.mm(session, table.T, out=scores)
        whole[:, len(table) :] = -torch.inf  # has no share, and then no gradient
        logs = torch.log_softmax(whole, 1, out=whole)
        ctx.save_for_backward(session, table, target, logs)
        return nll_loss(logs, target)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Any) -> Any:
        session, table, target, logs = ctx.saved_tensors
        by_own = -(outer[0] / len(target))  # of the loss, by the logarithm of the target's share
        step = max(1, _AT_ONCE // logs.shape[1])
        by_logs = logs.new_zeros(min(step, len(target)), logs.shape[1])
        # the derivatives by the scores are written over the logarithms, a piece at a time
        for part, own in zip(logs.split(step), target.unsqueeze(1).split(step), strict=True):
            by_part = by_logs[: len(part)].scatter_(1, own, by_own.expand_as(own))
            torch.ops.aten._log_softmax_backward_data.out(by_part, part, 1, part.dtype, out=part)
            by_part.scatter_(1, own, 0)  # all 0 again, for the next piece
        by_scores = logs[:, : len(table)]
        return by_scores @ table, by_scores.T @ session, None

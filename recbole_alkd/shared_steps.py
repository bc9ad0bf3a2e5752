"""Steps of training that the processes of a run share: each takes a part of the batch's rows, and all make
the same step.

The gradient is the sum over processes of (share of the rows) x (gradient of the mean over them), which is
that of the whole batch wherever a loss is a mean over rows. What looks across the rows of a batch (in-batch
negatives), or draws at random, sees its own part alone. So with such losses, or dropout, several processes
learn other parameters than one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recbole_alkd.processes.group import Group

_NONE, _DENSE, _SPARSE = range(3)  # kinds of gradients, the later ones outdo the earlier


class SharedSteps:
    """The loss of one stage, shared by a group.

    Args:
        loss: of the rows of a RecBole batch; one number, or a tuple of them.
        parameters: those that are trained, in the same order in every process.
    """

    def __init__(self, group: Group, loss: Callable[[Any], Any], parameters: Sequence[nn.Parameter]) -> None:
        self.group, self.loss, self.parameters = group, loss, parameters

    def __call__(self, interaction: Any) -> Any:
        """The loss of the whole batch; ``backward`` leaves the gradients of the whole batch.

        In every process the value is the same to the bit, so that a loss that is no number is one everywhere.
        """
        rows, share = self.group.part(len(interaction))
        losses = self.loss(interaction[rows])
        parts = losses if isinstance(losses, tuple) else (losses,)
        own = torch.stack([part.detach().float() * share for part in parts])
        totals = self.group.added(own.clone())
        # of several numbers any one ends the backward pass for all
        calls = [self.add_gradients, *[None] * (len(parts) - 1)]
        whole = tuple(
            _Whole.apply(part, total, share, call)
            for part, total, call in zip(parts, totals.unbind(), calls, strict=True)
        )
        return whole if isinstance(losses, tuple) else whole[0]

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Replace each parameter's gradient by its sum over the processes."""
        own = torch.tensor([_kind(one.grad) for one in self.parameters])
        kinds = self.group.largest(own).tolist()
        dense = [one for one, kind in zip(self.parameters, kinds, strict=True) if kind == _DENSE]
        if dense:
            flat = torch.cat([
                (torch.zeros_like(one) if one.grad is None else one.grad).flatten() for one in dense
            ])  # fmt: skip
            sums = self.group.added(flat).split([one.numel() for one in dense])
            for one, part in zip(dense, sums, strict=True):
                one.grad = part.view_as(one).clone()
        for one, kind in zip(self.parameters, kinds, strict=True):
            if kind == _SPARSE:
                one.grad = self._sparse_sum(one)

    def _sparse_sum(self, parameter: nn.Parameter) -> Tensor:
        """Of gradients with few rows, as such a gradient."""
        grad = parameter.grad
        if grad is not None and not grad.is_sparse:  # a batch whose other half has no dense part
            grad = grad.to_sparse(1)
        rows, values = _rows_of(grad, parameter)
        counts = [int(one) for one in self.group.side_by_side(torch.tensor([len(rows)], device=rows.device))]
        most = max(counts)
        all_rows = self.group.side_by_side(_padded(rows, most))
        all_values = self.group.side_by_side(_padded(values, most))
        indices = torch.cat([one[:n] for one, n in zip(all_rows, counts, strict=True)])
        content = torch.cat([one[:n] for one, n in zip(all_values, counts, strict=True)])
        return torch.sparse_coo_tensor(
            indices.unsqueeze(0), content, parameter.shape, check_invariants=False
        ).coalesce()


class _Whole(torch.autograd.Function):
    """The loss of the whole batch, with the derivative of a part of it; ``call``, if there is one, is called
    when the whole backward pass is done."""

    @staticmethod
    def forward(
        ctx: Any, part: Tensor, total: Tensor, share: float, call: Callable[[], None] | None
    ) -> Tensor:
        ctx.share, ctx.call = share, call
        return total.to(part.dtype)

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        if ctx.call is not None:
            torch.autograd.Variable._execution_engine.queue_callback(ctx.call)
        return outer[0] * ctx.share, None, None, None


def _kind(grad: Tensor | None) -> int:
    if grad is None:
        return _NONE
    return _SPARSE if grad.is_sparse else _DENSE


def _rows_of(grad: Tensor | None, parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
    """Indices (n,) and values (n, ...) of a sparse gradient, each row once."""
    if grad is None:
        return (
            torch.empty(0, dtype=torch.long, device=parameter.device),
            parameter.new_zeros((0, *parameter.shape[1:])),
        )
    grad = grad.coalesce()
    return grad.indices()[0], grad.values()


def _padded(tensor: Tensor, count: int) -> Tensor:
    out = tensor.new_zeros((count, *tensor.shape[1:]))
    out[: len(tensor)] = tensor
    return out

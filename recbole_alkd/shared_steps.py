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
# a table with at most so many rows for each row that a process sends is added whole: that is one exchange for
# all of them, and no row is looked for twice
_WHOLE = 2


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
        """Replace each parameter's gradient by its sum over the processes.

        What costs is how often they exchange something, more than how much: all gradients go in one exchange,
        and those of large tables, of which few rows have one, in a second.
        """
        for one in self.parameters:
            if one.grad is not None and one.grad.is_sparse:
                one.grad = one.grad.coalesce()
        own = torch.tensor([(_kind(one.grad), _row_count(one.grad)) for one in self.parameters])
        whole, rows = [], []
        for one, (kind, most) in zip(self.parameters, self.group.largest(own).tolist(), strict=True):
            if kind == _SPARSE and len(one) > _WHOLE * self.group.size * most:
                rows.append((one, most))
            elif kind != _NONE:
                whole.append((one, kind == _SPARSE))
        for dtype in dict.fromkeys(one.dtype for one, _ in whole):
            self._add_whole([pair for pair in whole if pair[0].dtype == dtype])
        if rows:
            self._add_rows(rows)

    def _add_whole(self, parameters: Sequence[tuple[nn.Parameter, bool]]) -> None:
        """Of all gradients at once. Those that are sparse (True) bring a mark for each row that they have."""
        sizes = [(one.numel(), len(one) if sparse else 0) for one, sparse in parameters]
        flat = parameters[0][0].new_zeros(sum(map(sum, sizes)))
        parts = flat.split([size for pair in sizes for size in pair])
        places = list(zip(parameters, parts[::2], parts[1::2], strict=True))
        for (one, sparse), part, marks in places:
            if sparse:
                rows, values = _rows_of(one)
                part.view_as(one).index_copy_(0, rows, values)
                marks[rows] = 1
            elif one.grad is not None:
                part.copy_(one.grad.flatten())
        self.group.added(flat)
        for (one, sparse), part, marks in places:
            one.grad = part.view_as(one)
            if sparse:
                rows = marks.nonzero().squeeze(1)
                one.grad = _sparse(rows, one.grad.index_select(0, rows), one)

    def _add_rows(self, parameters: Sequence[tuple[nn.Parameter, int]]) -> None:
        """Of gradients with few rows: at most so many in any process."""
        pieces = []
        for one, most in parameters:
            rows, values = _rows_of(one)
            count = torch.tensor([len(rows)], device=rows.device)
            pieces += [_bytes(count), _bytes(_padded(rows, most)), _bytes(_padded(values, most))]
        sizes = [len(piece) for piece in pieces]
        others = [part.split(sizes) for part in self.group.side_by_side(torch.cat(pieces))]
        for k, (one, most) in enumerate(parameters):
            found = []
            for parts in others:
                count, rows, values = parts[3 * k : 3 * k + 3]
                n = int(count.view(torch.long))
                values = values[: most * one[0].numel() * one.element_size()]  # without what fills it up
                content = values.view(one.dtype).view(most, *one.shape[1:])
                found.append((rows.view(torch.long)[:n], content[:n]))
            all_rows, all_values = (torch.cat(parts) for parts in zip(*found, strict=True))
            one.grad = _sparse(all_rows, all_values, one)


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


def _row_count(grad: Tensor | None) -> int:
    """At most so many rows has a gradient that is sent by rows."""
    if grad is None or not grad.dim():
        return 0
    return len(grad.values()) if grad.is_sparse else len(grad)


def _rows_of(parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
    """Indices (n,) and values (n, ...) of a sparse gradient, each row once."""
    grad = parameter.grad
    if grad is None:
        return (
            torch.empty(0, dtype=torch.long, device=parameter.device),
            parameter.new_zeros((0, *parameter.shape[1:])),
        )
    if not grad.is_sparse:  # a batch whose other half has no dense part
        grad = grad.to_sparse(1)
    grad = grad.coalesce()
    return grad.indices()[0], grad.values()


def _sparse(rows: Tensor, values: Tensor, parameter: nn.Parameter) -> Tensor:
    """The gradient that has these rows; one that comes twice is their sum."""
    made = torch.sparse_coo_tensor(rows.unsqueeze(0), values, parameter.shape, check_invariants=False)
    return made.coalesce()


def _bytes(tensor: Tensor) -> Tensor:
    """As bytes, filled up to whole numbers of eight, so that numbers of any kind may follow."""
    plain = tensor.contiguous().flatten().view(torch.uint8)
    return nn.functional.pad(plain, (0, -len(plain) % 8))


def _padded(tensor: Tensor, count: int) -> Tensor:
    out = tensor.new_zeros((count, *tensor.shape[1:]))
    out[: len(tensor)] = tensor
    return out

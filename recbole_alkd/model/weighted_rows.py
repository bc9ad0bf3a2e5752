"""Weighted sums of rows of an item table on a CPU, with gradients that need no array of every place."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import csc_matrix
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding, embedding_bag

from recbole_alkd.model.lookups import current_lookups
from recbole_alkd.model.row_sums import groups

_PLAIN = (torch.float32, torch.float64)


def weighted_rows(table: nn.Embedding, item_seq: Tensor, weights: Tensor) -> Tensor:
    """(n_items, d) vectors, (B, L) items, (B, L) weights -> the weighted sum of each row's vectors, (B, d).

    Row 0, the padding, has no gradient, and neither have the weights. The result and the gradients are those
    of ``einsum`` over ``table(item_seq)``: sums of the same numbers in the same order. The squares of the
    vectors are noted where a block ``lookups`` wants them.

    Args:
        table: (n_items, d). Its gradient is sparse where ``table.sparse`` says so.
    """
    if item_seq.device.type != "cpu" or table.weight.dtype not in _PLAIN:
        return WeightedSum.apply(weights, table(item_seq))
    seen = current_lookups()
    total, squares = _WeightedRows.apply(table.weight, item_seq, weights, table.sparse, seen.wants_squares)
    if seen.wants_squares:
        seen.squares.append(squares)
    return total


class _WeightedRows(torch.autograd.Function):
    """The sums, and the sum of squares of the vectors that they were made from."""

    @staticmethod
    def forward(
        ctx: Any, table: Tensor, item_seq: Tensor, weights: Tensor, sparse: bool, wants_squares: bool
    ) -> tuple[Tensor, Tensor]:
        vectors = embedding(item_seq, table)
        total = torch.einsum("bl,bld->bd", weights, vectors)
        squares = vectors.square_().sum() if wants_squares else table.new_zeros(())
        ctx.save_for_backward(table, item_seq, weights)
        ctx.sparse, ctx.wants_squares = sparse, wants_squares
        return total, squares

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Any) -> Any:
        table, item_seq, weights = ctx.saved_tensors
        by_total, by_square = outer[0].to(weights.dtype), 2 * outer[1]
        if ctx.wants_squares or ctx.sparse:
            rows, values = _by_rows(table, item_seq, weights, by_total, by_square, ctx.wants_squares)
            if ctx.sparse:
                by_table = torch.sparse_coo_tensor(
                    rows.unsqueeze(0), values, table.shape, is_coalesced=True, check_invariants=False
                )
            else:
                by_table = torch.zeros_like(table).index_copy_(0, rows, values)
        else:
            by_table = _by_table(table, item_seq, weights, by_total)
        return by_table, None, None, None, None


def _by_table(table: Tensor, item_seq: Tensor, weights: Tensor, by_total: Tensor) -> Tensor:
    """The gradient of the whole table, (n_items, d), as a product with the sparse matrix of the places."""
    rows, width = item_seq.shape
    starts = np.arange(0, rows * width + 1, width)
    places = csc_matrix((weights.numpy().ravel(), item_seq.numpy().ravel(), starts), shape=(len(table), rows))
    by_table = torch.from_numpy(places @ by_total.numpy())
    by_table[0] = 0
    return by_table


def _by_rows(
    table: Tensor, item_seq: Tensor, weights: Tensor, by_total: Tensor, by_square: Tensor, squares: bool
) -> tuple[Tensor, Tensor]:
    """The rows that have a gradient, (m,) rising, and their gradients, (m, d).

    The gradient of a place is weight * by_total[row] + by_square * vector, rounded twice, as autograd has it:
    a bag of two rows, of which the second is a product already, is rounded in the same way, with and
    without fused operations.
    """
    flat = item_seq.reshape(-1)
    there = flat.nonzero().squeeze(1)
    rows, order, starts = groups(flat.index_select(0, there))
    there = there.index_select(0, order)
    weight = weights.reshape(-1).index_select(0, there)
    session = there // item_seq.shape[1]
    count = len(there)
    if squares:
        own = table.index_select(0, rows).mul_(by_square)
        which = torch.zeros(count, dtype=torch.long)
        which[starts[1:]] = 1
        session = torch.stack([session, which.cumsum(0).add_(len(by_total))], dim=1)
        weight = torch.stack([weight, torch.ones_like(weight)], dim=1)
        by_total = torch.cat([by_total, own])
    else:
        session, weight = session.unsqueeze(1), weight.unsqueeze(1)
    by_place = embedding_bag(session, by_total, mode="sum", per_sample_weights=weight)
    return rows, embedding_bag(torch.arange(count), by_place, starts, mode="sum")


class WeightedSum(torch.autograd.Function):
    """(B, L), (B, L, d) -> (B, d), with the gradient of the vectors alone.

    Autograd would take it from B matrix products of one column and one row each.
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor, vectors: Tensor) -> Tensor:
        ctx.save_for_backward(weights)
        return torch.einsum("bl,bld->bd", weights, vectors)

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        (weights,) = ctx.saved_tensors
        return None, weights.unsqueeze(2) * outer[0].contiguous().unsqueeze(1)

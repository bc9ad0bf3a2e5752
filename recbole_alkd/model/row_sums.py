"""Gradients of few rows of an item table: those of equal items added up, each row once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


def row_sums(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (m,), ascending, and values (m, ...) of a gradient that is sparse in its first dimension, as
    ``coalesce()`` has them, to the bit.

    On a CPU the values of equal rows are read where they lie, in place of being added up one by one.
    """
    values = gradient._values()
    if gradient.is_coalesced() or values.dim() != 2 or values.device.type != "cpu" or not len(values):
        gradient = gradient.coalesce()
        return gradient.indices()[0], gradient.values()
    items = gradient._indices()[0]
    if bool((items[1:] > items[:-1]).all()):  # each row once already
        return items, values
    rows, order, starts = groups(items)
    return rows, embedding_bag(order, values, starts, mode="sum")


def groups(items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where equal items are: items (n,) -> the different ones, ascending (m,), an order (n,) that brings
    equal ones together, and where each begins in it (m,).

    The order is the one in which ``coalesce()`` adds up.
    """
    ordered, order = items.sort()
    new = torch.ones(len(items), dtype=torch.bool, device=items.device)
    torch.ne(ordered[1:], ordered[:-1], out=new[1:])
    starts = new.nonzero().squeeze(1)
    return ordered.index_select(0, starts), order, starts

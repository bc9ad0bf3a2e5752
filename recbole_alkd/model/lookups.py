"""What a model looks up in its item tables while a loss is computed: for a penalty on those vectors, and for
gradients of those rows alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Lookups:
    """What is wanted of lookups, and what came of it.

    Attributes:
        wants_squares: whether somebody asks for ``squares``.
        squares: the sum of squares of the vectors of each lookup, scalars with gradient.
    """

    wants_squares: bool = False
    squares: list[Tensor] = field(default_factory=list)


_NOBODY = Lookups()
_current: ContextVar[Lookups] = ContextVar("lookups", default=_NOBODY)


def current_lookups() -> Lookups:
    """Those of the block ``lookups`` that is running, for a model that reads its table without
    ``nn.Embedding.forward``: it adds to ``squares`` itself, where they are wanted. Outside of a block nothing
    is wanted."""
    return _current.get()


@contextmanager
def lookups(model: nn.Module, n_items: int, sparse: bool, squares: bool = False) -> Iterator[Lookups]:
    """Watch the lookups in item tables of ``model`` inside of the block; afterwards it is as before.

    Args:
        n_items: an ``nn.Embedding`` with at least so many rows is an item table.
        sparse: whether their gradients are sparse. squares: whether the squares of what is looked up are
            summed.
    """
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding) and m.num_embeddings >= n_items]
    seen = Lookups(squares)
    hooks, before = [], [table.sparse for table in tables]
    for table in tables:
        table.sparse = sparse
        if squares:
            hooks.append(
                table.register_forward_hook(
                    lambda module, args, output: seen.squares.append(sum_of_squares(output))
                )
            )
    token = _current.set(seen)
    try:
        yield seen
    finally:
        _current.reset(token)
        for hook in hooks:
            hook.remove()
        for table, was in zip(tables, before, strict=True):
            table.sparse = was


def sum_of_squares(vectors: Tensor) -> Tensor:
    """``vectors.square().sum()``, with the same gradient in one pass over the vectors instead of four."""
    return _SumOfSquares.apply(vectors)


class _SumOfSquares(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        ctx.save_for_backward(vectors)
        return vectors.square().sum()

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        (vectors,) = ctx.saved_tensors
        return vectors * (2 * outer[0])

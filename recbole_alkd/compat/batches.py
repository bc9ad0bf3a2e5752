"""Training batches without a Python object for every row. Each shim names the line that it cures."""

from __future__ import annotations

from collections.abc import Iterator
from functools import wraps
from typing import Any

import numpy as np


def batches_of_whole_rows() -> None:
    """abstract_dataloader.py:68 has torch ask for the rows of a batch one by one; a batch is now looked up at
    once.

    The rows, their order and what is drawn from the loader's generator are those of torch's own iterator.
    """
    from recbole.data.dataloader import TrainDataLoader

    by_torch = TrainDataLoader.__iter__

    @wraps(by_torch)
    def __iter__(self: TrainDataLoader) -> Iterator[Any]:  # noqa: N807
        begun = by_torch(self)  # which draws a seed for workers, though there are none
        return begun if self.num_workers or not self.config["single_spec"] else batches(self)

    def batches(loader: TrainDataLoader) -> Iterator[Any]:
        rows = np.array(list(loader.sampler), dtype=np.int64)  # to its end, where torch draws once more
        for begin in range(0, len(rows), loader.batch_size):
            yield loader.collate_fn(rows[begin : begin + loader.batch_size])

    TrainDataLoader.__iter__ = __iter__


def rows_as_tensors() -> None:
    """interaction.py:137 makes a list of an array of rows, which each column then makes a tensor of."""
    import torch
    from recbole.data.interaction import Interaction

    by_list = Interaction.__getitem__

    @wraps(by_list)
    def __getitem__(self: Interaction, index: Any) -> Any:  # noqa: N807
        if isinstance(index, np.ndarray) and index.dtype == np.int64 and index.flags.writeable:
            index = torch.from_numpy(index)
        rows = isinstance(index, torch.Tensor) and index.is_cpu and index.ndim == 1 and len(index) > 0
        if not rows or index.dtype not in (torch.int64, torch.bool):
            return by_list(self, index)
        if index.dtype == torch.int64 and index.min() >= 0:  # whole rows are then copied as they lie
            return Interaction(
                {name: column.index_select(0, index) for name, column in self.interaction.items()}
            )
        return Interaction({name: column[index] for name, column in self.interaction.items()})

    Interaction.__getitem__ = __getitem__

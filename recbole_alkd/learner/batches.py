"""Loaders of training rows: over some rows only, and without an end, whose place can be found again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from recbole.data.dataloader import TrainDataLoader
from recbole.data.interaction import cat_interactions
from recbole.utils import init_seed

from recbole_alkd.settings.identity import stage_seed
from recbole_alkd.settings.reading import laid_over


def seed_stage(config: Any, name: str, *loaders: Any, rank: int = 0) -> None:
    """Seed every generator that stage ``name`` draws from, so that a restarted stage repeats itself.

    Args:
        rank: of this process, where several train together: they take the same batches, and draw dropout and
            negatives each for its own rows.
    """
    seed = stage_seed(config["seed"], name)
    init_seed(stage_seed(config["seed"], name, rank) if rank else seed, config["reproducibility"])
    for loader in loaders:
        loader = getattr(loader, "loader", loader)
        if hasattr(loader, "generator"):
            loader.generator.manual_seed(seed)


def row_loader(
    config: Any, train_data: Any, rows: Iterable[int], batch_size: int, backwards: bool = False
) -> TrainDataLoader:
    """RecBole's training loader over some rows of the training part, shuffled.

    Args:
        config: RecBole's Config of the run. train_data: a loader of the training part.
        backwards: with the rows that the sessions of these rows give when they are read from their end.
    """
    return part_loader(config, train_data._dataset, rows, batch_size, backwards)


def part_loader(
    config: Any, dataset: Any, rows: Iterable[int], batch_size: int, backwards: bool = False
) -> TrainDataLoader:
    """``row_loader`` over rows of a part of a data set."""
    own = laid_over(config, {"train_batch_size": batch_size})
    chosen = dataset.inter_feat[torch.as_tensor(np.asarray(rows), dtype=torch.long)]
    if backwards:
        more = dataset.backward_rows()
        chosen = cat_interactions(
            [chosen, more[torch.isin(more[dataset.uid_field], chosen[dataset.uid_field])]]
        )
    return TrainDataLoader(own, dataset.copy(chosen), None, shuffle=True)


class Cycle:
    """One pass over ``loader`` after the other."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self._pass: Iterator[Any] | None = None
        self._begun: Any = None  # the state of the loader's generator before this pass
        self._taken = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._pass is None:
            self._begin()
        assert self._pass is not None
        try:
            batch = next(self._pass)
        except StopIteration:
            self._begin()
            batch = next(self._pass)
        self._taken += 1
        return batch

    def place(self) -> dict[str, Any]:
        """Where it is: what the pass began with, and how many batches of it are taken. Plain data."""
        return {"begun": self._begun, "taken": self._taken}

    def find(self, place: dict[str, Any]) -> None:
        """Go to where ``place`` was; the batches before it are made once more, which decides nothing that
        comes after.
        """
        if place["begun"] is None:
            return
        self.loader.generator.set_state(place["begun"])
        self._begin()
        assert self._pass is not None
        for _ in range(place["taken"]):
            next(self._pass)
        self._taken = place["taken"]

    def _begin(self) -> None:
        generator = getattr(self.loader, "generator", None)
        self._begun = None if generator is None else generator.get_state()
        self._pass, self._taken = iter(self.loader), 0


class CycledBatches(Cycle):
    """``steps`` batches an epoch from a loader that is begun anew whenever it ends."""

    def __init__(self, loader: Any, steps: int) -> None:
        super().__init__(loader)
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.steps):
            yield next(self)

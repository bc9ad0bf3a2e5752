"""RecBole's evaluation, whose batches the processes of a run share.

RecBole pads the rows of each process to one length, takes metrics of each, and weighs them; a padded row
counts twice, and a metric of the whole list (coverage, Gini) is no mean over processes. Here every process
scores some of the batches that one process would score, and all metrics are taken of all rows in their order:
the digits of one process, whatever the metric.
"""

from __future__ import annotations

from typing import Any

import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.trainer import Trainer
from torch import nn

from recbole_alkd.learner.collector import SingleTargetCollector
from recbole_alkd.processes.group import Group
from recbole_alkd.settings.error import AlkdError


class SharedEvaluation(Trainer):
    """RecBole's Trainer with an evaluation that a group shares.

    Attributes:
        group: the processes.
    """

    def __init__(self, config: Any, model: nn.Module, group: Group) -> None:
        super().__init__(config, model)
        self.group = group
        self.eval_collector = SingleTargetCollector(config, group)
        self._own_batches: range | None = None  # of an evaluation that is shared
        self._batch, self._sound = 0, True  # its next batch; whether its scores were numbers

    def check_scores(self, scores: torch.Tensor) -> bool:
        """Whether scores are what they should be."""
        return True

    def scores_diverged(self) -> AlkdError:
        """What is said where they are not."""
        return AlkdError("scores are no numbers")

    def validate(self, valid_data: Any, show_progress: bool = False) -> dict[str, float]:
        """RecBole's metrics of the model, as it stands."""
        return plain_metrics(self.evaluate(valid_data, load_best_model=False, show_progress=show_progress))

    @torch.no_grad()
    def evaluate(
        self,
        eval_data: Any,
        load_best_model: bool = True,
        model_file: Any = None,
        show_progress: bool = False,
    ) -> Any:
        """As RecBole's. A checkpoint is read, and scores of sampled items are taken, by the leader alone."""
        group, how = self.group, (load_best_model, model_file, show_progress)
        if group.size == 1:
            return super().evaluate(eval_data, *how)
        if load_best_model or not isinstance(eval_data, FullSortEvalDataLoader):
            evaluate = super().evaluate
            return group.from_leader(lambda: plain_metrics(evaluate(eval_data, *how)))
        count = len(eval_data)
        self._own_batches = range(*(k * count // group.count for k in (group.rank, group.rank + 1)))
        self._batch, self._sound = 0, True
        try:
            result = super().evaluate(eval_data, *how)
        finally:
            self._own_batches = None
        if group.any(not self._sound):
            raise self.scores_diverged()
        return group.from_leader(lambda: plain_metrics(result))

    def _full_sort_batch_eval(self, batched_data: Any) -> Any:
        if self._own_batches is not None:
            self._batch += 1
            if self._batch - 1 not in self._own_batches:
                return batched_data[0], None, None, None  # another process scores it
        scored = super()._full_sort_batch_eval(batched_data)
        if not self.check_scores(scored[1]):
            if self._own_batches is None:
                raise self.scores_diverged()
            self._sound = False  # all processes say so together, or none
        return scored


def plain_metrics(result: Any) -> dict[str, float]:
    """RecBole's metrics as plain numbers."""
    return {key: float(value) for key, value in result.items()}

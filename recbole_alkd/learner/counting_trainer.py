"""A model that counts, by itself, where RecBole expects a training loop: one pass and one evaluation."""

from __future__ import annotations

from typing import Any

from recbole.trainer import Trainer
from recbole.utils import calculate_valid_score

from recbole_alkd.learner.collector import SingleTargetCollector
from recbole_alkd.learner.counting import count_model
from recbole_alkd.model.counted import CountedModel


class CountingTrainer(Trainer):
    """RecBole trainer of a model that counts and runs by itself."""

    best_valid_result: Any

    def __init__(self, config: Any, model: CountedModel) -> None:
        super().__init__(config, model)
        self.eval_collector = SingleTargetCollector(config)

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Any = None,
    ) -> tuple[float, Any]:
        """Count. Arguments and result as RecBole's ``Trainer.fit``."""
        train_data._dataset.check_catalogue()
        self.eval_collector.data_collect(train_data)
        count_model(self.model, train_data._dataset, valid_data._dataset if valid_data else None, self.logger)
        if valid_data:
            self.best_valid_result = self.evaluate(
                valid_data, load_best_model=False, show_progress=show_progress
            )
            self.best_valid_score = calculate_valid_score(self.best_valid_result, self.valid_metric)
        if saved:
            self._save_checkpoint(0, verbose=verbose)
        if callback_fn:
            callback_fn(0, self.best_valid_score)
        return self.best_valid_score, self.best_valid_result


SessionKNNTrainer = CountingTrainer  # RecBole looks a trainer up by its model's name
fit_table = count_model  # as it was called

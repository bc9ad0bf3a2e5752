"""Fitting SessionKNN where RecBole expects a training loop: one pass of counting, a choice on validation, one evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from logging import Logger
from typing import Any

from recbole.trainer import Trainer
from recbole.utils import calculate_valid_score, dict2str, set_color

from recbole_alkd.model.choosing import Counting
from recbole_alkd.model.edges import EdgeMaker
from recbole_alkd.model.neighbours import table_bytes
from recbole_alkd.model.session_knn import SessionKNN
from recbole_alkd.trainer.collector import SingleTargetCollector
from recbole_alkd.trainer.item_text import ItemText


class SessionKNNTrainer(Trainer):
    """RecBole trainer of ``--model=SessionKNN``."""

    best_valid_result: Any

    def __init__(self, config: Any, model: SessionKNN) -> None:
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
        """Fit the table. Arguments and result as RecBole's ``Trainer.fit``."""
        train_data._dataset.check_catalogue()
        self.eval_collector.data_collect(train_data)
        fit_table(self.model, train_data._dataset, valid_data._dataset if valid_data else None, self.logger)
        if valid_data:
            self.best_valid_result = self.evaluate(valid_data, load_best_model=False, show_progress=show_progress)
            self.best_valid_score = calculate_valid_score(self.best_valid_result, self.valid_metric)
            if verbose:
                self.logger.info(set_color("valid result", "blue") + f": {dict2str(self.best_valid_result)}")
        if saved:
            self._save_checkpoint(0, verbose=verbose)
        if callback_fn:
            callback_fn(0, self.best_valid_score)
        return self.best_valid_score, self.best_valid_result


def choice_words(chosen: Mapping[str, float]) -> str:
    """What validation chose from, what that took, and what it is worth."""
    words = f"chosen on validation from {chosen['tried']:,} settings in {chosen['seconds']:.1f} CPU s ({chosen['valid']:.4f}"
    for key, other in (("over_plain", "plain counting"), ("over_next", "the next best")):
        low, high = chosen[f"{key}_low"], chosen[f"{key}_high"]
        words += f", {chosen[key]:+.4f} [{low:+.4f}, {high:+.4f}] against {other}"
    return words + ", with the whole table)"


def fit_table(
    model: SessionKNN, train: Any, valid: Any, logger: Logger,
    edges: Mapping[str, EdgeMaker] | None = None, text: ItemText | None = None,
) -> dict[str, float]:  # fmt: skip
    """``SessionKNN.fit_table``, and a line in the log that says what came of it.

    Args:
        edges: as ``SessionKNN.fit_table`` has them. Those of ``item_text`` come before them by themselves.
        text: the run's title vectors, where it has some; others are made if the model wants others.

    Returns:
        What ``SessionKNN.fit_table`` chose, and ``edges``, how many the table keeps.
    """
    edges = dict(edges or {})
    if model.text.item_text:
        text = text if text and text.text == model.text else ItemText(model.text, train)
        edges = {"text": text.edges, **edges}
    chosen = model.fit_table(train, valid, edges)
    words = [f"{name.replace('_', ' ')} {chosen[name]:g}" for name in Counting._fields]
    if not math.isnan(chosen["valid"]):
        words.append(choice_words(chosen))
    for name in edges:
        weight, count = chosen[f"{name}_weight"], chosen[f"{name}_edges"]
        words.append(f"{count:,} edges of {name} at weight {weight:g}" + ("" if weight else ", which is none at all"))
    if "refined_epoch" in chosen:
        before, after = chosen["refined_before"], chosen["refined_after"]
        words.append(f"weights refined for {chosen['refined_epoch']} epochs ({before:.4f} -> {after:.4f} on validation)")
    kept, n_items = len(model.indices), model.n_items
    words.append(f"{kept:,} edges kept, {kept / max(1, n_items - 1):.1f} an item, {table_bytes(n_items, kept):,} bytes")
    logger.info(set_color("neighbours", "blue") + ": " + ", ".join(words))
    return {**{key: value for key, value in chosen.items() if not math.isnan(value)}, "edges": kept}

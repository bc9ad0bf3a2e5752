"""Late fusion of titles (``serve_text_dim``): how much they weigh in what a trained student serves,
chosen on validation."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from recbole.utils import calculate_valid_score, set_color

from recbole_alkd.learner.item_text import ItemText
from recbole_alkd.model.alkdrec import ALKDRec
from recbole_alkd.model.text_fusion import title_coordinates


class LateFusion:
    """The titles of a run beside its student.

    Args:
        text: the title vectors; its settings say how many coordinates are served,
            and from which weights is chosen.
        model: the student.
    """

    def __init__(self, text: ItemText, model: ALKDRec) -> None:
        self.text, self.model = text, model
        weight = text.text.serve_text_weight
        self.weights = sorted(weight if isinstance(weight, list) else [weight])

    @cached_property
    def coordinates(self) -> np.ndarray:
        """(n_items, d) float32."""
        assert self.text.text.serve_text_dim is not None
        return title_coordinates(self.text.vectors, self.text.text.serve_text_dim)

    def serve(self, weight: float) -> None:
        """Titles count ``weight`` in the model's scores from now on;
        with 0 nothing is served beside the student."""
        self.model.titles.set(np.float32(weight**0.5) * self.coordinates if weight else None)

    def choose(
        self, trainer: Any, valid_data: Any, plain: dict[str, float] | None, show_progress: bool
    ) -> tuple[dict[str, float] | None, dict[str, float]]:
        """Serve the titles at the weight with the best validation metric, the smallest of equals;
        the middle one without data.

        Args:
            trainer: evaluates the model. valid_data: RecBole's loader, or None.
                plain: metrics of the student by itself.

        Returns:
            The validation metrics as served, and ``serve_text_weight`` and ``serve_text_dim`` that are served
            (0: nothing is).
        """
        weight, valid, tried = self.weights[len(self.weights) // 2], plain, {}
        if valid_data:
            for one in self.weights:
                self.serve(one)
                tried[one] = trainer.validate(valid_data, show_progress)
            sign = 1 if trainer.valid_metric_bigger else -1
            weight = max(
                tried, key=lambda one: (sign * calculate_valid_score(tried[one], trainer.valid_metric), -one)
            )
            valid = tried[weight]
        self.serve(weight)
        size = self.coordinates.shape[1] if weight else 0
        gains = ", ".join(
            f"{one:g}: {calculate_valid_score(metrics, trainer.valid_metric):.4f}"
            for one, metrics in tried.items()
        )
        words = f"titles at weight {weight:g}" + ("" if weight else ", which leaves them out")
        words += f" ({trainer.valid_metric} on validation by weight: {gains})" if gains else ""
        trainer.logger.info(set_color("late fusion", "blue") + f": {words}, {size} coordinates")
        return valid, {"serve_text_weight": float(weight), "serve_text_dim": float(size)}

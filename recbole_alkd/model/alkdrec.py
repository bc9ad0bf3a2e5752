"""ALKDRec as a RecBole model: the student, and empty slots for what only its training needs.

Du et al., "Active Large Language Model-based Knowledge Distillation for Session-based Recommendation" (AAAI
2025). The teacher recommender and the LLM teacher live in the trainer, outside of this module, so that what
is saved, counted and served is the student alone.
"""

from __future__ import annotations

from typing import Any

from recbole.utils import InputType
from torch import Tensor, nn

from recbole_alkd.model.backbone import SessionRecommender
from recbole_alkd.model.text_fusion import TextFusion, TextTable
from recbole_alkd.settings.reading import settings_of

SLOTS = ("kd", "item_loss")


class ALKDRec(SessionRecommender):
    """The student recommender.

    ``kd`` holds the distillation loss (with its extra parameters, if it has any) while the student is
    distilled, and None before and after; ``item_loss`` the term of ``item_text_loss`` wherever it learns by
    its recommendation loss. Neither is saved. ``titles`` is what late fusion serves beside the student's
    vectors; it is saved, where there is something in it.
    """

    input_type = InputType.POINTWISE

    def __init__(self, config: Any, dataset: Any) -> None:
        settings = settings_of(config)
        super().__init__(config, dataset, settings, "student")
        self.kd: nn.Module | None = None
        self.item_loss: nn.Module | None = None
        self.titles = TextTable(self.n_items)
        self._serve_titles()

    def build(self, *how: Any) -> None:
        super().build(*how)
        if hasattr(self, "titles"):  # a student that is built anew
            self.titles.set(None)
            self._serve_titles()

    def _serve_titles(self) -> None:
        if self.view.has_vectors:
            self.served = TextFusion(self.view, self.titles)

    def calculate_loss(self, interaction: Any) -> Tensor:
        """The recommendation loss, with what titles say beside it."""
        loss = self.own_loss(interaction)
        return loss if self.item_loss is None else loss + self.item_loss(interaction)

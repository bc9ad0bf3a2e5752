"""ALKDRec as a RecBole model: the student, and an empty slot for what distillation needs while it trains.

Du et al., "Active Large Language Model-based Knowledge Distillation for Session-based Recommendation" (AAAI 2025).
The teacher recommender and the LLM teacher live in the trainer, outside of this module, so that what is saved, counted
and served is the student alone.
"""

from __future__ import annotations

from typing import Any

from recbole.utils import InputType
from torch import nn

from recbole_alkd.config import FIELDS, read_settings
from recbole_alkd.model.backbone import SessionRecommender


class ALKDRec(SessionRecommender):
    """The student recommender.

    ``kd`` holds the distillation loss (with its extra parameters, if it has any) while the student is distilled, and
    None before and after.
    """

    input_type = InputType.POINTWISE

    def __init__(self, config: Any, dataset: Any) -> None:
        settings = read_settings({key: config[key] for key in FIELDS if key in config})
        super().__init__(config, dataset, settings, "student")
        self.kd: nn.Module | None = None

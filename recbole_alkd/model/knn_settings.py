"""What the settings of SessionKNN take. Their defaults, and what they are for,
stand in ``properties/model/SessionKNN.yaml``."""

from __future__ import annotations

import math
from typing import Any

from recbole_alkd.settings.field import NO_DEFAULT, Field, at_least, is_a, words


def numbers(largest: float, null: bool = False) -> Field:
    """A number, or a list of numbers from which validation chooses; ``null``: or ~."""

    def good(value: Any) -> bool:
        values = value if isinstance(value, list) else [value]
        return bool(values) and all(
            is_a(v, int, float) and 0 <= v <= largest and v != math.inf for v in values
        )

    span = "of at least 0" if largest == math.inf else f"from 0 to {largest:g}"
    return Field(
        NO_DEFAULT, (float, list), null=null, check=words(f"a number {span}, or a list of such numbers", good)
    )


SETTINGS = {
    "knn_backward": numbers(1),
    "knn_gap_decay": numbers(1),
    "knn_repeat": numbers(math.inf),
    "knn_source_exponent": numbers(math.inf),
    "knn_target_exponent": numbers(math.inf),
    "knn_decay": numbers(math.inf),
    "knn_edge_weight": numbers(math.inf),
    "knn_list_backward": numbers(1),
    "knn_last_items": Field(NO_DEFAULT, int, check=at_least(1)),
    "knn_spread": numbers(2, null=True),
    "knn_refine_epochs": Field(NO_DEFAULT, int, check=at_least(0)),
}


def as_list(value: float | list[float]) -> list[float]:
    """A setting that is one number or a list of numbers, as a list without repeats."""
    return list(dict.fromkeys(value if isinstance(value, list) else [value]))

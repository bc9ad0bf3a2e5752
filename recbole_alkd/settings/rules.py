"""What single settings allow beyond a type and a range."""

from __future__ import annotations

from typing import Any

from recbole_alkd.settings.field import is_a, words


def is_vector_file(item_text: str) -> bool:
    """Whether ``item_text`` names a file with vectors of the user's own, and no encoder."""
    return item_text.endswith(".npy")


def _is_ratio(value: Any) -> bool:
    if value == "pilot":
        return True
    good = isinstance(value, list) and len(value) == 3 and all(is_a(v, int, float) and v >= 0 for v in value)
    return good and sum(value) > 0


def _is_position_weight(value: Any) -> bool:
    if not value or not all(
        isinstance(v, list) and len(v) == 2 and is_a(v[0], int) and is_a(v[1], int, float) for v in value
    ):
        return False
    ends = [v[0] for v in value]
    return ends[0] >= 1 and ends == sorted(set(ends)) and all(v[1] >= 0 for v in value)


def _are_weights(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(is_a(v, int, float) and 0 <= v < float("inf") for v in values)


def _are_names(value: Any) -> bool:
    return bool(value) and all(isinstance(v, str) and v for v in value)


def _are_sizes(value: Any) -> bool:
    return all(is_a(v, int) and v >= 1 for v in value) and len(set(value)) == len(value)


RATIO = words("three numbers >= 0 that are not all 0 (effective, similar, incorrect), or pilot", _is_ratio)
POSITION_WEIGHT = words(
    "pairs [last position, weight] with rising positions >= 1 and weights >= 0, such as [[5, 3], [15, 2], "
    "[25, 1]]",
    _is_position_weight,
)
WEIGHTS = words("a number of at least 0, or a list of such numbers", _are_weights)
NAMES = words("a list of names, at least one", _are_names)
FOLDER_OR_FALSE = words("a folder, or False", lambda value: value is not True and value != "")
SIZES = words("a list of different integers of at least 1, such as [10]", _are_sizes)

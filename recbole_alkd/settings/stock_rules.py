"""What single settings of RecBole's allow beyond a type and a range: None, or what is allowed, in words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from recbole_alkd.settings.nearest import hint

_INTERVAL = re.compile(
    r"[\[(]\s*([-+]?(?:inf|[\d.]+(?:e[-+]?\d+)?))\s*,\s*([-+]?(?:inf|[\d.]+(?:e[-+]?\d+)?))\s*[\])]", re.I
)
_GPUS = re.compile(r"(-1|\d+|(GPU|MIG)-[\w-]+)(\s*,\s*(\d+|(GPU|MIG)-[\w-]+))*|")


def topk(value: Any) -> str | None:
    values = value if isinstance(value, list) else [value]
    good = bool(values) and all(isinstance(v, int) and not isinstance(v, bool) and v >= 1 for v in values)
    return None if good else "an integer of at least 1, or a list of such integers"


def texts(value: Any) -> str | None:
    good = isinstance(value, str) or (bool(value) and all(isinstance(v, str) and v for v in value))
    return None if good else "a list of names, at least one"


def metrics(value: Any) -> str | None:
    from recbole.evaluator import metric_types, metrics_dict

    values = [value] if isinstance(value, str) else value
    names = [metrics_dict[name].__name__ for name in sorted(metrics_dict)]
    if not values:
        return f"a list of {', '.join(names)}"
    for name in values:
        if not isinstance(name, str) or name.lower() not in [n.lower() for n in names]:
            return f"{', '.join(names)}{hint(str(name), names)}"
    kinds = {metric_types[name.lower()] for name in values}
    return (
        None
        if len(kinds) == 1
        else "metrics of rankings, or metrics of scores (AUC, MAE, RMSE, LogLoss), not both at once"
    )


def interval_words(value: str) -> str | None:
    """What RecBole takes for intervals, in words, where ``value`` is none; else None."""
    for part in value.split(";"):
        match = _INTERVAL.fullmatch(part.strip())
        try:
            good = bool(match) and float(match[1]) <= float(match[2])  # type: ignore[index]
        except ValueError:
            good = False
        if not good:
            return "intervals such as [5,inf) or (0,1];[3,4), their lower end first"
    return None


def gpus(value: Any) -> str | None:
    good = _GPUS.fullmatch(gpu_text(value).strip())
    return None if good else "numbers of GPUs, such as 0 or 0,1, or an empty text for the CPU"


def gpu_text(value: Any) -> str:
    """``gpu_id`` as CUDA_VISIBLE_DEVICES has it."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def eval_args(value: dict[Any, Any]) -> str | None:
    for key in value:
        if key not in ("split", "order", "group_by", "mode"):
            return "the keys split, order, group_by and mode" + hint(
                str(key), ("split", "order", "group_by", "mode")
            )
    split = value.get("split", {"LS": "valid_and_test"})
    ways: dict[str, Callable[[Any], bool]] = {
        "RS": _ratios,
        "LS": lambda v: v in ("valid_and_test", "valid_only", "test_only"),
    }
    if (
        not isinstance(split, dict)
        or len(split) != 1
        or not all(key in ways and ways[key](split[key]) for key in split)
    ):
        return (
            "split {RS: [0.8, 0.1, 0.1]}, three numbers (train, valid, test), or {LS: "
            "valid_and_test | valid_only | test_only}"
        )
    if value.get("order", "RO") not in ("RO", "TO"):
        return "order RO or TO"
    if value.get("group_by", "user") not in ("user", "none", None):
        return "group_by user or none"
    mode = value.get("mode", "full")
    modes = mode if isinstance(mode, dict) else {"valid": mode}
    good = bool(modes) and all(
        key in ("valid", "test") and isinstance(v, str) and re.fullmatch(r"full|labeled|(uni|pop)[1-9]\d*", v)
        for key, v in modes.items()
    )
    return None if good else "mode full, labeled, uniN or popN (N negatives), or {valid: ..., test: ...}"


def _ratios(value: Any) -> bool:
    numbers = isinstance(value, list) and len(value) == 3
    numbers = numbers and all(
        isinstance(v, (int, float)) and not isinstance(v, bool) and 0 <= v < float("inf") for v in value
    )
    return bool(numbers and value[0] > 0)


def clip(value: dict[Any, Any]) -> str | None:
    allowed = ("max_norm", "norm_type", "error_if_nonfinite", "foreach")  # of torch.nn.utils.clip_grad_norm_
    return (
        None
        if "max_norm" in value and all(key in allowed for key in value)
        else "max_norm, and perhaps norm_type, as keys"
    )

"""What RecBole's settings must have of each other, before anything is read or trained."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.stock import check_value

# metrics at K that are no TopkMetric to RecBole
_AT_K = ("itemcoverage", "averagepopularity", "shannonentropy", "giniindex", "tailpercentage")


def check_values(values: Mapping[str, Any]) -> None:
    """``check_value`` of all, and what RecBole's settings must have of each other: a metric that is measured
    to choose by, metrics that fit the mode of evaluation, packages that are there."""
    from recbole.evaluator import metric_types
    from recbole.utils import EvaluatorType

    for key, value in values.items():
        check_value(key, value)
    check_valid_metric(values)
    names = values["metrics"] if isinstance(values["metrics"], list) else [values["metrics"]]
    mode = values["eval_args"].get("mode", "full")
    if metric_types[names[0].lower()] == EvaluatorType.VALUE and "full" in (
        mode.values() if isinstance(mode, dict) else (mode,)
    ):
        raise AlkdError(
            f"metrics: {names} need labelled rows and eval_args mode is full; "
            "allowed: metrics of rankings, such as NDCG"
        )
    if values.get("log_wandb") and importlib.util.find_spec("wandb") is None:
        raise AlkdError("log_wandb: True needs wandb, not installed here; install with: pip install wandb")


def check_valid_metric(values: Mapping[str, Any]) -> None:
    """AlkdError where ``valid_metric`` is none of what ``metrics`` at ``topk`` give."""
    from recbole.evaluator import metrics_dict
    from recbole.evaluator.base_metric import TopkMetric

    chosen = values.get("valid_metric")
    if not chosen:
        return
    names = values["metrics"] if isinstance(values["metrics"], list) else [values["metrics"]]
    ks = values["topk"] if isinstance(values["topk"], list) else [values["topk"]]
    measured = []
    for name in names:
        at_k = issubclass(metrics_dict[name.lower()], TopkMetric) or name.lower() in _AT_K
        measured += [f"{name}@{k}" for k in ks] if at_k else [name]
    if chosen.lower() not in [name.lower() for name in measured]:
        raise AlkdError(
            f"valid_metric: {chosen!r} is not measured with metrics {names} and topk {ks}; "
            f"allowed: {', '.join(measured)}"
        )

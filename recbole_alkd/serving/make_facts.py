"""What the manifest of a bundle tells of the run that its student comes from: settings, metrics, bill."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from recbole_alkd.model.scoring import METRICS, gains

# settings that say where things lie on the machine of the run, and nothing about the student
_PLACES = {
    "label_store", "llm_base_url", "llm_api_key_env", "ray_address", "stage_cache", "alkd_picks",
    "alkd_plugins", "item_text_file",
}  # fmt: skip


def facts_of(train: Any, report: Mapping[str, Any] | None, ranks: np.ndarray | None) -> dict[str, Any]:
    """What a manifest tells of the run."""
    config = train.config
    sessions = len(np.unique(train.inter_feat[train.uid_field].numpy()))
    facts: dict[str, Any] = {
        "dataset": {"name": config["dataset"], "training_sessions": sessions, "items": train.item_num - 1},
        "limits": [
            "Items without a click in training come last; the catalogue is that of the training data.",
            "Nothing is known of users: a session is all that it looks at.",
            "Metrics are of one training on one split; another seed can come out differently.",
        ],
    }
    if report:
        settings = {key: value for key, value in report["settings"].items() if key not in _PLACES}
        facts |= {
            "settings": settings,
            "metrics": _metrics(report, ranks),
            "comparison": report.get("comparison"),
            "bill": {
                key: value for key, value in report["labels"].items() if not isinstance(value, (list, dict))
            },
        }
    return json.loads(json.dumps(facts, default=str))


def _metrics(report: Mapping[str, Any], ranks: np.ndarray | None) -> dict[str, Any]:
    """Test metrics of the distilled student; with its ranks also the ends of their 95 % intervals over
    sessions."""
    metrics = {}
    for name, value in report["stages"]["distilled"]["test"].items():
        metrics[name] = {"value": value}
        if ranks is not None and name.partition("@")[0] in METRICS:
            gain = gains(ranks, name)
            spread = 1.96 * float(gain.std(ddof=1)) / len(gain) ** 0.5 if len(gain) > 1 else 0.0
            metrics[name] |= {
                "low": round(value - spread, 4),
                "high": round(value + spread, 4),
                "sessions": len(gain),
            }
    return metrics

"""The card of a bundle, ``README.md``, in the form of Hugging Face's model cards
(https://huggingface.co/docs/hub/model-cards).

The head is YAML, every value of it written as JSON, which YAML reads: names of data sets and models are other
people's text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def card(content: Mapping[str, Any]) -> str:
    """The card from the manifest."""
    student, data = content["student"], content["dataset"]
    metrics = content.get("metrics") or {}
    head = {
        "library_name": "recbole_alkd",
        "tags": [
            "recommendation",
            "session-based-recommendation",
            "knowledge-distillation",
            student["backbone"],
        ],
        "model-index": [_index(student, data, metrics)] if metrics else [],
    }
    name, backbone = _text(data["name"]), _text(student["backbone"])
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items() if value), "---", ""]
    lines += [
        f"# {backbone} on {name}", "",
        "A session recommender: it takes the items of a session, oldest first, and gives the items that come "
        f"next. A {backbone} student of {student['items']:,} items, trained on {data['training_sessions']:,} "
        f"sessions of {name}.", "",
        "## Use", "",
        "```python", "from recbole_alkd.serving import Recommender", "",
        'recommender = Recommender.load("this-folder")',
        'recommender.recommend(["an item id", "another"], k=10)', "```", "",
        "It is meant for recommending items of this catalogue to visitors of the site that the sessions come "
        "from, or one like it. "
        "It is not meant for decisions about people.", "",
    ]  # fmt: skip
    lines += ["## How good it is", "", *_table(metrics), *_verdict(content.get("comparison")), ""]
    if updates := content.get("updates"):
        more = sum(update["sessions"] for update in updates)
        lines += [f"That was measured before {more:,} sessions were added, and not again since.", ""]
    lines += ["## What it cost", "", *_bill(content.get("bill")), "", "## Limits", ""]
    lines += [f"- {limit}" for limit in content.get("limits", [])]
    lines += [f"- A session is cut to its newest {student['max_length']} known items.", ""]
    return "\n".join(lines)


def _index(student: Mapping[str, Any], data: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    measured = [{"type": metric, "value": entry["value"]} for metric, entry in metrics.items()]
    result = {
        "task": {"type": "other", "name": "session-based recommendation"},
        "dataset": {"name": data["name"], "type": data["name"]}, "metrics": measured,
    }  # fmt: skip
    return {"name": f"{student['backbone']}-{data['name']}", "results": [result]}


def _table(metrics: Mapping[str, Any]) -> list[str]:
    if not metrics:
        return ["Not measured: it was exported without the report of a run."]
    rows = ["| test metric | value | 95 % interval over sessions |", "|---|---|---|"]
    for name, entry in metrics.items():
        ends = f"{entry['low']:.4f} to {entry['high']:.4f}" if "low" in entry else "-"
        rows.append(f"| {name} | {entry['value']:.4f} | {ends} |")
    return rows


def verdict_words(comparison: Any) -> str:
    """What a run showed of its distilled student, in one sentence: the difference, its interval, the verdict.

    Empty where nothing was compared, or where the manifest, which others can edit, holds something else.
    """
    if not isinstance(comparison, Mapping):
        return ""
    try:
        numbers = {name: float(comparison[name]) for name in ("difference", "low", "high")}
        sessions, against = int(comparison["sessions"]), comparison["against"]
        metric = "@".join(_text(part) for part in str(comparison["metric"]).split("@"))
        verdict = _text(comparison["verdict"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return ""
    if not all(map(math.isfinite, numbers.values())):
        return ""
    rival = (
        "the same student trained as long without labels" if against == "student_longer" else _text(against)
    )
    measured = "{difference:+.4f} [{low:+.4f}, {high:+.4f}]".format(**numbers)
    return f"Against {rival}: {metric} {measured}: {verdict} on {sessions:,} test sessions."


def _verdict(comparison: Any) -> list[str]:
    words = verdict_words(comparison)
    return ["", words] if words else []


def _bill(bill: Mapping[str, Any] | None) -> list[str]:
    if not bill:
        return ["No labels are on record."]
    paid = bill.get("usd")  # ``labels.cost.money``, which stands in a room that a bundle does without
    usd = "nothing to pay" if paid == 0 else "no USD price" if paid is None else f"{paid:.4f} USD"
    if bill.get("origin") and not (paid or bill["prompt_tokens"] or bill["completion_tokens"]):
        made = f"{bill['asked']:,} labels {_text(bill['origin'])}, {bill['reused']:,} reused"
        return [f"{made}. No LLM was asked."]
    tokens = f"{bill['prompt_tokens']:,} prompt and {bill['completion_tokens']:,} completion tokens"
    return [
        f"{bill['asked']:,} labels of an LLM asked, {bill['reused']:,} reused; {tokens}, "
        f"{bill['seconds']:,.1f} s, {usd}."
    ]


def _text(value: Any) -> str:
    """A name in prose, without what Markdown or HTML would take for markup."""
    return "".join(char if char.isalnum() or char in " .-_" else " " for char in str(value))

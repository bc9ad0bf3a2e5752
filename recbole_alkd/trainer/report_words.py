"""What a run says at its end: the table of stages, the bill, and the same as data."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from texttable import Texttable

from recbole_alkd.active.certificate import certificate_words
from recbole_alkd.labels.cost import money
from recbole_alkd.learner.stage_names import STAGES, stage_words
from recbole_alkd.learner.table_rows import table_words
from recbole_alkd.llm.adapters import rank_words, why_unused
from recbole_alkd.model.baselines import KINDS


class TestResult(OrderedDict):  # type: ignore[type-arg]
    """The distilled student's test metrics, as RecBole returns them, with the run's whole report
    beside them."""

    __test__ = False  # no test class, whatever its name
    report: dict[str, Any]


def row_words(baselines: Iterable[str] = ()) -> dict[str, str]:
    """Row of the table -> what it is called there: the stages, then the recommenders beside them."""
    return STAGES | {name: KINDS.get(name) or table_words(name) for name in baselines}


def stage_table(stages: Mapping[str, Mapping[str, Any]], part: str) -> str:
    """The table of one part ("valid" or "test"): a row a stage or recommender without training,
    a column a metric."""
    metrics = list(stages["distilled"][part] or {})
    table = Texttable(max_width=0)
    table.set_deco(Texttable.HEADER)
    table.set_cols_dtype(["t"] * (len(metrics) + 2))
    table.set_cols_align(["l", "r"] + ["r"] * len(metrics))
    table.header([part, "parameters", *metrics])
    for name, words in row_words(name for name in stages if name not in STAGES).items():
        values = stages[name][part]
        shown = (f"{values[metric]:.4f}" if metric in values else "-" for metric in metrics)
        table.add_row([words, f"{stages[name]['parameters']:,}", *shown])
    return table.draw()


def times_table(
    stages: Mapping[str, Mapping[str, Any]],
    labels: Mapping[str, Any],
    lora: Mapping[str, Any] | None,
    seconds: float,
) -> str:
    """What the parts of a run took, in the order in which they ran. ``seconds``: the run, from its begin."""
    table = Texttable(max_width=0)
    table.set_deco(Texttable.HEADER)
    table.set_cols_dtype(["t"] * 4)
    table.set_cols_align(["l", "r", "r", "r"])
    table.header(["stage", "epochs", "best", "time"])
    asked = [("labels", labels)] + ([("LoRA", lora)] if lora else [])
    for name, words in STAGES.items():
        if name == "student_longer":
            continue
        if name == "distilled":
            for what, took in asked:
                table.add_row([what, "", "", f"{took['seconds']:,.1f} s"])
        for one in (name, "student_longer") if name == "distilled" else (name,):
            took = stages[one]
            cells = [f"{took['epochs']}", f"{took['best_epoch']}", f"{took['seconds']:,.1f} s"]
            table.add_row([words if one == name else STAGES[one], *cells])
    table.add_row(["this run, with all else", "", "", f"{seconds:,.1f} s"])
    return table.draw()


def bill_lines(
    labels: Mapping[str, Any],
    lora: Mapping[str, Any] | None,
    policy: Mapping[str, Any],
    name: str,
    text: Mapping[str, Any] | None = None,
) -> list[str]:
    """The bill and the certificate in words."""
    whole, unit = labels["all_sessions"], labels.get("unit", "session")
    all_cost = (whole["tokens"], round(whole["seconds"]), whole["usd"] or 0)
    tokens = labels["prompt_tokens"], labels["completion_tokens"]
    free = "origin" in labels and not any((*tokens, labels["usd"]))
    made = f"{labels['origin']}, no LLM asked" if free else "asked"
    words = (
        f"labels: {labels['asked']} {made}, {labels['reused']} reused, {labels['failed']} failed, "
        f"{labels['repaired']} repaired"
    )
    if not free:
        words += (
            f"; {tokens[0]:,} prompt + {tokens[1]:,} completion tokens, {labels['seconds']:.1f} s, "
            f"{money(labels['usd'])}"
        )
    lines = [words]
    if any(all_cost) and not free:
        lines.append(
            f"labelling all {whole['sessions']:,} {unit}s of the pool would have cost about "
            f"{whole['tokens']:,} tokens, {whole['seconds']:,.0f} s, {money(whole['usd'])}"
        )
    if lora:
        kind = (
            "recorded rankings imitated"
            if lora.get("imitated")
            else f"target found by the recommender in {lora['natural']}, inserted in {lora['inserted']}"
        )
        lines.append(
            f"LoRA: {lora['examples']} examples ({kind}), {lora['steps']} steps, "
            f"loss {lora['loss_first']:.3f} -> "
            f"{lora['loss_last']:.3f}, {lora['seconds']:.1f} s"
            + (" (adapter of an earlier run)" if lora.get("reused") else "")
        )
    if lora and lora.get("ranks"):
        lines.append(f"LoRA: {rank_words(lora['ranks'])}")
    if lora and not lora.get("used", True):
        lines.append(f"LoRA: the adapter is not used: {why_unused(lora)}")
    if text:
        earlier = " (by an earlier run)" if text["reused"] else ""
        lines.append(
            f"titles: {text['item_text']}, {text['tokens']:,} tokens read once, "
            f"{text['seconds']:.1f} s{earlier}"
        )
    if policy["value"] is not None:
        lines.append(
            f"policy {name}: {certificate_words(policy)}; "
            f"it draws from {policy['support']:,} of {whole['sessions']:,} {unit}s"
        )
    return lines


def settings_in_words(values: Mapping[str, Any]) -> str:
    return (
        ", ".join(f"{key} {'~' if value is None else value}" for key, value in values.items())
        or "the run's own settings"
    )


def tuned_line(stage: str, report: Mapping[str, Any]) -> str:
    """What ``student_tune`` chose for a stage, in a line."""
    tried, best = report["tried"], report["tried"][report["won"]]
    return (
        f"{stage_words(stage)}: {len(tried)} settings tried in {report['seconds']:.1f} s; "
        f"best on validation: {settings_in_words(best['settings'])} ({report['metric']} {best['valid']:.4f}; "
        f"the run's own {tried[0]['valid']:.4f})"
    )

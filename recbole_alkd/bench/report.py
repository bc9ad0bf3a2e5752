"""The report of a plan: results.csv, results.md, report.html, and a figure as PNG and PDF."""

from __future__ import annotations

import csv
import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recbole_alkd.bench.page import page
from recbole_alkd.bench.plan import Plan
from recbole_alkd.bench.runs import Outcome, Result
from recbole_alkd.bench.statistics import Comparison, compare, holm
from recbole_alkd.config import AlkdError, stage_seed
from recbole_alkd.trainer.ranks import gains

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Row:
    """One arm in one table.

    Attributes:
        values: metric -> its value for every finished seed. comparison: metric -> against the reference (not for itself).
        seconds: mean wall time of the stage itself. labels, tokens, usd: means over seeds of what its labels took.
    """

    name: str
    words: str
    values: dict[str, np.ndarray]
    comparison: dict[str, Comparison]
    parameters: int
    seconds: float
    labels: float
    tokens: float
    usd: float | None


@dataclass(frozen=True)
class Table:
    """All arms of one data set and backbone."""

    dataset: str
    backbone: str
    rows: list[Row]
    sessions: int


def write_report(plan: Plan, outcome: Outcome, out: Path) -> str:
    """Write every file of the report into ``out`` and give back the summary in words."""
    tables = make_tables(plan, outcome.results)
    words = summary(plan, tables)
    _write_csv(plan, outcome.results, out / "results.csv")
    failed = [f"{task}: {reason}" for task, reason in outcome.failed.items()]
    (out / "results.md").write_text(markdown(plan, tables, words, failed), encoding="utf-8")
    figures = [draw(plan, table, out / "figures") for table in tables]
    (out / "report.html").write_text(page(plan, tables, words, failed, figures, HEADER, cells, method(plan)), encoding="utf-8")
    return words


def make_tables(plan: Plan, results: Sequence[Result]) -> list[Table]:
    """Compare every arm with the reference. Holm's correction is over the arms of one table, for every metric by itself."""
    tables = []
    for dataset in plan.datasets:
        for backbone in plan.backbones:
            mine = [r for r in results if (r.task.dataset, r.task.backbone) == (dataset, backbone)]
            of_arm = {arm.name: {r.task.seed: r for r in mine if r.task.arm.name == arm.name} for arm in plan.arms}
            reference = of_arm[plan.reference]
            rows = [_row(plan, arm.name, arm.words, of_arm[arm.name], reference) for arm in plan.arms if of_arm[arm.name]]
            for metric in plan.metrics:
                compared = [row for row in rows if metric in row.comparison]
                for row, p in zip(compared, holm([row.comparison[metric].p for row in compared]), strict=True):
                    row.comparison[metric] = replace(row.comparison[metric], p_holm=p)
            if rows:
                tables.append(Table(dataset, backbone, rows, len(mine[0].test)))
    return tables


def _row(plan: Plan, name: str, words: str, runs: dict[int, Result], reference: dict[int, Result]) -> Row:
    seeds = [seed for seed in runs if seed in reference]
    comparison = {}
    if name != plan.reference and seeds:
        for seed in seeds:
            if not np.array_equal(runs[seed].sessions, reference[seed].sessions):
                raise AlkdError(f"{name} and {plan.reference} were evaluated on different sessions (seed {seed})")
        crossed = all(np.array_equal(runs[seed].sessions, runs[seeds[0]].sessions) for seed in seeds)
        for metric in plan.metrics:
            ours, theirs = ([gains(run[seed].test, metric) for seed in seeds] for run in (runs, reference))
            comparison[metric] = compare(ours, theirs, crossed, np.random.default_rng(stage_seed(0, name, metric)))
    facts = [run.facts for run in runs.values()]
    bills = [fact.get("labels") or {} for fact in facts]
    prices = [bill["usd"] for bill in bills if bill.get("usd") is not None]
    return Row(
        name, words,
        {metric: np.array([gains(run.test, metric).mean() for run in runs.values()]) for metric in plan.metrics},
        comparison, int(facts[0]["parameters"]), float(np.mean([fact["seconds"] for fact in facts])),
        labels=float(np.mean([bill.get("asked", 0) + bill.get("reused", 0) for bill in bills])),
        tokens=float(np.mean([bill.get("prompt_tokens", 0) + bill.get("completion_tokens", 0) for bill in bills])),
        usd=float(np.mean(prices)) if prices else None,
    )  # fmt: skip


HEADER = (
    "arm", "metric", "mean", "std", "difference", "95 % interval", "p (Holm)", "detectable", "verdict", "parameters", "labels",
)  # fmt: skip


def cells(row: Row, metric: str) -> list[tuple[str, Any]]:
    """The columns of ``HEADER``: what is shown, and what a column is sorted by."""
    values, found = row.values[metric], row.comparison.get(metric)
    std = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    shown: list[tuple[str, Any]] = [(row.words, row.words), (metric, metric), _number(values.mean()), _number(std)]
    if found is None:
        shown += [("reference", 0.0), *[("", float("nan"))] * 3, ("", "")]
    else:
        change = f"{_signed(found.difference)} ({_signed(100 * found.relative, 0)} %)"
        interval = f"[{_signed(found.low)}, {_signed(found.high)}]"
        shown += [(change, found.difference), (interval, found.low), _number(found.p_holm, 3), _number(found.detectable)]
        shown += [(found.verdict, found.verdict)]
    return [*shown, (f"{row.parameters:,}", row.parameters), (f"{row.labels:,.0f}", row.labels)]


def _number(value: float, digits: int = 5) -> tuple[str, float]:
    return ("" if np.isnan(value) else f"{value:.{digits}f}", float(value))


def _signed(value: float, digits: int = 5) -> str:
    return f"{value:+.{digits}f}".replace("-", MINUS)


def summary(plan: Plan, tables: Sequence[Table]) -> str:
    """What the deciding metric says, in one sentence a table."""
    metric, sentences = plan.metrics[0], []
    names = {arm.name: arm.words for arm in plan.arms}
    for table in tables:
        found = {row.words: row.comparison[metric] for row in table.rows if metric in row.comparison}
        seeds = max((c.seeds for c in found.values()), default=0)
        head = f"{table.dataset}, {table.backbone}, test {metric}, {seeds} seeds, against {names[plan.reference]}: "
        if seeds < 2:
            sentences.append(head + "one seed says nothing about seeds; no test was made.")
            continue
        parts = []
        for verdict in ("better", "worse"):
            which = [f"{name} ({_signed(100 * c.relative, 0)} %)" for name, c in found.items() if c.verdict == verdict]
            parts += [f"{verdict}: {', '.join(which)}"] if which else []
        same = [name for name, c in found.items() if c.verdict == "no measurable difference"]
        if not any(c.verdict == "better" for c in found.values()):
            parts.insert(0, "no measurable gain")
        parts += [f"no measurable difference: {', '.join(same)}"] if same else []
        sentences.append(head + "; ".join(parts) + ".")
    return "\n".join(sentences)


def method(plan: Plan) -> str:
    """How the numbers came about, for the foot of every report."""
    return (
        f"Mean and standard deviation over seeds {', '.join(map(str, plan.seeds))}. Ranks are over all items, mean rank at ties. "
        "Null hypothesis: an arm and the reference have the same expected metric (two-sided paired t-test over seeds, Holm's "
        "correction over the arms of a table). Interval: 95 % bootstrap over seeds and sessions. Detectable: the true difference "
        "that this t-test would find with 80 % probability. An arm is called better or worse only where the corrected p is below "
        "0.05 and the interval excludes 0."
    )


def markdown(plan: Plan, tables: Sequence[Table], words: str, failed: Sequence[str]) -> str:
    """The report as Markdown."""
    lines = [f"# {plan.name}", "", *[f"{sentence}\n" for sentence in words.splitlines()]]
    for table in tables:
        lines += [f"## {table.dataset}, {table.backbone} ({table.sessions:,} test sessions, {len(plan.seeds)} seeds)", ""]
        lines += ["| " + " | ".join(HEADER) + " |", "|" + " --- |" * len(HEADER)]
        for metric in plan.metrics:
            lines += ["| " + " | ".join(text.replace("|", "/") for text, _ in cells(row, metric)) + " |" for row in table.rows]
        lines.append("")
    lines += [method(plan), ""]
    lines += ["## Failed runs", "", *[f"- {line}" for line in failed], ""] if failed else []
    return "\n".join(lines)


def _write_csv(plan: Plan, results: Sequence[Result], file: Path) -> None:
    """One line a run."""
    keys = [f"{part}_{metric}" for part in ("valid", "test") for metric in plan.metrics]
    bill = ("asked", "reused", "failed", "prompt_tokens", "completion_tokens", "usd")
    with open(file, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        names = ["dataset", "backbone", "arm", "seed", "stage", *keys, "parameters", "seconds"]
        writer.writerow([*names, *(f"labels_{key}" for key in bill)])
        for r in results:
            values = [f"{gains(getattr(r, part), metric).mean():.6f}" for part in ("valid", "test") for metric in plan.metrics]
            labels = r.facts.get("labels") or {}
            place = [r.task.dataset, r.task.backbone, r.task.arm.name, r.task.seed, r.task.arm.stage]
            costs = [r.facts["parameters"], r.facts["seconds"], *(labels.get(key) for key in bill)]
            writer.writerow([*place, *values, *costs])


def draw(plan: Plan, table: Table, folder: Path) -> str:
    """The deciding metric of every arm, as PNG and PDF; gives back an SVG in the colours of the page around it."""
    import io

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    metric, ink, rows = plan.metrics[0], "#010203", table.rows[::-1]
    colours = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink)
    style: dict[Any, Any] = {**colours, "svg.fonttype": "none", "font.size": 10, "svg.hashsalt": plan.name}
    with matplotlib.rc_context(style):
        figure, axes = pyplot.subplots(figsize=(7.5, 1.3 + 0.32 * len(rows)))
        base = next((row.values[metric].mean() for row in rows if row.name == plan.reference), None)
        if base is not None:
            axes.axvline(base, color=ink, linewidth=0.8, linestyle=":")
        for place, row in enumerate(rows):
            values, found = row.values[metric], row.comparison.get(metric)
            axes.plot(values, [place] * len(values), "o", color="#8a8a8a", markersize=3.5, alpha=0.7)
            if found is not None and base is not None:
                axes.plot([base + found.low, base + found.high], [place, place], color="#2f7ed8", linewidth=2.5, alpha=0.8)
            axes.plot(values.mean(), place, "D", color="#2f7ed8", markersize=6)
        axes.set_yticks(range(len(rows)), [row.words for row in rows])
        axes.set_xlabel(f"test {metric}; n = {table.sessions:,} sessions, {len(plan.seeds)} seeds (dots)\n"
                        "diamond: mean; bar: 95 % interval of the difference, from the reference (dotted)")  # fmt: skip
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        figure.tight_layout()
        stem = folder / f"{table.dataset}-{table.backbone}"
        figure.savefig(f"{stem}.png", dpi=150)
        figure.savefig(f"{stem}.pdf")
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
        pyplot.close(figure)
    svg = text.getvalue()
    label = html.escape(f"{table.dataset}, {table.backbone}: {metric} of every arm", quote=True)
    return svg[svg.index("<svg") :].replace(ink, "currentColor").replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)

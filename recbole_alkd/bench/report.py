"""The report of a plan: results.csv, results.md, report.html, and the figures as PNG and PDF."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recbole_alkd.bench.arms import Arm
from recbole_alkd.bench.columns import HEADER, cells, group_cells, group_header, share
from recbole_alkd.bench.figures import draw_figures
from recbole_alkd.bench.page import Sheet, page
from recbole_alkd.bench.plan import Plan
from recbole_alkd.bench.runs import Outcome, Result
from recbole_alkd.bench.statistics import Comparison, compare, holm
from recbole_alkd.bench.target_groups import MEANING, Part, group_sizes, parts, size_words
from recbole_alkd.config import AlkdError, stage_seed
from recbole_alkd.files import write_whole
from recbole_alkd.trainer.ranks import GROUPS, gains


@dataclass(frozen=True)
class Row:
    """One arm in one table.

    Attributes:
        base, point: see ``Arm``. reference: the arm it is compared with. is_reference: whether others are compared with it.
        values: metric -> its value for every finished seed. comparison: metric -> against the reference.
        groups: metric -> group of targets -> the same on these.
        seconds: mean wall time of the stage itself. bytes: of the model's numbers.
        labels, tokens, usd, all_seconds: means over seeds of what a result rests on, shared stages and labels in full; usd is
            None where labels have no price.
    """

    name: str
    words: str
    base: str
    point: Any
    reference: str | None
    is_reference: bool
    values: dict[str, np.ndarray]
    comparison: dict[str, Comparison]
    groups: dict[str, dict[str, Part]]
    parameters: int
    bytes: int
    seconds: float
    labels: float
    tokens: float
    usd: float | None
    all_seconds: float


@dataclass(frozen=True)
class Table:
    """All arms of one data set and backbone. ``targets``: ``group_sizes``."""

    dataset: str
    backbone: str
    rows: list[Row]
    sessions: int
    targets: dict[str, list[int]]


def write_report(plan: Plan, outcome: Outcome, out: Path) -> str:
    """Write every file of the report into ``out`` and give back the summary in words."""
    tables = make_tables(plan, outcome.results)
    words = summary(plan, tables)
    out.mkdir(parents=True, exist_ok=True)
    _write_csv(plan, outcome.results, out / "results.csv")
    failed = [f"{task}: {reason}" for task, reason in outcome.failed.items()]
    drawn = [draw_figures(plan, table, out / "figures") for table in tables]
    names = [[name for name, _ in found] for found in drawn]
    write_whole(out / "results.md", markdown(plan, tables, words, failed, names))
    figures = [[svg for _, svg in found] for found in drawn]
    sheets = [_sheets(plan, table) for table in tables]
    write_whole(out / "report.html", page(plan, tables, words, failed, figures, sheets, method(plan)))
    return words


def _sheets(plan: Plan, table: Table) -> list[Sheet]:
    """What the page shows of a table: all of it, and split by groups of targets."""
    pairs = [(row, metric) for metric in plan.metrics for row in table.rows]
    return [
        Sheet("", "", HEADER, [cells(row, metric) for row, metric in pairs]),
        Sheet(
            "By what training knows of the target", f"{size_words(table.targets)} targets. {MEANING}",
            group_header(table), [group_cells(table, row, metric) for row, metric in pairs],
        ),
    ]  # fmt: skip


def make_tables(plan: Plan, results: Sequence[Result]) -> list[Table]:
    """Compare every arm with the reference. Holm's correction is over the arms of one table, for every metric by itself."""
    tables = []
    for dataset in plan.datasets:
        for backbone in plan.backbones:
            mine = [r for r in results if (r.task.dataset, r.task.backbone) == (dataset, backbone)]
            of_arm = {arm.name: {r.task.seed: r for r in mine if r.task.arm.name == arm.name} for arm in plan.arms}
            rows = [_row(plan, arm, of_arm) for arm in plan.arms if of_arm[arm.name]]
            for metric in plan.metrics:
                compared = [row for row in rows if metric in row.comparison]
                for row, p in zip(compared, holm([row.comparison[metric].p for row in compared]), strict=True):
                    row.comparison[metric] = replace(row.comparison[metric], p_holm=p)
            if rows:
                tables.append(Table(dataset, backbone, rows, len(mine[0].test), group_sizes(mine)))
    return tables


def _row(plan: Plan, arm: Arm, of_arm: dict[str, dict[int, Result]]) -> Row:
    runs, name = of_arm[arm.name], plan.reference_of(arm)
    reference = of_arm[name] if name else {}
    seeds = [seed for seed in runs if seed in reference]
    for seed in seeds:
        if not np.array_equal(runs[seed].sessions, reference[seed].sessions):
            raise AlkdError(f"{arm.name} and {name} were evaluated on different sessions (seed {seed})")
    crossed = all(np.array_equal(runs[seed].sessions, runs[seeds[0]].sessions) for seed in seeds)
    mine, other = ([run[seed] for seed in seeds] for run in (runs, reference))
    comparison, groups = {}, {}
    for metric in plan.metrics:
        rng = np.random.default_rng(stage_seed(0, arm.name, metric))
        if seeds:
            ours, theirs = ([gains(run.test, metric) for run in side] for side in (mine, other))
            comparison[metric] = compare(ours, theirs, crossed, rng)
        groups[metric] = parts(mine, other, list(runs.values()), metric, crossed, rng)
    facts = [run.facts for run in runs.values()]
    costs = {key: [fact["cost"][key] for fact in facts] for key in ("labels", "tokens", "usd", "seconds")}
    return Row(
        arm.name, arm.words, arm.base, arm.point, name, plan.reference in (arm.name, arm.base),
        {metric: np.array([gains(run.test, metric).mean() for run in runs.values()]) for metric in plan.metrics},
        comparison, groups, int(facts[0]["parameters"]), int(facts[0]["bytes"]), float(np.mean([f["seconds"] for f in facts])),
        labels=float(np.mean(costs["labels"])),
        tokens=float(np.mean(costs["tokens"])),
        usd=None if None in costs["usd"] else float(np.mean(costs["usd"])),
        all_seconds=float(np.mean(costs["seconds"])),
    )  # fmt: skip


def summary(plan: Plan, tables: Sequence[Table]) -> str:
    """What the deciding metric says, in one sentence a table."""
    metric, sentences = plan.metrics[0], []

    def change(row: Row) -> str:
        return share(row.comparison[metric])

    for table in tables:
        compared = [row for row in table.rows if metric in row.comparison]
        seeds = max((row.comparison[metric].seeds for row in compared), default=0)
        head = f"{table.dataset}, {table.backbone}, test {metric}, {seeds} seeds, against {plan.reference_words}: "
        if seeds < 2:
            sentences.append(head + "one seed says nothing about seeds; no test was made.")
            continue
        parts = []
        for verdict in ("better", "worse"):
            which = [row for row in compared if row.comparison[metric].verdict == verdict]
            if which:
                parts.append(f"{verdict}: {_listed(plan, which, change)}")
        same = [row for row in compared if row.comparison[metric].verdict == "no measurable difference"]
        if not any(row.comparison[metric].verdict == "better" for row in compared):
            parts.insert(0, "no measurable gain")
        parts += [f"no measurable difference: {_listed(plan, same)}"] if same else []
        sentences.append(head + ". ".join(parts) + ".")
    return "\n".join(sentences)


def _listed(plan: Plan, rows: Sequence[Row], more: Callable[[Row], str] = lambda row: "") -> str:
    """Arms in a sentence; of a studied one the values stand behind it."""
    items: dict[str, list[str]] = {}
    for row in rows:
        if plan.study and row.base:
            head = f"{plan.study.base_words(row.words, row.point)}, {plan.study.setting}"
            items.setdefault(head, []).append(plan.study.words(row.point) + more(row))
        else:
            items[row.words + more(row)] = []
    return "; ".join(f"{head} {', '.join(points)}".rstrip() for head, points in items.items())


def method(plan: Plan) -> str:
    """How the numbers came about, for the foot of every report."""
    return (
        f"Mean and standard deviation over seeds {', '.join(map(str, plan.seeds))}. Ranks are over all items, mean rank at ties. "
        "Null hypothesis: an arm and the reference have the same expected metric. p: two-sided paired t-test over seeds; with "
        "'(sessions)', where seeds hardly change the difference (as between arms that count and do not train), a two-sided paired "
        "randomisation test over sessions; n/a where there is nothing to test; Holm's correction over the arms of a table. "
        "Interval: 95 % bootstrap over seeds and sessions, corrected for few seeds. Detectable: the true difference "
        "that a t-test on the same numbers would find with 80 % probability. An arm is called better or worse only where the "
        "corrected p is below 0.05 and the interval excludes 0. Labels, tokens, USD and seconds are those of one run, with "
        "shared stages and labels in full; seconds are wall time of training and answers, and runs may have shared the machine."
    )


def markdown(plan: Plan, tables: Sequence[Table], words: str, failed: Sequence[str], figures: Sequence[Sequence[str]]) -> str:
    """The report as Markdown. ``figures``: the names of the figures of each table, without their ends."""
    lines = [f"# {plan.name}", "", *[f"{sentence}\n" for sentence in words.splitlines()]]
    for table, names in zip(tables, figures, strict=True):
        lines += [f"## {table.dataset}, {table.backbone} ({table.sessions:,} test sessions, {len(plan.seeds)} seeds)", ""]
        lines += [f"![{name}](figures/{name.replace(' ', '%20')}.png)" for name in names] + [""]
        for sheet in _sheets(plan, table):
            lines += [f"### {sheet.title}", "", sheet.words, ""] if sheet.title else []
            lines += ["| " + " | ".join(sheet.header) + " |", "|" + " --- |" * len(sheet.header)]
            lines += ["| " + " | ".join(text.replace("|", "/") for text, _ in row) + " |" for row in sheet.rows] + [""]
    lines += [method(plan), ""]
    lines += ["## Failed runs", "", *[f"- {line}" for line in failed], ""] if failed else []
    return "\n".join(lines)


def _write_csv(plan: Plan, results: Sequence[Result], file: Path) -> None:
    """One line a run. ``cost_`` is what the run rests on, ``labels_`` what this run itself did for it."""
    keys = [f"{part}_{metric}" for part in ("valid", "test") for metric in plan.metrics]
    bill = ("asked", "reused", "failed", "prompt_tokens", "completion_tokens", "usd")
    cost = ("labels", "tokens", "usd", "seconds")
    with open(file, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        names = ["dataset", "backbone", "arm", "seed", "stage", "study_arm", "study_value", *keys, "parameters", "bytes", "seconds"]
        split = [f"test_{metric}_{group}" for metric in plan.metrics for group in GROUPS]
        sizes = [f"targets_{group}" for group in GROUPS]
        writer.writerow([*names, *(f"cost_{key}" for key in cost), *(f"labels_{key}" for key in bill), *sizes, *split])
        for r in results:
            values = [f"{gains(getattr(r, part), metric).mean():.6f}" for part in ("valid", "test") for metric in plan.metrics]
            labels = r.facts.get("labels") or {}
            arm = r.task.arm
            point = plan.study.words(arm.point) if plan.study and arm.base else None
            place = [r.task.dataset, r.task.backbone, arm.name, r.task.seed, arm.stage, arm.base or None, point]
            size = [r.facts[key] for key in ("parameters", "bytes", "seconds")]
            paid = [*(r.facts["cost"][key] for key in cost), *(labels.get(key) for key in bill)]
            of_group = [r.test[r.groups == k] for k in range(len(GROUPS))]
            by_group = [f"{gains(part, metric).mean():.6f}" if len(part) else None for metric in plan.metrics for part in of_group]
            writer.writerow([*place, *values, *size, *paid, *map(len, of_group), *by_group])

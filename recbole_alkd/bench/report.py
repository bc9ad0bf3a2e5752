"""The report of a plan: results.csv, results.md, report.html, and the figures as PNG and PDF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from recbole_alkd.bench.arms import Arm, llm_free
from recbole_alkd.bench.columns import (
    COST_HEADER,
    HEADER,
    Sheet,
    cells,
    cost_cells,
    group_cells,
    group_header,
)
from recbole_alkd.bench.figures import draw_figures
from recbole_alkd.bench.page import page
from recbole_alkd.bench.plain import csv_text, markdown
from recbole_alkd.bench.plan import Plan, Task
from recbole_alkd.bench.results import Result
from recbole_alkd.bench.runs import Outcome, cause
from recbole_alkd.bench.statistics import compare, holm
from recbole_alkd.bench.tables import Row, Table
from recbole_alkd.bench.target_groups import MEANING, group_sizes, parts, size_words
from recbole_alkd.bench.verdicts import method, verdicts_of
from recbole_alkd.files import write_whole
from recbole_alkd.model.scoring import gains
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.identity import stage_seed


def write_report(plan: Plan, outcome: Outcome, out: Path) -> str:
    """Write every file of the report into ``out``, each whole or not at all,
    and give back the summary in words.

    Figures that cannot be drawn are left out, and the report says why: the runs are what was paid for.
    """
    tables = make_tables(plan, outcome.results)
    verdicts = [verdicts_of(plan, table) for table in tables]
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "results.csv", csv_text(plan, outcome.results))
    failed = failures(outcome.failed)
    drawn, missing = [], []
    for table in tables:
        pictures, left_out = draw_figures(plan, table, out / "figures")
        drawn.append(pictures)
        missing += left_out
    notes = list(dict.fromkeys(missing))
    if failed:
        notes.insert(
            0,
            f"{len(outcome.failed)} of {len(outcome.failed) + len(outcome.results)} runs failed; see below.",
        )
    if outcome.missing:
        notes.insert(0, missing_words(outcome.missing))
    notes += devices_words(outcome.results) + versions_words(outcome.results)
    sheets = [_sheets(plan, table) for table in tables]
    names = [[name for name, _ in pictures] for pictures in drawn]
    write_whole(out / "results.md", markdown(plan, tables, verdicts, failed, names, sheets, notes))
    figures = [[svg for _, svg in pictures] for pictures in drawn]
    write_whole(
        out / "report.html", page(plan, tables, verdicts, failed, figures, sheets, notes, method(plan))
    )
    return "\n".join([*(one.sentence for one in verdicts), *notes])


def failures(failed: Mapping[Task, str]) -> list[str]:
    """A line for each reason, with the runs that it stopped."""
    runs: dict[str, list[Task]] = {}
    for task, reason in failed.items():
        runs.setdefault(cause(reason), []).append(task)
    lines = []
    for tasks_alike in runs.values():
        reason, tasks = failed[tasks_alike[0]], [str(task) for task in tasks_alike]
        some = "; ".join(tasks[:3]) + ("; ..." if len(tasks) > 3 else "")
        lines.append(f"{some}: {reason}" if len(tasks) == 1 else f"{len(tasks)} runs ({some}): {reason}")
    return lines


def missing_words(missing: Sequence[Task]) -> str:
    """Which runs of the plan are not there, arm by arm with their seeds."""
    seeds: dict[str, list[str]] = {}
    for task in missing:
        seeds.setdefault(f"{task.dataset}, {task.backbone}, {task.arm.name}", []).append(str(task.seed))
    arms = "; ".join(f"{arm} (seed{'s' if len(of) > 1 else ''} {', '.join(of)})" for arm, of in seeds.items())
    return f"Not run yet: {len(missing)} run{'s' if len(missing) > 1 else ''} of this plan: {arms}."


def devices_words(results: Sequence[Result]) -> list[str]:
    """A line where runs were made on several kinds of device: their seconds do not compare."""
    arms: dict[str, dict[str, None]] = {}
    for result in results:
        if device := result.facts.get("device"):
            arms.setdefault(str(device), {})[result.task.arm.words] = None
    if len(arms) < 2:
        return []
    listed = "; ".join(f"on {device}: {', '.join(words)}" for device, words in arms.items())
    return [f"Seconds are of different devices, {listed}."]


def versions_words(results: Sequence[Result]) -> list[str]:
    """A line for each package of which runs were made with several versions: what is equal otherwise may come
    out differently. Results of releases that did not say are left out."""
    made: dict[str, dict[str, dict[str, None]]] = {}
    for result in results:
        said = result.facts.get("versions")
        for package, version in said.items() if isinstance(said, Mapping) else ():
            made.setdefault(str(package), {}).setdefault(str(version), {})[result.task.arm.words] = None
    return [
        f"Runs were made with different versions of {package}, "
        + "; ".join(f"with {version}: {', '.join(words)}" for version, words in of.items())
        + "."
        for package, of in made.items()
        if len(of) > 1
    ]


def _sheets(plan: Plan, table: Table) -> list[Sheet]:
    """What a report shows of a table: what came out, what it costs, and the first split by groups
    of targets."""
    pairs = [(row, metric) for metric in plan.metrics for row in table.rows]
    return [
        Sheet("", table.best_words(), HEADER, [cells(row, metric) for row, metric in pairs]),
        Sheet(
            "What it takes", "Means of one run of each arm, with shared stages and labels in full.",
            COST_HEADER, [cost_cells(row) for row in table.rows],
        ),
        Sheet(
            "By what training knows of the target", f"{size_words(table.targets)} targets. {MEANING}",
            group_header(table), [group_cells(table, row, metric) for row, metric in pairs],
        ),
    ]  # fmt: skip


def make_tables(plan: Plan, results: Sequence[Result]) -> list[Table]:
    """Compare every arm with the reference. Holm's correction is over the arms of one table,
    for every metric by itself."""
    tables = []
    for dataset in plan.datasets:
        for backbone in plan.backbones:
            mine = [r for r in results if (r.task.dataset, r.task.backbone) == (dataset, backbone)]
            of_arm = {
                arm.name: {r.task.seed: r for r in mine if r.task.arm.name == arm.name} for arm in plan.arms
            }
            best = best_llm_free(plan, of_arm)
            rows = [_row(plan, arm, of_arm, best) for arm in plan.arms if of_arm[arm.name]]
            for metric in plan.metrics:
                compared = [row for row in rows if metric in row.comparison]
                for row, p in zip(
                    compared, holm([row.comparison[metric].p for row in compared]), strict=True
                ):
                    row.comparison[metric] = replace(row.comparison[metric], p_holm=p)
            if rows:
                tables.append(Table(dataset, backbone, rows, len(mine[0].test), group_sizes(mine), best))
    return tables


def best_llm_free(plan: Plan, of_arm: Mapping[str, Mapping[int, Result]]) -> str | None:
    """The arm without LLM and titles with the highest mean of the first metric over its seeds, on
    validation."""
    validated = {}
    for name, runs in of_arm.items():
        if runs and all(llm_free(run.task.arm.stage, run.task.settings) for run in runs.values()):
            validated[name] = np.mean([gains(run.valid, plan.metrics[0]).mean() for run in runs.values()])
    return max(validated, key=lambda name: validated[name], default=None)


def _row(plan: Plan, arm: Arm, of_arm: dict[str, dict[int, Result]], best: str | None) -> Row:
    runs, name = of_arm[arm.name], plan.reference_of(arm)
    mine, other, crossed = _paired(arm.name, name, of_arm)
    comparison, groups, test = {}, {}, None
    for metric in plan.metrics:  # the first decides, also how an arm is tested
        rng = np.random.default_rng(stage_seed(0, arm.name, metric))
        if mine:
            ours, theirs = ([gains(run.test, metric) for run in side] for side in (mine, other))
            comparison[metric] = compare(ours, theirs, crossed, rng, test)
            test = comparison[metric].test
        groups[metric] = parts(mine, other, list(runs.values()), metric, crossed, rng)
    against_best = {}
    if best not in (None, arm.name):
        mine, other, crossed = _paired(arm.name, best, of_arm)
        for metric in plan.metrics if mine else ():
            rng = np.random.default_rng(stage_seed(0, arm.name, metric, "best"))
            ours, theirs = ([gains(run.test, metric) for run in side] for side in (mine, other))
            against_best[metric] = compare(ours, theirs, crossed, rng, "")
    facts = [run.facts for run in runs.values()]
    costs = {key: [fact["cost"][key] for fact in facts] for key in ("labels", "tokens", "usd", "seconds")}
    return Row(
        arm.name, arm.words, arm.base, arm.point, name, plan.reference in (arm.name, arm.base),
        {metric: np.array([gains(run.test,
                                 metric).mean() for run in runs.values()]) for metric in plan.metrics},
        comparison, groups, against_best, int(facts[0]["parameters"]), int(facts[0]["bytes"]),
        float(np.mean([f["seconds"] for f in facts])),
        labels=float(np.mean(costs["labels"])),
        tokens=float(np.mean(costs["tokens"])),
        usd=None if None in costs["usd"] else float(np.mean(costs["usd"])),
        all_seconds=float(np.mean(costs["seconds"])),
    )  # fmt: skip


def _paired(
    name: str, other: str | None, of_arm: Mapping[str, Mapping[int, Result]]
) -> tuple[list[Result], list[Result], bool]:
    """The runs of two arms by their common seeds, and whether all seeds were evaluated on the same sessions.

    Raises:
        AlkdError: the two arms were not.
    """
    runs, reference = of_arm[name], of_arm[other] if other else {}
    seeds = [seed for seed in runs if seed in reference]
    for seed in seeds:
        if not np.array_equal(runs[seed].sessions, reference[seed].sessions):
            raise AlkdError(f"{name} and {other} were evaluated on different sessions (seed {seed})")
    crossed = all(np.array_equal(runs[seed].sessions, runs[seeds[0]].sessions) for seed in seeds)
    return [runs[seed] for seed in seeds], [reference[seed] for seed in seeds], crossed

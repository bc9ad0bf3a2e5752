"""The report as Markdown and as CSV, in which names of a plan are text and nothing more."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from recbole_alkd.bench.names import markdown_text, spreadsheet_cell
from recbole_alkd.bench.verdicts import Verdicts, method
from recbole_alkd.model.scoring import GROUPS, gains

if TYPE_CHECKING:
    from recbole_alkd.bench.columns import Sheet
    from recbole_alkd.bench.plan import Plan
    from recbole_alkd.bench.results import Result
    from recbole_alkd.bench.tables import Table


def markdown(
    plan: Plan, tables: Sequence[Table], verdicts: Sequence[Verdicts], failed: Sequence[str],
    figures: Sequence[Sequence[str]],
    sheets: Sequence[Sequence[Sheet]], notes: Sequence[str],
) -> str:  # fmt: skip
    """The report as Markdown. ``figures``: the names of the figures of each table, without their ends."""
    text = markdown_text
    lines = [f"# {text(plan.name)}", ""]
    for one in verdicts:
        lines += [f"{text(one.head)}:", "", *(f"- {text(part)}" for part in one.parts), ""]
    lines += [*(f"- {text(note)}" for note in notes), ""] if notes else []
    for table, names, shown in zip(tables, figures, sheets, strict=True):
        head = (
            f"## {text(table.dataset)}, {text(table.backbone)} ({table.sessions:,} test sessions, "
            f"{len(plan.seeds)} seeds)"
        )
        words = [text(shown[0].words), ""] if shown[0].words else []
        lines += [head, "", *words, *_markdown_table(shown[0])]
        lines += [f"![{text(name)}](figures/{quote(name)}.png)" for name in names] + [""]
        for sheet in shown[1:]:
            lines += [f"### {sheet.title}", "", sheet.words, "", *_markdown_table(sheet)]
    lines += [method(plan), ""]
    lines += ["## Failed runs", "", *(f"- {text(line)}" for line in failed), ""] if failed else []
    return "\n".join(lines)


def _markdown_table(sheet: Sheet) -> list[str]:
    lines = ["| " + " | ".join(sheet.header) + " |", "|" + " --- |" * len(sheet.header)]
    for row in sheet.rows:  # names are text, the others are numbers of ours
        shown = [markdown_text(cell.text) if isinstance(cell.value, str) else cell.text for cell in row]
        lines.append("| " + " | ".join(shown) + " |")
    return [*lines, ""]


def csv_text(plan: Plan, results: Sequence[Result]) -> str:
    """One line a run. ``cost_`` is what the run rests on, ``labels_`` what this run itself did for it.

    A name that a spreadsheet would take for a formula begins with an apostrophe.
    """
    keys = [f"{part}_{metric}" for part in ("valid", "test") for metric in plan.metrics]
    bill = ("asked", "reused", "failed", "prompt_tokens", "completion_tokens", "usd")
    cost = ("labels", "tokens", "usd", "seconds")
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    names = [
        "dataset",
        "backbone",
        "arm",
        "seed",
        "stage",
        "study_arm",
        "study_value",
        *keys,
        "parameters",
        "bytes",
        "seconds",
    ]
    split = [f"test_{metric}_{group}" for metric in plan.metrics for group in GROUPS]
    sizes = [f"targets_{group}" for group in GROUPS]
    writer.writerow(
        [*names, *(f"cost_{key}" for key in cost), *(f"labels_{key}" for key in bill), *sizes, *split]
    )
    for r in results:
        values = [
            f"{gains(getattr(r, part), metric).mean():.6f}"
            for part in ("valid", "test")
            for metric in plan.metrics
        ]
        labels = r.facts.get("labels") or {}
        arm = r.task.arm
        point = plan.study.words(arm.point) if plan.study and arm.base else None
        place = [r.task.dataset, r.task.backbone, arm.name, r.task.seed, arm.stage, arm.base or None, point]
        size = [r.facts[key] for key in ("parameters", "bytes", "seconds")]
        paid = [*(r.facts["cost"][key] for key in cost), *(labels.get(key) for key in bill)]
        of_group = [r.test[r.groups == k] for k in range(len(GROUPS))]
        by_group = [
            f"{gains(part, metric).mean():.6f}" if len(part) else None
            for metric in plan.metrics
            for part in of_group
        ]
        writer.writerow(
            [*map(spreadsheet_cell, place), *values, *size, *paid, *map(len, of_group), *by_group]
        )
    return stream.getvalue()

"""The figures of a report: every arm, a study over a setting, quality against cost and against size.

Each as PNG, PDF and as SVG for the page.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from recbole_alkd.bench.drawing import (
    COLOURS,
    GREY,
    INK,
    by_arm,
    draw_caption,
    draw_legend,
    draw_numbered,
    draw_size_axis,
    interval_ends,
    is_known,
    legend_height,
    new_figure,
    place_numbers,
    sample_words,
    shortened,
)
from recbole_alkd.bench.plan import Plan
from recbole_alkd.bench.tables import Row, Table

COSTS = {
    "labels": "labels",
    "tokens": "tokens",
    "usd": "USD",
    "all_seconds": "seconds of training and answers",
}


def missing_matplotlib() -> str | None:
    """Why a report will have no figures, and what to install; None where matplotlib is there."""
    if importlib.util.find_spec("matplotlib"):
        return None
    return (
        "No figures: matplotlib is not installed (pip install 'recbole_alkd[bench]'; "
        "the same command then adds them)."
    )


def draw_figures(plan: Plan, table: Table, folder: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """All figures of a table that can be drawn.

    Returns:
        (name of the file, without its end, and SVG) of each, and why others are missing.
    """
    missing = missing_matplotlib()
    if missing:
        return [], [missing]
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{table.dataset}-{table.backbone}"
    wanted: list[tuple[str, Callable[[Path], str]]] = []
    wanted.append((stem, partial(_draw_study if plan.study else _draw_arms, plan, table)))
    costs = [cost for cost in COSTS if _tells(table.rows, cost)]
    if costs and any(row.labels for row in table.rows):
        wanted.append((f"{stem}-cost", partial(_draw_costs, plan, table, costs)))
    if len({row.bytes for row in table.rows}) > 1:
        wanted.append((f"{stem}-bytes", partial(_draw_sizes, plan, table)))
    drawn, left_out = [], []
    for name, draw in wanted:
        try:
            drawn.append((name, draw(folder / name)))
        # whatever a font or a backend does, the report of the runs is not lost over a figure
        except Exception as error:
            what = str(error).strip().splitlines() or [""]
            left_out.append(f"No figure {name}: {type(error).__name__}: {what[0]}")
    return drawn, left_out


def _draw_arms(plan: Plan, table: Table, stem: Path) -> str:
    """The deciding metric of every arm: seeds, mean, interval of the difference."""
    metric, rows = plan.metrics[0], table.rows[::-1]
    label = f"{table.dataset}, {table.backbone}: {metric} of every arm"
    with new_figure(plan, stem, label, (7.5, 1.3 + 0.32 * len(rows))) as (figure, svg):
        axes = figure.subplots()
        base = next((row.values[metric].mean() for row in rows if row.name == plan.reference), None)
        if base is not None:
            axes.axvline(base, color=INK, linewidth=0.8, linestyle=":")
        for place, row in enumerate(rows):
            values, comparison = row.values[metric], row.comparison.get(metric)
            axes.plot(values, [place] * len(values), "o", color=GREY, markersize=3.5, alpha=0.7)
            if comparison is not None and base is not None:
                axes.plot(
                    [base + comparison.low, base + comparison.high],
                    [place, place],
                    color=COLOURS[0],
                    linewidth=2.5,
                    alpha=0.8,
                )
            axes.plot(values.mean(), place, "D", color=COLOURS[0], markersize=6)
        axes.set_yticks(range(len(rows)), [shortened(row.words, 46) for row in rows])
        axes.set_xlabel(f"test {metric}")
        words = "diamond: mean;\nbar: 95 % interval of the difference, from the reference (dotted)"
        draw_caption(figure, f"{sample_words(plan, table)} (dots); {words}")
    return svg()


def _draw_study(plan: Plan, table: Table, stem: Path) -> str:
    """The deciding metric over the values of a setting: a line an arm, a band for the interval of its
    difference."""
    assert plan.study is not None
    study, metric = plan.study, plan.metrics[0]
    label = f"{table.dataset}, {table.backbone}: {metric} over {study.setting}"
    by_name = {row.name: row for row in table.rows}
    with new_figure(plan, stem, label, (7.5, 4.6)) as (figure, svg):
        axes = figure.subplots()
        place = dict(enumerate(study.values)) if study.numeric else {i: i for i in range(len(study.values))}
        for number, arm in enumerate(study.arms):
            points = [(place[study.values.index(row.point)], row) for row in table.rows if row.base == arm]
            if not points:
                continue
            colour = INK if arm == plan.reference else COLOURS[number % len(COLOURS)]
            for x, row in points:
                values = row.values[metric]
                axes.plot([x] * len(values), values, "o", color=colour, markersize=2.5, alpha=0.35)
            words = study.base_words(points[0][1].words, points[0][1].point)
            means = [row.values[metric].mean() for _, row in points]
            axes.plot(
                [x for x, _ in points], means, "D-", color=colour, markersize=5, label=shortened(words, 40)
            )
            band = [(x, *edges) for x, row in points if (edges := interval_ends(row, by_name, metric))]
            if band:
                x, low, high = zip(*band, strict=True)
                axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        others = [row for row in table.rows if not row.base]
        for number, row in enumerate(others):
            style = (
                (INK, ":")
                if row.name == plan.reference
                else (COLOURS[-1 - number % len(COLOURS)], (0, (5, 3)))
            )
            axes.axhline(
                row.values[metric].mean(),
                color=style[0],
                linestyle=style[1],
                linewidth=1,
                label=shortened(row.words, 40),
            )
        numbers = [place[i] for i in range(len(study.values))]
        if study.numeric and min(numbers) > 0 and max(numbers) >= 8 * min(numbers):
            axes.set_xscale("log")
        ticks = [shortened(study.words(value), 24) for value in study.values]
        crowded = sum(map(len, ticks)) > 60
        axes.set_xticks(numbers, ticks, rotation=30 if crowded else 0, ha="right" if crowded else "center")
        axes.minorticks_off()
        axes.set_ylabel(f"test {metric}")
        where = "black, at the same value" if plan.reference in study.arms else "dotted"
        axes.set_xlabel(study.setting)
        words = f"diamonds: means;\nband: 95 % interval of the difference, from the reference ({where})"
        draw_caption(figure, f"{sample_words(plan, table)} (dots); {words}")
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    return svg()


def _draw_costs(plan: Plan, table: Table, costs: Sequence[str], stem: Path) -> str:
    """The deciding metric against each kind of cost: a number an arm, joined by a line where a study has it
    at several values."""
    metric, arms = plan.metrics[0], by_arm(table)
    label = f"{table.dataset}, {table.backbone}: {metric} against {', '.join(COSTS[cost] for cost in costs)}"
    columns = min(2, len(costs))
    lines = math.ceil(len(costs) / columns)
    with new_figure(plan, stem, label, (7.5, 3.2 * lines + legend_height(arms))) as (figure, svg):
        panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
        for panel in panels.ravel()[len(costs) :]:
            panel.set_visible(False)
        numbers = []
        for panel, cost in zip(panels.ravel(), costs, strict=False):
            numbers.append((panel, draw_numbered(plan, table, panel, cost)))
            panel.set_xlabel(COSTS[cost])
            panel.xaxis.set_major_formatter(
                lambda x, _: f"{x / 1e6:g}M" if x >= 1e6 else f"{x / 1e3:g}k" if x >= 1e4 else f"{x:g}"
            )
        for panel in panels[:, 0]:
            panel.set_ylabel(f"test {metric}")
        words = "a dot: the mean of an arm; bar: 95 % interval of its difference,"
        words += "\nfrom the reference; costs of one run, with shared stages and labels in full"
        draw_caption(figure, f"{sample_words(plan, table)}; {words}")
        draw_legend(figure, panels[0, 0])
        place_numbers(figure, numbers)
    return svg()


def _draw_sizes(plan: Plan, table: Table, stem: Path) -> str:
    """The deciding metric against the bytes of the model, on a log axis: above is better."""
    metric = plan.metrics[0]
    label = f"{table.dataset}, {table.backbone}: {metric} against bytes"
    with new_figure(plan, stem, label, (7.5, 3.6 + legend_height(by_arm(table)))) as (figure, svg):
        axes = figure.subplots()
        marks = draw_numbered(plan, table, axes, "bytes")
        draw_size_axis(axes, metric)
        words = "a dot: the mean of an arm;\nbar: 95 % interval of its difference, from the reference"
        draw_caption(figure, f"{sample_words(plan, table)}; {words}")
        draw_legend(figure, axes)
        place_numbers(figure, [(axes, marks)])
    return svg()


def _tells(rows: Sequence[Row], cost: str) -> bool:
    """Whether a panel of this cost says anything: at least three different ones."""
    return len({getattr(row, cost) for row in rows if is_known(row, cost)}) > 2

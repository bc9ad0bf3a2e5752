"""The figures of a report: every arm, a study over a setting, quality against cost and against size.

Each as PNG, PDF and as SVG for the page.
"""

from __future__ import annotations

import html
import io
import math
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recbole_alkd.bench.plan import Plan
    from recbole_alkd.bench.report import Row, Table

INK = "#010203"  # becomes the colour of the text around the SVG
GREY = "#8a8a8a"
# each stands out on white and on black
COLOURS = ("#2f7ed8", "#d9541e", "#2ca05a", "#a65fc4", "#b8860b", "#d6337c", "#1a9aa8", "#7a8a3a", "#8c6d5a", "#6b7fd0")
COSTS = {"labels": "labels", "tokens": "tokens", "usd": "USD", "all_seconds": "seconds of training and answers"}


def draw_figures(plan: Plan, table: Table, folder: Path) -> list[tuple[str, str]]:
    """All figures of a table; gives back (name of the file, without its end, and SVG) of each."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{table.dataset}-{table.backbone}"
    drawn = [(stem, (_draw_study if plan.study else _draw_arms)(plan, table, folder / stem))]
    costs = [cost for cost in COSTS if _tells(table.rows, cost)]
    if costs and any(row.labels for row in table.rows):
        drawn.append((f"{stem}-cost", _draw_costs(plan, table, costs, folder / f"{stem}-cost")))
    if len({row.bytes for row in table.rows}) > 1:
        drawn.append((f"{stem}-bytes", _draw_sizes(plan, table, folder / f"{stem}-bytes")))
    return drawn


def _draw_arms(plan: Plan, table: Table, stem: Path) -> str:
    """The deciding metric of every arm: seeds, mean, interval of the difference."""
    metric, rows = plan.metrics[0], table.rows[::-1]
    label = f"{table.dataset}, {table.backbone}: {metric} of every arm"
    with _figure(plan, stem, label, (7.5, 1.3 + 0.32 * len(rows))) as (figure, svg):
        axes = figure.subplots()
        base = next((row.values[metric].mean() for row in rows if row.name == plan.reference), None)
        if base is not None:
            axes.axvline(base, color=INK, linewidth=0.8, linestyle=":")
        for place, row in enumerate(rows):
            values, found = row.values[metric], row.comparison.get(metric)
            axes.plot(values, [place] * len(values), "o", color=GREY, markersize=3.5, alpha=0.7)
            if found is not None and base is not None:
                axes.plot([base + found.low, base + found.high], [place, place], color=COLOURS[0], linewidth=2.5, alpha=0.8)
            axes.plot(values.mean(), place, "D", color=COLOURS[0], markersize=6)
        axes.set_yticks(range(len(rows)), [_short(row.words, 46) for row in rows])
        axes.set_xlabel(f"test {metric}")
        words = "diamond: mean;\nbar: 95 % interval of the difference, from the reference (dotted)"
        _caption(figure, f"{_sample(plan, table)} (dots); {words}")
    return svg()


def _draw_study(plan: Plan, table: Table, stem: Path) -> str:
    """The deciding metric over the values of a setting: a line an arm, a band for the interval of its difference."""
    assert plan.study is not None
    study, metric = plan.study, plan.metrics[0]
    label = f"{table.dataset}, {table.backbone}: {metric} over {study.setting}"
    by_name = {row.name: row for row in table.rows}
    with _figure(plan, stem, label, (7.5, 4.6)) as (figure, svg):
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
            axes.plot([x for x, _ in points], means, "D-", color=colour, markersize=5, label=_short(words, 40))
            band = [(x, *edges) for x, row in points if (edges := _edges(row, by_name, metric))]
            if band:
                x, low, high = zip(*band, strict=True)
                axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        others = [row for row in table.rows if not row.base]
        for number, row in enumerate(others):
            style = (INK, ":") if row.name == plan.reference else (COLOURS[-1 - number % len(COLOURS)], (0, (5, 3)))
            axes.axhline(row.values[metric].mean(), color=style[0], linestyle=style[1], linewidth=1, label=_short(row.words, 40))
        numbers = [place[i] for i in range(len(study.values))]
        if study.numeric and min(numbers) > 0 and max(numbers) >= 8 * min(numbers):
            axes.set_xscale("log")
        axes.set_xticks(numbers, [study.words(value) for value in study.values])
        axes.minorticks_off()
        axes.set_ylabel(f"test {metric}")
        where = "black, at the same value" if plan.reference in study.arms else "dotted"
        axes.set_xlabel(study.setting)
        words = f"diamonds: means;\nband: 95 % interval of the difference, from the reference ({where})"
        _caption(figure, f"{_sample(plan, table)} (dots); {words}")
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    return svg()


def _draw_costs(plan: Plan, table: Table, costs: Sequence[str], stem: Path) -> str:
    """The deciding metric against each kind of cost: a number an arm, joined by a line where a study has it at several values."""
    metric, arms = plan.metrics[0], _by_arm(table)
    label = f"{table.dataset}, {table.backbone}: {metric} against {', '.join(COSTS[cost] for cost in costs)}"
    columns = min(2, len(costs))
    lines = math.ceil(len(costs) / columns)
    with _figure(plan, stem, label, (7.5, 3.2 * lines + _legend_height(arms))) as (figure, svg):
        panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
        for panel in panels.ravel()[len(costs) :]:
            panel.set_visible(False)
        for panel, cost in zip(panels.ravel(), costs, strict=False):
            _numbered(plan, table, panel, cost)
            panel.set_xlabel(COSTS[cost])
            panel.xaxis.set_major_formatter(lambda x, _: f"{x / 1e6:g}M" if x >= 1e6 else f"{x / 1e3:g}k" if x >= 1e4 else f"{x:g}")
        for panel in panels[:, 0]:
            panel.set_ylabel(f"test {metric}")
        words = "a number: the mean of an arm; bar: 95 % interval of its difference,"
        words += "\nfrom the reference; costs of one run, with shared stages and labels in full"
        _caption(figure, f"{_sample(plan, table)}; {words}")
        _legend(figure, panels[0, 0])
    return svg()


def _draw_sizes(plan: Plan, table: Table, stem: Path) -> str:
    """The deciding metric against the bytes of the model, on a log axis: above is better."""
    from matplotlib.ticker import LogLocator, NullFormatter

    metric = plan.metrics[0]
    label = f"{table.dataset}, {table.backbone}: {metric} against bytes"
    with _figure(plan, stem, label, (7.5, 3.6 + _legend_height(_by_arm(table)))) as (figure, svg):
        axes = figure.subplots()
        _numbered(plan, table, axes, "bytes")
        axes.set_xscale("log")
        axes.margins(x=0.08)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda x, _: _size(x))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("size of what is deployed (log)")
        axes.set_ylabel(f"test {metric}")
        words = "a number: the mean of an arm;\nbar: 95 % interval of its difference, from the reference"
        _caption(figure, f"{_sample(plan, table)}; {words}")
        _legend(figure, axes)
    return svg()


def _size(count: float) -> str:
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if count >= 1000**power:
            return f"{count / 1000**power:g} {unit}"
    return f"{count:g} B"


def _by_arm(table: Table) -> dict[str, list[Row]]:
    """Arms by name, in a study with their rows at all values."""
    arms: dict[str, list[Row]] = {}
    for row in table.rows:
        arms.setdefault(row.base or row.name, []).append(row)
    return arms


def _numbered(plan: Plan, table: Table, panel: Any, cost: str) -> None:
    """Draw every arm over a cost: its number at the mean, a bar for the interval."""
    metric, by_name = plan.metrics[0], {row.name: row for row in table.rows}
    for number, points in enumerate(_by_arm(table).values(), 1):
        colour = COLOURS[(number - 1) % len(COLOURS)]
        words = points[0].words
        if plan.study and points[0].base:
            words = plan.study.base_words(words, points[0].point)
        known = sorted((getattr(row, cost), row.values[metric].mean(), row.name) for row in points if _known(row, cost))
        for x, _, place in known:
            if edges := _edges(by_name[place], by_name, metric):
                panel.plot([x, x], edges, color=colour, linewidth=1.5, alpha=0.35)
        xs, ys = [x for x, _, _ in known], [y for _, y, _ in known]
        mark = {"marker": f"${number}$", "markersize": 6 if number < 10 else 9, "linewidth": 0.6}
        panel.plot(xs, ys, color=colour, label=_short(words, 44), **mark)


def _legend_height(arms: Sized) -> float:
    return 0.22 * math.ceil(len(arms) / 2) + 0.6


def _legend(figure: Any, panel: Any) -> None:
    """The numbers of ``panel`` in words, without lines."""
    handles, labels = panel.get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False, fontsize=8.5)
    for handle in legend.legend_handles:
        handle.set_linewidth(0)


def _tells(rows: Sequence[Row], cost: str) -> bool:
    """Whether a panel of this cost says anything: at least three different ones."""
    return len({getattr(row, cost) for row in rows if _known(row, cost)}) > 2


def _known(row: Row, cost: str) -> bool:
    return getattr(row, cost) is not None


def _edges(row: Row, by_name: dict[str, Row], metric: str) -> tuple[float, float] | None:
    """The interval of the difference, from the reference's mean."""
    found = row.comparison.get(metric)
    if found is None or row.reference not in by_name:
        return None
    base = float(by_name[row.reference].values[metric].mean())
    return base + found.low, base + found.high


def _caption(figure: Any, words: str) -> None:
    figure.supxlabel(words, fontsize=9)


def _sample(plan: Plan, table: Table) -> str:
    return f"n = {table.sessions:,} sessions, {len(plan.seeds)} seeds"


def _short(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"


@contextmanager
def _figure(plan: Plan, stem: Path, label: str, size: tuple[float, float]) -> Iterator[tuple[Any, Callable[[], str]]]:
    """A figure to draw on; afterwards the files are written and the second value gives the SVG, in the page's colours."""
    import matplotlib
    from matplotlib.figure import Figure

    colours = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    style: dict[Any, Any] = {
        **colours, "svg.fonttype": "none", "font.size": 10, "svg.hashsalt": plan.name,
        "axes.spines.top": False, "axes.spines.right": False,
    }  # fmt: skip
    text = io.StringIO()

    def svg() -> str:
        whole = text.getvalue()
        opening = f'<svg role="img" aria-label="{html.escape(label, quote=True)}" '
        return whole[whole.index("<svg") :].replace(INK, "currentColor").replace("<svg ", opening, 1)

    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        yield figure, svg
        figure.savefig(f"{stem}.png", dpi=150)
        figure.savefig(f"{stem}.pdf")
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})

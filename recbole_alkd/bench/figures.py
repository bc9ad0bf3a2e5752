"""The figures of a report: every arm, a study over a setting, quality against cost and against size.

Each as PNG, PDF and as SVG for the page.
"""

from __future__ import annotations

import html
import importlib.util
import io
import math
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_alkd.files import whole_file

if TYPE_CHECKING:
    from recbole_alkd.bench.plan import Plan
    from recbole_alkd.bench.report import Row, Table

INK = "#010203"  # becomes the colour of the text around the SVG
GREY = "#8a8a8a"
# each stands out on white and on black
COLOURS = (
    "#2f7ed8",
    "#d9541e",
    "#2ca05a",
    "#a65fc4",
    "#b8860b",
    "#d6337c",
    "#1a9aa8",
    "#7a8a3a",
    "#8c6d5a",
    "#6b7fd0",
)
COSTS = {
    "labels": "labels",
    "tokens": "tokens",
    "usd": "USD",
    "all_seconds": "seconds of training and answers",
}


@dataclass(frozen=True)
class Mark:
    """A number that stands at a dot, in the units of the axes."""

    text: str
    x: float
    y: float
    colour: str


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
        except (
            Exception
        ) as error:  # whatever a font or a backend does, the report of the runs is not lost over a figure
            what = str(error).strip().splitlines() or [""]
            left_out.append(f"No figure {name}: {type(error).__name__}: {what[0]}")
    return drawn, left_out


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
        axes.set_yticks(range(len(rows)), [_short(row.words, 46) for row in rows])
        axes.set_xlabel(f"test {metric}")
        words = "diamond: mean;\nbar: 95 % interval of the difference, from the reference (dotted)"
        _caption(figure, f"{_sample(plan, table)} (dots); {words}")
    return svg()


def _draw_study(plan: Plan, table: Table, stem: Path) -> str:
    """The deciding metric over the values of a setting: a line an arm, a band for the interval of its
    difference."""
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
            axes.plot(
                [x for x, _ in points], means, "D-", color=colour, markersize=5, label=_short(words, 40)
            )
            band = [(x, *edges) for x, row in points if (edges := _edges(row, by_name, metric))]
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
                label=_short(row.words, 40),
            )
        numbers = [place[i] for i in range(len(study.values))]
        if study.numeric and min(numbers) > 0 and max(numbers) >= 8 * min(numbers):
            axes.set_xscale("log")
        ticks = [_short(study.words(value), 24) for value in study.values]
        crowded = sum(map(len, ticks)) > 60
        axes.set_xticks(numbers, ticks, rotation=30 if crowded else 0, ha="right" if crowded else "center")
        axes.minorticks_off()
        axes.set_ylabel(f"test {metric}")
        where = "black, at the same value" if plan.reference in study.arms else "dotted"
        axes.set_xlabel(study.setting)
        words = f"diamonds: means;\nband: 95 % interval of the difference, from the reference ({where})"
        _caption(figure, f"{_sample(plan, table)} (dots); {words}")
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    return svg()


def _draw_costs(plan: Plan, table: Table, costs: Sequence[str], stem: Path) -> str:
    """The deciding metric against each kind of cost: a number an arm, joined by a line where a study has it
    at several values."""
    metric, arms = plan.metrics[0], _by_arm(table)
    label = f"{table.dataset}, {table.backbone}: {metric} against {', '.join(COSTS[cost] for cost in costs)}"
    columns = min(2, len(costs))
    lines = math.ceil(len(costs) / columns)
    with _figure(plan, stem, label, (7.5, 3.2 * lines + _legend_height(arms))) as (figure, svg):
        panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
        for panel in panels.ravel()[len(costs) :]:
            panel.set_visible(False)
        numbers = []
        for panel, cost in zip(panels.ravel(), costs, strict=False):
            numbers.append((panel, _numbered(plan, table, panel, cost)))
            panel.set_xlabel(COSTS[cost])
            panel.xaxis.set_major_formatter(
                lambda x, _: f"{x / 1e6:g}M" if x >= 1e6 else f"{x / 1e3:g}k" if x >= 1e4 else f"{x:g}"
            )
        for panel in panels[:, 0]:
            panel.set_ylabel(f"test {metric}")
        words = "a dot: the mean of an arm; bar: 95 % interval of its difference,"
        words += "\nfrom the reference; costs of one run, with shared stages and labels in full"
        _caption(figure, f"{_sample(plan, table)}; {words}")
        _legend(figure, panels[0, 0])
        _place_numbers(figure, numbers)
    return svg()


def _draw_sizes(plan: Plan, table: Table, stem: Path) -> str:
    """The deciding metric against the bytes of the model, on a log axis: above is better."""
    from matplotlib.ticker import NullFormatter

    metric = plan.metrics[0]
    label = f"{table.dataset}, {table.backbone}: {metric} against bytes"
    with _figure(plan, stem, label, (7.5, 3.6 + _legend_height(_by_arm(table)))) as (figure, svg):
        axes = figure.subplots()
        marks = _numbered(plan, table, axes, "bytes")
        axes.set_xscale("log")
        axes.margins(x=0.08)
        low, high = axes.get_xlim()
        axes.set_xticks(size_ticks(low, high))
        axes.set_xlim(low, high)
        axes.xaxis.set_major_formatter(lambda x, _: _size(x))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("size of what is deployed (log)")
        axes.set_ylabel(f"test {metric}")
        words = "a dot: the mean of an arm;\nbar: 95 % interval of its difference, from the reference"
        _caption(figure, f"{_sample(plan, table)}; {words}")
        _legend(figure, axes)
        _place_numbers(figure, [(axes, marks)])
    return svg()


def size_ticks(low: float, high: float, most: int = 9) -> list[float]:
    """Numbers of bytes in [low, high] for a log axis: 1, 2 and 5 times powers of ten, or fewer, so that at
    most ``most`` names stand side by side; the ends where there are not two such numbers between them."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors, step in (((1, 2, 5), 1), ((1,), 1), *(((1,), step) for step in range(2, 16))):
        ticks = [factor * 10.0**power for power in powers if power % step == 0 for factor in factors]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= most:
            break
    return ticks if len(ticks) > 1 else [float(f"{low:.3g}"), float(f"{high:.3g}")]


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


def _numbered(plan: Plan, table: Table, panel: Any, cost: str) -> list[Mark]:
    """Draw every arm over a cost: a dot at the mean, a bar for the interval;
    gives back the numbers that are to stand there."""
    metric, by_name = plan.metrics[0], {row.name: row for row in table.rows}
    marks = []
    for number, points in enumerate(_by_arm(table).values(), 1):
        colour = COLOURS[(number - 1) % len(COLOURS)]
        words = points[0].words
        if plan.study and points[0].base:
            words = plan.study.base_words(words, points[0].point)
        known = sorted(
            (getattr(row, cost), row.values[metric].mean(), row.name) for row in points if _known(row, cost)
        )
        for x, _, place in known:
            if edges := _edges(by_name[place], by_name, metric):
                panel.plot([x, x], edges, color=colour, linewidth=1.5, alpha=0.35)
        xs, ys = [x for x, _, _ in known], [float(y) for _, y, _ in known]
        label = f"{number}  {_short(words, 40)}"
        panel.plot(xs, ys, color=colour, label=label, marker="o", markersize=4, linewidth=0.6)
        marks += [Mark(str(number), x, y, colour) for x, y in zip(xs, ys, strict=True)]
    return marks


def _place_numbers(figure: Any, panels: Sequence[tuple[Any, Sequence[Mark]]]) -> None:
    """Write the numbers beside their dots, the nearest free place each, so that none covers another number or
    a dot.

    The panels must have their final place: nothing may be added to the figure afterwards.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    scale = figure.dpi / 72
    for panel, marks in panels:
        dots = [panel.transData.transform((mark.x, mark.y)) / scale for mark in marks]  # points
        frame = panel.get_window_extent()
        left, right, bottom, top = frame.x0 / scale, frame.x1 / scale, frame.y0 / scale, frame.y1 / scale
        taken = [(x - 3, x + 3, y - 3, y + 3) for x, y in dots]
        for mark, (x, y) in zip(marks, dots, strict=True):
            half = 2.7 * len(mark.text) + 1
            places = []
            for ring in range(1, 12):
                for turn in range(16):
                    angle = 2 * math.pi * turn / 16 + math.pi / 2
                    dx, dy = (5 + 5 * ring) * math.cos(angle), (4 + 5 * ring) * math.sin(angle)
                    box = (x + dx - half, x + dx + half, y + dy - 5, y + dy + 5)
                    inside = left <= box[0] and box[1] <= right and bottom <= box[2] and box[3] <= top
                    places.append((dx, dy, box, inside and not any(_overlap(box, other) for other in taken)))
            dx, dy, box, _ = next((place for place in places if place[3]), places[-1])
            taken.append(box)
            line = {
                "arrowstyle": "-",
                "color": mark.colour,
                "linewidth": 0.5,
                "alpha": 0.6,
                "shrinkA": 4,
                "shrinkB": 2,
            }
            far = math.hypot(dx, dy) > 14
            panel.annotate(
                mark.text, (mark.x, mark.y), (dx, dy), textcoords="offset points", color=mark.colour,
                fontsize=8,
                fontweight="bold", ha="center", va="center", arrowprops=line if far else None,
                gid=f"number-{mark.text}",
            )  # fmt: skip


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]


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
    comparison = row.comparison.get(metric)
    if comparison is None or row.reference not in by_name:
        return None
    base = float(by_name[row.reference].values[metric].mean())
    return base + comparison.low, base + comparison.high


def _caption(figure: Any, words: str) -> None:
    figure.supxlabel(words, fontsize=9)


def _sample(plan: Plan, table: Table) -> str:
    return f"n = {table.sessions:,} sessions, {len(plan.seeds)} seeds"


def _short(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"


@contextmanager
def _figure(
    plan: Plan, stem: Path, label: str, size: tuple[float, float]
) -> Iterator[tuple[Any, Callable[[], str]]]:
    """A figure to draw on; afterwards the files are written and the second value gives the SVG,
    in the page's colours."""
    import matplotlib
    from matplotlib.figure import Figure

    colours = dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    )
    style: dict[Any, Any] = {
        **colours, "svg.fonttype": "none", "font.size": 10, "svg.hashsalt": plan.name,
        "axes.spines.top": False, "axes.spines.right": False,
        "text.parse_math": False,  # a name with two $ is no formula
    }  # fmt: skip
    text = io.StringIO()

    def svg() -> str:
        whole = text.getvalue()
        opening = f'<svg role="img" aria-label="{html.escape(label, quote=True)}" '
        return whole[whole.index("<svg") :].replace(INK, "currentColor").replace("<svg ", opening, 1)

    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        yield figure, svg
        for kind in ("png", "pdf"):
            with whole_file(stem.with_name(f"{stem.name}.{kind}")) as stream:
                figure.savefig(stream, format=kind, dpi=150)
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})

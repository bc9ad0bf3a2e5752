"""What figures of a report share: colours, dots with their numbers, captions, and files in three formats."""

from __future__ import annotations

import html
import io
import itertools
import math
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_alkd.bench.plan import Plan
from recbole_alkd.bench.tables import Row, Table
from recbole_alkd.files import write_picture

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


@dataclass(frozen=True)
class Mark:
    """A number that stands at a dot, in the units of the axes."""

    text: str
    x: float
    y: float
    colour: str


@contextmanager
def new_figure(
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
            write_picture(figure, stem.with_name(f"{stem.name}.{kind}"), dpi=150)
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})


def draw_numbered(plan: Plan, table: Table, panel: Any, cost: str) -> list[Mark]:
    """Draw every arm over a cost: a dot at the mean, a bar for the interval;
    gives back the numbers that are to stand there."""
    metric, by_name = plan.metrics[0], {row.name: row for row in table.rows}
    marks = []
    for number, points in enumerate(by_arm(table).values(), 1):
        colour = COLOURS[(number - 1) % len(COLOURS)]
        words = points[0].words
        if plan.study and points[0].base:
            words = plan.study.base_words(words, points[0].point)
        known = sorted(
            (getattr(row, cost), row.values[metric].mean(), row.name) for row in points if is_known(row, cost)
        )
        for x, _, place in known:
            if edges := interval_ends(by_name[place], by_name, metric):
                panel.plot([x, x], edges, color=colour, linewidth=1.5, alpha=0.35)
        xs, ys = [x for x, _, _ in known], [float(y) for _, y, _ in known]
        label = f"{number}  {shortened(words, 40)}"
        panel.plot(xs, ys, color=colour, label=label, marker="o", markersize=4, linewidth=0.6)
        marks += [Mark(str(number), x, y, colour) for x, y in zip(xs, ys, strict=True)]
    return marks


def place_numbers(figure: Any, panels: Sequence[tuple[Any, Sequence[Mark]]]) -> None:
    """Write the numbers beside their dots, the nearest free place each, so that none covers another number, a
    dot, or a line that is drawn in the panel; in a panel without room, the place that covers least.

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
        lines = list(_line_boxes(panel, scale))
        for mark, (x, y) in zip(marks, dots, strict=True):
            half = 2.7 * len(mark.text) + 1
            places: list[tuple[Any, ...]] = []  # how bad it is, its offset, its box
            for ring in range(1, 12):
                for turn in range(16):
                    angle = 2 * math.pi * turn / 16 + math.pi / 2
                    dx, dy = (5 + 5 * ring) * math.cos(angle), (4 + 5 * ring) * math.sin(angle)
                    box = (x + dx - half, x + dx + half, y + dy - 5, y + dy + 5)
                    outside = not (left <= box[0] and box[1] <= right and bottom <= box[2] and box[3] <= top)
                    covered = [sum(_overlap(box, other) for other in kind) for kind in (taken, lines)]
                    places.append((outside, *covered, len(places), dx, dy, box))
            *_, dx, dy, box = min(places)  # the nearest of those that cover least
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


def _line_boxes(panel: Any, scale: float) -> Iterator[tuple[float, float, float, float]]:
    """Boxes (left, right, bottom, top), in points, that the lines of a panel lie in: one of an upright or
    level line, a chain of small ones along any other."""
    for line in panel.get_lines():
        ends = line.get_transform().transform(line.get_xydata()) / scale
        for (x, y), (to_x, to_y) in itertools.pairwise(ends.tolist()):
            steps = 1 if x == to_x or y == to_y else max(1, round(math.hypot(to_x - x, to_y - y) / 4))
            for step in range(steps):
                xs = (x + (to_x - x) * step / steps, x + (to_x - x) * (step + 1) / steps)
                ys = (y + (to_y - y) * step / steps, y + (to_y - y) * (step + 1) / steps)
                yield min(xs) - 1, max(xs) + 1, min(ys) - 1, max(ys) + 1


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]


def draw_legend(figure: Any, panel: Any) -> None:
    """The numbers of ``panel`` in words, without lines."""
    handles, labels = panel.get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False, fontsize=8.5)
    for handle in legend.legend_handles:
        handle.set_linewidth(0)


def legend_height(arms: Sized) -> float:
    return 0.22 * math.ceil(len(arms) / 2) + 0.6


def by_arm(table: Table) -> dict[str, list[Row]]:
    """Arms by name, in a study with their rows at all values."""
    arms: dict[str, list[Row]] = {}
    for row in table.rows:
        arms.setdefault(row.base or row.name, []).append(row)
    return arms


def is_known(row: Row, cost: str) -> bool:
    return getattr(row, cost) is not None


def interval_ends(row: Row, by_name: dict[str, Row], metric: str) -> tuple[float, float] | None:
    """The interval of the difference, from the reference's mean."""
    comparison = row.comparison.get(metric)
    if comparison is None or row.reference not in by_name:
        return None
    base = float(by_name[row.reference].values[metric].mean())
    return base + comparison.low, base + comparison.high


def draw_caption(figure: Any, words: str) -> None:
    figure.supxlabel(words, fontsize=9)


def sample_words(plan: Plan, table: Table) -> str:
    return f"n = {table.sessions:,} sessions, {len(plan.seeds)} seeds"


def shortened(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"


def size_words(count: float) -> str:
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if count >= 1000**power:
            return f"{count / 1000**power:g} {unit}"
    return f"{count:g} B"


def draw_size_axis(axes: Any, metric: str) -> None:
    """Give a panel of ``metric`` against bytes its axes, once everything is drawn: bytes on a log axis."""
    from matplotlib.ticker import NullFormatter

    axes.set_xscale("log")
    axes.margins(x=0.08)
    low, high = axes.get_xlim()
    axes.set_xticks(size_ticks(low, high))
    axes.set_xlim(low, high)
    axes.xaxis.set_major_formatter(lambda x, _: size_words(x))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("size of what is deployed (log)")
    axes.set_ylabel(f"test {metric}")


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

"""The curve of ``simulated_items``: what a share of right answers is worth, as a table and as a picture.

python -m recbole_alkd.bench.simulated_page FOLDER --picture items-curve.png
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recbole_alkd.bench.simulated_rows import METRIC, read_gains
from recbole_alkd.files import write_picture
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.statistics import bootstrap_interval

REFERENCE = "half"
OTHERS = ("LLM", "counted order")  # ends of the names of rows that no simulated teacher answered


@dataclass(frozen=True)
class Point:
    """One row of the study over its seeds.

    Attributes:
        dataset, name: of the row. seeds: how many. questions: their mean number.
        true: the share of named items that are true; None for the table of all sessions.
        gain, low, high: mean difference from the table of the half without labels, and its interval.
        reference: that table's mean. weights: what validation chose, seed by seed.
        tokens, seconds: of the LLM's answers, means; None for simulated ones.
    """

    dataset: str
    name: str
    seeds: int
    questions: float
    true: float | None
    gain: float
    low: float
    high: float
    reference: float
    weights: tuple[float | None, ...]
    tokens: float | None
    seconds: float | None

    @property
    def share(self) -> float:
        """The gain as a share of the reference."""
        return self.gain / self.reference

    def cells(self) -> list[str]:
        """A row of the table."""
        gain, low, high = (f"{100 * one / self.reference:+.1f}" for one in (self.gain, self.low, self.high))
        used = sum(1 for weight in self.weights if weight)
        true = "" if self.true is None else f"{self.true:.2f}"
        weight = "" if self.true is None else f"{used} of {self.seeds}"
        llm = "" if self.tokens is None else f"{self.tokens:,.0f}"
        seconds = "" if self.seconds is None else f"{self.seconds:.1f}"
        return [self.name, true, f"{gain} %", f"[{low}, {high}]", weight, llm, seconds]


def read_points(folder: Path) -> list[Point]:
    """The rows of every data set, over the seeds that have them.

    Raises:
        AlkdError: no study in the folder.
    """
    files = sorted(folder.glob("*-*.json"))
    studies: dict[str, list[tuple[dict[str, Any], dict[str, np.ndarray]]]] = {}
    for file in files:
        facts = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(facts, dict) or "questions" not in facts:
            continue
        studies.setdefault(facts["dataset"], []).append((facts, read_gains(file)))
    if not studies:
        raise AlkdError(f"{str(folder)!r} has no study of simulated_items; give the folder of its --out")
    return [point for dataset, seeds in studies.items() for point in _points(dataset, seeds)]


def _points(dataset: str, seeds: Sequence[tuple[dict[str, Any], dict[str, np.ndarray]]]) -> list[Point]:
    names = dict.fromkeys(
        row["name"] for facts, _ in seeds for row in facts["rows"] if row["name"] != REFERENCE
    )
    points = []
    for name in names:
        mine = [(facts, gains) for facts, gains in seeds if name in gains and REFERENCE in gains]
        rows = [next(row for row in facts["rows"] if row["name"] == name) for facts, _ in mine]
        differences = [gains[name].astype(float) - gains[REFERENCE] for _, gains in mine]
        low, high = bootstrap_interval(differences, True, np.random.default_rng(0))
        asked = [facts["questions"].get(name.rpartition(", ")[0], 0) for facts, _ in mine]

        def mean(key: str, rows: list[dict[str, Any]] = rows) -> float | None:
            values = [row[key] for row in rows if row.get(key) is not None]
            return float(np.mean(values)) if values else None

        points.append(
            Point(
                dataset,
                name,
                len(mine),
                float(np.mean(asked)),
                mean("true"),
                float(np.mean([one.mean() for one in differences])),
                low,
                high,
                float(np.mean([gains[REFERENCE].mean() for _, gains in mine])),
                tuple(row.get("weight") for row in rows),
                mean("tokens"),
                mean("seconds"),
            )
        )
    return points


def page(points: Sequence[Point]) -> str:
    """The tables as Markdown, one a data set."""
    lines = []
    for dataset in dict.fromkeys(point.dataset for point in points):
        mine = [point for point in points if point.dataset == dataset]
        seeds = max(point.seeds for point in mine)
        lines += [
            f"### {dataset}",
            "",
            f"Table of one half of the training sessions: {METRIC} {mine[0].reference:.5f} ({seeds} seeds).",
            "",
            "| asked, right at a place | true | gain | 95 % interval, % | edges used | tokens | seconds |",
            "|---|---|---|---|---|---|---|",
            *(f"| {' | '.join(point.cells())} |" for point in mine),
            "",
        ]
    return "\n".join(lines)


def read_asked(folder: Path) -> dict[str, float]:
    """Data set -> the share of the LLM's named items that are true, the mean of the seeds that ``--ask``
    has."""
    shares: dict[str, list[float]] = {}
    for file in sorted(folder.glob("*-llm.json")):
        facts = json.loads(file.read_text(encoding="utf-8"))
        shares.setdefault(facts["dataset"], []).append(float(facts["true"]["llm"]))
    return {dataset: float(np.mean(values)) for dataset, values in shares.items()}


def draw(points: Sequence[Point], file: Path, asked: Mapping[str, float] | None = None) -> None:
    """Gain over the share of true answers: a panel a data set, a line a choice of questions with the
    interval of "all" as a band, the LLM as a cross.

    Args:
        asked: ``read_asked``; an upright line in the panel of a data set.

    Raises:
        OSError: the file cannot be written; it is written whole or not at all.
    """
    import matplotlib
    from matplotlib.figure import Figure

    from recbole_alkd.bench.drawing import COLOURS, GREY

    datasets = list(dict.fromkeys(point.dataset for point in points))
    with matplotlib.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(4 * len(datasets), 4), layout="constrained")
        panels = figure.subplots(1, len(datasets), squeeze=False)[0]
        for panel, dataset in zip(panels, datasets, strict=True):
            mine = [point for point in points if point.dataset == dataset and point.true is not None]
            panel.axhline(0, color=GREY, linewidth=0.8)
            if asked and dataset in asked:
                panel.axvline(asked[dataset], color=GREY, linestyle=":", label="the bundled LLM, alone")
            choices = list(dict.fromkeys(point.name.rpartition(", ")[0] for point in mine))
            for colour, choice in zip(COLOURS, choices, strict=False):
                _draw_choice(panel, colour, choice, mine)
            panel.set_title(dataset)
            panel.set_xlabel("share of named items that are true")
            panel.set_xlim(right=1.02)
        panels[0].set_ylabel(f"gain in test {METRIC}, %")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=len(labels))
        write_picture(figure, file, dpi=110)


def _draw_choice(panel: Any, colour: str, choice: str, points: Sequence[Point]) -> None:
    of = [point for point in points if point.name.rpartition(", ")[0] == choice]
    line = sorted((point for point in of if not point.name.endswith(OTHERS)), key=lambda p: p.true or 0)
    xs, ys = [point.true for point in line], [100 * point.share for point in line]
    label = "every item asked" if choice == "all" else f"500 items, {choice}"
    panel.plot(xs, ys, color=colour, marker="o", markersize=4, label=label)
    if choice == "all":  # four bands, one over the other, say nothing
        lows, highs = zip(*((point.low, point.high) for point in line), strict=True)
        ends = [np.array(end) * 100 / line[0].reference for end in (lows, highs)]
        panel.fill_between(xs, *ends, color=colour, alpha=0.15, linewidth=0)
    for point in of:
        if point.name.endswith(OTHERS[0]):
            panel.plot(point.true, 100 * point.share, "x", color=colour, markersize=6)


def main(argv: Sequence[str] | None = None) -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="--out of simulated_items")
    parser.add_argument("--picture", type=Path, default=None, help="image file; needs the extra `bench`")
    args = parser.parse_args(argv)
    points = read_points(args.folder)
    print(page(points))
    if args.picture:
        draw(points, args.picture, read_asked(args.folder))


if __name__ == "__main__":
    main()

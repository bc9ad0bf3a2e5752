"""Draws both pictures of *Quality at equal bytes* from the numbers of that table in docs/results/bytes.md.

``python docs/figures/bytes.py`` in a checkout. `recbole-alkd bench students` draws the same with intervals of
the differences, from ranks that it has computed itself.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from recbole_alkd.bench.drawing import (
    COLOURS,
    draw_caption,
    draw_legend,
    draw_numbered,
    draw_size_axis,
    legend_height,
    new_figure,
    place_numbers,
)

HERE = Path(__file__).parent
METRIC = "ndcg@10"
# the columns of size and quality of each data set, and its test sessions
SETS = {
    "alkdrec-ml": (1, 2, "2,465 sessions"),
    "online-retail": (5, 6, "1,321 sessions, another split a seed"),
}


def rows_of(text: str, size: int, quality: int) -> list[Any]:
    """The arms of the table, with what a figure asks of a row: bytes, mean, and deviation over seeds."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = []
    for line in lines[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        mean, deviation = (float(part) for part in re.findall(r"[0-9.]+", cells[quality]))
        rows.append(
            SimpleNamespace(
                name=cells[0], words=cells[0], base="", point=None, reference=None, comparison={},
                values={METRIC: np.array([mean])}, deviation=deviation,
                bytes=1024 * int(cells[size].replace(",", "")),
            )
        )  # fmt: skip
    return rows


def draw(dataset: str, folder: Path = HERE) -> Path:
    """Draw the picture of one data set into ``folder``."""
    size, quality, sessions = SETS[dataset]
    rows = rows_of((HERE.parent / "results" / "bytes.md").read_text(encoding="utf-8"), size, quality)
    plan: Any = SimpleNamespace(name="students", metrics=(METRIC,), study=None, reference="")
    table: Any = SimpleNamespace(rows=rows)
    stem = folder / f"bytes-{dataset}"
    label = f"{dataset}: {METRIC} against bytes"
    with new_figure(plan, stem, label, (7.5, 3.6 + legend_height([row.name for row in rows]))) as (figure, _):
        axes = figure.subplots()
        marks = draw_numbered(plan, table, axes, "bytes")
        for number, row in enumerate(rows):
            ends = [row.values[METRIC][0] - row.deviation, row.values[METRIC][0] + row.deviation]
            axes.plot([row.bytes] * 2, ends, color=COLOURS[number % len(COLOURS)], linewidth=1.5, alpha=0.35)
        draw_size_axis(axes, METRIC)
        words = "a dot: the mean of an arm;\nbar: one standard deviation over seeds to either side"
        draw_caption(figure, f"n = {sessions}, 3 seeds; {words}")
        draw_legend(figure, axes)
        place_numbers(figure, [(axes, marks)])
    stem.with_suffix(".pdf").unlink()
    return stem.with_suffix(".png")


if __name__ == "__main__":
    for dataset in SETS:
        print(draw(dataset))

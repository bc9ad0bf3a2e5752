"""The columns of the tables of a report: what is shown in a cell, and the value that its column is
sorted by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_alkd.bench.target_groups import WORDS

if TYPE_CHECKING:
    from recbole_alkd.bench.statistics import Comparison
    from recbole_alkd.bench.tables import Row, Table

MINUS = "\N{MINUS SIGN}"
HEADER = (
    "arm", "verdict", "metric", "mean", "std", "difference", "95 % interval", "p (Holm)", "detectable",
    "against best LLM-free",
)  # fmt: skip
COST_HEADER = ("arm", "parameters", "KiB", "labels", "tokens", "USD", "seconds")
NAN = float("nan")


@dataclass(frozen=True)
class Cell:
    """What is shown, the value that its column is sorted by, and ``mark``, the class of a verdict on the
    page."""

    text: str
    value: Any
    mark: str = ""


@dataclass(frozen=True)
class Sheet:
    """A table to sort. The first column names the arm."""

    title: str
    words: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def cells(row: Row, metric: str) -> list[Cell]:
    """The columns of ``HEADER``: what came out and what it is worth."""
    values, comparison = row.values[metric], row.comparison.get(metric)
    std = float(np.std(values, ddof=1)) if len(values) > 1 else NAN
    reference = "reference" if row.is_reference else ""
    name, measured = Cell(row.words, row.words), [_number(values.mean()), _number(std)]
    best = _against_best(row, metric)
    if comparison is None:
        return [name, Cell(reference, reference), Cell(metric, metric), *measured, *[Cell("", NAN)] * 4, best]
    mark = (
        (comparison.direction if comparison.sure else f"{comparison.direction}-maybe")
        if comparison.sure or comparison.apart
        else ""
    )
    change = signed(comparison.difference) + share(comparison)
    interval = f"[{signed(comparison.low)}, {signed(comparison.high)}]"
    return [
        name, Cell(comparison.verdict, comparison.verdict, mark if not np.isnan(comparison.p_holm) else ""),
        Cell(metric, metric), *measured,
        Cell(change, comparison.difference), Cell(interval, comparison.low), _p(comparison),
        _number(comparison.detectable), best,
    ]  # fmt: skip


def _against_best(row: Row, metric: str) -> Cell:
    """The difference from the best arm without LLM and titles, with its interval; empty for that arm."""
    comparison = row.against_best.get(metric)
    if comparison is None:
        return Cell("", NAN)
    interval = f"[{signed(comparison.low)}, {signed(comparison.high)}]"
    return Cell(
        f"{signed(comparison.difference)}{share(comparison)} {interval}",
        comparison.difference,
        comparison.direction if comparison.apart else "",
    )


def cost_cells(row: Row) -> list[Cell]:
    """The columns of ``COST_HEADER``: what an arm takes and what it rests on."""
    price = Cell("no price", NAN) if row.usd is None else _number(row.usd, 2)
    counts = [
        (row.parameters, row.parameters),
        (row.bytes / 1024, row.bytes),
        (row.labels, row.labels),
        (row.tokens, row.tokens),
    ]
    seconds = Cell(f"{row.all_seconds:,.1f}", row.all_seconds)
    return [
        Cell(row.words, row.words),
        *(Cell(f"{shown:,.0f}", value) for shown, value in counts),
        price,
        seconds,
    ]


def group_header(table: Table) -> list[str]:
    """The columns of ``group_cells``."""
    kinds = ("", ": difference", ": 95 % interval")
    return ["arm", "metric", *(f"{WORDS[name]}{kind}" for name in table.targets for kind in kinds)]


def group_cells(table: Table, row: Row, metric: str) -> list[Cell]:
    """The row of an arm in the table that is split by groups of targets: what is shown and what a column is
    sorted by."""
    shown = [Cell(row.words, row.words), Cell(metric, metric)]
    for name in table.targets:
        part = row.groups[metric].get(name)
        shown.append(_number(part.mean if part else NAN))
        if part is None or part.difference is None:
            shown += [Cell("reference" if row.is_reference else "", 0.0), Cell("", NAN)]
        else:
            difference, low, high = part.difference
            shown += [Cell(signed(difference), difference), Cell(f"[{signed(low)}, {signed(high)}]", low)]
    return shown


def _p(comparison: Comparison) -> Cell:
    """The corrected p as a table shows it, and over what it was tested."""
    if np.isnan(comparison.p_holm):
        return Cell("n/a", NAN)
    words = "<0.001" if comparison.p_holm < 0.001 else f"{comparison.p_holm:.3f}"
    return Cell(f"{words} ({comparison.test})", comparison.p_holm)


def _number(value: float, digits: int = 5) -> Cell:
    return Cell("" if np.isnan(value) else f"{value:.{digits}f}", float(value))


def share(comparison: Comparison) -> str:
    """The difference as a share of the reference's mean, in brackets; nothing where that is 0."""
    return "" if np.isnan(comparison.relative) else f" ({signed(100 * comparison.relative, 0)} %)"


def signed(value: float, digits: int = 5) -> str:
    return f"{value:+.{digits}f}".replace("-", MINUS)

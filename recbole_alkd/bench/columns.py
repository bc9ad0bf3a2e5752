"""The columns of the tables of a report: what is shown in a cell, and the value that its column is sorted by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_alkd.bench.target_groups import WORDS

if TYPE_CHECKING:
    from recbole_alkd.bench.report import Row, Table
    from recbole_alkd.bench.statistics import Comparison

MINUS = "\N{MINUS SIGN}"
HEADER = (
    "arm", "metric", "mean", "std", "difference", "95 % interval", "p (Holm)", "verdict", "detectable",
    "parameters", "KiB", "labels", "tokens", "USD", "seconds",
)  # fmt: skip


def cells(row: Row, metric: str) -> list[tuple[str, Any]]:
    """The columns of ``HEADER``: what is shown, and what a column is sorted by."""
    values, found = row.values[metric], row.comparison.get(metric)
    std = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    shown: list[tuple[str, Any]] = [(row.words, row.words), (metric, metric), _number(values.mean()), _number(std)]
    if found is None:
        shown += [("reference" if row.is_reference else "", 0.0), *[("", float("nan"))] * 2, ("", ""), ("", float("nan"))]
    else:
        change = signed(found.difference) + share(found)
        interval = f"[{signed(found.low)}, {signed(found.high)}]"
        shown += [(change, found.difference), (interval, found.low), _p(found)]
        shown += [(found.verdict, found.verdict), _number(found.detectable)]
    shown += [(f"{row.parameters:,}", row.parameters), (f"{row.bytes / 1024:,.0f}", row.bytes), (f"{row.labels:,.0f}", row.labels)]
    shown += [(f"{row.tokens:,.0f}", row.tokens), ("no price", float("nan")) if row.usd is None else _number(row.usd, 2)]
    return [*shown, (f"{row.all_seconds:,.1f}", row.all_seconds)]


def group_header(table: Table) -> list[str]:
    """The columns of ``group_cells``."""
    kinds = ("", ": difference", ": 95 % interval")
    return ["arm", "metric", *(f"{WORDS[name]}{kind}" for name in table.targets for kind in kinds)]


def group_cells(table: Table, row: Row, metric: str) -> list[tuple[str, Any]]:
    """The row of an arm in the table that is split by groups of targets: what is shown and what a column is sorted by."""
    shown: list[tuple[str, Any]] = [(row.words, row.words), (metric, metric)]
    for name in table.targets:
        part = row.groups[metric].get(name)
        shown.append(_number(part.mean if part else float("nan")))
        if part is None or part.difference is None:
            shown += [("reference" if row.is_reference else "", 0.0), ("", float("nan"))]
        else:
            difference, low, high = part.difference
            shown += [(signed(difference), difference), (f"[{signed(low)}, {signed(high)}]", low)]
    return shown


def _p(found: Comparison) -> tuple[str, float]:
    """The corrected p as a table shows it; where it is of sessions, it says so."""
    if np.isnan(found.p_holm):
        return "n/a", float("nan")
    words = "<0.001" if found.p_holm < 0.001 else f"{found.p_holm:.3f}"
    return words + (" (sessions)" if found.test == "sessions" else ""), found.p_holm


def _number(value: float, digits: int = 5) -> tuple[str, float]:
    return ("" if np.isnan(value) else f"{value:.{digits}f}", float(value))


def share(found: Comparison) -> str:
    """The difference as a share of the reference's mean, in brackets; nothing where that is 0."""
    return "" if np.isnan(found.relative) else f" ({signed(100 * found.relative, 0)} %)"


def signed(value: float, digits: int = 5) -> str:
    return f"{value:+.{digits}f}".replace("-", MINUS)

"""The verdicts of a report in words, and how its numbers came about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recbole_alkd.bench.columns import share, signed
from recbole_alkd.bench.statistics import NO_VERDICT, SAME

if TYPE_CHECKING:
    from recbole_alkd.bench.plan import Plan
    from recbole_alkd.bench.tables import Row, Table


@dataclass(frozen=True)
class Verdicts:
    """What a table says, in words: what was compared, then each verdict with its arms.

    Attributes:
        lead: one sentence on the best arm beside the reference, with its interval; empty where nothing was
            compared.
    """

    head: str
    parts: list[str]
    lead: str = ""

    @property
    def sentence(self) -> str:
        return f"{self.head}: {'. '.join(self.parts)}."


def verdicts_of(plan: Plan, table: Table) -> Verdicts:
    """What the deciding metric says of a table."""
    metric = plan.metrics[0]

    def change(row: Row) -> str:
        return share(row.comparison[metric])

    compared = [row for row in table.rows if metric in row.comparison]
    seeds = max((row.comparison[metric].seeds for row in compared), default=0)
    head = f"{table.dataset}, {table.backbone}, test {metric}, "
    count = seeds or len(plan.seeds)
    head += f"{count} seed{'s' if count > 1 else ''}, against {plan.reference_words}"
    if not compared:
        return Verdicts(
            head, ["no verdict: no seed has a finished run of both the reference and another arm"]
        )
    comparisons = {row.name: row.comparison[metric] for row in compared}
    lead = _lead(plan, compared)
    if seeds < 2:
        parts = ["no verdict: one seed says nothing about seeds, and no test was made"]
        for direction, words in (("better", "higher"), ("worse", "lower")):
            which = [
                row
                for row in compared
                if comparisons[row.name].apart and comparisons[row.name].direction == direction
            ]
            parts += (
                [f"{words} by the interval over sessions alone: {_listed(plan, which, change)}"]
                if which
                else []
            )
        return Verdicts(head, parts, lead)
    groups: dict[str, list[Row]] = {}
    for row in compared:
        groups.setdefault(comparisons[row.name].verdict, []).append(row)
    order: list[str] = [verdict for verdict in ("better", "worse") if verdict in groups]
    order += [verdict for verdict in groups if verdict not in ("better", "worse", SAME, NO_VERDICT)]
    order += [verdict for verdict in (SAME, NO_VERDICT) if verdict in groups]
    parts = [
        f"{verdict}: {_listed(plan, groups[verdict], change if verdict != SAME else _nothing)}"
        for verdict in order
    ]
    if "better" not in groups:
        half = any(verdict.startswith("better") for verdict in groups)
        parts.insert(0, "no gain that test and interval agree on" if half else "no measurable gain")
    return Verdicts(head, parts, lead)


def _lead(plan: Plan, compared: Sequence[Row]) -> str:
    metric = plan.metrics[0]
    row = max(compared, key=lambda one: one.comparison[metric].difference)
    best = row.comparison[metric]
    name = row.words
    if plan.study and row.base:
        name = f"{plan.study.base_words(row.words, row.point)}, {plan.study.setting} "
        name += plan.study.words(row.point)
    return (
        f"Best beside {plan.reference_words}: {name}, {metric} {row.values[metric].mean():.4f}, "
        f"{signed(best.difference, 4)}{share(best)}, 95 % interval "
        f"[{signed(best.low, 4)}, {signed(best.high, 4)}]: {best.verdict}."
    )


def _nothing(row: Row) -> str:
    return ""


def _listed(plan: Plan, rows: Sequence[Row], more: Callable[[Row], str]) -> str:
    """Arms in a sentence; of a studied one the values stand behind it."""
    items: dict[str, list[str]] = {}
    for row in rows:
        if plan.study and row.base:
            head = f"{plan.study.base_words(row.words, row.point)}, {plan.study.setting}"
            items.setdefault(head, []).append(plan.study.words(row.point) + more(row))
        else:
            items[row.words + more(row)] = []
    return "; ".join(f"{head} {', '.join(points)}".rstrip() for head, points in items.items())


def method(plan: Plan) -> str:
    """How the numbers came about, for the foot of every report."""
    return (
        f"Mean and standard deviation over seeds {', '.join(map(str, plan.seeds))}. Ranks are over all "
        "items, mean rank at ties. "
        "Null hypothesis: an arm and the reference have the same expected metric. p names its test, "
        "one for all metrics of an arm: "
        "'(seeds)' is a two-sided paired t-test over seeds; '(sessions)' a two-sided paired randomisation "
        "test over sessions, "
        f"where seeds hardly change the difference in {plan.metrics[0]} (as between arms that count and do "
        "not train); n/a where "
        "there is nothing to test. Holm's correction is over the arms of a table. Interval: "
        "95 % bootstrap over seeds and sessions "
        "(corrected for few seeds). Detectable: the true difference that a t-test on the same numbers would "
        "find with 80 % "
        "probability. Better or worse: the corrected p is below 0.05 and the interval excludes 0. '... by "
        "the interval': only the "
        "interval excludes 0; the corrected test on so few seeds (sessions) would miss a true difference of "
        "this size about half "
        "the time or more. 'No verdict': no test was possible. "
        "Against best LLM-free: paired, with its interval, the arm that knows neither titles nor an LLM and "
        "has the highest "
        f"{plan.metrics[0]} on validation; no test was made. "
        "Labels, tokens, USD and seconds are those of one run, with shared stages and labels in full; "
        "seconds are wall time of "
        "training and answers, and runs may have shared the machine."
    )

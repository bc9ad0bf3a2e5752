"""What a search leaves: the best settings as a file that a run takes, every trial as a table, a picture."""

from __future__ import annotations

import csv
import importlib.util
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from recbole_alkd.files import write_picture, write_whole
from recbole_alkd.tune.space import Axis, Range
from recbole_alkd.tune.study import Plan, best_trial, values_of

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

BEST, TABLE, PICTURE = "best.yaml", "trials.csv", "search"


def write_results(study: Study, plan: Plan, folder: Path) -> dict[str, Any] | None:
    """Write ``best.yaml``, ``trials.csv`` and, where matplotlib is there, ``search.png`` and ``search.svg``.

    A picture that cannot be written is a line on standard error: the search has its result.

    Returns:
        The best trial's settings; None where no trial is finished.
    """
    trials = study.get_trials(deepcopy=False)
    write_whole(folder / TABLE, _table(trials, plan.space))
    best = best_trial(study)
    if best is None:
        return None
    values = values_of(plan.space, best.params)
    head = f"# trial {best.number + 1} of {len(trials)}: {plan.metric} {best.value:.6g} on validation\n"
    write_whole(folder / BEST, head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    if importlib.util.find_spec("matplotlib"):
        try:
            draw(trials, plan, folder / PICTURE)
        except OSError as error:
            words = f"{folder / PICTURE}: the picture cannot be written: {error.strerror}"
            print(f"warning: {words}", file=sys.stderr)
    return values


def _table(trials: list[FrozenTrial], space: Mapping[str, Axis]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["trial", "state", "score", "seconds", *space])
    for trial in trials:
        seconds = trial.duration.total_seconds() if trial.duration else ""
        score = "" if trial.value is None else trial.value
        writer.writerow(
            [
                trial.number + 1,
                trial.state.name.lower(),
                score,
                seconds,
                *(trial.params.get(key, "") for key in space),
            ]
        )
    return text.getvalue()


def draw(trials: list[FrozenTrial], plan: Plan, stem: Path) -> None:
    """Score by trial with the best so far, then score by each setting.

    A trial that was given up is a cross at its last score.

    Raises:
        OSError: a file cannot be written; as on a full disk.
    """
    from matplotlib.figure import Figure

    count = 1 + len(plan.space)
    columns = min(count, 3)
    lines = -(-count // columns)
    figure = Figure(figsize=(4.2 * columns, 3.0 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for panel in panels[count:]:
        panel.set_visible(False)
    shown = [trial for trial in trials if _score(trial) is not None]
    done = [trial for trial in shown if trial.state.name == "COMPLETE"]
    best: list[float] = []
    top: float | None = None
    for trial in done:
        value = float(trial.value or 0.0)
        if top is None or (value > top if plan.bigger else value < top):
            top = value
        best.append(top)
    panels[0].step(
        [trial.number + 1 for trial in done],
        best,
        where="post",
        color="#d9541e",
        linewidth=1.2,
        label="best so far",
    )
    _dots(panels[0], shown, lambda trial: trial.number + 1)
    panels[0].set_xlabel("trial")
    panels[0].legend(frameon=False, fontsize=8)
    for panel, (key, axis) in zip(panels[1:], plan.space.items(), strict=False):
        _dots(panel, shown, lambda trial, key=key: trial.params.get(key))
        panel.set_xlabel(key, parse_math=False)
        if isinstance(axis, Range) and axis.log:
            panel.set_xscale("log")
    for panel in panels[:count]:
        panel.set_ylabel(f"{plan.metric} on validation", parse_math=False)
        panel.spines[["top", "right"]].set_visible(False)
    for kind in ("png", "svg"):
        write_picture(figure, stem.with_suffix(f".{kind}"), dpi=130)


def _score(trial: FrozenTrial) -> float | None:
    if trial.state.name == "COMPLETE":
        return trial.value
    return next(
        iter(trial.intermediate_values[last] for last in sorted(trial.intermediate_values, reverse=True)),
        None,
    )


def _dots(panel: Any, trials: list[FrozenTrial], place: Any) -> None:
    for state, mark in (("COMPLETE", "o"), ("PRUNED", "x")):
        chosen = [trial for trial in trials if trial.state.name == state and place(trial) is not None]
        panel.plot(
            [place(trial) for trial in chosen],
            [_score(trial) for trial in chosen],
            mark,
            color="#2f7ed8",
            markersize=5,
        )

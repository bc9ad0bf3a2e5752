"""Trying settings on validation (``student_tune``): the same number for every arm, and their cost is counted.

A try is the stage that a run with those settings would train, from the same initial weights and seeds. The
best on validation is the stage; nothing is trained again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from logging import Logger
from time import perf_counter
from typing import Any

from recbole.utils import calculate_valid_score, set_color

from recbole_alkd.learner.outcome import StageOutcome
from recbole_alkd.learner.role_run import RoleRun
from recbole_alkd.learner.search_space import Values, role_tries
from recbole_alkd.learner.stage_names import stage_words
from recbole_alkd.model.backbone import SessionRecommender
from recbole_alkd.trainer.report_words import settings_in_words, tuned_line
from recbole_alkd.trainer.run import Run

Better = Callable[[StageOutcome], bool]  # whether an outcome is better than all before
Train = Callable[[int, Values, Better], StageOutcome]  # (number, settings, better) -> outcome


@dataclass(frozen=True)
class Tried:
    """What came of trying.

    Attributes:
        outcome: the best try's, with the seconds of all of them. won: its number.
        report: metric, seconds, won, and tried: settings ({} are the run's own), valid score (None: it
            diverged), seconds.
    """

    outcome: StageOutcome
    won: int
    report: dict[str, Any]


def tried_out(
    name: str,
    tries: Sequence[Values],
    train: Train,
    metric: str,
    bigger: bool,
    logger: Logger,
) -> Tried:
    """Train every try; of equal ones the first is the best, so that the run's own settings give way to better
    ones only.

    Args:
        tries: settings, {} first.
        train: trains a try.
        metric, bigger: RecBole's ``valid_metric``, and whether more of it is better.
    """
    best: StageOutcome | None = None
    won, top, total, tried = 0, 0.0, 0.0, []

    def score_of(outcome: StageOutcome) -> float:
        assert outcome.valid is not None
        return float(calculate_valid_score(outcome.valid, metric))

    def better(outcome: StageOutcome) -> bool:
        return best is None or (score_of(outcome) > top if bigger else score_of(outcome) < top)

    for number, values in enumerate(tries):
        begin, score = perf_counter(), None
        try:
            outcome = train(number, values, better)
            score, seconds = score_of(outcome), outcome.seconds
            if better(outcome):
                best, won, top = outcome, number, score
        except ValueError as error:
            # a learning rate may be too high for one model; the run's own settings must work
            if number == 0 or "nan (not a number)" not in str(error):
                raise
            seconds = round(perf_counter() - begin, 3)
        total += seconds
        tried.append({"settings": values, "valid": score, "seconds": seconds})
        words = f"{settings_in_words(values)}: " + ("diverged" if score is None else f"{metric} {score:.4f}")
        which = f"{stage_words(name)}, {number + 1} of {len(tries)}"
        logger.info(set_color("tuning", "blue") + f" {which}: {words}, {seconds:.1f} s")
    assert best is not None
    report: dict[str, Any] = {"metric": metric, "tried": tried, "won": won, "seconds": round(total, 3)}
    logger.info(set_color("tuning", "blue") + f" {tuned_line(name, report)}")
    return Tried(dataclasses.replace(best, seconds=report["seconds"]), won, report)


def best_of(run: Run, stage: str, tries: Sequence[Values], train: Train) -> Tried:
    """``tried_out`` for a stage of a run; ``run.tuned`` has the report."""
    trainer = run.trainer
    tried = tried_out(stage, tries, train, trainer.valid_metric, trainer.valid_metric_bigger, trainer.logger)
    run.tuned[stage] = tried.report
    return tried


def train_role(run: Run, role: str, model: SessionRecommender, seed: Callable[[], None]) -> None:
    """Train the recommender of ``role``: under the run's settings, or the best of those that ``student_tune``
    tries.

    ``run.roles[role]`` is then the run as later stages see it. ``seed``: seeds the initial weights of
    ``model``.
    """
    learner, own = run.learners[role], RoleRun.of(run.config, run.settings, run.train_data, role)
    if not run.settings.backbone.student_tune or not learner.tunable:
        with run.task(role, own) as task:
            run.outcomes[role] = learner.fit(task, model, own)
        run.roles[role] = own
        return
    tries = role_tries(run.config, run.settings, role)

    def build(laid: RoleRun) -> None:
        seed()
        model.build(laid.config, run.train_part, laid.settings, role)

    def train(number: int, values: Values, better: Better) -> StageOutcome:
        laid = own.laid(role, values)
        if number:
            build(laid)
        with run.task(role, laid, number) as task:
            return learner.fit(task, model, laid)

    best = best_of(run, role, tries, train)
    run.roles[role], run.outcomes[role] = own.laid(role, tries[best.won]), best.outcome
    build(run.roles[role])
    model.load_state_dict(best.outcome.state)

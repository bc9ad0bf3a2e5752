"""Trying settings on validation (``student_tune``): the same number for every arm, and what each of them cost is counted.

A try is the stage that a run with those settings would train, from the same initial weights and seeds. The best on
validation is the stage; nothing is trained again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from logging import Logger
from time import perf_counter
from typing import Any

from recbole.data.dataloader import TrainDataLoader
from recbole.utils import calculate_valid_score, set_color

from recbole_alkd.model.backbone import SessionRecommender, role_config
from recbole_alkd.settings.groups import Settings
from recbole_alkd.settings.reading import settings_of
from recbole_alkd.trainer.report import settings_in_words, tuned_line
from recbole_alkd.trainer.reporting import ReportingTrainer
from recbole_alkd.trainer.search_space import Values, laid_over, role_tries
from recbole_alkd.trainer.stage import StageOutcome


@dataclass(frozen=True)
class RoleRun:
    """The run as the recommender of one role sees it: RecBole's Config, our settings, the training loader."""

    config: Any
    settings: Settings
    train_data: Any

    @property
    def learning_rate(self) -> float:
        return float(self.config["learning_rate"])

    @property
    def batch_size(self) -> int:
        return int(self.config["train_batch_size"])

    def backwards(self, model: SessionRecommender) -> bool:
        """Whether sessions that are read from their end are training rows of ``model`` too; a table counts pairs either way."""
        return self.settings.training.train_backwards and model.view.has_vectors

    def laid(self, role: str, values: Mapping[str, Any]) -> RoleRun:
        """The run with ``values`` laid over it, and without tuning."""
        config, data = laid_over(self.config, role, values), self.train_data
        if config["train_batch_size"] != self.batch_size:
            data = TrainDataLoader(config, data._dataset, None, shuffle=data.shuffle)
        settings = settings_of(config)
        return RoleRun(config, settings, data)


@dataclass(frozen=True)
class Tried:
    """What came of trying.

    Attributes:
        outcome: the best try's, with the seconds of all of them. won: its number.
        report: metric, seconds, won, and tried: settings ({} are the run's own), valid score (None: it diverged), seconds.
    """

    outcome: StageOutcome
    won: int
    report: dict[str, Any]


def tried_out(
    name: str,
    tries: Sequence[Values],
    train: Callable[[int, Values, Callable[[StageOutcome], bool]], StageOutcome],
    metric: str,
    bigger: bool,
    logger: Logger,
) -> Tried:
    """Train every try; of equal ones the first is the best, so that the run's own settings give way to better ones only.

    Args:
        tries: settings, {} first.
        train: (number, settings, whether an outcome is better than all before) -> outcome.
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
        logger.info(set_color("tuning", "blue") + f" {name}, {number + 1} of {len(tries)}: {words}, {seconds:.1f} s")
    assert best is not None
    report: dict[str, Any] = {"metric": metric, "tried": tried, "won": won, "seconds": round(total, 3)}
    logger.info(set_color("tuning", "blue") + f" {tuned_line(name, report)}")
    return Tried(dataclasses.replace(best, seconds=report["seconds"]), won, report)


class TuningTrainer(ReportingTrainer):
    """A trainer that knows under which settings each role's recommender was trained.

    Attributes:
        runs: role -> the run as its trained recommender, and what follows from it, sees it.
    """

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model)
        self.runs: dict[str, RoleRun] = {}

    def train_role(
        self, role: str, model: SessionRecommender, fit: Callable[..., StageOutcome], train_data: Any, seed: Callable[[], None]
    ) -> None:
        """Train the recommender of ``role``: under the run's settings, or the best of those that ``student_tune`` tries.

        ``runs[role]`` is then the run as later stages go on with it. ``seed``: seeds the initial weights of ``model``.
        """
        own = RoleRun(self.config, self.settings, train_data)
        # a model may have a learning rate of its own, in its YAML
        viewed = role_config(self.config, self.settings, role)
        pace = {key: viewed[key] for key in ("learning_rate", "train_batch_size") if viewed[key] != self.config[key]}
        if pace:
            own = own.laid(role, pace)
        self.runs[role] = own
        if not self.settings.backbone.student_tune or not model.view.has_vectors:
            self.outcomes[role] = fit(role, model, own, batches=self.recommendation_batches(model, own))
            return
        tries = role_tries(self.config, self.settings, role)

        def build(run: RoleRun) -> RoleRun:
            seed()
            model.build(run.config, train_data._dataset, run.settings, role)
            return run

        def train(number: int, values: Values, better: Any) -> StageOutcome:
            run = own.laid(role, values)
            run = build(run) if number else run
            return fit(role, model, run, number, batches=self.recommendation_batches(model, run))

        found = self.try_all(role, tries, train)
        self.runs[role], self.outcomes[role] = build(own.laid(role, tries[found.won])), found.outcome
        model.load_state_dict(found.outcome.state)

    def recommendation_batches(self, model: SessionRecommender, run: RoleRun) -> Any:
        """What ``model`` is trained on before there are labels."""
        if not run.backwards(model):
            return run.train_data
        return self.row_loader(run.train_data, range(len(run.train_data._dataset)), run.batch_size, backwards=True)

    def try_all(self, name: str, tries: list[Values], train: Callable[..., StageOutcome]) -> Tried:
        found = tried_out(name, tries, train, self.valid_metric, self.valid_metric_bigger, self.logger)
        self.tuned[name] = found.report
        return found

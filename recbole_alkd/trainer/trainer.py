"""ALKDRecTrainer, the face of a run that RecBole sees.

Du et al., "Active Large Language Model-based Knowledge Distillation for Session-based Recommendation" (AAAI
2025).
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from recbole.trainer.trainer import AbstractTrainer
from recbole.utils import calculate_valid_score

from recbole_alkd.bars import on_terminal
from recbole_alkd.labelling.rounds import LabelRounds
from recbole_alkd.learner.shared_evaluation import plain_metrics
from recbole_alkd.learner.stage_trainer import StageTrainer
from recbole_alkd.model.alkdrec import ALKDRec
from recbole_alkd.processes.group import Group
from recbole_alkd.registry import policies
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.reading import settings_of
from recbole_alkd.trainer.report import Report
from recbole_alkd.trainer.report_words import TestResult
from recbole_alkd.trainer.run import Run
from recbole_alkd.trainer.stages import Callback, StudentStage, TeacherStage, stages_until, train_stages


class ALKDRecTrainer(AbstractTrainer):
    """RecBole trainer of ALKDRec.

    ``fit`` trains every stage and returns the distilled student's best validation score and result.
    ``evaluate`` on the test data evaluates every stage, prints the table, and writes ``result.json`` into the
    run folder.

    Attributes:
        settings: ours in the run's Config. stage_trainer: RecBole's Trainer, which evaluates, logs and runs
            the fit loops.
    """

    def __init__(self, config: Any, model: ALKDRec) -> None:
        self._group = Group.of(config)
        super().__init__(config, model)
        self.settings = settings_of(config)
        self.stage_trainer = StageTrainer(config, model, self._group)
        self.best_valid_score: float = self.stage_trainer.best_valid_score
        self.best_valid_result: Any = None
        self._began = time.time()
        self._run: Run | None = None

    @property
    def run(self) -> Run:
        """The run, once ``fit``, ``train_until`` or ``select`` has begun."""
        assert self._run is not None, "nothing was trained yet"
        return self._run

    @property
    def saved_model_file(self) -> str:
        """RecBole's checkpoint of the distilled student."""
        return self.stage_trainer.saved_model_file

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callback | None = None,
    ) -> tuple[float, Any]:
        """Run every stage. Arguments and result as RecBole's ``Trainer.fit``; both speak of the distilled
        student.
        """
        self.train_until("student_longer", train_data, valid_data, verbose, show_progress, saved, callback_fn)
        distilled = self.run.outcomes["distilled"]
        self.model.load_state_dict(distilled.state)
        self.stage_trainer.take(self.model)
        self.best_valid_result = valid = distilled.valid
        self.best_valid_score = calculate_valid_score(valid, self.stage_trainer.valid_metric) if valid else -1
        return self.best_valid_score, valid

    def train_until(
        self,
        stage: str,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        show_progress: bool = False,
        saved: bool = False,
        callback_fn: Callback | None = None,
    ) -> None:
        """Train ``stage`` and what it rests on, and no more; ``run.outcomes`` holds what came out.

        Args:
            stage: teacher, student, distilled or student_longer (which trains for as long as distillation
                did).
            saved, callback_fn: of the distilled student, as in ``fit``.
        """
        run = self._open(train_data, valid_data, verbose, show_progress)
        try:
            train_stages(run, stages_until(stage, saved, callback_fn))
        except BaseException:
            run.folder.close()  # in a notebook the trainer lives on, and the next run resumes in this folder
            raise

    def select(
        self, train_data: Any, valid_data: Any = None, show_progress: bool = False, titles: bool = True
    ) -> tuple[LabelRounds, np.ndarray]:
        """Select the whole budget at once and ask nobody; the LLM teacher is not loaded.

        Without ``titles`` a data set that has none will do, since nothing is shown to anybody.

        Trains the teacher recommender, and the student where the policy looks at it. A later run with the
        same settings resumes from there.

        Returns:
            The rounds, whose ``llm`` the caller closes, and the row ids that are selected.
        """
        selection = self.settings.selection
        if selection.alkd_ratio == "pilot":
            raise AlkdError(
                "alkd_ratio: 'pilot' needs labels, and nobody is asked here; allowed here: three numbers"
            )
        run = self._open(train_data, valid_data, True, show_progress)
        run.own_labels.check(titles)
        TeacherStage().train(run)
        if policies.get(selection.alkd_policy).needs & {"entropy", "disagreement"}:
            StudentStage().train(run)
        rounds = run.own_labels.open()
        return rounds, rounds.select_all()

    @torch.no_grad()
    def evaluate(
        self,
        eval_data: Any,
        load_best_model: bool = True,
        model_file: Any = None,
        show_progress: bool = False,
    ) -> Any:
        """As RecBole's ``Trainer.evaluate``. After ``fit``, test data gives the whole report
        (``TestResult.report``).
        """
        run, trainer = self._run, self.stage_trainer
        whole = (
            run is not None
            and "distilled" in run.outcomes
            and eval_data is not run.valid_data
            and not model_file
        )
        if run is None or not whole or not eval_data:
            return trainer.evaluate(eval_data, load_best_model, model_file, show_progress)
        show_progress = show_progress and not (trainer.short and (len(eval_data) < 50 or not on_terminal()))
        if self._group.count == 1:
            return Report(run, eval_data, show_progress).make()
        made: list[TestResult] = []

        def make() -> dict[str, float]:
            made.append(Report(run, eval_data, show_progress).make())
            return plain_metrics(made[0])

        metrics = self._group.from_leader(make)  # of the others nobody reads more
        return made[0] if made else metrics

    def _open(self, train_data: Any, valid_data: Any, verbose: bool, show_progress: bool) -> Run:
        self._run = Run.open(
            self.stage_trainer, self.model, self.settings, self._group, train_data, valid_data,
            self._began, verbose, show_progress,
        )  # fmt: skip
        return self._run

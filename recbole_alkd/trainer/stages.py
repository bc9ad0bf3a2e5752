"""The stages of a run: teacher recommender, student, distilled student, and the control trained longer.

Du et al., "Active Large Language Model-based Knowledge Distillation for Session-based Recommendation" (AAAI
2025).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import ClassVar

from recbole_alkd.learner.base import Lesson
from recbole_alkd.learner.gradient import distil_rate
from recbole_alkd.learner.outcome import StageOutcome
from recbole_alkd.learner.search_space import Values, longer_tries, loss_tries, with_loss
from recbole_alkd.model.backbone import SessionRecommender
from recbole_alkd.settings.error import during
from recbole_alkd.trainer.run import Run
from recbole_alkd.trainer.tuning import Better, best_of, train_role

Callback = Callable[[int, float], None]


class Stage(ABC):
    """One stage. ``rests_on``: the stages that come before it."""

    name: ClassVar[str]
    rests_on: ClassVar[tuple[str, ...]] = ()

    def check(self, run: Run) -> None:  # noqa: B027  (a stage may have nothing to check)
        """AlkdError where the stage cannot work; called before anything is trained."""

    @abstractmethod
    def train(self, run: Run) -> None:
        """Train the stage; ``run.outcomes`` has what came out."""


class TeacherStage(Stage):
    """The teacher recommender, which is frozen then."""

    name = "teacher"

    def train(self, run: Run) -> None:
        seed = partial(run.seed, "teacher init")
        seed()
        model = SessionRecommender(run.config, run.train_part, run.settings, "teacher").to(run.device)
        run.models["teacher"] = model
        train_role(run, "teacher", model, seed)
        model.eval().requires_grad_(False)


class StudentStage(Stage):
    """The student before there are labels."""

    name = "student"

    def check(self, run: Run) -> None:
        if run.text and run.group.leads:
            _ = run.text.vectors  # an encoder that cannot be had ends the run
        run.group.from_leader(int)  # what the leader has encoded, the others find in the cache

    def train(self, run: Run) -> None:
        run.models["student"] = run.model
        train_role(run, "student", run.model, partial(run.group.seed_model, run.config))


class DistilledStage(Stage):
    """Rounds of selecting, asking and distilling; each distils all labels so far, and the last one is the
    run's.

    Args:
        save: whether RecBole's checkpoint of the distilled student is written. callback: RecBole's
            ``callback_fn``.
    """

    name = "distilled"
    rests_on = ("teacher", "student")

    def __init__(self, save: bool = False, callback: Callback | None = None) -> None:
        self._save, self._callback = save, callback

    def check(self, run: Run) -> None:
        run.labels.check()

    def train(self, run: Run) -> None:
        with run.labels.asking():
            count = run.settings.selection.alkd_rounds
            for number in range(1, count + 1):
                with during("labelling"):
                    run.labels.ask(number)
                if number < count:
                    name = f"distilled_{number}"
                    run.outcomes[name] = self._distil(run, name, run.labels.lesson(run.settings))
            self._last(run)

    def _last(self, run: Run) -> None:
        """Under the run's settings of the loss, or the best of those that ``student_tune`` tries."""
        settings, student = run.settings, run.roles["student"]
        if not settings.backbone.student_tune or not run.learners["student"].tunable:
            checkpoint = always if self._save else None
            run.outcomes[self.name] = self._distil(
                run, self.name, run.labels.lesson(settings), None, checkpoint, self._callback
            )
            return
        tries = loss_tries(settings, distil_rate(run.config, settings, student))

        def train(number: int, values: Values, better: Better) -> StageOutcome:
            lesson = run.labels.lesson(with_loss(settings, values))
            # the checkpoint on the disk is the best finished try's
            checkpoint = better if self._save else None
            return self._distil(run, self.name, lesson, number, checkpoint, self._callback)

        best = best_of(run, self.name, tries, train)
        run.loss_settings[self.name] = with_loss(settings, tries[best.won])
        run.outcomes[self.name] = best.outcome

    def _distil(
        self,
        run: Run,
        name: str,
        lesson: Lesson,
        number: int | None = None,
        checkpoint: Better | None = None,
        callback: Callback | None = None,
    ) -> StageOutcome:
        student = run.roles["student"]
        with run.task(name, student, number, checkpoint, callback) as task:
            return run.learners["student"].distil(task, run.model, student, lesson)


class LongerStage(Stage):
    """The control: the plain student trained on for as many steps as distillation took."""

    name = "student_longer"
    rests_on = ("teacher", "student", "distilled")

    def train(self, run: Run) -> None:
        learner, student = run.learners["student"], run.roles["student"]
        settings = run.loss_settings.get("distilled", run.settings)

        def train(number: int | None, values: Values, better: Better | None = None) -> StageOutcome:
            rate = with_loss(settings, values).distill.kd_learning_rate
            with run.task(self.name, student, number) as task:
                return learner.longer(
                    task, run.model, student, run.outcomes["student"], run.outcomes["distilled"], rate
                )

        if run.settings.backbone.student_tune and learner.tunable:
            tries = longer_tries(settings, student.learning_rate)
            run.outcomes[self.name] = best_of(run, self.name, tries, train).outcome
        else:
            run.outcomes[self.name] = train(None, {})


def always(outcome: StageOutcome) -> bool:
    """A checkpoint whatever came out."""
    return True


def stages_until(name: str, save: bool = False, callback: Callback | None = None) -> list[Stage]:
    """The stage ``name`` and those that it rests on, in the order in which they are trained.

    Args:
        save, callback: of the distilled student, as ``DistilledStage`` has them.
    """
    every = [TeacherStage(), StudentStage(), DistilledStage(save, callback), LongerStage()]
    (wanted,) = (stage for stage in every if stage.name == name)
    return [stage for stage in every if stage is wanted or stage.name in wanted.rests_on]


def train_stages(run: Run, stages: list[Stage]) -> None:
    """Check all of them, then train one after the other."""
    for stage in stages:
        stage.check(run)
    for stage in stages:
        stage.train(run)

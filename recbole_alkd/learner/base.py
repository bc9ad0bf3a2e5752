"""How one recommender of a run learns: what a stage asks of every family, with a gradient or without."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from recbole.utils import set_color
from torch import Tensor

from recbole_alkd.learner.item_text import ItemText
from recbole_alkd.learner.outcome import StageOutcome
from recbole_alkd.learner.role_run import RoleRun
from recbole_alkd.learner.stage_task import StageTask
from recbole_alkd.learner.stage_trainer import StageTrainer
from recbole_alkd.model.backbone import Backbone, SessionRecommender, view_and_model
from recbole_alkd.processes.group import Group
from recbole_alkd.registry import backbones, learners
from recbole_alkd.settings.groups import Settings


@dataclass(frozen=True)
class Workshop:
    """What the learners of a run work with, the same in all stages.

    Attributes:
        trainer: RecBole's trainer, which evaluates, logs and runs the fit loop. config: RecBole's Config.
            settings: ours.
        valid_data: RecBole's validation loader, or None. verbose, show_progress: as in RecBole's ``fit``.
        text: title vectors of a run that uses some. group: the processes of the run.
    """

    trainer: StageTrainer
    config: Any
    settings: Settings
    valid_data: Any = None
    verbose: bool = True
    show_progress: bool = False
    text: ItemText | None = None
    group: Group = field(default_factory=Group)


@dataclass(frozen=True)
class Lesson:
    """What is distilled.

    Attributes:
        settings: the run's, with those of the loss. teacher: the frozen teacher recommender.
        lists: the place of each training row in the lists (n,), -1 without a label; the lists (m, top_n); the
            candidates (m, c).
        labelled: the rows that have a label, in the order in which they came in.
        student: the state dict of the student before there were labels.
        part: the data set that ``labelled`` are rows of: items, where they were labelled; None: the
        training part.
    """

    settings: Settings
    teacher: Backbone
    lists: tuple[Tensor, Tensor, Tensor]
    labelled: Sequence[int]
    student: dict[str, Tensor]
    part: Any = None

    def part_of(self, train: Any) -> Any:
        """``part``, or the training part ``train``."""
        return train if self.part is None else self.part


class Learner(ABC):
    """How a family of recommenders learns. A backbone names its learner by the class attribute ``learner``.

    Every method that trains takes the recommender as it stands, leaves the best state in it, and gives back
    what came of the stage; a stage that has finished is loaded (``task.finished``) and not trained again, and
    one that has just finished is kept (``task.keep``).

    Attributes:
        tunable: whether ``student_tune`` tries settings for its stages.
        shares_steps: whether the processes of a run train together, which makes other numbers than one
            process does; where it is False, the leader trains (``Group.from_leader``).

    Example:
        >>> @learners.register("mine")                                        # doctest: +SKIP
        ... class MyLearner(Learner): ...
        >>> @backbones.register("MyModel")                                    # doctest: +SKIP
        ... class MyView(Backbone):
        ...     model_class, learner = MyModel, "mine"
    """

    tunable: ClassVar[bool] = False
    shares_steps: ClassVar[bool] = False

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop

    @classmethod  # noqa: B027  (a family may have nothing to refuse)
    def check(cls, settings: Settings) -> None:
        """AlkdError where a student of this family cannot learn what settings ask for;
        called before training."""

    @classmethod
    def trains_on_titles(cls, settings: Settings) -> bool:
        """Whether titles decide the student's training, and are not only laid over what is trained."""
        return False

    @classmethod
    def title_facts(cls, text: ItemText) -> dict[str, Any]:
        """What the report says of the titles that a student looked at."""
        return text.bill()

    @abstractmethod
    def fit(self, task: StageTask, model: SessionRecommender, run: RoleRun) -> StageOutcome:
        """Learn to recommend, from the training sessions."""

    @abstractmethod
    def fit_rows(
        self, task: StageTask, model: SessionRecommender, run: RoleRun, rows: np.ndarray, whole: StageOutcome
    ) -> StageOutcome:
        """The same from some training rows, for as long as ``whole``, which learnt from all,
        took to its best."""

    @abstractmethod
    def distil(
        self, task: StageTask, model: SessionRecommender, run: RoleRun, lesson: Lesson
    ) -> StageOutcome:
        """Learn from labels."""

    def longer(
        self,
        task: StageTask,
        model: SessionRecommender,
        run: RoleRun,
        student: StageOutcome,
        distilled: StageOutcome,
        learning_rate: float | None = None,
    ) -> StageOutcome:
        """The control: train ``student`` on, without labels, for as many steps as ``distilled`` took.

        As it stands, for those that take no steps: it is the student.

        Args:
            learning_rate: of the control, where it is not the run's.
        """
        words = f"{run.settings.backbone.student_model} takes no more steps, it is the student's"
        self.workshop.trainer.logger.info(set_color("stage", "blue") + f" {task.words}: {words}")
        return replace(student, seconds=0.0)


def learner_class(name: str) -> type[Learner]:
    """How the backbone of a registered name learns."""
    return learners.get(view_and_model(name)[0].learner)


def backbones_of(learner: str) -> list[str]:
    """The names of the backbones that learn so."""
    return [name for name in backbones if view_and_model(name)[0].learner == learner]

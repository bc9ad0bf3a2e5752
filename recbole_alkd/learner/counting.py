"""Learning by counting: one pass over the training sessions, and labels as edges between items."""

from __future__ import annotations

from dataclasses import asdict
from logging import Logger
from time import perf_counter
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from recbole.utils import calculate_valid_score, set_color

from recbole_alkd.distill.base import ItemListing, Listing
from recbole_alkd.distill.combined import wanted_losses
from recbole_alkd.learner.base import Learner, Lesson
from recbole_alkd.learner.batches import row_loader, seed_stage
from recbole_alkd.learner.distillation import distillation_term
from recbole_alkd.learner.item_text import ItemText
from recbole_alkd.learner.list_edges import edge_makers, without_effect
from recbole_alkd.learner.outcome import StageOutcome, peak_memory_mb, saved_state
from recbole_alkd.learner.role_run import RoleRun
from recbole_alkd.learner.stage_task import StageTask
from recbole_alkd.model.backbone import SessionRecommender, view_and_model
from recbole_alkd.model.counted import CountedModel
from recbole_alkd.model.edges import Edges
from recbole_alkd.registry import learners, losses
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import FIELDS, Settings

# settings of distillation by steps
STEPS = ("kd_init", "kd_weight", "kd_rec_weight", "kd_learning_rate", "kd_negatives", "kd_batch_size")

# training part -> what the log has said of choices that were made for it
_said: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


def count_model(
    model: CountedModel,
    train: Any,
    valid: Any,
    logger: Logger,
    edges: Edges | None = None,
    text: ItemText | None = None,
    row: str | None = None,
) -> dict[str, float]:
    """``CountedModel.count``, and a line in the log that says what came of it.

    Args:
        edges: as ``CountedModel.count`` has them. Those of ``item_text`` come before them by themselves.
        text: the run's title vectors, where it has some; others are made if the model wants others.
        row: what the log says was counted: the row of the run's table that it is. Without it, the model's
            class.

    Returns:
        The facts of what was counted.
    """
    edges = dict(edges or {})
    if model.text.item_text:
        text = text if text and text.text == model.text else ItemText(model.text, train, valid)
        edges = {**text.edge_makers(), **edges}
    counted = model.count(train, valid, edges)
    row = row or type(model).__name__
    of = "" if row == model.heading else f" of {row}"
    words = counted.words
    if counted.choice:
        known = _said.setdefault(train, set())
        words = tuple("chosen as before" if one in known else one for one in words)
        known.update(counted.choice)
    logger.info(set_color(model.heading, "blue") + f"{of}: " + ", ".join(words))
    return dict(counted.facts)


@learners.register("counting")
class CountingLearner(Learner):
    """Backbones that count (``model/counted.py``). A stage is one step; the model chooses on validation what
    it has to choose.
    """

    @classmethod
    def check(cls, settings: Settings) -> None:
        """AlkdError where settings ask for a gradient, or for vectors."""
        student, listing = (
            settings.backbone.student_model,
            [n for n in losses if issubclass(losses.get(n), (Listing, ItemListing))],
        )
        for name, weight in wanted_losses(settings).items():
            if name not in listing:
                raise AlkdError(
                    f"kd_loss: {name!r} needs a gradient, which student_model {student!r} does not have; "
                    f"allowed: {', '.join(listing)}"
                )
            if weight != 1:
                raise without_effect(weight, name)
        for key in STEPS:
            if getattr(settings.distill, key) != FIELDS[key].default:
                raise AlkdError(
                    f"{key}: has no effect with student_model {student!r}, which counts and has no steps; "
                    "leave it out"
                )
        edges = settings.text.item_text_edges
        if (
            settings.text.item_text
            and edges != "titles"
            and not getattr(view_and_model(student)[1], "has_table", False)
        ):
            raise AlkdError(
                f"item_text_edges: {edges!r} borrows from a table of neighbours, which student_model "
                f"{student!r} does not keep; allowed: titles"
            )
        for key in ("item_text_loss", "serve_text_dim"):
            if getattr(settings.text, key) is not None:
                raise AlkdError(
                    f"{key}: not for student_model {student!r}, which has no vectors; "
                    "there item_text makes weighted edges of "
                    "titles"
                )

    @classmethod
    def trains_on_titles(cls, settings: Settings) -> bool:
        return True

    @classmethod
    def title_facts(cls, text: ItemText) -> dict[str, Any]:
        return {**text.bill(), "edges": text.neighbors.nnz}

    def fit(self, task: StageTask, model: SessionRecommender, run: RoleRun) -> StageOutcome:
        return self._count(task, model, run, run.train_data)

    def fit_rows(
        self, task: StageTask, model: SessionRecommender, run: RoleRun, rows: np.ndarray, whole: StageOutcome
    ) -> StageOutcome:
        """What is chosen is chosen on the validation data, as from all rows; epochs say nothing here."""
        loader = row_loader(self.workshop.config, run.train_data, rows, run.batch_size)
        return self._count(task, model, run, loader)

    def distil(
        self, task: StageTask, model: SessionRecommender, run: RoleRun, lesson: Lesson
    ) -> StageOutcome:
        term = distillation_term(self.workshop, task.name, model, run, lesson)
        part, device = run.train_data._dataset, self.workshop.config["device"]
        back = model.recommender.list_backward
        edges = edge_makers(term, part, lesson.labelled, device, lesson.part, back)
        return self._count(task, model, run, run.train_data, edges)

    def _count(
        self,
        task: StageTask,
        model: Any,
        run: RoleRun,
        train_data: Any,
        edges: Edges | None = None,
    ) -> StageOutcome:
        shop = self.workshop
        trainer = shop.trainer
        trainer.take(model, run.config)
        finished = task.finished(model, trainer.logger)
        if finished:
            return finished
        if shop.group.size == 1:
            return self._count_alone(task, model, run, train_data, edges)
        outcome = StageOutcome(
            **shop.group.from_leader(lambda: asdict(self._count_alone(task, model, run, train_data, edges)))
        )
        if not shop.group.leads:
            trainer.eval_collector.data_collect(train_data)
            model.load_state_dict(outcome.state, strict=False)
        return outcome

    def _count_alone(
        self, task: StageTask, model: Any, run: RoleRun, train_data: Any, edges: Edges | None
    ) -> StageOutcome:
        """What counts in one process: it is a matter of seconds, and the same numbers for all."""
        shop = self.workshop
        trainer, valid_data = shop.trainer, shop.valid_data
        seed_stage(shop.config, task.name, run.train_data, train_data)
        begin = perf_counter()
        trainer.eval_collector.data_collect(train_data)
        parts = (train_data._dataset, valid_data._dataset if valid_data else None)
        fitted = count_model(model.recommender, *parts, trainer.logger, edges, shop.text, task.words)
        outcome = StageOutcome(best_epoch=1, best_step=1, steps=1, epochs=1, fitted=fitted)
        if valid_data:
            outcome.valid = trainer.validate(valid_data, shop.show_progress and not trainer.short)
            if task.callback:
                task.callback(0, calculate_valid_score(outcome.valid, trainer.valid_metric))
        outcome.state = saved_state(model)
        outcome.seconds = round(perf_counter() - begin, 3)
        outcome.peak_mb = peak_memory_mb()
        if task.checkpoint and task.checkpoint(outcome):
            trainer.write_checkpoint(outcome)
        task.keep(outcome)
        return outcome

"""Learning by gradients: RecBole's fit loop, with titles in the loss and beside the trained student."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from recbole.utils import init_seed

from recbole_alkd.distill.combined import build_item_loss, wanted_losses
from recbole_alkd.learner.base import Learner, Lesson, Workshop, backbones_of
from recbole_alkd.learner.batches import CycledBatches, part_loader, row_loader, seed_stage
from recbole_alkd.learner.descent import Descent
from recbole_alkd.learner.distillation import ItemTerm, distill_context, distillation_term
from recbole_alkd.learner.late_fusion import LateFusion
from recbole_alkd.learner.outcome import StageOutcome, peak_memory_mb, saved_state
from recbole_alkd.learner.role_run import RoleRun
from recbole_alkd.learner.stage_task import StageTask
from recbole_alkd.model.alkdrec import ALKDRec
from recbole_alkd.model.backbone import SessionRecommender
from recbole_alkd.registry import learners, losses
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import FIELDS, Settings
from recbole_alkd.settings.identity import stage_seed


@learners.register("gradient")
class GradientLearner(Learner):
    """Backbones with session and item vectors, trained by RecBole's fit loop.

    A student (``ALKDRec``) learns from titles where ``item_text_loss`` says so, and has titles laid over it
    where ``serve_text_dim`` does.
    """

    tunable = shares_steps = True

    def __init__(self, workshop: Workshop) -> None:
        super().__init__(workshop)
        self._fusion: LateFusion | None = None

    @classmethod
    def check(cls, settings: Settings) -> None:
        """AlkdError where titles are asked for and not given, or given and not used."""
        text, student = settings.text, settings.backbone.student_model
        asked = [key for key in ("item_text_loss", "serve_text_dim") if getattr(text, key) is not None]
        if asked and not text.item_text:
            raise AlkdError(
                f"item_text: ~ is not allowed with {asked[0]}; allowed: an encoder of titles, such as tfidf"
            )
        for key in ("item_text_map", "item_text_edges"):
            if text.item_text and getattr(text, key) != FIELDS[key].default:
                counting = ", ".join(backbones_of("counting"))
                raise AlkdError(
                    f"{key}: makes edges, which student_model {student!r} does not have; "
                    f"allowed with: {counting}"
                )
        used = asked or any("item_text" in losses.get(name).needs for name in wanted_losses(settings))
        if text.item_text and not used:
            raise AlkdError(
                f"item_text: nothing uses it with student_model {student!r}; "
                "give item_text_loss, serve_text_dim or a "
                "kd_loss that looks at titles, or take a student that counts "
                f"({', '.join(backbones_of('counting'))})"
            )

    @classmethod
    def trains_on_titles(cls, settings: Settings) -> bool:
        return settings.text.item_text_loss is not None

    def fit(self, task: StageTask, model: SessionRecommender, run: RoleRun) -> StageOutcome:
        return self._train(task, model, run, self._descent(run, batches=self._batches(run)))

    def fit_rows(
        self, task: StageTask, model: SessionRecommender, run: RoleRun, rows: np.ndarray, whole: StageOutcome
    ) -> StageOutcome:
        loader = self._rows(run, rows, run.settings.training.train_backwards)
        how = self._descent(run, batches=loader, epochs=max(1, whole.best_epoch), valid_data=None)
        return self._train(task, model, run, how)

    def distil(self, task: StageTask, model: Any, run: RoleRun, lesson: Lesson) -> StageOutcome:
        config, train_data = self.workshop.config, run.train_data
        distill = lesson.settings.distill
        if distill.kd_init == "student":
            model.load_state_dict(lesson.student)
        else:
            self._seed("scratch")
            model.load_state_dict(type(model)(run.config, train_data._dataset).state_dict())
        term = distillation_term(self.workshop, task.name, model, run, lesson)
        part = lesson.part_of(train_data._dataset)
        labelled = part_loader(config, part, lesson.labelled, _label_batch(lesson, run))
        labelled.generator.manual_seed(stage_seed(config["seed"], task.name, "labels"))
        model.kd = term.loss
        try:
            how = self._descent(
                run,
                batches=term.batches(train_data, labelled),
                loss=partial(term, model),
                learning_rate=distil_rate(config, lesson.settings, run),
                epoch_start=term.loss.epoch_start,
                after_step=term.loss.after_step,
                beside=term.labelled,
            )
            return self._train(task, model, run, how)
        finally:
            model.kd = None

    def longer(
        self,
        task: StageTask,
        model: SessionRecommender,
        run: RoleRun,
        student: StageOutcome,
        distilled: StageOutcome,
        learning_rate: float | None = None,
    ) -> StageOutcome:
        """As many steps as distillation took, with as many evaluations."""
        steps = max(1, distilled.steps // max(1, distilled.epochs))
        batches = CycledBatches(self._batches(run), steps)
        model.load_state_dict(student.state)
        how = self._descent(
            run,
            batches=batches,
            epochs=distilled.epochs,
            stopping_step=distilled.epochs,
            learning_rate=learning_rate,
        )
        return self._train(task, model, run, how)

    def _train(self, task: StageTask, model: Any, run: RoleRun, how: Descent) -> StageOutcome:
        """Train, lay titles over the student, and keep what came out.

        A shared stage is the student by itself, so that arms with other titles, and without any, share it;
        the run's own folder has it as it is served.
        """
        shop = self.workshop
        fusion = self._fusion_of(model)
        with self._titles_in_loss(task.name, model, run):
            shop.trainer.take(model, run.config)
            outcome = task.finished(model, shop.trainer.logger)
            if outcome is None:
                seed_stage(shop.config, task.name, run.train_data, how.batches, rank=shop.group.rank)
                if fusion:
                    model.titles.set(None)  # those of the stage before
                outcome = shop.trainer.descend(task, model, run.config, how)
                if task.folder.shared:
                    task.keep(outcome)
                if fusion:
                    self._serve_titles(fusion, outcome)
                # before the stage counts as finished, so that a resumed run finds the checkpoint too
                if task.checkpoint and task.checkpoint(outcome) and shop.group.leads:
                    shop.trainer.write_checkpoint(outcome)
                if not task.folder.shared:
                    task.keep(outcome)
            elif fusion and task.folder.shared:
                shop.trainer.eval_collector.data_collect(run.train_data)
                self._serve_titles(fusion, outcome)
        if fusion and task.lent:
            task.lent.save_stage(task.name, asdict(outcome))
        return outcome

    def _fusion_of(self, model: Any) -> LateFusion | None:
        """The titles that are laid over a student; None where there are none, and for teacher
        recommenders."""
        shop = self.workshop
        if not (isinstance(model, ALKDRec) and shop.text and shop.settings.text.serve_text_dim):
            return None
        if self._fusion is None or self._fusion.model is not model:
            self._fusion = LateFusion(shop.text, model)
        return self._fusion

    def _serve_titles(self, fusion: LateFusion, outcome: StageOutcome) -> None:
        """Lay titles over a trained student; ``outcome`` is then that of what is served."""
        begin, shop = perf_counter(), self.workshop
        show = shop.show_progress and not shop.trainer.short
        outcome.valid, outcome.fitted = fusion.choose(shop.trainer, shop.valid_data, outcome.valid, show)
        outcome.state = saved_state(fusion.model)
        outcome.seconds = round(outcome.seconds + perf_counter() - begin, 3)
        outcome.peak_mb = peak_memory_mb()

    @contextmanager
    def _titles_in_loss(self, name: str, model: Any, run: RoleRun) -> Iterator[None]:
        """A student's recommendation loss has the term of ``item_text_loss`` meanwhile; ``name`` is the
        stage.
        """
        shop = self.workshop
        if not isinstance(model, ALKDRec):
            yield
            return
        if shop.text:
            # their seconds are in the bill of the titles, not in those of the first stage
            _ = shop.text.vectors
        if shop.settings.text.item_text_loss is None:
            yield
            return
        context = distill_context(shop, model, run, None, run.settings)
        self._seed(name, "item_text_loss")
        model.item_loss = ItemTerm(build_item_loss(context).to(shop.config["device"]), context)
        try:
            yield
        finally:
            model.item_loss = None

    def _descent(self, run: RoleRun, **how: Any) -> Descent:
        shop = self.workshop
        common = {"valid_data": shop.valid_data, "verbose": shop.verbose, "show_progress": shop.show_progress}
        return Descent(**{"train_data": run.train_data, **common, **how})

    def _batches(self, run: RoleRun) -> Any:
        """What is trained on before there are labels."""
        if not run.settings.training.train_backwards:
            return run.train_data
        return self._rows(run, range(len(run.train_data._dataset)), backwards=True)

    def _rows(self, run: RoleRun, rows: Any, backwards: bool) -> Any:
        return row_loader(self.workshop.config, run.train_data, rows, run.batch_size, backwards)

    def _seed(self, *names: object) -> None:
        config = self.workshop.config
        init_seed(stage_seed(config["seed"], *names), config["reproducibility"])


def distil_rate(config: Any, settings: Settings, run: RoleRun) -> float:
    """The learning rate of distillation: fine-tuning has the run's own, training from scratch that of the
    student.

    Args:
        config: RecBole's Config of the run. run: as the student sees it.
    """
    if settings.distill.kd_learning_rate:
        return settings.distill.kd_learning_rate
    return float(config["learning_rate"] if settings.distill.kd_init == "student" else run.learning_rate)


def _label_batch(lesson: Lesson, run: RoleRun) -> int:
    """Labelled sessions a step, from ``kd_batch_size`` in (session, item) pairs."""
    pairs, count, top_n = (
        lesson.settings.distill.kd_batch_size,
        len(lesson.labelled),
        lesson.settings.teacher.llm_top_n,
    )
    if pairs is None:
        # few labels still make an epoch of ten steps, between two looks at the validation data
        pairs = min(run.batch_size, count * top_n // 10)
    # two at least: a session's in-batch negatives come from the others
    return min(count, max(2, pairs // top_n))

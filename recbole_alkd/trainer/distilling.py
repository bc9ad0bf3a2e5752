"""The student's stages once there are labels: distillation, and the control that is trained on without them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from recbole.utils import init_seed, set_color

from recbole_alkd.distill.base import DistillContext
from recbole_alkd.distill.combined import build_item_loss, build_loss
from recbole_alkd.labelling.instances import TrainingRows
from recbole_alkd.model.alkdrec import ALKDRec
from recbole_alkd.model.backbone import Backbone, updates_rows
from recbole_alkd.settings.groups import Settings
from recbole_alkd.settings.identity import stage_seed
from recbole_alkd.settings.reading import settings_of
from recbole_alkd.trainer.batches import CycledBatches
from recbole_alkd.trainer.distillation import DistillationTerm, ItemTerm, control_lists, spoiled_lists
from recbole_alkd.trainer.search_space import Values, longer_tries, loss_tries, with_loss
from recbole_alkd.trainer.stage import StageOutcome
from recbole_alkd.trainer.table_distillation import edge_makers
from recbole_alkd.trainer.tuning import RoleRun, TuningTrainer


class DistillingTrainer(TuningTrainer):
    """A trainer that knows how the student learns from labels (``rounds``), and from titles beside them.

    Attributes:
        distilled_with: the run's settings, with those of the loss that validation chose.
    """

    def __init__(self, config: Any, model: ALKDRec) -> None:
        super().__init__(config, model)
        self.settings = settings_of(config)
        self.alkdrec = model
        self.distilled_with = self.settings

    def _seed(self, *names: object) -> None:
        init_seed(stage_seed(self.config["seed"], *names), self.config["reproducibility"])

    @contextmanager
    def item_term(self, name: str, run: RoleRun) -> Iterator[None]:
        """The student's recommendation loss has the term of ``item_text_loss`` meanwhile; ``name`` is the stage."""
        if self.settings.text.item_text_loss is None or not self.alkdrec.view.has_vectors:
            yield
            return
        context = self._context(run, None, run.settings)
        self._seed(name, "item_text_loss")
        self.alkdrec.item_loss = ItemTerm(build_item_loss(context).to(self.device), context)
        try:
            yield
        finally:
            self.alkdrec.item_loss = None

    def _context(self, run: RoleRun, recommender: Backbone | None, settings: Settings) -> DistillContext:
        """What losses are told of the run."""
        model = self.alkdrec
        return DistillContext(
            settings=settings,
            student=model.view,
            teacher=recommender,
            n_items=model.n_items,
            train_interaction=self.train_part.inter_feat,
            item_seq_field=model.ITEM_SEQ,
            item_seq_len_field=model.ITEM_SEQ_LEN,
            item_field=model.ITEM_ID,
            epochs=self.config["epochs"],
            session_field=model.USER_ID,
            item_text=self.item_text.vectors if self.item_text else None,
            recommendation=model.own_loss,
            sparse=updates_rows(run.config),
        )

    def distil_last(
        self, fit: Any, rows: TrainingRows, recommender: Backbone, checkpoint: bool = False, **ending: Any
    ) -> StageOutcome:
        """Distil all labels, under the run's settings of the loss or the best of those that ``student_tune`` tries."""
        if not self.settings.backbone.student_tune or not self.alkdrec.view.has_vectors:
            return self.distil(fit, "distilled", rows, recommender, self.settings, checkpoint=checkpoint, **ending)
        tries = loss_tries(self.settings, self._kd_rate(self.settings))

        def train(number: int, values: Values, better: Callable[[StageOutcome], bool]) -> StageOutcome:
            # the checkpoint on the disk is the best finished try's
            how = {"number": number, "checkpoint": better if checkpoint else False, **ending}
            return self.distil(fit, "distilled", rows, recommender, with_loss(self.settings, values), **how)

        found = self.try_all("distilled", tries, train)
        self.distilled_with = with_loss(self.settings, tries[found.won])
        return found.outcome

    def _kd_rate(self, settings: Settings) -> float:
        """The learning rate of distillation: fine-tuning has the run's own, training from scratch that of the student."""
        if settings.distill.kd_learning_rate:
            return settings.distill.kd_learning_rate
        own = self.config["learning_rate"] if settings.distill.kd_init == "student" else self.runs["student"].learning_rate
        return float(own)

    def distil(
        self, fit: Any, name: str, rows: TrainingRows, recommender: Backbone, all_settings: Settings, **ending: Any
    ) -> StageOutcome:
        """Distil the labels into the student, from where ``kd_init`` says. ``all_settings``: the run's, with those of the loss."""
        settings, model, run = all_settings.distill, self.alkdrec, self.runs["student"]
        train_data = run.train_data
        if settings.kd_init == "student":
            model.load_state_dict(self.outcomes["student"].state)
        else:
            self._seed("scratch")
            model.load_state_dict(type(model)(run.config, train_data._dataset).state_dict())
        context = self._context(run, recommender, all_settings)
        self._seed(name, "loss")
        loss = build_loss(context).to(self.device)
        term = DistillationTerm(loss, context, rows.lists(self._distilled_lists(rows), self.rounds.candidates()))
        if not model.view.has_vectors:
            edges = edge_makers(term, train_data._dataset, list(self.rounds.labels), self.device)
            return fit(name, model, run, edges=edges, **ending)
        labelled = self.row_loader(train_data, list(self.rounds.labels), self._label_batch())
        labelled.generator.manual_seed(stage_seed(self.config["seed"], name, "labels"))
        model.kd = loss
        try:
            return fit(
                name,
                model,
                run,
                batches=term.batches(train_data, labelled),
                loss=partial(term, model),
                learning_rate=self._kd_rate(all_settings),
                epoch_start=loss.epoch_start,
                after_step=loss.after_step,
                beside=term.labelled,
                **ending,
            )
        finally:
            model.kd = None

    def _distilled_lists(self, rows: TrainingRows) -> Mapping[int, Sequence[str]]:
        """Row -> list that is distilled: the labels, or what ``kd_lists`` and ``kd_correct`` put in their place."""
        rng = np.random.default_rng(stage_seed(self.config["seed"], "kd_lists"))
        lists = control_lists(self.settings.distill.kd_lists, self.rounds.rankings(), rows.target_tokens, rng)
        correct = self.settings.distill.kd_correct
        if correct == 1:
            return lists
        spoil = np.random.default_rng(stage_seed(self.config["seed"], "kd_correct"))
        return spoiled_lists(lists, self.rounds.candidates(), correct, spoil)

    def _label_batch(self) -> int:
        """Labelled sessions a step, from ``kd_batch_size`` in (session, item) pairs."""
        pairs = self.settings.distill.kd_batch_size
        count = len(self.rounds.labels)
        if pairs is None:
            # few labels still make an epoch of ten steps, between two looks at the validation data
            pairs = min(self.runs["student"].batch_size, count * self.settings.teacher.llm_top_n // 10)
        # two at least: a session's in-batch negatives come from the others
        return min(count, max(2, pairs // self.settings.teacher.llm_top_n))

    def train_longer(self, fit: Any) -> StageOutcome:
        """The control: the plain student trained on for as many steps as distillation took, with as many evaluations."""
        distilled, run = self.outcomes["distilled"], self.runs["student"]
        if not self.alkdrec.view.has_vectors:
            self.logger.info(set_color("stage", "blue") + " student_longer: a table takes no more steps, it is the student's")
            return dataclasses.replace(self.outcomes["student"], seconds=0.0)

        batches = self.recommendation_batches(self.alkdrec, run)

        def train(number: int | None, values: Values, better: Any = None) -> StageOutcome:
            self.alkdrec.load_state_dict(self.outcomes["student"].state)
            return fit(
                "student_longer",
                self.alkdrec,
                run,
                number,
                batches=CycledBatches(batches, max(1, distilled.steps // max(1, distilled.epochs))),
                epochs=distilled.epochs,
                stopping_step=distilled.epochs,
                learning_rate=with_loss(self.distilled_with, values).distill.kd_learning_rate,
            )

        if not self.settings.backbone.student_tune:
            return train(None, {})
        return self.try_all("student_longer", longer_tries(self.distilled_with, run.learning_rate), train).outcome

"""The distillation stage: which batches it sees, and the loss it takes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from recbole.utils import init_seed
from torch import Tensor, nn

from recbole_alkd.distill.base import DistillBatch, DistillContext
from recbole_alkd.distill.combined import CombinedLoss, build_loss
from recbole_alkd.learner.base import Lesson, Workshop
from recbole_alkd.learner.batches import Cycle
from recbole_alkd.learner.role_run import RoleRun
from recbole_alkd.model.backbone import Backbone, updates_rows
from recbole_alkd.processes.group import Group
from recbole_alkd.settings.groups import DistillSettings, Settings
from recbole_alkd.settings.identity import stage_seed


class DistillationTerm:
    """``kd_rec_weight`` x recommendation loss + ``kd_weight`` x distillation loss.

    Pure fine-tuning on lists (``kd_rec_weight: 0`` and a loss that needs lists only) goes over the labelled
    rows. Every other case goes over all training rows, and a loss that needs lists gets a batch of labelled
    rows of its own beside each of them, since few rows of an ordinary batch have a label.
    """

    def __init__(
        self, loss: CombinedLoss, context: DistillContext, labels: tuple[Tensor, Tensor, Tensor],
        group: Group,
    ) -> None:  # fmt: skip
        self.loss, self.context, self.labels, self.group = loss, context, labels, group
        self.settings: DistillSettings = context.settings.distill
        self.needs_lists = "lists" in loss.needs
        self.over_labels = self.needs_lists and loss.needs == {"lists"} and not self.settings.kd_rec_weight
        # what batches of labelled rows come from, beside those of the epoch
        self.labelled: Cycle | None = None

    def batches(self, train_data: Any, labelled: Any) -> Any:
        """What an epoch goes over: the labelled loader or the training loader."""
        if self.over_labels:
            return labelled
        if self.needs_lists:
            self.labelled = Cycle(labelled)
        return train_data

    def __call__(self, model: Any, interaction: Any) -> Tensor:
        total = interaction[self.context.item_field].new_zeros((), dtype=torch.float)
        if self.settings.kd_rec_weight:
            total = total + self.settings.kd_rec_weight * model.calculate_loss(interaction)
        batch, labelled = self.batch(interaction), None
        if self.labelled is not None:
            rows = next(self.labelled)
            rows = rows[self.group.part(len(rows))[0]] if self.group.size > 1 else rows
            labelled = self.batch(rows.to(interaction[self.context.item_field].device))
        return total + self.settings.kd_weight * self.loss(batch, labelled)

    def batch(self, interaction: Any) -> DistillBatch:
        """What the losses are given of a RecBole batch of training rows."""
        context = self.context
        lists = candidates = None
        if self.needs_lists:
            place, all_lists, all_candidates = self.labels
            device = interaction[context.item_field].device
            at = place[interaction["alkd_row"].cpu()]
            # an ordinary batch has rows without a label: place -1, an empty list
            has = (at >= 0).unsqueeze(1)
            lists, candidates = (all_lists[at] * has).to(device), (all_candidates[at] * has).to(device)
        return DistillBatch(
            context,
            interaction[context.item_seq_field],
            interaction[context.item_seq_len_field],
            interaction[context.item_field],
            lists=lists,
            candidates=candidates,
            row=self._row(interaction),
        )

    def _row(self, interaction: Any) -> Tensor | None:
        """Numbers of training rows; None where the rows are others (items), of which nothing is kept."""
        row, rows = interaction["alkd_row"], len(self.context.train_interaction[self.context.item_field])
        return row if int(row.max()) < rows else None


def distill_context(
    shop: Workshop, model: Any, run: RoleRun, recommender: Backbone | None, settings: Settings
) -> DistillContext:
    """What losses are told of the run.

    Args:
        model: the student. run: as the student sees it. settings: the run's, with those of the loss.
    """
    part = run.train_data._dataset
    return DistillContext(
        settings=settings,
        student=model.view,
        teacher=recommender,
        n_items=model.n_items,
        train_interaction=part.inter_feat,
        item_seq_field=model.ITEM_SEQ,
        item_seq_len_field=model.ITEM_SEQ_LEN,
        item_field=model.ITEM_ID,
        epochs=shop.config["epochs"],
        session_field=model.USER_ID,
        item_text=shop.text.vectors if shop.text else None,
        recommendation=model.own_loss,
        sparse=updates_rows(run.config),
    )


def distillation_term(
    shop: Workshop, stage: str, model: Any, run: RoleRun, lesson: Lesson
) -> DistillationTerm:
    """The losses of ``kd_loss`` on what is distilled, with the initial weights of their own parts as
    ``stage`` seeds them."""
    context = distill_context(shop, model, run, lesson.teacher, lesson.settings)
    init_seed(stage_seed(shop.config["seed"], stage, "loss"), shop.config["reproducibility"])
    loss = build_loss(context).to(shop.config["device"])
    return DistillationTerm(loss, context, lesson.lists, shop.group)


class ItemTerm(nn.Module):
    """What ``item_text_loss`` adds to the recommendation loss of a batch of training rows."""

    def __init__(self, loss: CombinedLoss, context: DistillContext) -> None:
        super().__init__()
        self.loss, self.context = loss, context

    def forward(self, interaction: Any) -> Tensor:
        context = self.context
        columns = (context.item_seq_field, context.item_seq_len_field, context.item_field)
        return self.loss(DistillBatch(context, *(interaction[name] for name in columns)))


def control_lists(
    kind: str,
    rankings: Mapping[int, Sequence[str]],
    targets: Callable[[Sequence[int]], Sequence[str]],
    rng: np.random.Generator,
) -> Mapping[int, Sequence[str]]:
    """Row -> list that is distilled instead of the label, for controls that say what a gain is made of.

    Args:
        kind: ``llm`` (the labels as they are); ``shuffled`` (each list in a random order: what is left when
            the LLM's order is taken away); ``permuted`` (every row gets the list of another one: what any
            lists would give); ``target`` (the true next item alone: what more training on the same sessions
            gives).
        rankings: row -> label.
        targets: rows -> their true next items.
    """
    rows = list(rankings)
    if kind == "shuffled":
        return {row: [rankings[row][i] for i in rng.permutation(len(rankings[row]))] for row in rows}
    if kind == "permuted":
        order = rng.permutation(len(rows))  # one cycle through all rows, so that none keeps its own list
        return {rows[a]: rankings[rows[b]] for a, b in zip(order, np.roll(order, 1), strict=True)}
    if kind == "target":
        return {row: [target] for row, target in zip(rows, targets(rows), strict=True)}
    return rankings


def spoiled_lists(
    lists: Mapping[int, Sequence[str]],
    candidates: Mapping[int, Sequence[str]],
    correct: float,
    rng: np.random.Generator,
) -> Mapping[int, Sequence[str]]:
    """A share ``correct`` of the lists as they are, random candidates of the row (as many) in the place of
    the others.

    The control behind the paper's study of the correction rate. With the same ``rng`` a larger share keeps
    what a smaller one keeps, and the random lists are the same.
    """
    place = dict(zip(lists, rng.permutation(len(lists)), strict=True))
    random = {
        row: [candidates[row][i] for i in rng.permutation(len(candidates[row]))[: len(lists[row])]]
        for row in lists
    }
    return {row: lists[row] if place[row] < round(correct * len(lists)) else random[row] for row in lists}

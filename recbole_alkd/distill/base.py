"""What a distillation loss is given, and what it must say of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recbole_alkd.config import AlkdError, Settings
from recbole_alkd.model.backbone import Backbone

NEEDS = ("lists", "teacher_scores", "teacher_vectors", "popularity")


@dataclass(frozen=True)
class DistillContext:
    """What there is before training starts.

    Attributes:
        settings: the run's settings.
        student, teacher: views; the teacher recommender is frozen and in eval mode, None when there is none.
        n_items: size of the item tables, the padding 0 included.
        train_interaction: RecBole Interaction of every training row.
        item_seq_field, item_seq_len_field, item_field: its columns.
        epochs: the horizon of schedules, in epochs.
    """

    settings: Settings
    student: Backbone
    teacher: Backbone | None
    n_items: int
    train_interaction: Any
    item_seq_field: str
    item_seq_len_field: str
    item_field: str
    epochs: int


class DistillBatch:
    """One batch of B training rows, with what the losses ask for computed when it is asked for.

    Attributes:
        item_seq (B, L), item_seq_len (B,), target (B,): the rows; 0 pads ``item_seq`` on the right.
        lists (B, n): LLM rankings as item ids, best first, 0 where a list ends; None for rows without labels.
        candidates (B, c): the candidate sets of the same rows, 0-padded; None without labels.
        negatives (B,): one sampled negative item a row, or None.
    """

    def __init__(
        self,
        context: DistillContext,
        item_seq: Tensor,
        item_seq_len: Tensor,
        target: Tensor,
        lists: Tensor | None = None,
        candidates: Tensor | None = None,
        negatives: Tensor | None = None,
    ) -> None:
        self.context = context
        self.item_seq, self.item_seq_len, self.target = item_seq, item_seq_len, target
        self.lists, self.candidates, self.negatives = lists, candidates, negatives

    @cached_property
    def student_session(self) -> Tensor:
        """Student session vectors (B, d_s), with gradient."""
        return self.context.student.encode(self.item_seq, self.item_seq_len)

    @cached_property
    def student_items(self) -> Tensor:
        """Student item table (n_items, d_s), with gradient."""
        return self.context.student.item_table()

    @cached_property
    def teacher_session(self) -> Tensor:
        """Teacher recommender's session vectors (B, d_t), no gradient."""
        with torch.no_grad():
            return self._teacher().encode(self.item_seq, self.item_seq_len)

    @cached_property
    def teacher_items(self) -> Tensor:
        """Teacher recommender's item table (n_items, d_t), no gradient."""
        with torch.no_grad():
            return self._teacher().item_table().detach()

    @cached_property
    def teacher_scores(self) -> Tensor:
        """Teacher recommender's scores (B, n_items), no gradient; padding and session items at -inf."""
        with torch.no_grad():
            scores = self._teacher().scores(self.item_seq, self.item_seq_len)
            return scores.scatter(1, self.item_seq, -torch.inf).index_fill(1, torch.zeros(1, dtype=torch.long, device=scores.device), -torch.inf)

    def _teacher(self) -> Backbone:
        if self.context.teacher is None:
            raise AlkdError("kd_loss: this loss needs a teacher recommender and the run has none")
        return self.context.teacher


class DistillationLoss(nn.Module):
    """A term that pulls the student towards its teachers. One subclass a file, registered under its ``kd_loss`` name.

    Reduction: ``forward`` returns a mean over the rows of the batch (a sum in the literature is divided by B), so that
    it adds to RecBole's mean losses with the weight the method's authors gave.

    Attributes:
        needs: which of ``NEEDS`` it uses; checked before training starts.
        defaults: its own settings with their default values; ``kd_config: {name: {...}}`` overrides them.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, context: DistillContext, options: Mapping[str, Any]) -> None:
        super().__init__()
        unknown = sorted(set(options) - set(self.defaults))
        if unknown:
            raise AlkdError(
                f"kd_config: {type(self).__name__} has no setting {unknown[0]!r}; allowed: {', '.join(sorted(self.defaults)) or 'none'}"
            )
        self.options = {**self.defaults, **options}
        # a plain attribute: the context holds modules that must stay outside of this one
        object.__setattr__(self, "context", context)

    def epoch_start(self, epoch: int) -> None:
        """Called before each epoch (0, 1, ...): annealing, resampling."""

    def forward(self, batch: DistillBatch) -> Tensor:
        """The loss of the batch, a scalar."""
        raise NotImplementedError

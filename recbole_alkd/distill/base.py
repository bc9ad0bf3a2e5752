"""What a distillation loss is given, and what it must say of itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from recbole_alkd.model.backbone import Backbone
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.field import Field, Rule
from recbole_alkd.settings.groups import Settings
from recbole_alkd.settings.nearest import hint

NEEDS = ("lists", "teacher_scores", "teacher_vectors", "popularity", "item_text")
KEPT_LISTS = 2**30  # bytes that one table of kept teacher lists may have


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
        session_field: its column with the session, or None when every row is a session of its own.
        item_text: (n_items, d) title vectors, rows of 0 for items without a title;
            None when the run looks at no titles.
        recommendation: the student's recommendation loss of a RecBole batch, or None.
        sparse: whether gradients of item tables should hold the touched rows only.
        teacher_lists: the teacher's top items of rows that batches have asked for,
            filled by ``DistillBatch.teacher_top``.
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
    session_field: str | None = None
    item_text: np.ndarray | None = field(default=None, repr=False)
    recommendation: Callable[[Any], Tensor] | None = None
    sparse: bool = False
    teacher_lists: dict[Any, Tensor] = field(default_factory=dict, repr=False)

    def vector_sizes(self) -> tuple[int, int]:
        """d_s and d_t, the sizes of the student's and the teacher recommender's vectors."""
        if self.teacher is None:
            raise AlkdError("kd_loss: this loss needs a teacher recommender and the run has none")
        return self.student.item_table().shape[1], self.teacher.item_table().shape[1]

    def titles(self) -> np.ndarray:
        """``item_text``, where the run has some."""
        if self.item_text is None:
            raise AlkdError(
                "item_text: ~ is not allowed with a loss that looks at titles; "
                "allowed: an encoder, such as tfidf"
            )
        return self.item_text

    def one_item_sessions(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Sessions that hold one item each, (m,) -> item_seq (m, L), item_seq_len (m,),
        in the width of the training rows."""
        width = self.train_interaction[self.item_seq_field].shape[1]
        return nn.functional.pad(items.unsqueeze(1), (0, width - 1)), torch.ones_like(items)


class DistillBatch:
    """One batch of B training rows, with what the losses ask for computed when it is asked for.

    Attributes:
        item_seq (B, L), item_seq_len (B,), target (B,): the rows; 0 pads ``item_seq`` on the right.
        lists (B, n): LLM rankings as item ids, best first, 0 where a list ends (all 0:
            a row without a label).
        candidates (B, c): the candidate sets of the same rows, 0-padded.
        negatives (B,): one sampled negative item a row, or None.
        row (B,): the rows' numbers in ``train_interaction``, or None. With them the frozen teacher ranks each
            row once and not in every epoch.

    ``lists`` and ``candidates`` may be left out when no row has a label; reading them is an AlkdError then.
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
        row: Tensor | None = None,
    ) -> None:
        self.context = context
        self.item_seq, self.item_seq_len, self.target = item_seq, item_seq_len, target
        self._lists, self._candidates, self.negatives, self.row = lists, candidates, negatives, row

    def __len__(self) -> int:
        return len(self.target)

    @property
    def lists(self) -> Tensor:
        return self._labelled(self._lists)

    @property
    def candidates(self) -> Tensor:
        return self._labelled(self._candidates)

    @cached_property
    def student_session(self) -> Tensor:
        """Student session vectors (B, d_s), with gradient."""
        with torch.enable_grad():  # it is kept: the first to ask may be inside of no_grad
            return self.context.student.encode(self.item_seq, self.item_seq_len)

    @cached_property
    def student_items(self) -> Tensor:
        """Student item table (n_items, d_s), with gradient."""
        with torch.enable_grad():
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
        scores.scatter_(1, self.item_seq, -torch.inf)[:, 0] = -torch.inf
        return scores

    def teacher_top(self, k: int, with_target: bool = False, among: Tensor | None = None) -> Tensor:
        """The teacher's best unseen items, best first: (B, min(k, n)) ids, 0 where a row has fewer.

        Args:
            with_target: whether the row's target is among them; without, they are what the teacher adds to
                the data.
            among: (n,) ids to choose from, the same object in every batch; all items when None.

        With row numbers the lists are kept from the first time on, unless they take more than 1 GiB for all
        rows.
        """
        k = min(k, self.context.n_items if among is None else len(among))
        if (
            self.row is None
            or 4 * k * len(self.context.train_interaction[self.context.item_field]) > KEPT_LISTS
        ):
            return self._top(k, with_target, among)
        kept, row = self.context.teacher_lists, self.row.cpu()
        key = (k, with_target, among if among is None else id(among))
        if key not in kept:
            kept[key] = torch.full(
                (len(self.context.train_interaction[self.context.item_field]), k), -1, dtype=torch.int32
            )
        if (kept[key][row, 0] < 0).any():
            kept[key][row] = self._top(k, with_target, among).to("cpu", torch.int32)
        return kept[key][row].to(self.target.device, torch.long)

    def _top(self, k: int, with_target: bool, among: Tensor | None) -> Tensor:
        scores = self.teacher_scores
        if not with_target:
            scores = scores.scatter(1, self.target.unsqueeze(1), -torch.inf)
        if among is not None:
            scores = scores[:, among]
        value, place = scores.topk(k, dim=1)
        return (place if among is None else among[place]).masked_fill(value == -torch.inf, 0)

    def student_scores(self, items: Tensor) -> Tensor:
        """Student scores of items (B, n) of each row, (B, n), with gradient."""
        return torch.bmm(self.student_items[items], self.student_session.unsqueeze(2)).squeeze(2)

    def _labelled(self, value: Tensor | None) -> Tensor:
        if value is None:
            raise AlkdError("kd_loss: this loss needs the LLM's lists and the batch has none")
        return value

    def _teacher(self) -> Backbone:
        if self.context.teacher is None:
            raise AlkdError("kd_loss: this loss needs a teacher recommender and the run has none")
        return self.context.teacher


class DistillationLoss(nn.Module):
    """A term that pulls the student towards its teachers.
    One subclass a file, registered under its ``kd_loss`` name.

    Reduction: ``forward`` returns a mean over the rows of the batch (a sum in the literature is divided by
    B), so that it adds to RecBole's mean losses with the weight lambda that the method's authors gave. That
    weight is the option ``weight``, which every loss has; ``forward`` leaves it out and ``build_loss``
    applies it.

    Modules and parameters made in ``__init__`` are trained together with the student and left out of what is
    saved.

    Attributes:
        needs: which of ``NEEDS`` it uses; checked before training starts.
        defaults: its options with their default values, or a ``Field`` each;
            ``kd_config: {name: {...}}`` overrides them.
        limits: the lowest and highest value of settings that are numbers; at least 0 where nothing is said.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    defaults: ClassVar[Mapping[str, Any]] = {}
    limits: ClassVar[Mapping[str, tuple[float, float]]] = {}

    def __init__(self, context: DistillContext, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.context = context
        self.options = self.checked(context.settings, options)

    @classmethod
    def checked(cls, settings: Settings, options: Mapping[str, Any]) -> dict[str, Any]:
        """``options`` over ``defaults``. AlkdError where one is unknown or out of range,
        or the run cannot have this loss."""
        known = cls.options_spec()
        for name, value in options.items():
            if name not in known:
                allowed = f"{hint(name, known)}; allowed: {', '.join(sorted(known))}"
                raise AlkdError(f"kd_config: {cls.__name__} has no setting {name!r}{allowed}")
            known[name].checked(f"kd_config: {cls.__name__}: {name}", value)
        return {**{name: spec.value() for name, spec in known.items()}, **options}

    @classmethod
    def options_spec(cls) -> dict[str, Field]:
        """What each of its options takes."""
        known = {"weight": 1.0, **cls.defaults}
        return {
            name: _option(default, *cls.limits.get(name, (0, math.inf))) for name, default in known.items()
        }

    def epoch_start(self, epoch: int) -> None:
        """Called before each epoch (0, 1, ...): annealing, resampling.

        State that lasts from epoch to epoch belongs into parameters, buffers or torch's ``get_extra_state``:
        a stage that was killed resumes from these.
        A loss from outside of this package without ``get_extra_state`` begins its stage anew.
        """

    def forward(self, batch: DistillBatch) -> Tensor:
        """The loss of the batch, a scalar."""
        raise NotImplementedError

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Called after each ``optimizer.step()``, while the gradients of that step are still there."""


@runtime_checkable
class Listing(Protocol):
    """A loss that can also be told as lists, from which a student without a gradient learns."""

    def listed(self, batch: DistillBatch) -> tuple[Tensor, Tensor]:
        """Items (B, n) of each row, 0 is none, and their weights (B, n) or (n,)."""
        ...


@runtime_checkable
class ItemListing(Protocol):
    """A loss that can also be told as lists of single items, from which a student without a
    gradient learns."""

    def item_lists(self) -> Iterator[tuple[Callable[[Tensor], tuple[Tensor, Tensor]], bool]]:
        """Several ways, of which one is to be chosen: items (m,) -> listed items (m, n), 0 is none, and their
        weights; and whether they are weighed with popularities, as counts are."""
        ...


def _option(default: Any, low: float, high: float) -> Field:
    """What an option takes: what its default is, and as a number from ``low`` to ``high``."""
    if isinstance(default, Field):
        return default
    if isinstance(default, bool):
        return Field(default, bool)
    span = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
    good = Rule(span, lambda value: math.isfinite(value) and low <= value <= high)
    return Field(default, int if isinstance(default, int) else float, check=good)

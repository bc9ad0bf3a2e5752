"""What recommenders that count share: no gradient, no vectors, one pass over the sessions, and scores."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor

from recbole_alkd.model.backbone import Backbone
from recbole_alkd.model.edges import Edges
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.reading import settings_of


@dataclass(frozen=True)
class Counted:
    """What came of counting.

    Attributes:
        facts: plain numbers that the report holds (``fitted``), such as what validation chose.
        words: what the log says of it, part by part.
        choice: those of ``words`` that say how validation chose. Where several models of a run rest on one
            choice, the log says it once.
    """

    facts: Mapping[str, float] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    choice: tuple[str, ...] = ()


class CountedView(Backbone):
    """A view with scores only: no session vector, no item table, no gradient."""

    has_vectors = False
    learner = "counting"

    @property
    def served_as(self) -> str:
        """What the model says of itself, else ``scores``: a graph from the items of a session to the scores
        of all items."""
        return getattr(self.model, "served_as", "scores")

    @property
    def device(self) -> torch.device:
        return next(itertools.chain(self.model.parameters(), self.model.buffers())).device

    def encode(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        raise self._without("session vectors")

    def item_table(self) -> Tensor:
        raise self._without("item vectors")

    def scores(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        return self.model.scores(item_seq, item_seq_len)

    def _without(self, what: str) -> AlkdError:
        name = type(self.model).__name__
        return AlkdError(
            f"{name} has no {what}, only scores; for this use a backbone such as SessionFPMC or GRU4Rec"
        )


class CountedModel(SequentialRecommender):
    """Base of models that are counted. A subclass has ``count`` and ``scores``, and keeps what it counted in
    its state dict.

    Registered with ``@backbones.register("Name")`` it is a ``student_model`` and a ``teacher_model``.
    ``kd_loss`` and ``item_text`` reach it as edges (``count``).

    Attributes:
        heading: what its line in the log begins with. has_table: whether it gives its ``Weighing`` a table,
            whose neighbours titles may borrow. list_backward: what edges from rankings may count the other
            way round; of several, the model chooses. text: the run's settings of titles.
        mask_session_items: whether items of the session are never recommended.
        free_sizes: names of one-dimensional parts of the state whose size is known only when they are counted
            or loaded.

    Example:
        >>> @backbones.register("Popular")                                    # doctest: +SKIP
        ... class Popular(CountedModel):
        ...     def __init__(self, config, dataset):
        ...         super().__init__(config, dataset)
        ...         self.times = nn.Parameter(torch.zeros(self.n_items), requires_grad=False)
        ...     def count(self, train, valid=None, edges=None):
        ...         self.times.data = torch.bincount(train.inter_feat[self.ITEM_ID],
        minlength=self.n_items).float()
        ...         return Counted(words=(f"{int(self.times.sum()):,} rows",))
        ...     def scores(self, item_seq, item_seq_len):
        ...         return self.times.repeat(item_seq.shape[0], 1)
    """

    input_type = InputType.POINTWISE
    view_class = CountedView
    heading: ClassVar[str] = "counting"
    free_sizes: ClassVar[tuple[str, ...]] = ()
    has_table: ClassVar[bool] = False
    list_backward: tuple[float, ...] = (0.0,)

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = settings_of(config)
        self.text = settings.text
        self.mask_session_items = settings.session.mask_session_items

    def count(self, train: Any, valid: Any = None, edges: Edges | None = None) -> Counted:
        """Fit the model anew.

        Args:
            train, valid: the parts of a RecBole data set; ``valid`` may be None.
            edges: name -> what else is to be learnt, as a matrix (n_items, n_items): how much each item of a
                session says for each other item, from rankings (``kd_loss``) or titles (``item_text``). It is
                made by calling the entry with a ``Weighing``, which says how this model weighs and sums its
                own counts. An entry may be several such makers, one of which is to be chosen
                (``edges.variants_of``).
        """
        raise NotImplementedError

    def scores(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Scores of every item, (B, L) item ids padded with 0 on the right, (B,) -> (B, n_items)."""
        raise NotImplementedError

    def calculate_loss(self, interaction: Any) -> Tensor:
        raise AlkdError(f"{type(self).__name__} has no loss: it is fitted by counting")

    def predict(self, interaction: Any) -> Tensor:
        scores = self.scores(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return scores.gather(1, interaction[self.ITEM_ID].unsqueeze(1)).squeeze(1)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Scores (B, n_items); with ``mask_session_items`` the items of the session (and the padding) are
        -inf.
        """
        item_seq = interaction[self.ITEM_SEQ]
        scores = self.scores(item_seq, interaction[self.ITEM_SEQ_LEN])
        return scores.scatter(1, item_seq, -math.inf) if self.mask_session_items else scores

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        for name in self.free_sizes:
            stored, own = state_dict.get(prefix + name), getattr(self, name)
            if stored is not None and stored.ndim == 1:
                own.data = own.data.new_empty(stored.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

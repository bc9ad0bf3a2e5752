"""One view over a RecBole sequential model: session vectors, item table, scores.

Teacher recommender and student are both seen through it. A model qualifies when its score is an inner product
of a session vector and an item vector; everything ALKDRec does to a recommender (difficulty, candidates,
distillation) needs no more than that.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from recbole_alkd.model.ranks import mean_ranks


class Backbone:
    """View over a model whose ``forward(item_seq, item_seq_len)`` gives the session vector.

    The item table is what the model's ``item_table()`` returns, or its ``item_embedding``. A backbone that
    scores differently subclasses this and registers the subclass, with the RecBole model as ``model_class``.

    Attributes:
        has_vectors: whether there are session and item vectors and a gradient. Without them there is
            ``scores`` alone (``model/counted.py``).
        learner: the name of how it learns (``registry.learners``).
        model: the RecBole model. config: what it was built with (see ``role_config``),
            where ``build_backbone`` built it.
    """

    model_class: type[nn.Module]
    has_vectors: ClassVar[bool] = True
    learner: ClassVar[str] = "gradient"

    def __init__(self, model: nn.Module, config: Any = None) -> None:
        self.model: Any = model
        self.config = config

    def encode(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Session vectors: ``item_seq`` (B, L) of item ids padded with 0 on the right,
        ``item_seq_len`` (B,) -> (B, d)."""
        return self.model(item_seq, item_seq_len)

    def item_table(self) -> Tensor:
        """Score-side item vectors (n_items, d); row 0 belongs to the padding."""
        if hasattr(self.model, "item_table"):
            return self.model.item_table()
        return self.model.item_embedding.weight

    def item_vectors(self, items: Tensor, sparse: bool = False) -> Tensor:
        """Rows of the item table, (m,) -> (m, d). ``sparse``: with a sparse gradient where the table is a
        parameter."""
        table = self.item_table()
        return embedding(items, table, sparse=sparse and table.is_leaf)

    def scores(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Scores of every item, (B, n_items)."""
        return self.encode(item_seq, item_seq_len) @ self.item_table().T

    def scores_of(self, item_seq: Tensor, item_seq_len: Tensor, items: Tensor) -> Tensor:
        """Scores of some items of each row, ``items`` (B, m) -> (B, m)."""
        if not self.has_vectors:
            return self.scores(item_seq, item_seq_len).gather(1, items)
        return torch.einsum("bd,bmd->bm", self.encode(item_seq, item_seq_len), self.item_table()[items])

    def target_ranks(self, item_seq: Tensor, item_seq_len: Tensor, target: Tensor, masked: bool) -> Tensor:
        """``mean_ranks`` of one item of each row, ``target`` (B,) -> (B,);
        ``masked``: no item of the session is recommended."""
        scores = self.scores(item_seq, item_seq_len)
        return mean_ranks(scores.scatter(1, item_seq, -torch.inf) if masked else scores, target)

    @classmethod
    def teaches(cls) -> frozenset[str]:
        """What it gives distillation losses as a teacher recommender, by the names of
        ``distill.base.NEEDS``."""
        return frozenset({"teacher_scores", "teacher_vectors"} if cls.has_vectors else {"teacher_scores"})

    @property
    def served_as(self) -> str:
        """How a bundle holds it: what the model says of itself (``served_as = "table"`` or ``"embeddings"``),
        else ``encoder``, a graph from the items of a session to its vector."""
        return getattr(self.model, "served_as", "encoder")

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def loss(self, interaction: Any) -> Tensor:
        """The model's own recommendation loss on a RecBole batch, a scalar (mean over the batch)."""
        return self.model.calculate_loss(interaction).reshape(())  # GCSAN's has shape (1,)

"""Late fusion: what titles say is laid over a trained student when it scores, without any training.

    score(j) = the student's + w * (mean over the session's items i of T_i) . T_j,

which is the student with [F_in | sqrt(w) T] and [F_out | sqrt(w) T] in place of its item tables wherever its
session vector is the mean of input vectors (SessionFPMC, older items counting less in both means), and the
same sum of scores for every other backbone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from recbole_alkd.model.backbone import Backbone
from recbole_alkd.model.session_model import item_weights
from recbole_alkd.model.text_axes import principal_axes


def title_coordinates(vectors: np.ndarray, size: int) -> np.ndarray:
    """Centred title vectors in their ``size`` principal components, rows at length 1:
    (n_items, d) -> (n_items, min(size, d)).

    float32; items without a title (rows of 0) stay at 0.
    """
    known = np.asarray(vectors.any(axis=1))
    coordinates = np.zeros((len(vectors), min(size, vectors.shape[1])), dtype=np.float32)
    if known.any():
        centred = vectors[known].astype(np.float64)
        centred -= centred.mean(0)
        reduced = centred @ principal_axes(centred, coordinates.shape[1])
        length = np.linalg.norm(reduced, axis=1, keepdims=True)
        coordinates[known] = np.divide(
            reduced, length, out=np.zeros_like(reduced), where=length > 1e-6 * max(1e-30, float(length.max()))
        )
    return coordinates


class TextTable(nn.Module):
    """The table that is served beside a student, sqrt(w) T, (n_items, d) float32;
    None, and no part of the state, without one."""

    vectors: nn.Parameter | None
    place: Tensor

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.n_items = n_items
        self.register_parameter("vectors", None)
        self.register_buffer("place", torch.zeros(0), persistent=False)  # knows the device

    def set(self, vectors: np.ndarray | None) -> None:
        """Serve these vectors, or none."""
        self.vectors = None
        if vectors is not None:
            self.vectors = nn.Parameter(torch.from_numpy(vectors).to(self.place.device), requires_grad=False)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # whether there is a table, and its width, is the state's to say
        stored, self.vectors = state_dict.get(f"{prefix}vectors"), None
        if stored is not None and stored.ndim == 2:
            shape = (self.n_items, stored.shape[1])
            self.vectors = nn.Parameter(self.place.new_empty(shape), requires_grad=False)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class TextFusion(Backbone):
    """A view over a view, with the titles of a ``TextTable`` in its vectors and scores;
    the view itself while there are none."""

    def __init__(self, base: Backbone, titles: TextTable) -> None:
        super().__init__(base.model, base.config)
        self.base, self.titles = base, titles

    def session_titles(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Mean title vector of the session, (B, L), (B,) -> (B, d)."""
        assert self.titles.vectors is not None
        weights = item_weights(item_seq, item_seq_len, getattr(self.model, "item_decay", 1.0)).to(
            self.titles.vectors.dtype
        )
        return embedding_bag(
            item_seq, self.titles.vectors, mode="sum", padding_idx=0, per_sample_weights=weights
        )

    def encode(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        session = self.base.encode(item_seq, item_seq_len)
        if self.titles.vectors is None:
            return session
        return torch.cat([session, self.session_titles(item_seq, item_seq_len)], dim=1)

    def item_table(self) -> Tensor:
        table = self.base.item_table()
        return table if self.titles.vectors is None else torch.cat([table, self.titles.vectors], dim=1)

    def item_vectors(self, items: Tensor, sparse: bool = False) -> Tensor:
        vectors = self.base.item_vectors(items, sparse)
        return (
            vectors
            if self.titles.vectors is None
            else torch.cat([vectors, self.titles.vectors[items]], dim=1)
        )

    def scores(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        scores = self.base.scores(item_seq, item_seq_len)
        if self.titles.vectors is None:
            return scores
        return scores.addmm(self.session_titles(item_seq, item_seq_len), self.titles.vectors.T)

    def loss(self, interaction: Any) -> Tensor:
        return self.base.loss(interaction)

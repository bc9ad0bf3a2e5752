"""AttMix, the paper's third backbone: queries from the newest items at several depths attend to the whole
session.

Zhang et al., "Efficiently Leveraging Multi-level User Intent for Session-based Recommendation via Atten-Mixer
Network" (WSDM 2023), in the form that ALKDRec (AAAI 2025) uses.
Where that form is odd it is kept, and said below.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from recbole_alkd.model.session_model import SessionModel, last_items
from recbole_alkd.registry import backbones
from recbole_alkd.settings.error import AlkdError


@backbones.register("AttMix")
class AttMix(SessionModel):
    """Multi-level attention over the session; session vectors have length 1.

    With x_p the normalised item vectors of the session (0 at the padding) and k = ``last_k`` levels:

    1. H_i = Q_i [newest item, ..., i-th newest], a missing item being 0; each feature of H is divided by its
       norm over the levels.
    2. A = softmax_p(2 sigmoid((W0 H)(W1 x)')) for every level and head; A = (sum_i A_i^p)^(1/p) over the
       levels, with p = ``l_p``; A = softmax_p(2 A) over the session's own items.
    3. h = normalise(W_t [LayerNorm(sum_p A_p W2 x_p) ; x_last]).

    Kept from the published form: queries and keys are cut into heads by a plain reshape, which mixes
    positions with features (``proper_heads: True`` cuts features only), and the first softmax also runs over
    the padding, so the result depends on the width. The width is therefore always ``MAX_ITEM_LIST_LENGTH``
    (10 in this model's YAML), whatever the batch has; longer sessions keep their last items.

    Settings beside those of ``SessionModel``: ``heads``, ``last_k``, ``l_p``, ``dropout_prob``,
    ``proper_heads``; and for the original Atten-Mixer ``item_norm`` (normalised item table), ``scale``
    (factor on the scores) and ``tie`` (one table). It also runs alone, with ``--model=AttMix`` and RecBole's
    stock trainer.
    """

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset, tie=config["tie"])
        size = config["embedding_size"]
        self.heads, self.last_k, self.l_p = config["heads"], config["last_k"], float(config["l_p"])
        self.proper_heads, self.item_norm, self.scale = (
            config["proper_heads"],
            config["item_norm"],
            config["scale"],
        )
        if size % self.heads:
            raise AlkdError(
                f"heads: {self.heads} does not divide the embedding size {size} of AttMix; "
                "allowed: a divisor of it"
            )
        if not 1 <= self.last_k <= self.max_seq_length:
            raise AlkdError(
                f"last_k: {self.last_k} is not allowed for AttMix; "
                f"allowed: 1 to MAX_ITEM_LIST_LENGTH ({self.max_seq_length})"
            )
        self.level_queries = nn.ModuleList(nn.Linear((i + 1) * size, size) for i in range(self.last_k))
        self.w0, self.w1, self.w2 = (nn.Linear(size, size) for _ in range(3))
        self.layer_norm = nn.LayerNorm(size, eps=1e-8)
        self.transform = nn.Linear(2 * size, size)
        self.dropout = nn.Dropout(config["dropout_prob"])
        for parameter in self.parameters():  # every one, LayerNorm and padding rows too
            nn.init.uniform_(parameter, -(size**-0.5), size**-0.5)

    def item_table(self) -> Tensor:
        """Score-side item vectors (n_items, d), with ``scale`` in them."""
        table = super().item_table()
        return self.scale * (normalize(table, dim=1) if self.item_norm else table)

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Session vectors of length 1, (B, L), (B,) -> (B, d)."""
        item_seq, item_seq_len = last_items(item_seq, item_seq_len, self.max_seq_length)
        there = item_seq > 0
        items = self.dropout(normalize(self.input_embedding(item_seq), dim=2) * there.unsqueeze(2))
        newest = self._newest(items, item_seq_len)
        levels = torch.stack(
            [query(newest[:, : i + 1].flatten(1)) for i, query in enumerate(self.level_queries)], dim=1
        )
        levels = levels / (levels.norm(dim=1, keepdim=True) + 1e-12)

        match = self._split(self.w0(levels)) @ self._split(self.w1(items)).transpose(2, 3)  # (B, heads, k, L)
        attention = torch.softmax(2 * torch.sigmoid(match), dim=3)
        attention = attention.pow(self.l_p).sum(2).pow(1 / self.l_p)
        attention = torch.softmax((2 * attention).masked_fill(~there.unsqueeze(1), -torch.inf), dim=2)
        attention = self.dropout(attention)

        values = self.w2(items).view(*item_seq.shape, self.heads, -1)
        pooled = torch.einsum("bhl,blhe->bhe", attention, values).flatten(1)
        both = torch.cat([self.layer_norm(pooled), newest[:, 0]], dim=1)
        return normalize(self.transform(both), dim=1)

    def _newest(self, items: Tensor, item_seq_len: Tensor) -> Tensor:
        """The last ``last_k`` items, newest first, 0 where a session has fewer:
        (B, L, d), (B,) -> (B, last_k, d)."""
        place = item_seq_len.unsqueeze(1) - 1 - torch.arange(self.last_k, device=items.device)
        newest = items.gather(1, place.clamp_min(0).unsqueeze(2).expand(-1, -1, items.shape[2]))
        return newest * (place >= 0).unsqueeze(2)

    def _split(self, vectors: Tensor) -> Tensor:
        """(B, n, d) -> (B, heads, n, d / heads)."""
        batch, count, size = vectors.shape
        if self.proper_heads:
            return vectors.view(batch, count, self.heads, size // self.heads).transpose(1, 2)
        return vectors.reshape(batch, self.heads, count, size // self.heads)

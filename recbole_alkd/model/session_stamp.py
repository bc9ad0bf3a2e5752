"""Session STAMP, the paper's second backbone: attention on the session's items,
steered by its last item and its mean.

Liu et al., "STAMP: Short-Term Attention/Memory Priority Model for Session-based Recommendation" (KDD 2018),
in the form that ALKDRec (AAAI 2025) uses: a second item table for the scores,
and no MLPs after the attention.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_alkd.model.session_model import SessionModel
from recbole_alkd.registry import backbones


@backbones.register("SessionSTAMP")
class SessionSTAMP(SessionModel):
    """h = m + sum_p alpha_p x_p, with m the mean of the session's input vectors x_p and x_t the last of them,

    alpha_p = w0' sigmoid(W1 x_p + W2 x_t + W3 m + b), not normalised. Item vectors start at N(0, 0.002),
    matrices at N(0, 0.05). The padding's vector is 0, so that the width of a batch does not matter (published
    code leaves it at its random start).

    Settings: those of ``SessionModel``. It also runs alone, with ``--model=SessionSTAMP`` and RecBole's stock
    trainer.
    """

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        size = config["embedding_size"]
        self.w0 = nn.Linear(size, 1, bias=False)
        self.w1, self.w2, self.w3 = (nn.Linear(size, size, bias=False) for _ in range(3))
        self.bias = nn.Parameter(torch.zeros(size))
        for embedding in (self.input_embedding, self.output_embedding):
            nn.init.normal_(embedding.weight, std=0.002)
        for linear in (self.w0, self.w1, self.w2, self.w3):
            nn.init.normal_(linear.weight, std=0.05)
        with torch.no_grad():
            self.input_embedding.weight[0].zero_()

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Session vectors, (B, L), (B,) -> (B, d)."""
        items = self.input_embedding(item_seq)
        mean = items.sum(1) / item_seq_len.unsqueeze(1)
        last = self.gather_indexes(items, item_seq_len - 1)
        steer = (self.w2(last) + self.w3(mean) + self.bias).unsqueeze(1)
        attention = self.w0(torch.sigmoid(self.w1(items) + steer)) * (item_seq > 0).unsqueeze(2)
        return (attention * items).sum(1) + mean

"""Session FPMC, the paper's first backbone: the mean of the session's item vectors,
scored against a second item table.

Rendle et al., "Factorizing Personalized Markov Chains" (WWW 2010), without the user factor,
as ALKDRec (AAAI 2025) uses it.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recbole_alkd.model.session_model import SessionModel, item_weights
from recbole_alkd.model.weighted_rows import weighted_rows
from recbole_alkd.registry import backbones
from recbole_alkd.settings.error import AlkdError


@backbones.register("SessionFPMC")
class SessionFPMC(SessionModel):
    """Session encoder without weights of its own: two item tables, both initialised by Xavier.

    Settings: those of ``SessionModel``, and ``item_decay`` in (0, 1], what an item counts in the mean,
    compared with the one after it; with 1, the paper's, the order does not matter. It also runs alone, with
    ``--model=SessionFPMC`` and RecBole's stock trainer.
    """

    served_as: ClassVar[str] = "embeddings"

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        nn.init.xavier_normal_(self.input_embedding.weight)
        nn.init.xavier_normal_(self.output_embedding.weight)
        with torch.no_grad():
            self.input_embedding.weight[0].zero_()
        self.item_decay = config["item_decay"]
        self._weight_tables: dict[Any, Tensor] = {}
        if (
            isinstance(self.item_decay, bool)
            or not isinstance(self.item_decay, (int, float))
            or not 0 < self.item_decay <= 1
        ):
            raise AlkdError(
                f"item_decay: {self.item_decay!r} is not allowed; allowed: a number above 0, at most 1"
            )

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Weighted mean input vector of the session, (B, L), (B,) -> (B, d).
        A repeated item counts wherever it stands."""
        table = self.input_embedding
        if self.item_decay == 1:
            return table(item_seq).sum(1) / item_seq_len.unsqueeze(1)
        weights = self._weights(item_seq.shape[1], table.weight).index_select(0, item_seq_len)
        return weighted_rows(table, item_seq, weights)

    def _weights(self, width: int, like: Tensor) -> Tensor:
        """``item_weights`` of every length in ``width`` places, (lengths, width)."""
        key = width, like.dtype, like.device
        if key not in self._weight_tables:
            lengths = torch.arange(max(width, self.max_seq_length) + 1, device=like.device)
            places = torch.zeros(len(lengths), width, device=like.device)
            self._weight_tables[key] = item_weights(places, lengths, self.item_decay).to(like.dtype)
        return self._weight_tables[key]

"""Session FPMC, the paper's first backbone: the mean of the session's item vectors, scored against a second item table.

Rendle et al., "Factorizing Personalized Markov Chains" (WWW 2010), without the user factor, as ALKDRec (AAAI 2025) uses it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_alkd.model.session_model import SessionModel
from recbole_alkd.registry import backbones


@backbones.register("SessionFPMC")
class SessionFPMC(SessionModel):
    """Order-free session encoder with separate input and output tables, both initialised by Xavier.

    Settings: those of ``SessionModel``. It also runs alone, with ``--model=SessionFPMC`` and RecBole's stock trainer.
    """

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        nn.init.xavier_normal_(self.input_embedding.weight)
        nn.init.xavier_normal_(self.output_embedding.weight)
        with torch.no_grad():
            self.input_embedding.weight[0].zero_()

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Mean input vector of the session, (B, L), (B,) -> (B, d). A repeated item counts as often as it stands there."""
        return self.input_embedding(item_seq).sum(1) / item_seq_len.unsqueeze(1)

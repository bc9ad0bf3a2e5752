"""Items with titles alike as training rows: what titles say of *items*, for an embedding student that stays
as small."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_alkd.distill.base import DistillationLoss, DistillBatch, DistillContext
from recbole_alkd.model.edges import nearest_edges
from recbole_alkd.registry import losses
from recbole_alkd.settings.error import AlkdError


@losses.register("text_pairs")
class TextPairs(DistillationLoss):
    """Each item and one of its nearest titles as a row more: input [a], target b,
    under the student's recommendation loss.

        (P / R) * loss of P pairs,    weight 0.1

    for R training rows, so that a pair counts ``weight`` times what a row counts. A batch of B rows draws B
    of the P pairs. The pairs are those of the ``neighbors`` nearest titles by centred cosine,
    above ``item_text_similarity``.

    Source: none is known to us under this name; it is the session-free case of training on similar items as
    if they had been clicked after each other. ``item_text_permuted`` is the control.

    Inputs: only the number of rows. Needs ``item_text`` and a student with vectors.
    Options: ``neighbors`` (5) an item; ``weight`` (0.1).
    Raises: AlkdError where no two titles are alike enough.
    """

    needs = frozenset({"item_text"})
    defaults: ClassVar[dict[str, Any]] = {"neighbors": 5, "weight": 0.1}
    limits: ClassVar[dict[str, tuple[float, float]]] = {"neighbors": (1, float("inf"))}
    pairs: Tensor

    def __init__(self, context: DistillContext, options: dict[str, Any]) -> None:
        super().__init__(context, options)
        least = context.settings.text.item_text_similarity
        pairs = np.stack(nearest_edges(context.titles(), self.options["neighbors"], least).nonzero())
        if not pairs.size:
            raise AlkdError(
                f"item_text_similarity: no two titles are above {least}, so that text_pairs has no pair"
            )
        self.register_buffer("pairs", torch.as_tensor(pairs, dtype=torch.long), persistent=False)
        self.share = pairs.shape[1] / len(context.train_interaction[context.item_field])

    def forward(self, batch: DistillBatch) -> Tensor:
        context = self.context
        assert context.recommendation is not None
        source, target = self.pairs[
            :, torch.randint(self.pairs.shape[1], (len(batch),), device=self.pairs.device)
        ]
        item_seq, length = context.one_item_sessions(source)
        rows = {
            context.item_seq_field: item_seq,
            context.item_seq_len_field: length,
            context.item_field: target,
        }
        return self.share * context.recommendation(Interaction(rows))

"""Item vectors drawn towards a linear image of their titles, so that items of few clicks lie where their
titles say."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recbole_alkd.distill.base import DistillationLoss, DistillBatch, DistillContext
from recbole_alkd.model.edges import unit_rows
from recbole_alkd.model.lookups import lookups
from recbole_alkd.registry import losses

_ITEMS_AT_ONCE = 1024
_RIDGE = 1.0


@losses.register("text_project")
class TextProjection(DistillationLoss):
    """Squared distance of each item's two vectors to linear maps of its title vector, both learnt:

        (n / R) * mean over items i of |out_i - A t_i|^2 + |in_i - B t_i|^2

    with out_i the item's score-side vector, in_i the session vector of the session [i], t_i its centred title
    vector at length 1, n items with titles and R training rows: the negative log density of out_i ~ N(A t_i,
    s^2 I), in_i ~ N(B t_i, s^2 I) beside the mean loss of the rows, with 1 / (2 s^2) = ``weight``. An item of
    many clicks is moved by them; one that was never clicked ends at the image of its title. The maps start as
    the ridge regressions of the vectors on the titles and are no part of the student.

    Source: Agarwal & Chen, "Regression-based Latent Factor Models" (KDD 2009), eq. for item factors regressed
    on features; here with two vectors an item and fitted by descent along with them.

    Inputs: only the number of rows; a batch of B rows draws B items. Needs ``item_text`` and a student with
    vectors. Options: ``weight`` (0.1).
    """

    needs = frozenset({"item_text"})
    defaults: ClassVar[dict[str, Any]] = {"weight": 0.1}
    items: Tensor
    titles: Tensor

    def __init__(self, context: DistillContext, options: dict[str, Any]) -> None:
        super().__init__(context, options)
        unit = torch.from_numpy(unit_rows(context.titles()))
        items = torch.nonzero(unit.any(1)).squeeze(1)
        device = context.student.device
        self.register_buffer("items", items.to(device), persistent=False)
        self.register_buffer("titles", unit[items].to(device), persistent=False)
        self.share = len(items) / len(context.train_interaction[context.item_field])
        output, session = self._start()
        self.to_output, self.to_session = nn.Parameter(output), nn.Parameter(session)

    def forward(self, batch: DistillBatch) -> Tensor:
        drawn = torch.randint(len(self.items), (len(batch),), device=self.items.device)
        items, titles = self.items[drawn], self.titles[drawn]
        output, session = self._vectors(items)
        distance = (output - titles.to(output) @ self.to_output).square() + (
            session - titles.to(output) @ self.to_session
        ).square()
        return self.share * distance.sum(1).mean()

    def _vectors(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Score-side and session vectors of items, (m,) -> (m, d), (m, d)."""
        context, student = self.context, self.context.student
        with lookups(student.model, context.n_items, context.sparse):
            return student.item_vectors(items, context.sparse), student.encode(
                *context.one_item_sessions(items)
            )

    @torch.no_grad()
    def _start(self) -> tuple[Tensor, Tensor]:
        """Ridge regressions of both vectors on the titles, (d_t, d) each."""
        model = self.context.student.model
        training = model.training
        model.eval()
        parts = [self._vectors(items) for items in torch.split(self.items, _ITEMS_AT_ONCE)]
        model.train(training)
        output, session = (torch.cat(part) for part in zip(*parts, strict=True))
        titles = self.titles.to(output)
        gram = titles.T @ titles + _RIDGE * torch.eye(
            titles.shape[1], dtype=output.dtype, device=output.device
        )
        return torch.linalg.solve(gram, titles.T @ output), torch.linalg.solve(gram, titles.T @ session)

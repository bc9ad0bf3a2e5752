"""LINK: what the teacher recommender says of sessions that hold one item, as knowledge about items."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from recbole_alkd.distill.base import DistillationLoss, DistillBatch
from recbole_alkd.registry import losses
from recbole_alkd.settings.field import Field, is_a, words


def _above_zero(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(is_a(one, int, float) and 0 < one < float("inf") for one in values)


@losses.register("link")
class ItemKnowledge(DistillationLoss):
    """KL of the student's softmax from the teacher's sharpened one, for the sessions [i] of the batch's
    distinct targets i.

    Source: Choi et al., "Linear Item-Item Models with Neural Knowledge for Session-based Recommendation"
    (SIGIR 2025), where a linear model is pulled to M, the teacher's softmax for every one-item session
    (``student_model: SLIST`` does exactly that). A table of neighbours takes M's entries as edges: its
    student has no gradient, so validation chooses temperature and weight.
    The loss for students with a gradient is ours: the same M, row by row.

    Inputs: the teacher's scores of one-item sessions (m, n_items), m <= B; the item itself and the padding
    are left out. Memory: two such matrices. Options: ``top`` (100) items of the teacher that keep a share;
    ``temperature`` ([0.1, 0.3]): a number, or several, of which a student that counts chooses and others take
    the first; ``scaled`` (True): scores are divided by the distance of the best from the last of these items,
    so that a temperature means the same for every teacher (False: LINK's own, the scores as they are);
    ``weighed`` ([False, True]): whether a table weighs them with popularities as it weighs counts,
    which says more where counts are few; ``weight`` (1).
    """

    needs = frozenset({"teacher_scores"})
    defaults: ClassVar[dict[str, Any]] = {
        "top": 100,
        "temperature": Field(
            [0.1, 0.3], (float, list), check=words("a number above 0, or a list of such numbers", _above_zero)
        ),
        "scaled": True,
        "weighed": Field(
            [False, True],
            (bool, list),
            check=words(
                "true, false or a list of these",
                lambda v: v in (True, False) or (v and set(v) <= {True, False}),
            ),
        ),
    }
    limits: ClassVar[dict[str, tuple[float, float]]] = {"top": (1, float("inf"))}

    @property
    def temperatures(self) -> list[float]:
        """Those that are allowed, without repeats."""
        value = self.options["temperature"]
        return list(dict.fromkeys(value if isinstance(value, list) else [value]))

    def item_lists(self) -> Iterator[tuple[Callable[[Tensor], tuple[Tensor, Tensor]], bool]]:
        """For every temperature: items (m,) -> their neighbours and shares (m, n);
        and whether to weigh them, both ways."""
        weighed = self.options["weighed"]
        for temperature in self.temperatures:
            for kind in dict.fromkeys(weighed if isinstance(weighed, list) else [weighed]):
                yield partial(self.shares, temperature=temperature), kind

    @torch.no_grad()
    def shares(self, items: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """The teacher's best items for the sessions [i], (m,) -> ids (m, k), 0 is none, and their shares (m,
        k), which sum to 1."""
        teacher = self.context.teacher
        assert teacher is not None  # see ``needs``
        scores = teacher.scores(*self.context.one_item_sessions(items)).clone()
        scores.scatter_(1, items.unsqueeze(1), -torch.inf)[:, 0] = -torch.inf
        value, place = scores.topk(min(self.options["top"], scores.shape[1]), dim=1)
        known = torch.isfinite(value)
        if self.options["scaled"]:
            best = value[:, :1]
            last = torch.where(known, value, best).amin(1, keepdim=True)
            value = (value - best) / (best - last).clamp(min=torch.finfo(value.dtype).tiny)
        share = torch.softmax(value / temperature, dim=1)
        share = torch.where(known, share, 0.0).nan_to_num()  # an item of a catalogue of one has no other
        return place.masked_fill(share <= 0, 0), share

    def forward(self, batch: DistillBatch) -> Tensor:
        items = torch.unique(batch.target)
        place, share = self.shares(items, self.temperatures[0])
        student = self.context.student
        own = student.encode(*self.context.one_item_sessions(items)) @ batch.student_items.T
        hidden = torch.zeros_like(own, dtype=torch.bool).scatter_(1, items.unsqueeze(1), True)
        hidden[:, 0] = True
        log_own = torch.log_softmax(own.masked_fill(hidden, -torch.inf), dim=1)
        terms = torch.where(share > 0, share * (share.clamp(min=1e-30).log() - log_own.gather(1, place)), 0.0)
        return terms.sum(1).mean()

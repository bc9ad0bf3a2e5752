"""A linear map of title vectors that is learnt from what sessions hold together: A t_i . B t_j says how well
j goes with i.

InfoNCE (``llm/contrast.py``) over pairs (i, j) of items of one session, both ways, with a learnt temperature.
A and B start as the same map, which keeps the vectors' leading coordinates; from there they may part, since
what goes with an item need not be like it. Validation pairs say after which round to stop, 0 included: then
the map is where it started.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from recbole_alkd.llm.contrast import TEMPERATURE, info_nce, log_shares

Pairs = tuple[np.ndarray, np.ndarray]  # sources (P,), targets (P,)

_BATCH, _RATE = 512, 1e-3
_PAIRS = 100_000  # that are drawn for a round
_ROUNDS, _LEAST = 10, 0.01  # at most; what a round has to take off the validation loss for another one
_VALID_AT_ONCE = _ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class TextMap:
    """What was learnt.

    Attributes:
        source, target: (n_items, size) float32, A t_i and B t_j at length 1, rows of 0 where an item has no
            vector.
        scale: of their cosine. prior: (n_items,) float32, half the log share of each item among the targets.
        round: the one that was kept, 0: as it started. losses: on validation pairs, after each round from 0
            on.
    """

    source: np.ndarray
    target: np.ndarray
    scale: float
    prior: np.ndarray
    round: int
    losses: tuple[float, ...]

    def edges(self, neighbors: int, discount: np.ndarray | None = None) -> csr_array:
        """Edges from each item to the ``neighbors`` items that most probably go with it, weighing p(j | i),
        (n_items, n_items).

        The loss takes half the log of an item's share off its logit, so that scale * cosine is log p(j | i)
        less the other half: p(j | i) is the softmax of scale * cosine + half the log of the share, over all
        items with a vector but i.

        Args:
            discount: (n_items,) above 0, by which the p(j | i) of each neighbour j are divided; None: by
                nothing.
        """
        off = 0.0 if discount is None else np.log(discount)
        prior = self.prior - np.asarray(off, dtype=np.float32)
        n_items = len(self.source)
        known = np.flatnonzero(self.source.any(1) & self.target.any(1))
        neighbors = min(neighbors, len(known) - 1)
        if neighbors < 1:
            return csr_array((n_items, n_items), dtype=np.float32)
        source, target, weight = [], [], []
        for begin in range(0, len(known), _ROWS_AT_ONCE):
            asking = known[begin : begin + _ROWS_AT_ONCE]
            logits = self.scale * (self.source[asking] @ self.target[known].T) + prior[known]
            row = np.arange(len(asking))
            logits[row, begin + row] = -np.inf
            share = np.exp(logits - logits.max(1, keepdims=True))
            share /= share.sum(1, keepdims=True)
            best = np.argpartition(-share, neighbors - 1, axis=1)[:, :neighbors]
            source.append(np.repeat(asking, neighbors))
            target.append(known[best].ravel())
            weight.append(np.take_along_axis(share, best, axis=1).ravel())
        data = np.concatenate(weight).astype(np.float32)
        return csr_array((data, (np.concatenate(source), np.concatenate(target))), shape=(n_items, n_items))


def learnt_map(vectors: np.ndarray, pairs: Pairs, valid: Pairs | None, size: int, seed: int) -> TextMap:
    """Learn A and B.

    Args:
        vectors: (n_items, d), rows of 0 for items without one, whose pairs are left out; leading coordinates
            first, as ``text_axes.whitened`` gives them.
        pairs: of training sessions. valid: of validation sessions; without any, one round is learnt.
        size: coordinates of the map; d where that is less.
    """
    known = np.asarray(vectors.any(1))
    source, target = _with_vectors(pairs, known)
    unit = normalize(torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32)), dim=1)
    start = torch.eye(unit.shape[1])[:, :size]
    maps = [start.clone().requires_grad_(True) for _ in range(2)]
    log_scale = torch.tensor(-np.log(TEMPERATURE), dtype=torch.float32, requires_grad=True)
    log_q = log_shares(target.numpy(), len(vectors))
    checked = None if valid is None else _with_vectors(valid, known)
    if checked is not None and not len(checked[0]):
        checked = None

    def loss_now() -> float:
        return float("nan") if checked is None else _valid_loss(unit, maps, log_scale, log_q, checked, known)

    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam([*maps, log_scale], lr=_RATE)
    if not len(source):
        checked = None
    losses, best, kept = [loss_now()], 0, [one.detach().clone() for one in (*maps, log_scale)]
    for number in range(1, (_ROUNDS if checked is not None else min(1, len(source))) + 1):
        for part in torch.randint(len(source), (_PAIRS,), generator=generator).split(_BATCH):
            items = target[part]
            loss = info_nce(
                unit[source[part]] @ maps[0], unit[items] @ maps[1], log_scale.exp(), log_q[items], items
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss_now())
        if checked is None or losses[-1] < losses[best]:
            best, kept = number, [one.detach().clone() for one in (*maps, log_scale)]
        if checked is not None and losses[-1] > losses[-2] - _LEAST:
            break
    mapped = [normalize(unit @ one, dim=1).numpy() for one in kept[:2]]
    return TextMap(mapped[0], mapped[1], float(kept[2].exp()), 0.5 * log_q.numpy(), best, tuple(losses))


@torch.no_grad()
def _valid_loss(
    unit: Tensor,
    maps: list[Tensor],
    log_scale: Tensor,
    log_q: Tensor,
    pairs: tuple[Tensor, Tensor],
    known: np.ndarray,
) -> float:
    """The same loss on validation pairs, among all items that have a vector."""
    items = torch.from_numpy(np.flatnonzero(known))
    place = torch.zeros(len(unit), dtype=torch.long)
    place[items] = torch.arange(len(items))
    every = normalize(unit[items] @ maps[1], dim=1)
    total = 0.0
    for source, target in zip(*(one.split(_VALID_AT_ONCE) for one in pairs), strict=True):
        logits = log_scale.exp() * normalize(unit[source] @ maps[0], dim=1) @ every.T - 0.5 * log_q[items]
        total += float(cross_entropy(logits, place[target], reduction="sum"))
    return total / len(pairs[0])


def _with_vectors(pairs: Pairs, known: np.ndarray) -> tuple[Tensor, Tensor]:
    source, target = (np.asarray(one, dtype=np.int64) for one in pairs)
    both = known[source] & known[target]
    return torch.from_numpy(source[both]), torch.from_numpy(target[both])

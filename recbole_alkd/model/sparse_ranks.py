"""Ranks of targets under a served neighbour table (SessionKNN), from the scores that neighbours give and no
row of all items.

An item that no neighbour speaks for has the score of its popularity alone, so all of these are ranked by one
sorted list. Of 43,000 items a session gives a few hundred scores of their own.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from recbole_alkd.model.neighbours import PRIOR

EDGES = 2**22  # that are looked at together: about 200 MiB


class ServedTable(Protocol):
    """What ranks need of a table (``SessionKNN``): its edges as CSR arrays, popularities, and who speaks."""

    indptr: Tensor
    indices: Tensor
    weights: Tensor
    counts: Tensor
    n_items: int

    def speaking(self, item_seq: Tensor, item_seq_len: Tensor) -> tuple[Tensor, Tensor, Tensor]: ...

    def votes(self, item_seq: Tensor, item_seq_len: Tensor) -> tuple[Tensor, Tensor, Tensor]: ...


@torch.no_grad()
def table_ranks(
    model: ServedTable, item_seq: Tensor, item_seq_len: Tensor, target: Tensor, masked: bool
) -> Tensor:
    """Rank of each row's target among all items but the padding, 1 = best;
    ties share the mean of their ranks.

    On a CPU these are the ranks of ``SessionKNN.scores`` to the bit: the same numbers are summed in the same
    order.

    Args:
        model: the fitted table. item_seq (B, L), item_seq_len (B,), target (B,): as RecBole has them.
        masked: whether items of the session are never recommended.
            A target among them shares the last places with the others.

    Returns:
        (B,) float64.
    """
    prior = PRIOR * model.counts
    by_prior = prior[1:].sort().values
    ranks = [torch.zeros(0, dtype=torch.float64, device=target.device)]
    for rows in _blocks(model, item_seq, item_seq_len):
        spot, score = _own_scores(model, item_seq[rows], item_seq_len[rows], prior, masked)
        ranks.append(_ranks(spot, score, prior, by_prior, target[rows]))
    return torch.cat(ranks)


def _blocks(model: ServedTable, item_seq: Tensor, item_seq_len: Tensor) -> tuple[Tensor, ...]:
    """The rows of a batch, cut where they have ``EDGES`` edges together."""
    row, item = model.speaking(item_seq, item_seq_len)[:2]
    edges = torch.zeros(len(item_seq), dtype=torch.long, device=item.device)
    edges.index_add_(0, row, model.indptr[item + 1].long() - model.indptr[item])
    sizes = torch.unique_consecutive(edges.cumsum(0) // EDGES, return_counts=True)[1]
    return torch.arange(len(item_seq), device=item.device).split(sizes.tolist())


def _own_scores(
    model: ServedTable, item_seq: Tensor, item_seq_len: Tensor, prior: Tensor, masked: bool
) -> tuple[Tensor, Tensor]:
    """Scores other than the prior: their places in the matrix of rows and items, ascending, and
    the scores."""
    row, place, vote = model.votes(item_seq, item_seq_len)
    spot = row * model.n_items + model.indices[place]
    start = torch.arange(len(item_seq), device=item_seq.device).unsqueeze(1) * model.n_items
    hidden = (start + item_seq).view(-1) if masked else spot[:0]
    every, where = torch.unique(torch.cat([spot, hidden]), return_inverse=True)
    score = prior[every % model.n_items]
    score.index_add_(0, where[: len(spot)], model.weights[place].float() * vote)
    score[where[len(spot) :]] = -torch.inf
    some = every % model.n_items > 0
    return every[some], score[some].nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)


def _ranks(spot: Tensor, score: Tensor, prior: Tensor, by_prior: Tensor, target: Tensor) -> Tensor:
    rows = torch.arange(len(target), device=target.device)
    row, item = spot // len(prior), spot % len(prior)
    own = prior[target]
    wanted = rows * len(prior) + target
    at = torch.searchsorted(spot, wanted).clamp(max=max(0, len(spot) - 1))
    if len(spot):
        own = torch.where(spot[at] == wanted, score[at], own)
    ours, floor = own[row], prior[item]
    # all items by the prior, less those that have a score of their own, and these
    above, level = (
        (score > ours).long() - (floor > ours).long(),
        (score == ours).long() - (floor == ours).long(),
    )
    low, high = torch.searchsorted(by_prior, own), torch.searchsorted(by_prior, own, right=True)
    above = (len(by_prior) - high).index_add(0, row, above)
    level = (high - low).index_add(0, row, level)
    return above.double() + (level.double() + 1) / 2

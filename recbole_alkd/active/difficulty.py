"""How hard an instance is for a recommender; larger is harder.

``consistency`` is ALKDRec's (AAAI 2025): df_s = -(1 / |s|) sum over v in s of sigmoid(Encode(s) . e_v), under
the teacher recommender. ``loss`` and ``rank`` look at the true next item instead. All run in batches of rows;
nothing larger than (batch, n_items) is held. Items (``alkd_unit: item``) have ``item_difficulty``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from recbole_alkd.model.backbone import Backbone
from recbole_alkd.model.scoring import Scored, in_batches, mean_ranks
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.nearest import hint


def consistency_difficulty(
    view: Backbone, item_seq: Tensor, item_seq_len: Tensor, batch_size: int = 1024
) -> np.ndarray:
    """Minus the mean sigmoid score of the session's own items, in (-1, 0).

    Args:
        view: the recommender.
        item_seq: (N, L) item ids, 0 behind the session's end. A repeated item counts as often as it stands
            there.
        item_seq_len: (N,) session lengths, >= 1.
        batch_size: rows in one forward pass.

    Returns:
        (N,) float64.
    """

    def batch(rows: Tensor, lengths: Tensor, _: slice) -> Tensor:
        score = torch.sigmoid(view.scores_of(rows, lengths, rows))
        return -(score * (rows > 0)).sum(1) / lengths

    return _in_batches(view, item_seq, item_seq_len, batch_size, batch)


def loss_difficulty(
    view: Backbone, item_seq: Tensor, item_seq_len: Tensor, target: Tensor, batch_size: int = 1024
) -> np.ndarray:
    """-log softmax of the true next item (nats), over all items but the padding.
    ``target`` (N,) item ids -> (N,) float64."""

    def batch(rows: Tensor, lengths: Tensor, part: slice) -> Tensor:
        scores = view.scores(rows, lengths)[:, 1:]
        return scores.logsumexp(1) - _of_target(scores, target[part])

    return _in_batches(view, item_seq, item_seq_len, batch_size, batch)


def rank_difficulty(
    view: Backbone, item_seq: Tensor, item_seq_len: Tensor, target: Tensor, batch_size: int = 1024
) -> np.ndarray:
    """Rank of the true next item among all items but the padding, 1 = best; ties count half.
    ``target`` (N,) -> (N,) float64."""

    def batch(rows: Tensor, lengths: Tensor, part: slice) -> Tensor:
        return mean_ranks(view.scores(rows, lengths), target[part].to(rows.device))

    return _in_batches(view, item_seq, item_seq_len, batch_size, batch)


DIFFICULTIES: dict[str, Callable[[Backbone, Tensor, Tensor, Tensor], np.ndarray]] = {
    "consistency": lambda view, item_seq, item_seq_len, target: consistency_difficulty(
        view, item_seq, item_seq_len
    ),
    "loss": loss_difficulty,
    "rank": rank_difficulty,
}


def difficulty(
    name: str, view: Backbone, item_seq: Tensor, item_seq_len: Tensor, target: Tensor
) -> np.ndarray:
    """The difficulty of setting ``alkd_difficulty``: consistency, loss or rank.
    (N, L), (N,), (N,) -> (N,) float64.

    Raises:
        AlkdError: no such difficulty.
    """
    check_difficulty(name)
    return DIFFICULTIES[name](view, item_seq, item_seq_len, target)


def item_difficulty(times: np.ndarray, agreement: np.ndarray | None) -> np.ndarray:
    """How far counts and titles disagree about an item, and how little counts know of it, in (0, 1].

    The mean of two shares: of the items that are in at least as many sessions, and of those whose counts and
    titles agree at least as much (ties count half). Without titles the first alone.

    Args:
        times: (N,) in how many training sessions an item is.
        agreement: (N,) how near in title the items are that an item is counted together with;
            None without titles.

    Returns:
        (N,) float64.
    """
    columns = [times] if agreement is None else [times, agreement]
    shares = [(rankdata(-np.asarray(column, dtype=np.float64)) - 0.5) / len(column) for column in columns]
    return np.mean(shares, axis=0)


def check_difficulty(name: str) -> None:
    """AlkdError where there is no difficulty of this name."""
    if name not in DIFFICULTIES:
        known = f"{hint(name, DIFFICULTIES)}; allowed: {' | '.join(DIFFICULTIES)}"
        raise AlkdError(f"alkd_difficulty: {name!r} is not allowed{known}")


def _of_target(scores: Tensor, target: Tensor) -> Tensor:
    return scores.gather(1, target.to(scores.device).unsqueeze(1) - 1).squeeze(1)


def _in_batches(
    view: Backbone, item_seq: Tensor, item_seq_len: Tensor, batch_size: int, batch: Scored
) -> np.ndarray:
    return in_batches(view, item_seq, item_seq_len, batch, batch_size).double().numpy()

"""Candidate lists: the teacher recommender's best items for a session, also without having seen the session.

The paper's candidate set C_s is the teacher recommender's top kappa items (Module 1). Examples that train an
LLM need lists from a recommender that was *not* trained on them, because a trained recommender finds its own
training labels first: lists are cross-fitted over folds of the training sessions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from recbole_alkd.model.backbone import Backbone
from recbole_alkd.model.scoring import in_batches
from recbole_alkd.settings.error import AlkdError


def top_candidates(
    view: Backbone, item_seq: Tensor, item_seq_len: Tensor, size: int, batch_size: int = 1024
) -> Tensor:
    """The ``size`` best items of every session, best first, without the padding and the session's own items.

    Args:
        view: the recommender that scores.
        item_seq: (B, L) item ids, padded with 0 on the right; item_seq_len: (B,).
        batch_size: sessions scored at once.

    Returns:
        (B, size) item ids, on the CPU.

    Raises:
        AlkdError: a session leaves fewer than ``size`` items.
    """

    def best(seq: Tensor, length: Tensor, rows: slice) -> Tensor:
        scores = view.scores(seq, length).float()
        own = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, seq, True)
        own[:, 0] = True
        left = int((~own).sum(1).min())
        if left < size:
            raise AlkdError(
                f"llm_candidates: {size} is more than the {left} items outside a session; "
                f"allowed: at most {left}"
            )
        return scores.masked_fill(own, -torch.inf).topk(size, dim=1).indices

    if not len(item_seq):
        return torch.empty(0, size, dtype=torch.long)
    return in_batches(view, item_seq, item_seq_len, best, batch_size)


def insert_target(candidates: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Make the true next item one of the candidates: where it is absent it takes the last place.

    Args:
        candidates: (B, size) item ids; target: (B,) item ids.

    Returns:
        The candidates (B, size), and natural (B,) bool: whether the target was among them already.
    """
    natural = (candidates == target[:, None]).any(1)
    candidates = candidates.clone()
    candidates[~natural, -1] = target[~natural]
    return candidates, natural


def prefix_examples(
    sessions: Sequence[np.ndarray],
    count: int,
    rng: np.random.Generator,
    max_per_session: int,
    fewer: bool = False,
) -> list[tuple[int, int]]:
    """Draw ``count`` examples (session index, position) from the inside of sessions, without replacement.

    An example's history is ``session[:position]`` and its target ``session[position]``. The session's last
    item, its label, is never a target, and neither is one whose history and target are all of another
    session: no (history, target) pair of an example is also a row that may be labelled. An item that its own
    history holds already is no target either, because candidate lists leave the session's items out.

    Args:
        sessions: item ids of each session, the label last.
        max_per_session: at most so many examples of one session.
        fewer: whether all that there are will do, where they are fewer than ``count``.

    Raises:
        AlkdError: the sessions hold fewer than ``count`` examples.
    """
    whole = {tuple(session) for session in sessions}
    pool: list[tuple[int, int]] = []
    for index, session in enumerate(sessions):
        seen = tuple(session)
        fit = [p for p in range(1, len(seen) - 1) if seen[p] not in seen[:p] and seen[: p + 1] not in whole]
        pool.extend((index, int(position)) for position in rng.permutation(fit)[:max_per_session])
    if len(pool) < (min(1, count) if fewer else count):
        raise AlkdError(
            f"lora_examples: {count} is more than the training sessions hold inside of them ({len(pool)}, "
            "at most "
            f"{max_per_session} a session); allowed: at most {len(pool)}"
        )
    return [pool[k] for k in rng.permutation(len(pool))[:count]]


def cross_fitted_lists(
    sessions: Sequence[np.ndarray],
    examples: Sequence[tuple[int, int]],
    fold_of_session: Sequence[int] | np.ndarray,
    views: Sequence[Backbone],
    size: int,
    max_length: int = 50,
    shown: int | None = None,
) -> Tensor:
    """Candidates of every example, from the recommender that was trained without the example's session.

    Args:
        sessions, examples: as for ``prefix_examples``.
        fold_of_session: (number of sessions,) the fold of each session.
        views: one recommender a fold; ``views[f]`` was trained without the sessions of fold f.
        max_length: histories are cut to their last ``max_length`` items, and rows are so wide.
        shown: to their last ``shown`` items, where that is less.

    Returns:
        (number of examples, size) item ids, best first. The target is where the recommender puts it,
        or absent.
    """
    folds = np.asarray([fold_of_session[session] for session, _ in examples], dtype=int)
    last = min(max_length, shown or max_length)
    histories = [
        torch.as_tensor(np.asarray(sessions[s][:position][-last:], dtype=np.int64))
        for s, position in examples
    ]
    lists = torch.empty(len(examples), size, dtype=torch.long)
    for fold, view in enumerate(views):
        rows = np.flatnonzero(folds == fold)
        if len(rows) == 0:
            continue
        # all of one width, as RecBole's data sets have it: some backbones size their position embeddings by
        # it
        item_seq = torch.zeros(len(rows), max_length, dtype=torch.long)
        for k, row in enumerate(rows):
            item_seq[k, : len(histories[row])] = histories[row]
        lengths = torch.as_tensor([len(histories[row]) for row in rows])
        lists[torch.as_tensor(rows)] = top_candidates(view, item_seq, lengths, size)
    return lists

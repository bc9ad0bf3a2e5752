"""Distillation into a student that counts: rankings become weighted edges (``model/edges.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array

from recbole_alkd.distill.base import Listing
from recbole_alkd.distill.combined import wanted_losses
from recbole_alkd.learner.distillation import DistillationTerm
from recbole_alkd.model.edges import EdgeMaker, Weighing, list_edges
from recbole_alkd.model.neighbours import profiles
from recbole_alkd.settings.error import AlkdError

_ROWS_AT_ONCE = 1024


def without_effect(weight: float, name: str) -> AlkdError:
    """Of the weight of a loss where a student counts."""
    return AlkdError(
        f"kd_loss: weight {weight:g} of {name!r} has no effect on a table, which weighs its lists itself; "
        "leave it out"
    )


def edge_makers(
    term: DistillationTerm, dataset: Any, labelled: Sequence[int], device: torch.device, part: Any = None
) -> dict[str, EdgeMaker]:
    """One set of edges for every loss of ``kd_loss``; how much a set counts is the student's to choose.

    A list counts as a session that holds each of its items as much as its position says, and is weighed like
    one: an item of the session that is t places old speaks decay^t, and popular items count less, as in
    ``neighbours.weigh``.

    Args:
        term: the losses and the lists. dataset: the training part. labelled: rows of ``part`` with a label; a
            loss without lists goes over all training rows. part: what is labelled; None: the training part.

    Raises:
        AlkdError: a factor other than 1 in ``kd_loss`` or ``kd_config``, which would have no effect.
    """
    names = list(wanted_losses(term.context.settings))
    for name, weight in zip(names, term.loss.weights, strict=True):
        if weight != 1:
            raise without_effect(weight, name)
    everything = (dataset, np.arange(len(dataset)))
    given = (dataset if part is None else part, np.asarray(labelled))
    return {
        name: partial(_edges, loss, term, *(given if "lists" in loss.needs else everything), device)
        for name, loss in zip(names, term.loss.losses, strict=True)
    }


@torch.no_grad()
def _edges(
    loss: Any,
    term: DistillationTerm,
    dataset: Any,
    rows: np.ndarray,
    device: torch.device,
    weighing: Weighing,
) -> csr_array:
    context, lists, weights = term.context, [], []
    assert isinstance(loss, Listing)  # see ``CountingLearner.check``
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        interaction = dataset.inter_feat[torch.as_tensor(rows[start : start + _ROWS_AT_ONCE])].to(device)
        listed, weight = loss.listed(term.batch(interaction))
        lists.append(listed.cpu().numpy())
        weights.append(np.broadcast_to(weight.cpu().numpy(), lists[-1].shape))
    mine = dataset.inter_feat[torch.as_tensor(rows)]
    item_seq, length = mine[context.item_seq_field].numpy(), mine[context.item_seq_len_field].numpy()
    profile = profiles(item_seq, length, weighing.decay, weighing.last_items, context.n_items)
    return weighing(list_edges(profile, np.concatenate(lists), np.concatenate(weights)))

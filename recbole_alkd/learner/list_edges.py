"""Distillation into a student that counts: rankings become weighted edges (``model/edges.py``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array

from recbole_alkd.distill.base import DistillContext, ItemListing, Listing
from recbole_alkd.distill.combined import wanted_losses
from recbole_alkd.learner.distillation import DistillationTerm
from recbole_alkd.memory import rows_at_once
from recbole_alkd.model.counting import both_ways
from recbole_alkd.model.edges import EdgeMaker, Edges, Weighing, list_edges
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
    term: DistillationTerm,
    dataset: Any,
    labelled: Sequence[int],
    device: torch.device,
    part: Any = None,
    backward: Sequence[float] = (0.0,),
) -> Edges:
    """One set of edges for every loss of ``kd_loss``; how much a set counts is the student's to choose.

    A list counts as a session that holds each of its items as much as its position says, and is weighed like
    one: an item of the session that is t places old speaks decay^t, and popular items count less, as in
    ``neighbours.weigh``. A loss that lists items for single items gives several sets, of which the student
    chooses one.

    Args:
        term: the losses and the lists. dataset: the training part. labelled: rows of ``part`` with a label; a
            loss without lists goes over all training rows. part: what is labelled; None: the training part.
        backward: what edges of labels count the other way round; of several numbers, the student chooses.

    Raises:
        AlkdError: a factor other than 1 in ``kd_loss`` or ``kd_config``, which would have no effect.
    """
    names = list(wanted_losses(term.context.settings))
    for name, weight in zip(names, term.loss.weights, strict=True):
        if weight != 1:
            raise without_effect(weight, name)
    everything = (dataset, np.arange(len(dataset)))
    given = (dataset if part is None else part, np.asarray(labelled))
    makers: dict[str, EdgeMaker | list[EdgeMaker]] = {}
    for name, loss in zip(names, term.loss.losses, strict=True):
        if isinstance(loss, ItemListing):
            ways = loss.item_lists()
            makers[name] = [
                partial(_item_edges, listed, weighed, term.context, device) for listed, weighed in ways
            ]
        else:
            where, rows = given if "lists" in loss.needs else everything
            directed: list[EdgeMaker] = [
                partial(_edges, loss, term, where, rows, device, back)
                for back in (backward if "lists" in loss.needs else (0.0,))
            ]
            makers[name] = directed if len(directed) > 1 else directed[0]
    return makers


@torch.no_grad()
def _item_edges(
    listed: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    weighed: bool,
    context: DistillContext,
    device: torch.device,
    weighing: Weighing,
) -> csr_array:
    """Edges from every item to those that are listed for it; what is below a hundredth of a row's best is
    left out."""
    n_items = context.n_items
    source, target, value = [], [], []
    for items in torch.split(torch.arange(1, n_items), rows_at_once(_ROWS_AT_ONCE, n_items)):
        place, share = (part.cpu().numpy() for part in listed(items.to(device)))
        row, column = np.nonzero((place > 0) & (share > share.max(1, keepdims=True) / 100))
        source.append(items.numpy()[row])
        target.append(place[row, column])
        value.append(share[row, column].astype(np.float32))
    parts = [np.concatenate(part) if part else np.zeros(0, dtype=int) for part in (value, source, target)]
    edges = csr_array((parts[0].astype(np.float32), (parts[1], parts[2])), shape=(n_items, n_items))
    edges.sort_indices()
    return weighing(edges) if weighed else edges


@torch.no_grad()
def _edges(
    loss: Any,
    term: DistillationTerm,
    dataset: Any,
    rows: np.ndarray,
    device: torch.device,
    backward: float,
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
    listed = list_edges(profile, np.concatenate(lists), np.concatenate(weights))
    return weighing(both_ways(listed, backward))

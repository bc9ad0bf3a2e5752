"""Item popularity in the training data, and groups of items of about equal popularity."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_alkd.distill.base import DistillContext


def item_counts(context: DistillContext) -> Tensor:
    """In how many training sessions each item occurs, as input or as target, (n_items,); 0 for the padding.

    Rows that augmentation cut from one session count once, by ``context.session_field``;
    without it every row is a session.
    """
    rows = context.train_interaction
    items = torch.cat([rows[context.item_seq_field], rows[context.item_field].unsqueeze(1)], dim=1)
    session = (
        torch.arange(len(items), device=items.device)
        if context.session_field is None
        else rows[context.session_field]
    )
    pairs = torch.unique(session.unsqueeze(1) * context.n_items + items)
    counts = torch.bincount(pairs % context.n_items, minlength=context.n_items)
    counts[0] = 0
    return counts


def popularity_groups(counts: Tensor, groups: int) -> list[Tensor]:
    """Item ids in groups of about equal total popularity, the most popular first (unKD).

    Items are taken in order of falling count; a group is closed when the next item would lift it above total
    / groups, and what is left at the end joins the last group unless it has more than half of that. So there
    can be more or fewer than ``groups``, and items without a count are in none.
    """
    order = torch.argsort(counts, descending=True, stable=True)
    order = order[counts[order] > 0]
    quota = float(counts.sum()) / groups
    made: list[list[int]] = []
    group: list[int] = []
    filled = 0
    for item, count in zip(order.tolist(), counts[order].tolist(), strict=True):
        if group and filled + count > quota:
            made.append(group)
            group, filled = [], 0
        group.append(item)
        filled += count
    if group:
        if made and filled <= quota / 2:
            made[-1].extend(group)
        else:
            made.append(group)
    return [torch.tensor(ids, device=counts.device) for ids in made]

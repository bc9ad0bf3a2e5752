"""Difficulties against plain loops, on a backbone whose vectors are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from recbole_alkd.active.difficulty import (
    consistency_difficulty,
    difficulty,
    loss_difficulty,
    rank_difficulty,
)
from recbole_alkd.model.backbone import Backbone
from recbole_alkd.settings.error import AlkdError

ITEMS, SIZE = 12, 4


class MeanModel(nn.Module):
    """The session vector is the mean of item vectors, and dropout would change it in training mode."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.item_embedding = nn.Embedding(ITEMS, SIZE)
        self.dropout = nn.Dropout(0.5)

    def forward(self, item_seq, item_seq_len):
        held = self.item_embedding(item_seq) * (item_seq > 0).unsqueeze(2)
        return self.dropout(held.sum(1) / item_seq_len.unsqueeze(1))


@pytest.fixture
def view():
    return Backbone(MeanModel().train())


SEQ = torch.tensor([[1, 2, 3, 0, 0], [4, 4, 0, 0, 0], [5, 6, 7, 8, 9], [11, 0, 0, 0, 0]])
LEN = torch.tensor([3, 2, 5, 1])
TARGET = torch.tensor([4, 1, 11, 2])


def vectors(view):
    table = view.item_table().detach().double().numpy()
    rows = [[item for item in row if item] for row in SEQ.tolist()]
    return rows, [np.mean([table[item] for item in row], axis=0) for row in rows], table


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_consistency_is_the_mean_sigmoid_of_the_sessions_own_items(view, batch_size):
    rows, sessions, table = vectors(view)
    expected = [
        -sum(1 / (1 + math.exp(-(h @ table[v]))) for v in row) / len(row)
        for row, h in zip(rows, sessions, strict=True)
    ]
    difficulty = consistency_difficulty(view, SEQ, LEN, batch_size)
    assert difficulty == pytest.approx(expected, rel=1e-5)
    assert difficulty.dtype == np.float64
    assert view.model.training


def test_loss_and_rank_of_the_next_item(view):
    _, sessions, table = vectors(view)
    losses, ranks = [], []
    for h, target in zip(sessions, TARGET.tolist(), strict=True):
        scores = [h @ table[v] for v in range(1, ITEMS)]
        losses.append(math.log(sum(math.exp(s) for s in scores)) - h @ table[target])
        ranks.append(1 + sum(s > h @ table[target] for s in scores))
    assert loss_difficulty(view, SEQ, LEN, TARGET, batch_size=3) == pytest.approx(losses, rel=1e-4)
    assert rank_difficulty(view, SEQ, LEN, TARGET, batch_size=3).tolist() == ranks


def test_ties_count_half(view):
    with torch.no_grad():
        view.model.item_embedding.weight.zero_()
    assert rank_difficulty(view, SEQ, LEN, TARGET).tolist() == [6.0] * 4


def test_by_name(view):
    assert (difficulty("consistency", view, SEQ, LEN, TARGET) == consistency_difficulty(view, SEQ, LEN)).all()
    assert (difficulty("rank", view, SEQ, LEN, TARGET) == rank_difficulty(view, SEQ, LEN, TARGET)).all()
    with pytest.raises(
        AlkdError, match="alkd_difficulty: 'consistancy' is not allowed \\(did you mean 'consistency'\\?\\)"
    ):
        difficulty("consistancy", view, SEQ, LEN, TARGET)

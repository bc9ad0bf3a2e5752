"""Weights and draws over ranks and items."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_alkd.distill.ranks import gumbel_like, rank_weights
from recbole_alkd.model.loss import draw_items

HALF = torch.zeros(1, dtype=torch.float64)


def test_rank_weights_are_the_normalised_exponentials():
    weights = rank_weights(10, 1.0, HALF)
    raw = [math.exp(-k) for k in range(1, 11)]
    assert weights.tolist() == pytest.approx([r / sum(raw) for r in raw])
    assert weights[:4].tolist() == pytest.approx([0.6321, 0.2326, 0.0856, 0.0315], abs=5e-5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=14), st.integers(1, 40), st.integers(0, 10_000))
def test_draw_items_never_draws_what_is_excluded(excluded, count, seed):
    torch.manual_seed(seed)
    drawn = draw_items(torch.tensor([excluded]), count, n_items=12)
    assert drawn.shape == (1, count)
    assert set(drawn.flatten().tolist()) <= set(range(1, 12)) - set(excluded)


def test_draw_items_is_uniform_over_the_rest():
    torch.manual_seed(0)
    excluded = torch.tensor([[3, 0, 3, 1], [0, 0, 0, 0], [11, 10, 2, 5]])
    drawn = draw_items(excluded, 60_000, n_items=12)
    for row, hidden in enumerate([{1, 3}, set(), {2, 5, 10, 11}]):
        share = torch.bincount(drawn[row], minlength=12).double() / 60_000
        allowed = [i for i in range(1, 12) if i not in hidden]
        assert share[allowed].tolist() == pytest.approx([1 / len(allowed)] * len(allowed), abs=0.006)
        assert float(share.sum()) == pytest.approx(float(share[allowed].sum()))


def test_draw_items_stays_in_the_table_when_nothing_is_left():
    drawn = draw_items(torch.arange(1, 5).unsqueeze(0), 3, n_items=5)
    assert ((drawn >= 1) & (drawn < 5)).all()


def test_largest_of_log_weights_with_gumbel_noise_follows_the_weights():
    torch.manual_seed(0)
    weights = torch.tensor([0.5, 0.3, 0.15, 0.05])
    keys = weights.log() + gumbel_like(torch.empty(40_000, 4))
    share = torch.bincount(keys.argmax(1), minlength=4) / 40_000
    assert share.tolist() == pytest.approx(weights.tolist(), abs=0.01)

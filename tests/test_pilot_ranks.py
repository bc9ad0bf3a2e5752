"""The recommender's rank of the true next item in a pilot, where many items have one score."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import N_ITEMS, create_dataset, settings_of, tiny_config, training_part

from recbole_alkd.labelling.training_rows import TrainingRows
from recbole_alkd.model.backbone import Backbone


@pytest.fixture
def rows(tiny_path):
    config = tiny_config(tiny_path, session_augmentation="last")
    return TrainingRows(SimpleNamespace(_dataset=training_part(create_dataset(config))), settings_of(config))


class OneScore(Backbone):
    """A recommender that tells no item from another, but for those in ``better``."""

    device = torch.device("cpu")

    def __init__(self, better=()):
        super().__init__(torch.nn.Module())
        self.better = list(better)

    def scores(self, item_seq, item_seq_len):
        values = torch.zeros(len(item_seq), N_ITEMS + 1)
        values[:, self.better] = 1
        return values


def folds(view, rows):
    return SimpleNamespace(views=[view], fold_of_row=np.zeros(len(rows), dtype=int))


def test_tied_items_share_the_mean_of_their_ranks(rows):
    ranks = rows._ranks(OneScore(), np.arange(len(rows)))
    outside = N_ITEMS - rows.item_seq_len.numpy()  # no session holds an item twice
    assert np.array_equal(ranks, (outside + 1) / 2)
    better = int(
        next(
            item for item in range(1, N_ITEMS + 1) if item != rows.target[0] and item not in rows.item_seq[0]
        )
    )
    assert rows._ranks(OneScore([better]), np.array([0])) == 1 + outside[0] / 2


def test_a_recommender_that_knows_nothing_makes_no_label_incorrect(rows):
    """By the best of the tied ranks it would be first everywhere, and an LLM that puts the item 7th would be
    worse."""
    index = [0, 1, 2]
    tokens = rows.tokens[rows.target.numpy()]
    rankings = {
        row: ["x", "y", *[t for t in rows.tokens[1:8] if t != tokens[row]][:4], tokens[row]] for row in index
    }
    kinds = rows.kinds(index, rankings, folds(OneScore(), rows))
    assert kinds.tolist() == [1, 1, 1], "7th by the LLM, about 14th by chance: places 6 to 15 count alike"
    third = {row: ["x", "y", tokens[row]] for row in index}
    assert rows.kinds(index, third, folds(OneScore(), rows)).tolist() == [0, 0, 0]

"""Ranks from sparse scores against those of a row of all items: ties, repeats, popularity,
items that are left out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recbole.data import data_preparation
from scipy.sparse import csr_array
from test_repeats import write_repeats
from tiny import create_dataset, tiny_config, tiny_model

from recbole_alkd.model import sparse_ranks
from recbole_alkd.model.baselines import Baseline
from recbole_alkd.model.neighbours import PRIOR, profiles
from recbole_alkd.model.scoring import mean_ranks, session_ranks
from recbole_alkd.model.session_knn import SessionKNN
from recbole_alkd.model.sparse_ranks import table_ranks


@pytest.fixture(scope="module")
def model(tiny_path):
    config = tiny_config(tiny_path, model="SessionKNN", knn_last_items=3)
    return tiny_model(config, create_dataset(config).build()[0])


def drawn(data, model, weights):
    """A table of few different weights, so that many scores are equal, and sessions with repeats."""
    n = model.n_items
    rng = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    table = np.where(
        rng.random((n, n)) < data.draw(st.sampled_from([0, 0.05, 0.3, 1])),
        rng.choice(weights, size=(n, n)),
        0,
    )
    table[0] = table[:, 0] = 0
    counts = rng.integers(0, data.draw(st.sampled_from([1, 3, 1000])), size=n)
    counts[0] = 0
    model.set_table(csr_array(table.astype(np.float32)), counts, data.draw(st.sampled_from([0.0, 0.5, 1.0])))
    rows, width = data.draw(st.integers(1, 6)), 5
    length = torch.from_numpy(rng.integers(1, width + 1, size=rows))
    # few items, so that a session has one of them twice, and the target is often among them
    some = rng.integers(1, n, size=4)
    item_seq = torch.from_numpy(
        rng.choice(some, size=(rows, width)) * (np.arange(width) < length.numpy()[:, None])
    )
    target = np.where(rng.random(rows) < 0.5, rng.choice(some, size=rows), rng.integers(1, n, size=rows))
    return item_seq, length, torch.from_numpy(target)


@pytest.mark.parametrize("edges", [2**22, 1])
@pytest.mark.parametrize("weights", [[0.25, 0.5], [0.1, 0.3, 7.7], [1e-7, 1.0, np.inf], [0.3, np.nan]])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_ranks_are_those_of_all_scores(model, data, weights, edges):
    item_seq, length, target = drawn(data, model, weights)
    before, sparse_ranks.EDGES = sparse_ranks.EDGES, edges
    try:
        for masked in (False, True):
            scores = model.scores(item_seq, length)
            if masked:
                scores.scatter_(1, item_seq, -torch.inf)
            ranks = table_ranks(model, item_seq, length, target, masked)
            assert ranks.dtype == torch.float64
            assert ranks.tolist() == mean_ranks(scores, target).tolist()
    finally:
        sparse_ranks.EDGES = before


def test_no_rows_have_no_ranks(model):
    none = torch.zeros(0, dtype=torch.long)
    assert table_ranks(model, torch.zeros(0, 5, dtype=torch.long), none, none, True).shape == (0,)


def test_a_table_that_was_not_fitted_ranks_all_items_alike(tiny_path):
    config = tiny_config(tiny_path, model="SessionKNN")
    empty = tiny_model(config, create_dataset(config).build()[0])
    ranks = table_ranks(empty, torch.tensor([[3, 4, 0]]), torch.tensor([2]), torch.tensor([7]), False)
    assert ranks.tolist() == [empty.n_items / 2]  # the middle of 1 .. n_items - 1


@pytest.mark.parametrize("kind", ["popularity", "item_knn"])
@pytest.mark.parametrize("masked", [True, False])
def test_simple_recommenders_rank_as_a_row_of_all_scores_does(kind, masked, tmp_path):
    folder = write_repeats(tmp_path, (200, 50, 100))
    config = tiny_config(folder, dataset="again", MAX_ITEM_LIST_LENGTH=8, mask_session_items=masked)
    train, valid, test = create_dataset(config).build()
    baseline = Baseline(kind, train, valid, mask_session_items=masked)
    rows = test.inter_feat
    item_seq, target = rows["item_id_list"], rows["item_id"]
    assert 20 < (item_seq == target.unsqueeze(1)).any(1).sum() < 80, (
        "some targets are in the session, others are not"
    )
    profile = profiles(
        item_seq.numpy(), rows["item_length"].numpy(), baseline.decay, baseline.last_items, train.item_num
    )
    scores = torch.from_numpy((profile @ baseline.table).toarray() + PRIOR * baseline.count)
    if masked:
        scores = scores.scatter(1, item_seq, -torch.inf)
    assert np.array_equal(baseline.ranks(test), mean_ranks(scores, target).numpy())


@pytest.mark.parametrize("name", ["SessionKNN", "SessionFPMC"])
@pytest.mark.parametrize("masked", [True, False])
def test_a_loader_gives_the_ranks_of_full_sort_predict(name, masked, tmp_path, monkeypatch):
    folder = write_repeats(tmp_path, (200, 50, 100))
    own = {
        "student_model": name,
        "mask_session_items": masked,
        "MAX_ITEM_LIST_LENGTH": 8,
        "eval_batch_size": 30,
    }
    config = tiny_config(folder, dataset="again", **own)
    train, valid, test = data_preparation(config, create_dataset(config))
    model = tiny_model(config, train._dataset).eval()
    if name == "SessionKNN":
        model.recommender.fit_table(train._dataset, valid._dataset)
    with torch.no_grad():
        rows = test._dataset.inter_feat
        wanted = mean_ranks(model.full_sort_predict(rows), rows["item_id"])
    if name == "SessionKNN":
        monkeypatch.setattr(SessionKNN, "scores", lambda *_: pytest.fail("all items were scored"))
    assert np.array_equal(session_ranks(model, test, torch.device("cpu")), wanted.numpy())

"""Refined weights of neighbour tables: logits against the loop, edges that stay,
and never worse on validation."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from tiny import create_dataset, tiny_config, tiny_model

from recbole_alkd.model.refine import EdgeLogits, refined
from recbole_alkd.settings.error import AlkdError

N = 12


def sessions(count, seed=0):
    """Even items follow even ones, odd ones odd ones."""
    rng = np.random.default_rng(seed)
    drawn = np.stack([rng.permutation(np.arange(1 + k % 2, N, 2))[:4] for k in range(count)])
    return (
        drawn[:, :3] * (np.arange(3) < 1 + np.arange(count)[:, None] % 3),
        1 + np.arange(count) % 3,
        drawn[:, 3],
    )


def full_table():
    """Every edge with the same weight: counts that know nothing."""
    dense = np.ones((N, N), dtype=np.float32) - np.eye(N, dtype=np.float32)
    dense[0] = dense[:, 0] = 0
    return csr_array(dense)


def test_logits_equal_the_loop():
    rng = np.random.default_rng(1)
    dense = rng.random((N, N)).astype(np.float32) * (rng.random((N, N)) < 0.4)
    table, (item_seq, length, target) = csr_array(dense), sessions(9)
    others = torch.tensor([3, 7, 2])
    rows = [torch.from_numpy(part).long() for part in (item_seq, length, target)]
    positive, negative = EdgeLogits(table, 0.5, 2)(torch.from_numpy(table.data), *rows, others)
    for b in range(9):
        newest = item_seq[b, : length[b]][::-1][:2]
        scores = sum(0.5**age * dense[item] for age, item in enumerate(newest))
        assert float(positive[b]) == pytest.approx(float(scores[target[b]]), abs=1e-6)
        np.testing.assert_allclose(negative[b].numpy(), scores[others.numpy()], atol=1e-6)


def inside(table):
    """Share of the weight that lies on edges between items of one kind."""
    row = np.repeat(np.arange(N), np.diff(table.indptr))
    return float(table.data[row % 2 == table.indices % 2].sum() / table.data.sum())


def test_weights_move_to_where_training_says_and_edges_stay():
    table = full_table()
    better, epoch, gains = refined(table, sessions(3000), 0.7, 3, 20, inside, seed=1)
    assert epoch == 20 and gains == sorted(gains) and inside(better) > inside(table) + 0.1
    assert np.array_equal(better.indices, table.indices) and np.array_equal(better.indptr, table.indptr)
    assert (better.data > 0).all()
    assert np.array_equal(better.data, better.data.astype(np.float16)), "as the table is saved"
    again = refined(table, sessions(3000), 0.7, 3, 20, inside, seed=1)[0]
    assert np.array_equal(again.data, better.data)


def test_the_counted_weights_are_kept_where_nothing_is_better():
    table = full_table()
    for gain in (lambda one: -inside(one), lambda one: 1.0):
        kept, epoch, gains = refined(table, sessions(600), 0.7, 3, 3, gain, seed=1)
        assert epoch == 0 and kept is table and len(gains) == 4


def test_a_table_without_edges_stays_so():
    empty = csr_array((N, N), dtype=np.float32)
    assert refined(empty, sessions(9), 0.7, 3, 3, lambda one: 0.0, seed=1)[:2] == (empty, 0)


@pytest.fixture(scope="module")
def parts(tiny_path):
    return create_dataset(tiny_config(tiny_path, model="SessionKNN")).build()


def test_a_refined_student_is_as_large_and_not_worse_on_validation(tiny_path, parts):
    fitted = {}
    for epochs in (0, 5):
        config = tiny_config(tiny_path, model="SessionKNN", knn_refine_epochs=epochs, student_neighbors=5)
        model = tiny_model(config, parts[0])
        fitted[epochs] = (model.fit_table(parts[0], parts[1]), model)
    chosen, model = fitted[5]
    assert "refined_epoch" not in fitted[0][0] and torch.equal(model.indices, fitted[0][1].indices)
    assert chosen["refined_after"] >= chosen["refined_before"]
    assert (chosen["refined_epoch"] > 0) == (not torch.equal(model.weights, fitted[0][1].weights))
    config = tiny_config(tiny_path, model="SessionKNN", knn_refine_epochs=5)
    assert "refined_epoch" not in tiny_model(config, parts[0]).fit_table(parts[0]), (
        "nothing is chosen without validation"
    )


def test_bad_epochs_are_named(tiny_path, parts):
    with pytest.raises(
        AlkdError, match="knn_refine_epochs: -1 is not allowed; allowed: an integer of at least 0"
    ):
        tiny_model(tiny_config(tiny_path, model="SessionKNN", knn_refine_epochs=-1), parts[0])

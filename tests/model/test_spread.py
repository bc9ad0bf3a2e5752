"""A table that is cut where edges are worth most, and neighbours borrowed from items of like titles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from tiny import create_dataset, tiny_config, tiny_model

from recbole_alkd import AlkdError
from recbole_alkd.model.edges import borrowed_edges
from recbole_alkd.model.neighbours import cut, rows_of, table_bytes


def table_of(seed, n=12, ties=False):
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 4, size=(n, n)) if ties else rng.random((n, n))
    table = csr_array((values * (rng.random((n, n)) < 0.5)).astype(np.float16).astype(np.float32))
    table.eliminate_zeros()
    table.sort_indices()
    return table


def most_useful(table, room, use):
    """A loop: edges by use * weight, then by their place in their row, then by row."""
    edges = []
    for row in range(table.shape[0]):
        own = [(float(table[row, j]), j) for j in table.indices[table.indptr[row] : table.indptr[row + 1]]]
        for place, (weight, j) in enumerate(sorted(own, key=lambda one: (-one[0], one[1]))):
            edges.append((-weight * use[row], place, row, int(j)))
    return {(row, j) for _, _, row, j in sorted(edges)[:room]}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), neighbors=st.integers(1, 6), ties=st.booleans(), spread=st.floats(0, 2))
def test_as_many_edges_as_without_and_the_most_useful_ones(seed, neighbors, ties, spread):
    table = table_of(seed, ties=ties)
    use = (np.random.default_rng(seed + 1).integers(0, 9, size=12) + 1.0) ** spread
    rows, useful = cut(table, neighbors), cut(table, neighbors, use=use)
    assert useful.nnz == rows.nnz
    assert set(zip(*(part.tolist() for part in useful.nonzero()), strict=True)) == most_useful(
        table, rows.nnz, use
    )
    kept = useful.toarray() > 0
    np.testing.assert_array_equal(useful.toarray()[kept], table.toarray()[kept])
    size = table_bytes(12, rows.nnz)
    np.testing.assert_array_equal(cut(table, size=size, use=use).toarray(), useful.toarray())


def fitted(path, edges=None, **own):
    config = tiny_config(path, student_model="SessionKNN", student_config=own)
    train, valid, _ = create_dataset(config).build()
    model = tiny_model(config, train).recommender
    return model, model.fit_table(train, valid, edges)


def test_validation_chooses_and_equally_many_is_among_the_choices(tiny_path):
    plain, _ = fitted(tiny_path, student_neighbors=3)
    model, chosen = fitted(tiny_path, student_neighbors=3, knn_spread=[0, 0.5, 1])
    assert len(model.indices) == len(plain.indices)
    gains = {}
    for spread in (None, 0, 0.5, 1):
        alone, facts = fitted(tiny_path, student_neighbors=3, knn_spread=spread)
        gains[spread] = alone.indices.tolist()
        assert facts.get("spread") == spread and "spread_gain" not in facts
    assert (
        chosen["spread_gain"] >= 0 and chosen["spread_low"] <= chosen["spread_gain"] <= chosen["spread_high"]
    )
    assert model.indices.tolist() == gains[chosen.get("spread")]
    assert gains[None] == plain.indices.tolist() != gains[1]


def test_a_whole_table_has_nothing_to_spread(tiny_path):
    model, chosen = fitted(tiny_path, knn_spread=[0, 1])
    plain, _ = fitted(tiny_path)
    assert "spread" not in chosen and model.made.spread is None
    assert model.weights.tolist() == plain.weights.tolist()


def test_the_log_says_how_the_edges_are_spread(tiny_path):
    config = tiny_config(
        tiny_path, student_model="SessionKNN", student_config={"student_neighbors": 3, "knn_spread": [0, 1]}
    )
    train, valid, _ = create_dataset(config).build()
    words = tiny_model(config, train).recommender.count(train, valid).words
    assert any("on validation)" in one and one.startswith("cut ") for one in words)


@pytest.mark.parametrize("value", [-1, [0, 3], "wide", []])
def test_what_cannot_be_is_said(tiny_path, value):
    with pytest.raises(AlkdError, match="knn_spread"):
        fitted(tiny_path, knn_spread=value)


@pytest.mark.parametrize("most", [1, 3, 50])
def test_borrowed_edges_are_those_of_a_dense_product(most):
    rng = np.random.default_rng(4)
    alike, table = (
        csr_array((rng.random((9, 9)) * (rng.random((9, 9)) < 0.4)).astype(np.float32)) for _ in range(2)
    )
    shares = alike.toarray() / np.maximum(alike.toarray().sum(1, keepdims=True), 1e-30)
    wanted = shares @ (table.toarray() * (1 - np.eye(9))) * (1 - np.eye(9))
    borrowed = borrowed_edges(alike, table, most)
    assert borrowed.dtype == np.float32 and np.diff(borrowed.indptr).max() <= most
    kept = borrowed.toarray() > 0
    np.testing.assert_allclose(borrowed.toarray()[kept], wanted[kept], rtol=1e-5)
    for row in range(9):
        assert kept[row].sum() == min(most, (wanted[row] > 1e-12).sum())
        if kept[row].any() and (~kept[row]).any():
            assert wanted[row][kept[row]].min() >= wanted[row][~kept[row]].max() - 1e-6
    assert not (rows_of(borrowed) == borrowed.indices).any()


def test_an_item_without_a_like_one_borrows_nothing():
    alike = csr_array(([1.0], ([1], [2])), shape=(4, 4))
    table = csr_array(np.array([[0, 0, 0, 0], [0, 0, 0, 1], [0, 2, 9, 3], [0, 1, 0, 0]], dtype=np.float32))
    borrowed = borrowed_edges(alike, table, 5).toarray()
    np.testing.assert_array_equal(borrowed, [[0, 0, 0, 0], [0, 0, 0, 3], [0, 0, 0, 0], [0, 0, 0, 0]])

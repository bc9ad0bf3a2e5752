"""Edges against loops over sessions and items."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from recbole_alkd.model import edges, neighbours


def test_list_edges_equal_the_loop():
    sessions, lists = [[1, 2], [3], [2, 4]], [[5, 3, 0], [5, 1, 2], [2, 6, 0]]
    weights = np.array([3.0, 2.0, 1.0])
    item_seq = np.array([s + [0] * (2 - len(s)) for s in sessions])
    profile = neighbours.profiles(item_seq, np.array([len(s) for s in sessions]), 0.5, 10, 7)
    expected = np.zeros((7, 7))
    for session, listed in zip(sessions, lists, strict=True):
        for age, source in enumerate(reversed(session)):
            for target, weight in zip(listed, weights, strict=True):
                if target and target != source:
                    expected[source, target] += 0.5**age * weight
    made = edges.list_edges(profile, np.array(lists), weights)
    np.testing.assert_allclose(made.toarray(), expected)
    assert made.has_sorted_indices and made.nnz == (expected > 0).sum()


def test_only_items_of_the_profile_speak():
    profile = neighbours.profiles(np.array([[1, 2, 3]]), np.array([3]), 0.5, 2, 6)
    assert set(np.nonzero(edges.list_edges(profile, np.array([[5]]), np.ones(1)).toarray())[0]) == {2, 3}


@pytest.mark.parametrize(("neighbors", "least"), [(2, 0.3), (3, 0.0), (50, 0.3)])
def test_nearest_edges_equal_the_loop(monkeypatch, neighbors, least):
    monkeypatch.setattr(edges, "_ROWS_AT_ONCE", 4)
    vectors = np.random.default_rng(0).normal(size=(12, 3))
    vectors[[0, 5]] = 0
    known = [i for i in range(12) if i not in (0, 5)]
    mean = sum(vectors[i] for i in known) / len(known)
    expected = np.zeros((12, 12))
    for i in known:
        a = vectors[i] - mean
        cosine = {
            j: a @ (vectors[j] - mean) / np.linalg.norm(a) / np.linalg.norm(vectors[j] - mean)
            for j in known
            if j != i
        }
        for j in sorted(cosine, key=cosine.get, reverse=True)[:neighbors]:
            if cosine[j] > least:
                expected[i, j] = cosine[j] ** 3
    np.testing.assert_allclose(edges.nearest_edges(vectors, neighbors, least).toarray(), expected, atol=1e-6)


@pytest.mark.parametrize(
    "vectors", [np.zeros((5, 2)), np.array([[0, 0], [1, 2], [0, 0]]), np.array([[0, 0], [1, 2], [1, 2]])]
)
def test_vectors_that_say_nothing_give_no_edge(vectors):
    assert edges.nearest_edges(vectors, 20, 0.3).nnz == 0


@given(st.integers(2, 12), st.integers(0, 5))
def test_permuted_vectors_are_the_same_ones_elsewhere(count, seed):
    vectors = np.zeros((count + 2, 2))
    vectors[2:] = np.arange(1, count + 1)[:, None]
    shuffled = edges.permuted(vectors, np.random.default_rng(seed))
    assert not shuffled[:2].any()
    assert sorted(shuffled[2:, 0]) == sorted(vectors[2:, 0])
    assert (shuffled[2:] != vectors[2:]).all(), "none keeps its own"


def test_scale_and_sum():
    table = csr_array(np.array([[0, 2.0, 4], [6, 0, 0], [0, 0, 0]]))
    new = csr_array(np.array([[0, 0.5, 0], [0, 0, 0], [0.75, 0.5, 0]]))
    scaled = edges.like(new, table)
    assert np.median(scaled.data) == np.median(table.data) == 4
    assert edges.like(new, csr_array((3, 3))) is new
    np.testing.assert_allclose(
        edges.added(table, scaled, 0.5).toarray(), table.toarray() + 0.5 * scaled.toarray()
    )
    assert edges.added(table, scaled, 0.0) is table

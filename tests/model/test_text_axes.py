"""Whitened axes against dense linear algebra, and what whitening must leave as it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_array

from recbole_alkd.model.text_axes import co_occurrence, principal_axes, whitened


def vectors_of(seed, items=30, size=5):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(items, size)) * np.array([8.0, 4, 2, 1, 0.5])[:size] + 3
    vectors[0] = 0
    return vectors.astype(np.float32)


@pytest.mark.parametrize("power", [0.0, 0.25, 0.5, 1.0])
def test_variances_are_powers_of_the_spectrum_and_axes_do_not_correlate(power):
    x = vectors_of(0)
    centred = x[1:].astype(float) - x[1:].astype(float).mean(0)
    spectrum = np.sort(np.linalg.eigvalsh(np.cov(centred.T, bias=True)))[::-1]
    white = whitened(x, power)
    covariance = np.cov(white[1:].T.astype(float), bias=True)
    np.testing.assert_allclose(np.diag(covariance), spectrum ** (1 - power), rtol=1e-4)
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-4 * covariance.max())
    assert not white[0].any()


def test_power_0_with_all_axes_is_a_rotation():
    x = vectors_of(1)
    centred, white = x[1:] - x[1:].mean(0), whitened(x, 0.0)[1:]
    np.testing.assert_allclose(white @ white.T, centred @ centred.T, rtol=1e-3, atol=1e-2)


def dense_graph(seed, items):
    rng = np.random.default_rng(seed)
    counts = np.triu(rng.integers(0, 4, size=(items, items)), 1).astype(float)
    counts += counts.T
    counts[7] = counts[:, 7] = 0  # an item without a neighbour
    degree = counts.sum(1)
    scale = np.where(degree > 0, np.where(degree > 0, degree, 1) ** -0.5, 0)
    return counts, scale[:, None] * counts * scale


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_axes_are_the_eigenvectors_of_the_dense_matrix(share):
    x = vectors_of(2)
    counts, dense = dense_graph(2, len(x))
    graph = co_occurrence(csr_array(counts))
    np.testing.assert_allclose(graph.toarray(), dense, atol=1e-12)
    centred = x.astype(float) - x.astype(float).mean(0)
    matrix = centred.T @ ((1 - share) * np.eye(len(x)) + share * dense) @ centred
    values, wanted = np.linalg.eigh(matrix)
    axes = principal_axes(centred, 3, graph, share)
    for k in range(3):
        assert abs(axes[:, k] @ wanted[:, -1 - k]) == pytest.approx(1, abs=1e-6), k
        np.testing.assert_allclose(
            matrix @ axes[:, k], values[-1 - k] * axes[:, k], rtol=1e-6, atol=1e-6 * abs(values).max()
        )


def test_the_graph_finds_the_axis_on_which_neighbours_agree():
    """Axis 0 varies most and says nothing of who goes with whom; items of a pair agree on axis 1."""
    rng = np.random.default_rng(3)
    pair = rng.normal(size=20)
    x = np.stack([5 * rng.normal(size=40), np.repeat(pair, 2)], axis=1).astype(np.float32)
    counts = np.kron(np.eye(20), np.array([[0.0, 1], [1, 0]]))
    plain, led = (whitened(x, 1.0, 1, co_occurrence(csr_array(counts)), share)[:, 0] for share in (0.0, 1.0))
    assert abs(np.corrcoef(plain, x[:, 0])[0, 1]) > 0.95
    assert abs(np.corrcoef(led, x[:, 1])[0, 1]) > abs(np.corrcoef(plain, x[:, 1])[0, 1])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    move=arrays(np.float64, (4, 4), elements=st.floats(-2, 2, width=32)),
)
def test_full_whitening_forgets_every_linear_map(seed, move):
    """Cosines after whitening are those of the vectors after any invertible map and shift."""
    move = move + 5 * np.eye(4)
    if np.linalg.cond(move) > 100:
        return
    x = np.random.default_rng(seed).normal(size=(25, 4)) * [4, 2, 1, 0.5]
    one, other = (whitened(v.astype(np.float32), 1.0).astype(float) for v in (x, x @ move + 1))
    np.testing.assert_allclose(one @ one.T, other @ other.T, atol=5e-3)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), power=st.floats(0, 1), size=st.integers(1, 7), empty=st.integers(0, 12))
def test_shape_zeros_and_order_hold(seed, power, size, empty):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(12, 5)).astype(np.float32)
    x[rng.permutation(12)[:empty]] = 0
    white = whitened(x, power, size)
    assert white.dtype == np.float32 and white.shape[0] == 12 and 1 <= white.shape[1] <= min(size, 5)
    assert np.isfinite(white).all() and not white[~x.any(1)].any()
    variance = white[x.any(1)].var(0) if x.any() else np.zeros(1)
    assert (np.diff(variance) <= 1e-4 * max(1e-9, variance.max())).all() or power == 1


def test_vectors_that_are_all_alike_say_nothing():
    white = whitened(np.ones((6, 3), dtype=np.float32), 1.0)
    assert not white.any() and np.isfinite(white).all()

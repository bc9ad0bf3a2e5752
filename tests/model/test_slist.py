"""SLIST and LINK against the normal equations of a loop over sessions, and what is refused."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from tiny import create_dataset, tiny_config, tiny_model

from recbole_alkd.model import slist
from recbole_alkd.model.scoring import mean_ranks
from recbole_alkd.model.slist import SLIST, Slist, _Solver
from recbole_alkd.settings.error import AlkdError

N = 8


def looped(sessions, how):
    """Gram matrix and right side of the regression, row by row."""
    left, right = np.zeros((N, N)), np.zeros((N, N))
    for one in sessions:
        rows = [(how.alpha, [(item, 1.0) for item in set(one)], [(item, 1.0) for item in set(one)])]
        for t in range(len(one) - 1):
            past = [(one[s], math.exp(-(t - s) / how.train_decay)) for s in range(t + 1)]
            future = [(one[s], math.exp(-(s - t - 1) / how.train_decay)) for s in range(t + 1, len(one))]
            rows.append((1 - how.alpha, past, future))
        for share, inputs, targets in rows:
            x, y = np.zeros(N), np.zeros(N)
            for item, weight in inputs:
                x[item] += weight
            for item, weight in targets:
                y[item] += weight
            x /= x.sum()
            left += share * np.outer(x, x)
            right += share * np.outer(x, y)
    return left, right


def arrays(sessions):
    return np.array([item for one in sessions for item in one]), np.cumsum([0, *map(len, sessions)])


@settings(max_examples=80, deadline=None)
@given(
    sessions=st.lists(st.lists(st.integers(1, N - 1), min_size=1, max_size=6), min_size=1, max_size=6),
    how=st.builds(Slist, *(st.sampled_from(v) for v in ([0.0, 0.3, 1.0], [0.5, 10.0], [0.5, 3.0], [1.0]))),
)
def test_weights_solve_the_regression_of_the_loop(sessions, how):
    left, right = looped(sessions, how)
    wanted = np.linalg.solve(left + how.regularization * np.eye(N), right)
    weights = _Solver(*arrays(sessions), N, torch.device("cpu"))(how)
    np.testing.assert_allclose(weights.numpy(), wanted, rtol=1e-3, atol=1e-5)


def test_what_settings_share_is_solved_once():
    solve = _Solver(*arrays([[1, 2, 3], [2, 3]]), N, torch.device("cpu"))
    first = solve(Slist())
    assert solve(Slist(predict_decay=4.0)) is first
    assert not torch.equal(solve(Slist(alpha=0.2)), first)
    torch.testing.assert_close(solve(Slist()), first)


@pytest.fixture(scope="module")
def parts(tiny_path):
    config = tiny_config(tiny_path, model="SLIST", slist_train_decay=[1, 4])
    return config, create_dataset(config).build()


def test_validation_chooses_and_ranks_are_those_of_the_scores(parts):
    config, (train, valid, test) = parts
    model = tiny_model(config, train).eval()
    rows = test.inter_feat
    sessions = rows["item_id_list"], rows["item_length"]
    assert not model.scores(*sessions).any(), "it has not been fitted"
    counted = model.count(train, valid)
    assert counted.facts["tried"] == 3 * 2 * 5 and counted.facts["valid"] >= 0
    scores, matrix = model.scores(*sessions), model.weights.view(model.n_items, -1)
    one = sum(
        math.exp(-age / counted.facts["predict_decay"]) * matrix[item]
        for age, item in enumerate(reversed(sessions[0][3][: sessions[1][3]].tolist()))
    )
    torch.testing.assert_close(scores[3], one)
    ranks = model.view_class(model, None).target_ranks(*sessions, rows["item_id"], False)
    assert ranks.tolist() == mean_ranks(scores, rows["item_id"]).tolist()
    other = tiny_model(config, train).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.scores(*sessions), scores)


def test_with_a_teacher_s_matrix_it_is_link(parts, tiny_path):
    config, (train, *_) = parts
    fixed = {"slist_alpha": 0.5, "slist_train_decay": 1, "slist_predict_decay": 1, "slist_edge_weight": 10}
    config = tiny_config(tiny_path, model="SLIST", **fixed)
    model, plain = tiny_model(config, train), tiny_model(config, train)
    plain.count(train)
    n = model.n_items
    teacher = np.random.default_rng(0).dirichlet(np.ones(n), size=n).astype(np.float32)
    counted = model.count(train, None, {"link": lambda weighing: csr_array(teacher)})
    assert counted.facts["link_weight"] == 10
    flat, offsets, _ = model.counted(train)
    solve = _Solver(flat, offsets, n, torch.device("cpu"))
    without = solve(Slist())
    wanted = without + 10 * torch.cholesky_solve(torch.from_numpy(teacher), solve.factor)
    torch.testing.assert_close(model.weights.view(n, n), wanted, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(model.weights, plain.weights)


def test_too_many_items_are_refused_by_name(parts, monkeypatch):
    config, (train, *_) = parts
    monkeypatch.setattr(slist, "MOST_ITEMS", 29)
    with pytest.raises(
        AlkdError, match=r"SLIST \(and LINK\) keeps n_items\^2 .* 30 items of tiny; allowed: at most 29"
    ):
        SLIST(config, train)


@pytest.mark.parametrize("key", ["slist_train_decay", "slist_predict_decay", "slist_regularization"])
def test_a_scale_of_zero_is_refused(tiny_path, key):
    with pytest.raises(AlkdError, match=f"{key}: 0 .* a number above 0"):
        config = tiny_config(tiny_path, model="SLIST", **{key: 0})
        tiny_model(config, create_dataset(config).build()[0])

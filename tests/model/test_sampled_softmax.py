"""The sampled softmax against a loop and against the full softmax, and Adam on touched rows
against torch's."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import create_dataset, settings_of, tiny_config, tiny_model, tiny_view, training_part
from torch.nn.functional import cross_entropy

from recbole_alkd.learner.row_adam import RowAdam
from recbole_alkd.model.backbone import updates_rows, view_and_model
from recbole_alkd.model.sampled_softmax import SampledSoftmax, accidental_hits, drop_items, sampled_loss
from recbole_alkd.registry import backbones
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import TrainingSettings

WITH_VECTORS = [name for name in backbones if view_and_model(name)[0].has_vectors]
PLAIN = TrainingSettings(softmax_l2=0.0, softmax_dropout=0.0)


@pytest.fixture(scope="module")
def part(tiny_path):
    return training_part(create_dataset(tiny_config(tiny_path)))


def loss_of(tiny_path, part, name="SessionFPMC", sparse=False, how=PLAIN, **own):
    config = tiny_config(tiny_path, student_model=name, student_embedding_size=8, **own)
    view = tiny_view(config, part)
    return SampledSoftmax(view, how, part.inter_feat["item_id"], part.item_num, sparse)


def some_batch(rows=3, draws=5, size=4):
    rng = torch.Generator().manual_seed(3)
    vectors = [
        torch.randn(n, size, generator=rng, dtype=torch.double, requires_grad=True)
        for n in (rows, rows, draws)
    ]
    return (
        vectors,
        torch.tensor([7, 2, 9]),
        torch.tensor([2, 5, 9, 9, 1]),
        torch.randn(draws, generator=rng, dtype=torch.double),
    )


def test_the_loss_equals_the_loop():
    (session, positive, negative), target, drawn, log_expected = some_batch()
    losses = []
    for b in range(3):
        own = (session[b] @ positive[b]).item()
        others = [
            (session[b] @ negative[k] - log_expected[k]).item() for k in range(5) if target[b] != drawn[k]
        ]
        losses.append(math.log(sum(math.exp(logit - own) for logit in [own, *others])))
    value = sampled_loss(session, positive, negative, target, drawn, log_expected)
    assert value.item() == pytest.approx(sum(losses) / 3, rel=1e-12)


def test_its_gradient_is_that_of_finite_differences():
    vectors, target, drawn, log_expected = some_batch()
    assert torch.autograd.gradcheck(lambda *v: 3 * sampled_loss(*v, target, drawn, log_expected), vectors)


def test_large_logits_do_not_overflow():
    (session, positive, negative), target, drawn, log_expected = some_batch()
    value = sampled_loss(1e4 * session, 1e4 * positive, negative, target, drawn, log_expected)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(session.grad).all()


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=9), st.lists(st.integers(1, 6), min_size=1, max_size=9)
)
@settings(max_examples=60, deadline=None)
def test_accidental_hits_are_those_of_the_whole_matrix(target, drawn):
    target, drawn = torch.tensor(target), torch.tensor(drawn)
    row, column = accidental_hits(target, drawn)
    hits = sorted(zip(row.tolist(), column.tolist(), strict=True))
    assert hits == [tuple(pair) for pair in (target.unsqueeze(1) == drawn).nonzero().tolist()]


def test_many_draws_give_the_full_softmax(tiny_path, part):
    """The mean over draws of the sum of exp(logits), the target apart, is the sum over all other items."""
    torch.manual_seed(0)
    loss = loss_of(
        tiny_path, part, how=TrainingSettings(softmax_negatives=60_000, softmax_l2=0.0, softmax_dropout=0.0)
    )
    rows, view = part.inter_feat, loss.view
    full = view.scores(rows["item_id_list"], rows["item_length"])
    full[:, 0] = -torch.inf
    assert float(loss(rows).detach()) == pytest.approx(
        float(cross_entropy(full, rows["item_id"]).detach()), rel=5e-3
    )


@pytest.mark.parametrize("uniform", [0.25, 1.0])
def test_draws_follow_q(tiny_path, part, uniform):
    torch.manual_seed(0)
    loss = loss_of(tiny_path, part, how=TrainingSettings(softmax_uniform=uniform))
    labels = part.inter_feat["item_id"].tolist()
    share = np.bincount(loss.draw(200_000).numpy(), minlength=part.item_num) / 200_000
    for item in range(1, part.item_num):
        q = (1 - uniform) * labels.count(item) / len(labels) + uniform / (part.item_num - 1)
        assert share[item] == pytest.approx(q, abs=0.003)
        assert float(loss.log_q[item]) == pytest.approx(math.log(q), rel=1e-5)
    assert share[0] == 0


def test_l2_is_on_the_vectors_that_are_looked_up(tiny_path, part):
    rows = part.inter_feat
    losses = []
    for l2 in (0.0, 0.5):
        torch.manual_seed(1)
        loss = loss_of(tiny_path, part, how=TrainingSettings(softmax_l2=l2, softmax_dropout=0.0))
        torch.manual_seed(2)
        losses.append(float(loss(rows).detach()))
    model = loss.view.model
    inside = sum(
        float(model.input_embedding.weight[item].square().sum().detach())
        for items in rows["item_id_list"].tolist()
        for item in items
        if item
    )
    targets = sum(
        float(model.output_embedding.weight[item].square().sum().detach())
        for item in rows["item_id"].tolist()
    )
    assert losses[1] - losses[0] == pytest.approx(0.5 * (inside + targets) / len(rows), rel=1e-4)


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=5),
    st.floats(0, 0.99),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_dropped_sessions_are_sub_sessions_in_order(sessions, rate, seed):
    torch.manual_seed(seed)
    item_seq = torch.tensor([s + [0] * (7 - len(s)) for s in sessions])
    kept, length = drop_items(item_seq, torch.tensor([len(s) for s in sessions]), rate)
    assert kept.shape == item_seq.shape
    for before, row, size in zip(sessions, kept.tolist(), length.tolist(), strict=True):
        assert 1 <= size <= len(before) and row[size:] == [0] * (7 - size)
        rest = iter(before)
        assert all(item in rest for item in row[:size]), "a sub-sequence"
        assert rate > 0 or row[:size] == before


def test_a_share_of_the_items_is_dropped():
    torch.manual_seed(0)
    _, length = drop_items(torch.ones(4000, 10, dtype=torch.long), torch.full((4000,), 10), 0.3)
    assert float(length.float().mean()) == pytest.approx(7, abs=0.1)


@pytest.mark.parametrize("name", WITH_VECTORS)
def test_every_backbone_with_vectors_gets_the_same_gradient_sparse_or_dense(tiny_path, part, name):
    own = {"student_config": {"last_k": 4}} if name == "AttMix" else {}
    grads, rows = [], part.inter_feat[:8]
    for sparse in (False, True):
        loss = loss_of(tiny_path, part, name, sparse, TrainingSettings(softmax_negatives=4), **own)
        torch.manual_seed(4)
        value = loss(rows)
        assert value.ndim == 0 and torch.isfinite(value)
        value.backward()
        grads.append(
            {key: p.grad.to_dense() for key, p in loss.view.model.named_parameters() if p.grad is not None}
        )
        assert not any(m.sparse for m in loss.view.model.modules() if isinstance(m, torch.nn.Embedding)), (
            "set back"
        )
    assert grads[0].keys() == grads[1].keys()
    for key, gradient in grads[0].items():
        torch.testing.assert_close(grads[1][key], gradient, atol=1e-6, rtol=1e-4)
    assert any(gradient.abs().sum() > 0 for gradient in grads[0].values())


def test_only_looked_up_rows_have_a_gradient(tiny_path, part):
    loss = loss_of(tiny_path, part, "GRU4Rec", True, TrainingSettings(softmax_negatives=3))
    rows = part.inter_feat[:2]
    loss(rows).backward()
    gradient = loss.view.model.item_embedding.weight.grad
    assert gradient.is_sparse
    assert len(gradient.coalesce().indices()[0]) <= int(rows["item_length"].sum()) + 2 + 3 + 1


@pytest.mark.parametrize("augmentation", ["prefix", "last"])
def test_draws_know_the_labels_of_backward_rows(tiny_path, augmentation):
    config = tiny_config(
        tiny_path, train_loss="sampled_softmax", train_backwards=True, session_augmentation=augmentation
    )
    part = training_part(create_dataset(config))
    labels = part.inter_feat["item_id"].tolist() + part.backward_rows()["item_id"].tolist()
    assert sorted(tiny_model(config, part).own_loss.targets.tolist()) == sorted(labels)


# in a run


def test_train_loss_replaces_the_backbones_own(tiny_path, part):
    rows = part.inter_feat
    own, sampled = (
        tiny_model(tiny_config(tiny_path, train_loss=name), part) for name in (None, "sampled_softmax")
    )
    torch.manual_seed(0)
    first = float(sampled.calculate_loss(rows).detach())
    torch.manual_seed(0)
    again = float(sampled.own_loss(rows).detach())
    assert first == again
    assert float(own.calculate_loss(rows).detach()) == float(own.view.loss(rows).detach()) != first
    assert sampled.state_dict().keys() == own.state_dict().keys(), "the saved student is the plain one"


@pytest.mark.parametrize(
    ("own", "rows"), [({}, True), ({"weight_decay": 0.1}, False), ({"learner": "sgd"}, False)]
)
def test_rows_are_updated_alone_where_the_optimizer_can(tiny_path, own, rows):
    assert updates_rows(tiny_config(tiny_path, train_loss="sampled_softmax", **own)) is rows
    assert not updates_rows(tiny_config(tiny_path, train_loss=None, **own))


@pytest.mark.parametrize(
    ("key", "value"),
    [("train_loss", "softmax"), ("softmax_uniform", 0), ("softmax_dropout", 1.0), ("softmax_negatives", 0)],
)
def test_bad_settings_are_named(tiny_path, key, value):
    with pytest.raises(AlkdError, match=f"{key}: .*allowed"):
        settings_of(tiny_config(tiny_path, **{key: value}))


# Adam on touched rows


def test_dense_gradients_get_torchs_adam():
    ours, theirs = (torch.nn.Parameter(torch.arange(6.0).reshape(3, 2)) for _ in range(2))
    pairs = [(ours, RowAdam([ours], lr=0.1)), (theirs, torch.optim.Adam([theirs], lr=0.1))]
    for step in range(5):
        for parameter, optimizer in pairs:
            parameter.grad = torch.sin(parameter.detach() + step)
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_sparse_gradients_get_torchs_sparse_adam():
    ours, theirs = (torch.nn.Parameter(torch.arange(12.0).reshape(6, 2)) for _ in range(2))
    pairs = [(ours, RowAdam([ours], lr=0.1)), (theirs, torch.optim.SparseAdam([theirs], lr=0.1))]
    for step in range(5):
        index = torch.tensor([[step, 1, 1]])
        for parameter, optimizer in pairs:
            values = torch.sin(parameter.detach()[index[0]] + step)
            parameter.grad = torch.sparse_coo_tensor(index, values, (6, 2), check_invariants=True)
            optimizer.step()
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(ours[5], torch.tensor([10.0, 11.0])), "a row without gradient stays"

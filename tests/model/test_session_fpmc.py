"""SessionFPMC against its formula, and the in-batch BPR loss against a loop."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import create_dataset, tiny_config, tiny_model, training_rows

from recbole_alkd.model.loss import in_batch_bpr
from recbole_alkd.model.session_model import item_weights
from recbole_alkd.settings.error import AlkdError


@pytest.fixture(scope="module")
def setup(tiny_path):
    config = tiny_config(tiny_path, model="SessionFPMC", embedding_size=5, item_decay=1.0)
    dataset = create_dataset(config)
    return config, dataset, tiny_model(config, dataset)


def encode(model, *sessions):
    width = max(map(len, sessions))
    rows = torch.tensor([list(s) + [0] * (width - len(s)) for s in sessions])
    return model(rows, torch.tensor([len(s) for s in sessions]))


def test_session_vector_is_the_mean_of_input_rows(setup):
    model = setup[2]
    sessions = [[3, 8, 1], [4], [9, 9, 2, 7, 5, 9]]
    table = model.input_embedding.weight
    expected = torch.stack([sum(table[i] for i in s) / len(s) for s in sessions])
    torch.testing.assert_close(encode(model, *sessions), expected)


def test_older_items_count_less_with_item_decay(setup):
    config, dataset, _ = setup
    config.final_config_dict["item_decay"] = 0.5
    try:
        model = tiny_model(config, dataset)
    finally:
        config.final_config_dict["item_decay"] = 1.0
    table, sessions = model.input_embedding.weight, [[3, 8, 1], [4], [9, 9, 2, 7, 5, 9]]
    expected = []
    for session in sessions:
        weights = [0.5 ** (len(session) - 1 - place) for place in range(len(session))]
        total = sum(weight * table[item] for weight, item in zip(weights, session, strict=True))
        expected.append(total / sum(weights))
    torch.testing.assert_close(encode(model, *sessions), torch.stack(expected))


def test_weights_of_a_length_are_those_of_a_batch(tiny_path, setup):
    config = tiny_config(tiny_path, model="SessionFPMC", embedding_size=5, item_decay=0.8)
    model = tiny_model(config, setup[1])
    table = model.input_embedding.weight
    for width in (1, 3, 20):
        lengths = torch.randint(1, width + 1, (30,), generator=torch.Generator().manual_seed(width))
        weights = item_weights(torch.zeros(30, width), lengths, 0.8)
        for _ in range(2):  # the second time it is kept
            assert torch.equal(model._weights(width, table)[lengths], weights)


def test_gradients_are_those_of_the_formula(tiny_path, setup):
    config = tiny_config(tiny_path, model="SessionFPMC", embedding_size=5, item_decay=0.5)
    model = tiny_model(config, setup[1])
    items, lengths = torch.tensor([[3, 8, 3], [4, 0, 0], [9, 2, 0]]), torch.tensor([3, 1, 2])
    gradients = []
    for vectors in (
        model(items, lengths),
        (item_weights(items, lengths, 0.5).unsqueeze(2) * model.input_embedding(items)).sum(1),
    ):
        model.zero_grad()
        vectors.square().sum().backward()
        gradients.append(model.input_embedding.weight.grad)
    torch.testing.assert_close(*gradients)
    assert gradients[0][[3, 8, 4, 9, 2]].all() and not gradients[0][[0, 1, 5]].any()


@pytest.mark.parametrize("value", [0, 1.5, True, "half"])
def test_item_decay_out_of_range_is_named(tiny_path, setup, value):
    with pytest.raises(AlkdError, match=r"item_decay: .* is not allowed; allowed: a number above 0"):
        tiny_model(tiny_config(tiny_path, model="SessionFPMC", embedding_size=5, item_decay=value), setup[1])


def test_one_item_session_is_the_items_input_row(setup):
    model = setup[2]
    assert torch.equal(encode(model, [6])[0], model.input_embedding.weight[6])


@settings(max_examples=25, deadline=None)
@given(st.permutations([2, 5, 5, 11, 20]), st.integers(0, 4))
def test_order_and_padding_do_not_matter_and_repeats_count(setup, order, padding):
    model = setup[2]
    plain = encode(model, [2, 5, 5, 11, 20])
    row = torch.tensor([list(order) + [0] * padding])
    torch.testing.assert_close(model(row, torch.tensor([5])), plain)
    assert not torch.allclose(encode(model, [2, 5, 11, 20]), plain)


def test_padding_row_is_zero_and_stays_zero(setup):
    config, dataset, _ = setup
    model = tiny_model(config, dataset)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model.calculate_loss(training_rows(dataset)).backward()
    optimizer.step()
    assert torch.equal(model.input_embedding.weight[0], torch.zeros(5))


def test_scores_and_prediction_agree(setup):
    _, dataset, model = setup
    rows = training_rows(dataset)
    full = model.full_sort_predict(rows)
    assert full.shape == (len(rows), dataset.item_num)
    torch.testing.assert_close(model.predict(rows), full.gather(1, rows["item_id"].unsqueeze(1)).squeeze(1))


def test_in_batch_bpr_equals_the_loop():
    torch.manual_seed(0)
    session, target = torch.randn(7, 4), torch.randn(7, 4)
    total = 0.0
    for i in range(7):
        for j in range(7):
            margin = float(session[i] @ target[i] - session[i] @ target[j])
            total += -math.log(1 / (1 + math.exp(-margin)))
    assert float(in_batch_bpr(session, target)) == pytest.approx(total / 49, rel=1e-5)


@pytest.mark.parametrize("size", [1, 2, 9])
def test_in_batch_bpr_of_equal_scores_is_ln_2(size):
    assert float(in_batch_bpr(torch.ones(size, 3), torch.ones(size, 3))) == pytest.approx(math.log(2))


def test_in_batch_bpr_is_finite_for_huge_scores():
    assert torch.isfinite(in_batch_bpr(torch.tensor([[1e4], [-1e4]]), torch.tensor([[-1e4], [1e4]])))


def test_losses_are_the_named_ones(setup, tiny_path):
    _, dataset, model = setup
    rows = training_rows(dataset)
    session = model(rows["item_id_list"], rows["item_length"])
    torch.testing.assert_close(
        model.calculate_loss(rows), in_batch_bpr(session, model.output_embedding(rows["item_id"]))
    )
    entropy = tiny_model(
        tiny_config(tiny_path, model="SessionFPMC", embedding_size=5, loss_type="CE"), dataset
    )
    probabilities = torch.softmax(entropy.full_sort_predict(rows).double(), 1)
    expected = -torch.log(probabilities.gather(1, rows["item_id"].unsqueeze(1))).mean()
    assert float(entropy.calculate_loss(rows).detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_an_unknown_loss_is_named(setup, tiny_path):
    with pytest.raises(AlkdError, match=r"loss_type: 'hinge' .*BPR_INBATCH"):
        tiny_model(tiny_config(tiny_path, model="SessionFPMC", loss_type="hinge"), setup[1])

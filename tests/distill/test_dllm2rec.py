"""DLLM2Rec: the published weight vectors, a loop, the two negatives."""

import math

import pytest
import torch

from recbole_alkd.distill.dllm2rec import DLLM2Rec
from recbole_alkd.testing.losses import LossTests, toy_batch, toy_context, toy_lists


class TestOfficialNegative(LossTests):
    loss = "dllm2rec"
    options = {"official_negative": True, "top": 4}  # noqa: RUF012

    def value(self, made, seed=11, **batch):
        return super().value(made, seed, negatives=None, **batch)


def weights_of(overlap, **options):
    """Weights of a list of 10 when ``overlap`` says which of its items are in the student's own top 10."""
    context = toy_context(student_size=1)
    lists = torch.arange(1, 11).unsqueeze(0)
    with torch.no_grad():
        context.student.model.inputs.fill_(1.0)
        context.student.model.outputs[:, 0] = torch.linspace(1, 2, 40)
        context.student.model.outputs[lists[0], 0] = torch.where(torch.tensor(overlap), 3.0, -3.0).double()
    batch = toy_batch(context, size=1, lists=lists)
    return DLLM2Rec(context, options).weights(batch, lists)[0].tolist()


def test_published_weight_vectors():
    none, every = [False] * 10, [True] * 10
    assert weights_of(none)[:4] == pytest.approx([0.6321, 0.2326, 0.0856, 0.0315], abs=5e-5)
    assert weights_of(every)[:4] == pytest.approx([0.2228, 0.1306, 0.0967, 0.0842], abs=5e-5)
    assert weights_of(none, position=0.0) == pytest.approx([0.1] * 10)
    assert sum(weights_of([True, False] * 5)) == pytest.approx(1.0)


@pytest.mark.parametrize("official", [False, True])
def test_equals_the_loop(official):
    context = toy_context()
    loss = DLLM2Rec(context, {"top": 5, "official_negative": official})
    lists, _ = toy_lists(9)
    lists[4] = 0  # a row without a label
    batch = toy_batch(context, lists=lists)
    student = (batch.student_session @ batch.student_items.T).tolist()
    raw = [math.exp(-k) for k in range(1, 6)]
    total = 0.0
    for row, ranking in enumerate(lists[:, :5].tolist()):
        own = sorted(range(1, context.n_items), key=lambda item: -student[row][item])[:5]
        parts = [
            (item, 0.3 * raw[k] / sum(raw) + 0.1 * ((item in own) + 1e-8))
            for k, item in enumerate(ranking)
            if item
        ]
        negative = student[row][int(batch.negatives[row])]
        pushed = math.log1p(math.exp(negative - 1 if official else negative))
        for item, weight in parts:
            total += weight / sum(w for _, w in parts) * (math.log1p(math.exp(-student[row][item])) + pushed)
    assert float(loss(batch).detach()) == pytest.approx(total / 8, rel=1e-9)


@pytest.mark.parametrize(("official", "expected"), [(False, 2 * math.log(2)), (True, 1.00641)])
def test_zero_scores(official, expected):
    context = toy_context()
    with torch.no_grad():
        context.student.model.outputs.zero_()
    value = DLLM2Rec(context, {"official_negative": official})(toy_batch(context))
    assert float(value.detach()) == pytest.approx(expected, abs=1e-5)


def test_a_list_of_one_is_binary_cross_entropy_on_its_head():
    context = toy_context()
    batch = toy_batch(context)
    scores = batch.student_scores(torch.stack([batch.lists[:, 0], batch.negatives], 1))
    expected = (
        torch.nn.functional.binary_cross_entropy_with_logits(
            scores, torch.tensor([1.0, 0.0]).double().expand(9, 2), reduction="sum"
        )
        / 9
    )
    torch.testing.assert_close(DLLM2Rec(context, {"top": 1})(batch), expected)


def test_drawn_negatives_are_new_items():
    context = toy_context()
    batch = toy_batch(context, negatives=None)
    for seed in range(30):
        torch.manual_seed(seed)
        for row, item in enumerate(DLLM2Rec(context, {})._negatives(batch).flatten().tolist()):
            assert item not in {0, *batch.item_seq[row].tolist(), int(batch.target[row])}

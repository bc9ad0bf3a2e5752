"""RRD: the list-wise likelihood against a loop and its closed forms; the two draws."""

import math

import pytest
import torch

from recbole_alkd.distill.rrd import RelaxedRankingDistillation
from recbole_alkd.testing.losses import LossTests, toy_batch, toy_context


class TestTopItems(LossTests):
    loss = "rrd"
    options = {"sample": False, "interesting": 6, "uninteresting": 5}  # noqa: RUF012


def loss_of(context, **options):
    return RelaxedRankingDistillation(context, {"interesting": 6, "uninteresting": 5, **options})


def test_equals_the_loop():
    context = toy_context()
    batch = toy_batch(context)
    loss = loss_of(context, temperature=4.0)
    torch.manual_seed(3)
    value = float(loss(batch).detach())
    torch.manual_seed(3)
    interesting, uninteresting = loss.draw(batch)
    student = (batch.student_session @ batch.student_items.T).tolist()
    total = 0.0
    for row in range(len(batch)):
        ranked = [student[row][item] for item in interesting[row].tolist()]
        others = sum(math.exp(student[row][item]) for item in uninteresting[row].tolist())
        for k, score in enumerate(ranked):
            total += math.log(sum(math.exp(s) for s in ranked[k:]) + others) - score
    assert value == pytest.approx(total / len(batch), rel=1e-9)


def test_equal_scores_give_the_log_of_a_ratio_of_factorials():
    context = toy_context(n_items=600)
    with torch.no_grad():
        context.student.model.outputs.fill_(0.3)
    value = RelaxedRankingDistillation(context, {})(toy_batch(context))
    assert float(value.detach()) == pytest.approx(math.lgamma(81) - math.lgamma(41), rel=1e-9)
    assert float(value.detach()) == pytest.approx(163.35248, abs=1e-5)


def test_one_interesting_item_is_cross_entropy():
    context = toy_context()
    batch = toy_batch(context)
    loss = loss_of(context, interesting=1)
    torch.manual_seed(5)
    value = loss(batch)
    torch.manual_seed(5)
    scores = batch.student_scores(torch.cat(loss.draw(batch), dim=1))
    torch.testing.assert_close(
        value, torch.nn.functional.cross_entropy(scores, torch.zeros(9, dtype=torch.long))
    )


def test_a_constant_on_all_scores_changes_nothing_and_huge_scores_do_not_overflow():
    context = toy_context()
    with torch.no_grad():  # one more coordinate that is 1 in every session carries the constant
        context.student.model.inputs = torch.nn.Parameter(
            torch.cat([context.student.model.inputs, torch.ones(40, 1)], 1)
        )
        outputs = context.student.model.outputs.detach()
    values = []
    for constant in (0.0, 700.0, 5000.0):
        context.student.model.outputs = torch.nn.Parameter(
            torch.cat([outputs, torch.full((40, 1), constant)], 1)
        )
        torch.manual_seed(1)
        values.append(float(loss_of(context)(toy_batch(context)).detach()))
    assert values[1:] == pytest.approx([values[0]] * 2, rel=1e-6)


def test_draws_keep_their_promises():
    context = toy_context(n_items=60)
    batch = toy_batch(context)
    loss = loss_of(context, top=12, temperature=3.0)
    best = batch.teacher_top(12)
    firsts = []
    for seed in range(200):
        torch.manual_seed(seed)
        interesting, uninteresting = loss.draw(batch)
        for row in range(len(batch)):
            known = {*batch.item_seq[row].tolist(), int(batch.target[row])}
            order = best[row].tolist()
            ranks = [order.index(item) for item in interesting[row].tolist()]
            assert ranks == sorted(set(ranks)) and len(ranks) == 6
            assert not {*uninteresting[row].tolist()} & (known | {*order, 0})
            firsts.append(ranks[0])
    # the best rank is drawn first of all with probability w_1 / sum w, and can come later too
    weights = [math.exp(-r / 3) for r in range(1, 13)]
    assert sum(first == 0 for first in firsts) / len(firsts) > weights[0] / sum(weights)
    assert max(firsts) > 0
    assert torch.equal(loss_of(context, sample=False).draw(batch)[0], best[:, :6])


def test_rows_with_fewer_items_than_asked_for_add_only_those_they_have():
    context = toy_context(n_items=10)
    batch = toy_batch(context, size=9)
    loss = loss_of(context, sample=False, interesting=4)
    interesting, _uninteresting = loss.draw(batch)
    short = (interesting == 0).any(1)
    assert short.any() and not short.all()
    value = loss(batch)
    assert torch.isfinite(value)
    value.backward()
    assert context.student.model.outputs.grad[0].abs().sum() == 0

"""RD against a loop, before and after its weights turn dynamic."""

import math

import pytest
import torch

from recbole_alkd.distill.rd import RankingDistillation
from recbole_alkd.model.loss import draw_items
from recbole_alkd.testing.losses import LossTests, toy_batch, toy_context


class TestDynamic(LossTests):
    loss = "rd"
    options = {"start_epoch": 0, "top": 4}  # noqa: RUF012


@pytest.mark.parametrize("epoch", [0, 10])
def test_equals_the_loop(epoch):
    context = toy_context()
    batch = toy_batch(context)
    loss = RankingDistillation(context, {"top": 5, "temperature": 2.0, "samples": 20, "start_epoch": 10})
    loss.epoch_start(epoch)
    torch.manual_seed(2)
    value = float(loss(batch).detach())
    torch.manual_seed(2)
    drawn = draw_items(torch.cat([batch.item_seq, batch.target.unsqueeze(1)], 1), 20, context.n_items)
    student = (batch.student_session @ batch.student_items.T).tolist()
    raw = [math.exp(-k / 2) for k in range(1, 6)]
    total = 0.0
    for row in range(len(batch)):
        hidden = {0, *batch.item_seq[row].tolist(), int(batch.target[row])}
        teacher = context.teacher.scores(batch.item_seq, batch.item_seq_len)[row].tolist()
        ranking = sorted(set(range(context.n_items)) - hidden, key=lambda item: -teacher[item])[:5]
        for position, item in enumerate(ranking):
            weight = raw[position] / sum(raw)
            if epoch >= 10:
                above = sum(student[row][item] < student[row][other] for other in drawn[row].tolist()) / 20
                rank = math.floor((context.n_items - 2) * above)
                weight *= max(0.0, math.tanh(0.1 * (rank - position)))
            total += weight * math.log1p(math.exp(-student[row][item]))
    assert value == pytest.approx(total / len(batch), rel=1e-9)


def test_zero_scores_give_ln_2_before_the_start():
    context = toy_context()
    with torch.no_grad():
        context.student.model.outputs.zero_()
    assert float(RankingDistillation(context, {})(toy_batch(context)).detach()) == pytest.approx(math.log(2))


def test_dynamic_weight_vanishes_for_what_the_student_ranks_well_and_is_static_for_what_it_ranks_last():
    context = toy_context()
    loss = RankingDistillation(context, {"start_epoch": 0})
    loss.epoch_start(0)
    batch = toy_batch(context)
    best, worst = (
        torch.full((9, 10), 1e6, dtype=torch.float64),
        torch.full((9, 10), -1e6, dtype=torch.float64),
    )
    assert torch.equal(loss._discrepancy(batch, best), torch.zeros(9, 10, dtype=torch.float64))
    expected = torch.tanh(0.1 * (38.0 - torch.arange(10, dtype=torch.float64))).expand(9, 10)
    torch.testing.assert_close(loss._discrepancy(batch, worst), expected)

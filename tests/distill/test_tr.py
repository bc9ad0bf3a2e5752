"""TR: in-batch BPR on one of the teacher's top items a row."""

import pytest
import torch

from recbole_alkd.distill.tr import TeacherRanking
from recbole_alkd.model.loss import in_batch_bpr
from recbole_alkd.testing.losses import toy_batch, toy_context


def test_top_1_is_in_batch_bpr_on_the_teachers_favourite():
    context = toy_context()
    batch = toy_batch(context)
    best = []
    for row, session in enumerate(batch.item_seq.tolist()):
        scores = context.teacher.scores(batch.item_seq, batch.item_seq_len)[row].tolist()
        best.append(max((i for i in range(1, context.n_items) if i not in session), key=lambda i: scores[i]))
    expected = in_batch_bpr(batch.student_session, batch.student_items[best])
    torch.testing.assert_close(TeacherRanking(context, {"top": 1})(batch), expected)


def test_each_of_the_top_items_is_drawn_equally_often_and_no_other(monkeypatch):
    context = toy_context()
    batch = toy_batch(context)
    seen = []
    # identity vectors show which items were drawn
    monkeypatch.setattr(
        "recbole_alkd.distill.tr.in_batch_bpr", lambda session, target: seen.append(target) or target.sum()
    )
    batch.__dict__["student_items"] = torch.eye(context.n_items)
    loss = TeacherRanking(context, {"top": 5})
    torch.manual_seed(0)
    for _ in range(4000):
        loss(batch)
    share = torch.stack(seen).mean(0)
    top = batch.teacher_scores.topk(5, dim=1).indices
    assert share.gather(1, top).flatten().tolist() == pytest.approx([0.2] * 45, abs=0.03)
    assert float(share.sum()) == pytest.approx(9.0)


def test_a_teacher_list_may_hold_the_target_but_no_session_item():
    context = toy_context()
    with torch.no_grad():
        context.teacher.model.inputs.fill_(1.0)
        context.teacher.model.outputs.zero_()
        batch = toy_batch(context, size=1)
        context.teacher.model.outputs[batch.target[0]] = 1.0
        context.teacher.model.outputs[batch.item_seq[0][batch.item_seq[0] > 0]] = 2.0
    item = batch.teacher_scores.topk(1).indices
    assert int(item) == int(batch.target)

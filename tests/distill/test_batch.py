"""What a batch computes for the losses."""

import torch
from loss_tests import toy_batch, toy_context


def test_scores_of_student_and_teacher():
    context = toy_context()
    batch = toy_batch(context)
    teacher = context.teacher.scores(batch.item_seq, batch.item_seq_len)
    student = context.student.scores(batch.item_seq, batch.item_seq_len)
    items = batch.lists
    torch.testing.assert_close(batch.student_scores(items), student.gather(1, items))
    for row, session in enumerate(batch.item_seq.tolist()):
        for item in range(context.n_items):
            hidden = item == 0 or item in session
            assert batch.teacher_scores[row, item] == (-torch.inf if hidden else teacher[row, item])
            hidden = hidden or item == int(batch.target[row])
            assert batch.teacher_unseen[row, item] == (-torch.inf if hidden else teacher[row, item])
    assert not batch.teacher_scores.requires_grad and batch.student_session.requires_grad


def test_teacher_top_is_the_sorted_head_without_session_and_target():
    context = toy_context(n_items=12)
    batch = toy_batch(context, size=5)
    top = batch.teacher_top(20)
    assert top.shape == (5, 12)
    for row, ids in enumerate(top.tolist()):
        left = [i for i in range(1, 12) if i not in batch.item_seq[row].tolist() and i != int(batch.target[row])]
        expected = sorted(left, key=lambda item: -float(batch.teacher_unseen[row, item]))
        assert ids == expected + [0] * (12 - len(expected))
    assert torch.equal(batch.teacher_top(3), top[:, :3])


def test_vectors_are_computed_once():
    batch = toy_batch(toy_context())
    assert batch.student_session is batch.student_session and batch.teacher_scores is batch.teacher_scores
    assert len(batch) == 9

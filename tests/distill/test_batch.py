"""What a batch computes for the losses."""

import torch

from recbole_alkd.testing.losses import toy_batch, toy_context


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
    assert not batch.teacher_scores.requires_grad and batch.student_session.requires_grad


def test_teacher_top_is_the_sorted_head_without_session_and_target():
    context = toy_context(n_items=12)
    batch = toy_batch(context, size=5)
    top = batch.teacher_top(20)
    assert top.shape == (5, 12)
    for row, ids in enumerate(top.tolist()):
        left = [
            i for i in range(1, 12) if i not in batch.item_seq[row].tolist() and i != int(batch.target[row])
        ]
        expected = sorted(left, key=lambda item: -float(batch.teacher_scores[row, item]))
        assert ids == expected + [0] * (12 - len(expected))
    assert torch.equal(batch.teacher_top(3), top[:, :3])


def test_vectors_are_computed_once():
    batch = toy_batch(toy_context())
    assert batch.student_session is batch.student_session and batch.teacher_scores is batch.teacher_scores
    assert len(batch) == 9


def test_teacher_top_with_the_target_and_among_some_items():
    context = toy_context()
    batch = toy_batch(context)
    with_target = batch.teacher_top(40, with_target=True)
    assert all(int(target) in ids for target, ids in zip(batch.target, with_target.tolist(), strict=True))
    among = torch.arange(3, 20)
    top, whole = batch.teacher_top(5, among=among), batch.teacher_top(40)
    for row, ids in enumerate(whole.tolist()):
        assert top[row].tolist() == [item for item in ids if 3 <= item < 20][:5]


def test_lists_of_known_rows_are_ranked_once():
    context = toy_context()
    plain = toy_batch(context)
    asked = []
    original = context.teacher.encode
    context.teacher.encode = lambda *args: asked.append(1) or original(*args)
    among = torch.arange(5, 30)
    for _ in range(3):
        batch = toy_batch(context, row=torch.arange(9))
        assert torch.equal(batch.teacher_top(7), plain.teacher_top(7))
        assert torch.equal(batch.teacher_top(7, among=among), plain.teacher_top(7, among=among))
    assert len(asked) == 2  # once for ``plain``, once for the first of the three
    shuffled = torch.randperm(9)
    rows = {
        key: value[shuffled]
        for key, value in vars(plain).items()
        if key in ("item_seq", "item_seq_len", "target")
    }
    assert torch.equal(
        toy_batch(context, row=shuffled, **rows).teacher_top(7), plain.teacher_top(7)[shuffled]
    )
    assert len(asked) == 2
    more = toy_batch(context, size=12, row=torch.arange(12))  # three of them are new
    assert torch.equal(more.teacher_top(7), toy_batch(context, size=12).teacher_top(7))


def test_lists_that_would_fill_the_memory_are_not_kept(monkeypatch):
    context = toy_context()
    monkeypatch.setattr("recbole_alkd.distill.base.KEPT_LISTS", 100)
    batch = toy_batch(context, row=torch.arange(9))
    assert torch.equal(batch.teacher_top(7), toy_batch(context).teacher_top(7))
    assert not context.teacher_lists

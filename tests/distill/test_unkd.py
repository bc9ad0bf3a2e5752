"""unKD: popularity groups, rank pairs against their closed forms, the loss against a loop."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_alkd.distill.popularity import item_counts, popularity_groups
from recbole_alkd.distill.unkd import UnbiasedKnowledgeDistillation, draw_rank_pairs, pair_counts
from recbole_alkd.testing.losses import LossTests, toy_batch, toy_context


class TestFourGroups(LossTests):
    loss = "unkd"
    options = {"groups": 4, "pairs": 12, "mu": 3.0}  # noqa: RUF012


def test_counts_are_sessions_with_the_item():
    rows = {
        "item_id_list": torch.tensor([[3, 0, 0], [3, 5, 0], [4, 3, 3], [5, 0, 0]]),
        "item_length": torch.tensor([1, 2, 3, 1]),
        "item_id": torch.tensor([5, 7, 5, 4]),
        "session_id": torch.tensor([1, 1, 2, 3]),  # the first two rows are prefixes of one session
    }
    by_row = item_counts(toy_context(rows=rows, n_items=8))
    assert by_row.tolist() == [0, 0, 0, 3, 2, 4, 0, 1]
    context = toy_context(rows=rows, n_items=8)
    object.__setattr__(context, "session_field", "session_id")
    assert item_counts(context).tolist() == [0, 0, 0, 2, 2, 3, 0, 1]


def test_groups_by_hand():
    counts = torch.tensor([0, 10, 4, 3, 0, 2, 1])  # total 20
    assert [g.tolist() for g in popularity_groups(counts, 2)] == [[1], [2, 3, 5, 6]]
    # quota 5: 10 is above it and stands alone; 4, then 3 would make 7; 3 + 2 = 5;
    # the rest, 1, is below half of 5
    assert [g.tolist() for g in popularity_groups(counts, 4)] == [[1], [2], [3, 5, 6]]
    assert [g.tolist() for g in popularity_groups(counts, 1)] == [[1, 2, 3, 5, 6]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=3, max_size=40), st.integers(1, 6))
def test_groups_split_the_seen_items_into_about_equal_parts(counts, groups):
    counts = torch.tensor([0, 1, *counts])
    groups_made = popularity_groups(counts, groups)
    order = [item for group in groups_made for item in group.tolist()]
    assert sorted(order) == [item for item in range(len(counts)) if counts[item] > 0]
    assert all(counts[a] >= counts[b] for a, b in itertools.pairwise(order))
    quota = float(counts.sum()) / groups
    for group in groups_made[:-1]:
        total = int(counts[group].sum())
        assert total <= quota or len(group) == 1
        assert total > quota - int(counts.max())


@pytest.mark.parametrize(
    ("pairs", "groups", "expected"),
    [(30, 2, [15, 15]), (30, 4, [8] * 4), (30, 3, [10] * 3), (7, 3, [3, 2, 2]), (2, 5, [1, 1, 0, 0, 0])],
)
def test_pair_counts_follow_the_authors_rounding(pairs, groups, expected):
    assert pair_counts(pairs, groups) == expected


def test_rank_pairs_of_a_long_list_follow_the_closed_form():
    torch.manual_seed(0)
    first, second, valid = draw_rank_pairs(torch.tensor([100_000]), 400_000, 20.0)
    assert valid.all() and (first < second).all()
    x = math.exp(-1 / 20)
    assert float((first + 1).double().mean()) == pytest.approx(1 / (1 - x * x), abs=0.1)  # 10.508
    # 31.012
    assert float((second + 1).double().mean()) == pytest.approx(1 / (1 - x * x) + 1 / (1 - x), abs=0.2)
    assert float((first == 0).double().mean()) == pytest.approx(1 - x * x, abs=0.003)  # 0.09516


def test_rank_pairs_of_a_short_list_follow_the_weights():
    torch.manual_seed(0)
    first, second, valid = draw_rank_pairs(torch.tensor([3, 1, 0]), 60_000, 2.0)
    assert valid[0].all() and not valid[1:].any()
    weights = [math.exp(-r / 2) for r in (1, 2, 3)]
    pairs = {(a, b): 2 * weights[a] * weights[b] for a in range(3) for b in range(a + 1, 3)}
    for (a, b), weight in pairs.items():
        share = float(((first[0] == a) & (second[0] == b)).double().mean())
        assert share == pytest.approx(weight / sum(pairs.values()), abs=0.01)


def test_equals_the_loop_and_pairs_stay_in_their_group():
    context = toy_context()
    loss = UnbiasedKnowledgeDistillation(context, {"groups": 3, "pairs": 12})
    batch = toy_batch(context)
    torch.manual_seed(6)
    value = float(loss(batch).detach())
    torch.manual_seed(6)
    drawn = loss.draw(batch)
    student = (batch.student_session @ batch.student_items.T).tolist()
    teacher = batch.teacher_scores.tolist()
    total, pairs = 0.0, 0
    for group, (better, worse, valid) in zip(loss.groups, drawn, strict=True):
        for row in range(len(batch)):
            known = {0, *batch.item_seq[row].tolist(), int(batch.target[row])}
            for good, bad, counts in zip(
                better[row].tolist(), worse[row].tolist(), valid[row].tolist(), strict=True
            ):
                if not counts:
                    continue
                assert {good, bad} <= set(group.tolist()) and not {good, bad} & known
                assert teacher[row][good] >= teacher[row][bad] and good != bad
                total += math.log1p(math.exp(-(student[row][good] - student[row][bad])))
                pairs += 1
    assert value == pytest.approx(total / pairs, rel=1e-9)


def test_equal_scores_give_ln_2_and_the_teachers_order_gives_0():
    context = toy_context(student_size=7)
    batch = toy_batch(context)
    loss = UnbiasedKnowledgeDistillation(context, {})
    with torch.no_grad():
        context.student.model.outputs.fill_(1.0)
    assert float(loss(toy_batch(context)).detach()) == pytest.approx(math.log(2))
    with torch.no_grad():
        context.student.model.inputs.copy_(1e6 * context.teacher.model.inputs)
        context.student.model.outputs.copy_(context.teacher.model.outputs)
    assert float(loss(toy_batch(context)).detach()) == pytest.approx(0, abs=1e-6)
    assert len(batch) == 9

"""FTD without its n x n matrices against the loop that has them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_alkd.distill.entities import batch_items, entities
from recbole_alkd.distill.ftd import FullTopologyDistillation, topology_distance
from recbole_alkd.testing.losses import LossTests, toy_batch, toy_context


class TestWithoutNegatives(LossTests):
    loss = "ftd"

    def value(self, made, seed=11, **batch):
        return super().value(made, seed, negatives=None, **batch)


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def test_equals_the_loop_over_pairs():
    context = toy_context()
    batch = toy_batch(context)
    items = sorted({*batch.target.tolist(), *batch.negatives.tolist()})
    student = torch.cat([batch.student_session, batch.student_items[items]]).detach()
    teacher = torch.cat([batch.teacher_session, batch.teacher_items[items]])
    n = len(student)
    total = sum(
        (cosine(teacher[i], teacher[j]) - cosine(student[i],
                                                 student[j])) ** 2 for i in range(n) for j in range(n)
    )  # fmt: skip
    assert float(FullTopologyDistillation(context, {})(batch).detach()) == pytest.approx(total / 9, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_isometric_copy_is_at_distance_0(dtype):
    torch.manual_seed(0)
    student = torch.randn(3000, 10, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(100, 10, dtype=torch.float64)).Q
    value = topology_distance((2.5 * student).to(dtype), (student @ rotation.T).to(dtype))
    assert float(value) == pytest.approx(0, abs=1e-5)  # of 4 n^2 = 3.6e7


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 12))
def test_scale_rotation_and_order_do_not_matter(seed, n):
    torch.manual_seed(seed)
    student, teacher = torch.randn(n, 3, dtype=torch.float64), torch.randn(n, 5, dtype=torch.float64)
    value = topology_distance(student, teacher)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    moved = (student * torch.rand(n, 1, dtype=torch.float64).add(0.1)) @ rotation
    torch.testing.assert_close(topology_distance(moved, teacher), value)
    order = torch.randperm(n)
    torch.testing.assert_close(topology_distance(student[order], teacher[order]), value)
    assert -1e-9 <= float(value) <= 4 * n * n


def test_zero_rows_are_no_nan():
    student = torch.zeros(4, 3, requires_grad=True)
    value = topology_distance(student, torch.randn(4, 5))
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(student.grad).all()


def test_entities_are_sessions_then_distinct_items():
    context = toy_context()
    target, negatives = torch.tensor([5, 5, 6]), torch.tensor([6, 9, 9])
    batch = toy_batch(context, size=3, target=target, negatives=negatives)
    assert batch_items(batch).tolist() == [5, 6, 9]
    student, teacher = entities(batch, batch_items(batch))
    assert (student.shape, teacher.shape) == ((6, 4), (6, 7))
    assert torch.equal(student[3:], batch.student_items[[5, 6, 9]])
    for seed in range(50):
        torch.manual_seed(seed)
        drawn = set(batch_items(toy_batch(context, size=3, target=target, negatives=None)).tolist())
        assert {5, 6} <= drawn and 0 not in drawn and len(drawn) <= 5

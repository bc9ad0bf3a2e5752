"""HTD: both topologies against loops, the equalities that tie them to FTD, and what carries a gradient."""

import pytest
import torch

from recbole_alkd.distill.entities import batch_items, entities
from recbole_alkd.distill.ftd import topology_distance
from recbole_alkd.distill.htd import HierarchicalTopologyDistillation, entity_topology, group_topology
from recbole_alkd.testing.losses import LossTests, toy_batch, toy_context


class TestAssignmentOnly(LossTests):
    loss = "htd"
    options = {"alpha": 0.0, "groups": 3}  # noqa: RUF012


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def vectors(n=14, seed=0):
    torch.manual_seed(seed)
    return torch.randn(n, 4, dtype=torch.float64), torch.randn(n, 7, dtype=torch.float64)


GROUP = torch.tensor([2, 0, 2, 5, 5, 0, 2, 9, 0, 5, 2, 2, 0, 5])


@pytest.mark.parametrize("positive_only", [True, False])
def test_entity_topology_equals_the_loop(positive_only):
    student, teacher = vectors()
    total = 0.0
    for i in range(14):
        for j in range(14):
            wanted = cosine(teacher[i], teacher[j])
            if GROUP[i] == GROUP[j] and (wanted > 0 or not positive_only):
                total += (cosine(student[i], student[j]) - wanted) ** 2
    assert float(entity_topology(student, teacher, GROUP, positive_only)) == pytest.approx(total, rel=1e-9)


def test_group_topology_equals_the_loop():
    student, teacher = vectors()
    total = 0.0
    for group in (0, 2, 5, 9):
        members = (group == GROUP).nonzero().flatten()
        s, t = student[members].mean(0), teacher[members].mean(0)
        total += sum((cosine(s, student[i]) - cosine(t, teacher[i])) ** 2 for i in range(14))
    assert float(group_topology(student, teacher, GROUP)) == pytest.approx(total, rel=1e-9)


def test_one_group_is_full_topology():
    student, teacher = vectors()
    one = torch.zeros(14, dtype=torch.long)
    torch.testing.assert_close(
        entity_topology(student, teacher, one, False), topology_distance(student, teacher)
    )
    assert entity_topology(student, teacher, one, True) < topology_distance(student, teacher)


def test_every_entity_its_own_group_is_full_topology_too():
    student, teacher = vectors()
    own = torch.randperm(14)
    assert float(entity_topology(student, teacher, own, False)) == pytest.approx(0, abs=1e-20)
    torch.testing.assert_close(group_topology(student, teacher, own), topology_distance(student, teacher))


def test_an_isometric_copy_costs_nothing():
    student, _ = vectors()
    teacher = student @ torch.linalg.qr(torch.randn(7, 4, dtype=torch.float64)).Q.T
    assert float(
        entity_topology(student, teacher, GROUP, True) + group_topology(student, teacher, GROUP)
    ) == pytest.approx(0, abs=1e-20)


def test_group_means_carry_no_gradient():
    student, teacher = vectors()
    student.requires_grad_()
    group_topology(student, teacher, GROUP).backward()
    expected = torch.zeros_like(student)
    for group in (0, 2, 5, 9):
        members = (group == GROUP).nonzero().flatten()
        mean, wanted = student.detach()[members].mean(0), teacher[members].mean(0)
        for i in range(14):
            row = student.detach()[i].clone().requires_grad_()
            value = (mean @ row / (mean.norm() * row.norm()) - cosine(wanted, teacher[i])) ** 2
            expected[i] += torch.autograd.grad(value, row)[0]
    torch.testing.assert_close(student.grad, expected)


def parts(alpha, **options):
    context = toy_context()
    torch.manual_seed(1)
    loss = HierarchicalTopologyDistillation(context, {"alpha": alpha, "groups": 3, **options}).double()
    batch = toy_batch(context)
    torch.manual_seed(2)
    return loss, batch, loss(batch)


def test_the_loss_is_its_weighted_parts():
    loss, batch, value = parts(0.3)
    items = batch_items(batch)
    student, teacher = entities(batch, items)
    group = torch.cat([loss.session_experts.group(teacher[:9]), 3 + loss.item_experts.group(teacher[9:])])
    assert set(group[:9].tolist()).isdisjoint(group[9:].tolist())
    topology = entity_topology(student, teacher, group, True) + group_topology(student, teacher, group)
    torch.manual_seed(2)
    assignment = loss.session_experts(student[:9], teacher[:9], 1.0) + loss.item_experts(
        student[9:], teacher[9:], 1.0
    )
    torch.testing.assert_close(value, (0.3 * topology + 0.7 * assignment) / 9)


def test_alpha_1_leaves_experts_and_gates_alone():
    loss, _, value = parts(1.0)
    value.backward()
    assert all(parameter.grad is None or parameter.grad.abs().sum() == 0 for parameter in loss.parameters())

"""DE and its experts against a loop over experts and entities; the temperature; the limits of the method."""

import math

import pytest
import torch

from recbole_alkd.distill.de import DistillationExperts
from recbole_alkd.distill.experts import Experts, temperature
from recbole_alkd.testing.losses import LossTests, toy_batch, toy_context


class TestWithoutNoise(LossTests):
    loss = "de"
    options = {"experts": 1}  # noqa: RUF012
    idle = ("gate",)


class TestLate(LossTests):
    loss = "de"
    options = {"experts": 4, "temperature": 0.05}  # noqa: RUF012


def make(count=3, student=4, teacher=7):
    torch.manual_seed(0)
    return Experts(student, teacher, count).double()


def loop(experts, student, teacher, mix):
    """Sum over entities of ||t - sum_m z_m expert_m(s)||^2, one number at a time."""
    hidden = experts.first.out_features // experts.count
    total = 0.0
    for row in range(len(student)):
        rebuilt = torch.zeros(teacher.shape[1], dtype=torch.float64)
        for m in range(experts.count):
            part = slice(m * hidden, (m + 1) * hidden)
            layer = torch.relu(experts.first.weight[part] @ student[row] + experts.first.bias[part])
            rebuilt += mix[row, m] * (layer @ experts.second[part] + experts.bias[m])
        total += float(((teacher[row] - rebuilt) ** 2).sum().detach())
    return total


def test_experts_equal_the_loop():
    experts = make()
    student, teacher = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
    torch.manual_seed(1)
    value = float(experts(student, teacher, 0.7).detach())
    torch.manual_seed(1)
    mix = experts.mix(teacher, 0.7).detach()
    assert value == pytest.approx(loop(experts, student, teacher, mix), rel=1e-9)
    assert mix.sum(1).tolist() == pytest.approx([1.0] * 5)


def test_the_mix_is_a_gumbel_softmax_of_the_gate():
    experts = make(count=4)
    teacher = torch.randn(1, 7, dtype=torch.float64).expand(20_000, 7)
    share = experts.mix(teacher, 1e-10).detach().mean(0)  # argmax of log p + Gumbel noise is a draw from p
    expected = torch.softmax(experts.gate(teacher[:1]), 1)[0]
    assert share.tolist() == pytest.approx(expected.tolist(), abs=0.015)


@pytest.mark.parametrize("heat", [1e-10, 1e-5, 1e-3])
def test_a_cold_mix_is_one_expert(heat):
    mix = make().mix(torch.randn(50, 7, dtype=torch.float64), heat)
    assert (mix.max(1).values > 0.999).float().mean() >= 0.98
    assert mix.sum(1).tolist() == pytest.approx([1.0] * 50)


def test_equal_experts_make_gate_noise_and_temperature_irrelevant():
    experts = make()
    hidden = experts.first.out_features // 3
    with torch.no_grad():
        parts = (
            (experts.first.weight, hidden),
            (experts.first.bias, hidden),
            (experts.second, hidden),
            (experts.bias, 1),
        )
        for tensor, size in parts:
            tensor.copy_(tensor[:size].repeat(3, *[1] * (tensor.dim() - 1)))
    student, teacher = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
    values = [float(experts(student, teacher, heat).detach()) for heat in (1.0, 1.0, 0.1, 1e-10)]
    assert values == pytest.approx([values[0]] * 4, rel=1e-9)


def test_a_constant_expert_rebuilds_a_constant_teacher():
    experts = make()
    teacher = torch.randn(7, dtype=torch.float64).expand(5, 7)
    with torch.no_grad():
        experts.second.zero_()
        experts.bias.copy_(teacher[:3])
    assert float(experts(torch.randn(5, 4, dtype=torch.float64), teacher, 1.0).detach()) == pytest.approx(
        0, abs=1e-20
    )


def test_one_expert_is_plain_regression():
    experts = make(count=1)
    student, teacher = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
    rebuilt = torch.relu(experts.first(student)) @ experts.second + experts.bias
    expected = ((teacher - rebuilt) ** 2).sum()
    for heat in (1.0, 1e-10):
        torch.testing.assert_close(experts(student, teacher, heat), expected)


def test_temperature_falls_from_1_to_1e_10_over_the_epochs():
    heats = [temperature(1.0, 1e-10, epoch, 1000) for epoch in (0, 1, 2, 101, 1001, 5000)]
    assert heats == pytest.approx([1.0, 1.0, 10**-0.01, 0.1, 1e-10, 1e-10], rel=1e-9)
    loss = DistillationExperts(toy_context(epochs=1000), {"experts": 2})
    loss.epoch_start(101)
    assert loss.temperature == pytest.approx(0.1)


def test_number_of_extra_parameters():
    loss = DistillationExperts(toy_context(student_size=10, teacher_size=100), {})
    assert sum(parameter.numel() for parameter in loss.parameters()) == 378_360


@pytest.mark.parametrize("negatives", [True, False])
def test_sessions_count_1_and_targets_and_negatives_half_each(negatives):
    context = toy_context()
    loss = DistillationExperts(context, {"experts": 3}).double()
    given = {} if negatives else {"negatives": None}
    target = torch.tensor([5, 6, 5, 7, 8, 9, 9, 9, 10])  # repeats: distinct items count once
    batch = toy_batch(context, target=target, **given)
    torch.manual_seed(4)
    value = float(loss(batch).detach())
    torch.manual_seed(4)
    mix = loss.session_experts.mix(batch.teacher_session, 1.0).detach()
    total = loop(loss.session_experts, batch.student_session, batch.teacher_session, mix)
    for items in [target, batch.negatives] if negatives else [target]:
        distinct = sorted(set(items.tolist()))
        mix = loss.item_experts.mix(batch.teacher_items[distinct], 1.0).detach()
        part = loop(loss.item_experts, batch.student_items[distinct], batch.teacher_items[distinct], mix)
        total += part / (2 if negatives else 1)
    assert value == pytest.approx(total / 9, rel=1e-9)


def test_the_gate_learns_at_the_start_and_not_in_the_cold():
    experts = make()
    student, teacher = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
    experts(student, teacher, 1.0).backward()
    assert experts.gate.weight.grad.abs().sum() > 0
    experts.zero_grad()
    experts(student, teacher, 1e-10).backward()
    assert experts.gate.weight.grad is None
    assert math.isfinite(float(experts.second.grad.abs().sum()))

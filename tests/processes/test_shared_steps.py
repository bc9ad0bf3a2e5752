"""Steps that processes share are the steps of one process."""

from __future__ import annotations

import copy

import pytest
import torch
from recbole.data.interaction import Interaction
from threads_as_processes import together
from torch import nn

from recbole_alkd.processes.group import Group
from recbole_alkd.shared_steps import SharedSteps


class Model(nn.Module):
    def __init__(self, sparse):
        super().__init__()
        self.table = nn.Embedding(50, 3, sparse=sparse)
        self.weight = nn.Linear(3, 2)
        draw = torch.Generator().manual_seed(5)  # models of several threads are alike
        for one in self.parameters():
            one.data = torch.randn(one.shape, generator=draw)
        self.unused = nn.Parameter(torch.ones(4))

    def loss(self, rows):
        return self.weight(self.table(rows["item"])).square().sum(1).mean()


def batch(rows):
    return Interaction({"item": torch.randint(1, 50, (rows,), generator=torch.Generator().manual_seed(3))})


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("rows", [1, 2, 5, 6, 7, 20])
def test_gradients_and_value_are_those_of_the_whole_batch(sparse, count, rows):
    whole = Model(sparse)
    value = whole.loss(batch(rows))
    value.backward()

    def step(group):
        model = Model(sparse)
        loss = SharedSteps(group, model.loss, list(model.parameters()))(batch(rows))
        loss.backward()
        return model, float(loss.detach())

    for model, loss in together(count, step):
        assert loss == pytest.approx(float(value.detach()), rel=1e-6)
        assert model.table.weight.grad.is_sparse == sparse and model.unused.grad is None
        for one, other in zip(whole.parameters(), model.parameters(), strict=True):
            if one.grad is not None:
                assert torch.allclose(one.grad.to_dense(), other.grad.to_dense(), atol=1e-7)


def test_all_processes_have_the_same_bits():
    def step(group):
        model = Model(True)
        SharedSteps(group, model.loss, list(model.parameters()))(batch(23)).backward()
        return [one.grad.to_dense() for one in model.parameters() if one.grad is not None]

    first, *others = together(3, step)
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("sparse", [False, True])
def test_a_gradient_that_only_one_process_has_reaches_all(sparse):
    def step(group):
        model = Model(sparse)

        def loss(rows):
            found = model.weight(torch.ones(1, 3)).sum()
            return found + model.table(rows["item"]).sum() if group.rank == 1 else found

        SharedSteps(group, loss, list(model.parameters()))(batch(8)).backward()
        return model.table.weight.grad.to_dense()

    first, second = together(2, step)
    assert torch.equal(first, second) and first.abs().sum() > 0


def test_a_loss_of_several_numbers_has_several():
    def step(group):
        model = Model(False)
        losses = SharedSteps(
            group, lambda rows: (model.loss(rows), 2 * model.loss(rows)), list(model.parameters())
        )(batch(8))
        sum(losses).backward()
        return model, [float(one.detach()) for one in losses]

    whole = Model(False)
    (3 * whole.loss(batch(8))).backward()
    for model, losses in together(2, step):
        assert losses[1] == pytest.approx(2 * losses[0]) and len(losses) == 2
        assert torch.allclose(model.weight.weight.grad, whole.weight.weight.grad, atol=1e-6)


def test_a_loss_that_is_no_number_is_none_everywhere():
    def step(group):
        model = Model(False)
        factor = float("nan") if group.rank == 1 else 1.0
        return SharedSteps(group, lambda rows: factor * model.loss(rows), list(model.parameters()))(batch(8))

    assert all(loss.isnan() for loss in together(3, step))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [1, 3, 4, 10, 11, 1000])
def test_every_row_is_somebodys_and_shares_add_up(count, rows):
    parts = [Group(rank, count).part(rows) for rank in range(count)]
    assert sum(share for _, share in parts) == pytest.approx(1)
    taken = [row for part, _ in parts for row in range(rows)[part]]
    everyone = rows < 2 * count
    assert taken == list(range(rows)) * (count if everyone else 1)
    assert min(len(range(rows)[part]) for part, _ in parts) >= min(rows, 2)


def test_parameters_stay_equal_under_an_optimizer():
    def train(group):
        model = Model(False)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        loss = SharedSteps(group, model.loss, list(model.parameters()))
        for rows in (9, 4, 20):
            optimizer.zero_grad()
            loss(batch(rows)).backward()
            optimizer.step()
        return copy.deepcopy(model.state_dict())

    one = Model(False)
    optimizer = torch.optim.Adam(one.parameters(), lr=0.1)
    for rows in (9, 4, 20):
        optimizer.zero_grad()
        one.loss(batch(rows)).backward()
        optimizer.step()
    first, second = together(2, train)
    for key, value in one.state_dict().items():
        assert torch.equal(first[key], second[key]) and torch.allclose(first[key], value, atol=1e-5)

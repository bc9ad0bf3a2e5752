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
@pytest.mark.parametrize("rows", [1, 2, 5, 6, 7, 20, 150])  # 150: most rows of the table
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
@pytest.mark.parametrize("rows", [8, 150])
def test_a_gradient_that_only_one_process_has_reaches_all(rows, sparse):
    def step(group):
        model = Model(sparse)

        def loss(rows):
            found = model.weight(torch.ones(1, 3)).sum()
            return found + model.table(rows["item"]).sum() if group.rank == 1 else found

        SharedSteps(group, loss, list(model.parameters()))(batch(rows)).backward()
        return model.table.weight.grad.to_dense()

    first, second = together(2, step)
    assert torch.equal(first, second) and first.abs().sum() > 0


@pytest.mark.parametrize("rows", [8, 150])
def test_a_row_whose_gradient_is_zero_is_still_one(rows):
    """An optimizer of touched rows moves it."""

    def step(group):
        model = Model(True)
        SharedSteps(group, lambda rows: 0 * model.loss(rows), list(model.parameters()))(
            batch(rows)
        ).backward()
        return model.table.weight.grad

    wanted = batch(rows)["item"].unique()
    for grad in together(2, step):
        assert torch.equal(grad.coalesce().indices()[0], wanted) and not grad.to_dense().any()


@pytest.mark.parametrize("rows", [8, 150])
def test_gradients_of_several_kinds_of_numbers_keep_theirs(rows):
    def step(group):
        model, fine = Model(True), Model(True).double()
        parameters = [*model.parameters(), *fine.parameters()]
        SharedSteps(group, lambda rows: model.loss(rows) + fine.loss(rows), parameters)(
            batch(rows)
        ).backward()
        return model, fine

    whole = Model(True).double()
    whole.loss(batch(rows)).backward()
    for model, fine in together(2, step):
        for one, other, exact in zip(model.parameters(), fine.parameters(), whole.parameters(), strict=True):
            if exact.grad is not None:
                assert other.grad.dtype == torch.float64
                assert torch.allclose(other.grad.to_dense(), exact.grad.to_dense(), atol=1e-12)
                assert torch.allclose(one.grad.to_dense().double(), exact.grad.to_dense(), atol=1e-6)


class Counting:
    """A group that counts what its processes exchange."""

    def __init__(self, group):
        self.group, self.exchanges = group, []

    def __getattr__(self, name):
        if name in ("added", "largest", "side_by_side"):
            self.exchanges.append(name)
        return getattr(self.group, name)


@pytest.mark.parametrize(
    ("rows", "exchanges"),
    [(150, ["added", "largest", "added"]), (8, ["added", "largest", "added", "side_by_side"])],
)
def test_a_step_exchanges_few_times_however_many_parameters_there_are(rows, exchanges):
    """The loss, what there is, and all gradients; those of tables with few touched rows once more."""

    def step(group):
        models, counting = [Model(True) for _ in range(3)], Counting(group)
        parameters = [one for model in models for one in model.parameters()]
        loss = SharedSteps(counting, lambda rows: sum(model.loss(rows) for model in models), parameters)
        loss(batch(rows)).backward()
        return counting.exchanges

    assert together(2, step) == [exchanges, exchanges]


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

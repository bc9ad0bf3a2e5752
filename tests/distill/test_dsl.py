"""DSL: masks hold, keep their number of ones, and move to where the gradient is."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_alkd.distill.dsl import DynamicSparseLearning, moved_mask
from recbole_alkd.model.loss import in_batch_bpr
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.testing.losses import toy_batch, toy_context


def train(context, loss, steps, epochs=10):
    model = context.student.model
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(steps):
        if step % (steps // epochs or 1) == 0:
            loss.epoch_start(step // (steps // epochs or 1))
        batch = toy_batch(context)
        value = in_batch_bpr(batch.student_session, batch.student_items[batch.target]) + loss(batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        loss.after_step(optimizer)
        yield


def dsl(context=None, **options):
    return DynamicSparseLearning(context or toy_context(kd_rec_weight=1.0), options)


def test_masked_weights_are_0_after_every_step_and_their_number_stays():
    torch.manual_seed(0)
    context = toy_context(kd_rec_weight=1.0)
    loss = dsl(context, update_every=3)
    started = None
    for _ in train(context, loss, 20):
        counts = [int(mask.sum()) for _, mask in loss.masked]
        started = started or counts
        assert counts == started
        assert all(
            torch.equal(parameter * ~mask, torch.zeros_like(parameter)) for parameter, mask in loss.masked
        )
    assert all(
        0.3 < count / parameter.numel() < 0.7
        for count, (parameter, _) in zip(started, loss.masked, strict=True)
    )


def test_masks_move_only_at_updates():
    torch.manual_seed(0)
    context = toy_context(kd_rec_weight=1.0)
    loss = dsl(context, update_every=4)
    before, moves = None, []
    for _ in train(context, loss, 12):
        masks = [mask.clone() for _, mask in loss.masked]
        moves.append(
            before is not None and any(not torch.equal(a, b) for a, b in zip(before, masks, strict=True))
        )
        before = masks
    assert moves == [False, False, False, True, False, False, False, True, False, False, False, True]


def test_full_density_is_dense_training():
    results = []
    for masked in (False, True):
        context = toy_context(kd_rec_weight=1.0)
        loss = dsl(context, density=1.0, update_every=2)
        for _ in train(context, loss if masked else Nothing(), 8):
            pass
        results.append([parameter.detach().clone() for parameter in context.student.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


class Nothing:
    def __call__(self, batch):
        return 0.0

    def epoch_start(self, epoch):
        pass

    def after_step(self, optimizer):
        pass


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 1.0), st.floats(0.0, 1.0), st.booleans())
def test_moved_mask_conserves_the_number_of_active_weights(seed, density, ratio, quiet):
    torch.manual_seed(seed)
    mask = torch.rand(13, 7) < density
    weight = torch.randn(13, 7) * mask
    gradient = torch.zeros(13, 7) if quiet else torch.randn(13, 7)
    moved = moved_mask(weight, mask, gradient, ratio)
    assert int(moved.sum()) == int(mask.sum())


def test_moved_mask_by_hand():
    weight = torch.tensor([[5.0, 1.0, 0.0, 3.0], [0.0, 0.0, 2.0, 0.0]])
    mask = weight != 0
    gradient = torch.tensor([[9.0, 0.1, 0.5, 9.0], [0.2, 7.0, 0.3, 0.0]])
    # half of the four active weights go: 1 and 2; the largest gradients outside of 5 and 3 are 7 and 0.5
    expected = torch.tensor([[True, False, True, True], [False, True, False, False]])
    assert torch.equal(moved_mask(weight, mask, gradient, 0.5), expected)


def test_a_weight_that_goes_may_come_back_at_once_with_its_value():
    weight = torch.tensor([[5.0, 1.0, 0.0, 0.0]])
    gradient = torch.tensor([[0.0, 8.0, 0.5, 0.1]])
    assert torch.equal(moved_mask(weight, weight != 0, gradient, 0.5), weight != 0)


def test_equal_gradients_leave_the_choice_to_chance():
    weight = torch.zeros(1, 100)
    weight[0, :20] = torch.arange(1.0, 21.0)
    grown = set()
    for seed in range(20):
        torch.manual_seed(seed)
        moved = moved_mask(weight, weight != 0, torch.zeros(1, 100), 0.5)
        assert int(moved.sum()) == 20
        grown |= set(moved[0, 20:].nonzero().flatten().tolist())
    assert len(grown) > 60


def test_the_ratio_falls_by_a_cosine():
    loss = dsl(toy_context(kd_rec_weight=1.0, epochs=100))
    ratios = []
    for epoch in (0, 50, 100, 130):
        loss.epoch_start(epoch)
        ratios.append(loss.ratio)
    assert ratios == pytest.approx([0.5, 0.2525, 0.005, 0.005])
    assert ratios[1] == pytest.approx(0.005 + 0.495 * (1 + math.cos(math.pi / 2)) / 2)


def test_vectors_stay_dense():
    context = toy_context(kd_rec_weight=1.0)
    context.student.model.bias = torch.nn.Parameter(torch.ones(5))
    loss = dsl(context)
    loss.epoch_start(0)
    assert {parameter.dim() for parameter, _ in loss.masked} == {2}
    assert torch.equal(context.student.model.bias, torch.ones(5))


def test_without_a_recommendation_loss_it_is_refused():
    with pytest.raises(AlkdError, match=r"kd_rec_weight: 0\.0 is not allowed with kd_loss dsl"):
        dsl(toy_context())

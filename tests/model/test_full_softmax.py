"""The softmax over all items in one matrix, against torch's own pieces."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from recbole_alkd.model.full_softmax import full_softmax_loss
from recbole_alkd.model.matrices import aligned_matrix


def some(rows, items, size, seed=0, dtype=torch.float32, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    session, table = (
        (scale * torch.randn(n, size, generator=generator, dtype=dtype)).requires_grad_()
        for n in (rows, items)
    )
    return session, table, torch.randint(0, items, (rows,), generator=generator)


def by_torch(session, table, target):
    return cross_entropy(session @ table.T, target)


def both(*shape, times=1.0, **how):
    """Loss and gradients of ``times`` the loss, of both ways."""
    results = []
    for loss_of in (by_torch, full_softmax_loss):
        session, table, target = some(*shape, **how)
        loss = loss_of(session, table, target)
        (times * loss).backward()
        results.append((loss.detach(), session.grad, table.grad))
    return results


@given(
    st.integers(1, 40),
    st.integers(1, 300),
    st.integers(1, 9),
    st.integers(0, 99),
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from([0.01, 1.0, 6.0]),
    st.sampled_from([1.0, 0.37, -2.0]),
)
@settings(max_examples=80, deadline=None)
def test_loss_and_gradients_are_those_of_torch(rows, items, size, seed, dtype, scale, times):
    usual, ours = both(rows, items, size, seed=seed, dtype=dtype, scale=scale, times=times)
    for one, other in zip(usual, ours, strict=True):
        torch.testing.assert_close(other, one)


@pytest.mark.parametrize("shape", [(512, 1674, 64), (127, 1674, 10), (300, 1024, 32), (3, 7, 2)])
def test_they_are_the_same_to_the_bit(shape):
    usual, ours = both(*shape, times=0.37)
    assert all(torch.equal(one, other) for one, other in zip(usual, ours, strict=True))


def test_large_scores_do_not_overflow():
    loss, *gradients = both(20, 200, 4, scale=1e4)[1]
    assert torch.isfinite(loss) and all(torch.isfinite(gradient).all() for gradient in gradients)


def test_without_gradients_it_is_the_loss_alone():
    session, table, target = some(9, 150, 3)
    with torch.no_grad():
        assert torch.equal(full_softmax_loss(session, table, target), by_torch(session, table, target))


def test_a_second_backward_pass_is_an_error():
    loss = full_softmax_loss(*some(4, 150, 3))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match=r"in-?place"):
        loss.backward()


def test_other_numbers_are_left_to_torch():
    session, table, target = some(6, 150, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(full_softmax_loss(session, table, target), by_torch(session, table, target))
    short = session.detach().bfloat16(), table.detach().bfloat16()
    assert torch.equal(full_softmax_loss(*short, target), by_torch(*short, target))


@given(st.integers(1, 9), st.integers(1, 1100))
@settings(max_examples=60, deadline=None)
def test_rows_of_a_wide_matrix_begin_at_lines_of_the_cache(rows, columns):
    whole, view = aligned_matrix(torch.zeros(1), rows, columns)
    assert view.shape == (rows, columns) and whole.is_contiguous()
    assert view.data_ptr() == whole.data_ptr()
    assert columns <= whole.shape[1] < columns + 32
    if columns >= 128:
        assert whole.shape[1] % 16 == 0 and whole.shape[1] % 256 != 0

"""Batches of whole rows are RecBole's own, and leave every generator where torch's iterator leaves it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recbole.data import create_dataset, data_preparation
from recbole.data.dataloader import TrainDataLoader
from recbole.data.interaction import Interaction
from recbole.utils import init_seed
from tiny import tiny_config

from recbole_alkd.learner.row_adam import RowAdam
from recbole_alkd.model.lookups import lookups, sum_of_squares
from recbole_alkd.model.row_sums import groups, row_sums
from recbole_alkd.model.weighted_rows import WeightedSum, weighted_rows

CASES = {
    "our sessions": ("ALKDRec", {}),
    "a last batch of one row": ("ALKDRec", {"train_batch_size": 3}),
    "one negative item a row": ("GRU4Rec", {"loss_type": "BPR", "train_neg_sample_args": "uniform"}),
    "items that are masked": ("BERT4Rec", {"transform": "mask_itemseq", "train_neg_sample_args": None}),
}
SAMPLED = {"distribution": "uniform", "sample_num": 1, "alpha": 1.0, "dynamic": False, "candidate_num": 0}


@pytest.mark.parametrize("case", CASES)
def test_three_passes_are_those_of_torch(case, tiny_path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    model, values = CASES[case]
    if values.get("train_neg_sample_args") == "uniform":
        values = {**values, "train_neg_sample_args": SAMPLED}
    passes = []
    for iterate in (TrainDataLoader.__iter__.__wrapped__, TrainDataLoader.__iter__):
        config = tiny_config(tiny_path, model=model, state="ERROR", **{"train_batch_size": 7, **values})
        init_seed(3, True)
        train, *_ = data_preparation(config, create_dataset(config))
        train.generator.manual_seed(5)
        made = []
        for _ in range(3):
            made += [batch.interaction for batch in iterate(train)]
            made.append({"generator": train.generator.get_state(), "torch": torch.get_rng_state()})
        passes.append([*made, {"numpy": torch.tensor(np.random.randint(1 << 30))}])
    usual, quick = passes
    assert len(usual) == len(quick) > 12
    for one, other in zip(usual, quick, strict=True):
        assert list(one) == list(other)
        for name, column in one.items():
            assert torch.equal(column, other[name]) and column.dtype == other[name].dtype, name


ROWS = [3, 0, 3, 4]
INDICES = {
    "array": np.array(ROWS),
    "array of 32 bits": np.array(ROWS, dtype=np.int32),
    "array that cannot be written": np.broadcast_to(np.int64(2), (3,)),
    "tensor": torch.tensor(ROWS),
    "counted from the end": np.array([-1, 1]),
    "mask": torch.tensor([True, False, True, True, False]),
    "array mask": np.array([True, False, True, True, False]),
    "none": np.array([], dtype=np.int64),
    "number": torch.tensor(2),
    "bytes": torch.tensor([1, 0, 1], dtype=torch.uint8),
    "list": ROWS,
    "slice": slice(1, 4),
}


@pytest.mark.parametrize("kind", INDICES)
def test_rows_are_those_that_a_list_gives(kind):
    index, columns = INDICES[kind], {"a": torch.arange(5.0), "b": torch.arange(15).view(5, 3)}
    listed = index.tolist() if isinstance(index, (np.ndarray, torch.Tensor)) else index
    rows = Interaction(columns)[index]
    assert rows.columns == ["a", "b"]
    for name, column in columns.items():
        assert torch.equal(rows[name], column[listed])


def test_a_row_out_of_range_is_an_error():
    with pytest.raises(IndexError):
        Interaction({"a": torch.arange(5)})[np.array([0, 5])]


# steps of one pass, against the same in torch's own pieces


def test_sum_of_squares_is_that_of_autograd():
    torch.manual_seed(0)
    for shape in ((7, 3), (5, 4, 6)):
        gradients = []
        for call in (sum_of_squares, lambda v: v.square().sum()):
            vectors = torch.randn(shape, generator=torch.Generator().manual_seed(1), requires_grad=True)
            loss = call(vectors)
            (0.37 * loss).backward()
            gradients.append((loss.detach(), vectors.grad))
        for one, other in zip(*gradients, strict=True):
            assert torch.equal(one, other)


def test_weighted_sum_is_that_of_autograd():
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(9, 4, generator=generator) * (torch.rand(9, 4, generator=generator) < 0.7)
    outer = torch.randn(6, 9, generator=generator).T  # not contiguous, as the loss hands it over
    gradients = []
    for call in (WeightedSum.apply, lambda w, v: torch.einsum("bl,bld->bd", w, v)):
        vectors = torch.randn(9, 4, 6, generator=torch.Generator().manual_seed(2), requires_grad=True)
        mean = call(weights, vectors)
        mean.backward(outer)
        gradients.append((mean.detach(), vectors.grad))
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def places(rows=40, width=5, items=12, seed=1):
    """Items (rows, width), 0 behind the end of each row, and their weights."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, width + 1, (rows,), generator=generator)
    item_seq = torch.randint(1, items, (rows, width), generator=generator)
    item_seq = item_seq.masked_fill(torch.arange(width) >= lengths.unsqueeze(1), 0)
    return item_seq, torch.rand(rows, width, generator=generator) * (item_seq > 0)


@given(
    st.integers(1, 40), st.integers(1, 6), st.integers(2, 30), st.integers(0, 99),
    st.sampled_from([torch.float32, torch.float64]), st.booleans(), st.booleans(),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_weighted_rows_are_those_of_autograd(rows, width, items, seed, dtype, sparse, squares):
    item_seq, weights = places(rows, width, items, seed)
    weights = weights.to(dtype)
    outer = torch.randn(7, rows, generator=torch.Generator().manual_seed(seed), dtype=dtype).T
    results = []
    for own in (True, False):
        table = torch.nn.Embedding(items, 7, padding_idx=0, dtype=dtype)
        with torch.no_grad():
            table.weight.normal_(generator=torch.Generator().manual_seed(2))[0] = 0
        with lookups(table, items, sparse, squares) as seen:
            if own:
                total = weighted_rows(table, item_seq, weights)
            else:
                total = torch.einsum("bl,bld->bd", weights, table(item_seq))
        loss = (total * outer).sum() + 0.37 * sum(seen.squares)
        loss.backward()
        gradient = table.weight.grad
        assert gradient.is_sparse is sparse and len(seen.squares) == squares
        gradient = gradient.coalesce().to_dense() if sparse else gradient
        results.append((total.detach(), *(one.detach() for one in seen.squares), gradient))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
        if dtype == torch.float32 and not (squares and not sparse):  # to the bit, as runs have it
            assert torch.equal(one, other)
    assert not results[0][-1][0].any(), "the padding has no gradient"


def test_a_lookup_ends_even_by_an_error():
    table = torch.nn.Embedding(9, 3, padding_idx=0)
    with pytest.raises(KeyError), lookups(table, 9, True, True):
        assert table.sparse
        raise KeyError
    assert not table.sparse and not table._forward_hooks
    with lookups(table, 9, False, False) as seen:
        weighted_rows(table, *places(items=9))
        table(torch.tensor([1]))
    assert seen.squares == []


@given(st.lists(st.integers(0, 20), min_size=0, max_size=200), st.integers(1, 9), st.booleans())
@settings(max_examples=80, deadline=None)
def test_sums_of_equal_rows_are_those_of_coalesce(items, size, once):
    items = torch.tensor(sorted(set(items)) if once else items, dtype=torch.long)
    values = torch.randn(len(items), size, generator=torch.Generator().manual_seed(len(items)))
    gradient = torch.sparse_coo_tensor(items[None], values, (21, size), check_invariants=True)
    rows, sums = row_sums(gradient)
    whole = gradient.coalesce()
    assert torch.equal(rows, whole.indices()[0]) and torch.equal(sums, whole.values())
    assert all(torch.equal(*pair) for pair in zip(row_sums(whole), (rows, sums), strict=True))
    if len(items):
        different, order, starts = groups(items)
        assert torch.equal(different, items.unique()) and torch.equal(items[order][starts], different)


def test_sums_of_many_rows_are_those_of_coalesce_to_the_bit():
    generator = torch.Generator().manual_seed(0)
    items = torch.randint(0, 1674, (10_000,), generator=generator)
    for size in (10, 100):
        values = torch.randn(len(items), size, generator=generator)
        gradient = torch.sparse_coo_tensor(items[None], values, (1674, size), check_invariants=True)
        assert torch.equal(row_sums(gradient)[1], gradient.coalesce().values())


def test_a_step_by_rows_is_adam_on_those_rows():
    generator = torch.Generator().manual_seed(0)
    table = torch.nn.Parameter(torch.randn(20, 3, generator=generator))
    optimizer = RowAdam([table], lr=0.1)
    expected = table.detach().clone()
    means, squares = torch.zeros(20, 3), torch.zeros(20, 3)
    for step in range(1, 6):
        rows = torch.randint(0, 20, (30,), generator=generator)
        values = torch.randn(30, 3, generator=generator)
        table.grad = torch.sparse_coo_tensor(rows[None], values, (20, 3), check_invariants=True)
        whole = table.grad.to_dense()
        optimizer.step()
        for row in rows.unique().tolist():
            means[row] = 0.9 * means[row] + 0.1 * whole[row]
            squares[row] = 0.999 * squares[row] + 0.001 * whole[row] ** 2
            corrected = (squares[row] / (1 - 0.999**step)).sqrt() + 1e-8
            expected[row] -= 0.1 / (1 - 0.9**step) * means[row] / corrected
        torch.testing.assert_close(table.detach(), expected)

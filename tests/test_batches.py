"""Batches of whole rows are RecBole's own, and leave every generator where torch's iterator leaves it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recbole.data import create_dataset, data_preparation
from recbole.data.dataloader import TrainDataLoader
from recbole.data.interaction import Interaction
from recbole.utils import init_seed
from tiny import tiny_config
from torch.nn.functional import embedding

from recbole_alkd.learner.row_adam import RowAdam
from recbole_alkd.model.sampled_softmax import _SumOfSquares
from recbole_alkd.model.session_fpmc import _MeanOfRows, _WeightedSum

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
        for call in (_SumOfSquares.apply, lambda v: v.square().sum()):
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
    for call in (_WeightedSum.apply, lambda w, v: torch.einsum("bl,bld->bd", w, v)):
        vectors = torch.randn(9, 4, 6, generator=torch.Generator().manual_seed(2), requires_grad=True)
        mean = call(weights, vectors)
        mean.backward(outer)
        gradients.append((mean.detach(), vectors.grad))
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_gradients_of_a_mean_of_rows_are_those_of_every_place():
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 6, (40,), generator=generator)
    items = torch.randint(1, 12, (40, 5), generator=generator)
    items = items.masked_fill(torch.arange(5) >= lengths.unsqueeze(1), 0)
    weights = torch.rand(40, 5, generator=generator) * (items > 0)
    outer = torch.randn(7, 40, generator=generator).T
    ways = {
        "rows": lambda table: _MeanOfRows.apply(table, items, weights),
        "places": lambda table: _WeightedSum.apply(weights, embedding(items, table, padding_idx=0)),
    }
    gradients = []
    for mean_of in ways.values():
        table = torch.randn(12, 7, generator=torch.Generator().manual_seed(2), requires_grad=True)
        mean = mean_of(table)
        mean.backward(outer)
        gradients.append((mean.detach(), table.grad))
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)
    assert not table.grad[0].any()


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

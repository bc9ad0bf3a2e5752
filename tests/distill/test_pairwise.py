"""Eq. 1 of the paper against plain loops, for each source of negatives."""

import math

import pytest
import torch

from recbole_alkd.distill.pairwise import Pairwise, position_weights
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.testing.losses import LossTests, toy_batch, toy_context, toy_lists


def softplus(x: float) -> float:
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


class TestUniform(LossTests):
    loss = "pairwise"
    settings = {"kd_negatives": "uniform"}  # noqa: RUF012


class TestCandidates(LossTests):
    loss = "pairwise"
    settings = {"kd_negatives": "candidates"}  # noqa: RUF012


WEIGHTS = [[2, 3], [5, 2], [7, 1]]  # rank 8 weighs nothing


def rank_weight(rank: int) -> float:
    return 3 if rank <= 2 else 2 if rank <= 5 else 1 if rank <= 7 else 0


def scored(context, batch):
    table = batch.student_session.detach() @ batch.student_items.detach().T
    return lambda row, item: float(table[row, item])


def oracle(batch, score, negatives_of):
    """Weighted mean over (row, rank) of the mean over its negatives of -log sigmoid(positive - negative)."""
    total = weight_sum = 0.0
    for row, ranking in enumerate(batch.lists.tolist()):
        for rank, item in enumerate(ranking, 1):
            if item == 0:
                continue
            negatives = negatives_of(row, rank)
            weight_sum += rank_weight(rank)
            if negatives:
                margins = [softplus(score(row, other) - score(row, item)) for other in negatives]
                total += rank_weight(rank) * sum(margins) / len(margins)
    return total / weight_sum


def test_in_batch_equals_the_loop():
    context = toy_context(kd_position_weight=WEIGHTS)
    batch = toy_batch(context)
    lists = batch.lists.tolist()

    def negatives(row, rank):
        # every entry of every list counts, an item as often as it is listed, but no item of the own list
        return [item for other in lists for item in other if item and item not in lists[row]]

    value = Pairwise(context, {})(batch)
    assert float(value.detach()) == pytest.approx(oracle(batch, scored(context, batch), negatives), rel=1e-9)


def test_candidates_equals_the_loop():
    context = toy_context(kd_position_weight=WEIGHTS, kd_negatives="candidates")
    batch = toy_batch(context)
    lists, candidates = batch.lists.tolist(), batch.candidates.tolist()

    def negatives(row, rank):
        ranked = [item for item in lists[row] if item]
        return [c for c in candidates[row] if c and (c not in ranked or ranked.index(c) + 1 > rank)]

    value = Pairwise(context, {})(batch)
    assert float(value.detach()) == pytest.approx(oracle(batch, scored(context, batch), negatives), rel=1e-9)


def test_uniform_equals_the_loop():
    context = toy_context(kd_position_weight=WEIGHTS, kd_negatives="uniform")
    batch = toy_batch(context)
    torch.manual_seed(8)
    value = Pairwise(context, {})(batch)
    torch.manual_seed(8)
    drawn = torch.randint(1, context.n_items, batch.lists.shape).tolist()
    expected = oracle(batch, scored(context, batch), lambda row, rank: [drawn[row][rank - 1]])
    assert float(value.detach()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("negatives", ["in_batch", "uniform", "candidates"])
def test_padding_of_lists_and_candidates_does_not_matter(negatives):
    context = toy_context(kd_negatives=negatives)
    lists, candidates = toy_lists(9)
    batch = toy_batch(context)
    wider = torch.nn.functional.pad(lists, (0, 4))
    loss = Pairwise(context, {})
    # the draw has the shape of the lists: compare with rows that carry no label instead
    if negatives == "uniform":
        torch.manual_seed(1)
        value = loss(batch)
        torch.manual_seed(1)
        rows = torch.arange(9)
        unlabelled = toy_batch(context, lists=torch.where((rows < 5).unsqueeze(1), lists, 0))
        assert torch.isfinite(loss(unlabelled)) and not torch.equal(loss(unlabelled), value)
        return
    padded = toy_batch(context, lists=wider, candidates=torch.nn.functional.pad(candidates, (0, 3)))
    torch.testing.assert_close(loss(padded), loss(batch))


def test_rows_without_a_label_change_nothing():
    context = toy_context()
    lists, candidates = toy_lists(9)
    mixed = torch.cat([lists[:5], torch.zeros_like(lists[5:])])
    value = Pairwise(context, {})(toy_batch(context, lists=mixed))
    alone = Pairwise(context, {})(toy_batch(context, size=5, lists=lists[:5], candidates=candidates[:5]))
    torch.testing.assert_close(value, alone)


@pytest.mark.parametrize("negatives", ["in_batch", "uniform", "candidates"])
def test_equal_scores_give_ln_2(negatives):
    context = toy_context(kd_negatives=negatives)
    with torch.no_grad():
        context.student.model.outputs.fill_(1.0)
    lists, _ = toy_lists(9)
    outside = torch.stack(
        [torch.tensor([i for i in range(1, 40) if i not in row][:4]) for row in lists.tolist()]
    )
    batch = toy_batch(context, candidates=outside)  # so that every ranked item has a negative
    assert float(Pairwise(context, {})(batch).detach()) == pytest.approx(math.log(2))


def test_one_session_alone_still_learns_from_drawn_negatives():
    lists, _ = toy_lists(9)
    lists[1:] = 0
    values = []
    for negatives in ("in_batch", "uniform"):
        context = toy_context(kd_negatives=negatives)
        torch.manual_seed(0)
        values.append(Pairwise(context, {})(toy_batch(context, lists=lists)))
    torch.testing.assert_close(*values)
    values[0].backward()
    assert float(values[0].detach()) > 0


def test_position_weights_are_the_papers():
    weights = position_weights([[5, 3], [15, 2], [25, 1]], 27)
    assert weights.tolist() == [3.0] * 5 + [2.0] * 10 + [1.0] * 10 + [0.0] * 2
    assert float(weights.sum()) == 45.0
    assert position_weights([[5, 3], [15, 2], [25, 1]], 3).tolist() == [3.0, 3.0, 3.0]
    assert position_weights([[5, 3]], 0).tolist() == []


def test_imitating_the_ranking_lowers_the_loss():
    context = toy_context(kd_negatives="candidates")
    batch = toy_batch(context)
    optimizer = torch.optim.Adam(context.student.model.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        loss = Pairwise(context, {})(toy_batch(context))
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]
    scores = (
        context.student.encode(batch.item_seq, batch.item_seq_len) @ context.student.item_table().T
    ).detach()
    first, last = scores.gather(1, batch.lists[:, :1]), scores.gather(1, batch.lists[:, 2:3])
    assert (first > last).float().mean() > 0.8


def test_pairwise_has_no_option_of_its_own():
    with pytest.raises(AlkdError, match="allowed: weight"):
        Pairwise(toy_context(), {"margin": 1})

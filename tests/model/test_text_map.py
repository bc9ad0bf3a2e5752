"""The learnt map: its loss against a loop, its gradient against finite differences, and what it can and
cannot learn.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recbole_alkd.llm.contrast import info_nce, log_shares
from recbole_alkd.model.edges import permuted
from recbole_alkd.model.text_map import learnt_map


def batch(seed=0, rows=6, size=4):
    generator = torch.Generator().manual_seed(seed)
    source, target = (torch.randn(rows, size, generator=generator, dtype=torch.float64) for _ in range(2))
    items = torch.tensor([3, 1, 3, 2, 5, 1])
    log_q = torch.randn(rows, generator=generator, dtype=torch.float64)
    return source, target, torch.tensor(4.0, dtype=torch.float64), log_q, items


def test_the_loss_is_that_of_a_loop():
    source, target, scale, log_q, items = batch()
    total = 0.0
    for row in range(6):
        logits = {}
        for column in range(6):
            if column != row and items[column] == items[row]:
                continue  # the right answer once more
            cosine = float(source[row] @ target[column] / (source[row].norm() * target[column].norm()))
            logits[column] = 4.0 * cosine - 0.5 * float(log_q[column])
        total -= logits[row] - math.log(sum(math.exp(value) for value in logits.values()))
    assert abs(float(info_nce(source, target, scale, log_q, items)) - total / 6) < 1e-12


def test_the_gradient_of_both_maps_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    maps = [torch.randn(5, 3, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    _, _, scale, log_q, items = batch()

    def loss(one, other, temperature):
        return info_nce(vectors @ one, vectors.flip(0) @ other, temperature, log_q, items)

    assert torch.autograd.gradcheck(loss, (*maps, scale.clone().requires_grad_(True)))


def test_shares_of_what_is_never_a_target_are_finite():
    shares = log_shares(np.array([1, 1, 2]), 4)
    np.testing.assert_allclose(shares[1:3].exp(), [2 / 3, 1 / 3], rtol=1e-6)
    assert torch.isfinite(shares).all() and torch.isfinite(log_shares(np.zeros(0, dtype=int), 3)).all()


def shop(seed=0, kinds=12, each=8, size=16):
    """Items of kind k are followed by items of kind k + 1, which are not like them: a rule that only an
    asymmetric map can say.
    """
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(kinds, size)) * np.linspace(2, 0.5, size)
    kind = np.append(-1, np.repeat(np.arange(kinds), each))
    vectors = np.zeros((len(kind), size), dtype=np.float32)
    vectors[1:] = centres[kind[1:]] + 0.3 * rng.normal(size=(len(kind) - 1, size))

    def pairs(count):
        source = rng.integers(1, len(kind), size=count)
        target = 1 + (kind[source] + 1) % kinds * each + rng.integers(each, size=count)
        return source, target

    return vectors, kind, pairs(6000), pairs(400)


def share_right(learnt, kind):
    source, target = learnt.edges(8).nonzero()
    return np.mean(kind[target] == (kind[source] + 1) % (kind.max() + 1))


def test_it_learns_what_follows_and_titles_of_other_items_do_not():
    vectors, kind, train, valid = shop()
    learnt = learnt_map(vectors, train, valid, 8, seed=0)
    assert learnt.round > 0 and min(learnt.losses) < learnt.losses[0] - 0.5
    assert share_right(learnt, kind) > 0.9
    assert not learnt.source[0].any() and not learnt.target[0].any()
    np.testing.assert_allclose(np.linalg.norm(learnt.source[1:], axis=1), 1, rtol=1e-5)
    control = learnt_map(permuted(vectors, np.random.default_rng(0)), train, valid, 8, seed=0)
    assert share_right(control, kind) < 0.5


def test_validation_without_a_rule_keeps_the_map_where_it_started():
    vectors, _, train, _ = shop()
    rng = np.random.default_rng(9)
    noise = rng.integers(1, len(vectors), size=(2, 6000))
    learnt = learnt_map(vectors, (noise[0], noise[1]), (noise[1][:50], train[1][:50]), 8, seed=0)
    assert learnt.round == int(np.argmin(learnt.losses)) and len(learnt.losses) <= 11


def test_the_same_seed_gives_the_same_map_and_one_round_without_validation():
    vectors, _, train, valid = shop()
    one, other = (learnt_map(vectors, train, None, 8, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.source, other.source)
    assert one.round == 1 and math.isnan(one.losses[0])
    vectors[5:9] = 0  # items without a title
    part = learnt_map(vectors, train, valid, 40, seed=3)
    assert part.source.shape == (len(vectors), 16) and not part.source[5:9].any()
    nothing = np.zeros(0, dtype=int)
    assert learnt_map(vectors, (nothing, nothing), valid, 8, seed=3).round == 0


@pytest.mark.parametrize("discounted", [False, True])
def test_edges_are_the_most_probable_items_and_weigh_their_probability(discounted):
    vectors, _, train, valid = shop()
    vectors[7] = 0
    learnt = learnt_map(vectors, train, valid, 8, seed=0)
    discount = np.linspace(1, 3, len(vectors)) if discounted else None
    edges = learnt.edges(4, discount).toarray()
    share = np.bincount(train[1][(train[0] != 7) & (train[1] != 7)], minlength=len(vectors))
    share = share / share.sum()
    for item in (1, 20, 96):
        likely = {}
        for other in range(1, len(vectors)):
            if other not in (item, 7):
                cosine = float(learnt.source[item] @ learnt.target[other])
                likely[other] = math.exp(learnt.scale * cosine) * math.sqrt(max(share[other], 1e-9))
                likely[other] /= 1 if discount is None else discount[other]
        total = sum(likely.values())
        best = sorted(likely, key=likely.get)[-4:]
        assert set(np.flatnonzero(edges[item])) == set(best)
        np.testing.assert_allclose(edges[item][best], [likely[one] / total for one in best], rtol=1e-3)
    assert not edges[7].any() and not edges[:, 7].any() and not edges[0].any()

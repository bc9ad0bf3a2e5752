"""What the tables of a grid share, against each table by itself: the same weights and ranks, bit for bit."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from recbole_alkd.model import shared_scores
from recbole_alkd.model.choosing import Sessions, _alike
from recbole_alkd.model.counting import both_ways, forward_counts, with_repeats
from recbole_alkd.model.grid_tables import Counting, Tables, median
from recbole_alkd.model.neighbours import as_singles, in_halves, weigh
from recbole_alkd.model.shared_scores import SharedScores

N = 40
GRID = [
    Counting(*one)
    for one in product([0.0, 8.0], [0.0, 0.3, 1.0], [0.0, 0.6, 1.0], [0.0, 0.5], [0.0, 0.5], [0.2])
]


@pytest.fixture(scope="module")
def sessions():
    rng = np.random.default_rng(0)
    sizes = rng.integers(2, 12, size=150)
    flat = np.minimum(
        rng.geometric(0.08, size=sizes.sum()), N - 1
    )  # popular items, ties, repeats in a session
    return flat, np.concatenate([[0], np.cumsum(sizes)])


@pytest.fixture(scope="module")
def tables(sessions):
    return Tables(*sessions, N, [0.0, 0.6, 1.0])


def alone(sessions, tables, how):
    (forward,) = forward_counts(*sessions, N, [how.gap_decay])
    weighed = weigh(both_ways(forward, how.backward), tables.counts, how.source_exponent, how.target_exponent)
    return with_repeats(weighed, how.repeat)


@pytest.mark.parametrize("how", GRID, ids=str)
def test_a_table_is_the_one_that_is_made_alone(sessions, tables, how):
    table, expected = tables(how), alone(sessions, tables, how)
    assert np.array_equal(table.indptr, expected.indptr) and np.array_equal(table.indices, expected.indices)
    assert table.data.tobytes() == expected.data.tobytes()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("at_once", [1 << 18, 60])
def test_ranks_up_to_the_cutoff_are_those_of_each_table(sessions, tables, masked, at_once, monkeypatch):
    monkeypatch.setattr(shared_scores, "AT_ONCE", at_once)
    rng = np.random.default_rng(1)
    length = rng.integers(1, 7, size=300)
    item_seq = np.minimum(rng.geometric(0.08, size=(300, 6)), N - 1) * (np.arange(6) < length[:, None])
    target = np.minimum(rng.geometric(0.08, size=300), N - 1)
    assert masked or (item_seq == target[:, None]).any()  # a target that is in its session is among them
    rows = Sessions(item_seq, length, target, np.arange(300), N, 4, masked, "NDCG@5")
    shared = SharedScores(tables, item_seq, length, target, 4, masked)
    seen = 0
    alike = {decay: [how for how in GRID if how.decay == decay] for decay in (0.0, 0.5)}
    together = {
        decay: shared.ranks([tables.weights(how) for how in hows], [decay], rows.cutoff)
        for decay, hows in alike.items()
    }
    for how in GRID:
        wanted = rows.ranks(tables(how), tables.counts, how.decay)
        (ranks,) = shared.ranks([tables.weights(how)], [how.decay], rows.cutoff)
        decays = [0.25, how.decay, 0.75]
        assert ranks.tobytes() == shared.ranks([tables.weights(how)], decays, rows.cutoff)[1].tobytes()
        assert ranks.tobytes() == together[how.decay][alike[how.decay].index(how)].tobytes()
        near = np.isfinite(ranks)
        np.testing.assert_array_equal(ranks[near], wanted[near])
        assert (wanted[~near] > rows.cutoff).all()
        np.testing.assert_array_equal(rows.worth(ranks), rows.worth(wanted))
        seen += int(near.sum())
    assert 0 < seen < 300 * len(GRID)
    assert SharedScores.entries(tables, item_seq, length, 4) > 0


def test_weights_are_rounded_as_numpy_rounds_them():
    """Also what lies in the middle of two float16 numbers, or next to it by less than a float32 shows."""
    rng = np.random.default_rng(3)
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)  # all that are finite
    middles = (halves[1:] + halves[:-1]) / 2
    near = [middles, *(np.nextafter(middles, to) for to in (0, np.inf)), middles * (1 + 1e-12)]
    wide = np.exp(rng.normal(-4, 8, size=100_000))
    every = np.concatenate([halves, *near, wide, [0.0, 1e-300, 65504, 65519.9, 65520, 1e300]])
    for weights in (every, -every[every < 6e4], every[every < 1e38].astype(np.float32)):
        expected = np.minimum(weights, np.finfo(np.float16).max).astype(np.float16)
        assert in_halves(weights).tobytes() == expected.tobytes()
        assert as_singles(expected).tobytes() == expected.astype(np.float32).tobytes()
    assert len(in_halves(every[:0])) == 0


def test_settings_go_together_that_share_a_decay_or_all_but_it():
    how = Counting()
    weights = [how._replace(target_exponent=one) for one in (0.0, 0.1, 0.2)]
    decays = [how._replace(decay=one) for one in (0.0, 0.3, 0.5)]
    assert list(_alike(weights)) == [weights] and list(_alike(decays)) == [decays]
    both = [*weights, *(one._replace(decay=0.9) for one in weights)]
    assert list(_alike(both)) == [both[:3], both[3:]]


def test_the_median_is_that_of_numpy():
    rng = np.random.default_rng(2)
    for size in (1, 2, 7, 8, 1000):
        halves = (rng.random(size) * 3).astype(np.float16)
        halves[rng.random(size) < 0.2] = 0
        some = halves[halves > 0].astype(np.float32)
        assert median(halves) == (np.median(some) if len(some) else 0)

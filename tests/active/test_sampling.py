"""Draws: the law of Algorithm 1, exact inclusion probabilities, and what is refused. Seeds are fixed."""

from __future__ import annotations

import pickle
from itertools import permutations

import numpy as np
import pytest
from scipy.stats import chi2_contingency, chisquare

from recbole_alkd.active.max_min import solve_max_min, worst_case_gain
from recbole_alkd.active.sampling import InclusionAboveOne, PoolExhausted, draw
from recbole_alkd.settings.error import AlkdError

P = np.arange(1, 6) / 15  # the max-min policy of g = 1/s, N = 5, counts (1, 2, 2)
OUTCOMES = {outcome: index for index, outcome in enumerate(permutations(range(5), 3))}


def algorithm_1(p, size, rng):
    """The paper's loop: draw from p, keep what is new."""
    kept = []
    while len(kept) < size:
        one = int(rng.choice(len(p), p=p))
        if one not in kept:
            kept.append(one)
    return kept


def outcome_law(p, size=3):
    """Exact probability of every ordered outcome (Plackett-Luce)."""
    law = []
    for outcome in OUTCOMES:
        left, probability = 1.0, 1.0
        for one in outcome:
            probability *= p[one] / left
            left -= p[one]
        law.append(probability)
    return np.array(law)


def count(samples):
    return np.bincount([OUTCOMES[tuple(map(int, sample))] for sample in samples], minlength=len(OUTCOMES))


def test_gumbel_has_the_law_of_algorithm_1_order_included():
    rng = np.random.default_rng(7)
    gumbel = count(draw(np.log(P), 3, rng) for _ in range(40_000))
    loop = count(algorithm_1(P, 3, rng) for _ in range(8_000))
    law = outcome_law(P)
    assert chisquare(gumbel, law * gumbel.sum()).pvalue > 0.01
    assert chisquare(loop, law * loop.sum()).pvalue > 0.01
    assert chi2_contingency(np.stack([gumbel, loop])).pvalue > 0.01
    # the test can tell: without the order's weights the law is another
    assert chisquare(gumbel, np.full(60, gumbel.sum() / 60)).pvalue < 1e-9


def test_gumbel_takes_any_constant_and_probabilities_that_are_no_floats():
    log_p = -60 * np.log(np.arange(1_000, 0, -1)) - 5_000.0
    shifted = draw(log_p + 5_000.0, 20, np.random.default_rng(1))
    assert (draw(log_p, 20, np.random.default_rng(1)) == shifted).all()
    assert not np.exp(log_p).any()


@pytest.mark.parametrize(
    ("p", "size"),
    [
        (np.arange(1, 31) / 465, 7),
        (np.array([0.25, 0.25, 0.2, 0.2, 0.1]), 4),  # two are certain
        (np.array([0.25, 0.25, 0.25, 0.25, 0.0]), 4),  # all are certain
        (np.full(6, 1 / 6), 1),
    ],
)
def test_pps_includes_each_with_size_times_p(p, size):
    rng = np.random.default_rng(11)
    times, n = np.zeros(len(p)), 20_000
    with np.errstate(divide="ignore"):
        log_p = np.log(p)
    for _ in range(n):
        picks = draw(log_p, size, rng, "pps")
        assert len(set(picks.tolist())) == size
        times[picks] += 1
    inclusion = size * p
    assert np.abs(times / n - inclusion).max() <= 4.5 * np.sqrt((inclusion * (1 - inclusion)).max() / n)
    assert (times[inclusion == 0] == 0).all()


def test_gumbel_does_not():
    """Drawing without repetition flattens p; otherwise the test above could not fail."""
    rng, p = np.random.default_rng(11), np.arange(1, 31) / 465
    times = np.zeros(30)
    for _ in range(5_000):
        times[draw(np.log(p), 14, rng)] += 1
    inclusion = 14 * p
    assert np.abs(times / 5_000 - inclusion).max() > 20 * np.sqrt((inclusion * (1 - inclusion)).max() / 5_000)


@pytest.mark.parametrize(
    ("mu", "size", "n", "kept"), [(1, 500, 12_054, 0.967), (10, 500, 12_054, 0.955), (10, 500, 7_393, 0.915)]
)
def test_what_drawing_without_repetition_costs(mu, size, n, kept):
    """Worst case of the mean gain of a pick over the value, from inclusion probabilities given the other
    arrivals."""
    gain, counts = -mu * np.log(np.arange(1, n + 1)), (n // 10, n // 2, n - n // 10 - n // 2)
    solution = solve_max_min(gain, *counts)
    p, rng, rounds = np.exp(solution.log_p[: solution.cutoff]), np.random.default_rng(0), 200
    inclusion = np.zeros(n)
    for _ in range(rounds):
        arrival = rng.exponential(size=len(p)) / p
        last, next_ = np.partition(arrival, (size - 1, size))[[size - 1, size]]
        inclusion[: len(p)] -= np.expm1(-p * np.where(arrival <= last, next_, last)) / rounds
    assert inclusion.sum() == pytest.approx(size, rel=0.01)
    reached = worst_case_gain(inclusion / inclusion.sum(), np.exp(gain), *counts)
    assert reached / solution.value == pytest.approx(kept, abs=0.002)


def test_pps_order_is_random():
    rng = np.random.default_rng(3)
    first = np.bincount([draw(np.log(np.full(4, 0.25)), 4, rng, "pps")[0] for _ in range(4_000)], minlength=4)
    assert chisquare(first).pvalue > 0.01


@pytest.mark.parametrize("method", ["gumbel", "pps"])
def test_distinct_and_inside_the_support(method):
    log_p = np.where(np.arange(50) % 2, -np.inf, 0.0)
    for size in (0, 1, 13, 25):
        picks = draw(log_p, size, np.random.default_rng(0), method)
        assert picks.shape == (size,) and len(set(picks.tolist())) == size and not (picks % 2).any()
        assert (draw(log_p, size, np.random.default_rng(0), method) == picks).all()


@pytest.mark.parametrize("method", ["gumbel", "pps"])
def test_more_than_the_support_is_an_error_with_both_numbers(method):
    with pytest.raises(PoolExhausted, match="3 instances are asked for and only 2") as error:
        draw(np.array([0.0, 0.0, -np.inf]), 3, np.random.default_rng(0), method)
    assert (error.value.available, error.value.requested) == (2, 3)
    again = pickle.loads(pickle.dumps(error.value))
    assert (again.available, again.requested, str(again)) == (2, 3, str(error.value))


def test_filling_is_advised_where_the_pool_has_more_than_the_policy_draws_from():
    log_p = np.array([0.0, 0.0, -np.inf])
    with pytest.raises(PoolExhausted, match=r"only 2 can be drawn; lower .*set alkd_fill: next$"):
        draw(log_p, 3, np.random.default_rng(0))
    with pytest.raises(PoolExhausted, match=r"only 2 can be drawn; lower the budget$"):
        draw(log_p, 4, np.random.default_rng(0))


def test_pps_refuses_an_inclusion_above_one():
    with pytest.raises(
        InclusionAboveOne, match=r"1\.5 times; allowed: at most once, which means budget_labels <= 2"
    ) as error:
        draw(np.log([0.5, 0.25, 0.25]), 3, np.random.default_rng(0), "pps")
    assert error.value.largest == pytest.approx(1.5)
    assert isinstance(error.value, AlkdError)


@pytest.mark.parametrize(
    ("log_p", "size", "method", "message"),
    [
        ([0.0, np.nan], 1, "gumbel", "NaN"),
        ([0.0, np.inf], 1, "gumbel", "inf"),
        ([[0.0]], 1, "gumbel", "allowed: \\(N,\\)"),
        ([0.0], -1, "gumbel", "size: -1"),
        ([0.0], 1, "choice", "alkd_draw: 'choice' is not allowed; allowed: gumbel | pps"),
        ([], 1, "gumbel", "only 0 can be drawn"),
    ],
)
def test_bad_input_is_named(log_p, size, method, message):
    with pytest.raises(AlkdError, match=message):
        draw(np.array(log_p), size, np.random.default_rng(0), method)

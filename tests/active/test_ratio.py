"""Ratios from a pilot."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from recbole_alkd.active.max_min import solve_max_min, worst_case_gain
from recbole_alkd.active.ratio import CountBounds, classify, count_kinds, estimate_ratio, lower_bound
from recbole_alkd.settings.error import AlkdError


def test_a_label_is_judged_by_the_band_of_the_true_item():
    #        both first, LLM better, worse, same band, LLM lost it, LLM found it, neither, both far,
    # edge of a band
    llm = [1, 3, 20, 7, 0, 25, 0, 40, 5]
    rec = [1, 9, 2, 14, 6, 0, 0, 0, 6]
    kinds = classify(np.array(llm), np.array(rec))
    assert kinds.tolist() == [1, 0, 2, 1, 2, 0, 1, 1, 0]
    assert count_kinds(kinds) == (3, 4, 2)
    assert classify(np.array([2]), np.array([1]), band_ends=[1, 2]).tolist() == [2]
    assert classify(np.array([5, 5, 6]), np.array([5.0, 5.5, 5.5])).tolist() == [1, 0, 1], (
        "a mean rank behind the band's end"
    )
    assert count_kinds(classify(np.array([], dtype=int), np.array([], dtype=int))) == (0, 0, 0)


def test_clopper_pearson():
    """The bound is the probability at which so many successes are just unlikely enough."""
    for successes, trials in [(1, 10), (5, 50), (50, 50)]:
        bound = lower_bound(successes, trials, 0.025)
        assert binom.sf(successes - 1, trials, bound) == pytest.approx(0.025, rel=1e-9)
    assert lower_bound(0, 10, 0.025) == 0.0
    assert lower_bound(10, 10, 0.05) == pytest.approx(0.05**0.1, rel=1e-12)


def test_estimate():
    estimate = estimate_ratio((10, 50, 40), 2000, confidence=0.95)
    assert estimate.shares == (0.1, 0.5, 0.4)
    assert estimate.effective_low == pytest.approx(lower_bound(10, 100, 0.025))
    assert binom.cdf(40, 100, estimate.incorrect_high) == pytest.approx(0.025, rel=1e-9)
    n_effective, n_similar, n_incorrect = estimate.bounds.counts
    assert n_effective == int(np.ceil(2000 * estimate.effective_low)) == 99
    assert n_incorrect == int(np.floor(2000 * estimate.incorrect_high))
    assert n_effective + n_similar + n_incorrect == 2000
    assert "0.100 : 0.500 : 0.400" in str(estimate) and "effective >= 0.049" in str(estimate)
    shared = estimate_ratio((10, 50, 40), 2000, confidence=0.95, pilots=4)
    assert shared.effective_low < estimate.effective_low and shared.incorrect_high > estimate.incorrect_high


def test_a_pilot_of_the_whole_pool_is_exact_where_it_must_be():
    bounds = estimate_ratio((3, 4, 5), 12).bounds
    assert bounds.effective >= 3 and bounds.incorrect <= 5
    assert bounds.after((3, 4, 5)).counts == (0, 0, 0)


@settings(deadline=None)
@given(st.tuples(*[st.integers(0, 60)] * 3).filter(sum), st.integers(0, 500))
def test_bounds_fit_the_pool_before_and_after_the_pilot(seen, rest):
    bounds = estimate_ratio(seen, sum(seen) + rest).bounds
    for known in (bounds, bounds.after(seen)):
        assert sum(known.counts) == known.n and min(known.counts) >= 0


def test_later_labels_are_subtracted():
    bounds = CountBounds(100, effective=10, incorrect=50)
    assert bounds.after((3, 5, 2)).counts == (7, 35, 48)
    assert bounds.after((30, 0, 0)).counts == (0, 20, 50)
    assert bounds.after((0, 0, 60)).counts == (10, 30, 0)
    assert bounds.joined(CountBounds(100, 5, 40)).counts == (10, 50, 40)


def test_the_robust_policy_holds_its_value_anywhere_in_the_box():
    bounds = CountBounds(12, effective=2, incorrect=5)
    log_gain = -2 * np.log(np.arange(1, 13))
    solution = solve_max_min(log_gain, *bounds.counts)
    assert solution.value > 0
    for n_effective in range(2, 13):
        for n_incorrect in range(0, min(5, 12 - n_effective) + 1):
            counts = (n_effective, 12 - n_effective - n_incorrect, n_incorrect)
            assert worst_case_gain(np.exp(solution.log_p), np.exp(log_gain), *counts) >= solution.value * (
                1 - 1e-12
            )


def test_coverage():
    """True ratio 1 : 5 : 4, N = 2,000, m = 100: both bounds hold in at least 95 % of pilots (seed fixed)."""
    rng, pool = np.random.default_rng(5), np.repeat([0, 1, 2], [200, 1000, 800])
    held = 0
    for _ in range(400):
        bounds = estimate_ratio(count_kinds(rng.choice(pool, 100, replace=False)), 2000).bounds
        held += bounds.effective <= 200 and bounds.incorrect >= 800
    assert held / 400 >= 0.95


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: estimate_ratio((0, 0, 0), 10), "1 to 10 in all"),
        (lambda: estimate_ratio((5, 5, 5), 10), "seen: \\(5, 5, 5\\)"),
        (lambda: estimate_ratio((-1, 5, 5), 10), "seen"),
        (lambda: estimate_ratio((1, 5, 4), 10, confidence=1.0), "alkd_confidence: 1.0"),
        (lambda: estimate_ratio((1, 5, 4), 10, pilots=0), "pilots: 0"),
        (lambda: classify(np.array([-1]), np.array([1])), "llm_rank: -1"),
        (lambda: CountBounds(5, 1, 1).after((3, 3, 0)), "at most 5 in all"),
        (lambda: CountBounds(5, 1, 1).joined(CountBounds(6, 1, 1)), "pools of 5 and 6"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(AlkdError, match=message):
        call()

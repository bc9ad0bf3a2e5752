"""The statistics against scipy, against their definitions, and on simulated data with a known effect."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from recbole_alkd.bench.statistics import bootstrap_interval, compare, detectable_difference, holm, paired_t


def test_the_t_test_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 6))
    assert paired_t(a - b) == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_without_deviation_there_is_no_test():
    assert paired_t(np.zeros(4)) == 1
    assert np.isnan(paired_t(np.full(3, 0.5))) and np.isnan(paired_t(np.array([0.5])))
    assert np.isnan(detectable_difference(np.full(3, 0.5))) and np.isnan(detectable_difference(np.array([0.5])))


def test_holm_by_hand():
    # sorted .01 .02 .03 .04, times 4 3 2 1, each at least the one before
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    found = holm([0.02, float("nan"), 0.03])
    assert found[0] == pytest.approx(0.04) and np.isnan(found[1]) and found[2] == pytest.approx(0.04)


def test_holm_keeps_the_familywise_error():
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(600):
        p = stats.ttest_1samp(rng.normal(size=(8, 5)), 0, axis=1).pvalue
        wrong += min(holm(p)) < 0.05
    assert wrong / 600 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)


def simulated(rng, effect, seeds=5, sessions=300):
    """Gains of two arms: sessions and seeds have effects of their own, shared within the pair."""
    base = rng.random(sessions) * 0.2
    arm, reference = [], []
    for _ in range(seeds):
        of_seed = rng.normal(0, 0.01)
        reference.append(base + rng.normal(0, 0.05, sessions))
        arm.append(base + effect + of_seed + rng.normal(0, 0.05, sessions))
    return arm, reference


def test_size_and_power_on_simulated_runs():
    rng = np.random.default_rng(2)
    nothing = [compare(*simulated(rng, 0.0), True, rng) for _ in range(120)]
    assert np.mean([c.p < 0.05 for c in nothing]) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 120)
    assert np.mean([c.low <= 0 <= c.high for c in nothing]) > 0.82  # five seeds: a percentile interval is a little narrow
    effect = 0.03
    real = [compare(*simulated(rng, effect), True, rng) for _ in range(60)]
    assert np.mean([c.p < 0.05 for c in real]) > 0.9
    assert np.mean([c.low <= effect <= c.high for c in real]) > 0.8
    assert np.mean([c.difference for c in real]) == pytest.approx(effect, abs=0.003)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_detectable_difference_is_found_four_times_in_five(n):
    rng = np.random.default_rng(n)
    unit = np.arange(n) - (n - 1) / 2
    unit /= unit.std(ddof=1)  # deviation 1
    shift = detectable_difference(unit)
    found = stats.ttest_1samp(rng.normal(shift, 1, size=(4000, n)), 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.025)


def test_the_interval_of_one_seed_is_that_of_the_mean_over_sessions():
    rng = np.random.default_rng(3)
    values = rng.normal(1, 2, size=1000)
    low, high = bootstrap_interval([values], True, rng, draws=4000)
    half = 1.96 * values.std() / np.sqrt(1000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_crossed_seeds_move_together_and_nested_ones_do_not():
    rng = np.random.default_rng(4)
    values = [rng.normal(0, 1, size=500)] * 4  # the same differences for each seed: nothing but sessions varies
    crossed, nested = (np.ptp(bootstrap_interval(values, kind, rng)) for kind in (True, False))
    # with sessions of their own the seeds average out: 1/4 of the variance for four distinct ones, and what is left of it when
    # a resample holds a seed twice (1/4 + 3/4 * 1/4 on average)
    assert nested == pytest.approx(crossed * np.sqrt(7 / 16), rel=0.1)


def test_a_verdict_needs_test_and_interval():
    rng = np.random.default_rng(5)
    from dataclasses import replace

    found = compare(*simulated(rng, 0.05), True, rng)
    assert found.verdict == "no measurable difference"  # no corrected p yet
    assert replace(found, p_holm=0.01).verdict == "better"
    assert replace(found, p_holm=0.2).verdict == "no measurable difference"
    assert replace(found, p_holm=0.01, low=-0.1).verdict == "no measurable difference"
    assert replace(found, p_holm=0.01, difference=-0.05, low=-0.1, high=-0.01).verdict == "worse"

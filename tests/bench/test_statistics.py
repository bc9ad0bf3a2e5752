"""The statistics against scipy and against their definitions;
on simulated data in test_statistics_simulated.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from recbole_alkd.bench.statistics import Comparison, compare, holm
from recbole_alkd.statistics import (
    bootstrap_interval,
    detectable_difference,
    paired_difference,
    paired_t,
    sign_flips,
    variances,
)


def test_the_t_test_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 6))
    assert paired_t(a - b) == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_without_deviation_there_is_no_test():
    assert paired_t(np.zeros(4)) == 1
    assert np.isnan(paired_t(np.full(3, 0.5))) and np.isnan(paired_t(np.array([0.5])))
    assert np.isnan(detectable_difference(np.full(3, 0.5))) and np.isnan(
        detectable_difference(np.array([0.5]))
    )


def test_holm_by_hand():
    # sorted .01 .02 .03 .04, times 4 3 2 1, each at least the one before
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    corrected = holm([0.02, float("nan"), 0.03])
    assert (
        corrected[0] == pytest.approx(0.04) and np.isnan(corrected[1]) and corrected[2] == pytest.approx(0.04)
    )


def test_the_interval_of_one_seed_is_that_of_the_mean_over_sessions():
    rng = np.random.default_rng(3)
    values = rng.normal(1, 2, size=1000)
    low, high = bootstrap_interval([values], True, rng, draws=4000)
    half = 1.96 * values.std() / np.sqrt(1000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_crossed_seeds_move_together_and_nested_ones_do_not():
    rng = np.random.default_rng(4)
    values = rng.normal(0, 1, size=500)
    # the same for each seed: nothing but sessions varies
    crossed = np.ptp(bootstrap_interval([values] * 4, True, rng))
    assert crossed == pytest.approx(2 * 1.96 * values.std() / np.sqrt(500), rel=0.1)
    means = np.array([-3.0, -1.0, 1.0, 3.0])
    nested = bootstrap_interval([values - values.mean() + mean for mean in means], False, rng, draws=20000)
    half = stats.t.ppf(0.975, 3) * means.std(ddof=1) / 2  # nothing but the means of seeds counts
    assert nested == pytest.approx((-half, half), rel=0.1)


def test_the_variances_by_loop():
    rng = np.random.default_rng(6)
    d = rng.normal(size=(3, 7)) + rng.normal(size=(3, 1)) + rng.normal(size=7)
    cells = [(s, i) for s in range(3) for i in range(7)]
    left = sum((d[s, i] - d[s].mean() - d[:, i].mean() + d.mean()) ** 2 for s, i in cells) / (2 * 6)
    of_seeds = sum((d[s].mean() - d.mean()) ** 2 for s in range(3)) / 2 / 3
    of_sessions = sum((d[:, i].mean() - d.mean()) ** 2 for i in range(7)) / 6 / 7
    assert variances(list(d), True) == pytest.approx((of_seeds, of_sessions, left / 21))
    assert variances(list(d), False) == pytest.approx((of_seeds, 0, 0))


def test_sign_flips_are_the_paired_randomisation_test_of_scipy():
    rng = np.random.default_rng(7)
    for shift in (0.0, 0.25, 0.5):
        values = rng.normal(shift, 1, size=30)
        wanted = stats.permutation_test(
            (values,), lambda x, axis: x.mean(axis), permutation_type="samples", vectorized=True
        )
        assert sign_flips(np.append(values, np.zeros(50)), rng) == pytest.approx(wanted.pvalue, abs=0.02)
    assert sign_flips(np.zeros(10), rng) == 1
    assert sign_flips(np.ones(3), rng) == pytest.approx(0.25, abs=0.02)  # all alike: 2 of 8 ways
    assert sign_flips(np.ones(30), rng) == 1 / 10000


def test_a_verdict_needs_test_and_interval():
    comparison = Comparison(
        0.05, 1.0, low=0.04, high=0.06, p=0.01, detectable=0.01, test="seeds", seeds=5, sessions=300
    )
    assert comparison.verdict == "no verdict"  # no test was made
    assert replace(comparison, p_holm=0.01).verdict == "better"
    assert replace(comparison, p_holm=0.2).verdict == "better by the interval; too few seeds for the test"
    assert (
        replace(comparison, p_holm=0.2, test="sessions").verdict
        == "better by the interval; too few sessions for the test"
    )
    assert replace(comparison, p_holm=0.01, low=-0.1).verdict == "better by the test; the interval holds 0"
    assert replace(comparison, p_holm=0.2, low=-0.1).verdict == "no measurable difference"
    assert replace(comparison, p_holm=0.1, difference=-0.05, low=-0.1, high=-0.01).verdict.startswith(
        "worse by the interval"
    )
    assert replace(comparison, p_holm=0.01, difference=-0.05, low=-0.1, high=-0.01).verdict == "worse"


def counted(rng, worth, sessions=400):
    """Gains of two arms that do not know seeds: the first hits ``worth`` sessions more, five times over."""
    reference = (rng.random(sessions) < 0.1).astype(float)
    arm = reference.copy()
    arm[rng.choice(np.flatnonzero(reference == 0), worth, replace=False)] = 1
    swapped = rng.choice(np.flatnonzero(arm + reference == 0), 12, replace=False)
    arm[swapped[:6]] = 1
    reference[swapped[6:]] = 1
    return [arm] * 5, [reference] * 5


def test_sessions_are_tested_where_seeds_change_nothing():
    rng = np.random.default_rng(8)
    little, much = (compare(*counted(rng, worth), True, rng) for worth in (1, 30))
    for comparison in (little, much):
        assert comparison.test == "sessions" and comparison.detectable > 0
        assert (replace(comparison, p_holm=comparison.p).verdict == "better") == (comparison is much)
    assert little.p > 0.3 and much.p < 0.001
    # one session that one seed ranks differently is no ground for a t-test either
    arm, reference = counted(rng, 1)
    arm = [*arm[:4], arm[4].copy()]
    arm[4][np.flatnonzero(arm[4] == 0)[0]] = 1
    still = compare(arm, reference, True, rng)
    assert paired_t(np.array([(a - b).mean() for a, b in zip(arm, reference, strict=True)])) < 0.05
    assert still.test == "sessions" and still.p > 0.1
    same = compare(reference, reference, True, rng)
    assert (
        same.p == 1
        and (same.low, same.high) == (0, 0)
        and replace(same, p_holm=same.p).verdict == "no measurable difference"
    )
    # against a trained arm seeds do vary
    trained = [reference[0] * (rng.random(400) < 0.5) for _ in range(5)]
    assert compare(reference, trained, True, rng).test == "seeds"
    assert compare(arm[:1], reference[:1], True, rng).test == ""


def test_two_rankings_of_one_run_are_compared_over_sessions():
    rng = np.random.default_rng(9)
    b = rng.random(900)
    a = b + rng.normal(0.02, 0.1, 900)
    difference, low, high, detectable = paired_difference(a, b)
    assert difference == pytest.approx((a - b).mean()) and low < difference < high
    half = 1.96 * (a - b).std() / 30
    assert (low, high) == pytest.approx((difference - half, difference + half), abs=half / 8)
    assert (
        detectable
        == pytest.approx(detectable_difference(a - b))
        == pytest.approx(2.8 * (a - b).std() / 30, rel=0.02)
    )
    assert paired_difference(a, b) == (difference, low, high, detectable) != paired_difference(a, b, seed=1)
    swapped = paired_difference(b, a)
    assert swapped[0] == pytest.approx(-difference) and swapped[1:3] == pytest.approx(
        (-high, -low), abs=half / 4
    )
    same = paired_difference(b, b)
    assert same[:3] == (0, 0, 0) and np.isnan(same[3])
    for wrong in (
        (a, b[1:]),
        (a[:0], b[:0]),
        (a, np.full(900, np.nan)),
        (a.reshape(30, 30), b.reshape(30, 30)),
    ):
        with pytest.raises(ValueError, match=r"paired|finite"):
            paired_difference(*wrong)


def test_a_gain_that_three_seeds_cannot_show_is_not_called_none():
    """+150 %, an interval far from 0, and a t-test over three seeds that cannot see it:
    too few seeds is what is true."""
    rng = np.random.default_rng(10)
    of_session = rng.normal(size=400)
    of_session = 4 * (of_session - of_session.mean()) / of_session.std()
    reference = [np.full(400, 0.06)] * 3
    arm = [0.06 + 0.09 * (1 + of_seed + of_session) for of_seed in (-0.45, 0, 0.45)]
    comparison = compare(arm, reference, True, rng)
    for corrected in (comparison.p, 2 * comparison.p):
        comparison = replace(comparison, p_holm=corrected)
        assert comparison.relative == pytest.approx(1.5) and comparison.low > 0 and corrected > 0.05
        assert comparison.verdict == "better by the interval; too few seeds for the test"
    # what the words claim: at a true difference of this size the test rejects about half the time at most
    shift = comparison.difference / (np.std([-0.45, 0, 0.45], ddof=1) * 0.09) * np.sqrt(3)
    assert stats.nct.sf(stats.t.ppf(0.975, 2), 2, shift) < 0.55

"""The statistics on simulated results whose true difference is known:
size, power, family-wise error, coverage.

Each rate is held against its theory within three Monte-Carlo standard errors.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from recbole_alkd.bench.statistics import compare, holm
from recbole_alkd.model.scoring import gains
from recbole_alkd.statistics import bootstrap_interval, detectable_difference, paired_t, sign_flips

SEEDS = 5


def error(rate, draws):
    """Three Monte-Carlo standard errors of a rate."""
    return 3 * np.sqrt(rate * (1 - rate) / draws)


def paired_runs(rng, effect, draws, seeds=SEEDS, deviation=1.0):
    """Differences of the means of two arms, (draws, seeds): a part that both share goes away,
    their own parts stay."""
    shared = rng.normal(0, 5, size=(draws, seeds))
    own = deviation / np.sqrt(2)
    arm = shared + effect + rng.normal(0, own, size=(draws, seeds))
    return arm - (shared + rng.normal(0, own, size=(draws, seeds)))


def power_of_t(effect, seeds, deviation=1.0):
    """The power of the two-sided t-test at 5 %, from the noncentral t distribution."""
    shift, critical = effect / deviation * np.sqrt(seeds), stats.t.ppf(0.975, seeds - 1)
    return stats.nct.sf(critical, seeds - 1, shift) + stats.nct.cdf(-critical, seeds - 1, shift)


def test_the_size_of_the_t_test():
    differences = paired_runs(np.random.default_rng(0), 0.0, 1200)
    rejected = np.mean([paired_t(row) < 0.05 for row in differences])
    assert rejected == pytest.approx(0.05, abs=error(0.05, 1200))


@pytest.mark.parametrize(("effect", "seeds"), [(1.0, 3), (-1.5, 5), (0.8, 10)])
def test_the_power_of_the_t_test(effect, seeds):
    differences = paired_runs(np.random.default_rng(seeds), effect, 800, seeds)
    power = power_of_t(effect, seeds)
    assert 0.1 < power < 0.9
    assert np.mean([paired_t(row) < 0.05 for row in differences]) == pytest.approx(
        power, abs=error(power, 800)
    )


@pytest.mark.parametrize("n", [3, 5, 200])
def test_the_detectable_difference_is_found_four_times_in_five(n):
    unit = np.arange(n) - (n - 1) / 2
    unit *= 2.5 / unit.std(ddof=1)
    shift = detectable_difference(unit)
    assert power_of_t(shift, n, 2.5) == pytest.approx(0.8, abs=1e-6)
    differences = paired_runs(np.random.default_rng(n), shift, 800, n, deviation=2.5)
    assert np.mean([paired_t(row) < 0.05 for row in differences]) == pytest.approx(0.8, abs=error(0.8, 800))


def arms_against_one(rng, draws, arms, seeds=SEEDS):
    """p of ``arms`` arms that are all as good as the one reference they share, (draws, arms)."""
    reference = rng.normal(size=(draws, 1, seeds))
    return stats.ttest_1samp(rng.normal(size=(draws, arms, seeds)) - reference, 0, axis=2).pvalue


def test_the_familywise_error_after_holm():
    rng, draws = np.random.default_rng(1), 1000
    # arms that share nothing: exactly 1 - (1 - .05 / 12) ** 12, which is nearly all that is allowed
    alone = stats.ttest_1samp(rng.normal(size=(draws, 12, SEEDS)), 0, axis=2).pvalue
    wrong = np.mean([min(holm(p)) < 0.05 for p in alone])
    exact = 1 - (1 - 0.05 / 12) ** 12
    assert wrong == pytest.approx(exact, abs=error(exact, draws))
    # arms of a table share their reference, and only seven of them are as good as it
    mixed = arms_against_one(rng, draws, 12)
    mixed[:, 7:] = 1e-5
    assert np.mean([min(holm(p)[:7]) < 0.05 for p in mixed]) <= 0.05 + error(0.05, draws)
    assert np.mean(mixed[:, :7].min(1) < 0.05) > 0.12  # what would be wrong without the correction


def test_the_size_and_the_power_of_sign_flips():
    rng, draws, sessions = np.random.default_rng(2), 600, 60
    # most sessions miss in both arms
    differences = rng.normal(size=(draws, sessions)) * (rng.random((draws, sessions)) < 0.4)
    rejected = np.mean([sign_flips(row, rng, 399) < 0.05 for row in differences])
    assert rejected == pytest.approx(0.05, abs=error(0.05, draws))
    effect = 0.25
    power = power_of_t(effect, sessions, np.sqrt(0.4))  # with so many sessions the tests are nearly the same
    share = np.mean([sign_flips(row + effect, rng, 399) < 0.05 for row in differences])
    assert share == pytest.approx(power, abs=error(power, draws) + 0.02)


# standard deviations of seeds, sessions, single results; seeds; and the coverage that is due. Where only
# single results deviate, the variances of seeds and of sessions are two estimates of the same one,
# of which the larger is taken: too wide.
COVERAGE = {
    "seeds decide": ((1.0, 0.1, 0.1), SEEDS, (0.95, 0.95)),
    "three seeds decide": ((1.0, 0.1, 0.1), 3, (0.95, 0.95)),
    "sessions decide": ((0.0, 1.0, 0.1), SEEDS, (0.95, 0.95)),
    "both": ((0.1, 1.0, 0.3), SEEDS, (0.95, 0.95)),
    "everything": ((0.1, 1.0, 1.0), SEEDS, (0.95, 0.96)),
    "single results decide": ((0.0, 0.0, 1.0), 12, (0.95, 0.965)),
}


@pytest.mark.parametrize("case", COVERAGE)
def test_the_coverage_of_the_interval(case):
    (of_seed, of_session, single), seeds, (least, most) = COVERAGE[case]
    rng, draws, sessions, effect = np.random.default_rng(3), 600, 80, 0.7
    covered = 0
    for _ in range(draws):
        d = (
            rng.normal(0, of_seed, (seeds, 1))
            + rng.normal(0, of_session, sessions)
            + rng.normal(0, single, (seeds, sessions))
        )
        low, high = bootstrap_interval(list(effect + d), True, rng, draws=400)
        covered += low <= effect <= high
    # 400 bootstrap draws and the few values that a resample of few seeds can take cost a percent
    assert least - error(0.95, draws) - 0.01 <= covered / draws <= most + error(most, draws)


def test_the_coverage_with_sessions_of_each_seed_own():
    rng, draws, effect, covered = np.random.default_rng(4), 600, -0.3, 0
    for _ in range(draws):
        d = effect + rng.normal(0, 0.1, (SEEDS, 1)) + rng.normal(0, 1, (SEEDS, 80))
        low, high = bootstrap_interval(list(d), False, rng, draws=400)
        covered += low <= effect <= high
    assert covered / draws == pytest.approx(0.95, abs=error(0.95, draws) + 0.01)


def simulated_ranks(rng, arm_effect, of_seed, seeds=SEEDS, sessions=150):
    """Ranks of two arms, each (seeds, sessions): log ranks with parts of the session, the arm in a session,
    the seed, the run."""
    session = rng.normal(2.5, 1.2, sessions)

    def of_arm(shift):
        log_rank = session + shift + rng.normal(0, 0.6, sessions) + rng.normal(0, of_seed, (seeds, 1))
        return np.maximum(1, np.round(np.exp(log_rank + rng.normal(0, 0.3, (seeds, sessions)))))

    return of_arm(-arm_effect), of_arm(0.0)


@pytest.mark.parametrize("of_seed", [0.02, 0.3])
def test_verdicts_on_simulated_ranks(of_seed):
    """Two arms that are alike are told apart seldom, an arm with an effect mostly;
    the interval holds the truth."""
    rng, draws = np.random.default_rng(5), 200

    def compared(effect):
        arm, reference = simulated_ranks(rng, effect, of_seed)
        return compare(gains(arm, "ndcg@10"), gains(reference, "ndcg@10"), True, rng)

    alike = [compared(0.0) for _ in range(draws)]
    assert np.mean([c.low <= 0 <= c.high for c in alike]) == pytest.approx(
        0.95, abs=error(0.95, draws) + 0.01
    )
    wrong = np.mean([c.p < 0.05 and not c.low <= 0 <= c.high for c in alike])  # as a verdict reads them
    assert wrong <= 0.05 + error(0.05, draws)
    effect = 0.3 + 2 * of_seed
    arm, reference = simulated_ranks(rng, effect, of_seed, seeds=400, sessions=4000)
    truth = gains(arm, "ndcg@10").mean() - gains(reference, "ndcg@10").mean()
    real = [compared(effect) for _ in range(60)]
    assert np.mean([c.p < 0.05 and c.low > 0 for c in real]) > 0.8
    assert np.mean([c.difference for c in real]) == pytest.approx(truth, rel=0.15)
    assert np.mean([c.low <= truth <= c.high for c in real]) > 0.95 - error(0.95, 60) - 0.01

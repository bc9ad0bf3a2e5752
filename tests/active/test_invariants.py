"""What must hold in every game (hypothesis)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from known_games import SHARES, counts_of, exact_value, exact_worst_case, games, quotients

from recbole_alkd.active.max_min import solve_max_min, worst_case_gain
from recbole_alkd.active.policy.paper import definition_1

many = settings(deadline=None, max_examples=60)
# similar strictly worse than effective, incorrect strictly a loss
STRICT = [pair for pair in SHARES if pair[0] < 1 and pair[1] > 0]


def solve(game):
    gain, counts, a, b = game
    return solve_max_min(np.log(floats(gain)), *counts, similar=float(a), incorrect=float(b))


def floats(values):
    return np.array([float(v) for v in values])


def worst(p, game):
    gain, counts, a, b = game
    return worst_case_gain(p, floats(gain), *counts, float(a), float(b))


@many
@given(games())
def test_a_distribution_with_the_promised_worst_case(game):
    solution = solve(game)
    p = np.exp(solution.log_p)
    assert (p >= 0).all() and p.sum() == pytest.approx(1, abs=1e-12)
    assert (p > 0).sum() == solution.cutoff
    assert worst(p, game) == pytest.approx(solution.value, rel=1e-12, abs=1e-15 * float(max(game[0])))


@many
@given(games())
def test_the_certificate_is_feasible_and_tight(game):
    gain, counts, a, b = game
    solution = solve(game)
    effective, similar, incorrect = parts = solution.certificate()
    assert all((part >= 0).all() and (part <= 1).all() for part in parts)
    assert sum(parts) == pytest.approx(np.ones(len(gain)), abs=1e-12)
    assert [part.sum() for part in parts] == pytest.approx(counts, abs=1e-9)
    level = floats(gain) * (effective + float(a) * similar - float(b) * incorrect)
    assert level.max() == pytest.approx(solution.value, abs=1e-14 * float(max(gain)))
    assert solution.upper == pytest.approx(solution.value, rel=1e-12, abs=1e-300)


@many
@given(games(), st.data())
def test_no_policy_does_better(game, data):
    gain, counts, a, b = game
    value = exact_value(gain, counts, a, b)
    drawn = data.draw(st.lists(st.integers(0, 20), min_size=len(gain), max_size=len(gain)).filter(sum))
    p = floats(drawn) / sum(drawn)
    assert worst(p, game) <= float(value) + 1e-14 * float(max(gain))


@many
@given(games(), st.integers(-40, 40))
def test_scale_does_not_matter(game, power):
    gain, counts, a, b = game
    one, other = solve(game), solve(([g * 2**power for g in gain], counts, a, b))
    assert one.value_sign == other.value_sign
    assert np.exp(other.log_p) == pytest.approx(np.exp(one.log_p), rel=1e-9)
    if one.value_sign:
        assert other.log_abs_value - one.log_abs_value == pytest.approx(power * np.log(2), abs=1e-11)


@many
@given(games(), st.randoms(use_true_random=False))
def test_order_does_not_matter_and_equal_gains_are_treated_alike(game, random):
    gain, counts, a, b = game
    p = np.exp(solve(game).log_p)
    place = list(range(len(gain)))
    random.shuffle(place)
    moved = np.exp(solve(([gain[i] for i in place], counts, a, b)).log_p)
    assert moved == pytest.approx(p[place], rel=1e-12)
    for g in set(gain):
        same = p[[h == g for h in gain]]
        assert same == pytest.approx(np.full(len(same), same[0]), rel=1e-12)


@many
@given(games())
def test_worse_labels_never_raise_the_value(game):
    gain, (n_effective, n_similar, n_incorrect), a, b = game
    slack = 1e-14 * float(max(gain))
    if n_effective:
        assert (
            solve((gain, (n_effective - 1, n_similar + 1, n_incorrect), a, b)).value
            <= solve(game).value + slack
        )
    if n_similar:
        assert (
            solve((gain, (n_effective, n_similar - 1, n_incorrect + 1), a, b)).value
            <= solve(game).value + slack
        )


@many
@given(games(), st.data())
def test_a_larger_gain_never_lowers_a_value_that_is_not_negative(game, data):
    gain, counts, a, b = game
    before = solve(game)
    assume(before.value_sign >= 0)
    i = data.draw(st.integers(0, len(gain) - 1))
    raised = [*gain[:i], gain[i] * 3 / 2, *gain[i + 1 :]]
    assert solve((raised, counts, a, b)).value >= before.value * (1 - 1e-12)


@many
@given(games(shares=STRICT))
def test_the_sign_is_that_of_the_sum(game):
    _, counts, a, b = game
    assume(counts[2] > 0)
    total = counts[0] + a * counts[1] - b * counts[2]
    assert solve(game).value_sign == (total > 0) - (total < 0)


@many
@given(games(shares=STRICT))
def test_shape_of_a_positive_solution(game):
    """Level gains on the support, p rising towards the easier side, the cutoff where the next gain is too
    small."""
    gain, counts, a, b = game
    solution = solve(game)
    assume(solution.value_sign > 0)
    ordered = sorted(gain, reverse=True)
    held = np.exp(solve((ordered, counts, a, b)).log_p)
    k, mixed = solution.cutoff, counts[1] + counts[2]
    assert (held[:k] > 0).all() and not held[k:].any()
    weight = held[:k] * floats(ordered[:k])
    assert weight == pytest.approx(np.full(k, weight[0]), rel=1e-12)
    assert (np.diff(held[:k]) >= -1e-15).all()
    assert k > counts[2]
    value = float(exact_value(gain, counts, a, b))
    assert float(ordered[k - 1] * (a if k <= mixed else 1)) >= value * (1 - 1e-12)
    if k < len(gain):
        assert value >= float(ordered[k] * (a if k + 1 <= mixed else 1)) * (1 - 1e-12)


@many
@given(games(shares=STRICT))
def test_where_the_papers_policy_is_optimal(game):
    """It is exactly where some argmax of A_k / C_k does not exceed N - n_effective (or that is 0)."""
    gain, counts, a, b = game
    value = exact_value(gain, counts, a, b)
    assume(value > 0)
    mixed = counts[1] + counts[2]
    best = quotients(gain, counts, a, b)
    log_p = definition_1(np.log(floats(gain)), counts, similar=float(a), incorrect=float(b))
    reached = worst(np.exp(log_p), game)
    optimal = mixed == 0 or any(q == value for q in best[:mixed])
    slack = 1e-12 if optimal else -1e-13
    assert abs(reached / float(value) - 1) <= 1e-12 if optimal else reached < float(value) * (1 + slack)


@many
@given(games(max_size=8))
def test_worst_case_by_sorting_is_the_worst_of_all_assignments(game):
    gain, counts, a, b = game
    p = np.exp(solve(game).log_p)
    expected = exact_worst_case([float(x) for x in p], gain, counts, a, b)
    assert worst(p, game) == pytest.approx(float(expected), abs=1e-14 * float(max(gain)))


@many
@given(st.integers(1, 12), st.sampled_from(SHARES), st.sampled_from([0, 1, 2]))
def test_one_kind_only(n, shares, kind):
    a, b = shares
    gain = [n - s for s in range(n)]
    counts = [0, 0, 0]
    counts[kind] = n
    expected = [gain[0], a * gain[0], -b * gain[-1]][kind]
    assert solve((gain, tuple(counts), a, b)).value == pytest.approx(float(expected), rel=1e-12, abs=0)


@many
@given(
    st.integers(1, 30).flatmap(counts_of).filter(lambda c: sum(c) > 0),
    st.sampled_from([0.0, 0.1, 1.0, 10.0, 300.0]),
    st.sampled_from(SHARES),
)
def test_nothing_is_nan(counts, mu, shares):
    a, b = map(float, shares)
    solution = solve_max_min(-mu * np.log(np.arange(1, sum(counts) + 1)), *counts, similar=a, incorrect=b)
    assert not np.isnan(solution.log_p).any() and not np.isnan(solution.log_abs_value)
    assert not any(np.isnan(part).any() for part in solution.certificate())
    assert not np.isnan(solution.upper)

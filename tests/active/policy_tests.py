"""What every selection policy must do. A new one inherits ``PolicyTests`` by being registered (``test_policies``)."""

from __future__ import annotations

import json

import numpy as np
import pytest

from recbole_alkd.active.policy.base import Policy, Pool
from recbole_alkd.active.sampling import PoolExhausted
from recbole_alkd.registry import policies
from recbole_alkd.settings.groups import SelectionSettings

N = 60
COLUMNS = ("difficulty", "entropy", "disagreement")


def make_pool(n=N, allowed=frozenset(COLUMNS), counts=None):
    """A pool of n sessions "s0", "s1", ... in which only the ``allowed`` columns may be asked for."""
    rng = np.random.default_rng(n)

    def column(name):
        values = rng.random(n)

        def ask():
            assert name in allowed, f"{name} was asked for and is not in `needs`"
            return values

        return ask

    return Pool(np.array([f"s{i}" for i in range(n)]), *(column(name) for name in COLUMNS), counts=counts)


class PolicyTests:
    """Needs the fixture ``name``."""

    @pytest.fixture
    def build(self, name, tmp_path):
        picks = tmp_path / "picks.json"
        picks.write_text(json.dumps([f"s{i}" for i in reversed(range(N))]))

        def build(**changes) -> Policy:
            return policies.get(name)(SelectionSettings(alkd_policy=name, alkd_picks=str(picks), **changes))

        return build

    @pytest.mark.parametrize("size", [1, 7, N])
    def test_distinct_picks_from_declared_columns(self, build, size):
        policy = build(alkd_fill="next", alkd_mu=2)
        pool = make_pool(allowed=policy.needs)
        selection = policy.select(pool, size, np.random.default_rng(0))
        assert selection.picks.shape == (size,)
        assert len(set(selection.picks.tolist())) == size
        assert selection.picks.min() >= 0 and selection.picks.max() < N

    def test_the_seed_decides(self, build):
        first, second = (build().select(make_pool(), 7, np.random.default_rng(3)) for _ in range(2))
        assert (first.picks == second.picks).all()

    def test_what_it_says_of_itself(self, build):
        selection = build(alkd_mu=2).select(make_pool(), 7, np.random.default_rng(0))
        assert selection.filled == 0 and 7 <= selection.support <= N
        if selection.log_p is not None:
            assert np.exp(selection.log_p).sum() == pytest.approx(1)
            assert (selection.log_p > -np.inf).sum() == selection.support
            assert (selection.log_p[selection.picks] > -np.inf).all()
        if selection.value is not None:
            assert selection.gap == selection.upper - selection.value
            assert selection.gap >= -1e-12 * abs(selection.upper)

    @pytest.mark.parametrize("n", [0, 5])
    def test_too_small_a_pool_is_an_error_with_both_numbers(self, build, n):
        with pytest.raises(PoolExhausted) as error:
            build(alkd_fill="next").select(make_pool(n), 6, np.random.default_rng(0))
        assert (error.value.available, error.value.requested) == (n, 6)

    def test_a_pool_of_one(self, build):
        selection = build().select(make_pool(1), 1, np.random.default_rng(0))
        assert selection.picks.tolist() == [0]

    def test_the_docstring_states_needs_and_guarantee(self, build):
        text = type(build()).__doc__.lower()
        assert "needs" in text and "guarantee" in text

"""What every selection policy must hold, as a mixin.

A policy of your own gets all of it with ``class TestMine(PolicyTests): policy = "mine"``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from recbole_alkd.active.policy.base import Policy, Pool
from recbole_alkd.active.sampling import PoolExhausted
from recbole_alkd.registry import policies
from recbole_alkd.settings.reading import read_settings

N = 60
COLUMNS = ("difficulty", "entropy", "disagreement")


def make_pool(
    n: int = N, allowed: Collection[str] = COLUMNS, counts: tuple[int, int, int] | None = None
) -> Pool:
    """A pool of n sessions "s0", "s1", ... in which only the ``allowed`` columns may be asked for."""
    rng = np.random.default_rng(n)

    def column(name: str) -> Callable[[], np.ndarray]:
        values = rng.random(n)

        def ask() -> np.ndarray:
            assert name in allowed, f"{name} was asked for and is not in `needs`"
            return values

        return ask

    columns: dict[str, Any] = {name: column(name) for name in COLUMNS}
    return Pool(np.array([f"s{i}" for i in range(n)]), counts=counts, **columns)


class PolicyTests:
    """The laws of a selection policy.

    Attributes:
        policy: its ``alkd_policy`` name, or the class itself.
        settings: laid over the defaults, such as ``{"alkd_mu": 2}``; those that the policy declares as well.
    """

    policy: ClassVar[Any]
    settings: ClassVar[dict[str, Any]] = {}

    @pytest.fixture
    def build(self, tmp_path: Path) -> Callable[..., Policy]:
        """Makes the policy; arguments are settings."""
        picks = tmp_path / "picks.json"
        picks.write_text(json.dumps([f"s{i}" for i in reversed(range(N))]))

        def build(**changes: Any) -> Policy:
            named = {"alkd_policy": self.policy} if isinstance(self.policy, str) else {}
            policy_class = policies.get(self.policy) if named else self.policy
            values = {**named, "alkd_picks": str(picks), **self.settings, **changes}
            return policy_class(read_settings(values).selection)  # type: ignore[no-any-return]

        return build

    @pytest.mark.parametrize("size", [1, 7, N])
    def test_distinct_picks_from_declared_columns(self, build: Any, size: int) -> None:
        policy = build(alkd_fill="next", alkd_mu=2)
        pool = make_pool(allowed=policy.needs)
        selection = policy.select(pool, size, np.random.default_rng(0))
        assert selection.picks.shape == (size,)
        assert len(set(selection.picks.tolist())) == size
        assert selection.picks.min() >= 0 and selection.picks.max() < N

    def test_the_seed_decides(self, build: Any) -> None:
        first, second = (build().select(make_pool(), 7, np.random.default_rng(3)) for _ in range(2))
        assert (first.picks == second.picks).all()

    def test_nothing_global_is_drawn_from(self, build: Any) -> None:
        """Draws come from the generator that is passed: other parts of a run draw from the global one."""
        np.random.seed(5)
        before = np.random.get_state(legacy=True)
        build().select(make_pool(), 7, np.random.default_rng(3))
        assert str(np.random.get_state(legacy=True)) == str(before)

    def test_what_it_says_of_itself(self, build: Any) -> None:
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
    def test_too_small_a_pool_is_an_error_with_both_numbers(self, build: Any, n: int) -> None:
        with pytest.raises(PoolExhausted) as error:
            build(alkd_fill="next").select(make_pool(n), 6, np.random.default_rng(0))
        assert (error.value.available, error.value.requested) == (n, 6)

    def test_a_pool_of_one(self, build: Any) -> None:
        selection = build().select(make_pool(1), 1, np.random.default_rng(0))
        assert selection.picks.tolist() == [0]

    def test_the_docstring_states_needs_and_guarantee(self, build: Any) -> None:
        text = (type(build()).__doc__ or "").lower()
        assert "needs" in text and "guarantee" in text

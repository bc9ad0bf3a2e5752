"""Every registered policy, and what is special about some."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from known_games import HALF, KNOWN_PAPER, exact_worst_case

from recbole_alkd.active.gain import log_gain
from recbole_alkd.active.max_min import worst_case_gain
from recbole_alkd.active.policy.base import Pool
from recbole_alkd.active.policy.drawn import DrawnPolicy
from recbole_alkd.active.policy.listed import read_picks
from recbole_alkd.active.policy.paper import definition_1
from recbole_alkd.active.sampling import InclusionAboveOne, PoolExhausted
from recbole_alkd.registry import policies
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import SelectionSettings
from recbole_alkd.testing.policies import PolicyTests, make_pool

DRAWN = [name for name in policies if issubclass(policies.get(name), DrawnPolicy)]


for _name in policies:
    _class = f"Test{_name.title().replace('_', '')}"
    globals()[_class] = type(_class, (PolicyTests,), {"policy": _name})


def make(name, **settings):
    return policies.get(name)(SelectionSettings(alkd_policy=name, **settings))


def game_pool(difficulty, counts=None):
    def absent():
        raise AssertionError("only the difficulty is needed")

    return Pool(np.arange(len(difficulty)).astype(str), lambda: difficulty, absent, absent, counts)


def select(name, difficulty, size=1, counts=None, **settings):
    return make(name, **settings).select(game_pool(difficulty, counts), size, np.random.default_rng(0))


def test_no_policy_beats_max_min():
    """1,000 random games: the worst case of max_min is the largest, and is what it says."""
    rng = np.random.default_rng(1)
    others = [name for name in DRAWN if name != "max_min"]
    assert {"paper", "paper_printed", "rad_bc"} <= set(others)
    for _ in range(1000):
        n = int(rng.integers(1, 40))
        counts = tuple(int(c) for c in rng.multinomial(n, rng.dirichlet([0.5, 1, 0.7])))
        mu = float(rng.choice([0.1, 0.5, 1, 2, 10]))
        difficulty = rng.random(n)
        best = select("max_min", difficulty, counts=counts, alkd_mu=mu)
        gain = log_gain(difficulty, mu)
        slack = 1e-12 * abs(best.value) + 1e-300
        assert abs(
            worst_case_gain(np.exp(best.log_p), np.exp(gain), *counts) - best.value
        ) <= slack + 1e-15 * np.exp(gain.min())
        rivals = {name: select(name, difficulty, counts=counts, alkd_mu=mu) for name in others}
        for rival in rivals.values():
            assert rival.value <= best.value + slack
            assert rival.upper == pytest.approx(best.value, rel=1e-11, abs=1e-300)
        # policies without a game of their own, by their probabilities
        p = rng.dirichlet(np.ones(n))
        for other in (
            np.full(n, 1 / n),
            p,
            np.eye(n)[int(np.argmin(difficulty))],
            np.eye(n)[int(np.argmax(difficulty))],
        ):
            assert worst_case_gain(other, np.exp(gain), *counts) <= best.value + slack


@pytest.mark.parametrize(("gain", "counts", "p", "value", "printed_cutoff", "printed_value"), KNOWN_PAPER)
def test_the_papers_policy_as_the_paper_has_it(gain, counts, p, value, printed_cutoff, printed_value):
    g = np.array([float(x) for x in gain])
    policy = np.exp(definition_1(np.log(g), counts))
    assert worst_case_gain(policy, g, *counts) == pytest.approx(float(value), rel=1e-9)
    if p is not None:
        assert policy == pytest.approx([float(x) for x in p], rel=1e-12)
        assert exact_worst_case(p, gain, counts, HALF, HALF) == value
    printed = np.exp(definition_1(np.log(g), counts, printed=True))
    assert (printed > 0).sum() == printed_cutoff
    assert worst_case_gain(printed, g, *counts) == pytest.approx(float(printed_value), rel=1e-6)


@pytest.mark.parametrize(
    ("mu", "ratio", "paper", "printed"),
    [
        (0.1, [1, 5, 4], 0.8072, 0.8072),
        (1, [1, 5, 4], 0.8303, 0.8303),
        (10, [1, 5, 4], 0.9743, 0.8499),
        (1, [1, 8, 1], 1.0, 0.7121),
        (10, [4, 4, 2], 1.0, 0.0033),
        (10, [1, 1, 1], 0.8609, 0.1640),
    ],
)
def test_what_the_papers_policies_lose(mu, ratio, paper, printed):
    """N = 12,054: true worst case over the best possible one."""
    difficulty = -np.arange(12_054.0)
    for name, share in (("paper", paper), ("paper_printed", printed)):
        selection = select(name, difficulty, alkd_mu=mu, alkd_ratio=ratio)
        assert selection.value / selection.upper == pytest.approx(share, abs=5e-4)


def test_rad_bc_is_exact_where_nothing_is_similar():
    difficulty = np.random.default_rng(0).random(50)
    selection = select("rad_bc", difficulty, counts=(30, 0, 20), alkd_mu=2)
    assert selection.value == pytest.approx(selection.upper, rel=1e-12)
    mixed = select("rad_bc", difficulty, counts=(10, 20, 20), alkd_mu=10)
    assert mixed.value < mixed.upper


def test_rad_bc_cuts_the_papers_pool_at_two_thirds():
    assert select("rad_bc", -np.arange(12_054.0)).support / 12_054 == pytest.approx(0.660, abs=5e-4)


def test_a_budget_beyond_the_support_is_an_error():
    difficulty = -np.arange(100.0)
    with pytest.raises(PoolExhausted) as error:
        select("max_min", difficulty, 97)
    assert error.value.requested == 97 and error.value.available == select("max_min", difficulty).support < 97


def test_or_is_filled_from_the_next_best():
    difficulty = -np.arange(100.0)
    support = select("max_min", difficulty).support
    selection = select("max_min", difficulty, support + 3, alkd_fill="next")
    assert selection.filled == 3
    assert set(selection.picks[:support].tolist()) == set(range(support))
    assert selection.picks[support:].tolist() == [support, support + 1, support + 2]


def test_filling_where_only_the_smallest_gain_is_drawn():
    selection = select("max_min", -np.arange(6.0), 3, counts=(0, 0, 6), alkd_fill="next")
    assert selection.support == 1 and selection.filled == 2
    assert selection.picks.tolist() == [5, 4, 3]


@pytest.mark.parametrize(("size", "capped"), [(500, False), (2000, True)])
def test_pps_solves_the_capped_game_when_it_must(size, capped):
    difficulty = -np.arange(12_054.0)
    selection = select("max_min", difficulty, size, alkd_draw="pps")
    free = select("max_min", difficulty)
    assert len(selection.picks) == size and selection.filled == 0
    assert selection.log_p.max() <= -np.log(size) + 1e-9
    assert (selection.value < 0.99 * free.value) == capped
    assert abs(selection.gap) <= 1e-10 * selection.value


def test_pps_serves_a_budget_beyond_the_free_support():
    selection = select("max_min", -np.arange(100.0), 97, alkd_draw="pps")
    assert len(selection.picks) == 97 and selection.filled == 0 and selection.support >= 97


@pytest.mark.parametrize("name", [name for name in DRAWN if name != "max_min"])
def test_pps_of_a_policy_that_cannot_be_capped(name):
    with pytest.raises(InclusionAboveOne):
        select(name, -np.arange(100.0), 60, alkd_draw="pps")


def test_counts_of_the_pool_overrule_the_ratio():
    difficulty = np.random.default_rng(0).random(30)
    assert select("max_min", difficulty, counts=(30, 0, 0)).value == pytest.approx(1.0)
    with pytest.raises(AlkdError, match="they must be equal"):
        select("max_min", difficulty, counts=(30, 1, 0))
    with pytest.raises(AlkdError, match="alkd_ratio: 'pilot'"):
        select("max_min", difficulty, alkd_ratio="pilot")


def test_difficulties_that_are_nan_are_refused():
    for name in ("max_min", "hardest", "easiest"):
        with pytest.raises(AlkdError, match="NaN"):
            select(name, np.array([0.1, np.nan, 0.3]))


def test_deterministic_policies_take_the_extremes():
    difficulty = np.array([0.3, 0.9, 0.1, 0.9])
    assert select("hardest", difficulty, 3).picks.tolist() == [1, 3, 0]
    assert select("easiest", difficulty, 3).picks.tolist() == [2, 0, 1]
    pool = make_pool()
    for name in ("uncertainty", "disagreement"):
        column = pool.entropy() if name == "uncertainty" else pool.disagreement()
        picks = make(name).select(pool, 5, np.random.default_rng(0)).picks
        assert picks.tolist() == np.argsort(-column)[:5].tolist()


def listed(tmp_path, content, key="", size=2, **settings):
    file = tmp_path / "picks.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return make("listed", alkd_picks=f"{file}{key}", **settings).select(
        make_pool(), size, np.random.default_rng(0)
    )


def test_listed_keeps_the_files_order_and_reports_what_is_absent(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        selection = listed(tmp_path, ["s9", "gone", "s2", "s9", "s4", "s7"], size=3)
    assert selection.picks.tolist() == [9, 2, 4] and selection.support == 4
    assert "1 of 5 listed sessions are not in the pool" in caplog.text and "gone" in caplog.text


def test_listed_says_what_is_listed(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        listed(tmp_path, ["s9", "gone"], size=1, alkd_unit="item")
    assert "1 of 2 listed items are not in the pool" in caplog.text


def test_listed_reads_one_list_of_several(tmp_path):
    assert listed(tmp_path, {"random": ["s1", "s2"], "hardest": ["s5", "s3"]}, "#hardest").picks.tolist() == [
        5,
        3,
    ]
    # 3 is the token "3", not in the pool
    assert listed(tmp_path, {"ids": [3, "s5", "s3"]}, "#ids").picks.tolist() == [5, 3]


def test_listed_takes_the_last_instance_of_a_session(tmp_path):
    pool = Pool(np.array(["a", "b", "a"]), *([lambda: np.zeros(3)] * 3))
    file = tmp_path / "picks.json"
    file.write_text('["a"]')
    assert make("listed", alkd_picks=str(file)).select(pool, 1, np.random.default_rng(0)).picks.tolist() == [
        2
    ]


def test_a_name_with_a_hash_in_it_is_a_file_first(tmp_path):
    file = tmp_path / "run#1.json"
    file.write_text('["s1"]')
    assert read_picks(str(file)) == ["s1"]


@pytest.mark.parametrize(
    ("content", "key", "message"),
    [
        (
            {"random": ["s1"], "hardest": ["s2"]},
            "#easiest",
            "has no key 'easiest'; allowed: .*KEY one of random, hardest",
        ),
        ({"random": ["s1"]}, "", "holds several lists; allowed: .*random"),
        ({"dataset": "d", "seed": 1, "picks": ["s1"]}, "", "allowed: .*KEY one of picks$"),
        ({"dataset": "d"}, "", "allowed: .*KEY one of dataset$"),
        (["s1"], "#random", "holds a list and no key 'random'"),
        ("[s1", "", "is not JSON"),
        ("[" * 100_000, "", "is not JSON"),
        ([["s1"]], "", "is no list of ids"),
        ({"random": "s1"}, "#random", "is no list of ids"),
        ([True], "", "is no list of ids"),
    ],
)
def test_bad_files_are_named(tmp_path, content, key, message):
    with pytest.raises(AlkdError, match=message):
        listed(tmp_path, content, key)


def test_no_file_and_too_few_ids(tmp_path):
    with pytest.raises(AlkdError, match="cannot be read"):
        read_picks(str(tmp_path / "missing.json"))
    with pytest.raises(AlkdError, match="needs a JSON file"):
        read_picks(None)
    with pytest.raises(PoolExhausted) as error:
        listed(tmp_path, ["s1", "gone"], alkd_fill="next")
    assert (error.value.available, error.value.requested) == (1, 2)

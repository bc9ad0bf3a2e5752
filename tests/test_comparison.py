"""What the end of a run says of two rows of its table: right about chance, and about what it could
have seen."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recbole_alkd.trainer.comparison import (
    NO_DIFFERENCE,
    compare_rows,
    comparison_metric,
    shortest,
    table_line,
    told_apart,
)

NAMES = {"a": "student, distilled", "b": "student", "c": "popularity"}


def ranks_of(rng, sessions, best=0.03, items=1500):
    """Ranks of a weak recommender: a share of targets near the top, the rest anywhere."""
    rank = rng.integers(1, items + 1, sessions).astype(float)
    near = rng.random(sessions) < best * 10
    rank[near] = rng.geometric(0.06, near.sum())
    return rank


@pytest.mark.parametrize("metric", ["ndcg@10", "recall@10"])
@pytest.mark.parametrize("sessions", [60, 328])
def test_rows_that_do_not_differ_are_told_apart_in_one_of_twenty_at_most(sessions, metric):
    rng = np.random.default_rng(5)
    wrong, inside, rounds = 0, 0, 400
    for seed in range(rounds):
        base = ranks_of(rng, sessions)
        # two trainings of one model: each has moved a third of the ranks by itself
        rows = {}
        for name in "ab":
            moved = rng.random(sessions) < 1 / 3
            rows[name] = np.where(moved, ranks_of(rng, sessions), base)
        comparison = compare_rows(rows, "a", "b", metric, seed)
        wrong += comparison.verdict != NO_DIFFERENCE
        inside += comparison.low <= 0 <= comparison.high
    assert wrong <= 0.05 * rounds + 2 * math.sqrt(0.05 * 0.95 * rounds), f"{wrong} of {rounds}"
    assert wrong > 0 or sessions < 100, "a test that never rejects says nothing"
    assert inside >= 0.91 * rounds


def test_a_difference_of_the_size_that_it_names_is_found_in_four_of_five():
    rng = np.random.default_rng(3)
    detected, rounds, named = 0, 300, []
    for seed in range(rounds):
        ours, theirs = (rng.random(328) < share for share in (0.20, 0.12))
        rows = {"a": np.where(ours, 1.0, 99.0), "b": np.where(theirs, 1.0, 99.0)}
        one = compare_rows(rows, "a", "b", "recall@10", seed)
        detected += one.verdict == "better"
        named.append(one.detectable)
    assert np.mean(named) == pytest.approx(0.08, abs=0.004)  # 2.8 standard errors, the true difference here
    assert 0.7 <= detected / rounds <= 0.9


def test_four_lucky_sessions_are_no_difference():
    rows = {"a": np.full(328, 99.0), "b": np.full(328, 99.0)}
    rows["a"][:4] = 1.0
    one = compare_rows(rows, "a", "b", "recall@10", 1)
    assert one.low > 0, "the interval alone would be fooled"
    assert one.verdict == NO_DIFFERENCE


def test_the_words_say_what_could_have_been_seen():
    rng = np.random.default_rng(0)
    rows = {"a": ranks_of(rng, 328), "b": ranks_of(rng, 328)}
    one = compare_rows(rows, "a", "b", "ndcg@10", 1)
    line = one.words(NAMES)
    assert line.startswith("student, distilled, against student: ndcg@10 ")
    assert f"no measurable difference: 328 test sessions can show {shortest(one.detectable)} and more" in line
    same = compare_rows({"a": rows["a"], "b": rows["a"]}, "a", "b", "ndcg@10", 1)
    assert same.difference == same.low == same.high == 0 and same.verdict == NO_DIFFERENCE
    assert "all 328 test sessions gain the same" in same.words(NAMES)


def test_the_same_numbers_again():
    rng = np.random.default_rng(1)
    rows = {"a": ranks_of(rng, 100), "b": ranks_of(rng, 100)}
    assert compare_rows(rows, "a", "b", "mrr@10", 4) == compare_rows(rows, "a", "b", "mrr@10", 4)


def test_rows_are_told_apart_only_after_a_correction_for_their_number():
    rng = np.random.default_rng(2)
    alike = {f"row {k}": ranks_of(rng, 328) for k in range(8)}
    names = {name: name for name in alike}
    assert told_apart(alike, "ndcg@10", 1) == []
    line = table_line(alike, "ndcg@10", 1, names)
    assert (
        line.startswith("no two rows of this table can be told apart on its 328 test sessions")
        and "28 pairs" in line
    )
    good = alike | {"good": np.where(rng.random(328) < 0.5, 1.0, 50.0)}
    pairs = told_apart(good, "ndcg@10", 1)
    assert {better for better, _ in pairs} == {"good"} and len(pairs) == 8
    line = table_line(good, "ndcg@10", 1, names | {"good": "good"})
    assert "good above row 0" in line and "the other 28 pairs cannot" in line
    one_left = {"row 0": alike["row 0"], "row 1": rng.permutation(alike["row 0"]), "good": good["good"]}
    assert table_line(one_left, "ndcg@10", 1, names | {"good": "good"}).endswith(
        "; one pair cannot, and is in no order"
    )


@pytest.mark.parametrize(
    ("metrics", "valid_metric", "expected"),
    [
        (["recall@5", "ndcg@10"], "NDCG@10", "ndcg@10"),
        (["precision@5", "mrr@20"], "Precision@5", "mrr@20"),
        (["itemcoverage@10"], "ItemCoverage@10", None),
    ],
)
def test_the_metric_follows_from_ranks(metrics, valid_metric, expected):
    assert comparison_metric(metrics, valid_metric) == expected


@pytest.mark.parametrize(
    ("value", "text"), [(0.00612, "0.0061"), (0.0204, "0.020"), (0.31, "0.31"), (1.4, "1.4"), (0.0, "0")]
)
def test_two_digits_count(value, text):
    assert shortest(value) == text

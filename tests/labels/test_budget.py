"""The budget: exact sums, no limit ever passed, and words for why it ended."""

import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_alkd.labels import Budget
from recbole_alkd.labels.budget import Amount


def test_ten_dimes_are_a_dollar() -> None:
    budget = Budget(labels=100, usd=1)
    for _ in range(10):
        budget.reserve(usd=0.1).settle(usd=0.1)
    assert budget.spent == Amount(10, 0, 1.0)
    assert budget.left == Amount(90, None, 0.0)
    assert budget.reserve(usd=1e-9) is None
    assert budget.ended == "usd"
    assert budget.refusal == "budget_usd: 1.0 of 1.0 spent, 0 left, the next request may take 0.000000001"


def test_what_is_in_flight_counts() -> None:
    budget = Budget(labels=10, tokens=100)
    first = budget.reserve(tokens=60)
    assert budget.reserve(tokens=60) is None
    assert budget.ended == "tokens"
    assert (
        budget.refusal == "budget_tokens: 0 of 100 spent and 60 reserved by requests in flight, 40 left, "
        "the next request may take 60"
    )
    first.settle(tokens=20)
    second = budget.reserve(tokens=60)
    assert budget.ended is None and budget.refusal is None
    assert budget.left == Amount(8, 20, None)
    second.release()
    assert budget.spent == Amount(1, 20, 0.0)


def test_labels_end_it_and_a_failed_answer_gives_its_label_back() -> None:
    budget = Budget(labels=1)
    budget.reserve(usd=5).settle(usd=5, labels=0)
    assert budget.spent == Amount(0, 0, 5.0)
    budget.reserve().settle()
    assert budget.reserve() is None
    assert budget.ended == "labels"


def test_a_reservation_ends_once() -> None:
    reservation = Budget(labels=1).reserve()
    reservation.release()
    with pytest.raises(ValueError, match="settled or released before"):
        reservation.settle()


@pytest.mark.parametrize("values", [{"tokens": -1}, {"usd": -0.1}, {"usd": float("nan")}, {"labels": -1}])
def test_negative_amounts_are_refused(values: dict) -> None:
    with pytest.raises(ValueError, match="allowed: a number of at least 0"):
        Budget(labels=1).reserve(**values)


def test_more_than_reserved_is_told_as_it_is() -> None:
    budget = Budget(labels=5, tokens=10)
    budget.reserve(tokens=10).settle(tokens=12)
    assert budget.spent.tokens == 12 and budget.left.tokens == 0
    assert budget.reserve(tokens=1) is None


@given(
    st.lists(
        st.tuples(
            st.integers(0, 50),
            st.floats(0, 1),
            st.floats(0, 1),
            st.sampled_from(["settle", "release", "keep"]),
        )
    ),
    st.integers(0, 20),
    st.integers(0, 300),
    st.floats(0, 5),
)
def test_no_limit_is_passed(requests: list, labels: int, tokens: int, usd: float) -> None:
    budget = Budget(labels, tokens, usd)
    for upper_tokens, upper_usd, share, end in requests:
        reservation = budget.reserve(upper_tokens, upper_usd)
        if reservation is None:
            limit = {"labels": labels, "tokens": tokens, "usd": usd}[budget.ended]
            assert limit < float("inf")
            continue
        if end == "settle":
            reservation.settle(int(upper_tokens * share), upper_usd * share)
        elif end == "release":
            reservation.release()
        spent = budget.spent
        assert spent.labels <= labels and spent.tokens <= tokens and spent.usd <= usd


def test_32_threads_never_pass_a_limit() -> None:
    budget = Budget(labels=700, tokens=10_000, usd=1.0)
    worst = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        while True:
            tokens, usd = rng.randrange(1, 40), rng.random() / 100
            reservation = budget.reserve(tokens, usd)
            if reservation is None:
                return
            reservation.settle(rng.randrange(tokens + 1), usd * rng.random())
            spent = budget.spent
            worst.append((spent.labels, spent.tokens, spent.usd))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(w[0] for w in worst) <= 700
    assert max(w[1] for w in worst) <= 10_000
    assert max(w[2] for w in worst) <= 1.0
    assert max(w[1] for w in worst) > 9_000 or max(w[2] for w in worst) > 0.9  # it was used up, not given up

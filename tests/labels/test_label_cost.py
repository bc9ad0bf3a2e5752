"""The one value for what was asked: sums, prices that are not known, and bounds that somebody else's code
states."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_alkd.labels.cost import Cost, read_bound, read_cost, total
from recbole_alkd.labels.label import Label
from recbole_alkd.settings.error import AlkdError

COSTS = st.builds(
    Cost,
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.floats(0, 1e6),
    st.none() | st.floats(0, 1e6),
)


def test_a_price_that_is_not_known_is_left_out_of_a_sum():
    assert Cost(1, 2, 3.0) + Cost(10, 20, 30.0, 0.5) == Cost(11, 22, 33.0, 0.5)
    assert (Cost() + Cost()).usd is None
    assert (Cost(usd=0.0) + Cost()).usd == 0.0
    assert total([]) == Cost()
    assert Cost(usd=4.0).at(0.5) == Cost(usd=2.0) and Cost(7).at(0.5) == Cost(7)


@given(st.lists(COSTS, max_size=8))
def test_a_total_is_the_sum(costs):
    added = Cost()
    for cost in costs:
        added += cost
    whole = total(costs)
    assert whole.tokens == added.tokens == sum(cost.prompt_tokens + cost.completion_tokens for cost in costs)
    assert math.isclose(whole.seconds, added.seconds, abs_tol=1e-9)
    assert (whole.usd is None) == all(cost.usd is None for cost in costs) == (added.usd is None)
    assert math.isclose(whole.usd or 0.0, added.usd or 0.0, abs_tol=1e-9)


def test_a_label_and_what_a_file_holds_give_a_cost():
    assert Label("k", ("a",), prompt_tokens=3, completion_tokens=4, seconds=0.5, usd=0.1).cost == Cost(
        3, 4, 0.5, 0.1
    )
    assert read_cost(3, "many", -1.0, float("nan")) == Cost(3)


@pytest.mark.parametrize(
    ("stated", "most"),
    [
        (Cost(3, 4, usd=0.1), Cost(3, 4, usd=0.1)),
        ((7, None), Cost(7)),
        ((7, 0.5), Cost(7, usd=0.5)),
        ((6.2, None), Cost(7)),  # a part of a token is a token
        ((np.int64(7), np.float64(0.5)), Cost(7, usd=0.5)),
    ],
)
def test_a_bound_is_a_cost_or_a_pair(stated, most):
    assert read_bound(stated, "x") == most


@pytest.mark.parametrize(
    "stated",
    [7, 0.5, None, (7,), (7, 0.5, 1), (-1, None), (7, -0.1), (float("inf"), None), ("7", None), [7, 1]],
)
def test_one_number_and_other_things_are_no_bound(stated):
    with pytest.raises(
        AlkdError,
        match=r"^llm_teacher: m\.Mine: .* does not say what a request may take; allowed: a Cost, or",
    ):
        read_bound(stated, "llm_teacher: m.Mine")

"""The first-order Markov chain of the plans against a loop over transitions."""

import itertools
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import create_dataset, tiny_config, tiny_model

from recbole_alkd.bench.arms import CHAIN
from recbole_alkd.model.choosing import Counting, Tables
from recbole_alkd.model.counting import training_sessions
from recbole_alkd.model.neighbours import profiles

N = 7
HOW = Counting(repeat=0, backward=0, gap_decay=0, decay=0, source_exponent=0, target_exponent=0)


@settings(max_examples=60, deadline=None)
@given(
    sessions=st.lists(st.lists(st.integers(1, N - 1), min_size=1, max_size=8), min_size=1, max_size=8),
    data=st.data(),
)
def test_it_counts_what_follows_the_last_item(sessions, data):
    flat = np.array([item for one in sessions for item in one])
    table = Tables(flat, np.cumsum([0, *map(len, sessions)]), N, [0.0])(HOW)
    follows = Counter((a, b) for one in sessions for a, b in itertools.pairwise(one) if a != b)
    session = np.array([data.draw(st.lists(st.integers(1, N - 1), min_size=4, max_size=4))])
    scores = (profiles(session, np.array([3]), HOW.decay, 10, N) @ table).toarray()[0]
    assert scores.tolist() == [follows[session[0, 2], item] for item in range(N)]


def test_the_arm_is_that_chain_with_repeats_and_popularity_from_validation(tiny_path):
    settings = {key: value for key, value in CHAIN.items() if key.startswith("knn_")}
    config = tiny_config(tiny_path, model="SessionKNN", **settings)
    train, valid, _ = create_dataset(config).build()
    model = tiny_model(config, train)
    facts = model.count(train, valid).facts
    assert {
        key: facts[key] for key in ("backward", "gap_decay", "decay", "source_exponent")
    } == dict.fromkeys(("backward", "gap_decay", "decay", "source_exponent"), 0)
    assert facts["tried"] == 4 * 4, "repeats and popularity"
    flat, offsets = training_sessions(train)
    follows = {
        (int(flat[i]), int(flat[i + 1]))
        for begin, end in itertools.pairwise(offsets)
        for i in range(begin, end - 1)
        if flat[i] != flat[i + 1]
    }
    rows = np.repeat(np.arange(model.n_items), np.diff(model.indptr.numpy()))
    pairs = {(int(a), int(b)) for a, b in zip(rows, model.indices.tolist(), strict=True) if a != b}
    assert pairs == follows

"""VSTAN against loops over sessions as its authors wrote them, and what its weights must do."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import create_dataset, tiny_config, tiny_model

from recbole_alkd.model import session_neighbours, vstan
from recbole_alkd.model.counting import training_sessions
from recbole_alkd.model.scoring import mean_ranks
from recbole_alkd.model.session_neighbours import SessionMemory, Vstan
from recbole_alkd.settings.error import AlkdError

N = 9


def looped(sessions, how, session):
    """Scores (N,) of one session, item by item."""
    weight = {}
    for place, item in enumerate(session):
        weight[item] = math.exp((place + 1 - len(session)) / how.position) if how.position else 1.0
    similar = []
    for number, other in enumerate(sessions):
        common = set(other) & set(session)
        if common:
            value = sum(weight[item] for item in common) / math.sqrt(sum(w * w for w in weight.values()))
            value /= math.sqrt(len(set(other)))
            if how.recency:
                value *= math.exp(-((len(sessions) - 1 - number) / len(sessions)) / how.recency)
            similar.append((-value, -number))
    scores = np.zeros(N)
    for value, number in sorted(similar)[: how.neighbors]:
        other = sessions[-number]
        last = {item: place for place, item in enumerate(other)}
        star = max(place for place, item in enumerate(other) if item in session)
        newest = max(place for place, item in enumerate(session) if item in other)
        for item, place in last.items():
            score = -value
            if how.distance:
                score *= math.exp(-abs(place - star) / how.distance)
            if how.common:
                score *= math.exp(-(len(session) - 1 - newest) / how.common)
            times = sum(item in one for one in sessions)
            scores[item] += score * (1 + how.idf * math.log(len(sessions) / times))
    return scores


def arrays(sessions):
    flat = np.array([item for one in sessions for item in one], dtype=np.int64)
    return flat, np.cumsum([0, *map(len, sessions)])


def padded(sessions):
    width = max(map(len, sessions))
    rows = np.array([[*one, *[0] * (width - len(one))] for one in sessions])
    return rows, np.array([len(one) for one in sessions])


some_sessions = st.lists(st.lists(st.integers(1, N - 1), min_size=1, max_size=6), min_size=1, max_size=8)
scale = st.sampled_from([0.0, 0.5, 2.0])
hows = st.builds(
    Vstan, st.integers(1, 5), scale, scale, scale, st.sampled_from([0.0, 2.0]), st.sampled_from([0.0, 0.3])
)


@settings(max_examples=150, deadline=None)
@given(sessions=some_sessions, asked=some_sessions, how=hows, entries=st.sampled_from([1, 1 << 22]))
def test_scores_are_those_of_the_loop(sessions, asked, how, entries):
    before, session_neighbours._ENTRIES = session_neighbours._ENTRIES, entries
    try:
        scores = SessionMemory(*arrays(sessions), N).scores(how, *padded(asked))
    finally:
        session_neighbours._ENTRIES = before
    wanted = np.stack([looped(sessions, how, one) for one in asked])
    np.testing.assert_allclose(scores.toarray(), wanted, rtol=1e-5, atol=1e-7)


def test_without_weights_it_is_the_cosine_of_sessions():
    sessions = [[1, 2], [1, 2, 3, 4], [5, 6]]
    how = Vstan(neighbors=9, position=0, distance=0, common=0, idf=0, recency=0)
    scores = SessionMemory(*arrays(sessions), N).scores(how, *padded([[1, 2]])).toarray()[0]
    np.testing.assert_allclose(
        scores[[1, 2, 3, 4, 5]], [1 + 2**-0.5, 1 + 2**-0.5, 2**-0.5, 2**-0.5, 0], rtol=1e-6
    )


def test_one_neighbour_is_the_newest_of_equals():
    sessions = [[1, 2], [1, 3]]
    one = SessionMemory(*arrays(sessions), N).scores(Vstan(neighbors=1, idf=0), *padded([[1]])).toarray()[0]
    assert one[3] > 0 == one[2]


def test_an_unknown_item_has_no_neighbour_and_no_rows_have_no_scores():
    memory = SessionMemory(*arrays([[1, 2]]), N)
    assert memory.scores(Vstan(), *padded([[7]])).nnz == 0
    assert memory.scores(Vstan(), np.zeros((0, 3), dtype=int), np.zeros(0, dtype=int)).shape == (0, N)


@pytest.fixture(scope="module")
def fitted(tiny_path):
    config = tiny_config(tiny_path, model="VSTAN")
    train, valid, test = create_dataset(config).build()
    model = tiny_model(config, train).eval()
    return model, model.count(train, valid), (train, valid, test)


def test_validation_chooses_and_says_so(fitted):
    model, counted, (train, *_) = fitted
    assert counted.facts["tried"] > 20 and counted.facts["valid"] >= 0
    assert counted.facts["neighbors"] in (100, 500, 1500)
    assert model.how.tolist() == [counted.facts[name] for name in Vstan._fields]
    flat, offsets = training_sessions(train)
    assert np.array_equal(model.items.numpy(), flat) and np.array_equal(model.starts.numpy(), offsets)


@pytest.mark.parametrize("masked", [False, True])
def test_ranks_are_those_of_all_scores(fitted, masked):
    model, _, (*_, test) = fitted
    rows = test.inter_feat
    item_seq, length, target = rows["item_id_list"], rows["item_length"], rows["item_id"]
    scores = model.scores(item_seq, length)
    if masked:
        scores.scatter_(1, item_seq, -torch.inf)
    ranks = model.view_class(model, None).target_ranks(item_seq, length, target, masked)
    assert ranks.tolist() == mean_ranks(scores, target).tolist()


def test_the_state_is_all_of_it(fitted, tiny_path):
    model, _, (train, _, test) = fitted
    other = tiny_model(tiny_config(tiny_path, model="VSTAN"), train).eval()
    rows = test.inter_feat
    assert not other.scores(rows["item_id_list"], rows["item_length"]).any(), "it has not been fitted"
    other.load_state_dict(model.state_dict())
    parts = rows["item_id_list"], rows["item_length"]
    assert torch.equal(other.scores(*parts), model.scores(*parts))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"vstan_neighbors": 0}, "vstan_neighbors: 0 .* an integer of at least 1"),
        ({"vstan_neighbors": [5, 1.5]}, "vstan_neighbors"),
        ({"vstan_idf": -1}, "vstan_idf: -1 .* a number of at least 0"),
        ({"vstan_recency": []}, "vstan_recency"),
    ],
)
def test_settings_that_cannot_be_are_refused(tiny_path, settings, words):
    with pytest.raises(AlkdError, match=words):
        config = tiny_config(tiny_path, model="VSTAN", **settings)
        tiny_model(config, create_dataset(config).build()[0])


def test_long_sessions_leave_fewer_targets_to_choose_by(tiny_path, monkeypatch):
    monkeypatch.setattr(vstan, "_ENTRIES_A_TRY", 1)
    monkeypatch.setattr(vstan, "_LEAST_TARGETS", 7)
    config = tiny_config(tiny_path, model="VSTAN", vstan_position=[1, 2])
    train, valid, _ = create_dataset(config).build()
    assert tiny_model(config, train).count(train, valid).facts["targets"] == 7

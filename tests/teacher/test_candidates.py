"""Candidate lists against plain loops, and the two promises of LoRA's examples:
unseen lists, no labelled pair."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from recbole_alkd.labelling.candidates import (
    cross_fitted_lists,
    insert_target,
    prefix_examples,
    top_candidates,
)
from recbole_alkd.model.backbone import Backbone
from recbole_alkd.settings.error import AlkdError

N_ITEMS = 12


class Bag(nn.Module):
    """Scores of an item: a table row summed over the session's items;
    dropout shows whether evaluation mode is on."""

    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(torch.randn(N_ITEMS, N_ITEMS, generator=generator))
        self.dropout = nn.Dropout(0.5)


class BagView(Backbone):
    def __init__(self, seed=0):
        super().__init__(Bag(seed))
        self.batches = []

    def scores(self, item_seq, item_seq_len):
        self.batches.append(len(item_seq))
        return self.model.dropout(self.model.table[item_seq].sum(1))


def sessions_to_tensors(sessions, width=6):
    item_seq = torch.zeros(len(sessions), width, dtype=torch.long)
    for row, session in zip(item_seq, sessions, strict=True):
        row[: len(session)] = torch.tensor(session)
    return item_seq, torch.tensor([len(session) for session in sessions])


def best(seed, session, size, width=6):
    padded = list(session) + [0] * (width - len(session))
    scores = Bag(seed).table[torch.tensor(padded)].sum(0).tolist()
    left = [item for item in range(1, N_ITEMS) if item not in session]
    return sorted(left, key=lambda item: -scores[item])[:size]


SESSIONS = [[1, 2], [3], [11, 4, 11], [5, 6, 7, 8], [2, 1]]


@pytest.mark.parametrize("batch_size", [1, 2, 1024])
def test_candidates_are_the_best_items_outside_the_session(batch_size):
    view = BagView()
    candidates = top_candidates(view, *sessions_to_tensors(SESSIONS), 5, batch_size)
    assert candidates.tolist() == [best(0, session, 5) for session in SESSIONS]
    assert max(view.batches) <= batch_size


def test_the_model_keeps_its_mode():
    for training in (True, False):
        view = BagView()
        view.model.train(training)
        top_candidates(view, *sessions_to_tensors(SESSIONS), 5)
        assert view.model.training is training


def test_more_candidates_than_items_are_an_error():
    item_seq, lengths = sessions_to_tensors(SESSIONS)
    assert top_candidates(BagView(), item_seq, lengths, 7).shape == (5, 7)
    with pytest.raises(AlkdError, match="llm_candidates: 8 is more than the 7 items outside a session"):
        top_candidates(BagView(), item_seq, lengths, 8)


def test_no_session_no_list():
    assert top_candidates(
        BagView(), torch.zeros(0, 3, dtype=torch.long), torch.zeros(0, dtype=torch.long), 4
    ).shape == (0, 4)


def test_an_absent_target_takes_the_last_place():
    candidates = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    inserted, natural = insert_target(candidates, torch.tensor([2, 9, 7]))
    assert inserted.tolist() == [[1, 2, 3], [4, 5, 9], [7, 8, 9]]
    assert natural.tolist() == [True, False, True]
    assert candidates.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


items = st.integers(1, 5)
some_sessions = st.lists(st.lists(items, min_size=1, max_size=7).map(np.array), min_size=1, max_size=12)


@given(some_sessions, st.integers(1, 4), st.integers(0, 9))
def test_examples_come_from_inside_and_are_never_a_label(sessions, most, seed):
    def draw(count):
        return prefix_examples(sessions, count, np.random.default_rng(seed), most)

    try:
        draw(10**6)
    except AlkdError as error:
        available = int(str(error).rsplit(" ", 1)[1])
    labels = {(tuple(session[:-1]), session[-1]) for session in sessions}
    # the oracle: every position that may be an example
    fit = {
        (index, position)
        for index, session in enumerate(sessions)
        for position in range(1, len(session) - 1)
        if session[position] not in session[:position]
        and (tuple(session[:position]), session[position]) not in labels
    }
    per_session = [min(most, sum(index == k for index, _ in fit)) for k in range(len(sessions))]
    assert available == sum(per_session)
    drawn = draw(available)
    assert set(drawn) <= fit
    assert len(set(drawn)) == available
    assert np.bincount([index for index, _ in drawn], minlength=len(sessions)).tolist() == per_session
    assert draw(available) == drawn


def test_a_smaller_draw_is_spread_over_the_sessions():
    sessions = [np.arange(1, 8) + 7 * k for k in range(30)]
    drawn = prefix_examples(sessions, 30, np.random.default_rng(0), 3)
    assert len(drawn) == 30
    assert len({index for index, _ in drawn}) > 12


def test_lists_come_from_the_recommender_that_did_not_see_the_session():
    sessions = [np.array(s) for s in ([1, 2, 3, 4], [5, 6, 7], [2, 4, 6, 8], [9, 8, 7])]
    examples = [(2, 2), (0, 1), (1, 1), (3, 1), (0, 2)]
    folds = np.array([0, 1, 1, 0])
    lists = cross_fitted_lists(sessions, examples, folds, [BagView(0), BagView(1)], 4, max_length=6)
    wanted = [best(int(folds[s]), sessions[s][:position].tolist(), 4) for s, position in examples]
    assert lists.tolist() == wanted


def test_long_histories_keep_their_last_items():
    sessions = [np.array([1, 2, 3, 4, 5, 6])]
    lists = cross_fitted_lists(sessions, [(0, 5)], [0], [BagView(0)], 4, max_length=2)
    assert lists.tolist() == [best(0, [4, 5], 4, width=2)]

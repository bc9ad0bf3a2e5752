"""Counts with a direction and a gap against loops over sessions; repeats;
what the grid finds in sessions that have an order."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from tiny import create_dataset, tiny_config, tiny_model, training_part

from recbole_alkd.data import pairs
from recbole_alkd.model import choosing, counting
from recbole_alkd.model.choosing import Counting, Sessions, plain, search
from recbole_alkd.model.counting import (
    both_ways,
    forward_counts,
    session_counts,
    training_sessions,
    with_repeats,
)

N = 9


def flattened(sessions):
    return np.array([item for session in sessions for item in session]), np.cumsum([0, *map(len, sessions)])


def oracle(sessions, gap_decay, longest=100):
    counts = np.zeros((N, N))
    for session in sessions:
        for a, i in enumerate(session):
            for b in range(a + 1, min(len(session), a + 1 + longest)):
                if session[b] != i:
                    counts[i, session[b]] += gap_decay ** (b - a - 1)
    return counts


some_sessions = st.lists(st.lists(st.integers(1, N - 1), min_size=1, max_size=7), min_size=1, max_size=6)


@given(some_sessions)
@settings(deadline=None)
def test_forward_counts_equal_the_loop(sessions):
    decays = [1.0, 0.5, 0.0]
    for decay, counted in zip(decays, forward_counts(*flattened(sessions), N, decays), strict=True):
        np.testing.assert_allclose(counted.toarray(), oracle(sessions, decay), rtol=1e-5)
        assert counted.has_sorted_indices and (counted.data > 0).all()
    counts = Counter(item for session in sessions for item in set(session))
    assert session_counts(*flattened(sessions), N).tolist() == [counts[item] for item in range(N)]


@given(some_sessions, st.sampled_from([0.0, 0.2, 1.0]))
@settings(deadline=None)
def test_both_ways_adds_what_comes_before(sessions, backward):
    (forward,) = forward_counts(*flattened(sessions), N, [0.8])
    expected = oracle(sessions, 0.8) + backward * oracle(sessions, 0.8).T
    np.testing.assert_allclose(both_ways(forward, backward).toarray(), expected, rtol=1e-5)


def test_a_block_at_a_time_gives_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    sessions = flattened([rng.integers(1, N, size=size).tolist() for size in rng.integers(1, 30, size=40)])
    whole = forward_counts(*sessions, N, [1.0, 0.6])
    monkeypatch.setattr(pairs.PairCounter.__init__, "__defaults__", (None, 50))
    for a, b in zip(whole, forward_counts(*sessions, N, [1.0, 0.6]), strict=True):
        assert np.array_equal(a.toarray(), b.toarray())  # to the last bit


def test_one_endless_session_takes_no_more_than_its_clicks(monkeypatch):
    """A place counts with a bounded number of places after it, whatever the session's length."""
    monkeypatch.setattr(counting, "LONGEST_GAP", 3)
    session = [1, 2, 3, 4, 5, 6, 7, 8]
    (counts,) = forward_counts(*flattened([session]), N, [1.0])
    np.testing.assert_allclose(counts.toarray(), oracle([session], 1.0, longest=3))
    clicks = 12_000
    (long,) = forward_counts(np.arange(1, clicks + 1), np.array([0, clicks]), clicks + 1, [1.0])
    assert long.nnz <= 3 * clicks


def test_today_and_the_markov_chain_are_corners_of_the_grid(tiny_path):
    """Backward 1 and gap 1: in how many sessions two items meet.
    Backward 0 and gap 0: how often one follows the other."""
    part = training_part(create_dataset(tiny_config(tiny_path)))
    flat, offsets = training_sessions(part)
    tables = choosing.Tables(flat, offsets, part.item_num, [1.0, 0.0])
    sessions = [flat[a:b].tolist() for a, b in pairwise(offsets)]
    together = np.zeros((part.item_num, part.item_num))
    follows = np.zeros_like(together)
    for session in sessions:  # no item is twice in a session here
        for i in session:
            together[i, [j for j in session if j != i]] += 1
        for i, j in pairwise(session):
            follows[i, j] += 1
    table = tables(Counting(backward=1, gap_decay=1, source_exponent=0, target_exponent=0)).toarray()
    assert np.array_equal(table, together)
    table = tables(Counting(backward=0, gap_decay=0, source_exponent=0, target_exponent=0)).toarray()
    assert np.array_equal(table, follows)


@pytest.mark.parametrize("augmentation", ["prefix", "last"])
def test_sessions_are_whole_however_rows_are_made_and_cut(tiny_path, augmentation):
    whole = training_part(create_dataset(tiny_config(tiny_path, session_augmentation="last")))
    cut = training_part(
        create_dataset(tiny_config(tiny_path, session_augmentation=augmentation, MAX_ITEM_LIST_LENGTH=2))
    )
    for a, b in zip(training_sessions(whole), training_sessions(cut), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("longest", [50, 3])
def test_rows_of_recboles_own_data_set_become_sessions_again(tmp_path, longest):
    rng = np.random.default_rng(0)
    (tmp_path / "plain").mkdir()
    sessions = {f"u{u}": rng.permutation(12)[: 5 + u].tolist() for u in range(8)}
    clicks = [f"{u}\ti{i}\t{t}" for u, items in sessions.items() for t, i in enumerate(items)]
    (tmp_path / "plain" / "plain.inter").write_text(
        "\n".join(["session_id:token\titem_id:token\ttimestamp:float", *clicks]) + "\n"
    )
    own = {
        "benchmark_filename": None,
        "load_col": {"inter": ["session_id", "item_id", "timestamp"]},
        "alias_of_item_id": None,
    }
    leave_out = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"}
    config = tiny_config(
        tmp_path,
        model="GRU4Rec",
        dataset="plain",
        MAX_ITEM_LIST_LENGTH=longest,
        TIME_FIELD="timestamp",
        eval_args=leave_out,
        **own,
    )
    dataset = create_dataset(config)
    token = dataset.field2id_token["item_id"]
    train = dataset.build()[0]
    assert not hasattr(train, "session_items")
    flat, offsets = training_sessions(train)
    read_back = {tuple(token[flat[a:b]]) for a, b in pairwise(offsets)}
    # the last two are held out
    assert read_back == {tuple(f"i{i}" for i in items[:-2]) for items in sessions.values()}


# repeats


def test_repeats_are_edges_to_the_item_itself():
    table = csr_array(np.array([[0, 0, 0, 0], [0, 0, 2.0, 4], [0, 6, 0, 0], [0, 0, 0, 0]], dtype=np.float32))
    repeated = with_repeats(table, 8)
    expected = table.toarray() + np.diag([0, 32, 32, 32])
    assert np.array_equal(repeated.toarray(), expected) and repeated.has_sorted_indices
    assert with_repeats(table, 0) is table
    assert with_repeats(csr_array((3, 3), dtype=np.float32), 8).nnz == 0


# choosing


def test_the_search_finds_the_best_of_a_large_grid_with_one_hill():
    grid = {key: [0.0, 0.25, 0.5, 0.75, 1.0] for key in Counting._fields}
    best = Counting(0.25, 0.75, 0.5, 1.0, 0.0, 0.25)

    def gains_of(hows):
        return [np.full(3, -sum(abs(a - b) for a, b in zip(how, best, strict=True))) for how in hows]

    tried = search(grid, plain(grid), gains_of)
    assert max(tried, key=lambda how: tried[how].mean()) == best
    assert len(tried) < 100 < 5**6


def test_a_small_grid_is_tried_whole():
    grid = {**{key: [1.0] for key in Counting._fields}, "decay": [0.1, 0.2], "repeat": [0.0, 5.0, 7.0]}
    assert len(search(grid, plain(grid), lambda hows: np.zeros((len(hows), 2)))) == 6


def some_rows(item_seq, length, target, masked=False):
    return Sessions(
        np.array(item_seq),
        np.array(length),
        np.array(target),
        np.arange(len(target)),
        N,
        10,
        masked,
        "NDCG@10",
    )


def test_earlier_items_are_targets_where_sessions_are_few():
    rows = some_rows([[1, 2, 3], [4, 0, 0], [5, 6, 0]], [3, 1, 2], [7, 8, 7])
    more = rows.with_earlier(1000)
    assert more.target.tolist() == [7, 8, 7, 3, 6, 2]
    assert more.item_seq.tolist() == [[1, 2, 3], [4, 0, 0], [5, 6, 0], [1, 2, 0], [5, 0, 0], [1, 0, 0]]
    assert more.length.tolist() == [3, 1, 2, 2, 1, 1] and more.session.tolist() == [0, 1, 2, 0, 2, 0]
    assert rows.with_earlier(3).target.tolist() == [7, 8, 7], "enough"
    gains = np.array([1, 0, 1, 1, 0, 0.5])
    assert more.by_session(gains).mean() == pytest.approx(gains.mean())
    assert more.by_session(gains).tolist() == pytest.approx([2.5 / 2, 0, 1 / 2])


@given(some_sessions, st.booleans())
@settings(deadline=None, max_examples=40)
def test_sessions_that_cannot_gain_are_left_out_and_no_others(sessions, masked):
    rng = np.random.default_rng(0)
    tables = choosing.Tables(*flattened(sessions), N, [1.0, 0.0])
    seq = rng.integers(1, N, size=(20, 3))
    rows = some_rows(seq, rng.integers(1, 4, size=20), rng.integers(1, N, size=20), masked)
    rows = replace(
        rows, item_seq=np.where(np.arange(3) < rows.length[:, None], seq, 0), metric="MRR@2"
    )
    moving = rows.undecided(tables.widest(), tables.counts)
    for how in (Counting(), Counting(backward=0, gap_decay=0, decay=0), Counting(repeat=8 * (not masked))):
        assert not rows.gains(tables(how), tables.counts, how.decay)[~moving].any()


# what is found in data whose order or repeats are known


def write(folder, sessions, counts):
    (folder / "made").mkdir()
    start = 0
    for part, count in zip(("train", "valid", "test"), counts, strict=True):
        lines = ["session_id:token\titem_id_list:token_seq\titem_id:token"]
        for number, items in enumerate(sessions[start : start + count], start):
            lines.append(f"s{number}\t{' '.join(f'i{i}' for i in items[:-1])}\ti{items[-1]}")
        (folder / "made" / f"made.{part}.inter").write_text("\n".join(lines) + "\n")
        start += count
    return folder


def test_ndcg(folder, **own):
    config = tiny_config(folder, model="SessionKNN", dataset="made", MAX_ITEM_LIST_LENGTH=20, **own)
    train, valid, test = create_dataset(config).build()
    model = tiny_model(config, train)
    chosen = model.fit_table(train, valid)
    rows = Sessions.of(test, 10, False)
    scores = model.full_sort_predict(test.inter_feat)[:, 1:]
    own_score = scores.gather(1, test.inter_feat["item_id"].unsqueeze(1) - 1)
    rank = 1 + (scores > own_score).sum(1).numpy() + ((scores == own_score).sum(1).numpy() - 1) / 2
    assert len(rows.target) == len(rank)
    return chosen, float(np.where(rank <= 10, 1 / np.log2(1 + rank), 0).mean())


test_ndcg.__test__ = False
PLAIN = {"knn_backward": 1.0, "knn_gap_decay": 1.0, "knn_repeat": 0}


def test_counting_forward_finds_an_order_in_time(tmp_path):
    """Every item leads on to the next few, never back; today's counting cannot tell the two apart."""
    rng = np.random.default_rng(1)
    sessions = [
        np.cumsum([rng.integers(200), *rng.integers(1, 4, size=rng.integers(3, 9))]) % 200 for _ in range(900)
    ]
    folder = write(tmp_path, sessions, (500, 200, 200))
    chosen, ndcg = test_ndcg(folder)
    assert chosen["backward"] < 1
    assert chosen["over_plain_low"] > 0
    assert ndcg > 1.2 * test_ndcg(folder, **PLAIN)[1]


def test_repeats_are_found_where_sessions_come_back(tmp_path):
    rng = np.random.default_rng(2)
    sessions = []
    for _ in range(900):
        session = rng.integers(300, size=4).tolist()
        session += [
            session[-rng.integers(1, 4)] if rng.random() < 0.5 else int(rng.integers(300)) for _ in range(4)
        ]
        sessions.append(session)
    folder = write(tmp_path, sessions, (500, 200, 200))
    chosen, ndcg = test_ndcg(folder)
    assert chosen["repeat"] > 0
    assert ndcg > 2 * test_ndcg(folder, **PLAIN)[1]
    masked, _ = test_ndcg(folder, mask_session_items=True)
    assert masked["repeat"] == 0, "what is never recommended is not counted"


def test_sessions_without_order_or_repeats_lose_nothing_by_the_larger_grid(tmp_path):
    rng = np.random.default_rng(3)
    groups = rng.permutation(200).reshape(20, 10)
    sessions = [rng.choice(groups[rng.integers(20)], size=6, replace=False).tolist() for _ in range(2000)]
    folder = write(tmp_path, sessions, (500, 900, 600))
    chosen, ndcg = test_ndcg(folder)
    assert chosen["repeat"] == 0
    assert ndcg > 0.97 * test_ndcg(folder, **PLAIN)[1]

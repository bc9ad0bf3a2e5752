"""A table made again from what it was made of is the table itself."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array
from tiny import create_dataset, tiny_config, tiny_model

from recbole_alkd.model.counting import forward_counts, session_counts, training_sessions
from recbole_alkd.model.neighbours import places, served
from recbole_alkd.model.table_made import at, grown, shares, steps


def makers():
    rng = np.random.default_rng(5)
    raw = [
        csr_array(rng.random((31, 31)).astype(np.float32) * (rng.random((31, 31)) < 0.2)) for _ in range(2)
    ]
    for one in raw:
        one.eliminate_zeros()
    return {
        "text": lambda weighing: raw[0],
        "text_neighbors": lambda weighing: weighing.borrow(raw[0], 5),
        "pairwise": lambda weighing: weighing(raw[1]),
    }


def fitted(tiny_path, **settings):
    config = tiny_config(
        tiny_path, student_model="SessionKNN", student_config={"knn_edge_weight": 0.7, **settings}
    )
    train, valid, _ = create_dataset(config).build()
    model = tiny_model(config, train).recommender
    model.fit_table(train, valid, makers())
    return model, train


OTHERWISE = {"knn_gap_decay": 0.6, "knn_backward": 0.2, "knn_repeat": 8}


SPREAD = [{**cut, "knn_spread": 0.7} for cut in ({"student_neighbors": 3}, {"student_bytes": 600})]


@pytest.mark.parametrize(
    "how", [{}, {"student_neighbors": 4}, {"student_bytes": 700}, OTHERWISE, *SPREAD], ids=str
)
def test_the_same_table(tiny_path, how):
    model, train = fitted(tiny_path, **how)
    flat, offsets = training_sessions(train)
    (forward,) = forward_counts(flat, offsets, train.item_num, [model.made.how.gap_decay])
    counts = session_counts(flat, offsets, train.item_num)
    whole = steps(forward, counts, model.made, model.neighbors, model.bytes)[-1]
    table = model.made.served(whole, counts, model.neighbors, model.bytes)
    np.testing.assert_array_equal(table.indptr, model.indptr.numpy())
    np.testing.assert_array_equal(table.indices, model.indices.numpy())
    np.testing.assert_array_equal(table.data.astype(np.float16), model.weights.numpy())


def test_shares_say_which_edges_came_from_where(tiny_path):
    model, train = fitted(tiny_path)
    flat, offsets = training_sessions(train)
    counts = session_counts(flat, offsets, train.item_num)
    (forward,) = forward_counts(flat, offsets, train.item_num, [model.made.how.gap_decay])
    tables = steps(forward, counts, model.made, None, None)
    whole, table = tables[-1], served(tables[-1])
    by_kind = shares(tables, model.made, table)
    assert by_kind.keys() == {"text", "text_neighbors", "pairwise"}
    text, lists = by_kind["text"], by_kind["pairwise"]
    assert (text >= 0).all() and (lists >= 0).all() and (text + lists <= 1 + 1e-6).all()
    for name, share in by_kind.items():
        own = next(one.edges for one in model.made.sets if one.name == name)
        np.testing.assert_array_equal(share > 0, at(own, table) > 0)
    sets = {one.name: one for one in model.made.sets}
    scale = np.median(at(sets["text"].edges, table)[text == 1] / at(whole, table)[text == 1])
    np.testing.assert_allclose(
        at(sets["text"].edges, table) / scale, text * at(whole, table), rtol=1e-5, atol=1e-7
    )


def test_a_table_grows_by_items_without_edges():
    table = csr_array(np.array([[0, 2.0], [3.0, 0]]))
    np.testing.assert_array_equal(grown(table, 4).toarray(), [[0, 2, 0, 0], [3, 0, 0, 0], [0] * 4, [0] * 4])


@pytest.mark.parametrize("half", [True, False])
def test_places_in_rows_are_those_of_a_sort_by_weight_and_item(half):
    """Weights with ties, rounded to float16 as in tables, and not."""
    rng = np.random.default_rng(2)
    dense = rng.integers(0, 4, size=(40, 40)) * (0.25 if half else 0.1) * (rng.random((40, 40)) < 0.5)
    table = csr_array(dense.astype(np.float32))
    in_row = places(table)
    for row in range(40):
        part = slice(table.indptr[row], table.indptr[row + 1])
        wanted = sorted(range(part.start, part.stop), key=lambda at: (-table.data[at], table.indices[at]))
        assert in_row[wanted].tolist() == list(range(len(wanted)))

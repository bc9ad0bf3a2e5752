"""A table that was brought up to date is the one that all sessions give at once."""

from __future__ import annotations

import dataclasses
import json
import lzma
from itertools import pairwise

import numpy as np
import pytest
from scipy.sparse import csr_array
from served import serve, titles_file
from tiny import toy_sessions, write_benchmark

from recbole_alkd import AlkdError
from recbole_alkd.cli import main
from recbole_alkd.model.choosing import Counting
from recbole_alkd.model.table_made import EdgeSet, Made
from recbole_alkd.serving import Recommender, update
from recbole_alkd.serving.make_counts import TableCounts
from recbole_alkd.serving.make_update import _with_title_edges, added, read_sessions

FIXED = {
    "knn_backward": 0.2,
    "knn_gap_decay": 0.8,
    "knn_repeat": 8,
    "knn_source_exponent": 0.5,
    "knn_target_exponent": 0.1,
}
FIXED |= {"knn_decay": 0.7, "knn_edge_weight": 0.5}
HEAD = "session_id:token\titem_id_list:token_seq\titem_id:token"


def more_sessions(count=25, new=5):
    """(history, target) of items 1 to 30 and, in every third session, of ``new`` new ones."""
    drawn = toy_sessions(count, n_items=30 + new, seed=11)
    name = lambda item: f"i{item}" if item <= 30 else f"new{item - 30}"  # noqa: E731
    return [([name(item) for item in history], name(target)) for history, target in drawn]


def write_more(folder, sessions, titles=True):
    lines = [f"n{k}\t{' '.join(history)}\t{target}" for k, (history, target) in enumerate(sessions)]
    (folder / "more.inter").write_text("\n".join([HEAD, *lines]) + "\n")
    if titles:
        lines = [
            "item_id:token\ttitle:token_seq",
            *(f"new{k}\tThe {k}. film of many more" for k in range(1, 6)),
        ]
        (folder / "more.item").write_text("\n".join(lines) + "\n")
    return folder / "more.inter"


def at_once(folder, sessions, **settings):
    """The student of a data set whose training file has the new sessions too."""
    write_benchmark(folder / "data")
    titles_file(folder / "data")
    with open(folder / "data" / "tiny" / "tiny.train.inter", "a") as file:
        file.writelines(
            f"n{k}\t{' '.join(history)}\t{target}\n" for k, (history, target) in enumerate(sessions)
        )
    with open(folder / "data" / "tiny" / "tiny.item", "a") as file:
        file.writelines(f"new{k}\tThe {k}. film of many more\n" for k in range(1, 6))
    return Recommender.load(serve(folder, "SessionKNN", **settings).bundle)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"item_text": "tfidf"},
        {"student_neighbors": 3},
        {"mask_session_items": True},
        {"item_text": "tfidf", "item_text_whiten": 0.5},
    ],
    ids=["all neighbours", "titles", "three neighbours", "masked", "whitened titles"],
)
def test_it_is_the_table_of_all_sessions_at_once(tmp_path, settings):
    # by the item's id: numbers come in order of appearance, and the test items stand between old and new ones
    # there
    how = {"student_config": {**FIXED, **settings}, **settings}
    sessions = more_sessions()
    served = serve(tmp_path / "old", "SessionKNN", **how)
    new = Recommender.load(
        update(served.bundle, write_more(tmp_path, sessions), tmp_path / "new"), verify=True
    )
    whole = at_once(tmp_path / "whole", sessions, **how)
    assert (
        new.manifest["dataset"]["training_sessions"] == whole.manifest["dataset"]["training_sessions"] == 65
    )
    ids = new.items.ids(np.arange(1, new.items.n_items))
    assert set(ids) == set(whole.items.ids(np.arange(1, whole.items.n_items))) and len(ids) == 35
    theirs = np.array(whole.items.numbers(ids))
    np.testing.assert_array_equal(new.items.counts[1:], whole.items.counts[theirs])
    assert new.items.titles(np.arange(1, 36)) == whole.items.titles(theirs)
    table, other = new.student, whole.student
    for number, their in enumerate(theirs.tolist(), 1):
        row = slice(table.starts[number], table.starts[number + 1])
        their_row = slice(other.starts[their], other.starts[their + 1])
        weights = sorted(table.weights[row].tolist())
        # axes of vectors are the same but for the last bits where items stand in another order
        spare = 1e-3 if "item_text_whiten" in settings else 0
        assert weights == pytest.approx(sorted(other.weights[their_row].tolist()), rel=spare, abs=0)
        if settings.get("student_neighbors") is None:  # of equal weights the smaller number is kept
            mine = dict(zip(new.items.ids(table.neighbours[row]), table.weights[row].tolist(), strict=True))
            theirs_of = zip(
                whole.items.ids(other.neighbours[their_row]), other.weights[their_row].tolist(), strict=True
            )
            assert mine == pytest.approx(dict(theirs_of), rel=spare, abs=0)
    assert {one.item for one in new.recommend(["new1", "i3"], 34)} == set(ids) - {"new1", "i3"}


@pytest.mark.parametrize("spread", [None, 0.5])
@pytest.mark.parametrize("cut", [(None, None), (4, None), (None, 900)], ids=str)
def test_lists_and_borrowed_neighbours_follow_the_new_popularities(cut, spread):
    rng = np.random.default_rng(0)
    sizes = rng.integers(2, 9, size=80)
    flat, offsets = rng.integers(1, 25, size=sizes.sum()), np.concatenate([[0], np.cumsum(sizes)])
    raw = [
        np.triu(rng.random((25, 25)) * (rng.random((25, 25)) < 0.3), 1).astype(np.float32) for _ in range(2)
    ]
    sets = (
        EdgeSet("text", csr_array(raw[0]), None, 0.3),
        EdgeSet("text_neighbors", csr_array(raw[0]), csr_array(raw[0]), 0.5, most=4),
        EdgeSet("pairwise", csr_array(raw[1]), csr_array(raw[1]), 1.0),
    )
    made = Made(Counting(4.0, 0.5, 0.9, 0.5, 0.5, 0.2), sets, spread=spread)
    whole = TableCounts.of(flat, offsets, 25, made, *cut)
    part = TableCounts.of(flat[: offsets[60]], offsets[:61], 25, made, *cut)
    rest = [flat[begin:end].tolist() for begin, end in pairwise(offsets[60:])]
    table, wanted = added(part, rest, 25).table, whole.table
    np.testing.assert_array_equal(table.toarray(), wanted.toarray())
    assert (table.toarray() != part.table.toarray()).any()


def test_an_update_can_be_updated(tmp_path):
    served = serve(tmp_path / "old", "SessionKNN", student_config=FIXED)
    sessions = more_sessions()
    first = update(served.bundle, write_more(tmp_path, sessions[:10]), tmp_path / "first")
    second = update(first, write_more(tmp_path, sessions[10:]), tmp_path / "second")
    both = update(served.bundle, write_more(tmp_path, sessions), tmp_path / "both")
    one, other = Recommender.load(second), Recommender.load(both)
    assert one.recommend(["i3", "new2"], 34) == other.recommend(["i3", "new2"], 34)
    assert [entry["sessions"] for entry in one.manifest["updates"]] == [10, 15]
    assert "25 sessions were added" in (second / "README.md").read_text()


def test_clicks_are_cut_into_sessions_as_the_run_did(tmp_path):
    """A file of clicks, a day's of one user being a session."""
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user, items in ((1, "ab"), (2, "abc")):
        lines += [f"u{user}\t{item}\t{day * 86400 + k}" for day in (0, 3) for k, item in enumerate(items)]
    with lzma.open(tmp_path / "clicks.inter.xz", "wt") as file:
        file.write("\n".join(reversed(lines[1:] + lines[:1])) + "\n")
    fields = {
        "session": "user_id",
        "item": "item_id",
        "time": "timestamp",
        "list": "item_id_list",
        "window": 86400,
    }
    sessions = read_sessions(tmp_path / "clicks.inter.xz", {**fields, "time_unit": None, "min_length": 3})
    assert sessions == [["a", "b", "c"], ["a", "b", "c"]]


def test_prefixes_of_a_session_are_one_session(tmp_path):
    (tmp_path / "rows.inter").write_text("\n".join([HEAD, "a\tx\ty", "a\tx y\tz", "b\tq\tr"]) + "\n")
    fields = {
        "session": "session_id",
        "item": "item_id",
        "time": "timestamp",
        "list": "item_id_list",
        "window": None,
    }
    assert read_sessions(tmp_path / "rows.inter", {**fields, "time_unit": None, "min_length": 2}) == [
        ["x", "y", "z"],
        ["q", "r"],
    ]


def test_what_cannot_be_updated_is_refused_by_name(tmp_path):
    more = write_more(tmp_path, more_sessions(3))
    with pytest.raises(
        AlkdError, match="SessionFPMC is no table; only a table takes new sessions without training"
    ):
        update(serve(tmp_path / "a", "SessionFPMC").bundle, more, tmp_path / "out")
    table = serve(tmp_path / "a", "SessionKNN").bundle
    (tmp_path / "other.inter").write_text("who:token\twhat:token\nu\ti\n")
    with pytest.raises(
        AlkdError,
        match=r"other.inter: it has who, what; needed: session_id, item_id and timestamp \(clicks\), or",
    ):
        update(table, tmp_path / "other.inter", tmp_path / "out")
    (tmp_path / "empty.inter").write_text(HEAD + "\n")
    with pytest.raises(AlkdError, match="no session of 2 items in it"):
        update(table, tmp_path / "empty.inter", tmp_path / "out")
    refined = serve(
        tmp_path / "a", "SessionKNN", student_config={"knn_refine_epochs": 2, "student_neighbors": 3}
    )
    if refined.model.recommender.made.refined:
        with pytest.raises(
            AlkdError, match=r"no counts\.npz in it, so that nothing can be added to its table"
        ):
            update(refined.bundle, more, tmp_path / "out")
    with pytest.raises(AlkdError, match="is there already"):
        update(table, more, table)


def test_damaged_counts_are_refused(tmp_path):
    (tmp_path / "counts.npz").write_bytes(b"PK nothing of the kind")
    with pytest.raises(AlkdError, match=r"counts\.npz: not what a bundle keeps there .*damaged"):
        TableCounts.read(tmp_path)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"item_text_permuted": True}, "item_text_permuted is not followed here"),
        ({"item_text_map": 8}, "item_text_map is not followed here"),
        ({"item_text": "own.npy"}, "item_text: own.npy is not read here"),
    ],
)
def test_titles_that_cannot_be_encoded_again_are_said_and_make_no_edges(tmp_path, changed, words):
    served = serve(
        tmp_path / "old", "SessionKNN", item_text="tfidf", student_config={**FIXED, "item_text": "tfidf"}
    )
    counts = TableCounts.read(served.bundle)
    notes = []
    text = {**counts.text, **changed}
    kept = _with_title_edges(dataclasses.replace(counts, text=text), ["a film"] * 30, notes)
    assert kept.made is counts.made and notes == [f"titles of new items made no edges: {words}"]


def test_the_command_says_what_was_added(tmp_path, capsys):
    served = serve(tmp_path / "old", "SessionKNN")
    more = write_more(tmp_path, more_sessions())
    with pytest.raises(SystemExit) as end:
        main(["update", "--bundle", str(served.bundle), "--inter", str(more), "--out", str(tmp_path / "new")])
    out = capsys.readouterr().out
    assert end.value.code == 0 and "with 25 more sessions and 5 new items" in out
    content = json.loads((tmp_path / "new" / "manifest.json").read_text())
    assert content["student"]["items"] == 35 and content["updates"][0]["sessions"] == 25


# reasons of edges that were not counted


def test_an_edge_says_whether_it_was_counted_or_came_from_titles_or_lists(tmp_path):
    served = serve(tmp_path, "SessionKNN", edges=True, student_config=FIXED)
    recommender, made = Recommender.load(served.bundle), served.model.recommender.made
    text, lists = (one.edges.toarray() for one in made.sets)
    seen = set()
    for source in range(1, 31):
        for item in range(1, 31):
            reasons = recommender.explain([served.tokens[source]], served.tokens[item])
            kinds = {one.kind for one in reasons} - {"popularity"}
            assert ("title" in kinds) == (text[source, item] > 0)
            assert ("llm" in kinds) == (lists[source, item] > 0)
            assert "repeat" not in kinds or source == item
            score = float(recommender.scores([served.tokens[source]])[item])
            assert sum(one.weight for one in reasons) == pytest.approx(score, rel=1e-5)
            seen |= kinds
    assert seen == {"counted", "repeat", "title", "llm"}

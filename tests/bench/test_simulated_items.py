"""Simulated teachers of items: what they know, how often they are right, and that no test session is in
it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recbole_alkd.bench.simulated_answers import (
    PLACES,
    answers_as_edges,
    halves,
    share_true,
    simulated_list,
    true_neighbours,
)
from recbole_alkd.bench.simulated_items import ACCURACIES, run
from recbole_alkd.bench.simulated_page import draw, page, read_asked, read_points
from recbole_alkd.bench.simulated_study import CANDIDATES, Study
from recbole_alkd.model.edges import Weighing
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.testing import write_toy_data
from recbole_alkd.testing.learners import inside

SETTINGS = {
    "benchmark_filename": ["train", "valid", "test"], "USER_ID_FIELD": "session_id",
    "ITEM_ID_FIELD": "item_id", "load_col": {"inter": ["session_id", "item_id_list", "item_id"]},
    "alias_of_item_id": ["item_id_list"], "use_gpu": False, "item_text": "tfidf", "seed": 7,
}  # fmt: skip


def test_halves_are_of_all_sessions() -> None:
    second = halves(np.arange(101), np.random.default_rng(0))
    assert second.sum() == 50 and len(second) == 101


def test_true_neighbours_come_later_and_nearer_ones_count_more() -> None:
    # 1 2 3 | 1 3 | 4: after 1 come 2 (once, next), 3 (next once, one between once)
    flat, offsets = np.array([1, 2, 3, 1, 3, 4]), np.array([0, 3, 5, 6])
    assert true_neighbours(flat, offsets, 5) == {1: [3, 2], 2: [3]}


def test_a_simulated_list_is_as_often_right_as_it_should_be() -> None:
    rng, truth = np.random.default_rng(1), [1, 2, 3, 4, 5]
    candidates = list(range(1, CANDIDATES + 1))
    for accuracy in ACCURACIES:
        lists = [simulated_list(truth, candidates, accuracy, rng) for _ in range(2000)]
        assert all(len(set(one)) == PLACES and set(one) <= set(candidates) for one in lists)
        assert share_true(lists, [truth] * 2000) == pytest.approx(accuracy, abs=0.02)
    assert simulated_list(truth, candidates, 1.0, rng) == truth
    assert len(set(simulated_list([9], [9, 8], 1.0, rng))) == 2  # as many as there are


def test_answers_are_weighed_as_labels_of_a_run_are() -> None:
    counts = np.array([0, 3, 8, 0, 15])
    edges = answers_as_edges(5, [1, 2], [[2, 4], [4]])(Weighing(counts, 0.5, 0.0))
    dense = edges.toarray()
    assert dense[1].tolist() == [0, 0, 1.5, 0, 1.5] and dense[2].tolist() == [0, 0, 0, 0, 1]
    back = answers_as_edges(5, [1, 2], [[2, 4], [4]], 1.0)(Weighing(counts, 0.5, 0.0)).toarray()
    assert back[2].tolist() == [0, 1, 0, 0, 1] and back[4].tolist() == [0, 0.75, 0.75, 0, 0]


def test_the_teacher_knows_no_session_that_the_table_or_the_test_sees(tmp_path: Path) -> None:
    write_toy_data(tmp_path / "data")
    with inside(tmp_path):
        study = Study(
            "toy", str(tmp_path / "data"), 7, {**SETTINGS, "label_store": str(tmp_path / "labels.sqlite")}
        )
    ids = {name: set(part.inter_feat[part.uid_field].tolist()) for name, part in
           (("half", study.half), ("hidden", study.hidden))}  # fmt: skip
    others = {
        session
        for part in (study.valid, study.test)
        for session in part._dataset.inter_feat["session_id"].tolist()
    }
    assert not ids["half"] & ids["hidden"] and not (ids["half"] | ids["hidden"]) & others
    assert len(ids["half"]) == len(ids["hidden"]) == 24
    hidden = [study.whole.session_items(session).tolist() for session in ids["hidden"]]
    item = study.rows.items
    for row, named in study.truth.items():
        for other in named:
            assert any(int(item[row]) in one and other in one[one.index(int(item[row])) :] for one in hidden)


def test_a_study_writes_what_it_has(tmp_path: Path) -> None:
    write_toy_data(tmp_path / "data")
    with inside(tmp_path):
        settings = {**SETTINGS, "label_store": str(tmp_path / "labels.sqlite")}
        own = ("toy", str(tmp_path / "data"), 7, tmp_path / "out", settings, False)
        run(*own, ("all",), ACCURACIES)
        half = (tmp_path / "out" / "toy-7.npz").read_bytes()
        run(*own, ("all",), ACCURACIES)  # nothing is made again
        assert (tmp_path / "out" / "toy-7.npz").read_bytes() == half
        run(*own)
    report = json.loads((tmp_path / "out" / "toy-7.json").read_text())
    names = [row["name"] for row in report["rows"]]
    assert names[:2] == ["half", "all sessions"] and len(names) == 2 + 4 * (1 + len(ACCURACIES))
    shares = [row["true"] for row in report["rows"] if "accuracy" in row and row["name"].startswith("all, ")]
    assert shares == sorted(shares) and shares[-1] > shares[0]
    with np.load(tmp_path / "out" / "toy-7.npz") as kept:
        assert set(kept) == set(names) and all(len(kept[name]) == 24 for name in names)


def test_the_curve_is_read_over_seeds_and_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for seed in (1, 2):
        half = rng.random(200).astype(np.float32)
        kept = {
            "half": half,
            "random, 1": half + np.float32(0.1),
            "random, LLM": half,
            "all sessions": half * 2,
        }
        rows = [{"name": name, "weight": 0.3 if name == "random, 1" else 0.0} for name in kept]
        rows[1] |= {"true": 1.0}
        rows[2] |= {"true": 0.3, "tokens": 100, "seconds": 2.0}
        facts = {"dataset": "toy", "seed": seed, "questions": {"random": 500}, "rows": rows}
        (tmp_path / f"toy-{seed}.json").write_text(json.dumps(facts))
        np.savez(tmp_path / f"toy-{seed}.npz", **kept)
    points = {point.name: point for point in read_points(tmp_path)}
    right = points["random, 1"]
    assert right.gain == pytest.approx(0.1, abs=1e-6) and right.low == pytest.approx(0.1, abs=1e-6)
    assert (right.seeds, right.questions, right.weights) == (2, 500, (0.3, 0.3))
    assert points["random, LLM"].gain == 0 and points["random, LLM"].tokens == 100
    assert "| random, 1 | 1.00 | +" in page(list(points.values())) and "2 of 2" in page([right])
    for seed, share in ((1, 0.2), (2, 0.3)):
        (tmp_path / f"toy-{seed}-llm.json").write_text(json.dumps({"dataset": "toy", "true": {"llm": share}}))
    assert read_asked(tmp_path) == {"toy": pytest.approx(0.25)} and len(read_points(tmp_path)) == 3
    pytest.importorskip("matplotlib", reason="needs the extra `bench`")
    draw(list(points.values()), tmp_path / "curve.png", read_asked(tmp_path))
    assert (tmp_path / "curve.png").stat().st_size > 1000
    with pytest.raises(AlkdError, match="no study"):
        read_points(tmp_path / "nothing")

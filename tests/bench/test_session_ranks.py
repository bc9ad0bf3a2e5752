"""Per-session ranks: their definition, and that RecBole's metrics follow from them exactly."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from tiny import write_benchmark

from recbole_alkd import run_recbole_alkd
from recbole_alkd.learner.distillation import control_lists
from recbole_alkd.model.scoring import GROUPS, by_group, gains, mean_ranks

SETTINGS = {
    "benchmark_filename": ["train", "valid", "test"], "USER_ID_FIELD": "session_id",
    "ITEM_ID_FIELD": "item_id",
    "load_col": {"inter": ["session_id", "item_id_list", "item_id"]}, "alias_of_item_id": ["item_id_list"],
    "MAX_ITEM_LIST_LENGTH": 6, "train_batch_size": 16, "epochs": 2, "show_progress": False, "state": "ERROR",
    "llm_teacher": "recommender", "budget_labels": 20, "llm_candidates": 8, "llm_top_n": 4,
    "kd_batch_size": 16,
    "session_augmentation": "last", "topk": [3, 10], "metrics": ["Recall", "Hit", "NDCG", "MRR"],
    "valid_metric": "NDCG@10",
    "data_path": "data",
}  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch):
    write_benchmark(tmp_path / "data", counts=(40, 12, 17), n_items=90)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run"])
    return tmp_path


def by_loop(scores, target):
    own, items = scores[target], scores[1:]
    return 1 + sum(score > own for score in items) + (sum(score == own for score in items) - 1) / 2


def test_the_mean_rank_is_that_of_a_random_order_of_the_tied():
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 4, size=(50, 9)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.2] = -np.inf
    target = rng.integers(1, 9, size=50)
    ranks = mean_ranks(torch.from_numpy(scores), torch.from_numpy(target)).numpy()
    assert np.allclose(ranks, [by_loop(row, t) for row, t in zip(scores, target, strict=True)])
    assert not np.array_equal(ranks, ranks.round()), "no tie was tested"


def test_a_score_that_is_no_number_is_last_and_the_padding_does_not_count():
    scores = torch.tensor([[9.0, torch.nan, 1.0, 2.0], [torch.nan, 3.0, 1.0, 2.0]])
    assert mean_ranks(scores, torch.tensor([1, 1])).tolist() == [3.0, 1.0]


def test_a_model_that_scores_all_alike_gets_the_middle():
    assert mean_ranks(torch.zeros(1, 12), torch.tensor([4])).item() == 6.0


@pytest.mark.parametrize("mask", [True, False])
def test_recboles_metrics_follow_exactly(home, mask):
    report = run_recbole_alkd(dataset="tiny", config_dict={**SETTINGS, "mask_session_items": mask})
    with np.load(home / report["run_folder"] / "ranks.npz", allow_pickle=False) as saved:
        ranks = dict(saved)
    assert ranks["sessions_valid"].tolist() == [f"s{i}" for i in range(40, 52)]
    assert ranks["sessions_test"].tolist() == [f"s{i}" for i in range(52, 69)]
    for stage, outcome in (report["stages"] | report["baselines"]).items():
        for part in ("valid", "test"):
            for metric, value in outcome[part].items():
                assert round(gains(ranks[f"{stage}_{part}"], metric).mean(), 6) == value, (
                    stage,
                    part,
                    metric,
                )


def test_targets_are_split_by_what_training_knows_of_them(home):
    for augmentation in ("last", "prefix"):
        report = run_recbole_alkd(
            dataset="tiny", config_dict={**SETTINGS, "session_augmentation": augmentation}
        )
        lines = (home / "data/tiny/tiny.train.inter").read_text().splitlines()[1:]
        history = {item for line in lines for item in line.split("\t")[1].split()}
        last = {line.split("\t")[2] for line in lines}
        test = [
            line.split("\t")[2] for line in (home / "data/tiny/tiny.test.inter").read_text().splitlines()[1:]
        ]
        expected = ["warm" if item in last else "input_only" if item in history else "cold" for item in test]
        with np.load(home / report["run_folder"] / "ranks.npz", allow_pickle=False) as saved:
            ranks = dict(saved)
        assert [GROUPS[k] for k in ranks["groups_test"]] == expected
        assert report["targets"] == {name: expected.count(name) for name in GROUPS}
        assert min(report["targets"].values()) > 0, "a group was not tested"
        for name, row in (report["stages"] | report["baselines"]).items():
            for group, metrics in row["test_groups"].items():
                mine = [
                    rank for rank, own in zip(ranks[f"{name}_test"], expected, strict=True) if own == group
                ]
                own = [gains(np.array([rank]), "ndcg@10")[0] for rank in mine]
                assert metrics["ndcg@10"] == pytest.approx(sum(own) / len(own), abs=1e-6)


def test_groups_without_targets_are_left_out():
    groups = by_group(np.array([1.0, 3.0]), np.array([0, 0]), ["recall@2", "itemcoverage@2"])
    assert groups == {"warm": {"recall@2": 0.5}}


def test_shared_stages_are_trained_once_and_change_nothing(home):
    def go(**settings):
        return run_recbole_alkd(dataset="tiny", config_dict={**SETTINGS, **settings})

    alone, first = go(alkd_policy="random"), go(alkd_policy="random", stage_cache="cache")
    files = sorted(home.glob("cache/*/*.pth"))
    assert len(files) == 2
    written = [file.stat().st_mtime_ns for file in files]
    second = go(alkd_policy="hardest", kd_loss="rd", stage_cache="cache")
    assert [file.stat().st_mtime_ns for file in files] == written and sorted(
        home.glob("cache/*/*.pth")
    ) == files
    for name in alone["stages"]:
        assert alone["stages"][name]["test"] == first["stages"][name]["test"]
    assert second["stages"]["student"]["test"] == alone["stages"]["student"]["test"]
    go(stage_cache="cache", student_embedding_size=6)  # another student, the same teacher recommender
    assert (
        len(list(home.glob("cache/student-*/*.pth"))) == 2
        and len(list(home.glob("cache/teacher-*/*.pth"))) == 1
    )
    go(stage_cache="cache", seed=3)
    assert len(list(home.glob("cache/*/*.pth"))) == 5


LISTS = {7: ["a", "b", "c"], 3: ["d", "e"], 9: ["f"], 4: ["g", "h", "i", "j"]}


def control(kind, seed=0):
    return control_lists(
        kind, LISTS, lambda rows: [f"target of {row}" for row in rows], np.random.default_rng(seed)
    )


def test_control_lists():
    assert control("llm") == LISTS
    assert control("target") == {row: [f"target of {row}"] for row in LISTS}
    shuffled = [control("shuffled", seed) for seed in range(20)]
    assert all({row: sorted(items) for row, items in lists.items()} == LISTS for lists in shuffled)
    assert len({tuple(lists[4]) for lists in shuffled}) > 5
    for seed in range(20):
        permuted = control("permuted", seed)
        assert all(permuted[row] != LISTS[row] for row in LISTS)
        assert sorted(permuted.values()) == sorted(LISTS.values())

"""Rivals as arms, and the column that compares every arm with the best one that knows no LLM and
no titles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_report import made_up, plan_of

from recbole_alkd import AlkdError
from recbole_alkd.bench.arms import RIVALS, find_arm, llm_free
from recbole_alkd.bench.before import check_runs
from recbole_alkd.bench.report import best_llm_free, make_tables, write_report
from recbole_alkd.bench.runs import run_plan
from recbole_alkd.model.scoring import gains

KNOWN = [
    ("popularity", {}),
    ("item_knn", {"item_text": "tfidf"}),
    ("student", {}),
    ("student_longer", {}),
    ("teacher", {"item_text": "tfidf"}),
]


@pytest.mark.parametrize(("name", "settings"), KNOWN)
def test_arms_that_know_sessions_only(name, settings):
    arm = find_arm(name)
    assert llm_free(arm.stage, {**settings, **arm.settings})


@pytest.mark.parametrize(
    "name", ["tr", "table_teacher", "label_only", "recommender", "candidates", *(arm.name for arm in RIVALS)]
)
def test_arms_that_are_taught_without_an_llm(name):
    arm = find_arm(name)
    assert llm_free(arm.stage, arm.settings)


@pytest.mark.parametrize(
    "name",
    ["alkdrec", "random", "loss:rd", "llm:api", "llm:replay", "text", "text_edges", "text_edges_permuted"],
)
def test_arms_that_know_an_llm_or_titles(name):
    arm = find_arm(name)
    assert llm_free(arm.stage, arm.settings) is (name == "loss:rd")  # RD imitates the teacher recommender


def outcome_of(plan, shift):
    """Made-up runs; ``shift``: arm -> what is added to its ranks in (validation, test)."""
    outcome = made_up(plan)
    results = []
    for result in outcome.results:
        valid, test = shift.get(result.task.arm.name, (0, 0))
        results.append(
            replace(result, valid=np.maximum(1, result.valid + valid), test=np.maximum(1, result.test + test))
        )
    return replace(outcome, results=results)


def test_the_best_is_chosen_on_validation_and_compared_on_test(tmp_path):
    plan = plan_of(tmp_path, arms=["item_knn", "student", "vstan", "alkdrec"])
    shift = {"vstan": (-20, 5), "item_knn": (0, -20), "alkdrec": (-50, -50)}
    outcome = outcome_of(plan, shift)
    (table,) = make_tables(plan, outcome.results)
    assert table.best == "vstan", "not the one that is best on test, and not one with an LLM"
    rows = {row.name: row for row in table.rows}
    assert rows["vstan"].against_best == {} and set(rows["alkdrec"].against_best) == set(plan.metrics)
    test = {
        name: np.mean([gains(r.test, "ndcg@10") for r in outcome.results if r.task.arm.name == name], axis=0)
        for name in rows
    }
    for name in ("item_knn", "student", "alkdrec"):
        comparison = rows[name].against_best["ndcg@10"]
        assert comparison.difference == pytest.approx((test[name] - test["vstan"]).mean())
        assert comparison.low < comparison.difference < comparison.high
    write_report(plan, outcome, tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert "Best without LLM and titles, chosen on validation: VSTAN." in text
    line = next(line for line in text.splitlines() if line.startswith("| ALKDRec"))
    assert line.rstrip(" |").endswith("]") and "against best LLM-free" in text
    assert (
        next(line for line in text.splitlines() if line.startswith("| VSTAN"))
        .rstrip("| ")
        .endswith(tuple("0123456789"))
    )


def test_a_table_without_such_an_arm_has_none(tmp_path):
    plan = plan_of(tmp_path, arms=["alkdrec", "random"], reference="alkdrec")
    outcome = made_up(plan)
    (table,) = make_tables(plan, outcome.results)
    assert (
        table.best is None and all(row.against_best == {} for row in table.rows) and table.best_words() == ""
    )
    assert best_llm_free(plan, {}) is None


def test_a_teacher_recommender_of_its_own_is_an_arms_to_set(tmp_path):
    arm = {"name": "taught by VSTAN", "arm": "table_teacher", "settings": {"teacher_model": "VSTAN"}}
    assert plan_of(tmp_path, arms=["student", arm]).arms[1].settings["teacher_model"] == "VSTAN"
    with pytest.raises(
        AlkdError, match="teacher_model is not for a plan to set; give backbones, or set it for an arm"
    ):
        plan_of(tmp_path, settings={"teacher_model": "VSTAN"})


def test_rivals_can_be_arms_of_a_plan(tmp_path):
    from tiny import write_benchmark

    data = write_benchmark(tmp_path)
    names = ["session_id", "item_id_list", "item_id"]
    settings = {
        "benchmark_filename": ["train", "valid", "test"], "USER_ID_FIELD": "session_id",
        "ITEM_ID_FIELD": "item_id",
        "load_col": {"inter": names}, "alias_of_item_id": ["item_id_list"], "llm_teacher": "recommender",
    }  # fmt: skip
    arms = ["student", *(arm.name for arm in RIVALS), "table_teacher"]
    plan = plan_of(tmp_path, datasets=["tiny"], settings={**settings, "data_path": str(data)}, arms=arms)
    check_runs(plan)


@pytest.mark.slow
def test_every_rival_runs_in_a_benchmark(tmp_path, monkeypatch):
    from tiny import write_benchmark

    data = write_benchmark(tmp_path)
    settings = {
        "benchmark_filename": ["train", "valid", "test"], "USER_ID_FIELD": "session_id",
        "ITEM_ID_FIELD": "item_id", "load_col": {"inter": ["session_id", "item_id_list", "item_id"]},
        "alias_of_item_id": ["item_id_list"], "llm_teacher": "recommender", "alkd_policy": "random",
        "budget_labels": 5, "llm_candidates": 8, "llm_top_n": 4, "epochs": 1, "use_gpu": False, "topk": [5],
        "valid_metric": "NDCG@5", "data_path": str(data),
    }  # fmt: skip
    arms = ["item_knn", *(arm.name for arm in RIVALS), "table_teacher"]
    plan = plan_of(tmp_path, datasets=["tiny"], settings=settings, arms=arms, seeds=[1], reference="item_knn")
    monkeypatch.chdir(tmp_path)
    outcome = run_plan(plan, tmp_path / "out")
    assert not outcome.failed
    (table,) = make_tables(plan, outcome.results)
    assert table.best in arms and all(row.labels == row.tokens == 0 for row in table.rows)
    assert {row.name: row.parameters for row in table.rows}["slist"] == 31**2

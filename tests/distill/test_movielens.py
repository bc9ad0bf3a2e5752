"""Every loss trains a student on MovieLens 100K day sessions; one teacher recommender and one plain student
serve them all."""

import sys

import pytest

from recbole_alkd import run_recbole_alkd
from recbole_alkd.model import choosing
from recbole_alkd.plugin import properties_dir
from recbole_alkd.registry import losses
from recbole_alkd.settings.text import read_yaml

SMALL = {
    "MAX_ITEM_LIST_LENGTH": 20, "session_augmentation": "last", "epochs": 2, "llm_teacher": "recommender",
    "budget_labels": 40,
    "llm_candidates": 20, "llm_top_n": 10, "teacher_embedding_size": 16, "student_embedding_size": 4,
    "train_batch_size": 256,
    "learning_rate": 0.02, "show_progress": False, "state": "ERROR",
}  # fmt: skip
REGIMES = read_yaml((properties_dir() / "loss_search.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("movielens")


@pytest.fixture(scope="module")
def counted():
    """What item-kNN chose: the row beside the stages is the same in every run,
    and takes longer than all of them."""
    return {}


@pytest.fixture(autouse=True)
def count_once(counted, monkeypatch):
    def fit(train, valid, grid):
        if "choice" not in counted:
            counted["choice"] = choose(train, valid, grid)
        return counted["choice"]

    choose = choosing._fit
    monkeypatch.setattr(choosing, "_fit", fit)


@pytest.mark.parametrize("name", list(losses))
def test_a_loss_trains_on_real_sessions(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["run"])
    report = run_recbole_alkd(
        dataset="ml-100k", config_dict={**SMALL, "stage_cache": "cache", **REGIMES[name]["settings"]}
    )
    stages = report["stages"]
    assert (
        stages["distilled"]["steps"] > 0
        and stages["distilled"]["parameters"] == stages["student"]["parameters"]
    )
    # it is not the student: all metrics of both parts are hardly the same by chance
    assert (
        stages["distilled"]["valid"] != stages["student"]["valid"]
        or stages["distilled"]["test"] != stages["student"]["test"]
    )
    assert report["labels"]["asked"] + report["labels"]["reused"] == 40

"""Sessions a second of student, teacher recommender and LLM: from a run's own labels and bundles."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys

import pytest
from tiny import write_benchmark

from recbole_alkd import AlkdError, run_recbole_alkd
from recbole_alkd.bench import speeds
from recbole_alkd.labels import LabelStore

BASE = {
    "data_path": "data", "benchmark_filename": ["train", "valid", "test"], "USER_ID_FIELD": "session_id",
    "ITEM_ID_FIELD": "item_id", "load_col": {"inter": ["session_id", "item_id_list", "item_id"]},
    "alias_of_item_id": ["item_id_list"], "MAX_ITEM_LIST_LENGTH": 6, "epochs": 1, "show_progress": False,
    "llm_teacher": "recommender", "budget_labels": 12, "llm_candidates": 8, "llm_top_n": 4,
    "session_augmentation": "last", "topk": [5, 10], "student_model": "SessionKNN",
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speeds")
    with pytest.MonkeyPatch.context() as monkeypatch:
        write_benchmark(folder / "data")
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["run"])
        yield folder / run_recbole_alkd(dataset="tiny", config_dict=BASE)["run_folder"]


def timed(store, seconds):
    """The labels of a store as an LLM would have left them."""
    with LabelStore("alkd_labels/labels.sqlite") as labels, LabelStore(store) as copy:
        copy.put_many([dataclasses.replace(label, seconds=seconds) for label in labels])
    return store


def test_the_rates_are_those_of_the_labels_and_of_the_bundles(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(speeds, "_SECONDS", 0.01)
    facts = speeds.measure(finished, timed(tmp_path / "labels.sqlite", 0.25))
    assert facts["sessions"] == 12 and facts["items"] == 30 and facts["candidates"] == 8
    assert facts["rates"][speeds.LLM] == pytest.approx(4)
    assert facts["rates"][speeds.STUDENT] > 4 < facts["rates"][speeds.TEACHER]
    assert facts["names"][speeds.STUDENT] == "SessionKNN"
    assert facts["names"][speeds.TEACHER] == "SessionFPMC"


def test_the_picture_is_drawn_from_what_was_measured(finished, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib", reason="the extra `bench`")
    monkeypatch.setattr(speeds, "_SECONDS", 0.01)
    store = str(timed(tmp_path / "labels.sqlite", 0.25))
    for words in (
        [str(finished), "--store", store, "--out", str(tmp_path / "s.json")],
        [str(tmp_path / "s.json"), "--out", str(tmp_path / "s.svg")],
    ):
        monkeypatch.setattr(sys, "argv", ["speeds", *words])
        speeds.main()
        assert json.loads(capsys.readouterr().out)["sessions"] == 12
    assert (tmp_path / "s.svg").read_text().startswith("<?xml")


def test_what_cannot_be_measured_is_said(finished, tmp_path, monkeypatch, capsys):
    with pytest.raises(AlkdError, match="its 12 labels took no time; allowed: a run that asked an LLM"):
        speeds.measure(finished, timed(tmp_path / "labels.sqlite", 0.0))
    with pytest.raises(AlkdError, match="no such label store"):
        speeds.measure(finished, tmp_path / "nowhere")
    with pytest.raises(AlkdError, match="not the folder of a finished run"):
        speeds.measure(tmp_path)
    monkeypatch.setattr(sys, "argv", ["speeds", str(tmp_path), "--out", str(tmp_path / "s.png")])
    with pytest.raises(SystemExit) as end:
        speeds.main()
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1
    copy = shutil.copytree(finished, tmp_path / "copy")
    shutil.rmtree(copy / "teacher-bundle")
    with pytest.raises(AlkdError, match="no bundle of its teacher recommender"):
        speeds.measure(copy, timed(tmp_path / "more.sqlite", 0.25))

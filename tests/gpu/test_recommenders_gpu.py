"""Recommenders on a GPU: every backbone trains there, and scores, difficulties and candidates are those of
the CPU."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
import yaml
from process import run
from tiny import create_dataset, settings_of, tiny_config, tiny_view, training_part, write_benchmark

from recbole_alkd import run_recbole_alkd
from recbole_alkd.active.difficulty import DIFFICULTIES, difficulty
from recbole_alkd.labelling.candidates import top_candidates
from recbole_alkd.model.backbone import build_backbone
from recbole_alkd.registry import backbones

BASE = {
    "benchmark_filename": ["train", "valid", "test"], "USER_ID_FIELD": "session_id",
    "ITEM_ID_FIELD": "item_id",
    "load_col": {"inter": ["session_id", "item_id_list", "item_id"]}, "alias_of_item_id": ["item_id_list"],
    "MAX_ITEM_LIST_LENGTH": 6, "train_batch_size": 16, "epochs": 2, "show_progress": False, "state": "ERROR",
    "llm_teacher": "recommender", "budget_labels": 12, "llm_candidates": 8, "llm_top_n": 4, "topk": [5, 10],
    "valid_metric": "NDCG@10", "teacher_embedding_size": 16,
}  # fmt: skip
STUDENTS = sorted(backbones)
OWN = {"AttMix": {"student_config": {"last_k": 6}}}  # its default asks for longer sessions than the toy ones


def rows(dataset):
    inter = dataset.inter_feat
    return inter["item_id_list"], inter["item_length"], inter["item_id"]


def both(path, name, device):
    """The same parameters twice: on the CPU and on ``device``."""
    config = tiny_config(path, student_model=name, **OWN.get(name, {}))
    part = training_part(create_dataset(config))
    here = tiny_view(config, part)
    config["device"] = torch.device(device)
    there = build_backbone(config, part, settings_of(config), "student")
    there.model.load_state_dict(here.model.state_dict())
    there.model.to(device)
    here.model.eval(), there.model.eval()
    return part, here, there


def on_gpu(device):
    return {"use_gpu": True, "gpu_id": "0"} if device == "cuda" else {"use_gpu": False}


@pytest.mark.parametrize("name", STUDENTS)
def test_a_run_trains_and_reports_every_stage_there(name, device, tmp_path, monkeypatch):
    write_benchmark(tmp_path / "data", counts=(40, 12, 12))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run"])
    settings = {"data_path": "data", **BASE, **on_gpu(device), "student_model": name, **OWN.get(name, {})}
    result = run_recbole_alkd(dataset="tiny", config_dict=settings)
    assert set(result["stages"]) == {"teacher", "student", "student_longer", "distilled"}
    for stage in result["stages"].values():
        assert all(0 <= value <= 1 for value in stage["test"].values())
    assert result["labels"]["asked"] + result["labels"]["reused"] == 12


@pytest.mark.parametrize("name", STUDENTS)
def test_scores_are_those_of_the_cpu(name, device, tiny_path):
    part, here, there = both(tiny_path, name, device)
    seq, length, _ = rows(part)
    # convolutions round to 10 bits of mantissa on a GPU unless told otherwise
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = here.scores(seq, length)
        scores = there.scores(seq.to(device), length.to(device))
    assert scores.device.type == device
    torch.testing.assert_close(scores.cpu(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", sorted(DIFFICULTIES))
def test_difficulties_are_those_of_the_cpu(name, device, tiny_path):
    part, here, there = both(tiny_path, "SessionFPMC", device)
    seq, length, target = rows(part)
    expected = difficulty(name, here, seq, length, target)
    difficulties = difficulty(name, there, seq.to(device), length.to(device), target.to(device))
    np.testing.assert_allclose(difficulties, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["SessionFPMC", "SessionKNN", "GRU4Rec"])
def test_candidates_are_those_of_the_cpu(name, device, tiny_path):
    part, here, there = both(tiny_path, name, device)
    seq, length, _ = rows(part)
    expected = top_candidates(here, seq, length, 8)
    candidates = top_candidates(there, seq, length, 8)
    scores = here.scores(seq, length).detach()
    # equal up to ties: the scores of the two lists agree place by place
    torch.testing.assert_close(scores.gather(1, candidates), scores.gather(1, expected), rtol=1e-3, atol=1e-4)


def test_a_run_can_be_repeated_there(device, tmp_path, monkeypatch):
    """Two runs of one seed; sums on a GPU are not ordered, so the metrics agree closely,
    not to the last digit."""
    monkeypatch.setattr(sys, "argv", ["run"])
    ndcgs = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        write_benchmark(tmp_path / name / "data", counts=(200, 60, 60))
        result = run_recbole_alkd(dataset="tiny", config_dict={"data_path": "data", **BASE, **on_gpu(device)})
        ndcgs.append([result["stages"][stage]["test"]["ndcg@10"] for stage in sorted(result["stages"])])
    assert ndcgs[0] == pytest.approx(ndcgs[1], abs=0.02)


def test_runs_of_a_benchmark_train_there_side_by_side(device, tmp_path, monkeypatch):
    """They are forked from a process that must not have touched the GPU."""
    write_benchmark(tmp_path / "data", counts=(40, 12, 12))
    settings = {**BASE, "use_gpu": device == "cuda"}
    del settings["show_progress"]
    arms = ["student", {"name": "GRU", "arm": "model:GRU4Rec"}, "item_knn"]
    plan = {"datasets": ["tiny"], "seeds": [1, 2], "arms": arms, "data_path": "data", "settings": settings}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(plan))
    done = run(["-m", "recbole_alkd.cli", "bench", "mine.yaml", "--out", "out", "--jobs", "4"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    made_on = [
        json.loads(file.read_text())["device"] for file in (tmp_path / "out" / "results").glob("*.json")
    ]
    name = torch.cuda.get_device_name(0) if device == "cuda" else "CPU"
    assert sorted(made_on) == sorted(["CPU"] * 2 + [name] * 4)

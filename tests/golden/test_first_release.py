"""What version 0.1.0 wrote can be read: checkpoints, run folders, labels.

``first_release/`` holds three runs of that version (commit 68c6d3a, 24 November 2026) on the data of
``golden_runs.home``, with the settings of the cases "<student> x max_min", and the label store of the first
one, as they were written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_runs import HERE, differences, home, kept, read_expected, run

from recbole_alkd import load_data_and_model
from recbole_alkd.compat import load_checkpoint
from recbole_alkd.labels import LabelStore

FIRST = HERE / "first_release"
RUNS = {path.parent.name: path.name for path in FIRST.glob("*/ALKDRec-*")}


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """The working directory of the runs, as they left it."""
    with home(tmp_path / "home") as folder:
        for student in RUNS:
            shutil.copytree(FIRST / student, folder / student)
        shutil.copyfile(FIRST / "labels.sqlite", folder / "labels.sqlite")
        yield folder


def result(student: str) -> dict[str, Any]:
    return json.loads((FIRST / student / RUNS[student] / "result.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("student", ["SessionFPMC", "SessionKNN", "GRU4Rec"])
def test_a_checkpoint_loads_and_ranks_as_it_did(student: str, directory: Path) -> None:
    _, model, *_, test_data = load_data_and_model(f"{student}/{RUNS[student]}/ALKDRec.pth")
    rows = test_data._dataset.inter_feat
    top = model.full_sort_predict(rows)[:, 1:].topk(5).indices + 1
    hits = (top == rows["item_id"].unsqueeze(1)).any(1).float().mean()
    then = result(student)["stages"]["distilled"]["test"]["recall@5"]
    assert then > 0 and float(hits) == pytest.approx(then, abs=1e-5)


@pytest.mark.parametrize("student", ["SessionFPMC", "SessionKNN", "GRU4Rec"])
def test_stages_are_read(student: str, directory: Path) -> None:
    from recbole_alkd.trainer.run_folder import StageFolder

    folder = StageFolder(directory / student / RUNS[student])
    saved = load_checkpoint(str(folder.path / "ALKDRec.pth"))["state_dict"]
    stage = folder.stage("distilled")
    assert stage is not None and stage["state"].keys() == saved.keys()
    assert stage["valid"]["ndcg@10"] == result(student)["stages"]["distilled"]["valid"]["ndcg@10"]


def test_run_folders_are_listed_and_shown(directory: Path, capsys: Any) -> None:
    from recbole_alkd.cli import main

    def said(*words: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(list(words))
        assert end.value.code == 0
        return capsys.readouterr().out

    for student, name in RUNS.items():
        assert f"{name}  finished" in said("runs", "list", "--dir", student)
        then = result(student)["stages"]["distilled"]["test"]["ndcg@10"]
        assert f"ndcg@10 {then:.4f}" in said("runs", "show", name, "--dir", student)


def test_labels_are_reused_and_an_unfinished_run_is_left_alone(directory: Path) -> None:
    """Newer settings made the hash in a folder's name another one: a new folder is made,
    with the labels of the old one."""
    unfinished = directory / "SessionFPMC" / RUNS["SessionFPMC"]
    (unfinished / "result.json").unlink()
    before = {file.name: file.read_bytes() for file in unfinished.iterdir() if file.suffix == ".pth"}
    report = run({"checkpoint_dir": "SessionFPMC", "label_store": "labels.sqlite"})
    assert (report["labels"]["asked"], report["labels"]["reused"]) == (0, 10)
    assert {file.name: file.read_bytes() for file in unfinished.iterdir() if file.suffix == ".pth"} == before
    expected = read_expected()["SessionFPMC x max_min"]
    state = kept(report, Path("labels.sqlite"), whole=False)
    for part in ("stages", "policy", "comparisons", "verdict", "store"):
        assert not differences(state[part], expected[part], part)


def test_every_label_is_read_whole(directory: Path) -> None:
    with LabelStore("labels.sqlite") as store:
        labels = list(store)
        assert store.counts() == {"ok": 10, "failed": 0}
    assert all(
        label.teacher == "golden" and len(label.ranking) == 4 and label.prompt_tokens == 7 for label in labels
    )
    assert len({label.key for label in labels}) == 10 and all(len(label.candidates) == 8 for label in labels)


def test_ranks_are_arrays_without_pickles(directory: Path) -> None:
    for student, name in RUNS.items():
        with np.load(directory / student / name / "ranks.npz", allow_pickle=False) as ranks:
            reciprocal = np.where(ranks["distilled_test"] <= 10, 1 / ranks["distilled_test"], 0).mean()
        assert reciprocal == pytest.approx(result(student)["stages"]["distilled"]["test"]["mrr@10"], abs=1e-3)

"""Trained recommenders are shared between runs: found again where they would come out the same,
and only there."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading

import pytest
from process import environment
from test_trainer import BASE, command, go, home, python_path  # noqa: F401  (home: the fixture)

from recbole_alkd.learner.stage_folder import shared_stage
from recbole_alkd.learner.stage_trainer import StageTrainer
from recbole_alkd.quick_start import label_instances


@pytest.fixture
def trained(monkeypatch):
    """The stages whose first epoch is trained from now on."""
    names = []
    train = StageTrainer._train_epoch

    def watched(self, data, epoch, *args, **how):
        if epoch == 0:
            names.append(self._stage.name)
        return train(self, data, epoch, *args, **how)

    monkeypatch.setattr(StageTrainer, "_train_epoch", watched)
    return names


def test_label_after_a_run_trains_nothing(home, trained, caplog):  # noqa: F811
    caplog.set_level("INFO")
    go()
    assert sorted(trained) == ["distilled", "student", "student_longer", "teacher"]
    trained.clear()
    caplog.clear()
    report = label_instances(dataset="tiny", config_dict={"data_path": "data", **BASE})
    assert trained == [] and report["reused"] == 12
    assert "teacher recommender: finished by an earlier run, loaded from saved/stages/teacher-" in caplog.text


def test_later_settings_share_and_the_numbers_stay(home, trained):  # noqa: F811
    first = go(kd_loss="rd")
    trained.clear()
    second = go(kd_loss="rd", budget_labels=8)
    assert sorted(trained) == ["distilled", "student_longer"]
    trained.clear()
    alone = go(kd_loss="rd", budget_labels=8, stage_cache=False)
    assert sorted(trained) == ["distilled", "student", "student_longer", "teacher"]
    for name in first["stages"]:
        assert second["stages"][name]["test"] == alone["stages"][name]["test"]


@pytest.mark.parametrize("change", ["seed", "epochs", "data", "metric", "plug-in", "version"])
def test_what_decides_a_stage_trains_it_anew(change, home, trained, monkeypatch):  # noqa: F811
    go()
    trained.clear()
    settings = {}
    if change == "data":
        file = home / "data/tiny/tiny.train.inter"
        file.write_text(file.read_text().replace("s3\t", "s3x\t"))
    elif change == "plug-in":
        with open(home / "scripted_teacher.py", "a") as plugin:
            plugin.write("\n# another way\n")
    elif change == "version":
        monkeypatch.setattr("recbole_alkd.__version__", "99")
    else:
        settings = {"seed": {"seed": 7}, "epochs": {"epochs": 2}, "metric": {"valid_metric": "MRR@5"}}[change]
    go(**settings)
    assert {"teacher", "student"} <= set(trained)


def test_other_titles_train_a_student_that_reads_them_anew(home, trained):  # noqa: F811
    def titles(words):
        lines = [
            "item_id:token\ttitle:token_seq",
            *(f"i{i}\t{words[i % len(words)]} number {i % 5}" for i in range(1, 31)),
        ]
        (home / "data/tiny/tiny.item").write_text("\n".join(lines) + "\n")

    how = {"item_text": "tfidf", "item_text_loss": "text_pairs"}
    titles(["red film", "blue film", "play"])
    go(**how)
    trained.clear()
    titles(["red", "green play", "film"])
    go(**how)
    assert "student" in trained and "teacher" not in trained


def test_a_run_folder_is_complete_without_the_shared_stages(home):  # noqa: F811
    report = go()
    shutil.rmtree(home / "saved" / "stages")
    assert (home / report["run_folder"] / "teacher.stage.pth").is_file()


def test_two_processes_train_a_shared_stage_once(home):  # noqa: F811
    (home / "scripted_teacher.py").write_text((home / "scripted_teacher.py").read_text() + COUNTING)
    words = [sys.executable, *command()]
    env = environment(PYTHONPATH=python_path(home))
    both = [
        subprocess.Popen(words, cwd=home, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in both:
        assert process.wait(timeout=240) == 0, process.stderr.read()[-2000:]
    begun = (home / "epochs.txt").read_text().split()
    assert begun.count("teacher") == begun.count("student") == 1 and begun.count("distilled") == 2


COUNTING = """
from recbole_alkd.learner.stage_trainer import StageTrainer

train = StageTrainer._train_epoch

def counted(self, data, epoch, *args, **how):
    if epoch == 0:
        with open("epochs.txt", "a") as diary:
            diary.write(self._stage.name + " ")
    return train(self, data, epoch, *args, **how)

StageTrainer._train_epoch = counted
"""


def test_waiting_for_another_process_is_said(tmp_path, caplog):
    caplog.set_level("INFO")
    entered, leave = threading.Event(), threading.Event()

    def first():
        with shared_stage(tmp_path, "teacher", {"a": 1}):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait(10)
    threading.Timer(0.3, leave.set).start()
    with shared_stage(tmp_path, "teacher", {"a": 1}) as folder:
        assert leave.is_set() and folder.path.parent == tmp_path
    thread.join()
    assert "another process is training the stage teacher recommender in " in caplog.text

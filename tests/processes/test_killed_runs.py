"""A run of two processes that is killed resumes as a run of one does: nothing is asked twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from process import environment

from recbole_alkd.testing.toy import TOY_SETTINGS, write_toy_data

pytestmark = pytest.mark.slow
SETTINGS = {**TOY_SETTINGS, "data_path": "data", "stage_cache": False, "epochs": 4}


def start(home, *words, **more):
    settings = {**SETTINGS, **more}
    given = [
        f"--{key}={json.dumps(value) if isinstance(value, (list, dict)) else value}"
        for key, value in settings.items()
    ]
    command = [sys.executable, "-m", "recbole_alkd.cli", "run", "--dataset=toy", "--nproc=2", *words, *given]
    return subprocess.Popen(
        command, cwd=home, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(home, **more):
    program = start(home, **more)
    output, _ = program.communicate(timeout=300)
    assert program.returncode == 0, output[-3000:]
    (file,) = (home / more.get("checkpoint_dir", "saved")).glob("*/result.json")
    return json.loads(file.read_text())


def children(number):
    every = Path(f"/proc/{number}/task/{number}/children").read_text().split()
    names = {int(one): Path(f"/proc/{one}/cmdline").read_bytes() for one in every}
    return [one for one, name in names.items() if b"spawn_main" in name]


# progress at every epoch, however short, a diary of epochs, and time to kill one
SLOW = """
import os
import time

import recbole_alkd.learner.progress
from recbole_alkd.learner.stage_trainer import StageTrainer
from recbole_alkd.processes.group import place

recbole_alkd.learner.progress.SECONDS, recbole_alkd.learner.progress.SHARE = 0.0, 1e9
train = StageTrainer._train_epoch


def slow(self, data, epoch, *args, **how):
    loss, begun = self._stage.loss, []

    def counted(batch):
        if not begun and place()[0] == 0:
            with open("epochs.txt", "a") as diary:
                diary.write(f"{self._stage.name} {epoch}\\n")
        begun.append(1)
        if len(begun) == 2:  # in the middle of the epoch
            time.sleep(float(os.environ.get("EPOCH_PAUSE", "0")))
        return loss(batch)

    self._stage.loss = counted
    try:
        return train(self, data, epoch, *args, **how)
    finally:
        self._stage.loss = loss


StageTrainer._train_epoch = slow
"""


@pytest.mark.parametrize(("stage", "rank"), [("student", None), ("distilled", 1)])
def test_a_stage_that_is_killed_in_an_epoch_ends_with_the_numbers_of_one_that_was_not(
    stage, rank, tmp_path, monkeypatch
):
    """Negatives and dropout are drawn by each process for itself: the generators of all are kept."""
    write_toy_data(tmp_path / "data")
    (tmp_path / "slow_epochs.py").write_text(SLOW)
    more = {"alkd_plugins": "slow_epochs", "epochs": 6, "kd_rec_weight": 1.0}
    whole = finish(tmp_path, checkpoint_dir="whole", **more)
    assert whole["stages"][stage]["epochs"] > 3
    diary = tmp_path / "epochs.txt"
    diary.unlink()
    monkeypatch.setenv("EPOCH_PAUSE", "0.4")
    program = start(tmp_path, **more)
    until = time.monotonic() + 240
    while not (diary.is_file() and f"{stage} 3\n" in diary.read_text()):
        assert program.poll() is None, program.communicate()[0][-3000:]
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(program.pid if rank is None else children(program.pid)[rank], signal.SIGKILL)
    assert program.wait(60) != 0
    monkeypatch.delenv("EPOCH_PAUSE")
    (left,) = tmp_path.glob("saved/ALKDRec-*")
    assert (left / f"{stage}.progress.pth").is_file() and not (left / f"{stage}.stage.pth").exists()
    diary.unlink()
    resumed = finish(tmp_path, **more)
    again = [line.split() for line in diary.read_text().splitlines()]
    assert [stage, "0"] not in again and [stage, "3"] in again, "it resumed inside of the stage"
    same(whole, resumed, tmp_path)


def same(whole, resumed, home):
    """Two runs with the same numbers to the bit."""
    for stage, content in whole["stages"].items():
        for key in ("valid", "test", "epochs", "steps", "best_step"):
            assert content[key] == resumed["stages"][stage][key], (stage, key)
        first, second = (
            torch.load(Path(home, one["run_folder"], f"{stage}.stage.pth"), weights_only=True)["state"]
            for one in (whole, resumed)
        )
        assert all(torch.equal(value, second[name]) for name, value in first.items()), stage
    assert whole["policy"]["picks"] == resumed["policy"]["picks"]
    assert resumed["labels"]["asked"] + resumed["labels"]["reused"] == 10
    assert len(list(home.glob("saved/ALKDRec-*"))) == 1, "it resumed in its folder"


def killed_after(home, file, rank=None):
    """Kill the program, or one of its processes, once ``file`` is in the run folder."""
    program = start(home)
    until = time.monotonic() + 240
    while not list(home.glob(f"saved/*/{file}")):
        assert program.poll() is None, program.communicate()[0][-3000:]
        assert time.monotonic() < until
        time.sleep(0.02)
    os.kill(program.pid if rank is None else children(program.pid)[rank], signal.SIGKILL)
    return program


@pytest.mark.parametrize("file", ["teacher.stage.pth", "student.stage.pth", "distilled.stage.pth"])
def test_a_killed_run_ends_with_the_numbers_of_one_that_was_not(file, tmp_path):
    write_toy_data(tmp_path / "data")
    whole = finish(tmp_path, checkpoint_dir="whole")
    killed_after(tmp_path, file).wait(30)
    resumed = finish(tmp_path)
    same(whole, resumed, tmp_path)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_command_with_one_line(rank, tmp_path):
    write_toy_data(tmp_path / "data")
    program = killed_after(tmp_path, "teacher.stage.pth", rank)
    output, _ = program.communicate(timeout=60)
    assert program.returncode == 1
    (line,) = [line for line in output.splitlines() if "error" in line.lower()]
    assert line.startswith(f"error: process {rank} of 2 was ended by SIGKILL")
    assert "Traceback" not in output


def test_a_users_mistake_is_one_line_and_code_two(tmp_path):
    write_toy_data(tmp_path / "data")
    program = start(tmp_path, budget_labels=4000)
    output, _ = program.communicate(timeout=120)
    assert program.returncode == 2
    assert "budget_labels" in output.splitlines()[-1] and output.splitlines()[-1].startswith("error: ")
    assert output.count("error:") == 1 and "Traceback" not in output

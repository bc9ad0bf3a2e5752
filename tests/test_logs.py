"""TensorBoard and W&B get the curves of every stage, each under its stage's name."""

from __future__ import annotations

import sys
import types
from importlib.machinery import ModuleSpec

import pytest
from process import ROOT, run
from test_trainer import go, home  # noqa: F401  (the fixture)

from recbole_alkd.learner.stage_logs import StageTensorBoard, StageWandb

STAGES = {"teacher", "student", "distilled", "student_longer"}


def test_tensorboard_has_every_stage(home):  # noqa: F811
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    go()
    tags = set()
    for file in home.glob("log_tensorboard/*/events*"):
        events = EventAccumulator(str(file))
        events.Reload()
        tags |= set(events.Tags()["scalars"])
    assert {tag.split("/")[0] for tag in tags} >= STAGES
    for stage in STAGES:
        assert f"{stage}/Loss/Train" in tags and f"{stage}/Vaild_score" in tags  # RecBole's spelling


def test_wandb_has_every_stage(home, monkeypatch):  # noqa: F811
    logged, summary = [], {}
    stand_in = types.ModuleType("wandb")
    stand_in.__spec__ = ModuleSpec("wandb", None)  # it counts as installed
    stand_in.run = None

    def init(**_how):
        stand_in.run = types.SimpleNamespace(summary=summary)

    stand_in.init, stand_in.define_metric = init, lambda *args, **how: None
    stand_in.log = lambda metrics, commit=True: logged.append(dict(metrics))
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    go(log_wandb=True)
    keys = {key for metrics in logged for key in metrics}
    for stage in STAGES:
        assert {
            f"{stage}/train/train_loss",
            f"{stage}/train_step",
            f"{stage}/valid/ndcg@10",
            f"{stage}/valid_step",
        } <= keys
    assert any(key.endswith("eval/ndcg@10") for key in summary)


def test_hyper_parameters_are_written_once():
    calls = []
    writer = types.SimpleNamespace(
        add_hparams=lambda h, m: calls.append(h), add_scalar=lambda *a: calls.append(a)
    )
    StageTensorBoard(writer, "teacher").add_hparams({"a": 1}, {})
    StageTensorBoard(writer, "distilled", hparams=True).add_hparams({"a": 2}, {})
    StageTensorBoard(writer, "teacher").add_scalar("Loss/Train", 0.5, 3)
    assert calls == [{"a": 2}, ("teacher/Loss/Train", 0.5, 3)]


@pytest.mark.parametrize(
    ("key", "named"),
    [("train_loss", "s/train/train_loss"), ("train_step", "s/train_step"), ("epoch", "s/train/epoch")],
)
def test_names_of_metrics(key, named):
    got = []
    logger = types.SimpleNamespace(
        log_metrics=lambda metrics, head, commit: got.append((metrics, head, commit))
    )
    StageWandb(logger, "s").log_metrics({key: 1})
    assert got == [({named: 1}, "", True)]


RUNS = """
import logging, os, shutil, sys
from pathlib import Path
sys.argv = ["run"]
sys.path[:0] = {path!r}
from test_trainer import BASE, OURS, go
from recbole_alkd import run_recbole_alkd

own = logging.FileHandler("own.txt")
first = Path(go(data_path={data!r}, state="INFO")["run_folder"])
assert (Path("log/ALKDRec") / (first.name + ".log")).stat().st_size > 1000
logging.getLogger().addHandler(own)
shutil.rmtree("log")
os.makedirs("other"); os.chdir("other")
shutil.copy("../scripted_teacher.py", ".")
recbole = {{key: value for key, value in BASE.items() if key not in OURS}}
run_recbole_alkd("SessionKNN", "tiny", config_dict={{**recbole, "data_path": {data!r}}})
(single,) = Path("log/SessionKNN").glob("*.log")
shutil.rmtree("log")
second = Path(go(data_path={data!r}, state="INFO")["run_folder"])
(log,) = Path("log/ALKDRec").glob("*.log")
assert log.name == second.name + ".log" and "test result" in log.read_text()
assert [type(one).__name__ for one in logging.getLogger().handlers].count("FileHandler") == 2
assert Path("../own.txt").exists() and "test result" in Path("../own.txt").read_text()
"""


def test_every_run_of_a_process_has_a_log_of_its_own(home):  # noqa: F811
    """Another model, another working directory, and the log folder of an earlier run gone;
    a program's own log file stays where it is."""
    path = [str(ROOT / "tests"), str(home)]
    done = run(["-c", RUNS.format(path=path, data=str(home / "data"))], home)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (home / "own.txt").exists() and not (home / "log").exists()

"""After a run: its result.json runs it again, its name is one, its console is short,
and old runs can be pruned."""

from __future__ import annotations

import json
import os
import time

import pytest
from process import run
from test_trainer import BASE, TEACHER, python_path
from tiny import write_benchmark

from recbole_alkd.active.certificate import certificate_words
from recbole_alkd.learner.stage_names import stage_words
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.trainer.again import read_again
from recbole_alkd.trainer.run_folder import RunFolder
from recbole_alkd.trainer.runs import find_runs, prune


def cli(home, *words, **settings):
    """``recbole-alkd`` in a shell of its own."""
    fresh = words[0] == "run" and "--again" not in words
    values = {**BASE, "state": "INFO", "show_progress": True, **settings} if fresh else settings
    given = [
        f"--{key}={json.dumps(value) if isinstance(value, (list, dict)) else value}"
        for key, value in values.items()
    ]
    return run(["-m", "recbole_alkd.cli", *words, *given], home, PYTHONPATH=python_path(home))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A working directory with one finished run, and what the run printed."""
    home = tmp_path_factory.mktemp("home")
    write_benchmark(home / "data", counts=(40, 12, 12))
    (home / "scripted_teacher.py").write_text(TEACHER)
    done = cli(home, "run", "--dataset=tiny", "--data_path=data", learning_rate=0.02, epochs=4)
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = home.glob("saved/*/result.json")
    return home, done.stdout + done.stderr, json.loads(file.read_text())


def test_the_result_says_what_decided_it(finished):
    _, _, result = finished
    assert (
        result["training"]["student"]["learning_rate"] == 0.02
        and result["training"]["student"]["epochs"] == 4
    )
    assert result["evaluation"]["eval_args"]["split"] and result["evaluation"]["topk"] == [5, 10]
    assert {"recbole_alkd", "recbole", "torch", "numpy", "python"} <= set(result["versions"])
    assert result["began"] <= result["ended"] and result["seconds"] > 0


def test_log_folder_and_tensorboard_have_one_name(finished):
    home, _, result = finished
    name = os.path.basename(result["run_folder"])
    assert result["log"] == f"log/ALKDRec/{name}.log" and result["tensorboard"] == f"log_tensorboard/{name}"
    assert [file.name for file in (home / "log/ALKDRec").iterdir()] == [f"{name}.log"]
    assert [file.name for file in (home / "log_tensorboard").iterdir()] == [name]
    assert "train_batch_size" in (home / result["log"]).read_text(), "RecBole's settings are in the file"


def test_the_console_is_short(finished):
    home, printed, result = finished
    lines = [line for line in printed.splitlines() if line.strip()]
    assert "train_batch_size" not in printed and "FLOPs" not in printed and "users" not in printed
    for stage in ("teacher", "student", "distilled", "student_longer"):
        epochs = result["stages"][stage]["epochs"]
        assert sum(f" of {stage_words(stage)}: loss" in line for line in lines) == epochs
    assert "40 training sessions (40 rows), 12 validation sessions, 30 items" in printed
    assert len(lines) < 70
    assert "no policy is sure of gaining more" in printed
    warned = [line.partition("WARNING")[2] for line in lines if "WARNING" in line]
    assert len(warned) == len(set(warned))
    assert len((home / result["log"]).read_text().splitlines()) > 100


def test_short_log_false_is_recboles_own(finished):
    home, *_ = finished
    done = cli(home, "run", "--dataset=tiny", "--data_path=data", short_log=False, seed=5)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (
        "train_batch_size" in done.stdout + done.stderr and "epoch 0 evaluating" in done.stdout + done.stderr
    )


def test_a_result_is_run_again(finished):
    home, _, result = finished
    asked = len((home / "diary.txt").read_text().split())
    done = cli(home, "run", "--again", f"{result['run_folder']}/result.json")
    assert done.returncode == 0, done.stderr[-2000:]
    newest = max(home.glob("saved/*/result.json"), key=os.path.getmtime)
    again = json.loads(newest.read_text())
    assert again["run_folder"] != result["run_folder"]
    for name in result["stages"]:
        assert again["stages"][name]["test"] == result["stages"][name]["test"]
    assert again["again"] == result["again"]
    assert len((home / "diary.txt").read_text().split()) == asked, "no label is paid for again"


def test_again_takes_other_settings_too_and_says_what_is_not_as_it_was(finished):
    home, _, result = finished
    file = home / "edited.json"
    file.write_text(json.dumps({**result, "versions": {**result["versions"], "torch": "0.1"}}))
    done = cli(home, "run", "--again", "edited.json", epochs=2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "made with torch 0.1" in done.stderr
    newest = max(home.glob("saved/*/result.json"), key=os.path.getmtime)
    assert json.loads(newest.read_text())["training"]["student"]["epochs"] == 2
    both = cli(home, "run", "--again", "edited.json", "--dataset=tiny")
    assert both.returncode == 2 and "--again" in both.stderr and "Traceback" not in both.stderr


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b"[]", b"{}", b'{"again": {"model": 3}}', b"\xff\xfe", b"[" * 100000]
)
def test_what_is_no_result_is_refused_in_one_line(content, tmp_path):
    file = tmp_path / "result.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(AlkdError, match="--again") as error:
        read_again(str(file))
    assert "\n" not in str(error.value)


def test_runs_are_listed_and_shown(finished):
    home, _, result = finished
    name = os.path.basename(result["run_folder"])
    listed = cli(home, "runs", "list")
    (line,) = [line for line in listed.stdout.splitlines() if line.startswith(name)]
    assert "finished" in line and "MiB" in line and result["comparison"]["verdict"] in line
    count = sum(line.startswith("ALKDRec-") for line in listed.stdout.splitlines())
    assert listed.stdout.splitlines()[-1].startswith(f"{count} run, " if count == 1 else f"{count} runs, ")
    shown = cli(home, "runs", "show", name)
    assert (
        f"recbole-alkd run --again saved/{name}/result.json" in shown.stdout and "distilled" in shown.stdout
    )
    unknown = cli(home, "runs", "show", "nothing")
    assert unknown.returncode == 2 and "fits 0 of" in unknown.stderr
    assert cli(home, "runs", "list", "--dir", "nowhere").returncode == 2


@pytest.fixture
def several(tmp_path, monkeypatch):
    """Five finished runs, one a day, the first the oldest, with logs; a shared stage;
    labels everywhere one may put them."""
    monkeypatch.chdir(tmp_path)
    for day in range(5):
        folder = RunFolder.open("saved", "ALKDRec-tiny", f"Jan-{day}", f"{day:010x}")
        folder.write_json("result.json", {"comparison": None})
        folder.close()
        log = tmp_path / "log" / "ALKDRec" / f"{folder.path.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("x")
        (tmp_path / "log_tensorboard" / folder.path.name).mkdir(parents=True)
        aged([*folder.path.iterdir()], 5 - day)
    stage = tmp_path / "saved/stages/teacher-0123456789"
    stage.mkdir(parents=True)
    (stage / ".lock").touch()
    aged([stage], 3)
    (tmp_path / "alkd_labels").mkdir()
    for labels in ("alkd_labels/labels.sqlite", "saved/labels.sqlite"):
        (tmp_path / labels).write_text("labels")
        aged([tmp_path / labels], 100)
    (tmp_path / "saved/mine").mkdir()
    return tmp_path


def aged(files, days):
    for file in files:
        os.utime(file, (time.time() - days * 86400,) * 2)


def left(home):
    return sorted(path.name for path in (home / "saved").iterdir() if path.name.startswith("ALKDRec"))


def test_prune_keeps_the_newest(several):
    said = list(prune(several / "saved", keep=2, older_than=None))
    assert len(left(several)) == 2 and all("Jan-3" in name or "Jan-4" in name for name in left(several))
    assert (
        len(list((several / "log/ALKDRec").iterdir()))
        == len(list((several / "log_tensorboard").iterdir()))
        == 2
    )
    assert (several / "saved/stages/teacher-0123456789").is_dir() and (several / "saved/mine").is_dir()
    assert len(said) == 9


def test_prune_by_age_takes_unused_stages_too(several):
    list(prune(several / "saved", keep=None, older_than=2.5))
    assert len(left(several)) == 2
    assert not (several / "saved/stages/teacher-0123456789").exists()
    assert (several / "alkd_labels/labels.sqlite").exists() and (several / "saved/labels.sqlite").exists()


def test_prune_leaves_labels_and_living_runs_alone(several):
    names = left(several)
    (several / "saved" / names[0] / "labels.sqlite").write_text("labels")
    (several / "saved" / names[1] / "result.json").unlink()
    alive = RunFolder.open("saved", "ALKDRec-tiny", "now", names[1].rpartition("-")[2])
    assert alive.resumed and [run.state for run in find_runs(several / "saved")].count("running") == 1
    said = list(prune(several / "saved", keep=0, older_than=None))
    assert left(several) == names[:2] and sum("left alone" in line for line in said) == 2
    alive.close()


def test_a_dry_run_deletes_nothing_and_nothing_goes_unasked(several):
    names = left(several)
    assert all(
        line.startswith("would delete")
        for line in prune(several / "saved", keep=0, older_than=None, dry_run=True)
    )
    assert left(several) == names
    with pytest.raises(AlkdError, match="--keep"):
        list(prune(several / "saved", keep=None, older_than=None))
    for words in ([], ["--keep", "-1"], ["--older-than", "nan"]):
        assert cli(several, "runs", "prune", *words).returncode == 2
    assert left(several) == names


def test_the_certificate_in_words():
    assert "no policy is sure of gaining more" in certificate_words({"value": 2e-30, "upper": 2e-30})
    assert "sure of 50.0% of what" in certificate_words({"value": 1e-30, "upper": 2e-30})
    assert "no policy is sure of any gain" in certificate_words({"value": -1.0, "upper": 0.0})

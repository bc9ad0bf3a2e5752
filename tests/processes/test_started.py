"""Processes that torchrun has started join each other, and are a run of several as any other."""

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

from recbole_alkd.processes import started
from recbole_alkd.processes.places import Places
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.testing.toy import TOY_SETTINGS, write_toy_data

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
TOY = [
    "--dataset=toy",
    *(
        f"--{key}={json.dumps(value) if isinstance(value, (list, dict)) else value}"
        for key, value in {**TOY_SETTINGS, "data_path": "data", "stage_cache": False}.items()
    ),
]
PLACE = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "5"}


@pytest.fixture
def told(monkeypatch):
    """Sets what a starter says, in the environment."""

    def tell(**names):
        monkeypatch.setattr(started, "_taken", None)
        for name in (*started.NAMES, "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in names.items():
            monkeypatch.setenv(name, value)

    yield tell
    monkeypatch.setattr(started, "_taken", None)


def test_a_place_is_what_the_starter_says(told):
    told(**PLACE)
    by = started.starter()
    assert (by.rank, by.size, by.local_rank, by.local_size) == (1, 2, 1, 1)
    assert started.together(Places()) == 2
    told(**{**PLACE, "LOCAL_WORLD_SIZE": "2"})
    assert started.starter().local_size == 2


@pytest.mark.parametrize("left_out", [*started.NAMES, None])
def test_one_process_is_one(left_out, told):
    """What `accelerate launch --cpu` sets for a single process, and a WORLD_SIZE of 1."""
    given = {**PLACE, "RANK": "0", "WORLD_SIZE": "1" if left_out is None else "2"}
    given.pop(left_out, None)
    told(**given)
    assert started.starter() is None and started.together(Places(3)) == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [("RANK", "2"), ("RANK", "-1"), ("RANK", "a"), ("WORLD_SIZE", "two"), ("LOCAL_RANK", "")],
)
def test_a_place_that_cannot_be_is_one_line(name, value, told):
    told(**{**PLACE, name: value})
    with pytest.raises(AlkdError, match=name):
        started.starter()


@pytest.mark.parametrize("places", [Places(2), Places(1, 2), Places(1, 2, group_offset=1)])
def test_a_starter_and_nproc_are_refused_together(places, told):
    told(**PLACE)
    with pytest.raises(AlkdError, match="nproc, world_size, group_offset: not allowed where another program"):
        started.together(places)


def test_processes_that_have_not_joined_do_not_work_side_by_side(told):
    """Each would ask and pay for itself."""
    from recbole_alkd.processes.group import Group

    told(**PLACE)
    with pytest.raises(AlkdError, match="WORLD_SIZE: 2 processes were started by another program"):
        Group.of({"single_spec": True, "train_batch_size": 64, "device": torch.device("cpu")})


def test_a_model_of_recboles_is_refused(told):
    from recbole_alkd import run_recbole_alkd

    told(**PLACE)
    with pytest.raises(AlkdError, match="nproc: 2 is not allowed with GRU4Rec"):
        run_recbole_alkd("GRU4Rec", "toy")


def torchrun(folder, *words, **more):
    return subprocess.Popen(
        [*TORCHRUN, *words], cwd=folder, env=environment(TMPDIR=str(folder)), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True, **more,
    )  # fmt: skip


def program(folder, work, arguments):
    return torchrun(folder, str(Path(__file__).parent / "by_torchrun.py"), work, repr(arguments))


def errors(output):
    return [line for line in output.splitlines() if line.startswith(("error: ", "interrupted: "))]


@pytest.mark.slow
def test_they_speak_with_each_other(tmp_path):
    one = program(tmp_path, "members:talk", ())
    output, _ = one.communicate(timeout=120)
    assert one.returncode == 0, output
    results = sorted(line for line in output.splitlines() if line.startswith("result: "))
    assert results[0] == "result: None"
    assert "'gathered': [{'rank': 0}, {'rank': 1}]" in results[1] and "'local_rank': 1" in results[1]
    assert not list(tmp_path.glob("recbole-alkd-*")), "the folder that they share is gone"


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("kind", "words"),
    [("mistake", "epochs: -1 is not allowed"), ("killed", "another process of this run is gone")],
)
def test_one_that_ends_badly_ends_all_with_one_line(rank, kind, words, tmp_path):
    one = program(tmp_path, "members:fail", (rank, kind, str(tmp_path)))
    output, _ = one.communicate(timeout=120)
    assert one.returncode != 0
    (line,) = errors(output)
    # where torchrun is faster than the news of a killed process, that is the reason
    assert words in line or (kind == "killed" and "ended by SIGTERM" in line)
    assert not list(tmp_path.glob("recbole-alkd-*"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_they_end_with_torchrun(number, tmp_path):
    from test_launch import gone, pids

    one = program(tmp_path, "members:sleep", (str(tmp_path),))
    working = pids(tmp_path, 2)
    if number == signal.SIGINT:  # a terminal interrupts all of them
        os.killpg(one.pid, number)
    else:
        one.send_signal(number)
    output, _ = one.communicate(timeout=90)
    assert one.returncode != 0 and gone(working)
    # nobody tells them of a SIGKILL: they end without a word, or one sees that the other is gone before
    assert len(errors(output)) in ((0, 1) if number == signal.SIGKILL else (1,)), output
    until = time.monotonic() + 10
    while list(tmp_path.glob("recbole-alkd-*")) and time.monotonic() < until:
        time.sleep(0.1)
    assert not list(tmp_path.glob("recbole-alkd-*"))


def curve(folder, out, starter, *words):
    given = ["lora-curve", "control", "--out", str(out), "--examples", "12", *words]
    done = subprocess.run(
        [*starter, "-m", "recbole_alkd.cli", *given], cwd=folder, env=environment(), capture_output=True,
        text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("12 natural examples, MRR") == 1, "the leader alone speaks"
    (line,) = out.read_text().splitlines()
    return json.loads(line)


@pytest.mark.slow
def test_curves_of_lora_are_those_of_one_process(tmp_path):
    sys.path.append(str(Path(__file__).resolve().parents[1] / "teacher"))
    from tiny_llm import tiny_llm

    model = tiny_llm(tmp_path / "tiny")
    given = ["--set", f"llm_model={model}", "llm_dtype=float32", "lora_batch_size=4", "lora_epochs=2"]
    python = [sys.executable]
    one = curve(tmp_path, tmp_path / "one.jsonl", python, *given)
    ours = curve(tmp_path, tmp_path / "ours.jsonl", python, "--nproc", "2", *given)
    theirs = curve(tmp_path, tmp_path / "theirs.jsonl", TORCHRUN, *given)
    accelerate = [*python, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    alone = curve(tmp_path, tmp_path / "alone.jsonl", [*accelerate, "--num_machines", "1"], *given)
    for other in (ours, theirs, alone):
        for key in ("loss_start", "loss_first", "loss_last", "scale"):
            assert other[key] == pytest.approx(one[key], abs=1e-4), key
        assert (other["steps"], other["mrr"]) == (one["steps"], one["mrr"])
    assert all(ours[key] == theirs[key] for key in ("loss_first", "loss_last", "mrr"))
    assert one["loss_first"] != one["loss_last"]


@pytest.mark.slow
def test_a_run_is_that_of_nproc(tmp_path):
    write_toy_data(tmp_path / "data")
    words = ["-m", "recbole_alkd.cli", "run", *TOY]
    theirs = torchrun(tmp_path, *words, "--checkpoint_dir=theirs")
    output, _ = theirs.communicate(timeout=400)
    assert theirs.returncode == 0, output[-3000:]
    ours = subprocess.run(
        [sys.executable, *words, "--checkpoint_dir=ours", "--nproc=2"], cwd=tmp_path, env=environment(),
        capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert ours.returncode == 0, ours.stderr[-3000:]
    reports = []
    for name in ("theirs", "ours"):
        (file,) = tmp_path.glob(f"{name}/*/result.json")
        reports.append(json.loads(file.read_text()))
    assert [report["processes"] for report in reports] == [2, 2]
    assert reports[0]["policy"]["picks"] == reports[1]["policy"]["picks"]
    for stage, content in reports[0]["stages"].items():
        assert content["test"] == reports[1]["stages"][stage]["test"], stage
    assert not list(tmp_path.glob("recbole-alkd-*"))


@pytest.mark.slow
def test_commands_of_one_process_are_refused_before_anything_is_asked(tmp_path):
    write_toy_data(tmp_path / "data")
    one = torchrun(tmp_path, "-m", "recbole_alkd.cli", "label", *TOY)
    output, _ = one.communicate(timeout=200)
    assert one.returncode != 0
    assert errors(output) and all("WORLD_SIZE: 2 processes" in line for line in errors(output)), output

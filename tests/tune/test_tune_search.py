"""``recbole-alkd tune``: trials end with scores, a killed search resumes, processes share one."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import resource
import shlex
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
import yaml
from process import environment, run
from tiny import NAME, write_benchmark

pytest.importorskip("optuna")

SMALL = [
    "--benchmark_filename=[train,valid,test]", "--USER_ID_FIELD=session_id", "--ITEM_ID_FIELD=item_id",
    "--load_col={inter: [session_id, item_id_list, item_id]}", "--alias_of_item_id=[item_id_list]",
    "--MAX_ITEM_LIST_LENGTH=6", "--train_neg_sample_args=~", "--train_batch_size=16", "--use_gpu=False",
    "--epochs=2",     "--eval_args={split: {RS: [0.6, 0.2, 0.2]}, order: TO, group_by: none, mode: full}",
    "--show_progress=False", "--item_text=~",
]  # fmt: skip


@pytest.fixture
def place(tmp_path):
    write_benchmark(tmp_path / "data")
    (tmp_path / "space.yaml").write_text(
        "learning_rate: [0.001, 0.003, 0.01, 0.03, 0.1]\ntrain_batch_size: [8, 32]\n"
    )
    return tmp_path


def words_of(*more, model="GRU4Rec", batch=False):
    given = {word.split("=")[0] for word in more}
    small = [
        word for word in SMALL if (batch or "batch_size" not in word) and word.split("=")[0] not in given
    ]
    return [
        "-m", "recbole_alkd.cli", "tune", f"--model={model}", f"--dataset={NAME}", "--data_path=data",
        "--space=space.yaml", "--out=search", *small, *more,
    ]  # fmt: skip


def table(place):
    return list(csv.DictReader((place / "search" / "trials.csv").read_text().splitlines()))


def test_a_search_of_a_model_of_recboles_and_its_best_settings(place):
    done = run(words_of("--trials=4", "--hidden_size=8", "--embedding_size=8"), place)
    assert done.returncode == 0, done.stderr
    rows = table(place)
    finished = [row for row in rows if row["state"] == "complete"]
    assert len(rows) == 4 and finished
    assert all(float(row["score"]) > 0 for row in finished)
    top = max(finished, key=lambda row: float(row["score"]))
    best = yaml.safe_load((place / "search" / "best.yaml").read_text())
    assert {key: str(value) for key, value in best.items()} == {
        key: top[key] for key in ("learning_rate", "train_batch_size")
    }
    assert f"MRR@10 {float(top['score']):.4f}" in done.stdout
    assert (place / "search" / "search.svg").read_text().startswith("<?xml")
    assert not list((place / "saved").glob("*.pth")), "a trial leaves no checkpoint"
    command = done.stdout.splitlines()[-1].split("recbole-alkd ")[1]
    again = run(["-m", "recbole_alkd.cli", *shlex.split(command)], place)
    assert again.returncode == 0, again.stderr
    assert f"{float(top['score']):.4f}" in (again.stdout + again.stderr), (
        "the run has the trial's score on validation"
    )


def test_trials_of_alkdrec_share_the_teacher_recommender_and_leave_no_folder(place):
    (place / "space.yaml").write_text("kd_weight: [0.1, 1.0, 3.0]\n")
    words = [
        "--llm_teacher=recommender",
        "--budget_labels=4",
        "--llm_candidates=8",
        "--llm_top_n=3",
        "--lora=False",
    ]
    words += ["--checkpoint_dir=saved", "--trials=3"]
    done = run(
        words_of(*words, "--student_model=GRU4Rec", "--teacher_model=GRU4Rec", model="ALKDRec", batch=True),
        place,
    )
    assert done.returncode == 0, done.stderr
    assert sum(row["state"] == "complete" for row in table(place)) >= 1 and len(table(place)) == 3
    names = [path.name for path in (place / "saved" / "stages").iterdir() if path.is_dir()]
    assert len([name for name in names if name.startswith("teacher")]) == 1, names
    assert not list((place / "saved").glob("ALKDRec-*"))


def test_a_second_start_has_the_first_ones_trials_and_another_search_is_refused(place):
    assert run(words_of("--trials=2"), place).returncode == 0
    first = table(place)
    more = run(words_of("--trials=3"), place)
    assert more.returncode == 0, more.stderr
    assert table(place)[:2] == first and len(table(place)) == 3
    assert more.stdout.count(" done): ") == 1
    other = run(words_of("--trials=3", "--hidden_size=4"), place)
    assert other.returncode == 2 and "another search" in other.stderr
    quiet = run(words_of("--trials=3", "--log_wandb=False", "--worker=0"), place)
    assert quiet.returncode == 0, quiet.stderr  # no other search


def test_trials_on_other_sessions_are_never_mixed_with_those_of_today(place):
    first = run(words_of("--trials=1"), place)
    assert first.returncode == 0, first.stderr
    file = place / "data" / NAME / f"{NAME}.train.inter"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]))
    later = run(words_of("--trials=2"), place)
    assert later.returncode == 2 and "another search (other settings, space or data)" in later.stderr
    file.write_text("".join(lines))
    again = run(words_of("--trials=2"), place)
    assert again.returncode == 0 and len(table(place)) == 2, again.stderr


def test_a_disk_that_is_full_leaves_no_half_made_search(place):
    def small():
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))  # bytes; a new search has more

    full = subprocess.run(
        [sys.executable, *words_of("--trials=1")], cwd=place, env=environment(), capture_output=True,
        text=True, preexec_fn=small,
    )  # fmt: skip
    assert full.returncode == 2 and "Traceback" not in full.stderr
    told = r"^error: --out: .search/study.db. cannot be written .*make room"
    assert re.search(told, full.stderr, re.MULTILINE), full.stderr
    assert not (place / "search" / "study.db").exists()
    done = run(words_of("--trials=1"), place)
    assert done.returncode == 0 and len(table(place)) == 1, done.stderr
    (place / "search" / "search.svg").unlink()
    (place / "search" / "search.svg").mkdir()  # where no file can be written
    again = run(words_of("--trials=1"), place)
    assert again.returncode == 0 and "best on validation" in again.stdout, again.stderr
    assert re.search(r"^warning: search/search: the picture cannot be written: ", again.stderr, re.MULTILINE)


def test_a_killed_trial_is_made_again(place):
    words = [sys.executable, *words_of("--trials=3", "--epochs=150", "--stopping_step=150", "--no-prune")]
    process = subprocess.Popen(
        words, cwd=place, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    file = place / "search" / "study.db"
    query = "select count(*) from trials join trial_params using (trial_id) where state = 'RUNNING'"

    def running():
        if not file.exists():
            return 0
        try:
            with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
                return connection.execute(query).fetchone()[0]
        except sqlite3.OperationalError:  # its tables are being made
            return 0

    while running() < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = run(words_of("--trials=1", "--epochs=150", "--stopping_step=150", "--no-prune"), place)
    assert done.returncode == 0, done.stderr
    assert "cut off" in done.stdout
    rows = table(place)
    assert [row["state"] for row in rows] == ["fail", "complete"]
    assert all(rows[0][key] == rows[1][key] for key in ("learning_rate", "train_batch_size"))


def test_two_processes_share_a_search(place):
    words = [sys.executable, *words_of("--trials=6", "--no-prune", "--sampler=grid")]
    both = [
        subprocess.Popen(
            words, cwd=place, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    ends = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    rows = table(place)
    tried = [(row["learning_rate"], row["train_batch_size"]) for row in rows]
    assert 6 <= len(rows) <= 7 and len(set(tried)) == len(tried), "nothing is tried twice"


def test_what_cannot_work_ends_before_the_first_trial(place):
    for more, words in (
        (["--trials=0"], "--trials: 0 is not allowed"),
        (["--trials=11"], "more than the 10 in the space"),
        (["--hours=0"], "--hours"),
        (["--learning_rate=0.1"], "also given"),
        (["--space=nowhere.yaml"], "nowhere.yaml"),
    ):
        done = run(words_of("--trials=2", *more), place)
        assert done.returncode == 2 and words in done.stderr, done.stderr
    assert not (place / "search").exists()


def test_a_teacher_that_costs_is_not_asked_by_many_trials_without_a_word(place):
    (place / "space.yaml").write_text("kd_weight: [0.1, 1.0]\n")
    words = [
        "--llm_teacher=api",
        "--llm_model=m",
        "--llm_base_url=http://127.0.0.1:9",
        "--trials=2",
        "--budget_usd=~",
    ]
    done = run(words_of(*words, model="ALKDRec", batch=True), place, OPENAI_API_KEY="k")
    assert done.returncode == 2 and "--may-pay" in done.stderr, done.stderr


def test_optuna_is_asked_for_by_name(place, monkeypatch):
    code = "import sys; sys.modules['optuna'] = None; import recbole_alkd.cli as c; c.main(sys.argv[1:])"
    done = run(["-c", code, *words_of()[2:]], place)
    assert done.returncode == 2 and "recbole_alkd[tune]" in done.stderr


def test_a_trial_that_diverges_is_left_out_and_the_search_goes_on(place):
    (place / "space.yaml").write_text("learning_rate: [1.0e+30, 0.01]\n")
    done = run(words_of("--trials=2", "--sampler=grid", batch=True), place)
    assert done.returncode == 0, done.stderr
    states = {row["learning_rate"]: row["state"] for row in table(place)}
    assert states["0.01"] == "complete"

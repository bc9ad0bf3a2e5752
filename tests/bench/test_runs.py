"""Whole plans on a tiny data set, in subprocesses, through the console command."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch
import yaml
from process import environment, run
from test_plan import PLAN
from tiny import N_ITEMS, tiny_config, write_benchmark

from recbole_alkd import AlkdError
from recbole_alkd.bench import runs, worker
from recbole_alkd.bench.arms import ARMS as ARMS_OF_ALL
from recbole_alkd.bench.arms import find_arm
from recbole_alkd.bench.plan import read_plan
from recbole_alkd.bench.results import load_result
from recbole_alkd.bench.runs import alone_in
from recbole_alkd.bench.worker import half_precision, run_task
from recbole_alkd.cli import main
from recbole_alkd.llm.text_vectors import TextVectors
from recbole_alkd.model.baselines import Baseline
from recbole_alkd.model.counting import LONGEST_GAP
from recbole_alkd.model.neighbours import table_bytes
from recbole_alkd.model.scoring import mean_ranks
from recbole_alkd.quick_start import select_instances
from recbole_alkd.trainer.identity import versions

ARMS = ["student", "item_knn", "strong_student", "random"]
COMMAND = ["-m", "recbole_alkd.cli", "bench", "mine.yaml", "--out", "out"]


def home_with(tmp_path, **plan):
    write_benchmark(tmp_path / "data", counts=(40, 12, 30))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**PLAN, "data_path": "data", **plan}))
    return tmp_path


def state(home):
    return {path.name: path.stat().st_mtime_ns for path in (home / "out" / "results").glob("*.json")}


def group_lives(group):
    """Whether a process of the group runs; one that has ended may wait to be reaped for long."""
    for process in psutil.process_iter(["status"]):
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                return True
    return False


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A plan with one arm that must fail, killed when two runs are finished, and started again.

    Gives back its folder, the second command, and the results that the first one left.
    """
    broken = {"name": "too many labels", "arm": "random", "settings": {"budget_labels": 500}}
    home = home_with(tmp_path_factory.mktemp("bench"), arms=[*ARMS, broken])
    command = [*COMMAND, "--jobs", "2"]
    process = subprocess.Popen(
        [sys.executable, *command], cwd=home, env=environment(), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (home / "out" / "results").is_dir() or len(state(home)) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)  # the runs under way as well
    process.wait()
    before = state(home)
    return home, run(command, home), before


def test_a_killed_plan_goes_on(bench):
    home, _, before = bench
    after = state(home)
    assert 2 <= len(before) < len(after) == 8 and before.items() <= after.items()


def test_no_run_outlives_a_benchmark_that_was_killed(tmp_path):
    # epochs without end: the runs would go on for hours
    home = home_with(
        tmp_path,
        arms=["student"],
        settings={**PLAN["settings"], "epochs": 1_000_000, "stopping_step": 1_000_000},
    )
    process = subprocess.Popen(
        [sys.executable, *COMMAND, "--jobs", "2"], cwd=home, env=environment(), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while len(list((home / "out" / "work" / "saved").glob("*"))) < 2:  # both runs have begun
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 60
        while group_lives(process.pid):
            assert time.monotonic() < deadline, "a run goes on"
            time.sleep(0.05)
    finally:
        if group_lives(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


def test_a_failed_run_is_reported_and_the_others_are_kept(bench):
    home, done, _ = bench
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr[-2000:]
    failed = [line for line in done.stdout.splitlines() if line.startswith("failed: ")]
    assert len(failed) >= 2 and all("too many labels" in line and "500" in line for line in failed)
    # one cause, one line
    assert failed[-1].startswith("failed: 2 runs (tiny, SessionFPMC, too many labels, seed 1; ")
    rows = list(csv.DictReader((home / "out" / "results.csv").open()))
    assert [(row["arm"], row["seed"]) for row in rows] == [(arm, seed) for arm in ARMS for seed in "12"]


def test_shared_stages_are_trained_once(bench):
    home, _, _ = bench
    names = sorted(path.name.split("-")[0] for path in (home / "out" / "cache").iterdir())
    # two seeds: one teacher recommender and two students (plain, on prefixes) each
    assert names == ["student"] * 4 + ["teacher"] * 2
    # but what failed and killed runs left
    assert not list((home / "out" / "work" / "saved").glob("*/*.pth"))[4:]


def test_the_report_is_whole_and_needs_no_network(bench):
    home, done, _ = bench
    html = (home / "out" / "report.html").read_text()
    assert not re.search(
        r"""(src|href)\s*=|url\(|@import|fetch\(""", re.sub(r'xlink:href="#|href="#|url\(#', "", html)
    )
    assert (
        "too many labels" in html
        and html.count("<svg") == 3
        and "prefers-color-scheme: dark" in html
        and "viewport" in html
    )
    assert {path.suffix for path in (home / "out" / "figures").iterdir()} == {".png", ".pdf"}
    markdown = (home / "out" / "results.md").read_text()
    assert "2 seeds" in markdown and "against student" in markdown
    said = [
        words in done.stdout
        for words in ("no measurable gain", "no gain that test and interval agree on", " better: ")
    ]
    assert sum(said) == 1


def test_a_second_call_repeats_nothing_that_was_finished(bench):
    home, _, _ = bench
    before, table = state(home), (home / "out" / "results.csv").read_text()
    assert len(before) == 8
    done = run(COMMAND, home)
    assert done.returncode == 1 and state(home) == before
    assert (home / "out" / "results.csv").read_text() == table


def test_every_epoch_is_in_the_log_of_its_run(bench):
    home, _, _ = bench
    for file in (home / "out" / "results").glob("*.json"):
        facts = json.loads(file.read_text())
        if facts["stage"] == "student" and facts["steps"]:
            text = (home / "out" / "logs" / f"{file.stem}.log").read_text()
            assert len(re.findall(r"epoch \d+ of student", text)) >= 1 or "loaded from" in text, text[-2000:]


def test_a_damaged_result_is_made_again_and_nothing_else(bench):
    home, _, _ = bench
    table = (home / "out" / "results.csv").read_text()
    before = state(home)
    first, second, third = sorted((home / "out" / "results").glob("*.json"))[:3]
    first.write_text(first.read_text()[:40])  # half a file
    # edited by hand
    second.write_text(json.dumps({**json.loads(second.read_text()), "cost": {"labels": "many"}}))
    third.with_suffix(".npz").write_bytes(b"PK nothing")
    done = run(COMMAND, home)
    assert (
        done.returncode == 1
        and "Traceback" not in done.stderr
        and done.stderr.count("is damaged and is made again") == 3
    )
    after = state(home)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {file.name for file in (first, second, third)} and after.keys() == before.keys()
    made = list(csv.DictReader((home / "out" / "results.csv").open()))
    for old, new in zip(csv.DictReader(table.splitlines()), made, strict=True):
        assert {
            key: value for key, value in old.items() if "seconds" not in key and not key.startswith("labels_")
        } == {
            key: value for key, value in new.items() if "seconds" not in key and not key.startswith("labels_")
        }


def test_two_benchmarks_do_not_share_a_folder(tmp_path):
    with alone_in(tmp_path / "out"):
        code = (
            "from pathlib import Path; from recbole_alkd.bench.runs import alone_in\nwith "
            "alone_in(Path('out')): print('in')"
        )
        assert "another benchmark is running in 'out'" in run(["-c", code], tmp_path).stderr
    assert run(["-c", code], tmp_path).stdout == "in\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--jobs", "0"], "--jobs: 0 is not allowed"),
        (["--jobs", "-3"], "--jobs: -3 is not allowed"),
        (["--seeds", "1", "1"], "distinct integers"),
        (["--seeds", "-1"], "from 0 to 4294967295"),
        (["--out", "mine.yaml"], "nothing can be written into 'mine.yaml'"),
        (["--out", "mine.yaml/x"], "nothing can be written into 'mine.yaml/x'"),
        (["--data-path", "nowhere"], "give --data-path"),
        (["--arms", "student", "item_kn"], "--arms: 'item_kn' is not a known arm of this plan"),
        (["--report-only"], "has no results of a benchmark"),
        (["--arms", "student", "--report-only"], "not allowed with"),
    ],
)
def test_a_command_that_cannot_work_ends_in_one_line(tmp_path, options, words, monkeypatch, capsys):
    monkeypatch.chdir(home_with(tmp_path))
    monkeypatch.setattr(sys, "argv", ["x"])
    with pytest.raises(SystemExit) as ended:
        main(["bench", "mine.yaml", *options])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 2 and words in said, said
    assert not (tmp_path / "alkd_bench" / "mine" / "results").exists() or not list(
        (tmp_path / "alkd_bench").glob("*/results/*")
    )


def test_missing_matplotlib_is_said_before_the_first_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(home_with(tmp_path, arms=["popularity", "item_knn"], seeds=[1]))
    monkeypatch.setattr(sys, "argv", ["x"])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = []

    def run_plan(*arguments):
        said.append(capsys.readouterr().err)
        return original(*arguments)

    original = runs.run_plan
    monkeypatch.setattr(runs, "run_plan", run_plan)
    with pytest.raises(SystemExit) as ended:
        main(["bench", "mine.yaml", "--out", "out"])
    assert ended.value.code == 0 and "matplotlib is not installed (pip install" in said[0]
    assert (tmp_path / "out" / "report.html").is_file() and not (tmp_path / "out" / "figures").exists()


def test_select_writes_the_picks_before_the_picture(tmp_path, monkeypatch):
    """What a picture needs is looked for before anything is trained;
    where drawing fails all the same, the picks are there."""
    monkeypatch.chdir(home_with(tmp_path))
    monkeypatch.setattr(sys, "argv", ["x"])
    settings = {**PLAN["settings"], "data_path": "data", "show_progress": False, "state": "ERROR"}

    def select(out="picks.json", picture="picks.png"):
        return select_instances(out, "tiny", config_dict=dict(settings), picture=picture)

    with monkeypatch.context() as patched:
        patched.setattr(
            "recbole_alkd.quick_start._selected", lambda *_, **__: pytest.fail("something was trained")
        )
        for out, picture, words in (
            ("picks.json", "picks.nonsense", "is no format of a picture"),
            ("picks.json", "no/folder/picks.png", "there is no folder"),
            ("no/folder/picks.json", None, "there is no folder"),
            ("data", None, "it is a folder"),
        ):
            with pytest.raises(AlkdError, match=words):
                select(out, picture)
        patched.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(AlkdError, match=r"recbole_alkd\[bench\]"):
            select()

    def broken(*_):
        raise AlkdError("no picture")

    monkeypatch.setattr("recbole_alkd.quick_start.draw_selection", broken)
    with pytest.raises(AlkdError, match="no picture"):
        select()
    assert len(json.loads((tmp_path / "picks.json").read_text())["picks"]) == 12


def test_the_bench_says_what_the_run_command_says(bench):
    home, _, _ = bench
    rows = {(row["arm"], row["seed"]): row for row in csv.DictReader((home / "out" / "results.csv").open())}
    settings = PLAN["settings"] | {
        "data_path": "data",
        "seed": 2,
        "alkd_policy": "random",
        "show_progress": False,
    }
    settings["state"] = "ERROR"
    code = f"""
import sys; sys.argv = ["x"]
from recbole_alkd import run_recbole_alkd
result = run_recbole_alkd(dataset="tiny", config_dict={settings!r})
print([stage["test"]["ndcg@10"] for stage in result["stages"].values()])
"""
    done = run(["-c", code], home)
    teacher, student, _, distilled = json.loads(done.stdout.splitlines()[-1])
    assert len({teacher, student, distilled}) > 1
    for arm, value in (("student", student), ("random", distilled)):
        assert float(rows[arm, "2"]["test_ndcg@10"]) == pytest.approx(value, abs=2e-6), arm


@pytest.mark.parametrize("name", [*ARMS_OF_ALL, "model:GRU4Rec", "model:SessionKNN"])
def test_every_arm_runs(name, tmp_path, monkeypatch):
    write_benchmark(tmp_path / "data", counts=(40, 12, 30))
    words = ["red lamp", "blue lamp", "red box", "old clock", "blue clock"]
    titles = "".join(f"i{k}\t{words[k % 5]} {words[k % 3]}\n" for k in range(1, N_ITEMS + 1))
    (tmp_path / "data" / "tiny" / "tiny.item").write_text("item_id:token\ttitle:token_seq\n" + titles)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x"])
    arm = find_arm(name)
    # a budget within the support of every policy; lists of one item need no more than a row
    settings = {
        **PLAN["settings"],
        **arm.settings,
        "alkd_fill": "next",
        "data_path": "data",
        "epochs": 1,
        "show_progress": False,
    }
    if settings.get("student_model") in ("SessionKNN", "VSTAN", "SLIST"):
        del settings["kd_batch_size"]  # a table that counts has no steps
    arrays, facts = run_task("tiny", arm.stage, {**settings, "state": "ERROR"})
    assert arrays["test"].shape == (30,) == arrays["sessions_test"].shape and arrays["valid"].shape == (12,)
    assert arrays["test"].min() >= 1 and np.isfinite(arrays["test"]).all()
    assert facts["parameters"] > 0 and (facts.get("labels") or {"asked": 12})["asked"] in (0, 12)


def test_half_precision_is_half_the_bytes_and_nearly_the_same_ranks(tmp_path, monkeypatch):
    write_benchmark(tmp_path / "data", counts=(40, 12, 30))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x"])
    settings = {
        **PLAN["settings"],
        "data_path": "data",
        "epochs": 2,
        "show_progress": False,
        "state": "ERROR",
        "seed": 1,
    }
    (whole, facts), (half, smaller) = (
        run_task("tiny", stage, settings) for stage in ("student", "student_half")
    )
    assert smaller["bytes"] == facts["bytes"] / 2 and smaller["parameters"] == facts["parameters"]
    assert np.abs(whole["test"] - half["test"]).mean() < 0.5
    state = {"a": torch.tensor([1.0, 2049.0, -torch.inf]), "b": torch.tensor([3])}
    assert (
        half_precision(state)["a"].tolist() == [1, 2048, -np.inf]
        and half_precision(state)["b"].dtype == torch.int64
    )
    with pytest.raises(AlkdError, match="weights: 70000 is too large"):
        half_precision({"weights": torch.tensor([1.0, -70000.0])})


@pytest.mark.parametrize("arm", ["text_pairs", "text_edges"])
def test_titles_that_an_encoder_read_are_in_the_bill(arm, tmp_path, monkeypatch):
    write_benchmark(tmp_path / "data", counts=(40, 12, 30))
    titles = "".join(f"i{k}\tcolour {k % 3}\n" for k in range(1, N_ITEMS + 1))
    (tmp_path / "data" / "tiny" / "tiny.item").write_text("item_id:token\ttitle:token_seq\n" + titles)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x"])
    read = []

    def encode(texts, *_):
        read.append(len(texts))
        return TextVectors(
            np.random.default_rng(0).normal(size=(len(texts), 8)).astype(np.float32),
            tokens=321,
            seconds=5000.0,
        )

    monkeypatch.setattr("recbole_alkd.learner.item_text.text_vectors", encode)
    settings = {
        **PLAN["settings"],
        "data_path": "data",
        "epochs": 1,
        "show_progress": False,
        "state": "ERROR",
    }
    del settings["kd_batch_size"]  # a table that counts has no steps
    _, plain = run_task("tiny", "student", settings)
    _, facts = run_task("tiny", "student", {**settings, **find_arm(arm).settings})
    assert read == [N_ITEMS] and plain["cost"]["tokens"] == 0 and plain["cost"]["seconds"] < 5000
    assert facts["cost"]["tokens"] == 321 and facts["cost"]["seconds"] == pytest.approx(
        5000 + facts["seconds"]
    )


def test_baselines_by_loop(tiny_path):
    from tiny import create_dataset

    train, valid, _ = create_dataset(tiny_config(tiny_path, session_augmentation="prefix")).build()
    sessions = [
        set(train.session_items(s).tolist()) for s in np.unique(train.inter_feat[train.uid_field].numpy())
    ]
    count = [sum(item in session for session in sessions) for item in range(train.item_num)]
    popularity = Baseline("popularity", train)
    targets = valid.inter_feat["item_id"].tolist()
    places = [
        sum(c > count[t] for c in count[1:]) + (sum(c == count[t] for c in count[1:]) + 1) / 2
        for t in targets
    ]
    assert popularity.ranks(valid).tolist() == places
    assert popularity.parameters == sum(c > 0 for c in count) and popularity.bytes == 8 * train.item_num

    baseline = Baseline("item_knn", train)

    def weight(i, j):  # without validation: plain counting, the middle of the exponents
        together = sum(i in session and j in session for session in sessions)
        return together / ((count[i] + 1) ** 0.5 * (count[j] + 5) ** 0.2) if i != j else 0.0

    wanted = [[weight(i, j) for j in range(train.item_num)] for i in range(train.item_num)]
    np.testing.assert_allclose(baseline.table.toarray()[:, 1:], np.array(wanted)[:, 1:], rtol=2e-3, atol=1e-6)
    assert baseline.decay == 0.5, "the middle of the decays"
    assert baseline.parameters == baseline.table.nnz and baseline.bytes == table_bytes(
        train.item_num, baseline.table.nnz
    )


def test_item_knn_is_the_whole_table_that_validation_chooses(tiny_path):
    """The row beside every student counts as well as a table student does,
    whatever that student's own settings are."""
    from tiny import create_dataset, tiny_model

    config = tiny_config(tiny_path, model="SessionKNN", mask_session_items=True)
    train, valid, test = create_dataset(config).build()
    model = tiny_model(config, train)
    model.fit_table(train, valid)
    baseline = Baseline("item_knn", train, valid, mask_session_items=True)
    rows = test.inter_feat
    expected = mean_ranks(model.full_sort_predict(rows), rows["item_id"])
    assert np.array_equal(baseline.ranks(test), expected.numpy())
    assert baseline.parameters == len(model.weights)


def test_item_knn_of_one_endless_session_takes_little_memory(tiny_path, monkeypatch):
    """Memory grows with the clicks of a session, not with their square."""
    import tracemalloc

    from tiny import create_dataset, training_part

    train = training_part(create_dataset(tiny_config(tiny_path)))
    clicks = np.arange(1, 12_001)
    monkeypatch.setattr(
        "recbole_alkd.model.choosing.training_sessions", lambda part: (clicks, np.array([0, len(clicks)]))
    )
    monkeypatch.setattr(type(train), "item_num", len(clicks) + 1, raising=False)
    tracemalloc.start()
    baseline = Baseline("item_knn", train)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert baseline.parameters < 2 * LONGEST_GAP * len(clicks)
    assert peak < 1e9, "all pairs of 12,000 clicks would be 144 million numbers in each of several arrays"


def rows_of(home):
    return [(row["arm"], int(row["seed"])) for row in csv.DictReader((home / "out" / "results.csv").open())]


def bench_here(home, monkeypatch, *options):
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "argv", ["x"])
    with pytest.raises(SystemExit) as ended:
        main(["bench", "mine.yaml", "--out", "out", *options])
    return ended.value.code


def test_a_plan_is_run_in_parts_and_the_report_has_what_is_there(tmp_path, monkeypatch, capsys):
    home = home_with(tmp_path, arms=["popularity", "student", "item_knn"], reference="student")
    assert bench_here(home, monkeypatch, "--arms", "item_knn", "student") == 0
    said = capsys.readouterr().out
    assert "Not run yet: 2 runs of this plan: tiny, SessionFPMC, popularity (seeds 1, 2)." in said
    assert rows_of(home) == [(arm, seed) for arm in ("student", "item_knn") for seed in (1, 2)]
    first = state(home)
    # another folder, perhaps of another machine: its results are read once they lie here
    monkeypatch.setattr(runs, "start_run", None)  # nothing may run
    assert bench_here(home, monkeypatch, "--report-only") == 0 and state(home) == first
    assert bench_here(home, monkeypatch, "--arms", "student") == 0 and state(home) == first


def test_arms_run_in_the_order_in_which_they_are_asked_for(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(
        runs, "_run_all", lambda waiting, *_: started.extend(map(str, waiting.values())) or {}
    )
    plan = read_plan(plan_in(tmp_path, arms=["popularity", "student", "item_knn"]))
    done = runs.run_plan(plan, tmp_path / "out", arms=plan.chosen_arms(["item_knn", "popularity"]))
    assert [one.split(", ")[2] for one in started] == ["item_knn"] * 2 + ["popularity"] * 2
    assert len(done.failed) == 4 and [task.arm.name for task in done.missing] == ["student"] * 2


def plan_in(tmp_path, **plan):
    return home_with(tmp_path, **{**plan, "data_path": str(tmp_path / "data")}) / "mine.yaml"


def test_a_studied_arm_is_chosen_at_every_value_or_at_one(tmp_path):
    study = {"setting": "budget_labels", "values": [4, 8]}
    plan = read_plan(plan_in(tmp_path, arms=["popularity", "random"], study=study))
    assert plan.chosen_arms(["random"]) == ("random, budget_labels 4", "random, budget_labels 8")
    assert plan.chosen_arms(["random, budget_labels 8", "popularity"]) == (
        "random, budget_labels 8",
        "popularity",
    )


def test_a_damaged_result_of_an_arm_that_was_not_asked_for_is_named_and_left(tmp_path, monkeypatch, capsys):
    home = home_with(tmp_path, arms=["popularity", "item_knn"], seeds=[1])
    assert bench_here(home, monkeypatch) == 0
    for file in (home / "out" / "results").glob("*.json"):
        if json.loads(file.read_text())["stage"] == "item_knn":
            file.write_text("{")
            broken = file
    capsys.readouterr()
    assert bench_here(home, monkeypatch, "--report-only") == 0
    assert "Not run yet: 1 run of this plan: tiny, SessionFPMC, item_knn (seed 1)." in capsys.readouterr().out
    assert broken.read_text() == "{"
    assert bench_here(home, monkeypatch) == 0 and len(rows_of(home)) == 2


def test_a_result_says_on_what_it_was_made(tmp_path, monkeypatch):
    home = home_with(tmp_path, arms=["popularity", "student"], seeds=[1])
    assert bench_here(home, monkeypatch) == 0
    kept = [json.loads(file.read_text()) for file in (home / "out" / "results").glob("*.json")]
    assert [facts["device"] for facts in kept] == ["CPU", "CPU"]
    assert "different devices" not in (home / "out" / "results.md").read_text()
    for file in (home / "out" / "results").glob("*.json"):
        facts = json.loads(file.read_text())
        if facts["stage"] == "student":
            file.write_text(json.dumps({**facts, "device": "NVIDIA X"}))
    assert bench_here(home, monkeypatch, "--report-only") == 0
    expected = "Seconds are of different devices, on CPU: popularity; on NVIDIA X: student."
    assert expected in (home / "out" / "results.md").read_text()


def test_results_of_several_versions_are_told(tmp_path, monkeypatch):
    home = home_with(tmp_path, arms=["popularity", "item_knn"], seeds=[1])
    assert bench_here(home, monkeypatch) == 0
    assert "different versions" not in (home / "out" / "results.md").read_text()
    for file in (home / "out" / "results").glob("*.json"):
        facts = json.loads(file.read_text())
        assert facts["versions"] == versions()
        if facts["stage"] == "item_knn":
            file.write_text(json.dumps({**facts, "versions": {**facts["versions"], "torch": "1.0"}}))
    assert bench_here(home, monkeypatch, "--report-only") == 0
    words = f"with {versions()['torch']}: popularity; with 1.0: item-kNN."
    said = (home / "out" / "results.md").read_text().replace("\\", "")
    assert f"Runs were made with different versions of torch, {words}" in said


def test_a_run_that_meets_a_full_disk_says_so_in_one_line(tmp_path, monkeypatch, capfd):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "k.npz")

    monkeypatch.setattr(worker, "run_task", lambda *_: ({}, {}))
    monkeypatch.setattr(worker, "write_arrays", full)
    task = {"dataset": "d", "stage": "student", "settings": {}, "data": "", "key": "k"}
    task["results"] = str(tmp_path)
    (tmp_path / "task.json").write_text(json.dumps(task))
    assert worker.main(tmp_path / "task.json") == 2
    assert capfd.readouterr().err == "error: OSError: [Errno 28] No space left on device: 'k.npz'\n"
    assert not (tmp_path / "k.json").exists()


@pytest.mark.parametrize(
    ("facts", "arrays"),
    [
        (b"[" * 100_000, {}),
        ({"bytes": 10**400}, {}),
        ({"cost": None}, {}),
        ({}, {"test": [0, 2]}),  # the best rank is 1
        ({}, {"valid": [-3.0]}),
        ({}, {"groups_test": [0, 99]}),
        ({}, {"groups_test": ["0", "1"]}),
        ({}, {"test": [1]}),
    ],
)
def test_a_result_that_no_run_writes_is_none(tmp_path, facts, arrays):
    whole = {"parameters": 1, "bytes": 2, "seconds": 0.5}
    whole |= {"cost": {"labels": 0, "tokens": 0, "seconds": 0.0, "usd": None}}
    good = {"test": [1, 2], "valid": [3], "sessions_test": ["a", "b"], "groups_test": [0, 1]}

    def loaded(facts, arrays):
        content = facts if isinstance(facts, bytes) else json.dumps({**whole, **facts}).encode()
        (tmp_path / "k.json").write_bytes(content)
        np.savez(tmp_path / "k.npz", **{**good, **arrays})
        return load_result(None, tmp_path / "k")

    assert loaded({}, {}) is not None and loaded(facts, arrays) is None

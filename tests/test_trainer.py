"""The trainer's stages on a tiny data set, with a scripted LLM teacher that keeps a diary of what it was
asked."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter

import numpy
import pytest
import torch
from process import environment, run
from tiny import write_benchmark

from recbole_alkd import AlkdError, run_recbole_alkd
from recbole_alkd.compat import load_checkpoint

TEACHER = textwrap.dedent(
    """
    import os, time
    from recbole_alkd.registry import teachers
    from recbole_alkd.teacher.base import Answer, LLMTeacher

    @teachers.register("scripted")
    class Scripted(LLMTeacher):
        "Ranks candidates by name, slowly when SCRIPTED_PAUSE says so, and writes every request into a diary."
        needs_titles = False
        identity = "scripted"

        def prompt(self, instance):
            return " ".join(instance.history)

        def estimate(self, instance):
            return 9, None

        def ask(self, instances):
            for instance in instances:
                time.sleep(float(os.environ.get("SCRIPTED_PAUSE", "0")))
                with open("diary.txt", "a") as diary:
                    diary.write(instance.session + "\\n")
                ranking = tuple(sorted(instance.candidates))[: self.context.settings.teacher.llm_top_n]
                yield instance, Answer(ranking, prompt_tokens=7, completion_tokens=2, seconds=0.01)
    """
)
BASE = {
    "benchmark_filename": ["train", "valid", "test"], "USER_ID_FIELD": "session_id",
    "ITEM_ID_FIELD": "item_id",
    "load_col": {"inter": ["session_id", "item_id_list", "item_id"]}, "alias_of_item_id": ["item_id_list"],
    "MAX_ITEM_LIST_LENGTH": 6, "train_batch_size": 16, "epochs": 3, "show_progress": False, "state": "ERROR",
    "alkd_plugins": ["scripted_teacher"], "llm_teacher": "scripted", "budget_labels": 12, "llm_candidates": 8,
    "llm_top_n": 4,
    "session_augmentation": "last", "topk": [5, 10], "valid_metric": "NDCG@10",
}  # fmt: skip
OURS = ("alkd_plugins", "llm_teacher", "budget_labels", "llm_candidates", "llm_top_n", "session_augmentation")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A working directory with the tiny data set in ``data/`` and the scripted teacher on the path."""
    write_benchmark(tmp_path / "data", counts=(40, 12, 12))
    (tmp_path / "scripted_teacher.py").write_text(TEACHER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["run"])
    yield tmp_path
    sys.modules.pop("scripted_teacher", None)


def go(**settings):
    return run_recbole_alkd(dataset="tiny", config_dict={"data_path": "data", **BASE, **settings})


def diary(home):
    file = home / "diary.txt"
    return file.read_text().split() if file.exists() else []


def test_the_stages_run_and_the_budget_is_kept(home):
    report = go()
    assert set(report["stages"]) == {"teacher", "student", "student_longer", "distilled"}
    assert len(diary(home)) == 12 == report["labels"]["asked"]
    assert set(diary(home)) == set(report["policy"]["picks"])
    assert report["labels"]["prompt_tokens"] == 84 and report["labels"]["completion_tokens"] == 24
    assert report["labels"]["all_sessions"]["sessions"] == 40
    assert report["labels"]["all_sessions"]["tokens"] == 40 * 9
    assert report["labels"]["usd"] is None


def test_popularity_and_item_knn_stand_beside_the_stages(home):
    report = go()
    train, test = (
        (home / f"data/tiny/tiny.{part}.inter").read_text().splitlines()[1:] for part in ("train", "test")
    )
    count = Counter(item for line in train for item in {*line.split("\t")[1].split(), line.split("\t")[2]})
    own = [count[line.split("\t")[2]] for line in test]
    rank = [sum(n > k for n in count.values()) + (sum(n == k for n in count.values()) + 1) / 2 for k in own]
    hits = [place <= 10 for place in rank]
    assert len(count) == 30
    assert report["baselines"]["popularity"]["test"]["recall@10"] == pytest.approx(
        sum(hits) / len(hits), abs=1e-4
    )
    assert set(report["baselines"]) == {"popularity", "item_knn"}
    assert report["baselines"]["item_knn"]["valid"].keys() == report["stages"]["student"]["valid"].keys()
    assert (
        json.loads((home / report["run_folder"] / "result.json").read_text())["baselines"]
        == report["baselines"]
    )


def test_a_second_run_asks_nothing_and_gives_the_same(home):
    first, second = go(), go()
    assert len(diary(home)) == 12
    assert (second["labels"]["asked"], second["labels"]["reused"]) == (0, 12)
    for name in first["stages"]:
        assert first["stages"][name]["test"] == second["stages"][name]["test"]
    assert first["policy"] == second["policy"]
    assert first["run_folder"] != second["run_folder"]


def test_another_seed_selects_anew_and_pays_only_for_new_sessions(home):
    # the teacher recommender differs with the seed, and so do the candidates: these are other labels
    go()
    other = go(seed=7, llm_inject_target=False)
    assert other["labels"]["asked"] + other["labels"]["reused"] == 12


def test_the_checkpoint_holds_the_distilled_student(home):
    report = go()
    folder = home / report["run_folder"]
    saved = load_checkpoint(str(folder / "ALKDRec.pth"))["state_dict"]
    distilled, student = (
        load_checkpoint(str(folder / f"{name}.stage.pth"))["state"] for name in ("distilled", "student")
    )
    assert saved.keys() == student.keys() == distilled.keys()
    assert all(torch.equal(saved[key], distilled[key]) for key in saved)
    assert any(not torch.equal(saved[key], student[key]) for key in saved)


def test_damaged_stages_are_trained_again_and_give_the_same(home, caplog):
    first = go(stage_cache=False)
    folder = home / first["run_folder"]
    (folder / "result.json").unlink()
    (folder / "teacher.stage.pth").write_bytes(b"")
    whole = (folder / "student.stage.pth").read_bytes()
    (folder / "student.stage.pth").write_bytes(whole[: len(whole) // 2])
    content = load_checkpoint(str(folder / "distilled.stage.pth"))
    content["state"] = {key: value[:-1] if value.ndim else value for key, value in content["state"].items()}
    torch.save(content, folder / "distilled.stage.pth", pickle_protocol=2)  # as of another model
    second = go(stage_cache=False)
    assert second["run_folder"] == first["run_folder"]
    for name in first["stages"]:
        assert first["stages"][name]["test"] == second["stages"][name]["test"]
    for name in ("teacher", "student", "distilled"):
        assert any(
            name in line and ("damaged" in line or "trained again" in line) for line in caplog.messages
        ), name


def test_without_saving_there_is_no_checkpoint_but_the_same_result(home):
    kept = go()
    report = run_recbole_alkd(dataset="tiny", config_dict={"data_path": "data", **BASE}, saved=False)
    assert not (home / report["run_folder"] / "ALKDRec.pth").exists()
    assert report["test_result"] == kept["test_result"]


@pytest.mark.parametrize("name", ["GRU4Rec", "NARM", "STAMP", "SASRec"])
def test_stock_models_are_teacher_recommender_and_student(home, name):
    report = go(
        student_model=name, teacher_model=name, student_embedding_size=8, teacher_embedding_size=16, epochs=1
    )
    assert report["stages"]["student"]["parameters"] == report["stages"]["distilled"]["parameters"]
    assert report["stages"]["student"]["parameters"] < report["stages"]["teacher"]["parameters"]


def test_backward_rows_double_an_epoch_and_leave_folds_clean(home, monkeypatch):
    from recbole_alkd.learner.batches import row_loader

    loaders = []

    def watched(config, train_data, rows, *args, **kwargs):
        loader = row_loader(config, train_data, rows, *args, **kwargs)
        loaders.append((train_data._dataset.inter_feat[list(rows)]["session_id"], loader._dataset.inter_feat))
        return loader

    monkeypatch.setattr("recbole_alkd.learner.gradient.row_loader", watched)
    plain = go(seed=5, session_augmentation="prefix", alkd_ratio="pilot", alkd_pilot=8, alkd_fill="next")
    seen, backward = len(loaders), go(
        seed=5, session_augmentation="prefix", alkd_ratio="pilot", alkd_pilot=8, alkd_fill="next",
        train_backwards=True
    )  # fmt: skip
    for stage in ("teacher", "student"):
        steps = [run["stages"][stage]["steps"] / run["stages"][stage]["epochs"] for run in (plain, backward)]
        assert steps[1] == pytest.approx(2 * steps[0], abs=1)
    turned = [(sessions, rows) for sessions, rows in loaders[seen:] if (rows["alkd_row"] < 0).any()]
    assert len(turned) == 2 + 2 + 1, "teacher recommender, student, two folds, student trained longer"
    for sessions, rows in turned:
        assert set(rows["session_id"].tolist()) == set(sessions.tolist()), (
            "of no session that the fold leaves out"
        )
        assert int((rows["alkd_row"] < 0).sum()) * 2 == len(rows)


def test_from_scratch_and_jointly(home):
    report = go(kd_init="scratch", kd_rec_weight=1.0, kd_weight=0.5)
    assert (
        report["stages"]["distilled"]["steps"]
        == report["stages"]["student"]["steps"] // report["stages"]["student"]["epochs"] * 3
    )


def test_a_pilot_counts_against_the_budget_and_bounds_the_ratio(home):
    report = go(alkd_ratio="pilot", alkd_pilot=6, alkd_rounds=2)
    assert len(report["policy"]["picks"]) == 12 == len(set(diary(home)))
    assert [r["picks"] for r in report["policy"]["rounds"]] == [6, 3, 3]
    ratio = report["policy"]["ratio"]
    assert sum(ratio["seen"]) == 6 and sum(ratio["counts"]) == 40
    assert report["policy"]["value"] is not None


def test_a_token_budget_ends_the_asking(home):
    report = go(budget_tokens=20, alkd_rounds=2)  # 9 tokens an answer
    assert report["labels"]["asked"] == len(diary(home)) == 2
    assert (report["labels"]["spent"]["tokens"], report["labels"]["spent"]["earlier_tokens"]) == (18, 0)


def test_rounds_share_the_budget(home):
    report = go(alkd_rounds=3, budget_labels=11, alkd_policy="random")
    assert len(set(report["policy"]["picks"])) == 11 == report["labels"]["asked"] + report["labels"]["reused"]
    assert len(diary(home)) == len(set(diary(home))) == report["labels"]["asked"]


@pytest.mark.parametrize("policy", ["random", "easiest", "hardest", "max_min"])
def test_policies_pick_what_they_say(home, policy):
    report = go(alkd_policy=policy)
    assert len(report["policy"]["picks"]) == 12
    assert (report["policy"]["value"] is not None) == (policy == "max_min")


def test_listed_takes_the_named_sessions(home):
    (home / "picks.json").write_text(json.dumps({"mine": ["s3", "s1", "s7"], "other": []}))
    report = go(alkd_policy="listed", alkd_picks="picks.json#mine", budget_labels=3)
    assert report["policy"]["picks"] == ["s3", "s1", "s7"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"budget_labels": 41}, "41"),
        ({"alkd_policy": "listed", "alkd_picks": "none.json"}, "none.json"),
        ({"llm_teacher": "local"}, "title"),
        ({"llm_teacher": "replay", "llm_replay_file": "none.jsonl"}, "none.jsonl"),
        (
            {"llm_teacher": "replay", "llm_replay_file": "others.jsonl"},
            "none of its 1 session ids ('somebody else') is one",
        ),
        ({"alkd_ratio": "pilot", "alkd_pilot": 12}, "alkd_pilot"),
        ({"kd_loss": "dsl"}, "kd_rec_weight"),
        ({"alkd_draw": "pps", "alkd_policy": "paper", "budget_labels": 39}, "only 38 can be drawn"),
        ({"llm_candidates": 500, "llm_top_n": 4}, "llm_candidates"),
        ({"student_config": {"loss_type": "BPR"}, "student_model": "GRU4Rec"}, "loss_type"),
        ({"benchmark_filename": ["train", "test"]}, "benchmark_filename"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(home, settings, expected):
    (home / "others.jsonl").write_text('{"session_id": "somebody else", "ranking": ["i1"]}\n')
    with pytest.raises(AlkdError) as error:
        go(**settings)
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_recordings_of_other_data_are_found_before_anything_is_trained(home, monkeypatch):
    from recbole_alkd.learner.gradient import GradientLearner

    monkeypatch.setattr(GradientLearner, "fit", lambda *_: pytest.fail("trained"))
    (home / "others.jsonl").write_text('{"session_id": "s1", "ranking": ["Toy Story", "Heat"]}\n')
    with pytest.raises(
        AlkdError,
        match=r"none of its 2 items \('Heat', 'Toy Story'\) is one of this data set's \d+ \('i1', 'i10', ",
    ):
        go(llm_teacher="replay", llm_replay_file="others.jsonl")


def test_processes_that_recbole_starts_are_refused(home):
    from recbole.config import Config

    from recbole_alkd.trainer import ALKDRecTrainer

    config = Config(model="ALKDRec", dataset="tiny", config_dict={"data_path": "data", **BASE})
    config["single_spec"] = False
    with pytest.raises(AlkdError, match="nproc"):
        ALKDRecTrainer(config, None)


def command():
    words = [
        f"--{key}={json.dumps(value) if isinstance(value, (list, dict)) else value}"
        for key, value in BASE.items()
    ]
    return ["-m", "recbole_alkd.cli", "run", "--dataset=tiny", "--data_path=data", *words]


def python_path(home):
    return os.pathsep.join([str(home), environment()["PYTHONPATH"]])


def killed_while(home, condition, **env):
    """Start the command, kill it with SIGKILL as soon as ``condition()`` holds."""
    process = subprocess.Popen(
        [sys.executable, *command()], cwd=home, env=environment(PYTHONPATH=python_path(home), **env),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def finish(home):
    done = run(command(), home, PYTHONPATH=python_path(home))
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(next((home / "saved").glob("*/result.json")).read_text())


def test_a_run_killed_while_labelling_buys_no_label_twice_and_ends_the_same(tmp_path):
    homes = [tmp_path / "killed", tmp_path / "whole"]
    for home in homes:
        write_benchmark(home / "data", counts=(40, 12, 12))
        (home / "scripted_teacher.py").write_text(TEACHER)
    killed, whole = homes
    killed_while(killed, lambda: len(diary(killed)) >= 5, SCRIPTED_PAUSE="0.2")
    before = diary(killed)
    assert 5 <= len(before) < 12
    resumed, uninterrupted = finish(killed), finish(whole)
    # one request may have been answered and not yet written down when the kill came;
    # that one alone may be asked again
    repeated = [session for session in set(diary(killed)) if diary(killed).count(session) > 1]
    assert set(repeated) <= {before[-1]}
    assert resumed["labels"]["asked"] + resumed["labels"]["reused"] == 12
    assert resumed["labels"]["reused"] >= len(before) - 1
    assert resumed["policy"] == uninterrupted["policy"]
    for name in resumed["stages"]:
        assert resumed["stages"][name]["test"] == uninterrupted["stages"][name]["test"], name
    assert len(list((killed / "saved").glob("ALKDRec-*"))) == 1  # it went on in the folder it had left


def test_the_end_of_a_run_says_what_it_showed(home, caplog):
    caplog.set_level("INFO")
    report = go(report_tables=[2, 5])
    comparison = report["comparison"]
    assert set(comparison) == {"against", "metric", "difference", "low", "high", "sessions", "verdict"}
    assert (comparison["against"], comparison["metric"], comparison["sessions"]) == (
        "student_longer",
        "ndcg@10",
        12,
    )
    assert comparison["low"] <= comparison["difference"] <= comparison["high"]
    written = json.loads((home / report["run_folder"] / "result.json").read_text())
    assert written["comparison"] == comparison
    # on twelve sessions without any pattern nothing can be told apart
    assert comparison["verdict"] == "no measurable difference"
    said = next(line for line in caplog.messages if line.startswith("result"))
    assert "student, distilled, against student, trained longer: ndcg@10" in said
    assert "12 test sessions can show" in said
    assert "no two rows of this table can be told apart on its 12 test sessions" in said
    with numpy.load(home / report["run_folder"] / "ranks.npz") as ranks:
        gains = {name: numpy.where(ranks[f"{name}_test"] <= 10, 1 / numpy.log2(ranks[f"{name}_test"] + 1),
                                   0) for name in
                 ("distilled", "student_longer")}  # fmt: skip
        assert len(ranks["session_knn_5_test"]) == 12
    assert comparison["difference"] == pytest.approx((gains["distilled"] - gains["student_longer"]).mean())


def test_tables_that_count_stand_in_the_report(home, caplog):
    caplog.set_level("INFO")
    plain = go()
    assert set(plain["baselines"]) == {"popularity", "item_knn"}
    lines = [
        "item_id:token\ttitle:token_seq",
        *(f"i{i}\tfilm {i % 7} of the {i % 3} kind" for i in range(1, 31)),
    ]
    (home / "data/tiny/tiny.item").write_text("\n".join(lines) + "\n")
    report = go(report_tables=[5])
    assert set(report["baselines"]) == {"popularity", "item_knn", "session_knn_5", "session_knn_5_titles"}
    row = report["baselines"]["session_knn_5_titles"]
    assert row["valid"].keys() == row["test"].keys() == report["stages"]["student"]["test"].keys()
    assert row["parameters"] <= 5 * 30 and row["bytes"] > 0 and "text_weight" in row["fitted"]
    for name in plain["stages"]:
        assert plain["stages"][name]["test"] == report["stages"][name]["test"], "the rows change no stage"
    said = next(line for line in reversed(caplog.messages) if line.startswith("result"))
    assert "SessionKNN 5  " in said and "SessionKNN 5, titles" in said
    plain_text = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in caplog.messages]
    counted = [line.partition(":")[0] for line in plain_text if line.startswith("neighbours")]
    assert counted == ["neighbours of SessionKNN 5", "neighbours of SessionKNN 5, titles"]
    recbole = {key: value for key, value in BASE.items() if key not in OURS}
    recbole |= {"data_path": "data", "student_neighbors": 5}
    alone = run_recbole_alkd(model="SessionKNN", dataset="tiny", config_dict=recbole)
    # the same table as of SessionKNN alone, which rounds to four digits
    # behind the neighbours stand items of equal popularity: mean ranks here, as it comes in RecBole's top k
    shown = {
        metric: value
        for metric, value in report["baselines"]["session_knn_5"]["test"].items()
        if metric.endswith("@5")
    }
    assert len(shown) == 3
    assert {metric: alone["test_result"][metric] for metric in shown} == pytest.approx(shown, abs=1e-4)

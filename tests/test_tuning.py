"""``student_tune`` in runs: what is tried, what wins, what it costs, and what later stages make of it."""

import dataclasses
import json
from collections import Counter
from itertools import count

import numpy as np
import pytest
import yaml
from recbole.trainer import Trainer
from test_trainer import BASE, go, home  # noqa: F401  (a fixture)
from tiny import write_benchmark

from recbole_alkd import AlkdError, load_data_and_model
from recbole_alkd.bench.arms import ARMS
from recbole_alkd.bench.plan import Task
from recbole_alkd.bench.runs import run_key
from recbole_alkd.bench.worker import run_task
from recbole_alkd.compat import load_checkpoint
from recbole_alkd.labelling.training_rows import TrainingRows
from recbole_alkd.learner.outcome import StageOutcome
from recbole_alkd.learner.stage_trainer import StageTrainer
from recbole_alkd.trainer.tuning import tried_out

SPACE = {
    "common": {
        "learning_rate": [0.001, 0.01, 0.05],
        "train_batch_size": [8, 16],
        "train_loss": [None, "sampled_softmax"],
    },
    "student_longer": {"kd_learning_rate": [0.01, 0.02, 0.05]},
    "GRU4Rec": {"dropout_prob": [0.0, 0.3]},
}
SMALL = {
    "student_search": "space.yaml",
    "student_embedding_size": 4,
    "teacher_embedding_size": 8,
    "softmax_negatives": 8,
}


@pytest.fixture
def space(home):  # noqa: F811
    (home / "space.yaml").write_text(yaml.safe_dump(SPACE))
    return home


class Diary(list):
    """(stage as logs call it, learning rate, rows in a batch) of every training that begins.
    ``dies``: the one that is killed."""

    dies = 0


@pytest.fixture
def diary(monkeypatch):
    notes = Diary()
    descend, fit = StageTrainer.descend, Trainer.fit

    def stage(self, task, model, config, how):
        self.noted = task.shown, how.learning_rate or config["learning_rate"], how.train_data.step
        return descend(self, task, model, config, how)

    def trained(self, *args, **how):
        notes.append(self.noted)
        if len(notes) == notes.dies:
            raise KeyboardInterrupt
        return fit(self, *args, **how)

    monkeypatch.setattr(StageTrainer, "descend", stage)
    monkeypatch.setattr(Trainer, "fit", trained)
    return notes


def names(diary):
    return Counter(shown.split("_tune_")[0] for shown, *_ in diary)


def test_every_stage_tries_equally_many_and_says_what(space, diary):
    report = go(student_tune=3, **SMALL)
    assert names(diary) == {"teacher": 3, "student": 3, "distilled": 3, "student_longer": 3}
    assert set(report["tuned"]) == {"teacher", "student", "distilled", "student_longer"}
    for stage, tuned in report["tuned"].items():
        scores = [entry["valid"] for entry in tuned["tried"]]
        assert tuned["tried"][0]["settings"] == {} and len(scores) == 3 and tuned["metric"] == "ndcg@10"
        assert tuned["won"] == scores.index(max(scores))
        assert report["stages"][stage]["valid"]["ndcg@10"] == max(scores)
        assert report["stages"][stage]["seconds"] == tuned["seconds"]
        assert tuned["seconds"] == pytest.approx(sum(entry["seconds"] for entry in tuned["tried"]), abs=2e-3)
    assert json.loads((space / report["run_folder"] / "result.json").read_text())["tuned"] == report["tuned"]
    plain = go(**SMALL)
    for stage in ("teacher", "student"):
        assert plain["stages"][stage]["valid"]["ndcg@10"] == report["tuned"][stage]["tried"][0]["valid"]
    assert plain["run_folder"][-10:] != report["run_folder"][-10:]
    again = go(student_tune=3, **SMALL)
    assert [again["stages"][name]["test"] for name in again["stages"]] == [
        row["test"] for row in report["stages"].values()
    ]


@pytest.fixture
def last_wins(monkeypatch):
    """The toy data has nothing to learn; here every try is better than the one before."""
    rising = count(1)
    monkeypatch.setattr(
        "recbole_alkd.trainer.tuning.calculate_valid_score", lambda valid, metric: next(rising)
    )


@pytest.mark.parametrize(
    ("model", "train_loss"), [("SessionFPMC", None), ("SessionFPMC", "sampled_softmax"), ("GRU4Rec", None)]
)
def test_a_tuned_run_is_the_plain_run_with_what_won(space, diary, last_wins, model, train_loss):
    content = {"learning_rate": [0.05, 0.06], "train_batch_size": [8], "train_loss": [train_loss]}
    (space / "space.yaml").write_text(yaml.safe_dump({**SPACE, "common": content}))
    # the pilot trains the fold recommenders; the recommendation loss and the new start need the student's
    # settings
    pilot = {"alkd_ratio": "pilot", "alkd_pilot": 6, "alkd_fill": "next"}
    how = {
        **SMALL,
        **pilot,
        "student_model": model,
        "teacher_model": model,
        "kd_rec_weight": 1.0,
        "kd_init": "scratch",
    }
    tuned = go(**how, student_tune=2)
    assert [entry["won"] for entry in tuned["tuned"].values()] == [1, 1, 1, 1]
    seen = {shown: facts for shown, *facts in diary}
    for stage in ("teacher_fold0", "teacher_fold1", "distilled_tune_00", "student_longer_tune_00"):
        assert seen[stage][1] == 8, stage
    best = {stage: entry["tried"][1]["settings"] for stage, entry in tuned["tuned"].items()}
    assert (
        best["teacher"] == best["student"]
        and best["student"]["learning_rate"] == seen["distilled_tune_00"][0]
    )
    shared = {key: value for key, value in best["student"].items() if key != "dropout_prob"}
    own = {key: value for key, value in best["student"].items() if key not in shared}
    assert bool(own) == (model == "GRU4Rec")
    plain = go(**{**how, **shared, **best["distilled"], "student_config": own, "teacher_config": own})
    assert plain["policy"] == tuned["policy"] and plain["tuned"] == {}
    for stage in ("teacher", "student", "distilled"):
        for part in ("valid", "test"):
            assert plain["stages"][stage][part] == tuned["stages"][stage][part], stage


def test_the_checkpoint_is_the_winner_and_can_be_loaded(space, monkeypatch):
    scores = {"teacher": [1, 2], "student": [1, 2], "distilled": [1, 3, 2], "student_longer": [1]}
    for place in ("stages", "tuning"):
        monkeypatch.setattr(f"recbole_alkd.trainer.{place}.best_of", forced(scores))
    report = go(student_tune=3, student_model="GRU4Rec", kd_rec_weight=1.0, **SMALL)
    folder = space / report["run_folder"]
    best = load_checkpoint(str(folder / "distilled_tune_01" / "distilled.stage.pth"))["state"]
    saved = load_checkpoint(str(folder / "ALKDRec.pth"))["state_dict"]
    assert saved.keys() == best.keys() and all((saved[key] == best[key]).all() for key in best)
    config, model, *_ = load_data_and_model(str(folder / "ALKDRec.pth"))
    student = report["tuned"]["student"]["tried"][1]["settings"]
    assert config["learning_rate"] == student["learning_rate"]
    assert model.recommender.dropout_prob == student["dropout_prob"]


def forced(scores):
    """``best_of`` whose tries have the scores given by stage, as many as there are."""

    def best_of(run, name, tries, train):
        given = scores[name]

        def scored(number, values, better):
            def with_score(outcome):
                return dataclasses.replace(outcome, valid={**outcome.valid, "ndcg@10": given[number]})

            return with_score(train(number, values, lambda outcome: better(with_score(outcome))))

        tried = tried_out(
            name, tries[: len(given)], scored, run.trainer.valid_metric, True, run.trainer.logger
        )
        run.tuned[name] = tried.report
        return tried

    return best_of


@pytest.mark.parametrize("cache", [False, "cache"])
def test_a_killed_run_repeats_nothing_that_was_finished(space, diary, cache):
    how = {"student_tune": 3, "stage_cache": cache, **SMALL}
    began = []
    for dies in (2, 3, 4, 5):
        diary.dies = dies
        with pytest.raises(KeyboardInterrupt):
            go(**how)
        began += diary[:-1]  # the last one was killed
        diary.clear()
    diary.dies = 0
    resumed = go(**how)
    began += diary
    assert len(began) == len({shown for shown, *_ in began}) == 12
    assert len(list((space / "saved").glob("ALKDRec-*"))) == 1
    whole = go(**{**how, "stage_cache": "another" if cache else False})
    for name in whole["stages"]:
        assert whole["stages"][name]["test"] == resumed["stages"][name]["test"]
        assert [entry["valid"] for entry in whole["tuned"][name]["tried"]] == [
            entry["valid"] for entry in resumed["tuned"][name]["tried"]
        ]


def test_with_a_cache_the_runs_own_settings_are_shared_with_untuned_runs(space, diary):
    how = {**SMALL, "stage_cache": "cache"}
    go(**how)
    assert names(diary)["student"] == names(diary)["teacher"] == 1
    diary.clear()
    go(student_tune=3, **how)
    assert names(diary)["student"] == names(diary)["teacher"] == 2
    diary.clear()
    go(student_tune=4, **how)
    assert names(diary)["student"] == names(diary)["teacher"] == 1, "a larger number goes on"


def test_a_table_chooses_by_itself(space, diary):
    report = go(student_tune=2, student_model="SessionKNN", **SMALL)
    assert set(report["tuned"]) == {"teacher"} and names(diary) == {"teacher": 2}


def test_without_validation_there_is_nothing_to_choose_on(space):
    with pytest.raises(
        AlkdError, match="student_tune: settings are chosen on validation and this run has none"
    ):
        go(student_tune=2, eval_step=0, **SMALL)


def test_a_tuned_teacher_recommender_makes_other_examples(space, monkeypatch, last_wins):
    keys = []
    real = TrainingRows.lora_key
    monkeypatch.setattr(
        TrainingRows, "lora_key", lambda self, *recorded: keys.append(real(self, *recorded)) or keys[-1]
    )
    best = go(student_tune=2, **SMALL)["tuned"]["teacher"]["tried"][1]["settings"]
    go(**SMALL)
    go(**{**SMALL, **best})
    assert keys[0] != keys[1] and keys[0] == keys[2]


# the choice itself


def outcome(score, seconds=1.0):
    return StageOutcome(
        valid=None if score is None else {"ndcg@10": score, "loss": 1 - score}, seconds=seconds
    )


class Log:
    def __init__(self):
        self.lines = []

    def info(self, line):
        self.lines.append(line)


def choose(scores, bigger=True):
    def train(number, values, better):
        if scores[number] is None:
            raise AlkdError("stage student: the loss is nan (not a number) in epoch 1")
        return outcome(scores[number])

    log = Log()
    return tried_out(
        "student", [{"a": n} if n else {} for n in range(len(scores))], train, "ndcg@10", bigger, log
    ), log.lines


@pytest.mark.parametrize(
    ("scores", "bigger", "won"),
    [
        ([1, 3, 2], True, 1),
        ([2, 2, 2], True, 0),
        ([2, 3, 1], False, 2),
        ([1, None, 3, None], True, 2),
        ([5], True, 0),
    ],
)
def test_the_best_wins_and_the_first_of_equal_ones(scores, bigger, won):
    best, lines = choose(scores, bigger)
    assert best.won == best.report["won"] == won and best.outcome.valid["ndcg@10"] == scores[won]
    assert [entry["valid"] for entry in best.report["tried"]] == scores
    assert best.outcome.seconds == pytest.approx(len([s for s in scores if s is not None]), abs=0.01)
    assert ("diverged" in "".join(lines)) == (None in scores)


def test_the_runs_own_settings_must_work():
    with pytest.raises(ValueError, match="nan"):
        choose([None, 1])


# in a benchmark


def test_a_bench_counts_what_tuning_took_and_knows_tuned_arms_apart(tmp_path, monkeypatch):
    from recbole.config import Config

    from recbole_alkd.plugin import empty_argv

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["run"])
    write_benchmark(tmp_path / "data", counts=(40, 12, 12))
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    base = {key: value for key, value in BASE.items() if key != "alkd_plugins"}
    how = {**base, **SMALL, "data_path": "data", "llm_teacher": "recommender", "student_tune": 2, "seed": 1}
    arrays, facts = run_task("tiny", "student", how)
    assert np.isfinite(arrays["test"]).all()
    total = sum(entry["seconds"] for entry in facts["tuned"]["student"]["tried"])
    assert facts["cost"]["seconds"] == facts["seconds"] == pytest.approx(total, abs=2e-3)
    _, facts = run_task("tiny", "distilled", how)
    total = sum(entry["seconds"] for tuned in facts["tuned"].values() for entry in tuned["tried"])
    assert (
        set(facts["tuned"]) == {"teacher", "student", "distilled"}
        and facts["cost"]["seconds"] >= total - 0.01
    )

    def key(arm, **settings):
        with empty_argv():
            config = Config("ALKDRec", "tiny", config_dict={**how, **settings})
        return run_key(Task("tiny", "SessionFPMC", ARMS[arm], 1, settings), config, "data")

    for arm in ("student", "teacher", "alkdrec"):
        assert len({key(arm), key(arm, student_tune=0), key(arm, student_tune=3)}) == 3
        before = key(arm)
        (tmp_path / "copy.yaml").write_text((tmp_path / "space.yaml").read_text())
        assert key(arm, student_search="copy.yaml") == before, "the content counts, not the name"
        (tmp_path / "copy.yaml").write_text(
            yaml.safe_dump({**SPACE, "common": {"learning_rate": [0.1, 0.2]}})
        )
        assert key(arm, student_search="copy.yaml") != before

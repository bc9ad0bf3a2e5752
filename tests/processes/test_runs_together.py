"""A run of two processes is the run of one where losses are means over rows, to the bit where it counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from recbole_alkd import run_recbole_alkd
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.testing.toy import TOY_SETTINGS, write_toy_data

# nothing is drawn at random in a step, and nothing looks across the rows of a batch
PLAIN = {
    **TOY_SETTINGS,
    "data_path": "data",
    "train_loss": None,
    "loss_type": "CE",
    "student_model": "GRU4Rec",
    "teacher_model": "GRU4Rec",
    "student_config": {"dropout_prob": 0.0},
    "teacher_config": {"dropout_prob": 0.0},
    "kd_loss": "rd",
    "kd_rec_weight": 1.0,
    "stage_cache": False,
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_toy_data(tmp_path / "data")
    return tmp_path


def go(count, **settings):
    return run_recbole_alkd(dataset="toy", config_dict={"data_path": "data", **settings}, nproc=count)


def state(report, stage):
    return torch.load(Path(report["run_folder"], f"{stage}.stage.pth"), weights_only=True)


def losses(log):
    """The loss of every epoch of every stage."""
    lines = log.splitlines()
    return [float(line.partition(": loss ")[2].partition(",")[0]) for line in lines if ": loss " in line]


def compare(one, two, exact=False):
    """Two runs of the same settings."""
    assert one["policy"]["picks"] == two["policy"]["picks"]
    for stage in one["stages"]:
        assert one["stages"][stage]["test"] == two["stages"][stage]["test"], stage
        if stage == "student_longer" and exact:
            continue  # what counts is the student there, and is not kept twice
        a, b = state(one, stage), state(two, stage)
        for key in ("steps", "best_step", "epochs", "valid"):
            assert a[key] == b[key], (stage, key)
        for name, value in a["state"].items():
            if exact:
                assert torch.equal(value, b["state"][name]), (stage, name)
            else:
                assert torch.allclose(value, b["state"][name], atol=1e-6), (stage, name)
    assert one["baselines"].keys() == two["baselines"].keys()


def test_two_processes_learn_what_one_learns(home, caplog):
    caplog.set_level("INFO")
    one = go(1, **PLAIN, checkpoint_dir="one")
    two = go(2, **PLAIN, checkpoint_dir="two")
    compare(one, two)
    curves = losses(caplog.text), losses(Path(two["log"]).read_text())
    assert len(curves[0]) == 12 and curves[0] == pytest.approx(curves[1], abs=1e-3)
    assert (one["processes"], two["processes"]) == (1, 2)
    assert two["labels"]["asked"] + two["labels"]["reused"] == 10
    # the leader alone writes
    assert len(list(home.glob("two/ALKDRec-*"))) == 1 and len(list(home.glob("log/ALKDRec/*.log"))) == 2
    assert len(list(home.glob("log_tensorboard/*"))) == 2
    assert json.loads(Path(two["run_folder"], "result.json").read_text())["processes"] == 2
    assert Path(two["run_folder"], "bundle").is_dir() and Path(two["run_folder"], "ALKDRec.pth").is_file()


@pytest.mark.slow
def test_what_counts_is_the_same_to_the_bit(home):
    settings = {"student_model": "SessionKNN", "teacher_model": "SessionKNN"}
    settings = {**TOY_SETTINGS, **settings}
    compare(go(1, **settings, checkpoint_dir="one"), go(2, **settings, checkpoint_dir="two"), exact=True)


@pytest.mark.slow
def test_an_evaluation_that_is_shared_gives_the_digits_of_one_process(home):
    """Batches of five sessions, of which each process scores some."""
    settings = {**PLAIN, "eval_batch_size": 5}
    one, two = go(1, **settings, checkpoint_dir="one"), go(2, **settings, checkpoint_dir="two")
    compare(one, two)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"kd_loss": "pairwise", "kd_rec_weight": 0.5},
        {"alkd_rounds": 2, "student_tune": 2},
        {"alkd_unit": "item", "kd_rec_weight": 1.0},
        {"item_text": "tfidf", "item_text_loss": "text_pairs"},
        {"train_backwards": True, "lora": False, "alkd_ratio": "pilot", "alkd_pilot": 4},
        {"student_model": "SessionSTAMP", "teacher_model": "GRU4Rec", "train_loss": None},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_every_kind_of_run_ends_in_two_processes(home, settings):
    report = go(2, **{**TOY_SETTINGS, **settings})
    assert set(report["stages"]) == {"teacher", "student", "student_longer", "distilled"}
    again = go(2, **{**TOY_SETTINGS, **settings, "checkpoint_dir": "again"})
    for stage in report["stages"]:
        assert report["stages"][stage]["test"] == again["stages"][stage]["test"], "a run repeats itself"


def test_a_model_of_recboles_is_refused(home):
    with pytest.raises(AlkdError, match="nproc: 2 is not allowed with GRU4Rec"):
        run_recbole_alkd("GRU4Rec", "toy", config_dict={**PLAIN, "data_path": "data"}, nproc=2)


@pytest.mark.slow
def test_so_is_one_that_a_file_names(home):
    named = {"data_path": "data", "model": "GRU4Rec", "train_neg_sample_args": None}
    with pytest.raises(AlkdError, match="nproc: 2 is not allowed with GRU4Rec"):
        run_recbole_alkd(None, "toy", config_dict={**TOY_SETTINGS, **named}, nproc=2)


@pytest.mark.slow
def test_recboles_own_call_starts_them_too(home):
    from recbole.quick_start import run

    result = run("ALKDRec", "toy", config_dict=dict(PLAIN), nproc=2)
    assert result["processes"] == 2


@pytest.mark.slow
def test_a_diverging_try_is_one_in_all_processes(home):
    """A learning rate beyond all bounds among the tries of ``student_tune``."""
    Path("search.yaml").write_text("common: {learning_rate: [1.0e+30, 2.0e+30, 3.0e+30]}\nGRU4Rec: {}\n")
    settings = {**PLAIN, "student_tune": 2, "student_search": "search.yaml"}
    report = go(2, **settings)
    tried = report["tuned"]["student"]["tried"]
    assert [one["valid"] is None for one in tried] == [False, True]

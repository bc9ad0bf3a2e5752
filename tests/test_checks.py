"""What settings alone tell is told before anything is read or trained."""

from __future__ import annotations

import importlib.util
import json
import os
import sys

import pytest
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer
from tiny import tiny_config, write_benchmark

from recbole_alkd import AlkdError, teachers
from recbole_alkd.checks import asking_nobody, check_folder, own_command
from recbole_alkd.plugin import empty_argv, settings_of
from recbole_alkd.quick_start import label_instances
from recbole_alkd.settings.keys import model_names
from recbole_alkd.teacher.base import LLMTeacher
from recbole_alkd.trainer.identity import outcome_settings


def make(model="ALKDRec", dataset="ml-100k", **values):
    with empty_argv():
        return Config(model=model, dataset=dataset, config_dict=values)


def refused(words, **values):
    with pytest.raises(AlkdError) as error:
        make(**values)
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text, (word, text)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"alkd_difficulty": "consistancy"},
            ["alkd_difficulty", "consistancy", "did you mean 'consistency'", "loss | rank"],
        ),
        ({"llm_prompt": "nuetral"}, ["llm_prompt", "nuetral", "did you mean 'neutral'"]),
        ({"llm_prompt": "none/of/it.yaml"}, ["llm_prompt", "none/of/it.yaml"]),
        ({"alkd_policy": "listed", "alkd_picks": "none.json"}, ["alkd_picks", "none.json", "cannot be read"]),
        ({"llm_price_file": "none.yaml"}, ["llm_price_file", "none.yaml", "cannot be read"]),
        ({"valid_metric": ""}, ["valid_metric", "''", "not empty"]),
        (
            {"llm_teacher": "api", "llm_model": "gpt-5x", "budget_usd": 1.0},
            ["budget_usd", "gpt-5x", "no price", "llm_price_file"],
        ),
        (
            {"llm_teacher": "replay", "llm_replay_file": "none.jsonl"},
            ["llm_replay_file", "none.jsonl", "cannot be read"],
        ),
        ({"llm_teacher": "replay"}, ["llm_replay_file", "ml-100k.llm.jsonl", "cannot be read"]),
        ({"lora_target": "replay"}, ["llm_replay_file", "ml-100k.llm.jsonl", "cannot be read"]),
        ({"label_store": "file/labels.sqlite"}, ["label_store", "cannot be made"]),
        ({"label_store": "folder"}, ["label_store", "folder"]),
        ({"stage_cache": "file"}, ["stage_cache", "cannot be made"]),
        ({"checkpoint_dir": "file/saved"}, ["checkpoint_dir", "cannot be made"]),
        (
            {"alkd_ratio": "pilot", "alkd_pilot": 50, "budget_labels": 50},
            ["alkd_pilot", "50", "budget_labels"],
        ),
        (
            {"student_model": "SessionKNN", "kd_loss": {"pairwise": 2}},
            ["kd_loss", "weight 2", "no effect on a table"],
        ),
    ],
)
def test_names_and_files_are_looked_up_before_training(values, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    refused(words, **values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"llm_model": "gpt-5x", "budget_usd": 1.0}, ["budget_usd", "gpt-5x", "no price"]),
        ({}, ["llm_model", "smollm2-135m-instruct"]),
    ],
)
def test_what_settings_alone_tell_of_a_teacher_is_told_where_nobody_is_asked(values, words):
    with asking_nobody():
        refused(words, llm_teacher="api", **values)


@pytest.mark.parametrize("key", ["checkpoint_dir", "label_store", "stage_cache"])
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc here")
def test_a_place_where_nothing_can_be_made_is_named(key):
    refused(
        [key, "/proc", "cannot be written to"],
        **{key: "/proc/new/place" if key == "label_store" else "/proc/new"},
    )


@pytest.mark.parametrize("name", ["log", "log_tensorboard", "saved"])
@pytest.mark.parametrize("model", ["ALKDRec", "Pop"])
def test_a_folder_that_cannot_be_made_ends_the_run_first(name, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("a file")
    refused([name, "cannot be made", "is a file"], model=model)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_working_directory_ends_the_run_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o555)
    refused(["cannot be written to", "read-only"])


def test_what_is_read_only_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(AlkdError, match=r"log: .*new/log.* cannot be written to"):
        check_folder("log", tmp_path / "new" / "log")


def test_a_command_looks_at_its_files_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for call in (
        lambda: label_instances("ml-100k", out="file/labels.jsonl"),
        lambda: label_instances("ml-100k", batch_out="file/batch.jsonl"),
    ):
        with pytest.raises(AlkdError, match=r"out: 'file' cannot be made"):
            call()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"budget_labels": 41, "llm_candidates": 10}, "41 instances are asked for and only 40"),
        ({"budget_labels": 5, "llm_candidates": 30}, "llm_candidates: 30 is more than the 2. items"),
        (
            {"budget_labels": 5, "llm_candidates": 10, "item_text": "no/such/encoder", "serve_text_dim": 4},
            "item_text",
        ),
    ],
)
def test_what_the_data_rules_out_is_found_before_training(values, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_benchmark(tmp_path / "data")
    (tmp_path / "data" / "tiny" / "tiny.item").write_text(
        "item_id:token\ttitle:token_seq\n" + "".join(f"i{k}\ttitle {k}\n" for k in range(1, 31))
    )
    config = tiny_config(
        tmp_path / "data", llm_teacher="recommender", llm_top_n=5, session_augmentation="last", **values
    )
    train, valid, _ = data_preparation(config, create_dataset(config))
    trainer = get_trainer(config["MODEL_TYPE"], "ALKDRec")(
        config, get_model("ALKDRec")(config, train._dataset)
    )
    monkeypatch.setattr(type(trainer.stage_trainer), "_train_epoch", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(AlkdError, match=words):
        trainer.fit(train, valid)


def test_a_file_is_read_as_well_as_found(tmp_path):
    picks, replay = tmp_path / "picks.json", tmp_path / "replay.jsonl"
    picks.write_text(json.dumps({"a": ["1"]}))
    replay.write_text("{}\n")
    refused(["alkd_picks", "KEY one of a"], alkd_policy="listed", alkd_picks=f"{picks}#b")
    refused(["line 1", "session_id"], llm_teacher="replay", llm_replay_file=str(replay))


def test_an_llm_teacher_looks_for_what_it_needs_when_somebody_is_asked():
    class Needy(LLMTeacher):
        instant = True

        @classmethod
        def check(cls, settings):
            raise AlkdError(f"llm_device: {settings.teacher.llm_device!r} is not here")

    teachers.register("needy")(Needy)
    try:
        refused(["llm_device: 'tpu' is not here"], llm_teacher="needy", llm_device="tpu")
        with asking_nobody():
            assert make(llm_teacher="needy", llm_device="tpu")["llm_device"] == "tpu"
    finally:
        del teachers._entries["needy"]


# RecBole's settings

RS = {"RS": [0.6, 0.2, 0.2]}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epochs": "ten"}, ["epochs", "'ten'", "an integer"]),
        ({"epochs": 0}, ["epochs", "at least 1"]),
        ({"epochs": 2.5}, ["epochs", "2.5", "an integer"]),
        ({"epochs": True}, ["epochs", "True", "an integer"]),
        ({"train_batch_size": 0}, ["train_batch_size", "0", "at least 1"]),
        ({"train_batch_size": -1}, ["train_batch_size", "-1", "at least 1"]),
        ({"eval_batch_size": 0}, ["eval_batch_size", "at least 1"]),
        ({"learning_rate": "fast"}, ["learning_rate", "'fast'", "a number"]),
        ({"learning_rate": float("inf")}, ["learning_rate", "inf", "above 0"]),
        ({"stopping_step": -1}, ["stopping_step", "-1", "at least 0"]),
        ({"eval_step": "often"}, ["eval_step", "'often'", "an integer"]),
        ({"learner": "adm"}, ["learner", "adm", "did you mean 'adam'"]),
        ({"state": "WARNIN"}, ["state", "WARNIN", "did you mean 'WARNING'"]),
        ({"seed": -1}, ["seed", "-1", "0 to 4294967295"]),
        ({"seed": 2**40}, ["seed", str(2**40), "0 to 4294967295"]),
        ({"topk": 0}, ["topk", "0", "at least 1"]),
        ({"topk": [5, 0]}, ["topk", "[5, 0]", "at least 1"]),
        ({"topk": []}, ["topk", "[]", "at least 1"]),
        ({"topk": "ten"}, ["topk", "'ten'"]),
        ({"topk": [5, 20]}, ["valid_metric", "'NDCG@10'", "[5, 20]", "NDCG@5", "NDCG@20"]),
        ({"valid_metric": "NDCG"}, ["valid_metric", "'NDCG'", "NDCG@10"]),
        ({"metrics": ["Recal"]}, ["metrics", "Recal", "did you mean 'Recall'"]),
        ({"metrics": []}, ["metrics", "[]", "NDCG"]),
        ({"metrics": ["AUC"], "valid_metric": "AUC"}, ["metrics", "AUC", "NDCG"]),
        ({"metrics": ["AUC", "NDCG"]}, ["metrics", "not both at once"]),
        ({"eval_args": {"split": {"RS": [0.8, 0.1]}}}, ["eval_args", "[0.8, 0.1]", "three numbers"]),
        ({"eval_args": {"split": {"RS": [0, 0.5, 0.5]}}}, ["eval_args", "three numbers"]),
        ({"eval_args": {"split": RS, "ordre": "RO"}}, ["eval_args", "ordre", "did you mean 'order'"]),
        ({"eval_args": {"split": RS, "order": "RANDOM"}}, ["eval_args", "order RO or TO"]),
        ({"eval_args": {"split": RS, "mode": "uni"}}, ["eval_args", "uniN"]),
        ({"eval_args": "full"}, ["eval_args", "'full'", "a mapping"]),
        (
            {"eval_args": {"split": RS, "order": "RO", "group_by": "none", "mode": "uni20"}},
            ["eval_args", "uni20", "allowed: full"],
        ),
        (
            {"eval_args": {"split": RS, "group_by": "none", "mode": {"test": "pop5"}}},
            ["pop5", "for test", "allowed: full"],
        ),
        (
            {"eval_args": {"split": RS, "group_by": "none", "mode": {"valid": "full", "test": "uni9"}}},
            ["uni9", "for test"],
        ),
        ({"repeatable": False}, ["repeatable", "False", "allowed: True"]),
        ({"train_neg_sample_args": {"distribution": "uniform"}}, ["train_neg_sample_args", "allowed: ~"]),
        ({"save_dataloaders": True}, ["save_dataloaders", "allowed: False"]),
        ({"MAX_ITEM_LIST_LENGTH": 0}, ["MAX_ITEM_LIST_LENGTH", "0", "at least 1"]),
        ({"user_inter_num_interval": "5"}, ["user_inter_num_interval", "'5'", "[5,inf)"]),
        ({"user_inter_num_interval": "[9,5]"}, ["user_inter_num_interval", "lower end first"]),
        ({"load_col": ["inter"]}, ["load_col", "a mapping"]),
        ({"nproc": 2}, ["nproc", "2", "1 process"]),
        ({"world_size": 2}, ["world_size", "2", "1 process"]),
        ({"gpu_id": "all"}, ["gpu_id", "'all'", "numbers of GPUs"]),
        ({"epoch": 3}, ["epoch", "no such setting", "did you mean 'epochs'"]),
        ({"Epochs": 3}, ["Epochs", "did you mean 'epochs'"]),
        ({"learning-rate": 0.1}, ["learning-rate", "did you mean 'learning_rate'"]),
        ({"lr": 0.1}, ["lr", "no such setting"]),
        ({"dataset": "../x"}, ["dataset", "'../x'", "without a path"]),
        ({"dataset": "a/b"}, ["dataset", "'a/b'"]),
        ({"dataset": ""}, ["dataset", "''"]),
        ({"dataset": None}, ["dataset", "--dataset=NAME"]),
        ({"model": "ALKDREC"}, ["model", "ALKDREC", "did you mean 'ALKDRec'"]),
        ({"model": "Gru4Rec"}, ["model", "Gru4Rec", "did you mean 'GRU4Rec'"]),
        ({"model": None}, ["model", "--model=NAME"]),
    ],
)
def test_a_setting_of_recboles_that_cannot_work_is_one_line(values, words):
    refused(words, **values)


def test_wandb_is_looked_for_when_it_is_asked_for(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else find(name, *rest)
    )
    refused(["log_wandb", "pip install wandb"], log_wandb=True)


def test_the_defaults_of_every_stock_model_pass():
    passed = []
    for name in model_names():
        try:
            make(model=name)
        except ImportError:  # a library of that model's own
            continue
        except ValueError as error:
            assert not isinstance(error, AlkdError), (name, error)
            make(model=name, train_neg_sample_args=None)  # what RecBole asks for
        passed.append(name)
    assert len(passed) > 80


def test_a_plugin_may_have_settings_of_its_own(caplog):
    assert make(alkd_plugins=["json"], shelf_height=3)["shelf_height"] == 3
    assert "shelf_height" in caplog.text
    refused(["epoch", "did you mean 'epochs'"], alkd_plugins=["json"], epoch=3)


def test_the_words_of_another_program_are_not_settings(monkeypatch, caplog):
    monkeypatch.setattr(sys, "argv", ["pytest", "--cov=recbole_alkd", "--durations=5", "-q"])
    stock = {"model": "SASRec", "dataset": "ml-100k", "config_dict": {"train_neg_sample_args": None}}
    assert (
        Config(model="ALKDRec", dataset="ml-100k")["cov"] == "recbole_alkd"
        and "cov: no setting" in caplog.text
    )
    assert Config(**stock)["durations"] == 5
    for how in ({"model": "ALKDRec", "dataset": "ml-100k"}, stock):
        with own_command(), pytest.raises(AlkdError, match="cov: no such setting"):
            Config(**how)


@pytest.mark.parametrize("values", [{"gpu_id": "0,1"}, {"gpu_id": (0, 1)}, {"use_gpu": True}])
def test_a_gpu_that_is_not_there_is_said(values, caplog, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    config = make(**values)
    assert config["device"].type == "cpu" and "the run uses the CPU" in caplog.text
    assert config["gpu_id"] == ("0" if "use_gpu" in values else "0,1")
    caplog.clear()
    make()
    assert "CPU" not in caplog.text


def test_how_an_llm_is_reached_makes_no_other_run():
    def of(**values):
        config = make(**values)
        return outcome_settings(config, settings_of(config))

    plain = of()
    with asking_nobody():
        moved = {
            "llm_device": "cuda:1", "llm_batch_size": 2, "llm_concurrency": 3, "llm_timeout": 5,
            "llm_requests_per_minute": 7,
            "llm_base_url": "http://127.0.0.1:8000/v1", "llm_api_key_env": "MY_KEY", "use_gpu": False,
            "trust_checkpoint": True,
        }  # fmt: skip
        assert all(of(**{key: value}) == plain for key, value in moved.items())
        assert of(llm_model="other") != plain and of(lora=False) != plain

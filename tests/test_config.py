"""Settings: types, ranges, misspelt keys, and that nothing of ours is ever evaluated."""

from __future__ import annotations

import dataclasses
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from recbole.config import Config

from recbole_alkd import AlkdError
from recbole_alkd.checks import asking_nobody
from recbole_alkd.plugin import properties_dir, recbole_keys, settings_of
from recbole_alkd.settings.groups import FIELDS, Settings
from recbole_alkd.settings.identity import settings_hash, stage_seed
from recbole_alkd.settings.reading import is_ours, parse, read_settings


def alkdrec(**values):
    return Config(model="ALKDRec", dataset="ml-100k", config_dict=values)


def test_the_yaml_holds_every_setting_with_its_default():
    content = (properties_dir() / "model" / "ALKDRec.yaml").read_text()
    values = alkdrec().final_config_dict
    for name, spec in FIELDS.items():
        assert values[name] == spec.default and type(values[name]) is type(spec.default), name
    assert set(FIELDS) <= set(yaml.safe_load(content))


def test_no_key_of_ours_is_one_of_recboles():
    assert not set(FIELDS) & recbole_keys()
    assert not [key for key in recbole_keys() if is_ours(key, recbole_keys())]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("budget_lables", 3, ["budget_lables", "budget_labels"]),
        ("aldk_policy", "max_min", ["aldk_policy", "alkd_policy"]),
        ("llm_modle", "x", ["llm_modle", "llm_model"]),
        ("budget_labels", 0, ["budget_labels", "0", "at least 1"]),
        ("budget_labels", 2.5, ["budget_labels", "2.5", "an integer"]),
        ("budget_labels", True, ["budget_labels", "True", "an integer"]),
        ("budget_usd", 0, ["budget_usd", "above 0"]),
        ("budget_labels", None, ["budget_labels", "None", "an integer"]),
        ("lora_learning_rate", float("nan"), ["lora_learning_rate", "nan"]),
        (
            "session_augmentation",
            "prefixes",
            ["session_augmentation", "prefix | last", "did you mean 'prefix'"],
        ),
        ("alkd_ratio", [1, 2], ["alkd_ratio", "three numbers"]),
        ("alkd_ratio", [0, 0, 0], ["alkd_ratio", "not all 0"]),
        ("kd_position_weight", [[5, 3], [5, 2]], ["kd_position_weight", "rising"]),
        ("lora_targets", [], ["lora_targets", "at least one"]),
        ("student_config", [1], ["student_config", "a mapping"]),
        ("llm_top_n", 51, ["llm_top_n", "51", "llm_candidates (50)"]),
        ("alkd_policy", "listed", ["alkd_picks", "FILE"]),
        ("alkd_policy", "maxmin", ["alkd_policy", "maxmin", "did you mean 'max_min'", "random"]),
        ("student_model", "GRU4Rek", ["student_model", "GRU4Rek", "did you mean 'GRU4Rec'", "SASRec"]),
        ("teacher_model", "FPMC", ["teacher_model", "FPMC", "SASRec"]),
        ("label_engine", "spark", ["label_engine", "'spark'", "local", "ray"]),
        ("ray_address", "auto", ["ray_address", "label_engine: ray"]),
        ("llm_teacher", "locale", ["llm_teacher", "locale", "did you mean 'local'"]),
        ("kd_loss", "pairwize", ["kd_loss", "pairwize", "did you mean 'pairwise'"]),
        ("alkd_plugins", ["no_such_module_of_mine"], ["alkd_plugins", "no_such_module_of_mine"]),
    ],
)
def test_a_bad_setting_says_key_value_and_what_is_allowed(key, value, words):
    with pytest.raises(AlkdError) as error:
        alkdrec(**{key: value})
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text, (word, text)


def test_a_stock_model_is_not_checked():
    config = Config(
        model="GRU4Rec", dataset="ml-100k", config_dict={"budget_lables": 3, "train_neg_sample_args": None}
    )
    assert config["budget_lables"] == 3


@pytest.mark.parametrize("way", ["command line", "config_dict"])
@pytest.mark.parametrize("key", ["llm_model", "llm_modle", "label_store", "alkd_ratio"])
def test_an_expression_is_never_executed(way, key, monkeypatch, tmp_path):
    mark = tmp_path / "executed"
    expression = f"__import__('pathlib').Path({str(mark)!r}).write_text('x')"
    values = {}
    if way == "command line":
        monkeypatch.setattr(sys, "argv", ["run", f"--{key}={expression}"])
    else:
        values = {key: expression}
    try:
        config = alkdrec(**values)
        assert config[key] == expression
    except AlkdError:
        pass
    assert not mark.exists()


def test_the_command_line_keeps_a_second_equals_sign_and_recboles_numbers(monkeypatch):
    words = ["run", "--llm_model=models/a=b", "--lora_learning_rate=5e-4", "--budget_usd=None",
             "--session_window=~",
             "--alkd_ratio=[2, 3, 5]", "--epochs=7", "--kd_config={pairwise: {}}"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", words)
    with asking_nobody():  # there is no such model
        config = alkdrec()
    assert config["llm_model"] == "models/a=b"
    assert config["lora_learning_rate"] == 5e-4
    assert config["budget_usd"] is None and config["session_window"] is None
    assert config["alkd_ratio"] == [2, 3, 5]
    assert config["epochs"] == 7
    assert config["kd_config"] == {"pairwise": {}}
    assert sys.argv == words


def test_a_key_given_twice_is_an_error(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run", "--budget_labels=5", "--budget_labels=6"])
    with pytest.raises(AlkdError, match="budget_labels is given twice"):
        alkdrec()


def test_the_command_line_wins_over_the_dict_and_the_dict_over_the_file(monkeypatch, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("budget_labels: 10\nlora_rank: 3\nllm_candidates: 30\n")
    monkeypatch.setattr(sys, "argv", ["run", "--llm_candidates=31"])
    config = Config(
        model="ALKDRec",
        dataset="ml-100k",
        config_file_list=[str(file)],
        config_dict={"lora_rank": 4, "llm_candidates": 32},
    )
    assert (config["budget_labels"], config["lora_rank"], config["llm_candidates"]) == (10, 4, 31)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", ["bad.yaml", "line 1"]),
        ("- a\n- b\n", ["bad.yaml", "mapping"]),
        ("", ["bad.yaml", "mapping"]),
        ("a: \x00", ["bad.yaml"]),
    ],
)
def test_an_unreadable_file_is_named(tmp_path, text, words):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(AlkdError) as error:
        Config(model="ALKDRec", dataset="ml-100k", config_file_list=[str(file)])
    for word in words:
        assert word in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(AlkdError, match=r"none\.yaml"):
        Config(model="ALKDRec", dataset="ml-100k", config_file_list=[str(tmp_path / "none.yaml")])


def test_settings_are_typed_and_frozen():
    settings = settings_of(alkdrec(budget_labels=7))
    assert isinstance(settings, Settings) and settings.selection.budget_labels == 7
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.selection.budget_labels = 8


@given(st.text(max_size=60))
def test_text_settings_take_any_text_as_it_stands(text):
    assert parse("llm_model", text) == text
    assert parse("title_field", text) == (None if text.strip() in ("", "~", "None", "null") else text)


@pytest.mark.parametrize("value", ["null", None])
def test_null_is_the_name_of_a_teacher_in_text_and_in_yaml(value):
    assert settings_of(alkdrec(llm_teacher=value)).teacher.llm_teacher == "null"


@given(st.text(max_size=60))
def test_parsing_gives_plain_data_or_a_one_line_error(text):
    try:
        value = parse("alkd_ratio", text)
    except AlkdError as error:
        assert "alkd_ratio" in str(error) and "\n" not in str(error)
    else:
        read_back = yaml.safe_load(yaml.safe_dump(value))
        assert read_back == value or value != value


def test_hash_and_seed_do_not_depend_on_order_or_process():
    assert (
        settings_hash({"a": 1, "b": [2]})
        == settings_hash({"b": [2], "a": 1})
        != settings_hash({"a": 1, "b": [3]})
    )
    assert stage_seed(2020, "teacher") == stage_seed(2020, "teacher") != stage_seed(2020, "student")
    assert stage_seed(2020, "ab", "c") != stage_seed(2020, "a", "bc")
    assert 0 <= stage_seed(2020, "teacher") < 2**31


def test_defaults_are_valid_by_themselves():
    assert read_settings({}) == read_settings(
        Settings(*(type(g)() for g in vars(read_settings({})).values())).flat()
    )

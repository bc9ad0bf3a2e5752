"""Text becomes plain data: what RecBole would evaluate is read, and nothing in it runs."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from recbole.config import Config

from recbole_alkd import AlkdError
from recbole_alkd.plugin import empty_argv
from recbole_alkd.settings.keys import recbole_keys
from recbole_alkd.settings.stock import check_value, read_text
from recbole_alkd.settings.text import read_value, read_yaml

STOCK = {"model": "SASRec", "dataset": "ml-100k"}


def by_words(monkeypatch, *words, model="ALKDRec"):
    monkeypatch.setattr(sys, "argv", ["run", *words])
    return Config(model=model, dataset="ml-100k")


@pytest.mark.parametrize("way", ["command line", "config_dict", "file", "nested"])
@pytest.mark.parametrize("model", ["ALKDRec", "SASRec"])
@pytest.mark.parametrize(
    "key",
    ["learning_rate", "hidden_size", "checkpoint_dir", "eval_args", "topk", "seed", "metrics", "anything"],
)
def test_no_text_is_ever_executed(way, model, key, monkeypatch, tmp_path):
    mark = tmp_path / "executed"
    expression = f"__import__('pathlib').Path({str(mark)!r}).write_text('x')"
    monkeypatch.setattr(sys, "argv", ["run"])
    files, values = None, {"train_neg_sample_args": None}
    if way == "command line":
        monkeypatch.setattr(sys, "argv", ["run", f"--{key}={expression}"])
    elif way == "file":
        files = [str(tmp_path / "a.yaml")]
        (tmp_path / "a.yaml").write_text(yaml.safe_dump({key: expression}))
    else:
        values[key] = expression if way == "config_dict" else {"inner": [expression]}
    try:
        config = Config(model=model, dataset="ml-100k", config_file_list=files, config_dict=values)
        assert way == "nested" or expression in str(config[key])
    except (AlkdError, TypeError):
        pass
    assert not mark.exists()


@pytest.mark.parametrize(
    "text",
    ["10", "1e-3", "-2.5", "1_000", "0x10", "[5, 10]", "[64,32]", "(1, 2)", "{'RS': [0.8, 0.1]}", "None",
     "True", "true", "FALSE",
     "'quoted'", '"a=b"', "[5,inf)", "adam", "GRU4Rec", "a/b.yaml", "['Recall', 'NDCG']", "[]", "{}", "1.",
     "[None, True]"],
)  # fmt: skip
def test_a_text_is_what_recbole_makes_of_it(text):
    namespace = {"__builtins__": {}}
    try:
        expected = eval(text, namespace)  # RecBole's way, on these texts alone
    except (NameError, SyntaxError):
        expected = {"true": True, "false": False}.get(text.lower(), text)
    value = read_value(text)
    assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("topk", "5,10", [5, 10]),
        ("topk", "[5,10]", [5, 10]),
        ("topk", "(5, 10)", [5, 10]),
        ("topk", "10", 10),
        ("metrics", "Recall,NDCG", ["Recall", "NDCG"]),
        ("metrics", "[Recall, NDCG]", ["Recall", "NDCG"]),
        ("metrics", "Recall", "Recall"),
        ("train_neg_sample_args", "~", None),
        ("train_neg_sample_args", "None", None),
        ("train_neg_sample_args", "null", None),
        ("load_col", "~", None),
        ("clip_grad_norm", "{max_norm: 5}", {"max_norm": 5}),
        (
            "eval_args",
            "{split: {RS: [.6, .2, .2]}, order: RO}",
            {"split": {"RS": [0.6, 0.2, 0.2]}, "order": "RO"},
        ),
        ("user_inter_num_interval", "[5,10]", "[5,10]"),
        ("user_inter_num_interval", "[5,inf)", "[5,inf)"),
        ("data_path", "here/run=1", "here/run=1"),
        ("data_path", "1", "1"),
        ("data_path", "key", "key"),  # a variable of RecBole's own, where it evaluates
        ("checkpoint_dir", "None", "None"),
        ("gpu_id", "0,1", "0,1"),
        ("gpu_id", "", ""),
        ("seq_separator", " ", " "),
        ("field_separator", "','", ","),
        ("dataset_save_path", "~", None),
        ("mlp_hidden_size", "[64,32]", [64, 32]),
        ("loss_type", "BPR", "BPR"),
    ],
)
def test_settings_of_recboles_are_read_by_what_they_take(key, text, value, monkeypatch):
    value_read = read_text(key, text)
    value_read = list(value_read) if isinstance(value_read, tuple) and key == "topk" else value_read
    assert value_read == value and type(value_read) is type(value)


@pytest.mark.parametrize("model", ["ALKDRec", "SessionFPMC"])
def test_a_value_with_a_second_equals_sign_is_taken(model, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run", "--data_path=here/run=1", "--checkpoint_dir=a=b=c"])
    config = Config(model=model, dataset="mine")
    assert (config["data_path"], config["checkpoint_dir"]) == ("here/run=1/mine", "a=b=c")


def test_one_meaning_of_the_tilde(monkeypatch):
    config = by_words(monkeypatch, "--train_neg_sample_args=~", "--budget_usd=~", model="GRU4Rec")
    assert config["train_neg_sample_args"]["distribution"] == "none" and config["budget_usd"] is None


@pytest.mark.parametrize("key", ["epochs", "budget_labels"])
def test_a_key_given_twice_is_an_error(key, monkeypatch, tmp_path):
    with pytest.raises(AlkdError, match=f"--{key} is given twice"):
        by_words(monkeypatch, f"--{key}=5", f"--{key}=6")
    assert by_words(monkeypatch, f"--{key}=5", f"--{key}=5")[key] == 5
    file = tmp_path / "twice.yaml"
    file.write_text(f"{key}: 5\nseed: 3\n{key}: 6\n")
    with empty_argv(), pytest.raises(AlkdError, match=rf"twice\.yaml', line 3, column 1.*{key}.* twice"):
        Config(model="ALKDRec", dataset="ml-100k", config_file_list=[str(file)])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: !!python/object/apply:os.system ['x']\n", ["line 1", "python/object"]),
        (b"a: !!python/name:os.system\n", ["line 1"]),
        (b"a: !!python/tuple [1]\n", ["line 1", "python/tuple"]),
        (b"a: !mine 3\n", ["line 1", "!mine"]),
        (b"a:\n\t- 1\n", ["line 2"]),
        (b"- a\n", ["mapping", "list"]),
        (b"", ["mapping", "NoneType"]),
        (b"just text", ["mapping", "str"]),
        (b"1: 2\n", ["1", "name of a setting"]),
        (b"a: 2020-13-45\n", ["not readable"]),
        (b"a: \xff\xfe\n", ["UTF-8"]),
        (b"a: " + b"[" * 3000, ["nested too deeply"]),
        (b"a: &x [*x]\nb: {<<: 3}\n", ["not readable"]),
    ],
)
@pytest.mark.parametrize("model", ["ALKDRec", "SASRec"])
def test_a_bad_file_is_one_line_that_names_it(content, words, model, tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with empty_argv(), pytest.raises(AlkdError) as error:
        Config(model=model, dataset="ml-100k", config_file_list=[str(file)])
    text = str(error.value)
    assert "bad.yaml" in text and "\n" not in text
    for word in words:
        assert word in text, (word, text)


def test_files_give_what_recboles_loader_gives(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("\ufefflearning_rate: 5e-4\nepochs: 3\nweight_decay: 1e-12\nshow_progress: off\ntopk: "
                    "[5, 10]\n"
                    "base: &base {x: 1}\nmore: {<<: *base, y: .5}\n")  # fmt: skip
    with empty_argv():
        config = Config(
            **STOCK,
            config_file_list=[str(file)],
            config_dict={"train_neg_sample_args": None, "metrics": ["MRR"]},
        )
    assert (config["learning_rate"], config["epochs"], config["weight_decay"], config["show_progress"]) == (
        5e-4,
        3,
        1e-12,
        False,
    )
    assert config["more"] == {"x": 1, "y": 0.5} and config["topk"] == [5, 10]


def test_numbers_of_numpy_are_numbers(tmp_path):
    np = pytest.importorskip("numpy")
    with empty_argv():
        values = {
            "epochs": np.int64(3),
            "learning_rate": np.float64(0.1),
            "budget_labels": np.int32(7),
            "shuffle": np.bool_(False),
        }
        config = Config(model="ALKDRec", dataset="ml-100k", config_dict=values)
    assert (config["epochs"], config["learning_rate"], config["budget_labels"], config["shuffle"]) == (
        3,
        0.1,
        7,
        False,
    )
    assert all(type(config[key]) in (int, float, bool) for key in values)


@pytest.mark.parametrize("values", [["epochs"], "epochs=3", {3: 4}])
def test_settings_of_a_caller_are_a_mapping_of_names(values):
    with empty_argv(), pytest.raises(AlkdError, match="config_dict"):
        Config(model="ALKDRec", dataset="ml-100k", config_dict=values)


def test_the_callers_mapping_is_left_alone():
    values = {"topk": "5,10", "budget_labels": "7"}
    with empty_argv():
        assert Config(model="ALKDRec", dataset="ml-100k", config_dict=values)["topk"] == [5, 10]
    assert values == {"topk": "5,10", "budget_labels": "7"}


@given(st.text(max_size=80), st.sampled_from(sorted(recbole_keys())))
def test_reading_never_fails_and_gives_plain_data(text, key):
    value = read_text(key, text)
    assert isinstance(value, (str, int, float, bool, list, tuple, dict, type(None))) or type(
        value
    ).__name__ in ("date", "datetime")


@given(st.text(max_size=200))
def test_yaml_is_plain_data_or_a_one_line_error(text):
    try:
        read_yaml(text)
    except AlkdError as error:
        assert "\n" not in str(error)


def test_a_search_file_is_read_and_not_evaluated(tmp_path, monkeypatch):
    from recbole.trainer import HyperTuning

    # hyperopt's part
    monkeypatch.setattr(HyperTuning, "_build_space_from_dict", staticmethod(lambda space: space))
    mark = tmp_path / "executed"
    file = tmp_path / "search.txt"
    expression = f"__import__('pathlib').Path({str(mark)!r}).write_text('x')"
    file.write_text(f"learning_rate choice [{expression}]\n")
    assert HyperTuning._build_space_from_file(str(file)) == {"choice": {"learning_rate": [expression]}}
    file.write_text(f"learning_rate choice {expression}\n")
    with pytest.raises(AlkdError, match="learning_rate"):
        HyperTuning._build_space_from_file(str(file))
    assert not mark.exists()
    file.write_text(
        "learning_rate loguniform -8, 0\n\n# a word\nhidden_size choice [64, 128]\nlayers choice ['[64,32]', "
        "'[8]']\n"
        "dropout uniform 0,1\nbatch quniform 64,128,64\nloss_type choice ['BPR', 'CE']\nnames choice [a, b]\n"
    )
    assert HyperTuning._build_space_from_file(str(file)) == {
        "loguniform": {"learning_rate": [-8.0, 0.0]},
        "choice": {
            "hidden_size": [64, 128],
            "layers": ["[64,32]", "[8]"],
            "loss_type": ["BPR", "CE"],
            "names": ["a", "b"],
        },
        "uniform": {"dropout": [0.0, 1.0]},
        "quniform": {"batch": [64.0, 128.0, 64.0]},
    }
    for bad in (
        "x choice 5\n",
        "x choice [1\n",
        "x choice []\n",
        "x uniform 1\n",
        "x uniform a,b\n",
        "x shape [1]\n",
        "x quniform 1,2\n",
    ):
        file.write_text(bad)
        with pytest.raises(AlkdError, match=r"search\.txt', line 1"):
            HyperTuning._build_space_from_file(str(file))
    with pytest.raises(AlkdError, match="none"):
        HyperTuning._build_space_from_file(str(tmp_path / "none"))


def test_a_stock_model_does_not_evaluate_the_name_of_its_teacher():
    with empty_argv(), pytest.raises(AlkdError, match="teacher"):
        Config(model="KD_DAGFM", dataset="ml-100k", config_dict={"teacher": "exit"})


def test_the_import_does_not_cost_recbole_its_own_errors():
    code = (
        "import recbole_alkd\nfrom recbole.config import Config\nConfig(model='GRU4Rec', dataset='ml-100k')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "should be None when the loss_type is CE" in done.stderr


@pytest.mark.parametrize(
    ("key", "bad", "good"),
    [
        ("clip_grad_norm", {"a": 1}, {"max_norm": 5, "norm_type": 2}),
        ("clip_grad_norm", {"norm_type": 2}, None),
        ("checkpoint_dir", " ", "saved"),
        ("transform", "nonsense", "mask_itemseq"),
        ("ITEM_LIST_LENGTH_FIELD", None, "item_length"),
        ("metric_decimal_place", 1000, 16),
    ],
)
def test_values_that_recbole_would_end_in_a_traceback_with_are_refused(key, bad, good):
    check_value(key, good)
    with pytest.raises(AlkdError, match=f"^{key}: .*allowed"):
        check_value(key, bad)


def test_a_word_of_another_program_may_stand_there_twice(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program", "--ignore=a", "--ignore=b", "--epochs=3"])
    assert (
        Config(model="GRU4Rec", dataset="ml-100k", config_dict={"train_neg_sample_args": None})["epochs"] == 3
    )
    monkeypatch.setattr(sys, "argv", ["program", "--epochs=2", "--epochs=3"])
    with pytest.raises(AlkdError, match="--epochs is given twice"):
        Config(model="GRU4Rec", dataset="ml-100k", config_dict={"train_neg_sample_args": None})

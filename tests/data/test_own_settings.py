"""Settings that come with a data set, and the same sessions for every model that reads it."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
import yaml
from recbole.config import Config
from recbole.data import create_dataset
from recbole.quick_start import run_recbole
from session_files import BENCHMARK, read_rows, token_rows, write_inter
from test_click_files import some_clicks

from recbole_alkd.data.own_settings import data_settings
from recbole_alkd.data.sessions import make_sessions
from recbole_alkd.data.titles import load_titles, titles_of
from recbole_alkd.plugin import MODELS
from recbole_alkd.settings.error import AlkdError

PARTS = ("train", "valid", "test")


def config(folder: Path, dataset: str, model: str = "ALKDRec", **settings: object) -> Config:
    """A Config as a user has it who names the data set, its folder and nothing else."""
    values = {
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "llm_teacher": "null",
        **settings,
    }
    return Config(model=model, dataset=dataset, config_dict=values)


# the shipped settings


def test_shipped_settings_apply_to_files_that_match(tmp_path, caplog) -> None:
    header = "session_id:token\titem_id:token\ttimestamp:float"
    write_inter(tmp_path / "online-retail" / "online-retail.inter", some_clicks(1), header)
    settings = config(tmp_path, "online-retail")
    assert (settings["USER_ID_FIELD"], settings["session_window"], settings["llm_prompt"]) == (
        "session_id",
        None,
        "products",
    )
    assert not settings.alkd_notes


@pytest.mark.parametrize(
    ("dataset", "reason"),
    [
        (
            "online-retail",
            r"online-retail\.inter has no column session_id \(it has user_id, item_id, timestamp\)",
        ),
        ("diginetica", r"there is no diginetica\.train\.inter"),
        ("alkdrec-games", r"there is no alkdrec-games\.train\.inter"),
    ],
)
def test_a_data_set_of_the_same_name_is_the_user_s_own(tmp_path, caplog, dataset: str, reason: str) -> None:
    write_inter(tmp_path / dataset / f"{dataset}.inter", some_clicks(2))
    write_inter(tmp_path / "toy" / "toy.inter", some_clicks(2))
    settings = config(tmp_path, dataset, session_min_length=2)
    assert (settings["USER_ID_FIELD"], settings["benchmark_filename"], settings["session_window"]) == (
        "user_id",
        None,
        86400,
    )
    parts = [token_rows(part) for part in create_dataset(settings).build()]
    assert parts == [
        token_rows(part) for part in create_dataset(config(tmp_path, "toy", session_min_length=2)).build()
    ]
    [note] = [record.getMessage() for record in caplog.records if "settings" in record.getMessage()]
    assert note.startswith(f"{dataset}: this package's settings for a data set of that name do not apply: ")

    assert re.search(reason, note)


# the settings beside the data


def test_what_sessions_wrote_is_found_without_more_words(tmp_path, caplog) -> None:
    raw = write_inter(tmp_path / "clicks.inter", some_clicks(3))
    (tmp_path / "clicks.item").write_text(
        "item_id:token\ttitle:token_seq\n" + "".join(f"i{k}\tT {k}\n" for k in range(9))
    )
    make_sessions(raw, tmp_path / "mine", min_length=2, augmentation="last", max_length=7)
    own = yaml.safe_load((tmp_path / "mine" / "mine.yaml").read_text())
    caplog.set_level(logging.INFO)
    assert own == {
        **BENCHMARK,
        "ITEM_ID_FIELD": "item_id",
        "MAX_ITEM_LIST_LENGTH": 7,
        "session_augmentation": "last",
    }
    for model in MODELS:
        settings = config(tmp_path, "mine", model)
        assert [token_rows(part) for part in create_dataset(settings).build()] == [
            read_rows(tmp_path / "mine", p) for p in PARTS
        ]
        assert f"settings of the data set: {tmp_path / 'mine' / 'mine.yaml'}" in caplog.text
        caplog.clear()
    # RecBole refuses its own default of train_neg_sample_args with this model's loss
    settings = config(tmp_path, "mine", "GRU4Rec")
    assert [token_rows(part) for part in create_dataset(settings).build()] == [
        read_rows(tmp_path / "mine", p) for p in PARTS
    ]
    # the user's word counts
    assert config(tmp_path, "mine", MAX_ITEM_LIST_LENGTH=3)["MAX_ITEM_LIST_LENGTH"] == 3
    assert config(tmp_path, "mine", "AttMix")["MAX_ITEM_LIST_LENGTH"] == 10  # part of that model


def test_a_file_that_says_more_than_how_data_is_read_is_not_used(tmp_path, caplog) -> None:
    write_inter(tmp_path / "toy" / "toy.inter", some_clicks(4))
    beside = tmp_path / "toy" / "toy.yaml"
    for content, reason in (
        (
            "USER_ID_FIELD: user_id\ncheckpoint_dir: /elsewhere\n",
            "it holds checkpoint_dir, and only settings of the data",
        ),
        ("dataset_save_path: x.pth\n", "it holds dataset_save_path"),
        ("llm_prompt: x.yaml\n", "it holds llm_prompt"),
        ("benchmark_filename: [train, valid, test]\n", "there is no toy.train.inter"),
        ("load_col: {inter: [visit]}\n", "toy.inter has no column visit"),
        ("- a\n", "a mapping of settings is expected"),
        ("a: [\n", "is not readable as YAML"),
        ("session_window: !!python/object/apply:os.getcwd []\n", "is not readable as YAML"),
    ):
        beside.write_text(content)
        settings = data_settings("toy", tmp_path / "toy", None)
        assert (
            not settings.values and reason in settings.notes[0][1] and str(beside) in settings.notes[0][1]
        ), settings
        assert config(tmp_path, "toy")["USER_ID_FIELD"] == "user_id"
    beside.write_text("session_window: 60\nUSER_ID_FIELD: user_id\n")
    assert config(tmp_path, "toy")["session_window"] == 60


def test_csv_with_string_ids_and_titles_with_commas(tmp_path, caplog) -> None:
    rng_rows = [f'"{user}",É-{item},{time}' for user, item, time in some_clicks(5)]
    (tmp_path / "clicks.csv").write_bytes("\r\n".join(["customer,SKU,when", *rng_rows]).encode("utf-8-sig"))
    titles = [f'É-i{k},"Mug, ""large"" no. {k}"' for k in range(8)]
    (tmp_path / "items.csv").write_bytes("\n".join(["SKU,Description", *titles, ""]).encode("utf-16"))
    counts = make_sessions(
        tmp_path / "clicks.csv", tmp_path / "data" / "mine", user_field="customer", item_field="SKU",
        time_field="when",
        titles=tmp_path / "items.csv", title_field="Description", min_length=2,
    )  # fmt: skip
    assert counts["rows"] == 120 and counts["items_with_title"] == counts["items"] - 1
    assert "items.csv: 1 of 9 items have no title and are shown as 'item É-i8'" in caplog.text
    settings = config(tmp_path / "data", "mine")
    assert titles_of(settings, "item_id")["É-i3"] == 'Mug, "large" no. 3'
    plain = [(user, f"É-{item}", time) for user, item, time in some_clicks(5)]
    make_sessions(write_inter(tmp_path / "plain.inter", plain), tmp_path / "plain", min_length=2)
    rows = [token_rows(part) for part in create_dataset(settings).build()]
    assert rows == [read_rows(tmp_path / "plain", part) for part in PARTS]
    (tmp_path / "other.csv").write_text("SKU,Description\n1,A\n")
    with pytest.raises(
        AlkdError,
        match=r"other\.csv: it has a title for none of the 9 items of the clicks, whose ids are É-i",
    ):
        make_sessions(
            tmp_path / "clicks.csv", tmp_path / "no", user_field="customer", item_field="SKU",
            time_field="when",
            titles=tmp_path / "other.csv", title_field="Description", min_length=2,
        )  # fmt: skip
    assert not (tmp_path / "no").exists()


def test_an_item_file_in_another_form_is_written_with_tabs(tmp_path) -> None:
    raw = write_inter(tmp_path / "clicks.inter", some_clicks(6))
    (tmp_path / "clicks.item").write_bytes(
        b"item_id:token;title:token_seq;year:float\n"
        + "".join(f'i{k};"Ä; {k}";19\n' for k in range(9)).encode("latin-1")
    )
    make_sessions(raw, tmp_path / "mine", min_length=2, encoding="latin-1")
    assert (tmp_path / "mine" / "mine.item").read_text().splitlines()[:2] == [
        "item_id:token\ttitle:token_seq\tyear:float",
        "i0\tÄ; 0\t19",
    ]
    assert load_titles(tmp_path / "mine", "mine", "item_id")["i3"] == "Ä; 3"


def test_columns_of_other_names_are_written_under_recbole_s(tmp_path, monkeypatch) -> None:
    raw = write_inter(tmp_path / "clicks.inter", some_clicks(6), "visit:token\tsku:token\ttimestamp:float")
    (tmp_path / "clicks.item").write_text(
        "sku:token\tbrand:token\tname:token_seq\n" + "".join(f'i{k}\tB\t"open {k}\n' for k in range(9))
    )
    make_sessions(raw, tmp_path / "mine", min_length=2, user_field="visit", item_field="sku")
    assert load_titles(tmp_path / "mine", "mine", "item_id")["i3"] == '"open 3'
    monkeypatch.chdir(tmp_path)
    small = {
        "data_path": ".",
        "epochs": 1,
        "embedding_size": 4,
        "hidden_size": 4,
        "topk": [3],
        "valid_metric": "MRR@3",
        "use_gpu": False,
    }
    result = run_recbole(
        model="GRU4Rec", dataset="mine", config_dict={**small, "show_progress": False}, saved=False
    )
    assert 0 <= result["test_result"]["recall@3"] <= 1


# every model of ours


@pytest.mark.parametrize("model", [name for name in MODELS if name != "ALKDRec"])
def test_every_model_of_ours_sees_the_same_sessions(tmp_path, model: str) -> None:
    write_inter(tmp_path / "toy" / "toy.inter", some_clicks(7))
    how = {
        "session_window": 600,
        "session_min_length": 3,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    }
    wanted = create_dataset(config(tmp_path, "toy", MAX_ITEM_LIST_LENGTH=10, **how)).build()
    parts = create_dataset(config(tmp_path, "toy", model, MAX_ITEM_LIST_LENGTH=10, **how)).build()
    assert [token_rows(part) for part in parts] == [token_rows(part) for part in wanted]
    with pytest.raises(AlkdError, match="session_min_length: 1 is not allowed"):
        config(tmp_path, "toy", model, session_min_length=1)
    with pytest.raises(AlkdError, match="session_windw"):
        config(tmp_path, "toy", model, session_windw=5)
    with pytest.raises(AlkdError, match="would put prefixes of valid and test sessions into training"):
        create_dataset(
            config(
                tmp_path,
                "toy",
                model,
                eval_args={"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user"},
            )
        )


def test_a_model_of_recbole_s_own_says_what_it_ignores(tmp_path, caplog) -> None:
    write_inter(tmp_path / "toy" / "toy.inter", some_clicks(8))
    config(tmp_path, "toy", "GRU4Rec", session_window=600, train_neg_sample_args=None)
    assert "session_window: no effect on GRU4Rec" in caplog.text
    caplog.clear()
    config(tmp_path, "ml-100k", "BPR", session_window=600)  # the copy that RecBole has
    assert "session_window: no effect on BPR" in caplog.text
    make_sessions(tmp_path / "toy" / "toy.inter", tmp_path / "made", min_length=2)
    create_dataset(config(tmp_path, "made", session_window=600, session_min_length=3))
    assert "session_window, session_min_length: no effect on benchmark files" in caplog.text


# names, and saved copies


@pytest.mark.parametrize("name", ["../x", "a/b", "/tmp/x", "..", ".", "", " ", "a\\b", "a\nb", 5])
def test_names_that_are_paths(tmp_path, name: object) -> None:
    with pytest.raises(
        AlkdError, match=r"dataset: .* is not allowed; allowed: the name of a data set, without a path"
    ):
        config(tmp_path, name)  # type: ignore[arg-type]
    if isinstance(name, str) and name.strip() and name not in ("..", ".", "../x", "a/b", "/tmp/x"):
        raw = write_inter(tmp_path / "raw.inter", some_clicks(9))
        with pytest.raises(AlkdError, match="dataset"):
            make_sessions(raw, tmp_path / "out" / name, min_length=2)


@pytest.mark.parametrize("name", ["mine[1]", "a*b", "a b", "Ünï", "x.y", "a?"])
def test_names_with_marks(tmp_path, name: str) -> None:
    make_sessions(write_inter(tmp_path / "raw.inter", some_clicks(10)), tmp_path / name, min_length=2)
    parts = create_dataset(config(tmp_path, name)).build()
    assert [token_rows(part) for part in parts] == [read_rows(tmp_path / name, part) for part in PARTS]


def test_a_saved_copy_is_used_only_while_the_files_are_the_same(tmp_path, caplog) -> None:
    path = write_inter(tmp_path / "toy[1]" / "toy[1].inter", some_clicks(11))
    trusted = {"trust_checkpoint": True}  # a saved copy is a pickle
    how = {"session_min_length": 2, "save_dataset": True}
    caplog.set_level(logging.INFO)
    first = create_dataset(config(tmp_path, "toy[1]", **how))
    assert "data_files" in first.config.final_config_dict
    create_dataset(config(tmp_path, "toy[1]", session_min_length=2, **trusted))
    assert "Load filtered dataset" in caplog.text
    caplog.clear()
    write_inter(path, some_clicks(12))
    again = create_dataset(config(tmp_path, "toy[1]", session_min_length=2, **trusted))
    assert "Load filtered dataset" not in caplog.text
    make_sessions(path, tmp_path / "made", min_length=2)
    assert [token_rows(part) for part in again.build()] == [
        read_rows(tmp_path / "made", part) for part in PARTS
    ]
    # stock models too
    stock = {
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "train_neg_sample_args": None,
        **trusted,
    }
    create_dataset(config(tmp_path, "toy[1]", "GRU4Rec", save_dataset=True, **stock))
    assert "Load filtered dataset" not in caplog.text
    create_dataset(config(tmp_path, "toy[1]", "GRU4Rec", **stock))
    assert "Load filtered dataset" in caplog.text
    caplog.clear()
    write_inter(path, some_clicks(13))
    create_dataset(config(tmp_path, "toy[1]", "GRU4Rec", **stock))
    assert "Load filtered dataset" not in caplog.text

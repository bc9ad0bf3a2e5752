"""Settings that name columns: what is not there is said before anything is trained,
in one line that lists what is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recbole.config import Config
from recbole.data import create_dataset
from tiny import tiny_config, write_benchmark

from recbole_alkd import AlkdError

COLUMNS = ["user_id", "item_id", "timestamp", "rating", "kind"]
CLICKS = {
    "benchmark_filename": None, "alias_of_item_id": None, "USER_ID_FIELD": "user_id",
    "load_col": {"inter": COLUMNS, "item": ["item_id", "title", "year"]},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Benchmark files ``tiny``, and clicks ``raw`` with columns of every type."""
    path = write_benchmark(tmp_path_factory.mktemp("columns"))
    (path / "raw").mkdir()
    rng = np.random.default_rng(0)
    rows = [
        f"u{user}\ti{rng.integers(12)}\t{86400 * user + place}\t{place % 5}\tk{place % 2}"
        for user in range(20)
        for place in range(7)
    ]
    header = "user_id:token\titem_id:token\ttimestamp:float\trating:float\tkind:token"
    (path / "raw" / "raw.inter").write_text("\n".join([header, *rows]) + "\n")
    titles = [f"i{item}\ttitle {item}\t{1990 + item}" for item in range(12)]
    (path / "raw" / "raw.item").write_text(
        "\n".join(["item_id:token\ttitle:token_seq\tyear:float", *titles]) + "\n"
    )
    return path


def load(folder: Path, monkeypatch: pytest.MonkeyPatch, dataset: str = "raw", **settings):
    monkeypatch.chdir(folder)
    return create_dataset(
        tiny_config(folder, dataset=dataset, **{**(CLICKS if dataset == "raw" else {}), **settings})
    )


@pytest.mark.parametrize("dataset", ["raw", "tiny"])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"alias_of_item_id": ["nope"]}, ["alias_of_item_id", "'nope'", "item_id"]),
        ({"alias_of_item_id": "nope"}, ["alias_of_item_id", "'nope'", "item_id"]),
        ({"alias_of_user_id": ["item_id"]}, ["alias_of_user_id", "'item_id'", "alias_of_item_id"]),
        ({"threshold": {"a": "b"}}, ["threshold", "{'a': 'b'}", "{rating: 3}"]),
        ({"threshold": {"a": 3}}, ["threshold", "'a'", "item_id"]),
        ({"threshold": {}}, ["threshold", "{}"]),
        ({"val_interval": {"nope": "[1,2]"}}, ["val_interval", "'nope'", "item_id"]),
        ({"load_col": {"inter": ["item_id", "nope"]}}, ["load_col: inter", "'nope'", "item_id"]),
        ({"load_col": {"inter": ["item_id"], "user": ["age"]}}, ["load_col", "age", "there is no", ".user"]),
        ({"load_col": {"item_": ["title"]}}, ["load_col", "'item_'", "inter | item | user"]),
        ({"load_col": None, "unload_col": {"inter": ["nope"]}}, ["unload_col", "'nope'", "item_id"]),
        ({"preload_weight": {"item_id": "nope"}}, ["preload_weight", "'nope'"]),
        ({"normalize_field": ["nope"]}, ["normalize_field", "'nope'"]),
        ({"normalize_field": ["nope"], "normalize_all": True}, ["normalize_field", "normalize_all"]),
        ({"discretization": {"nope": {"method": "LD"}}}, ["discretization", "'nope'"]),
        ({"numerical_features": ["nope"]}, ["numerical_features", "'nope'"]),
        ({"numerical_features": None}, ["numerical_features", "None", "a list"]),
        ({"seq_len": {"nope": 3}}, ["seq_len", "'nope'"]),
        ({"seq_len": {"title": "a"}}, ["seq_len", "title", "'a'", "at least 1"]),
        ({"additional_feat_suffix": ["zz"]}, ["additional_feat_suffix", "'zz'"]),
        ({"additional_feat_suffix": "inter"}, ["additional_feat_suffix", "'inter'"]),
        ({"USER_ID_FIELD": None}, ["USER_ID_FIELD", "None", "the name of a column"]),
        ({"ITEM_ID_FIELD": None}, ["ITEM_ID_FIELD", "None", "the name of a column"]),
        ({"USER_ID_FIELD": "item_id"}, ["'item_id'", "USER_ID_FIELD"]),
        ({"ITEM_LIST_LENGTH_FIELD": "item_id"}, ["ITEM_LIST_LENGTH_FIELD", "'item_id'", "ITEM_ID_FIELD"]),
        ({"ITEM_LIST_LENGTH_FIELD": "item_id_list"}, ["ITEM_LIST_LENGTH_FIELD", "LIST_SUFFIX"]),
        ({"ITEM_LIST_LENGTH_FIELD": "alkd_row"}, ["ITEM_LIST_LENGTH_FIELD", "this package"]),
        ({"TIME_FIELD": "item_id"}, ["TIME_FIELD", "ITEM_ID_FIELD"]),
        ({"LIST_SUFFIX": ""}, ["LIST_SUFFIX", "_list"]),
    ],
)
def test_a_column_that_is_not_there_is_named(folder, monkeypatch, dataset, settings, words):
    with pytest.raises(AlkdError) as error:
        load(folder, monkeypatch, dataset, **settings)
    text = str(error.value)
    assert "\n" not in text
    assert [word for word in words if word not in text] == [], text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"val_interval": {"rating": "[2,"}}, ["val_interval: rating", "'[2,'", "[5,inf)"]),
        ({"val_interval": {"rating": 5}}, ["val_interval: rating", "5", "[5,inf)"]),
        ({"val_interval": {"kind": [1]}}, ["val_interval: kind", "[1]", "texts"]),
        ({"val_interval": {"title": ["x"]}}, ["val_interval", "'title'", "token_seq", "float or token"]),
        ({"val_interval": {"user_id": ["u1"]}}, ["val_interval", "'user_id'", "session_window"]),
        ({"threshold": {"kind": 3}}, ["threshold", "'kind'", "type token", "rating"]),
        ({"alias_of_item_id": ["rating"]}, ["alias_of_item_id", "'rating'", "type float", "kind"]),
        ({"discretization": {"rating": {"method": "XX"}}}, ["discretization: rating", "XX", "ED", "LD"]),
        ({"discretization": {"rating": {"method": "ED"}}}, ["discretization: rating", "bucket: N"]),
        ({"load_col": {"item": ["item_id", "titel"]}}, ["load_col: item", "'titel'", "did you mean 'title'"]),
        ({"TIME_FIELD": None}, ["TIME_FIELD", "~"]),
    ],
)
def test_a_column_or_value_of_another_kind_is_named(folder, monkeypatch, settings, words):
    with pytest.raises(AlkdError) as error:
        load(folder, monkeypatch, **settings)
    assert [word for word in words if word not in str(error.value)] == [], str(error.value)


def test_a_column_that_only_one_part_lacks_is_named(folder, tmp_path, monkeypatch):
    write_benchmark(tmp_path)
    train = tmp_path / "tiny" / "tiny.train.inter"
    first, *rows = train.read_text().splitlines()
    train.write_text("\n".join([f"{first}\tprice:float", *(f"{row}\t1" for row in rows)]) + "\n")
    columns = ["session_id", "item_id_list", "item_id", "price"]
    with pytest.raises(
        AlkdError, match=r"load_col: inter: no column 'price'; allowed: the columns of tiny\.valid\.inter"
    ):
        load(tmp_path, monkeypatch, "tiny", load_col={"inter": columns})


@pytest.mark.parametrize(
    "settings",
    [
        {"threshold": {"rating": 3}},
        {"normalize_field": ["rating"]},
        {"normalize_all": True},
        {"numerical_features": ["rating"], "discretization": {"rating": {"method": "ED", "bucket": 3}}},
        {"preload_weight": {"item_id": "year"}},
        {"unused_col": {"inter": ["item_id", "rating"], "item": ["year"]}},
    ],
)
def test_what_has_no_effect_on_sessions_leaves_them_as_they_are(folder, monkeypatch, caplog, settings):
    plain = load(folder, monkeypatch).build()[0]
    train_part = load(folder, monkeypatch, **settings).build()[0]
    assert set(train_part.inter_feat.interaction) == set(plain.inter_feat.interaction)
    for name, values in plain.inter_feat.interaction.items():
        assert values.equal(train_part.inter_feat[name]), name
    key = next(iter(settings.keys() - {"numerical_features"}))
    assert any("no effect on ALKDRec, which sees items" in text and key in text for text in caplog.messages)


def test_filters_that_benchmark_files_do_not_pass_are_said(folder, monkeypatch, caplog):
    load(folder, monkeypatch, "tiny", item_inter_num_interval="[2,inf)", rm_dup_inter="first")
    assert any(
        "item_inter_num_interval, rm_dup_inter: no effect on benchmark files" in text
        for text in caplog.messages
    )


def test_a_filter_by_a_column_of_clicks_or_of_items_counts(folder, monkeypatch):
    def clicks(**settings) -> int:
        return len(load(folder, monkeypatch, session_min_length=2, **settings).inter_feat)

    everything = clicks()
    assert clicks(val_interval={"rating": "[1,inf)"}) < everything
    assert clicks(val_interval={"kind": ["k1"]}) == 20 * 3  # the places 1, 3 and 5 of every session
    assert clicks(val_interval={"year": "[1995,inf)"}) < everything


def test_clicks_of_recboles_session_models_need_their_times(folder, monkeypatch):
    """Not before the clicks are put into order: a data set may read them itself."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["run"])

    def sessions(columns: list[str] | None):
        values = {"data_path": str(folder), "train_neg_sample_args": None, "load_col": {"inter": columns}}
        return create_dataset(Config(model="GRU4Rec", dataset="raw", config_dict=values))

    without, everything = sessions(["user_id", "item_id"]), sessions(["user_id", "item_id", "timestamp"])
    assert without.inter_num == everything.inter_num == 20 * 7
    with pytest.raises(AlkdError, match=r"load_col: inter: .*'item_id'\] lacks TIME_FIELD 'timestamp'"):
        without.build()
    assert sum(len(part) for part in everything.build()) == 20 * 6

"""Data sets and loaders that were saved are pickles: nobody reads them without the user's word,
whoever names the file."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model
from tiny import tiny_config, write_benchmark

import recbole_alkd
from recbole_alkd import AlkdError
from recbole_alkd.compat import load_checkpoint, save_checkpoint


class Bomb:
    """What a pickle of somebody else may hold: unpickling it makes a file."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_benchmark(tmp_path / "data")
    return tmp_path


def config_of(folder, model="ALKDRec", **values):
    return tiny_config(
        folder / "data", model=model, checkpoint_dir="saved", llm_teacher="recommender", **values
    )


def plant(folder, name):
    (folder / "saved").mkdir(exist_ok=True)
    (folder / "saved" / name).write_bytes(pickle.dumps(Bomb(folder / "exploded")))
    return str(folder / "saved" / name)


@pytest.mark.parametrize("model", ["ALKDRec", "SASRec"])
@pytest.mark.parametrize(
    "where",
    [
        "tiny-ALKDRecDataset.pth",
        "tiny-SequentialDataset.pth",
        "tiny-for-ALKDRec-dataloader.pth",
        "tiny-for-SASRec-dataloader.pth",
        "dataset_save_path",
        "dataloaders_save_path",
    ],
)
def test_a_pickle_is_not_read_without_trust(where, model, mine, caplog):
    path = plant(mine, where)
    values = {where: path} if where.endswith("_path") else {}
    config = config_of(mine, model, **values)
    dataset = create_dataset(config)
    train, *_ = data_preparation(config, dataset)
    assert not (mine / "exploded").exists() and len(train._dataset) == (142 if model == "ALKDRec" else 40)
    assert config["dataset_save_path"] == values.get("dataset_save_path")
    if values or model in where or (model, where) == ("SASRec", "tiny-SequentialDataset.pth"):
        assert "it can run code" in caplog.text
    if values:
        with pytest.raises(Exception, match=r"."):
            config = config_of(mine, model, **values, trust_checkpoint=True)
            data_preparation(config, create_dataset(config))
        assert (mine / "exploded").exists()  # trust means trust


@pytest.mark.parametrize(
    "key", ["dataset_save_path", "dataloaders_save_path", "checkpoint_dir", "trust_checkpoint"]
)
def test_a_checkpoint_does_not_bring_a_pickle_along(key, mine):
    config = config_of(mine, "SASRec")
    train, *_ = data_preparation(config, create_dataset(config))
    model = get_model("SASRec")(config, train._dataset)
    save_checkpoint(
        {"config": config, "state_dict": model.state_dict(), "other_parameter": None}, "model.pth"
    )
    state = load_checkpoint("model.pth")
    config = state["config"]
    where = {
        "dataset_save_path": "a",
        "dataloaders_save_path": "b",
        "checkpoint_dir": "tiny-SequentialDataset.pth",
    }
    path = plant(mine, where.get(key, "c"))
    config[
        "checkpoint_dir"
        if key == "checkpoint_dir"
        else "dataset_save_path"
        if key == "trust_checkpoint"
        else key
    ] = str(mine / "saved") if key == "checkpoint_dir" else path
    if key == "trust_checkpoint":
        config["trust_checkpoint"] = True  # the file's own word
    save_checkpoint(state, "model.pth")
    loaded = recbole_alkd.load_data_and_model("model.pth")
    assert not (mine / "exploded").exists()
    assert loaded[0]["trust_checkpoint"] is False and type(loaded[1]).__name__ == "SASRec"


def test_a_checkpoint_does_not_bring_code_for_a_setting_that_recbole_evaluates(mine):
    config = config_of(mine, "SASRec")
    config["model"], config["teacher"] = (
        "KD_DAGFM",
        f"__import__('os').mkdir({str(mine / 'exploded')!r}) or CIN",
    )
    save_checkpoint({"config": config, "state_dict": {}}, "model.pth")
    with pytest.raises(AlkdError, match=r"teacher: .*allowed: DAGFM"):
        recbole_alkd.load_data_and_model("model.pth")
    assert not (mine / "exploded").exists()


@pytest.mark.parametrize("content", ["pickle", "numbers", "nothing"])
def test_a_file_beside_the_data_is_not_unpickled(content, mine):
    file = mine / "data" / "tiny" / "item_emb.npy"
    values = {
        "n_cate": 2,
        "benchmark_filename": None,
        "load_col": {"inter": ["session_id", "item_id"]},
        "alias_of_item_id": None,
    }
    (mine / "data" / "tiny" / "tiny.inter").write_bytes(
        (mine / "data" / "tiny" / "tiny.train.inter").read_bytes()
    )
    if content == "pickle":
        np.save(file, np.array([Bomb(mine / "exploded")], dtype=object), allow_pickle=True)
    elif content == "numbers":
        np.save(file, np.ones((30, 8)))
    config = config_of(mine, "SASRec", **values)
    config["model"] = "LDiffRec"
    if content == "numbers":
        create_dataset(config)
        return
    with pytest.raises(AlkdError, match=r"item_emb\.npy"):
        create_dataset(config)
    assert not (mine / "exploded").exists()


@pytest.mark.parametrize("key", ["model", "dataset"])
def test_names_in_a_checkpoint_are_no_paths(key, mine):
    config = config_of(mine, "SASRec")
    config[key] = "../../elsewhere"
    save_checkpoint({"config": config, "state_dict": {}}, "model.pth")
    with pytest.raises(AlkdError, match=f"{key} .*elsewhere"):
        recbole_alkd.load_data_and_model("model.pth")
    assert not (mine.parent / "elsewhere").exists()


def test_a_data_set_of_ones_own_is_read_again_on_trust(mine, monkeypatch):
    config = config_of(mine, save_dataset=True)
    first = create_dataset(config)
    assert (mine / "saved" / "tiny-ALKDRecDataset.pth").exists()
    made = []
    monkeypatch.setattr(type(first), "_from_scratch", lambda self: made.append(self))
    assert len(create_dataset(config_of(mine, trust_checkpoint=True))) == len(first) and not made
    create_dataset(config_of(mine))  # without trust, from its files
    assert len(made) == 1
    (mine / "data" / "tiny" / "tiny.train.inter").write_text(
        "session_id:token\titem_id_list:token_seq\titem_id:token\n"
    )
    create_dataset(config_of(mine, trust_checkpoint=True))  # other files, so another data set
    assert len(made) == 2

"""A data set that processes map is the data set that one process makes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset

from recbole_alkd.data import shared_sets
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.testing.toy import TOY_SETTINGS, write_toy_data


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shared_sets, "SMALL", 64)  # toy arrays are small
    write_toy_data(tmp_path / "data")
    return Config("ALKDRec", "toy", config_dict={**TOY_SETTINGS, "data_path": "data"})


@pytest.fixture
def shared(config, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.setenv(shared_sets.FOLDER, str(tmp_path / "run"))
    first = shared_sets.shared_dataset(config, create_dataset, True)
    second = shared_sets.shared_dataset(config, lambda config: pytest.fail("read twice"), False)
    return first, second, tmp_path / "run" / "data"


def test_parts_rows_and_words_are_those_of_one_process(config, shared):
    plain = create_dataset(config)
    words = str(plain)
    parts = plain.build()
    for dataset in shared[:2]:
        assert str(dataset) == words and dataset.config is config
        for part, own in zip(dataset.build(), parts, strict=True):
            assert part.config is config and len(part) == len(own)
            assert np.array_equal(part.row_is_last, own.row_is_last)
            for name, column in own.inter_feat.interaction.items():
                assert torch.equal(part.inter_feat[name], column)
        train, own = dataset.build()[0], parts[0]
        assert train.id2token("item_id", 3) == own.id2token("item_id", 3)
        session = int(own.inter_feat["session_id"][0])
        assert np.array_equal(train.session_items(session), own.session_items(session))


def test_parts_share_one_file_of_a_column(shared):
    first, _, folder = shared
    rows = sum(len(part) for part in first.build())
    columns = [file for file in folder.glob("*.npy") if file.stat().st_size == rows * 8]
    assert columns and len(columns) <= len(first.inter_feat.interaction)


def test_what_one_process_writes_no_other_sees(shared):
    first, second, _ = shared
    column = first.build()[0].inter_feat["item_id"]
    before = second.build()[0].inter_feat["item_id"].clone()
    column += 1
    assert torch.equal(second.build()[0].inter_feat["item_id"], before)


def test_a_folder_that_others_can_write_is_not_read(config, shared):
    shared[2].chmod(0o777)
    with pytest.raises(AlkdError, match="others could have written it"):
        shared_sets.read_shared(shared[2], config)

"""Diginetica as RecBole-GNN's table evaluates it: filtered until nothing changes,
and the last two items left out."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recbole.config import Config
from recbole.data import create_dataset
from test_sessions import shared_data

from recbole_alkd import AlkdError
from recbole_alkd.cli import main
from recbole_alkd.data import leave_one_out
from recbole_alkd.data.leave_one_out import core, import_recbole_gnn
from recbole_alkd.model.counting import training_sessions
from recbole_alkd.plugin import empty_argv


@settings(max_examples=100, deadline=None)
@given(clicks=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=60), least=st.integers(1, 4))
def test_filtering_goes_on_until_all_that_is_left_has_enough(clicks, least):
    left = list(range(len(clicks)))
    while True:
        sessions, items = (Counter(clicks[k][side] for k in left) for side in (0, 1))
        some = [k for k in left if sessions[clicks[k][0]] >= least and items[clicks[k][1]] >= least]
        if len(some) == len(left):
            break
        left = some
    parts = np.array(clicks, dtype=int).reshape(-1, 2).T
    assert np.flatnonzero(core(*parts, least)).tolist() == left


@pytest.fixture
def clicks(tmp_path):
    """Five sessions over the same six items, one of them shuffled in the file, and one that is too short."""
    rows = [
        (s, item, time) for s in "abcde" for time, item in enumerate((1, 2, 3, 4, 5, 6)[: 5 + (s == "a")])
    ]
    rows += [(s, 6, 9) for s in "bcde"] + [("short", 1, 0)]
    rows = [rows[k] for k in np.random.default_rng(0).permutation(len(rows))]
    file = tmp_path / "raw.inter"
    lines = ["session_id:token\titem_id:token\ttimestamp:float", *("\t".join(map(str, row)) for row in rows)]
    file.write_text("\n".join(lines) + "\n")
    return file


def test_every_part_has_every_session_and_its_own_target(clicks, tmp_path, monkeypatch):
    monkeypatch.setattr(leave_one_out, "PUBLISHED", {"sessions": 5, "items": 6, "clicks": 30})
    out = tmp_path / "data" / "loo"
    assert import_recbole_gnn(clicks, out) == {"sessions": 5, "items": 6, "clicks": 30}
    assert json.loads((out / "loo.sessions.json").read_text())["as_published"] is True
    for part, history, target in (
        ("train", "1 2 3", "4"),
        ("valid", "1 2 3 4", "5"),
        ("test", "1 2 3 4 5", "6"),
    ):
        _, *lines = (out / f"loo.{part}.inter").read_text().splitlines()
        assert sorted(lines) == [f"{session}\t{history}\t{target}" for session in "abcde"]
    with empty_argv():
        config = Config(
            model="ALKDRec",
            dataset="loo",
            config_dict={"data_path": str(tmp_path / "data"), "use_gpu": False},
        )
        train, valid, test = create_dataset(config).build()
    flat, offsets = training_sessions(train)
    names = train.field2id_token["item_id"]
    assert [list(names[flat[a:b]]) for a, b in itertools.pairwise(offsets)] == [list("1234")] * 5
    assert len(train.inter_feat) == 15 and len(valid.inter_feat) == len(test.inter_feat) == 5


def test_other_data_than_the_published_are_refused_and_written_on_request(clicks, tmp_path, capsys):
    out = tmp_path / "loo"
    with pytest.raises(
        AlkdError, match=r"5 sessions, 6 items, 30 clicks, .*72,013 sessions, 29,453 items, 580,490 clicks"
    ):
        import_recbole_gnn(clicks, out)
    assert not out.exists()
    with pytest.raises(SystemExit, match="0"):
        main(["import", "recbole-gnn", str(clicks), "--out", str(out), "--partly"])
    assert "published" in capsys.readouterr().out
    assert json.loads((out / "loo.sessions.json").read_text())["as_published"] is False


def test_nothing_left_is_said(clicks, tmp_path, monkeypatch):
    monkeypatch.setattr(leave_one_out, "LEAST", 99)
    with pytest.raises(AlkdError, match="nothing to write"):
        import_recbole_gnn(clicks, tmp_path / "loo", partly=True)


def test_the_classic_file_is_not_the_published_one(tmp_path):
    with pytest.raises(AlkdError, match="71,110 sessions, 29,197 items, 572,933 clicks"):
        import_recbole_gnn(shared_data("diginetica") / "diginetica.inter.xz", tmp_path / "loo")

"""Who can recommend what the session has seen already? Every backbone on sessions half of whose clicks come
back."""

import numpy as np
import pytest
import torch
from tiny import create_dataset, tiny_config, tiny_view

from recbole_alkd.registry import backbones

N_ITEMS = 300


def write_repeats(folder, sessions=(3000, 300, 1000), seed=0):
    """From the fifth click on, half of the clicks are one of the last three again,
    and the others lead on to a next item."""
    rng = np.random.default_rng(seed)
    (folder / "again").mkdir(parents=True)
    number = 0
    for part, count in zip(("train", "valid", "test"), sessions, strict=True):
        lines = ["session_id:token\titem_id_list:token_seq\titem_id:token"]
        for _ in range(count):
            items = [int(rng.integers(N_ITEMS))]
            while len(items) < 8:
                again = len(items) >= 4 and rng.random() < 0.5
                items.append(
                    items[-int(rng.integers(1, 4))]
                    if again
                    else (items[-1] + int(rng.integers(1, 6))) % N_ITEMS
                )
            lines.append(f"s{number}\t{' '.join(f'i{i}' for i in items[:-1])}\ti{items[-1]}")
            number += 1
        (folder / "again" / f"again.{part}.inter").write_text("\n".join(lines) + "\n")
    return folder


NAMES = sorted(backbones)
OWN = {"BERT4Rec": {}, "SessionKNN": {}, "AttMix": {"loss_type": "CE", "last_k": 3}}


@pytest.mark.parametrize("name", NAMES)
def test_no_backbone_leaves_the_items_of_the_session_out(tiny_path, name):
    """Only ``mask_session_items`` does; without it a score of every item is asked for."""
    config = tiny_config(
        tiny_path, student_model=name, train_loss=None, student_config=OWN.get(name, {"loss_type": "CE"})
    )
    train, _, test = create_dataset(config).build()
    view = tiny_view(config, train)
    rows = test.inter_feat
    scores = view.scores(rows["item_id_list"], rows["item_length"])
    assert torch.isfinite(scores.gather(1, rows["item_id_list"])).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_repeats_are_learnt(tmp_path, name, capsys, monkeypatch):
    """The shares of docs/students.md: pytest -m slow -s tests/model/test_repeats.py"""
    from recbole_alkd.bench.worker import run_task

    monkeypatch.chdir(tmp_path)
    write_repeats(tmp_path / "data")
    config = tiny_config(tmp_path / "data", dataset="again", student_model=name, MAX_ITEM_LIST_LENGTH=10)
    settings = {
        **config.external_config_dict,
        "student_model": name,
        "student_embedding_size": 32,
        "epochs": 30,
        "state": "ERROR",
    }
    arrays, _ = run_task("again", "student", {**settings, "train_batch_size": 512})
    lines = (tmp_path / "data" / "again" / "again.test.inter").read_text().splitlines()[1:]
    repeated = {line.split("\t")[0]: line.split("\t")[2] in line.split("\t")[1].split() for line in lines}
    again = np.array([repeated[session] for session in arrays["sessions_test"]])
    hits = arrays["test"] <= 10
    with capsys.disabled():
        print(
            f"\n{name}: recall@10 of items of the session {hits[again].mean():.3f}, "
            f"of others {hits[~again].mean():.3f}"
        )
    assert 0.35 < again.mean() < 0.65
    assert hits[again].mean() > 5 * 10 / N_ITEMS, "far above chance"

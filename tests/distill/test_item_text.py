"""Titles in a whole run: edges of a table, their control, items that training never saw."""

import json

import numpy as np
import pytest
from test_table_students import KNN, dense, states
from test_trainer import go, home  # noqa: F401  (a fixture)
from tiny import create_dataset, tiny_config, tiny_model, training_part, write_benchmark

from recbole_alkd import AlkdError
from recbole_alkd.learner.counting import count_model
from recbole_alkd.learner.item_text import ItemText

COLOURS = ["crimson rose", "emerald leaf", "sapphire sea"]
TEXT = {"item_text": "tfidf"}


def write_titles(folder, items=range(1, 31), nameless=()):
    """Items whose numbers are equal modulo 3 have titles alike."""
    lines = [
        f"i{i}\t{'' if i in nameless else COLOURS[i % 3]} {'' if i in nameless else f'no {i:03d}'}"
        for i in items
    ]
    (folder / "tiny.item").write_text("\n".join(["item_id:token\ttitle:token_seq", *lines]) + "\n")


@pytest.fixture
def titled(home):  # noqa: F811
    write_titles(home / "data/tiny", nameless=(4, 5))
    return home


def test_titles_become_edges_of_every_stage(titled):
    plain = states(go(**KNN))
    report = go(**KNN, **TEXT)
    stages = report["stages"]
    for name in ("student", "distilled"):
        assert stages[name]["fitted"]["text_weight"] == 1.0 and stages[name]["fitted"]["text_edges"] > 100
        assert stages[name]["fitted"]["edges"] <= 120
        assert not np.array_equal(dense(states(report)[name]), dense(plain[name]))
    assert "text_edges" not in stages["teacher"]["fitted"]
    assert (
        report["item_text"]["item_text"] == "tfidf"
        and report["item_text"]["edges"] == stages["student"]["fitted"]["text_edges"]
    )
    assert (
        json.loads((titled / report["run_folder"] / "result.json").read_text())["item_text"]
        == report["item_text"]
    )
    assert go(**KNN, **TEXT)["item_text"]["reused"]


def vectors_of(path, **own):
    config = tiny_config(
        path, student_model="SessionKNN", label_store=str(path / "labels.sqlite"), **TEXT, **own
    )
    part = training_part(create_dataset(config))
    from recbole_alkd.plugin import settings_of

    return ItemText(settings_of(config).text, part), part


def test_neighbours_are_titles_alike_and_items_without_a_title_have_none(titled):
    text, part = vectors_of(titled / "data")
    token = part.field2id_token["item_id"]
    source, target = text.neighbors.nonzero()
    assert all(int(token[i][1:]) % 3 == int(token[j][1:]) % 3 for i, j in zip(source, target, strict=True))
    named = {int(token[i][1:]) for i in source}
    assert not named & {4, 5} and len(named) >= 25
    assert np.diff(text.neighbors.indptr).max() <= 20
    assert not text.vectors[0].any()


def test_the_control_gives_titles_to_other_items(titled):
    text, _ = vectors_of(titled / "data")
    control, part = vectors_of(titled / "data", item_text_permuted=True)
    assert control.neighbors.nnz == text.neighbors.nnz
    assert sorted(control.neighbors.data.tolist()) == pytest.approx(sorted(text.neighbors.data.tolist()))
    token = part.field2id_token["item_id"]
    alike = [
        int(token[i][1:]) % 3 == int(token[j][1:]) % 3
        for i, j in zip(*control.neighbors.nonzero(), strict=True)
    ]
    assert 0.1 < np.mean(alike) < 0.6
    assert np.array_equal(control.vectors, vectors_of(titled / "data", item_text_permuted=True)[0].vectors)


def test_items_never_seen_in_training_get_scores(tmp_path):
    write_benchmark(tmp_path, counts=(15, 30, 30), n_items=90)
    write_titles(tmp_path / "tiny", range(1, 91))
    scored = {}
    for own in ({}, TEXT):
        config = tiny_config(
            tmp_path,
            model="SessionKNN",
            label_store=str(tmp_path / "labels.sqlite"),
            knn_edge_weight=1.0,
            knn_decay=1.0,
            **own,
        )
        train, valid, test = create_dataset(config).build()
        model = tiny_model(config, train)
        count_model(model, train, valid, config_logger())
        rows = test.inter_feat
        cold = model.counts == 0
        cold[0] = False
        scored[bool(own)] = float((model.full_sort_predict(rows)[:, cold] > 0).float().mean())
    assert scored[False] == 0 and scored[True] > 0.3


def config_logger():
    from logging import getLogger

    return getLogger("quiet")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"item_text": "tfidf"}, "item_text: nothing uses it"),
        ({**KNN, "item_text": "tfidf", "item_text_similarity": 1.0}, "item_text_similarity"),
        ({**KNN, "item_texts": "tfidf"}, "did you mean 'item_text'"),
    ],
)
def test_mistakes_are_named(titled, settings, words):
    with pytest.raises(AlkdError, match=words):
        go(**settings)


def test_a_data_set_without_titles_says_where_they_are_read(home):  # noqa: F811
    with pytest.raises(AlkdError, match=r"tiny\.item: no such file"):
        go(**KNN, **TEXT)

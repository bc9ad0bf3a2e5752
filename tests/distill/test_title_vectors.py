"""Whole runs with other title vectors: a file of one's own, whitened, a learnt map, borrowed neighbours, a
tuned encoder.
"""

from __future__ import annotations

import numpy as np
import pytest
from test_item_text import titled, vectors_of, write_titles  # noqa: F401  (a fixture)
from test_table_students import KNN
from test_trainer import go, home  # noqa: F401  (a fixture)
from tiny_llm import tiny_llm

from recbole_alkd import AlkdError
from recbole_alkd.learner.item_text import ItemText
from recbole_alkd.settings.reading import settings_of


def own_vectors(folder, items=range(1, 31)):
    """Items whose numbers are equal modulo 3 lie alike."""
    rng = np.random.default_rng(0)
    np.save(
        folder / "own.npy", np.eye(3)[[i % 3 for i in items]] * 2 + 0.1 * rng.normal(size=(len(items), 3))
    )
    (folder / "own.ids").write_text("".join(f"i{i}\n" for i in items))
    return str(folder / "own.npy")


def test_vectors_of_ones_own_become_edges_without_any_title(home):  # noqa: F811
    report = go(**KNN, item_text=own_vectors(home))
    fitted, bill = report["stages"]["student"]["fitted"], report["item_text"]
    assert fitted["text_edges"] > 100 and bill["tokens"] == 0 and bill["item_text"].endswith("own.npy")
    other = np.load(home / "own.npy")
    np.save(home / "own.npy", other[::-1])
    again = go(**KNN, item_text=str(home / "own.npy"))
    assert again["run_folder"] != report["run_folder"], (
        "other vectors in a file of the same name are another run"
    )


def test_a_file_that_cannot_be_used_ends_the_run_first(home):  # noqa: F811
    file = own_vectors(home)
    vectors = np.load(file)
    vectors[4, 0] = np.inf
    np.save(file, vectors)
    with pytest.raises(AlkdError, match=r"item_text: .*own\.npy, row 5 \('i5'\)"):
        go(**KNN, item_text=file)
    assert not list(home.glob("saved/*/*.pth"))


def test_every_way_reaches_the_student_and_is_in_the_bill(titled):  # noqa: F811
    plain = go(**KNN, item_text="tfidf")["item_text"]
    whitened = go(**KNN, item_text="tfidf", item_text_whiten=0.5, item_text_graph=0.3)["item_text"]
    assert whitened["item_text_whiten"] == 0.5 and whitened["edges"] != plain["edges"]
    mapped = go(**KNN, item_text="tfidf", item_text_map=4, item_text_edges="both")
    assert mapped["item_text"]["map_round"] == int(np.argmin(mapped["item_text"]["map_losses"]))
    assert mapped["stages"]["student"]["fitted"]["text_neighbors_edges"] > 0


def test_the_control_is_learnt_from_vectors_of_other_items(titled):  # noqa: F811
    text, _ = vectors_of(titled / "data", item_text_whiten=1.0)
    control, _ = vectors_of(titled / "data", item_text_whiten=1.0, item_text_permuted=True)
    assert sorted(np.linalg.norm(text.vectors, axis=1)) == pytest.approx(
        sorted(np.linalg.norm(control.vectors, axis=1)), rel=1e-3
    )
    assert not np.allclose(text.vectors, control.vectors)


def test_without_new_settings_the_vectors_are_those_of_the_encoder(titled):  # noqa: F811
    text, _ = vectors_of(titled / "data")
    assert text.vectors is text._encoded
    assert list(text.edge_makers()) == ["text"]


def tuned(home, steps, permuted=False):  # noqa: F811
    model = str(tiny_llm(home / "llm", layers=2))
    _, part = vectors_of(home / "data")
    own = {"item_text": model, "item_text_layer": 1, "item_text_lora": steps, "item_text_permuted": permuted}
    settings = settings_of({**part.config.final_config_dict, **own}).text
    return ItemText(settings, part, part)


def test_a_tuned_encoder_keeps_the_best_step_and_is_made_once(titled):  # noqa: F811
    frozen, text = tuned(titled, 0), tuned(titled, 60)
    bill = text.bill()
    assert len(bill["lora_losses"]) == 3, "before, after 50 steps and at the end"
    best = int(np.argmin(bill["lora_losses"]))
    assert bill["lora_step"] == (0, 50, 60)[best] > 0, (
        "what the training sessions hold can be learnt from them"
    )
    assert bill["tokens"] > frozen.bill()["tokens"] and not np.allclose(text.vectors, frozen.vectors)
    again = tuned(titled, 60)
    assert again.bill()["reused"] and np.array_equal(again.vectors, text.vectors)
    assert again.bill()["lora_losses"] == bill["lora_losses"]
    control = tuned(titled, 60, permuted=True)
    assert not control.bill()["reused"], "the control is tuned with titles of other items"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {**KNN, "item_text": "tfidf", "item_text_lora": 5},
            "item_text_lora: 5 has no meaning for item_text: tfidf",
        ),
        (
            {**KNN, "item_text": "own.npy", "item_text_layer": 3},
            "item_text_layer: 3 has no meaning for item_text: own.npy",
        ),
        (
            {**KNN, "item_text": "tfidf", "item_text_whiten": 2},
            "item_text_whiten: 2 is not allowed; allowed: a number from 0 to 1",
        ),
        (
            {**KNN, "item_text": "tfidf", "item_text_edges": "all"},
            r"item_text_edges: 'all'.*titles \| neighbors \| both",
        ),
        ({**KNN, "item_text": "elsewhere.npy"}, r"item_text: .*elsewhere\.npy: no such file"),
        (
            {"item_text": "tfidf", "item_text_loss": "text_pairs", "item_text_map": 4},
            "item_text_map: makes edges, which",
        ),
    ],
)
def test_mistakes_are_named(titled, settings, words):  # noqa: F811
    with pytest.raises(AlkdError, match=words):
        go(**settings)

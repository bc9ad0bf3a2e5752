"""Late fusion: exact where a session vector is a mean, a sum of scores everywhere, and honest
about its size."""

import numpy as np
import pytest
import torch
from tiny import create_dataset, tiny_config, tiny_model, training_part

from recbole_alkd.model.backbone import view_and_model
from recbole_alkd.model.text_fusion import TextTable, title_coordinates
from recbole_alkd.registry import backbones

EXTRA = {"AttMix": {"last_k": 4}}
WITH_VECTORS = [name for name in backbones if view_and_model(name)[0].has_vectors]


@pytest.fixture(scope="module")
def part(tiny_path):
    return training_part(create_dataset(tiny_config(tiny_path)))


def student(tiny_path, part, name="SessionFPMC", **own):
    config = tiny_config(
        tiny_path, student_model=name, student_embedding_size=8, student_config=EXTRA.get(name, {}), **own
    )
    return tiny_model(config, part).eval()


def titles(seed=0, size=5):
    vectors = np.random.default_rng(seed).normal(size=(31, size)).astype(np.float32)
    vectors[0] = 0
    return vectors


def test_a_mean_of_vectors_takes_wider_tables(tiny_path, part):
    """[F_in | sqrt(w) T] and [F_out | sqrt(w) T] in SessionFPMC itself."""
    model, vectors, rows = student(tiny_path, part), titles(), part.inter_feat
    wide = student(tiny_path, part).recommender
    for name in ("input_embedding", "output_embedding"):
        table = getattr(model.recommender, name).weight.detach()
        wider = torch.cat([table, 3**0.5 * torch.from_numpy(vectors)], dim=1)
        setattr(wide, name, torch.nn.Embedding.from_pretrained(wider))
    model.titles.set(np.float32(3**0.5) * vectors)
    torch.testing.assert_close(model.full_sort_predict(rows), wide.full_sort_predict(rows))


@pytest.mark.parametrize("name", WITH_VECTORS)
def test_scores_are_the_students_and_the_titles(tiny_path, part, name):
    model, vectors, rows = student(tiny_path, part, name), titles(), part.inter_feat
    session = rows["item_id_list"], rows["item_length"]
    with torch.no_grad():
        plain = model.full_sort_predict(rows)
        model.titles.set(vectors)
        decay = 0.5 if name == "SessionFPMC" else 1.0  # its item_decay
        means = []
        for seq, n in zip(*session, strict=True):
            weight = np.array([decay ** (n.item() - 1 - place) for place in range(n)])
            means.append(weight @ vectors[seq[:n].numpy()] / weight.sum())
        expected = plain + torch.from_numpy(np.float32(means)) @ torch.from_numpy(vectors).T
        served = model.served
        for served_scores in (model.full_sort_predict(rows), served.encode(*session) @ served.item_table().T):
            torch.testing.assert_close(served_scores, expected, atol=1e-5, rtol=1e-5)
        of_target = expected.gather(1, rows["item_id"].unsqueeze(1)).squeeze(1)
        torch.testing.assert_close(model.predict(rows), of_target, atol=1e-5, rtol=1e-5)
        items = torch.tensor([3, 0, 30])
        torch.testing.assert_close(served.item_vectors(items), served.item_table()[items])
        model.titles.set(None)
        assert torch.equal(model.full_sort_predict(rows), plain)


def test_the_session_items_stay_masked(tiny_path, part):
    model, rows = student(tiny_path, part, mask_session_items=True), part.inter_feat
    model.titles.set(10 * titles())
    assert (model.full_sort_predict(rows).gather(1, rows["item_id_list"]) == -torch.inf).all()


def test_a_state_says_what_is_served(tiny_path, part):
    model, fresh, rows = student(tiny_path, part), student(tiny_path, part), part.inter_feat
    plain = {key: value.clone() for key, value in model.state_dict().items()}
    assert not any("titles" in key for key in plain)
    model.titles.set(titles())
    state = model.state_dict()
    assert state["titles.vectors"].shape == (31, 5) and len(state) == len(plain) + 1
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in plain.values()) + 31 * 5
    fresh.load_state_dict(state)
    assert torch.equal(fresh.full_sort_predict(rows), model.full_sort_predict(rows))
    fresh.load_state_dict(plain)
    assert fresh.titles.vectors is None and not torch.equal(
        fresh.full_sort_predict(rows), model.full_sort_predict(rows)
    )


def test_a_table_of_other_items_is_refused():
    table = TextTable(31)
    with pytest.raises(RuntimeError, match="size mismatch"):
        table.load_state_dict({"vectors": torch.zeros(30, 5)})


def test_coordinates_keep_the_angles_that_they_have_room_for():
    vectors = np.random.default_rng(3).normal(size=(50, 12)) @ np.diag([9, 8, 7, *[1e-4] * 9]) + 5
    vectors[[0, 7]] = 0
    known = vectors.any(1)
    centred = vectors[known] - vectors[known].mean(0)
    cosine = centred @ centred.T / np.outer(*[np.linalg.norm(centred, axis=1)] * 2)
    for size, width in ((3, 3), (12, 12), (99, 12)):
        coordinates = title_coordinates(vectors, size)
        assert (
            coordinates.shape == (50, width)
            and coordinates.dtype == np.float32
            and not coordinates[[0, 7]].any()
        )
        np.testing.assert_allclose(coordinates[known] @ coordinates[known].T, cosine, atol=1e-3)
    assert title_coordinates(vectors, 1)[known].std() == pytest.approx(1, abs=0.1)  # a sign is left
    assert not title_coordinates(np.zeros((5, 3)), 2).any()

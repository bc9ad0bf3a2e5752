"""What titles say of items as losses: pairs against brute force, the projection against its formula,
both before any label."""

import json

import numpy as np
import pytest
import torch
from test_item_text import TEXT, write_titles
from test_trainer import BASE, diary, go, home  # noqa: F401  (a fixture)

from recbole_alkd import AlkdError
from recbole_alkd.bench.worker import run_task
from recbole_alkd.compat import load_checkpoint
from recbole_alkd.distill import build_item_loss, check_losses
from recbole_alkd.distill.text_pairs import TextPairs
from recbole_alkd.distill.text_project import TextProjection
from recbole_alkd.model.edges import unit_rows
from recbole_alkd.model.loss import in_batch_bpr
from recbole_alkd.settings.reading import read_settings
from recbole_alkd.testing.losses import toy_batch, toy_context


def nearest(vectors, count, least):
    unit = unit_rows(vectors)
    cosine = unit @ unit.T
    edges = set()
    for i in range(1, len(unit)):
        best = sorted((j for j in range(1, len(unit)) if j != i), key=lambda j: -cosine[i, j])[:count]
        edges |= {(i, j) for j in best if cosine[i, j] > least}
    return edges


@pytest.mark.parametrize("neighbors", [2, 5])
def test_pairs_are_the_nearest_titles(neighbors):
    context = toy_context(**TEXT, item_text_similarity=0.4)
    loss = TextPairs(context, {"neighbors": neighbors})
    assert set(map(tuple, loss.pairs.T.tolist())) == nearest(context.item_text, neighbors, 0.4)


def test_pairs_are_rows_under_the_recommendation_loss():
    context, seen = toy_context(**TEXT), []
    plain = context.recommendation
    object.__setattr__(context, "recommendation", lambda rows: seen.append(rows) or plain(rows))
    loss = TextPairs(context, {})
    torch.manual_seed(0)
    value = loss(toy_batch(context))
    (rows,) = seen
    assert rows["item_id_list"].shape == (9, 6) and not rows["item_id_list"][:, 1:].any()
    assert rows["item_length"].tolist() == [1] * 9
    pairs = set(map(tuple, loss.pairs.T.tolist()))
    assert set(zip(rows["item_id_list"][:, 0].tolist(), rows["item_id"].tolist(), strict=True)) <= pairs
    student = context.student
    expected = in_batch_bpr(
        student.model.inputs[rows["item_id_list"][:, 0]], student.model.outputs[rows["item_id"]]
    )
    torch.testing.assert_close(value, len(pairs) / 60 * expected)
    for _ in range(600):
        loss(toy_batch(context))
    drawn = np.concatenate([rows["item_id_list"][:, 0] * 100 + rows["item_id"] for rows in seen])
    assert np.unique(drawn, return_counts=True)[1].min() > 5 and len(np.unique(drawn)) == len(pairs), (
        "every pair has its turn"
    )


def test_titles_that_are_all_different_give_no_pair():
    context = toy_context(**TEXT, item_text_similarity=0.3)
    object.__setattr__(context, "item_text", np.eye(40))
    with pytest.raises(AlkdError, match=r"item_text_similarity: no two titles are above 0\.3"):
        TextPairs(context, {})


def test_the_projection_equals_the_loop():
    context = toy_context(**TEXT)
    loss = TextProjection(context, {}).double()
    batch = toy_batch(context)
    torch.manual_seed(1)
    value = loss(batch)
    torch.manual_seed(1)
    drawn = torch.randint(39, (9,)) + 1  # the padding has no title
    student = context.student.model
    titles, total = torch.from_numpy(unit_rows(context.item_text)).double(), 0.0
    for i in drawn.tolist():
        for vectors, matrix in ((student.outputs, loss.to_output), (student.inputs, loss.to_session)):
            total += float(((vectors[i] - titles[i] @ matrix) ** 2).sum().detach())
    assert float(value.detach()) == pytest.approx(39 / 60 * total / 9)


def test_maps_start_as_the_ridge_regression():
    context = toy_context(**TEXT)
    loss = TextProjection(context, {})
    titles = torch.from_numpy(unit_rows(context.item_text)).double()[1:]
    output = context.student.model.outputs.detach()[1:]
    matrix = loss.to_output.detach().clone().requires_grad_()
    ((output - titles @ matrix).square().sum() + matrix.square().sum()).backward()
    assert float(matrix.grad.abs().max()) < 1e-4, "the regression is not at its minimum"


def test_an_item_without_clicks_ends_where_its_title_says():
    context = toy_context(**TEXT)
    loss = TextProjection(context, {}).double()
    model, cold = context.student.model, 17
    optimizer = torch.optim.Adam([*model.parameters(), *loss.parameters()], lr=0.02)
    clicked = torch.arange(40) != cold
    goal = torch.from_numpy(unit_rows(context.item_text)).double() @ torch.randn(6, 4, dtype=torch.float64)
    for _ in range(600):
        value = loss(toy_batch(context)) + (model.outputs - goal)[clicked].square().mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    others = (model.outputs - goal[cold]).norm(dim=1).detach()
    assert float(others[cold]) < 0.3 * float(others[clicked].mean())


@pytest.fixture
def titled(home):  # noqa: F811
    write_titles(home / "data/tiny", nameless=(4, 5))
    return home


SOFTMAX = {"train_loss": "sampled_softmax", "softmax_negatives": 8}


@pytest.mark.parametrize("loss", ["text_pairs", "text_project", {"text_pairs": 2, "text_project": 0.5}])
@pytest.mark.parametrize("training", [{}, SOFTMAX])
def test_the_plain_student_learns_from_titles_and_stays_as_large(titled, loss, training):
    plain, report = go(**training), go(**training, **TEXT, item_text_loss=loss)
    for name in ("student", "student_longer", "distilled"):
        assert report["stages"][name]["bytes"] == plain["stages"][name]["bytes"]
        assert report["stages"][name]["parameters"] == plain["stages"][name]["parameters"]
    states = [load_checkpoint(f"{one['run_folder']}/student.stage.pth")["state"] for one in (plain, report)]
    assert states[0].keys() == states[1].keys()
    assert any(not torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert report["item_text"]["item_text"] == "tfidf" and "edges" not in report["item_text"]
    assert plain["stages"]["teacher"]["test"] == report["stages"]["teacher"]["test"]


def test_it_asks_for_no_label(titled):
    arrays, facts = run_task(
        "tiny", "student", {"data_path": "data", **BASE, **TEXT, "item_text_loss": "text_pairs"}
    )
    assert facts["labels"] is None and facts["cost"]["labels"] == 0 and len(arrays["test"]) == 12
    assert not diary(titled)


def test_a_student_that_is_loaded_goes_on_the_same(titled):
    settings = {
        **TEXT,
        "item_text_loss": "text_project",
        "kd_loss": {"pairwise": 1, "text_project": 1},
        "kd_rec_weight": 1.0,
    }
    first = go(**settings, stage_cache="cache")
    # as if it had been killed at the end: every stage is loaded
    (titled / first["run_folder"] / "result.json").unlink()
    again = go(**settings, stage_cache="cache")
    assert again["run_folder"] == first["run_folder"]
    assert {name: stage["test"] for name, stage in again["stages"].items()} == {
        n: s["test"] for n, s in first["stages"].items()
    }


@pytest.mark.parametrize(
    "training", [{}, {**SOFTMAX, "kd_rec_weight": 1.0, "item_text_loss": "text_project"}]
)
def test_titles_beside_labels(titled, training):
    report = go(**TEXT, **training, kd_loss={"pairwise": 1, "text_pairs": 1, "text_project": 1})
    assert report["labels"]["asked"] == 12 and report["stages"]["distilled"]["test"]
    assert (
        json.loads((titled / report["run_folder"] / "result.json").read_text())["settings"]["kd_loss"][
            "text_pairs"
        ]
        == 1
    )


def test_titles_of_other_items_teach_something_else(titled):
    own, others = (
        go(**TEXT, item_text_loss="text_pairs", item_text_permuted=wrong) for wrong in (False, True)
    )
    states = [load_checkpoint(f"{one['run_folder']}/student.stage.pth")["state"] for one in (own, others)]
    assert any(not torch.equal(value, states[1][key]) for key, value in states[0].items())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kd_loss": "text_pairs"}, "kd_loss: 'text_pairs' needs item_text.*give item_text an encoder, "
                                    "such as tfidf"),
        ({"item_text_loss": "text_project"}, "item_text_loss: 'text_project' needs item_text.*give item_text "
                                             "an encoder"),
        ({**TEXT, "item_text_loss": "text_pair"}, "item_text_loss: 'text_pair' is not a known .*did you mean "
                                                  "'text_pairs'"),
        ({**TEXT, "item_text_loss": "rd"}, "item_text_loss: 'rd' needs more than titles; "
                                           "allowed: text_pairs, text_project"),
        ({**TEXT, "item_text_loss": {}}, "item_text_loss: an empty mapping"),
        ({**TEXT, "item_text_loss": {"text_pairs": 0}}, "item_text_loss: weight 0 of 'text_pairs'"),
        ({**TEXT, "item_text_loss": "text_pairs", "item_text_config": {"text_pairs": {"neighbors": 0}}},
         "item_text_config: TextPairs: neighbors: 0 is not allowed; allowed: an integer of at least 1"),
        ({**TEXT, "item_text_config": {"nope": {}}}, "item_text_config: 'nope' is not a known"),
        ({**TEXT, "kd_loss": "text_pairs", "kd_config": {"text_pairs": {"weight": -1}}}, "kd_config: "
                                                                                         "TextPairs: weight: "
                                                                                         "-1"),
    ],
)  # fmt: skip
def test_mistakes_are_named(settings, words):
    with pytest.raises(AlkdError, match=words):
        check_losses(read_settings(settings))


def test_options_of_the_plain_student_are_its_own():
    settings = {
        **TEXT,
        "item_text_loss": {"text_pairs": 3},
        "item_text_config": {"text_pairs": {"neighbors": 2}},
    }
    loss = build_item_loss(toy_context(**settings))
    assert loss.losses[0].options == {"neighbors": 2, "weight": 0.1} and loss.weights == pytest.approx([0.3])

"""LINK's knowledge: the teacher's softmax for one-item sessions, as a loss and as edges of a table."""

import math

import numpy as np
import pytest
import torch
from test_trainer import go, home  # noqa: F401  (a fixture)

from recbole_alkd.distill.link import ItemKnowledge
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.testing.losses import toy_batch, toy_context

PLAIN = {"scaled": False, "temperature": 0.7}


def looped(context, item, options):
    """Teacher's shares of one item, by hand."""
    width = context.train_interaction["item_id_list"].shape[1]
    session = torch.tensor([[item, *[0] * (width - 1)]])
    scores = context.teacher.scores(session, torch.tensor([1]))[0].tolist()
    others = sorted((i for i in range(1, context.n_items) if i != item), key=lambda i: -scores[i])[
        : options["top"]
    ]
    best, last = scores[others[0]], scores[others[-1]]
    logit = {i: (scores[i] - best) / (best - last) if options["scaled"] else scores[i] for i in others}
    total = sum(math.exp(value / options["temperature"]) for value in logit.values())
    return {i: math.exp(value / options["temperature"]) / total for i, value in logit.items()}


@pytest.mark.parametrize(
    "options", [{**PLAIN, "top": 4}, {**PLAIN, "top": 1000}, {"scaled": True, "temperature": 0.2, "top": 5}]
)
def test_shares_are_the_softmax_of_the_teacher_s_best(options):
    context = toy_context()
    loss = ItemKnowledge(context, options)
    items = torch.tensor([3, 7])
    place, share = loss.shares(items, options["temperature"])
    for row, item in enumerate(items.tolist()):
        wanted = looped(context, item, options)
        shares = {i: s for i, s in zip(place[row].tolist(), share[row].tolist(), strict=True) if i}
        assert shares == pytest.approx(wanted, rel=1e-4)
        assert sum(shares.values()) == pytest.approx(1.0)


def test_the_loss_is_the_divergence_of_the_student_from_it():
    context = toy_context()
    batch = toy_batch(context)
    options = {**PLAIN, "top": 6}
    items, total = sorted(set(batch.target.tolist())), 0.0
    for item in items:
        width = batch.item_seq.shape[1]
        own = context.student.scores(torch.tensor([[item, *[0] * (width - 1)]]), torch.tensor([1]))[
            0
        ].tolist()
        norm = sum(math.exp(own[i]) for i in range(1, context.n_items) if i != item)
        total += sum(
            p * math.log(p / (math.exp(own[i]) / norm)) for i, p in looped(context, item, options).items()
        )
    assert ItemKnowledge(context, options)(batch).item() == pytest.approx(total / len(items), rel=1e-4)


def test_a_colder_teacher_is_surer():
    loss = ItemKnowledge(toy_context(), {})
    items = torch.arange(1, 6)
    cold, warm = (loss.shares(items, at)[1].max(1).values for at in (0.05, 0.5))
    assert (cold > warm).all()


def test_every_temperature_comes_weighed_and_not():
    ways = list(ItemKnowledge(toy_context(), {"temperature": [0.1, 0.2, 0.1]}).item_lists())
    assert [weighed for _, weighed in ways] == [False, True, False, True]
    first, last = (listed(torch.tensor([2]))[1] for listed, _ in (ways[0], ways[2]))
    assert not torch.equal(first, last)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": 0}, "temperature: 0 .* above 0"),
        ({"temperature": []}, "temperature"),
        ({"top": 0}, "top: 0"),
        ({"weighed": 3}, "weighed"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises(AlkdError, match=words):
        ItemKnowledge(toy_context(), options)


KNN = {"student_model": "SessionKNN", "student_neighbors": 4}


def test_a_table_takes_them_as_edges_and_chooses_on_validation(home):  # noqa: F811
    report = go(**KNN, student_config={"knn_edge_weight": 1.0}, kd_loss={"link": 1, "tr": 1})
    fitted = report["stages"]["distilled"]["fitted"]
    assert fitted["link_edges"] > 30 and fitted["link_weight"] == 1.0 and fitted["link_variant"] in range(4)
    assert fitted["tr_edges"] > 0 and fitted["edges"] <= 30 * 4
    assert report["stages"]["student"]["bytes"] >= report["stages"]["distilled"]["bytes"] - 6 * 30 * 4


def test_a_weight_of_zero_leaves_the_table_alone(home):  # noqa: F811
    report = go(**KNN, student_config={"knn_edge_weight": 0}, kd_loss="link")
    stages = report["stages"]
    assert stages["distilled"]["fitted"]["link_weight"] == 0
    assert stages["distilled"]["test"] == stages["student"]["test"]


@pytest.mark.parametrize("teacher", ["VSTAN", "SLIST", "SessionKNN"])
def test_any_recommender_is_a_teacher(home, teacher):  # noqa: F811
    report = go(**KNN, teacher_model=teacher, kd_loss="link", student_config={"knn_edge_weight": 1.0})
    assert report["stages"]["distilled"]["fitted"]["link_edges"] > 0


def test_the_edges_of_a_table_are_the_teacher_s_shares():
    from recbole_alkd.learner.list_edges import _item_edges
    from recbole_alkd.model.edges import Weighing
    from recbole_alkd.model.neighbours import weigh

    context = toy_context()
    loss = ItemKnowledge(context, {**PLAIN, "top": 5})
    listed = next(loss.item_lists())[0]
    weighing = Weighing(np.arange(context.n_items), 0.5, 0.2)
    plain = _item_edges(listed, False, context, torch.device("cpu"), weighing)
    for item in (1, 4):
        row = plain[[item]].toarray()[0]
        wanted = looped(context, item, {**PLAIN, "top": 5})
        wanted = {i: share for i, share in wanted.items() if share > max(wanted.values()) / 100}
        assert {int(i): float(row[i]) for i in row.nonzero()[0]} == pytest.approx(wanted, rel=1e-4)
    weighed = _item_edges(listed, True, context, torch.device("cpu"), weighing)
    assert np.array_equal(weighed.toarray(), weigh(plain, np.arange(context.n_items), 0.5, 0.2).toarray())

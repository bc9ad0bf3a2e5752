"""SessionKNN as the student of a whole run: rankings become edges, under every control,
at the size of the plain table."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from test_trainer import go, home  # noqa: F401  (a fixture)

from recbole_alkd import AlkdError, load_data_and_model
from recbole_alkd.compat import load_checkpoint
from recbole_alkd.model.neighbours import table_bytes

KNN = {"student_model": "SessionKNN", "student_neighbors": 4, "student_config": {"knn_edge_weight": 1.0}}


def states(report):
    read = {
        name: load_checkpoint(f"{report['run_folder']}/{name}.stage.pth") for name in ("student", "distilled")
    }
    return {name: content["state"] for name, content in read.items()}


def dense(state):
    table = {key.removeprefix("recommender."): value for key, value in state.items()}
    matrix = np.zeros((len(table["counts"]),) * 2)
    row = np.repeat(np.arange(len(matrix)), np.diff(table["indptr"].numpy()))
    matrix[row, table["indices"].numpy()] = table["weights"].float().numpy()
    return matrix


@pytest.mark.parametrize("loss", ["pairwise", "tr", {"pairwise": 1, "tr": 1}])
def test_rankings_become_edges_and_the_size_stays(home, loss, monkeypatch):  # noqa: F811
    report = go(**KNN, kd_loss=loss)
    stages = report["stages"]
    for name in ("student", "distilled"):
        assert stages[name]["fitted"]["edges"] <= 30 * 4
        assert stages[name]["bytes"] == table_bytes(31, stages[name]["fitted"]["edges"])
        assert stages[name]["steps"] == 1
    for name in loss if isinstance(loss, dict) else [loss]:
        assert stages["distilled"]["fitted"][f"{name}_weight"] == 1.0
        assert stages["distilled"]["fitted"][f"{name}_edges"] > 0
    assert stages["student_longer"]["test"] == stages["student"]["test"]
    both = {name: dense(state) for name, state in states(report).items()}
    assert not np.array_equal(both["student"], both["distilled"])
    monkeypatch.setattr(sys, "argv", ["run"])
    _, model, *_, test_data = load_data_and_model(str(next(home.glob("saved/*/ALKDRec.pth"))))
    assert np.array_equal(dense(model.state_dict()), both["distilled"])
    rows = test_data._dataset.inter_feat
    hits = (model.full_sort_predict(rows)[:, 1:].topk(5).indices + 1 == rows["item_id"].unsqueeze(1)).any(1)
    assert float(hits.float().mean()) == pytest.approx(stages["distilled"]["test"]["recall@5"], abs=1e-4)


def test_edges_lead_from_the_labelled_sessions_to_the_listed_items(home):  # noqa: F811
    report = go(**(KNN | {"student_neighbors": None}))
    before, after = (dense(state) for state in states(report).values())
    new = (after > before + 1e-3).nonzero()
    folder = report["run_folder"]
    lists = json.loads((home / folder / "result.json").read_text())["policy"]["picks"]
    assert len(lists) == 12 and len(new[0]) > 12
    assert (after >= before - 1e-3).all(), "edges add to what is known"


@pytest.mark.parametrize("kind", ["shuffled", "permuted", "target"])
def test_controls_teach_other_lists(home, kind):  # noqa: F811
    weights = {"kd_position_weight": [[1, 4], [4, 1]]}
    plain = go(**KNN, **weights)
    control = go(**KNN, **weights, kd_lists=kind)
    assert not np.array_equal(dense(states(plain)["distilled"]), dense(states(control)["distilled"]))
    assert np.array_equal(dense(states(plain)["student"]), dense(states(control)["student"]))
    assert control["labels"]["asked"] == 0


def test_rounds_and_a_table_as_both(home, caplog):  # noqa: F811
    caplog.set_level("INFO")
    report = go(**KNN, teacher_model="SessionKNN", alkd_rounds=2, alkd_policy="disagreement")
    said = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in caplog.messages]
    rows = [line.partition(": ")[0] for line in said if line.startswith("neighbours")]
    stages = ("teacher recommender", "student", "student, distilled, round 1", "student, distilled")
    assert list(dict.fromkeys(rows)) == [f"neighbours of {stage}" for stage in stages]
    assert [r["picks"] for r in report["policy"]["rounds"]] == [6, 6]
    assert report["stages"]["teacher"]["bytes"] > report["stages"]["distilled"]["bytes"]


def test_validation_may_choose_no_edges_at_all(home):  # noqa: F811
    weights = [0.0, 0.01, 1.0]
    chosen = go(**(KNN | {"student_config": {"knn_edge_weight": weights}}))["stages"]
    valid = [
        go(**(KNN | {"student_config": {"knn_edge_weight": w}}))["stages"]["distilled"]["valid"]["ndcg@10"]
        for w in weights
    ]
    assert chosen["distilled"]["fitted"]["pairwise_weight"] == weights[int(np.argmax(valid))]
    assert chosen["distilled"]["valid"]["ndcg@10"] == max(valid)


def test_edges_of_lists_may_lead_back_as_well(home):  # noqa: F811
    new, facts = {}, {}
    for back in (None, 0.0, 1.0, [0.0, 1.0]):
        config = {"knn_edge_weight": 1.0} | ({} if back is None else {"knn_list_backward": back})
        report = go(**(KNN | {"student_neighbors": None, "student_config": config}))
        before, after = (dense(state) for state in states(report).values())
        new[str(back)], facts[str(back)] = after - before, report["stages"]["distilled"]["fitted"]
    assert np.array_equal(new["None"], new["0.0"]), "one way is the default"
    there, both = new["0.0"] > 1e-3, new["1.0"] > 0
    assert (both >= there.T).all() and (both >= there).all() and not (there >= there.T).all()
    assert facts["1.0"]["pairwise_edges"] > facts["0.0"]["pairwise_edges"]
    assert "pairwise_variant" not in facts["1.0"]
    chosen = facts["[0.0, 1.0]"]["pairwise_variant"]
    assert np.array_equal(new["[0.0, 1.0]"], new[("0.0", "1.0")[chosen]])


def test_what_nobody_labelled_leads_one_way(home):  # noqa: F811
    config = {"student_config": {"knn_edge_weight": 1.0, "knn_list_backward": 1.0}}
    edges = [
        go(**(KNN | own), kd_loss="tr")["stages"]["distilled"]["fitted"]["tr_edges"] for own in (config, {})
    ]
    assert edges[0] == edges[1] > 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kd_loss": "ftd"}, r"kd_loss: 'ftd' needs a gradient.*SessionKNN.*allowed: .*pairwise"),
        ({"kd_rec_weight": 1.0}, "kd_rec_weight: has no effect"),
        ({"kd_init": "scratch"}, "kd_init: has no effect"),
        ({"kd_loss": {"pairwise": 2.0}}, "kd_loss: weight 2 of 'pairwise' has no effect"),
    ],
)
def test_what_a_table_cannot_do_is_said(home, settings, words):  # noqa: F811
    with pytest.raises(AlkdError, match=words):
        go(**KNN, **settings)


def test_gradient_students_report_their_bytes(home):  # noqa: F811
    student = go(student_embedding_size=4)["stages"]["student"]
    assert student["bytes"] == 4 * student["parameters"] and student["fitted"] == {}
    assert torch.tensor(student["valid"]["ndcg@10"]) >= 0

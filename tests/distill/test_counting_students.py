"""A student that counts, written by somebody else: EASE, in closed form, without neighbours,
exponents or steps."""

from __future__ import annotations

import sys
import textwrap

import numpy as np
import pytest
import torch
from process import ROOT
from test_item_text import write_titles
from test_trainer import go, home  # noqa: F401  (a fixture)

from recbole_alkd import AlkdError, load_data_and_model
from recbole_alkd.compat import load_checkpoint
from recbole_alkd.registry import backbones

PAGE = (ROOT / "docs" / "students.md").read_text(encoding="utf-8")
EASE = textwrap.dedent(
    "    # ease.py" + PAGE.partition("    # ease.py")[2].partition("    recbole-alkd run")[0]
)

POPULAR = """
import torch
from recbole_alkd.model.counted import Counted, CountedModel
from recbole_alkd.registry import backbones


@backbones.register("Popular")
class Popular(CountedModel):
    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.register_buffer("times", torch.zeros(self.n_items))

    def count(self, train, valid=None, edges=None):
        self.times = torch.bincount(train.inter_feat[self.ITEM_ID], minlength=self.n_items).float()
        return Counted(words=(f"{len(train)} rows",))

    def scores(self, item_seq, item_seq_len):
        return self.times.repeat(len(item_seq), 1)
"""


@pytest.fixture
def ease(home):  # noqa: F811
    """A working directory with the plug-in in it."""
    (home / "ease.py").write_text(EASE)
    yield home
    sys.modules.pop("ease", None)
    backbones._entries.pop("EASE", None)


def with_ease(**settings):
    return go(alkd_plugins=["scripted_teacher", "ease"], student_model="EASE", state="INFO", **settings)


def test_it_is_a_student_of_a_whole_run_and_the_log_says_what_is_true_of_it(ease, caplog):
    caplog.set_level("INFO")
    report = with_ease()
    stages = report["stages"]
    assert stages["student"]["fitted"] == stages["distilled"]["fitted"] == {"l2": 10.0}
    assert (
        stages["student_longer"]["test"] == stages["student"]["test"]
        and stages["student_longer"]["seconds"] == 0
    )
    assert stages["student"]["bytes"] == 31 * 31 * 4 == 4 * stages["student"]["parameters"]
    plain, distilled = (
        load_checkpoint(str(ease / report["run_folder"] / f"{name}.stage.pth"))["state"]["recommender.table"]
        for name in ("student", "distilled")
    )
    assert not torch.equal(plain, distilled), "the lists are in the table"
    lines = [line for line in caplog.messages if "Hyper Parameters" not in line]  # of RecBole, all there are
    said = [line for line in lines if "EASE" in line and "l2" in line]
    assert len(said) == 2 and said[0].endswith(": 40 sessions, l2 10") and said[1].endswith("l2 10, pairwise")
    student = "\n".join(line for line in lines if "student" in line or "EASE" in line)
    for word in ("exponent", "neighbour", "SessionKNN", "edges kept", "decay"):
        assert word not in student.split("result")[0], word
    assert any(" student, trained longer: EASE takes no more steps" in line for line in lines)


def test_the_closed_form_is_what_is_served(ease):
    report = with_ease()
    _, model, _, train_data, _, test_data = load_data_and_model(
        str(ease / report["run_folder"] / "ALKDRec.pth")
    )
    part = train_data._dataset
    sessions = np.zeros((40, 31))
    for row, session in enumerate(np.unique(part.inter_feat[part.uid_field].numpy())):
        sessions[row, part.session_items(session)] = 1
    plain = load_checkpoint(str(ease / report["run_folder"] / "student.stage.pth"))["state"][
        "recommender.table"
    ]
    inverse = np.linalg.inv(sessions.T @ sessions + 10 * np.eye(31))
    wanted = -inverse / np.diag(inverse)
    np.fill_diagonal(wanted, 0)
    np.testing.assert_allclose(plain.numpy(), wanted, atol=1e-5)
    rows = test_data._dataset.inter_feat
    assert model.full_sort_predict(rows).shape == (12, 31)


def test_it_is_a_teacher_recommender_and_its_folds_are_counted(ease):
    pilot = {"alkd_ratio": "pilot", "alkd_pilot": 6, "alkd_fill": "next"}
    report = go(alkd_plugins=["scripted_teacher", "ease"], teacher_model="EASE", **pilot)
    assert report["stages"]["teacher"]["steps"] == 1 and sum(report["policy"]["ratio"]["seen"]) == 6


def test_titles_and_the_teachers_own_lists_reach_it_as_edges(ease, caplog):
    caplog.set_level("INFO")
    write_titles(ease / "data/tiny")
    report = with_ease(kd_loss="tr", item_text="tfidf")
    assert any(line.endswith("l2 10, text, tr") for line in caplog.messages)
    assert report["item_text"]["edges"] > 0


def test_it_is_not_tuned_and_the_recommender_beside_it_is(ease):
    (ease / "space.yaml").write_text("common: {learning_rate: [0.01, 0.05]}\n")
    report = with_ease(student_tune=2, student_search="space.yaml")
    assert set(report["tuned"]) == {"teacher"}


def test_a_run_that_ended_early_resumes(ease):
    first = with_ease()
    (ease / first["run_folder"] / "result.json").unlink()
    again = with_ease()
    assert again["run_folder"] == first["run_folder"]
    for name in first["stages"]:
        assert again["stages"][name]["test"] == first["stages"][name]["test"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"kd_loss": "ftd"},
            r"kd_loss: 'ftd' needs a gradient, which student_model 'EASE' does not have; "
            r"allowed: link, pairwise, tr$",
        ),
        ({"kd_rec_weight": 1.0}, r"kd_rec_weight: has no effect with student_model 'EASE'"),
        (
            {"kd_loss": {"pairwise": 2}},
            r"weight 2 of 'pairwise' has no effect on a table, which weighs its lists itself",
        ),
        ({"item_text": "tfidf", "serve_text_dim": 4}, r"serve_text_dim: not for student_model 'EASE'"),
        ({"student_search": "space.yaml", "student_tune": 2}, r"EASE: it is not tuned"),
    ],
)
def test_what_it_cannot_learn_is_said_before_anything_is_trained(ease, settings, words):
    (ease / "space.yaml").write_text("common: {learning_rate: [0.01, 0.05]}\nEASE: {l2: [1, 10]}\n")
    with pytest.raises(AlkdError, match=words):
        with_ease(**settings)


def test_a_teacher_without_vectors_is_refused_where_a_loss_needs_them(ease):
    with pytest.raises(
        AlkdError, match=r"kd_loss: 'ftd' needs teacher_vectors, which teacher_model 'EASE' does not have"
    ):
        go(alkd_plugins=["scripted_teacher", "ease"], teacher_model="EASE", kd_loss="ftd", kd_rec_weight=1.0)


def test_a_model_without_a_single_parameter_counts_too(ease):
    (ease / "popular.py").write_text(POPULAR)
    try:
        report = go(
            alkd_plugins=["scripted_teacher", "popular"], student_model="Popular", teacher_model="Popular"
        )
    finally:
        sys.modules.pop("popular", None)
        backbones._entries.pop("Popular", None)
    for stage in report["stages"].values():
        assert stage["bytes"] == 31 * 4 and stage["test"] == report["stages"]["teacher"]["test"]


def test_the_page_says_how_long_it_is():
    assert "class EASE" in EASE and len([line for line in EASE.splitlines() if line.strip()]) <= 36

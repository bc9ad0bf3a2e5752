"""Every loss and every backbone through a whole run: RecBole's data, all stages, the saved student."""

import pytest
import torch
from test_item_text import TEXT, write_titles
from test_trainer import BASE, go, home  # noqa: F401  (a fixture)

from recbole_alkd import AlkdError
from recbole_alkd.bench.worker import run_task
from recbole_alkd.compat import load_checkpoint
from recbole_alkd.model.backbone import view_and_model
from recbole_alkd.registry import backbones, losses

WITH_VECTORS = [name for name in backbones if view_and_model(name)[0].has_vectors]


def saved_student(path):
    (checkpoint,) = path.glob("saved/*/ALKDRec.pth")
    return load_checkpoint(str(checkpoint))["state_dict"]


@pytest.mark.parametrize(
    ("name", "init"), [*((name, "scratch") for name in losses), ("de", "student"), ("dsl", "student")]
)
def test_a_loss_trains_and_leaves_a_plain_student(home, name, init):  # noqa: F811
    titles = TEXT if "item_text" in losses.get(name).needs else {}
    write_titles(home / "data/tiny")
    report = go(kd_loss=name, kd_rec_weight=1.0, kd_init=init, student_embedding_size=4, epochs=2, **titles)
    assert report["stages"]["distilled"]["test"]
    state = saved_student(home)
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        "recommender.input_embedding.weight": (31, 4),
        "recommender.output_embedding.weight": (31, 4),
    }
    share = sum(int((value == 0).sum()) for value in state.values()) / sum(
        value.numel() for value in state.values()
    )
    assert 0.3 < share < 0.7 if name == "dsl" else share < 0.1


def test_several_losses_add_up_in_a_run(home):  # noqa: F811
    report = go(kd_loss={"pairwise": 1, "ftd": 10, "unkd": 0.5}, kd_rec_weight=1.0)
    assert all(
        torch.isfinite(torch.tensor(value)) for value in report["stages"]["distilled"]["test"].values()
    )


def test_a_loss_that_cannot_train_alone_says_so(home):  # noqa: F811
    with pytest.raises(AlkdError, match=r"kd_rec_weight: 0\.0 is not allowed with kd_loss dsl"):
        go(kd_loss="dsl")


@pytest.mark.parametrize("name", WITH_VECTORS)
def test_a_backbone_is_teacher_and_student(home, name):  # noqa: F811
    extra = {"last_k": 4} if name == "AttMix" else {}
    report = go(
        student_model=name, teacher_model=name, student_config=extra, teacher_config=extra,
        student_embedding_size=4, teacher_embedding_size=8, kd_loss={"pairwise": 1, "ftd": 1},
        kd_rec_weight=1.0, epochs=1,
    )  # fmt: skip
    assert report["stages"]["distilled"]["test"]


@pytest.mark.parametrize("name", ["pairwise", "tr", "rrd"])
def test_neighbours_teach_by_their_scores(home, name):  # noqa: F811
    # looks at the fold recommenders too
    pilot = {"alkd_ratio": "pilot", "alkd_pilot": 6, "alkd_fill": "next"}
    report = go(
        teacher_model="SessionKNN", kd_loss=name, kd_rec_weight=1.0, student_embedding_size=4, **pilot
    )
    assert report["stages"]["teacher"]["steps"] == 1
    assert report["stages"]["teacher"]["test"] and report["stages"]["distilled"]["test"]


# which has tests of its own
@pytest.mark.parametrize("name", [name for name in WITH_VECTORS if name != "SessionFPMC"])
def test_a_backbone_learns_from_titles_and_serves_them(home, name):  # noqa: F811
    write_titles(home / "data/tiny")
    extra = {"last_k": 4} if name == "AttMix" else {}
    arrays, facts = run_task("tiny", "student", {
        "data_path": "data", **BASE, **TEXT, "epochs": 1,
        "student_model": name, "student_config": extra, "student_embedding_size": 4,
        "item_text_loss": {"text_pairs": 1, "text_project": 1}, "serve_text_dim": 8, "serve_text_weight": 5,
    })  # fmt: skip
    assert len(arrays["test"]) == 12 and facts["bytes"] >= 31 * (4 + 8) * 4


@pytest.mark.parametrize("name", ["SessionFPMC", "GRU4Rec", "CORE"])
def test_sampled_softmax_trains_every_stage(home, name):  # noqa: F811
    report = go(
        student_model=name, teacher_model=name, student_embedding_size=4, teacher_embedding_size=8,
        train_loss="sampled_softmax", softmax_negatives=8, kd_loss={"pairwise": 1, "ftd": 1},
        kd_rec_weight=1.0,
    )  # fmt: skip
    assert report["stages"]["distilled"]["test"] and report["settings"]["train_loss"] == "sampled_softmax"

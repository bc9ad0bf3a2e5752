"""Titles served beside a student in whole runs: chosen on validation, saved, controlled,
and good for items without clicks."""

import json
import sys

import numpy as np
import pytest
import torch
from test_item_text import COLOURS, TEXT, write_titles
from test_trainer import go, home  # noqa: F401  (a fixture)

from recbole_alkd import AlkdError, load_data_and_model
from recbole_alkd.compat import load_checkpoint
from recbole_alkd.learner.late_fusion import LateFusion
from recbole_alkd.model.alkdrec import ALKDRec

N_ITEMS, FUSION = 60, {**TEXT, "serve_text_dim": 128, "mask_session_items": True}
KEPT = ("student", "student_longer", "distilled")


@pytest.fixture
def coloured(home):  # noqa: F811
    """Sessions of items whose titles are alike; every second valid and test target is an item that training
    never saw."""
    rng = np.random.default_rng(0)
    number = 0
    for part, count in (("train", 40), ("valid", 30), ("test", 30)):
        lines = ["session_id:token\titem_id_list:token_seq\titem_id:token"]
        for k in range(count):
            kind = int(rng.integers(len(COLOURS)))
            known, new = (
                np.arange(first, last)[np.arange(first, last) % 3 == kind]
                for first, last in ((1, 46), (46, 61))
            )
            items = rng.choice(known, 4, replace=False)
            target = rng.choice(new) if part != "train" and k % 2 else items[3]
            lines.append(f"s{number}\t{' '.join(f'i{i}' for i in items[:3])}\ti{target}")
            number += 1
        (home / f"data/tiny/tiny.{part}.inter").write_text("\n".join(lines) + "\n")
    write_titles(home / "data/tiny", range(1, N_ITEMS + 1))
    return home


def state_of(report, name="student"):
    return load_checkpoint(f"{report['run_folder']}/{name}.stage.pth")["state"]


def test_items_without_clicks_are_found_by_their_titles(coloured):
    plain, fused = go(mask_session_items=True), go(**FUSION)
    assert fused["targets"]["cold"] >= 15
    for name in KEPT:
        without, fused_stage = (one["stages"][name] for one in (plain, fused))
        assert fused_stage["fitted"]["serve_text_weight"] > 0
        assert (
            fused_stage["test_groups"]["cold"]["recall@10"]
            > without["test_groups"]["cold"]["recall@10"] + 0.2
        )
        assert fused_stage["valid"]["ndcg@10"] > without["valid"]["ndcg@10"]
        rows, size = without["parameters"] // (2 * 10), int(fused_stage["fitted"]["serve_text_dim"])
        assert fused_stage["parameters"] == without["parameters"] + rows * size
        assert fused_stage["bytes"] == without["bytes"] + rows * size * 4
    assert "titles.vectors" not in state_of(plain) and state_of(fused)["titles.vectors"].shape == (rows, size)
    assert fused["stages"]["teacher"] | {"seconds": 0, "peak_mb": 0} == plain["stages"]["teacher"] | {
        "seconds": 0,
        "peak_mb": 0,
    }
    written = json.loads((coloured / fused["run_folder"] / "result.json").read_text())
    assert written["stages"]["distilled"]["fitted"] == fused["stages"]["distilled"]["fitted"]


def test_the_student_itself_is_not_touched(coloured):
    plain, fused = (state_of(go(**settings)) for settings in ({"mask_session_items": True}, FUSION))
    for key, value in plain.items():
        assert torch.equal(value, fused[key])


def test_what_is_served_is_saved_and_loaded(coloured, monkeypatch):
    report = go(**FUSION)
    (file,) = coloured.glob("saved/*/ALKDRec.pth")
    monkeypatch.setattr(sys, "argv", ["run"])
    _, model, *_, test_data = load_data_and_model(str(file))
    rows = test_data._dataset.inter_feat
    hits = (model.full_sort_predict(rows)[:, 1:].topk(10).indices + 1 == rows["item_id"].unsqueeze(1)).any(1)
    assert float(hits.float().mean()) == pytest.approx(
        report["stages"]["distilled"]["test"]["recall@10"], abs=1e-4
    )
    assert model.titles.vectors is not None


def test_weight_zero_serves_the_plain_student(coloured):
    plain, fused = go(mask_session_items=True), go(**FUSION, serve_text_weight=0)
    for name in KEPT:
        assert fused["stages"][name]["test"] == plain["stages"][name]["test"]
        assert fused["stages"][name]["bytes"] == plain["stages"][name]["bytes"]
        assert fused["stages"][name]["fitted"] == {"serve_text_weight": 0.0, "serve_text_dim": 0.0}


def test_validation_chooses_the_weight(coloured, monkeypatch):
    tried = []

    def choose(self, trainer, valid_data, plain, show_progress):
        chosen = original(self, trainer, valid_data, plain, show_progress)
        scores = {}
        for weight in (0, 1, 20):
            self.serve(weight)
            scores[float(weight)] = trainer.evaluate(valid_data, load_best_model=False)["ndcg@10"]
        self.serve(chosen[1]["serve_text_weight"])
        tried.append((chosen, scores))
        return chosen

    original = LateFusion.choose
    monkeypatch.setattr(LateFusion, "choose", choose)
    report = go(**FUSION, serve_text_weight=[20, 0, 1])
    assert len(tried) == 3
    for name, ((valid, fitted), scores) in zip(
        ("student", "distilled", "student_longer"), tried, strict=True
    ):
        assert scores[fitted["serve_text_weight"]] == max(scores.values()) == valid["ndcg@10"]
        assert report["stages"][name]["valid"] == valid


def test_titles_of_other_items_are_the_control(coloured):
    own, others = (
        go(**FUSION, serve_text_weight=5),
        go(**FUSION, serve_text_weight=5, item_text_permuted=True),
    )
    first, second = (state_of(one)["titles.vectors"] for one in (own, others))
    assert not torch.equal(first, second)
    torch.testing.assert_close(first.norm(dim=1).sort().values, second.norm(dim=1).sort().values)
    cold = [one["stages"]["student"]["test_groups"]["cold"]["recall@10"] for one in (own, others)]
    assert cold[0] > cold[1] + 0.2


def test_rounds_and_resumed_runs_serve_the_same(coloured):
    first = go(**FUSION, alkd_rounds=2)
    (coloured / first["run_folder"] / "result.json").unlink()  # as if it had been killed at the end
    again = go(**FUSION, alkd_rounds=2)
    assert again["run_folder"] == first["run_folder"]
    for name in KEPT:
        assert again["stages"][name]["test"] == first["stages"][name]["test"]


def test_training_never_sees_the_titles(coloured, monkeypatch):
    seen = []
    original = ALKDRec.calculate_loss
    monkeypatch.setattr(
        ALKDRec, "calculate_loss", lambda self, rows: seen.append(self.titles.vectors) or original(self, rows)
    )
    go(**FUSION, kd_rec_weight=1.0, serve_text_weight=5)
    assert len(seen) > 10 and all(vectors is None for vectors in seen)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"serve_text_dim": 8},
            "item_text: ~ is not allowed with serve_text_dim; allowed: an encoder of titles",
        ),
        (
            {**FUSION, "student_model": "SessionKNN"},
            "serve_text_dim: not for student_model 'SessionKNN'.*weighted edges of titles",
        ),
        (
            {**TEXT, "item_text_loss": "text_pairs", "student_model": "SessionKNN"},
            "item_text_loss: not for student_model",
        ),
        (
            {**FUSION, "serve_text_weight": []},
            "serve_text_weight: .*allowed: a number of at least 0, or a list",
        ),
        ({**FUSION, "serve_text_weight": [-1]}, "serve_text_weight"),
        ({**FUSION, "serve_text_dim": 0}, "serve_text_dim: 0 is not allowed"),
        ({**FUSION, "serve_text_dims": 4}, "did you mean 'serve_text_dim'"),
        ({**TEXT, "kd_loss": "pairwise"}, "item_text: nothing uses it"),
    ],
)
def test_mistakes_are_named(coloured, settings, words):
    with pytest.raises(AlkdError, match=words):
        go(**settings)


def test_late_fusion_shares_the_student_of_arms_without_titles(coloured):
    """One student for all ways to serve it, in any order, and the same numbers as without sharing."""
    ways = {
        "fused": FUSION,
        "plain": {"mask_session_items": True},
        "others": {**FUSION, "item_text_permuted": True, "serve_text_weight": 5},
        "narrow": {**FUSION, "serve_text_dim": 2},
    }
    alone = {name: go(**settings) for name, settings in ways.items()}
    shared = {name: go(**settings, stage_cache="cache") for name, settings in ways.items()}
    assert len(list(coloured.glob("cache/student-*/*.pth"))) == 1
    for name in ways:
        for stage in KEPT:
            for key in ("valid", "test", "parameters", "bytes", "fitted", "best_step"):
                assert shared[name]["stages"][stage][key] == alone[name]["stages"][stage][key], (
                    name,
                    stage,
                    key,
                )
    # a student that learns from titles is another one
    go(**TEXT, item_text_loss="text_pairs", mask_session_items=True, stage_cache="cache")
    assert len(list(coloured.glob("cache/student-*/*.pth"))) == 2

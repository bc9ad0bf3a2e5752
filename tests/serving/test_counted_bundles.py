"""Bundles of recommenders that count, written by somebody else: the graph of their scores."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from process import ROOT
from test_trainer import go, home  # noqa: F401  (a fixture)

from recbole_alkd.registry import backbones
from recbole_alkd.serving import Recommender
from recbole_alkd.serving.cli import add_serving_commands
from recbole_alkd.settings.error import AlkdError

PAGE = (ROOT / "docs" / "students.md").read_text(encoding="utf-8")
AFTER = PAGE.partition("    # ease.py")[2]
EASE = textwrap.dedent("    # ease.py" + AFTER.partition("    recbole-alkd run")[0])
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
        return Counted()

    def scores(self, item_seq, item_seq_len):
        return self.times.repeat(len(item_seq), 1)
"""


@pytest.fixture
def plugged(home):  # noqa: F811
    """A working directory with two plug-ins in it; ``popular`` asks torch for a length as a plain number."""
    (home / "ease.py").write_text(EASE)
    (home / "popular.py").write_text(POPULAR)
    yield home
    for module, name in (("ease", "EASE"), ("popular", "Popular")):
        sys.modules.pop(module, None)
        backbones._entries.pop(name, None)


def run(name, **settings):
    plugins = ["scripted_teacher", name.lower()]
    report = go(alkd_plugins=plugins, student_model=name, save_bundle=True, state="INFO", **settings)
    return Path(report["run_folder"])


@pytest.mark.parametrize("masked", [False, True])
def test_every_test_session_ranks_as_the_run_reported_it(plugged, masked):
    folder = run("EASE", mask_session_items=masked)
    recommender = Recommender.load(folder, verify=True)
    assert recommender.manifest["student"]["kind"] == "scores"
    ranks = []
    for line in (plugged / "data/tiny/tiny.test.inter").read_text().splitlines()[1:]:
        _, history, target = line.split("\t")
        scores = recommender.scores(history.split())
        if masked:
            scores[recommender.numbers(history.split())] = -np.inf
        own = scores[recommender.items.number(target)]
        ranks.append((scores[1:] > own).sum() + ((scores[1:] == own).sum() + 1) / 2)
    with np.load(folder / "ranks.npz") as arrays:
        np.testing.assert_array_equal(ranks, arrays["distilled_test"])


def test_it_recommends_explains_and_is_exported(plugged):
    onnxruntime = pytest.importorskip("onnxruntime")
    recommender = Recommender.load(run("EASE"))
    best = recommender.recommend(["i3", "i4", "nobody"], 5)
    assert len(best) == 5 and not {"i3", "i4"} & {one.item for one in best} and recommender.ignored == 1
    assert recommender.recommend([["i3", "i4"], []], 5)[0] == best
    reasons = recommender.explain(["i3", "i4"], best[0].item)
    assert {one.source for one in reasons} <= {"i3", "i4", None}
    assert sum(one.weight for one in reasons) == pytest.approx(best[0].score, abs=1e-6)
    graph = onnxruntime.InferenceSession(str(recommender.path / "model.onnx"))
    numbers = recommender.numbers(["i3", "i4"])
    given = {
        "items": np.array([[*numbers, 0], [0, 0, 0]]), "blocked": np.zeros((2, 1), dtype=np.int64),
        "k": np.array([5]), "mask_session": np.array([True]),
    }  # fmt: skip
    items, scores = graph.run(["top_items", "top_scores"], given)
    assert recommender.items.ids(items[0]) == [one.item for one in best]
    np.testing.assert_allclose(scores[0], [one.score for one in best], atol=1e-5)
    assert recommender.items.ids(items[1]) == [one.item for one in recommender.recommend([], 5)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["update", "--inter", "data/tiny/tiny.test.inter"], "EASE is no table; only a table takes new"),
        (["export", "--format", "redis"], "EASE is no table; allowed for it: bundle | onnx | triton"),
        (["export", "--format", "vectors"], "EASE has only scores; allowed for it: bundle | onnx | triton"),
    ],
)
def test_what_it_cannot_be_is_said(plugged, words, message):
    import argparse

    parser = argparse.ArgumentParser()
    add_serving_commands(parser.add_subparsers())
    args = parser.parse_args([*words, "--bundle", str(run("EASE")), "--out", "out"])
    with pytest.raises(AlkdError) as error:
        args.run(args)
    assert message in str(error.value) and not Path("out").exists()


def test_scores_that_cannot_be_taken_out_of_torch_leave_the_run_without_a_bundle(plugged, caplog):
    folder = run("Popular")
    assert (folder / "result.json").exists() and not (folder / "bundle").exists()
    assert "no bundle is written: Popular cannot be exported to ONNX: its graph" in caplog.text
    assert "take sizes from `item_seq.shape`, not `len(item_seq)`" in caplog.text

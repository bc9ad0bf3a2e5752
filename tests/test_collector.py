"""The lean collector gives RecBole's own columns, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.evaluator import Collector, Evaluator

from recbole_alkd.learner import collector as collector_module
from recbole_alkd.learner.collector import SingleTargetCollector


@pytest.mark.parametrize(
    "metrics", [["Recall", "NDCG", "MRR"], ["Hit", "MAP", "Precision"], ["GAUC", "Recall"]]
)
@pytest.mark.parametrize("several_targets", [False, True])
def test_same_as_recboles(metrics, several_targets):
    values = {"metrics": metrics, "topk": [3, 7], "valid_metric": f"{metrics[-1]}@3", "use_gpu": False}
    config = Config(model="ALKDRec", dataset="ml-100k", config_dict=values)
    torch.manual_seed(0)
    collected = []
    for kind in (Collector, SingleTargetCollector):
        collector = kind(config)
        collector.data_struct.set("data.num_items", torch.tensor(50))
        generator = torch.Generator().manual_seed(1)
        for size in (5, 1, 8):
            scores = torch.randint(0, 20, (size, 50), generator=generator).float()  # with ties
            scores[:, 0] = -torch.inf
            users, items = torch.arange(size), torch.randint(1, 50, (size,), generator=generator)
            if several_targets:
                users, items = users.repeat(2), torch.cat((items, items % 49 + 1))
            collector.eval_batch_collect(scores.clone(), None, users, items)
        collected.append(collector.get_data_struct())
    for key in ("rec.topk", "rec.items", "rec.meanrank"):
        assert (key in collected[0]) == (key in collected[1])
        if key in collected[0]:
            stock, lean = collected[0].get(key), collected[1].get(key)
            assert torch.equal(stock, lean) and stock.dtype == lean.dtype
    assert Evaluator(config).evaluate(collected[0]) == Evaluator(config).evaluate(collected[1])


ROWS = {
    "no two alike": lambda random: random.standard_normal((40, 60)),
    "many alike": lambda random: random.integers(0, 9, (40, 60)),
    "all alike": lambda random: np.zeros((40, 60)),
    "most are left out": lambda random: np.where(random.random((40, 60)) < 0.9, -np.inf, 1.0),
    "some are nan": lambda random: np.where(random.random((40, 60)) < 0.1, np.nan, random.random((40, 60))),
    "infinite": lambda random: np.where(random.random((40, 60)) < 0.1, np.inf, random.random((40, 60))),
    "zeros of both signs": lambda random: random.choice([0.0, -0.0, 1.0], (40, 60)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", ROWS)
def test_counted_places_are_those_of_topk(kind, dtype, monkeypatch):
    monkeypatch.setattr(collector_module, "_AT_ONCE", 200)
    random, values = np.random.default_rng(0), {"topk": [1, 20], "valid_metric": "MRR@20", "use_gpu": False}
    config = Config(model="ALKDRec", dataset="ml-100k", config_dict=values)
    collected = []
    scores = torch.from_numpy(ROWS[kind](random)).to(dtype)
    scores[:, 0] = -torch.inf
    targets = torch.from_numpy(random.integers(1, 60, 40))
    for cls in (Collector, SingleTargetCollector):
        collector = cls(config)
        collector.eval_batch_collect(scores.clone(), None, torch.arange(40), targets)
        collected.append(collector.get_data_struct().get("rec.topk"))
    assert torch.equal(*collected) and collected[0].dtype == collected[1].dtype
    assert collected[0][:, :-1].sum() > 0

"""The lean collector gives RecBole's own columns, bit for bit."""

from __future__ import annotations

import pytest
import torch
from recbole.config import Config
from recbole.evaluator import Collector, Evaluator

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

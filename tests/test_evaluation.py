"""Evaluation: metrics of whole lists, lists longer than the catalogue, and blocks where a batch of scores
would be too large."""

from __future__ import annotations

import pytest
import torch
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed
from tiny import N_ITEMS, tiny_config, write_benchmark

from recbole_alkd import AlkdError, memory
from recbole_alkd.memory import BLOCK, WHOLE, rows_at_once

WHOLE_LISTS = ["ItemCoverage", "AveragePopularity", "GiniIndex", "TailPercentage", "ShannonEntropy"]


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_benchmark(tmp_path / "data")

    def prepare(model, **values):
        config = tiny_config(tmp_path / "data", model=model, state="ERROR", **values)
        init_seed(config["seed"], True)
        train, valid, test = data_preparation(config, create_dataset(config))
        network = get_model(model)(config, train._dataset)
        return get_trainer(config["MODEL_TYPE"], model)(config, network), train, valid, test

    return prepare


@pytest.mark.parametrize("model", ["SASRec", "SessionFPMC", "SessionKNN"])
def test_metrics_of_whole_lists_are_computed(model, prepared):
    trainer, train, valid, test = prepared(
        model, metrics=["NDCG", *WHOLE_LISTS], topk=[5, 10], valid_metric="NDCG@10"
    )
    trainer.fit(train, valid, saved=False)
    result = trainer.evaluate(test, load_best_model=False)
    # the same from the lists themselves
    lists = []
    trainer.model.eval()
    with torch.no_grad():
        for batch, *_ in test:
            scores = trainer.model.full_sort_predict(batch).view(len(batch), -1)
            scores[:, 0] = -torch.inf
            lists.append(scores.topk(10).indices)
    lists = torch.cat(lists)
    assert result["itemcoverage@10"] == pytest.approx(
        len(lists.unique()) / (N_ITEMS + 1), abs=1e-4
    ) or result["itemcoverage@10"] == pytest.approx(len(lists.unique()) / N_ITEMS, abs=1e-4)
    counts = train._dataset.item_counter
    popularity = torch.tensor([[float(counts[int(i)]) for i in row] for row in lists]).mean()
    assert result["averagepopularity@10"] == pytest.approx(float(popularity), abs=1e-3)
    assert 0 <= result["giniindex@10"] <= 1 and 0 <= result["tailpercentage@10"] <= 1


@pytest.mark.parametrize("model", ["SASRec", "SessionFPMC", "SessionKNN"])
def test_a_list_longer_than_the_catalogue_is_refused_before_training(model, prepared, monkeypatch):
    trainer, train, valid, _ = prepared(model, topk=[5, N_ITEMS + 1], valid_metric="NDCG@5", metrics=["NDCG"])
    monkeypatch.setattr(type(trainer), "_train_epoch", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(AlkdError, match=rf"topk: {N_ITEMS + 1} is more than the {N_ITEMS} items"):
        trainer.fit(train, valid, saved=False)


def test_rows_at_once():
    assert rows_at_once(4096, 43_097) == 4096  # whole, as ever
    assert rows_at_once(4096, 834_459) == BLOCK // (4 * 834_459) == 80
    assert 80 * 834_459 * 4 <= BLOCK < WHOLE
    assert rows_at_once(1024, 834_459, number=8) == 40
    assert rows_at_once(3, 10**12) == 1
    for rows in (1, 7, 4096):
        for items in (1, 1000, 10**6, 10**9):
            assert 1 <= rows_at_once(rows, items) <= rows
            assert rows_at_once(rows, items) == 1 or rows_at_once(rows, items) * items * 4 <= WHOLE


@pytest.mark.parametrize("model", ["ALKDRec", "SASRec", "SessionFPMC", "SessionKNN"])
def test_blocks_give_the_same_metrics(model, prepared, monkeypatch):
    values = {"metrics": ["Recall", "NDCG", "MRR", "ItemCoverage"], "topk": [1, 5], "valid_metric": "NDCG@5"}
    values |= (
        {"llm_teacher": "recommender", "budget_labels": 5, "llm_candidates": 10, "llm_top_n": 5}
        if model == "ALKDRec"
        else {}
    )
    metrics = []
    for block in (None, 4 * (N_ITEMS + 1) * 3):
        if block:
            monkeypatch.setattr(memory, "WHOLE", block)
            monkeypatch.setattr(memory, "BLOCK", block)
        trainer, train, valid, test = prepared(model, checkpoint_dir=f"saved{block}", **values)
        batches = [len(batch) for batch, *_ in test]
        assert max(batches) == (3 if block else 12) and sum(batches) == 12
        trainer.fit(train, valid, saved=model == "ALKDRec")
        metrics.append(dict(trainer.evaluate(test, load_best_model=False)))
    assert metrics[0] == metrics[1]

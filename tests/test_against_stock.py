"""Training, evaluation and augmentation beside stock RecBole's, with equal results.

Prints the table of docs/performance.md: CPU seconds of one thread, in turn.

    OMP_NUM_THREADS=1 pytest tests/test_against_stock.py -m benchmarks -s
"""

from __future__ import annotations

import contextlib
from statistics import median
from time import process_time

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset
from recbole.data.dataloader import TrainDataLoader
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.evaluator import Collector
from recbole.utils import get_model, get_trainer, init_seed
from torch.nn.functional import cross_entropy

from recbole_alkd.data.dataset import ALKDRecDataset
from recbole_alkd.data.rows import expand
from recbole_alkd.learner.collector import SingleTargetCollector
from recbole_alkd.model import session_model
from recbole_alkd.model.session_fpmc import SessionFPMC
from recbole_alkd.model.session_model import item_weights
from recbole_alkd.model.weighted_rows import WeightedSum
from recbole_alkd.plugin import empty_argv

pytestmark = pytest.mark.benchmarks
ROUNDS, ROWS = 3, 10_000


@contextlib.contextmanager
def stock(monkeypatch):
    """RecBole as it comes: rows one by one, and the anomaly mode that its import of SINE switches on; models
    are left to autograd."""
    with monkeypatch.context() as patched, torch.autograd.set_detect_anomaly(True):
        patched.setattr(TrainDataLoader, "__iter__", TrainDataLoader.__iter__.__wrapped__)
        patched.setattr(Interaction, "__getitem__", Interaction.__getitem__.__wrapped__)
        patched.setattr(session_model, "full_softmax_loss", lambda s, t, y: cross_entropy(s @ t.T, y))
        patched.setattr(SessionFPMC, "forward", mean_of_vectors)
        yield


def mean_of_vectors(self, item_seq, item_seq_len):
    """The session vector of SessionFPMC by torch's own pieces, with a gradient of every place."""
    weights = item_weights(item_seq, item_seq_len, self.item_decay)
    return WeightedSum.apply(weights, self.input_embedding(item_seq))


def config_of(model, **values):
    with empty_argv():
        return Config(
            model=model,
            dataset="ml-100k",
            config_dict={
                "state": "ERROR",
                "use_gpu": False,
                "show_progress": False,
                "train_neg_sample_args": None,
                "MAX_ITEM_LIST_LENGTH": 20,
                "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
                **values,
            },
        )


def told(capsys, words, usual, ours):
    """Print a line of the table: CPU seconds of both, and how many times as long the first takes."""
    with capsys.disabled():
        print(f"\n{words:64} {usual:8.3f} {ours:8.3f} {usual / ours:6.1f} x", end="")


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize(
    ("model", "loss"),
    [
        ("SessionFPMC", "BPR_INBATCH"),
        ("SessionFPMC", "CE"),
        ("GRU4Rec", "CE"),
        ("STAMP", "CE"),
    ],
)
def test_training_epoch(model, loss, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = config_of(model, loss_type=loss, train_batch_size=512)
    train = create_dataset(config).build()[0]
    if model in ("GRU4Rec", "STAMP"):  # whose epochs take long
        train = train.copy(train.inter_feat[:ROWS])
    ways = {}
    for way in ("stock", "ours"):
        init_seed(7, True)
        network = get_model(model)(config, train)
        trainer = get_trainer(config["MODEL_TYPE"], model)(config, network)
        ways[way] = trainer, TrainDataLoader(config, train, None, shuffle=True)
    spent = {"stock": [], "ours": []}
    for turn in range(ROUNDS):
        for way, (trainer, batches) in ways.items():
            init_seed(turn, True)
            with stock(monkeypatch) if way == "stock" else contextlib.nullcontext():
                begin = process_time()
                trainer._train_epoch(batches, turn)
                spent[way].append(process_time() - begin)
    for name, values in ways["stock"][0].model.state_dict().items():
        assert torch.equal(values, ways["ours"][0].model.state_dict()[name]), name
    words = f"epoch of {len(train):,} rows: {model}, {loss}"
    told(capsys, words, median(spent["stock"]), median(spent["ours"]))


@pytest.mark.parametrize(("rows", "items"), [(4096, 1674), (1024, 43_098)])
def test_evaluation_collector(rows, items, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = config_of("ALKDRec", metrics=["Recall", "NDCG", "MRR"], topk=[5, 10, 20], valid_metric="NDCG@10")
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(rows, items, generator=generator)
    users, targets = torch.arange(rows), torch.randint(1, items, (rows,), generator=generator)
    spent, collected = {Collector: [], SingleTargetCollector: []}, {}
    for _ in range(5 * ROUNDS):
        for kind, times in spent.items():
            collector = kind(config)
            begin = process_time()
            collector.eval_batch_collect(scores, None, users, targets)
            times.append(process_time() - begin)
            collected[kind] = collector.get_data_struct().get("rec.topk")
    usual, ours = collected.values()
    assert torch.equal(usual, ours) and usual.dtype == ours.dtype
    words = f"collector, {rows:,} rows of {items:,} items"
    told(capsys, words, *(median(times) for times in spent.values()))


def test_augmentation(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = config_of("GRU4Rec")
    spent, rows = {"stock": [], "ours": []}, {}
    for _ in range(ROUNDS):
        dataset = SequentialDataset(config)
        super(SequentialDataset, dataset)._change_feat_format()
        begin = process_time()
        dataset.data_augmentation()
        spent["stock"].append(process_time() - begin)
        rows["stock"] = dataset.inter_feat

        dataset = SequentialDataset(config)
        super(SequentialDataset, dataset)._change_feat_format()
        own = ALKDRecDataset(config_of("ALKDRec"))
        begin = process_time()
        dataset.sort(by=[dataset.uid_field, dataset.time_field], ascending=True)
        uid = dataset.inter_feat[dataset.uid_field].numpy()
        flat = dataset.inter_feat[dataset.iid_field].numpy()
        offsets = np.append(np.flatnonzero(np.diff(uid, prepend=-1)), len(uid))
        every = expand(offsets, np.arange(len(offsets) - 1), "prefix", 20)
        rows["ours"] = own._interaction(uid[offsets[:-1]], flat, [every])
        spent["ours"].append(process_time() - begin)
    usual, ours = rows["stock"], rows["ours"]
    for name in ("user_id", "item_id", "item_id_list", "item_length"):
        assert torch.equal(usual[name], ours[name]), name
    words = f"augmentation, {len(usual):,} rows"
    told(capsys, words, median(spent["stock"]), median(spent["ours"]))

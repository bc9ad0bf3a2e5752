"""Sessions a second on the GPU beside one CPU thread, in one run: ``pytest -m gpu -s`` prints them.
Nothing is asserted of time."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from tiny_llm import context, tiny_llm
from torch import nn

from recbole_alkd.labelling.candidates import top_candidates
from recbole_alkd.model.backbone import Backbone
from recbole_alkd.registry import teachers
from recbole_alkd.teacher.base import Instance

N_ITEMS, DIM = 100_000, 64


class Mean(nn.Module):
    """The mean of the session's items as its vector."""

    def __init__(self):
        super().__init__()
        self.item_embedding = nn.Embedding(N_ITEMS, DIM)

    def forward(self, item_seq, item_seq_len):
        return self.item_embedding(item_seq).sum(1) / item_seq_len.unsqueeze(1)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def per_second(work, count, device):
    work()  # warm
    if device == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return count / (time.perf_counter() - begin)


def name(device):
    return torch.cuda.get_device_name(0) if device == "cuda" else "cpu"


@pytest.mark.parametrize("count", [4096])
def test_candidates_of_a_large_catalogue(device, count, one_thread):
    torch.manual_seed(0)
    seq, length = torch.randint(1, N_ITEMS, (count, 20)), torch.full((count,), 20)
    rates = {}
    for where, rows in (("cpu", count // 16), (device, count)):
        view = Backbone(Mean().to(where))
        rates[where] = per_second(
            lambda view=view, rows=rows: top_candidates(view, seq[:rows], length[:rows], 50), rows, where
        )
    print(f"\n50 of {N_ITEMS:,} candidates, dim {DIM}, sessions/s:", end=" ")
    print(f"{rates['cpu']:,.0f} one CPU thread, {rates[device]:,.0f} {name(device)}")
    assert all(rate > 0 for rate in rates.values())


def test_title_scoring_of_a_model_of_135m_parameters(device, tmp_path, one_thread):
    """Random weights in the shape of the bundled model: 30 layers of 576;
    a byte is a token, so titles are longer."""
    titles = {f"i{k}": f"Title number {k}" for k in range(500)}
    model = tiny_llm(tmp_path / "llm", layers=30, width=576)
    rng = np.random.default_rng(0)
    asked = [
        Instance(row, str(row), tuple(items[:8]), tuple(items[8:]))
        for row in range(64)
        for items in [rng.choice(list(titles), 28, replace=False).tolist()]
    ]
    rates = {}
    for where, count in (("cpu", 4), (device, 64)):
        values = {"llm_device": where, "llm_dtype": None, "llm_candidates": 20, "llm_top_n": 10}
        one = teachers.get("local")(context(model, tmp_path / where, values, titles=titles))
        rates[where] = per_second(lambda one=one, count=count: list(one.ask(asked[:count])), count, where)
        one.close()
    print(
        f"\ntitle scoring, 20 candidates, sessions/s: {rates['cpu']:.2f} one CPU thread, "
        f"{rates[device]:.2f} {name(device)}"
    )
    assert all(rate > 0 for rate in rates.values())

"""What a step of the quickstart's recommenders takes, part by part, beside what this machine needs for it;
prints the table of docs/performance.md.

    OMP_NUM_THREADS=1 pytest tests/model/test_step_bounds.py -m benchmarks -s
"""

from statistics import quantiles
from time import process_time

import pytest
import torch
from torch import nn

from recbole_alkd.learner.row_adam import RowAdam
from recbole_alkd.model.lookups import lookups
from recbole_alkd.model.sampled_softmax import drop_items, sampled_loss
from recbole_alkd.model.session_model import item_weights
from recbole_alkd.model.weighted_rows import weighted_rows

# of ml-100k's day sessions, and the settings that the quickstart has
ROWS, WIDTH, DRAWN, ITEMS, DROPPED, ROUNDS = 512, 20, 1024, 1674, 0.3, 60


def taken(calls):
    """CPU milliseconds of each call, the lower quartile of rounds in which they take turns: the others tell
    more of other programs."""
    spent = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            begin = process_time()
            call()
            spent[name].append(1000 * (process_time() - begin))
    return {name: quantiles(times)[0] for name, times in spent.items()}


class Step:
    """The parts of one step over made-up sessions, of which 15 % of the places are padding."""

    def __init__(self, size):
        draw = torch.Generator().manual_seed(0)
        self.inputs, self.outputs = nn.Embedding(ITEMS, size, padding_idx=0), nn.Embedding(ITEMS, size)
        popular = torch.rand(ITEMS - 1, generator=draw) ** 3
        some = 1 + torch.multinomial(popular, ROWS * WIDTH, replacement=True, generator=draw)
        length = torch.randint(14, WIDTH + 1, (ROWS,), generator=draw)
        item_seq = some.view(ROWS, WIDTH).masked_fill(torch.arange(WIDTH) >= length.unsqueeze(1), 0)
        self.whole = item_seq, length
        self.item_seq, self.length = drop_items(item_seq, length, DROPPED)
        self.there = int(self.length.sum())
        self.weights = item_weights(self.item_seq, self.length, 0.5)
        self.target = 1 + torch.multinomial(popular, ROWS, replacement=True, generator=draw)
        self.drawn = 1 + torch.multinomial(popular.sqrt(), DRAWN, replacement=True, generator=draw)
        self.log_expected = torch.randn(DRAWN, generator=draw)
        self.vectors = [
            (0.1 * torch.randn(n, size, generator=draw)).requires_grad_() for n in (ROWS, ROWS, DRAWN)
        ]
        self.outer = torch.randn(ROWS, size, generator=draw)
        self.size, self.optimizer = size, RowAdam([self.inputs.weight, self.outputs.weight], lr=0.01)

    def loss(self):
        sampled_loss(*self.vectors, self.target, self.drawn, self.log_expected).backward()

    def sessions(self):
        with lookups(self.inputs, ITEMS, sparse=True, squares=True) as seen:
            total = weighted_rows(self.inputs, self.item_seq, self.weights)
        self.inputs.weight.grad = None
        ((total * self.outer).sum() + seen.squares[0]).backward()

    def items(self):
        both = torch.cat([self.target, self.drawn])
        self.outputs.weight.grad = None
        nn.functional.embedding(both, self.outputs.weight, sparse=True).square().sum().backward()

    def calls(self):
        return {
            "loss and its gradient": self.loss,
            "session vectors, squares and gradient": self.sessions,
            "vectors of targets and drawn items": self.items,
            "Adam on these rows": self.optimizer.step,
            "dropping items": lambda: drop_items(*self.whole, DROPPED),
        }


def bounds(step):
    """What no step can do without, ms: the better of two layouts of each product, and passes over memory at
    the speed of a copy."""
    session, other = torch.randn(ROWS, step.size), torch.randn(DRAWN, step.size)
    scores = torch.randn(ROWS, DRAWN)
    other_t, session_t = other.T.contiguous(), session.T.contiguous()
    rows = len(step.item_seq.unique()), len(torch.cat([step.target, step.drawn]).unique())
    block, into = torch.randn(step.there, step.size), torch.empty(step.there, step.size)
    below, shares = scores.clamp(-9, 0), torch.empty_like(scores)
    spent = taken(
        {
            "scores": lambda: session @ other.T,
            "scores, other layout": lambda: other @ session.T,
            "by session": lambda: other_t @ scores.T,
            "by session, other layout": lambda: scores @ other,
            "by item": lambda: session_t @ scores,
            "by item, other layout": lambda: scores.T @ session,
            "exponentials": lambda: torch.exp(below, out=shares),
            "copy": lambda: into.copy_(block),
            "random numbers": lambda: torch.rand(ROWS, WIDTH),
        }
    )
    kinds = ("scores", "by session", "by item")
    products = sum(min(spent[name], spent[f"{name}, other layout"]) for name in kinds)
    byte = spent["copy"] / (2 * 4 * block.numel())  # ms, read or written
    table = 4 * step.size
    return {
        "loss and its gradient": products + spent["exponentials"],
        # read forwards, and backwards, and the sums written once
        "session vectors, squares and gradient": byte * table * (2 * step.there + rows[0]),
        "vectors of targets and drawn items": byte * table * (3 * (ROWS + DRAWN) + rows[1]),
        # row, moments and gradient are read, row and moments written
        "Adam on these rows": byte * table * 7 * sum(rows),
        "dropping items": spent["random numbers"],
    }, {
        "GFLOP/s": 6 * ROWS * DRAWN * step.size / products / 1e6,
        "GB/s": 1e-6 / byte,
    }


@pytest.mark.benchmarks
@pytest.mark.parametrize("size", [100, 10])
def test_parts_of_a_step_beside_their_bounds(size, capsys):
    step = Step(size)
    reached = taken({"sessions": step.sessions, "items": step.items, **step.calls()})
    least, speeds = bounds(step)
    with capsys.disabled():
        words = ", ".join(f"{speed:.0f} {unit}" for unit, speed in speeds.items())
        print(f"\ndimension {size} ({words}){'bound':>24}{'reached':>10}   ms")
        for name, bound in least.items():
            print(f"{name:44}{bound:10.2f}{reached[name]:10.2f}")
        total = sum(least.values()), sum(reached[name] for name in least)
        print(f"{'all of these':44}{total[0]:10.2f}{total[1]:10.2f}")
    assert 0 < total[0] < total[1]

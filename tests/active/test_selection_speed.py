"""Timings of the selection engine, for docs/performance.md: python -m pytest -m benchmarks -s tests/active

Nothing is asserted about time. Each size runs in a process of its own, so that the peak memory is its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from recbole.model.sequential_recommender import GRU4Rec

from recbole_alkd.active.difficulty import consistency_difficulty
from recbole_alkd.active.gain import counts_from_ratio, log_gain
from recbole_alkd.active.max_min import solve_max_min
from recbole_alkd.active.sampling import draw
from recbole_alkd.model.backbone import Backbone
from recbole_alkd.model.session_fpmc import SessionFPMC

pytestmark = pytest.mark.benchmarks
RATIO = [1, 5, 4]


def best_of(times, call):
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def alone(setup, call, repeat):
    """Best time of ``call`` in a fresh single-threaded process, and its peak resident memory before and
    after, in MiB."""
    code = textwrap.dedent(f"""
        import resource, time
        import numpy as np
        from recbole_alkd.active.gain import counts_from_ratio
        from recbole_alkd.active.max_min import solve_general, solve_max_min
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        base, rng, times = peak(), np.random.default_rng(0), []
        {setup}
        for _ in range({repeat}):
            start = time.perf_counter()
            solution = {call}
            times.append(time.perf_counter() - start)
        print(min(times), base, peak())
    """)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()[-3:]]


@pytest.mark.parametrize(("n", "repeat"), [(10**6, 5), (10**7, 2)])
def test_proportional_solve(n, repeat):
    setup = f"log_gain = -10 * np.log(1.0 + rng.permutation({n})); counts = counts_from_ratio({RATIO}, {n})"
    seconds, base, peak = alone(setup, "solve_max_min(log_gain, *counts)", repeat)
    print(
        f"\nsolve_max_min, N = {n:,}, unsorted, with its sort: {seconds:.3f} s; "
        f"peak {peak:,.0f} MiB, of which imports {base:,.0f}"
    )


@pytest.mark.parametrize("mu", [0.5, 2, 10])
def test_general_solve(mu):
    n = 10**6
    setup = (
        f"g = (1.0 + rng.permutation({n})) ** -{mu}; counts = counts_from_ratio({RATIO}, {n}); "
        f"similar, loss = g * rng.uniform(0.2, 0.8, {n}), g * rng.uniform(0.2, 0.8, {n})"
    )
    seconds, base, peak = alone(setup, "solve_general(g, similar, loss, *counts)", 3)
    print(
        f"\nsolve_general, N = {n:,}, mu = {mu}: {seconds:.3f} s; "
        f"peak {peak:,.0f} MiB, of which imports {base:,.0f}"
    )


def test_selecting_500_of_12054():
    """One solve and one pass, against a solve after every draw with the same functions."""
    difficulty = np.random.default_rng(0).random(12_054)

    def one_pass():
        rng = np.random.default_rng(1)
        gain = log_gain(difficulty, 10)
        return draw(solve_max_min(gain, *counts_from_ratio(RATIO, len(gain))).log_p, 500, rng)

    def solve_after_every_draw():
        rng = np.random.default_rng(1)
        rest, picks = np.arange(len(difficulty)), []
        for _ in range(500):
            gain = log_gain(difficulty[rest], 10)
            one = draw(solve_max_min(gain, *counts_from_ratio(RATIO, len(rest))).log_p, 1, rng)[0]
            picks.append(rest[one])
            rest = np.delete(rest, one)
        return np.array(picks)

    assert len(set(one_pass().tolist())) == len(set(solve_after_every_draw().tolist())) == 500
    fast, slow = best_of(20, one_pass), best_of(2, solve_after_every_draw)
    print(
        f"\n500 of 12,054: one pass {fast * 1e3:.2f} ms, a solve after every draw {slow:.3f} s, "
        f"{slow / fast:,.0f} times as long"
    )


class Stub(dict):
    """As much of a RecBole Config and data set as a backbone reads: names for names, ``items`` for counts."""

    def __missing__(self, key):
        return key.lower()

    def num(self, field):
        return self["items"]


@pytest.mark.parametrize("model_class", [SessionFPMC, GRU4Rec])
def test_difficulty_of_a_pool_of_diginetica_s_size(model_class):
    """720,000 rows, 43,098 items, d = 100: how much of the time is the backbone's own forward pass."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    length = np.minimum(rng.geometric(0.2, 720_000), 20)
    rows = rng.integers(1, 43_098, (720_000, 20)) * (np.arange(20) < length[:, None])
    item_seq, item_seq_len = torch.from_numpy(rows), torch.from_numpy(length)
    config = Stub(
        items=43_098,
        embedding_size=100,
        hidden_size=100,
        num_layers=1,
        dropout_prob=0.3,
        MAX_ITEM_LIST_LENGTH=20,
    )
    config.update(loss_type="CE", device="cpu")
    view = Backbone(model_class(config, config).eval())

    def forward():
        with torch.no_grad():
            for start in range(0, len(item_seq), 1024):
                view.encode(item_seq[start : start + 1024], item_seq_len[start : start + 1024])

    forward_seconds = best_of(1, forward)
    whole = best_of(1, lambda: consistency_difficulty(view, item_seq, item_seq_len))
    print(
        f"\n{model_class.__name__}: {whole:.1f} s, of which forward {forward_seconds:.1f} s "
        f"({forward_seconds / whole:.0%})"
    )

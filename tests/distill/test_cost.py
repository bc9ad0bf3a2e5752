"""What a training step with each loss costs: time beside the recommendation loss alone,
and memory at batch 1024.

``pytest tests/distill/test_cost.py -m benchmarks -s`` prints the table of docs/performance.md.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import pytest
import torch

from recbole_alkd.distill import DistillBatch, build_loss
from recbole_alkd.model.backbone import Backbone
from recbole_alkd.model.loss import in_batch_bpr
from recbole_alkd.registry import losses
from recbole_alkd.testing.losses import ToyRecommender, toy_context, toy_recommendation, toy_rows, toy_titles

ROWS, N_ITEMS, LENGTH, STUDENT, TEACHER = 1024, 8475, 10, 10, 100
LABELLED, RANKS = 40, 25  # rows with a list, of a batch of about 1000 (session, item) pairs


def single(n_items: int, size: int, seed: int) -> Backbone:
    return Backbone(ToyRecommender(n_items, size, seed).float())


def make_step(name: str | None, known_rows: bool = False) -> Callable[[], None]:
    """One optimizer step: recommendation loss, and ``name`` beside it, forward and backward and Adam.

    ``known_rows``: the batch says which rows it has, so that the teacher's lists are kept after the first
    step.
    """
    torch.manual_seed(0)
    student = Backbone(ToyRecommender(N_ITEMS, STUDENT, seed=1).float())
    titles = {"item_text": "tfidf"} if name and "item_text" in losses.get(name).needs else {}
    context = dataclasses.replace(
        toy_context(kd_loss=name or "pairwise", kd_rec_weight=1.0, n_items=50, **titles),
        n_items=N_ITEMS,
        student=student,
        item_text=toy_titles(N_ITEMS, size=128) if titles else None,
        recommendation=toy_recommendation(student),
        teacher=Backbone(ToyRecommender(N_ITEMS, TEACHER, seed=2).float()),
        train_interaction=toy_rows(ROWS, N_ITEMS, LENGTH),
    )
    loss = build_loss(context)
    loss.epoch_start(10)  # RD's weights are dynamic from here on
    optimizer = torch.optim.Adam([*context.student.model.parameters(), *loss.parameters()])
    rows = context.train_interaction
    fields = [rows[key] for key in ("item_id_list", "item_length", "item_id")]
    lists = torch.stack([torch.randperm(N_ITEMS - 1)[:RANKS] + 1 for _ in range(LABELLED)])

    def step() -> None:
        batch = DistillBatch(context, *fields, row=torch.arange(ROWS) if known_rows else None)
        labelled = DistillBatch(
            context, *(values[:LABELLED] for values in fields), lists=lists, candidates=lists
        )
        value = in_batch_bpr(batch.student_session, batch.student_items[batch.target])
        if name:
            value = value + loss(batch, labelled)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if name:
            loss.after_step(optimizer)

    return step


def peak_mib(step: Callable[[], None]) -> float:
    """How far one step raises the resident memory of this process above what it is before, MiB (Linux)."""
    status = Path("/proc/self/status")

    def read(key: str) -> float:
        return (
            float(next(line for line in status.read_text().splitlines() if line.startswith(key)).split()[1])
            / 1024
        )

    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = read("VmRSS")
    step()
    return read("VmHWM") - before


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(),
    reason="the peak of resident memory is read from Linux's /proc",
)
@pytest.mark.parametrize("name", list(losses))
def test_a_step_at_batch_1024_stays_under_1_gib(name):
    assert peak_mib(make_step(name)) < 1024


def step_memory(name: str | None) -> float:
    """``peak_mib`` of the first step in a process of its own, which hands freed memory back."""
    code = f"from test_cost import *; print(peak_mib(make_step({name!r})))"
    path = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": path, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


@pytest.mark.benchmarks
def test_print_the_cost_of_every_loss():
    names = [None, *losses]
    steps = {(name, known): make_step(name, known) for name in names for known in (False, True)}
    times: dict[tuple[str | None, bool], list[float]] = {key: [] for key in steps}
    for turn in range(16):
        for key, step in steps.items():  # in turns, so that a busy moment hits all of them
            begin = perf_counter()
            step()
            if turn:
                times[key].append(perf_counter() - begin)
    middle = {key: 1e3 * statistics.median(values) for key, values in times.items()}
    base, memory = middle[None, True], step_memory(None)
    print(f"\n{'loss':10}{'ms':>8}{'x base':>8}{'ms, new rows':>14}{'x base':>8}{'extra MiB':>11}")
    for name in names:
        kept, new = middle[name, True], middle[name, False]
        extra = step_memory(name) - memory
        print(f"{name or '(base)':10}{kept:8.1f}{kept / base:8.2f}{new:14.1f}{new / base:8.2f}{extra:11.0f}")

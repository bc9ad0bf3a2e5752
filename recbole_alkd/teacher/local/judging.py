"""How long LoRA will take on this machine, and whether it helped: ranks of held-out targets before and after
it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import pad

from recbole_alkd.model.scoring import mean_ranks
from recbole_alkd.teacher.base import Instance, LoraExample

if TYPE_CHECKING:
    from recbole_alkd.teacher.local.scorers import Scorer


def judge(scorer: Scorer, examples: Sequence[LoraExample]) -> dict[str, Any] | None:
    """Ranks of the targets of ``examples`` by the LM without its adapter and with it.

    Returns:
        ``examples`` (those that fit what the model reads), ``candidates`` (their mean number), and of the
        targets' ranks ``mean_rank_before``, ``mean_rank_after``, ``mrr_before``, ``mrr_after``;
        None without an example.
    """
    instances = [
        Instance(row, str(row), example.history, example.candidates) for row, example in enumerate(examples)
    ]
    cases = [
        (example, scorer.training_case(instance, 0))
        for example, instance in zip(examples, instances, strict=True)
    ]
    cases = [(example, case) for example, case in cases if not case.problem]
    if not cases:
        return None
    report: dict[str, Any] = {
        "examples": len(cases),
        "candidates": round(float(np.mean([len(example.candidates) for example, _ in cases])), 2),
    }
    scorer.model.eval()
    for name, state in (("before", scorer.model.disable_adapter()), ("after", contextlib.nullcontext())):
        with torch.no_grad(), state:
            ranks = [
                candidate_rank(scorer.scores([case])[0].float(), e.candidates.index(e.target))
                for e, case in cases
            ]
        report[f"mean_rank_{name}"] = float(np.mean(ranks))
        report[f"mrr_{name}"] = float(np.mean(1 / np.asarray(ranks)))
    return report


def candidate_rank(scores: torch.Tensor, place: int) -> float:
    """``mean_ranks`` among the scores (m,) of candidates; the very last where the score is no number."""
    if torch.isnan(scores[place]):
        return float(len(scores))
    return float(
        mean_ranks(pad(scores, (1, 0)).unsqueeze(0), torch.tensor([place + 1], device=scores.device))
    )


def seconds_of_one(scorer: Scorer, examples: Sequence[LoraExample]) -> float:
    """Seconds of one training example, forwards and backwards, tried on the first few; nothing is learned."""
    taken = []
    with torch.random.fork_rng():
        for row, example in enumerate(examples[:3]):
            began = time.perf_counter()
            instance = Instance(row, str(row), example.history, example.candidates)
            (scores,) = scorer.scores([scorer.training_case(instance, 0)])
            scores.float().log_softmax(0)[example.candidates.index(example.target)].backward()
            taken.append(time.perf_counter() - began)
    for parameter in scorer.model.parameters():
        parameter.grad = None
    return float(np.median(taken[1:] or taken))  # the first one also wakes the machine up


def expected(seconds: float) -> str:
    """A time in words, as rough as it is known."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {round(seconds / 60)} minutes" if seconds < 5400 else f"about {seconds / 3600:.1f} hours"

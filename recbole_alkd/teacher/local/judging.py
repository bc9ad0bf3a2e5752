"""How long LoRA will take on this machine, and whether it helped: ranks of held-out targets before and after
it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import pad

from recbole_alkd.model.scoring import mean_ranks
from recbole_alkd.statistics import paired_difference
from recbole_alkd.teacher.base import Instance, LoraExample

if TYPE_CHECKING:
    from recbole_alkd.teacher.local.scorer import Scorer


def judge(scorer: Scorer, examples: Sequence[LoraExample]) -> dict[str, Any] | None:
    """Ranks of the targets of ``examples`` by the LM without its adapter and with it.

    Returns:
        ``examples`` (those that fit what the model reads), ``candidates`` (their mean number), and of the
        targets' ranks ``mean_rank_before``, ``mean_rank_after``, ``mrr_before``, ``mrr_after``,
        ``ndcg10_before``, ``ndcg10_after``; ``mrr_gain`` and ``mrr_gain_interval``: after - before on the
        same examples, with its 95 % bootstrap interval. None without an example.
    """
    before: list[float] = []
    after: list[float] = []
    kept = []
    for row, example in enumerate(examples):
        case = scorer.judging_case(Instance(row, str(row), example.history, example.candidates))
        if case.problem:
            continue
        kept.append(example)
        place = example.candidates.index(example.target)
        for ranks, state in ((before, scorer.model.disable_adapter()), (after, contextlib.nullcontext())):
            scorer.model.eval()
            with torch.no_grad(), state:
                ranks.append(candidate_rank(scorer.scores([case])[0].float(), place))
    if not kept:
        return None
    return compare(np.asarray(before), np.asarray(after), [len(example.candidates) for example in kept])


def compare(before: np.ndarray, after: np.ndarray, sizes: Sequence[int]) -> dict[str, Any]:
    """What ``judge`` returns, of the ranks (n,) of the same targets among ``sizes`` candidates."""
    facts: dict[str, Any] = {"examples": len(before), "candidates": round(float(np.mean(sizes)), 2)}
    for name, ranks in (("before", before), ("after", after)):
        facts[f"mean_rank_{name}"] = float(np.mean(ranks))
        facts[f"mrr_{name}"] = float(np.mean(1 / ranks))
        facts[f"ndcg10_{name}"] = float(np.mean(ndcg(ranks, 10)))
    gain, low, high, _ = paired_difference(1 / after, 1 / before)
    return {**facts, "mrr_gain": gain, "mrr_gain_interval": [low, high]}


def ndcg(ranks: np.ndarray, size: int) -> np.ndarray:
    """NDCG@size of lists with one right item at ``ranks`` (n,), from 1."""
    return np.where(ranks <= size, 1 / np.log2(1 + ranks), 0.0)


def is_better(ranks: Mapping[str, Any] | None) -> bool:
    """Whether ``judge`` has shown that the adapter beats the LLM without it:
    the interval of the gain is above 0."""
    return ranks is not None and ranks["mrr_gain_interval"][0] > 0


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

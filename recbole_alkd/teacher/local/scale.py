"""What scores are divided by in the softmax of the LoRA loss: where that starts.
``lora_trainer`` trains it further.

Zero-shot scores are too sure of themselves, or not sure enough, and a loss that is about their scale teaches
the LLM little else. Dividing a list's scores by one number leaves every ranking as it is,
so labels do not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from recbole_alkd.teacher.base import Instance, LoraExample

if TYPE_CHECKING:
    from recbole_alkd.teacher.local.scorer import Scorer

SHOWN = 32  # examples that the scale is fitted to
# times the scorer's own temperature. Under 4 times that, scores of an LM that knows nothing hardly differ in
# the softmax; with more they would have to grow far before they matter in it again.
GRID = tuple(2.0 ** (step / 2) for step in range(-8, 5))

Loss = Callable[[Tensor, LoraExample], Tensor]  # of a list's scores


def fit_scale(scorer: Scorer, examples: Sequence[LoraExample], loss: Loss) -> tuple[float, float]:
    """The scale under which the first examples have the lowest mean loss, and that loss.

    ``scorer.model`` must rank as the LLM without an adapter does, or have an adapter that has learned
    nothing. Nothing is drawn, so a training that is resumed finds the same scale.

    Returns:
        scale, in the unit of scores; mean loss, in nats. Where scores say nothing it is ln N of N candidates,
        to within a few hundredths.
    """
    scorer.model.eval()
    scored = []
    with torch.no_grad():
        for row, example in enumerate(examples[:SHOWN]):
            instance = Instance(row, str(row), example.history, example.candidates)
            (scores,) = scorer.scores([scorer.training_case(instance, 0)])
            scored.append((scores.float(), example))
    means = [
        float(
            np.mean(
                [float(loss(scores / (times * scorer.temperature), example)) for scores, example in scored]
            )
        )
        for times in GRID
    ]
    best = int(np.argmin(means))
    return GRID[best] * scorer.temperature, means[best]

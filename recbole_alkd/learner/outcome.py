"""What a stage leaves behind: the best state of a model, its validation metrics, what it took."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from recbole_alkd.model.alkdrec import SLOTS


@dataclass
class StageOutcome:
    """What a stage leaves behind.

    Attributes:
        state: state dict of the best validation step (of the last step without validation data).
        valid: RecBole's validation metrics there, or None.
        best_epoch, best_step: where that was, in epochs and in optimizer steps (both from 1).
        steps, epochs: how far the stage went.
        seconds: wall time. peak_mb: largest memory of the process until then, MiB.
        fitted: what was chosen apart from the epoch: by a model that counts (``model/counted.py``), or by
            late fusion (``late_fusion.py``); empty for others.
    """

    state: dict[str, torch.Tensor] = field(default_factory=dict)
    valid: dict[str, float] | None = None
    best_epoch: int = 0
    best_step: int = 0
    steps: int = 0
    epochs: int = 0
    seconds: float = 0.0
    peak_mb: float = 0.0
    fitted: dict[str, float] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """What reports hold of it besides its state and its metrics."""
        return {key: value for key, value in vars(self).items() if key not in ("state", "valid")}


def state_bytes(state: Mapping[str, torch.Tensor]) -> int:
    """What the numbers of a state dict take, in memory and (but for headers) on disk."""
    return sum(value.numel() * value.element_size() for value in state.values())


def saved_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the state dict on the CPU, without what stands in slots for training."""
    slots = tuple(f"{slot}." for slot in SLOTS)
    state = model.state_dict()
    return {key: value.detach().cpu().clone() for key, value in state.items() if not key.startswith(slots)}


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)  # macOS counts bytes, Linux KiB

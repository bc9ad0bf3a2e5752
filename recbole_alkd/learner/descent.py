"""How a model descends in one stage, and what is known of the stage while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from recbole_alkd.learner.outcome import StageOutcome
from recbole_alkd.learner.progress import ProgressClock


@dataclass(frozen=True)
class Descent:
    """How a model descends in one stage.

    Attributes:
        train_data: RecBole's training loader. loss: of a batch; the model's own when None.
        batches: what an epoch goes over; ``train_data`` when None.
        valid_data: RecBole's validation loader, or None.
        epochs, stopping_step, learning_rate: those of the stage's Config when None.
        beside: the ``Cycle`` that the loss takes more batches from, if it does.
        epoch_start: called with the epoch's number (from 0). after_step: with the optimizer, after each step.
        verbose, show_progress: of RecBole's ``fit``.
    """

    train_data: Any
    loss: Callable[[Any], torch.Tensor] | None = None
    batches: Any = None
    valid_data: Any = None
    epochs: int | None = None
    stopping_step: int | None = None
    learning_rate: float | None = None
    beside: Any = None
    epoch_start: Callable[[int], None] | None = None
    after_step: Callable[[Any], None] | None = None
    verbose: bool = True
    show_progress: bool = False


@dataclass
class RunningStage:
    """The stage that is running."""

    name: str
    words: str  # what the log calls it
    loss: Callable[[Any], torch.Tensor]
    batches: Any
    how: Descent
    outcome: StageOutcome
    clock: ProgressClock
    keep: Callable[[dict[str, Any]], None] | None  # writes what a killed stage resumes from
    show: bool  # a bar of batches, where RecBole does not draw one
    resume: dict[str, Any] | None = None  # what the next epoch has to begin with
    line: str = ""  # of the epoch under way

    @property
    def loaders(self) -> list[Any]:
        """Whose places decide the next epochs."""
        return [self.batches, *([self.how.beside] if self.how.beside else [])]


def diverged(stage: str, epoch: int, rate: float, what: str = "the training loss is") -> str:
    """What is said when the loss of a stage, or what it scores, is not a number."""
    return (
        f"stage {stage}: {what} nan (not a number) in epoch {epoch}, with learning_rate {rate:g}; "
        "try a smaller learning rate, and look for extreme values in the stage's own settings"
    )

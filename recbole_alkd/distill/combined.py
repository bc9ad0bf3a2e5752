"""From the setting ``kd_loss`` to one loss: a single one, or a weighted sum of several."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from recbole_alkd.config import AlkdError, Settings
from recbole_alkd.distill.base import NEEDS, DistillationLoss, DistillBatch, DistillContext
from recbole_alkd.registry import losses


def wanted_losses(settings: Settings) -> dict[str, float]:
    """The losses that ``kd_loss`` names, each with its factor; ``kd_loss: name`` is ``kd_loss: {name: 1}``.

    Raises:
        AlkdError: a name that is not registered; a factor that is no number above 0.
    """
    wanted = settings.distill.kd_loss
    wanted = wanted if isinstance(wanted, dict) else {wanted: 1.0}
    if not wanted:
        raise AlkdError(f"kd_loss: an empty mapping is not allowed; allowed: a loss, or {{loss: weight}} of {', '.join(losses)}")
    for name, factor in wanted.items():
        losses.get(name)
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not factor > 0:
            raise AlkdError(f"kd_loss: weight {factor!r} of {name!r} is not allowed; allowed: a number above 0")
    return {name: float(factor) for name, factor in wanted.items()}


def loss_options(settings: Settings, name: str) -> dict[str, Any]:
    """What ``kd_config`` says of one loss."""
    options = settings.distill.kd_config.get(name, {})
    if not isinstance(options, dict):
        raise AlkdError(f"kd_config: {options!r} of {name!r} is not allowed; allowed: a mapping of settings")
    return options


def check_losses(settings: Settings, available: Collection[str] = NEEDS) -> None:
    """Everything about ``kd_loss`` and ``kd_config`` that can be wrong, found before anything is trained.

    Args:
        available: which of ``NEEDS`` the run has.

    Raises:
        AlkdError: an unknown loss or setting, a value out of range, a need that is not available.
    """
    for name in settings.distill.kd_config:
        if name not in losses:
            raise AlkdError(losses.unknown(name).replace("kd_loss", "kd_config", 1))
    wanted = wanted_losses(settings)
    for name in wanted:
        losses.get(name).checked(settings, loss_options(settings, name))
    check_needs(wanted, available)


def check_needs(names: Iterable[str], available: Collection[str]) -> None:
    """AlkdError unless ``available`` (of ``NEEDS``) serves every loss in ``names``."""
    for name in names:
        missing = [need for need in NEEDS if need in losses.get(name).needs and need not in available]
        if missing:
            raise AlkdError(
                f"kd_loss: {name!r} needs {' and '.join(missing)}, which this run does not have; "
                f"it has: {', '.join(n for n in NEEDS if n in available) or 'nothing'}"
            )


class CombinedLoss(DistillationLoss):
    """sum over losses of factor * lambda * loss: the factor from ``kd_loss``, lambda the loss's own option ``weight``.

    ``kd_weight`` multiplies the whole and is applied by the trainer, beside ``kd_rec_weight`` for the recommendation
    loss: total = kd_rec_weight * recommendation + kd_weight * this.
    """

    def __init__(self, context: DistillContext, factors: Mapping[str, float]) -> None:
        super().__init__(context, {})
        settings = context.settings
        self.losses: list[DistillationLoss] = [losses.get(name)(context, loss_options(settings, name)) for name in factors]
        self.weights = [factor * loss.options["weight"] for factor, loss in zip(factors.values(), self.losses, strict=True)]
        self.needs = frozenset().union(*(loss.needs for loss in self.losses))  # type: ignore[misc]  # of this combination
        self.parts = nn.ModuleList(self.losses)  # so that their parameters are found

    def epoch_start(self, epoch: int) -> None:
        for loss in self.losses:
            loss.epoch_start(epoch)

    def forward(self, batch: DistillBatch, labelled: DistillBatch | None = None) -> Tensor:
        """The sum on ``batch``; parts that need lists look at ``labelled`` where it is given.

        Few rows of an ordinary batch have a label, so those that have one can come as a batch of their own.
        """
        return torch.stack(
            [
                weight * loss(batch if labelled is None or "lists" not in loss.needs else labelled)
                for weight, loss in zip(self.weights, self.losses, strict=True)
            ]
        ).sum()

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        for loss in self.losses:
            loss.after_step(optimizer)


def build_loss(context: DistillContext) -> CombinedLoss:
    """The loss that ``kd_loss`` and ``kd_config`` of ``context.settings`` ask for.

    It holds the extra modules of its parts (experts, gates) as sub-modules; put it where the optimizer sees them.
    AlkdError as from ``check_losses``, which needs no trained model and can be asked first.
    """
    check_losses(context.settings)
    return CombinedLoss(context, wanted_losses(context.settings))

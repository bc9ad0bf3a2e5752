"""From the setting ``kd_loss`` to one loss: a single one, or a weighted sum of several."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from recbole_alkd.distill.base import NEEDS, DistillationLoss, DistillBatch, DistillContext
from recbole_alkd.registry import losses
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import Settings


def wanted_losses(settings: Settings) -> dict[str, float]:
    """The losses that ``kd_loss`` names, each with its factor; ``kd_loss: name`` is ``kd_loss: {name: 1}``.

    Raises:
        AlkdError: a name that is not registered; a factor that is no number above 0.
    """
    return _factors("kd_loss", settings.distill.kd_loss, list(losses))


def item_losses(settings: Settings) -> dict[str, float]:
    """The losses that ``item_text_loss`` names, each with its factor; {} for ~.

    Raises:
        AlkdError: as from ``wanted_losses``; a loss that needs more than titles.
    """
    wanted = settings.text.item_text_loss
    if wanted is None:
        return {}
    return _factors(
        "item_text_loss", wanted, [name for name in losses if losses.get(name).needs == {"item_text"}]
    )


def _factors(key: str, wanted: Any, allowed: list[str]) -> dict[str, float]:
    wanted = wanted if isinstance(wanted, dict) else {wanted: 1.0}
    if not wanted:
        raise AlkdError(
            f"{key}: an empty mapping is not allowed; "
            f"allowed: a loss, or {{loss: weight}} of {', '.join(allowed)}"
        )
    for name, factor in wanted.items():
        if name not in losses:
            raise AlkdError(losses.unknown(name).replace("kd_loss", key, 1))
        if name not in allowed:
            raise AlkdError(f"{key}: {name!r} needs more than titles; allowed: {', '.join(allowed)}")
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not factor > 0:
            raise AlkdError(f"{key}: weight {factor!r} of {name!r} is not allowed; allowed: a number above 0")
    return {name: float(factor) for name, factor in wanted.items()}


def loss_options(config: Mapping[str, Any], name: str, key: str = "kd_config") -> dict[str, Any]:
    """What ``kd_config`` or ``item_text_config`` says of one loss."""
    options = config.get(name, {})
    if not isinstance(options, dict):
        raise AlkdError(f"{key}: {options!r} of {name!r} is not allowed; allowed: a mapping of settings")
    return options


def check_losses(settings: Settings, available: Collection[str] | None = None) -> None:
    """Everything about ``kd_loss``, ``item_text_loss`` and their options that can be wrong,
    found before anything is trained.

    Args:
        available: which of ``NEEDS`` the run has; all but titles, and these with ``item_text``, when None.

    Raises:
        AlkdError: an unknown loss or setting, a value out of range, a need that is not available.
    """
    if available is None:
        available = [need for need in NEEDS if need != "item_text" or settings.text.item_text]
    for key, config, wanted in (
        ("kd_config", settings.distill.kd_config, wanted_losses(settings)),
        ("item_text_config", settings.text.item_text_config, item_losses(settings)),
    ):
        for name in config:
            if name not in losses:
                raise AlkdError(losses.unknown(name).replace("kd_loss", key, 1))
        for name in wanted:
            try:
                losses.get(name).checked(settings, loss_options(config, name, key))
            except AlkdError as error:
                raise AlkdError(str(error).replace("kd_config", key, 1)) from None
        check_needs(wanted, available, "kd_loss" if key == "kd_config" else "item_text_loss")


def check_needs(names: Iterable[str], available: Collection[str], key: str = "kd_loss") -> None:
    """AlkdError unless ``available`` (of ``NEEDS``) serves every loss in ``names``."""
    for name in names:
        missing = [need for need in NEEDS if need in losses.get(name).needs and need not in available]
        if missing:
            raise AlkdError(
                f"{key}: {name!r} needs {' and '.join(missing)}, which this run does not have; "
                f"it has: {', '.join(n for n in NEEDS if n in available) or 'nothing'}"
                + ("; give item_text an encoder, such as tfidf" if "item_text" in missing else "")
            )


class CombinedLoss(DistillationLoss):
    """sum over losses of factor * lambda * loss: the factor from ``kd_loss``,
    lambda the loss's own option ``weight``.

    ``kd_weight`` multiplies the whole and is applied by the trainer, beside ``kd_rec_weight`` for the
    recommendation loss: total = kd_rec_weight * recommendation + kd_weight * this.

    Args:
        factors: loss -> factor. options: loss -> its options, as ``kd_config`` has them.
    """

    def __init__(
        self, context: DistillContext, factors: Mapping[str, float], options: Mapping[str, Any]
    ) -> None:
        super().__init__(context, {})
        self.losses: list[DistillationLoss] = [
            losses.get(name)(context, loss_options(options, name)) for name in factors
        ]
        self.weights = [
            factor * loss.options["weight"]
            for factor, loss in zip(factors.values(), self.losses, strict=True)
        ]
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

    It holds the extra modules of its parts (experts, gates) as sub-modules; put it where the optimizer sees
    them. AlkdError as from ``check_losses``, which needs no trained model and can be asked first.
    """
    check_losses(context.settings)
    return CombinedLoss(context, wanted_losses(context.settings), context.settings.distill.kd_config)


def build_item_loss(context: DistillContext) -> CombinedLoss:
    """The loss that ``item_text_loss`` and ``item_text_config`` ask for, which needs neither labels nor a
    teacher."""
    check_losses(context.settings)
    return CombinedLoss(context, item_losses(context.settings), context.settings.text.item_text_config)

"""DSL: a sparse student whose pattern of zeros moves while it trains. There is no teacher in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recbole_alkd.distill.base import DistillationLoss, DistillBatch, DistillContext
from recbole_alkd.registry import losses
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import Settings


@torch.no_grad()
def moved_mask(weight: Tensor, mask: Tensor, gradient: Tensor, ratio: float) -> Tensor:
    """A mask with as many ones: the smallest weights go, the largest gradients come in.

    Args:
        weight: the tensor, 0 where ``mask`` is False.
        ratio: share of the active weights that go.

    Weights that go may come back at once and then keep their value; weights that come in start at 0. Where
    gradients are equal (most are 0: items that are not in the batch), chance decides.
    """
    active = int(mask.sum())
    smallest = weight.numel() - active + math.ceil(ratio * active)
    if smallest == 0:
        return mask
    keep = mask & (weight.abs() > weight.abs().flatten().kthvalue(smallest).values)
    wanted = active - int(keep.sum())
    growth = gradient.to_dense().abs().masked_fill(keep, -torch.inf).flatten()
    shuffled = torch.randperm(len(growth), device=growth.device)
    grown = shuffled[growth[shuffled].topk(wanted).indices]
    moved = keep.flatten().clone()
    moved[grown] = True
    return moved.view_as(mask)


@losses.register("dsl")
class DynamicSparseLearning(DistillationLoss):
    """No term of its own (0): masks the student's matrices after each step and moves the masks every
    ``update_every`` steps.

    Source: Wang et al., "Dynamic Sparse Learning" (WSDM 2024). Each weight of a tensor with two or more
    dimensions is kept with probability ``density`` before the first epoch. An update takes the smallest
    ``ratio`` of the active weights out and lets as many in where the gradient of the recommendation loss is
    largest; the ratio falls from ``ratio`` to ``ratio_end`` by a cosine over the epochs of the run. The
    number of active weights does not change. Biases and normalisation layers stay dense.

    It trains by the recommendation loss: ``kd_rec_weight`` above 0 and, for what the authors did,
    ``kd_init: scratch``. ``after_step`` must be called after every optimizer step.

    Memory: one boolean per weight, and one copy of the largest tensor during an update.
    Options: ``density`` (0.5), ``ratio`` (0.5), ``ratio_end`` (0.005), ``update_every`` (100 steps).
    """

    defaults: ClassVar[dict[str, Any]] = {
        "density": 0.5,
        "ratio": 0.5,
        "ratio_end": 0.005,
        "update_every": 100,
    }
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        "density": (0.001, 1),
        "ratio": (0, 1),
        "ratio_end": (0, 1),
        "update_every": (1, float("inf")),
    }

    def __init__(self, context: DistillContext, options: Mapping[str, Any]) -> None:
        super().__init__(context, options)
        self.masked: list[tuple[nn.Parameter, Tensor]] = []
        self.ratio = self.options["ratio"]
        self.steps = 0

    @classmethod
    def checked(cls, settings: Settings, options: Mapping[str, Any]) -> dict[str, Any]:
        if not settings.distill.kd_rec_weight > 0:
            raise AlkdError(
                "kd_rec_weight: 0.0 is not allowed with kd_loss dsl, which trains by the recommendation loss "
                "alone"
            )
        return super().checked(settings, options)

    def epoch_start(self, epoch: int) -> None:
        first, last = self.options["ratio"], self.options["ratio_end"]
        progress = min(1.0, epoch / self.context.epochs)
        self.ratio = last + (first - last) * (1 + math.cos(math.pi * progress)) / 2
        if not self.masked:
            for parameter in self.context.student.model.parameters():
                if parameter.dim() >= 2:
                    self.masked.append((parameter, torch.rand_like(parameter) < self.options["density"]))
            self._mask_weights()

    def get_extra_state(self) -> dict[str, Any]:
        """The masks and the number of steps, for a stage that resumes."""
        return {"steps": self.steps, "masks": [mask for _, mask in self.masked]}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        parameters = [
            parameter for parameter in self.context.student.model.parameters() if parameter.dim() >= 2
        ]
        masks = [
            mask.to(parameter.device) for parameter, mask in zip(parameters, state["masks"], strict=False)
        ]
        self.steps, self.masked = state["steps"], list(zip(parameters, masks, strict=False))

    def forward(self, batch: DistillBatch) -> Tensor:
        return batch.student_session.new_zeros(())

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        self._mask_weights()
        self.steps += 1
        if self.steps % self.options["update_every"] == 0:
            self.masked = [
                (
                    parameter,
                    mask
                    if parameter.grad is None
                    else moved_mask(parameter, mask, parameter.grad, self.ratio),
                )
                for parameter, mask in self.masked
            ]
            self._mask_weights()

    @torch.no_grad()
    def _mask_weights(self) -> None:
        for parameter, mask in self.masked:
            parameter.mul_(mask)

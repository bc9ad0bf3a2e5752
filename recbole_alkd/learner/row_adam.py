"""Adam that touches only the rows a sparse gradient names, and is plain Adam for every other parameter.

torch has both halves (``Adam``, which refuses sparse gradients, and ``SparseAdam``, which refuses dense
ones); a backbone has item tables and weights side by side.
Kingma & Ba, "Adam: A Method for Stochastic Optimization" (ICLR 2015).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from recbole_alkd.model.row_sums import row_sums


class RowAdam(torch.optim.Optimizer):
    """Adam for dense gradients; for sparse ones, moments and rows move only where the gradient has a row.

    Args:
        params: parameters; a sparse gradient must be sparse in its first dimension.
        lr, betas, eps: as in ``torch.optim.Adam``.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        (beta1, beta2), grad = group["betas"], parameter.grad
        assert grad is not None
        scale = group["lr"] / (1 - beta1 ** state["step"])
        correction = (1 - beta2 ** state["step"]) ** 0.5
        if not grad.is_sparse:
            mean = state["exp_avg"].lerp_(grad, 1 - beta1)
            square = state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
            parameter.addcdiv_(mean, square.sqrt().div_(correction).add_(group["eps"]), value=-scale)
            return
        rows, values = row_sums(grad)
        mean = state["exp_avg"].index_select(0, rows).lerp_(values, 1 - beta1)
        square = state["exp_avg_sq"].index_select(0, rows).mul_(beta2)
        square.addcmul_(values, values, value=1 - beta2)
        state["exp_avg"].index_copy_(0, rows, mean)
        state["exp_avg_sq"].index_copy_(0, rows, square)
        # both are copied: from here on their memory is used for the step
        step = mean.div_(square.sqrt_().div_(correction).add_(group["eps"]))
        parameter.index_add_(0, rows, step, alpha=-scale)

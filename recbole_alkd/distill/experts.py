"""Experts with a gate that picks one of them, shared by DE (all of the method) and HTD (its group
assignment)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, one_hot, relu, softmax

from recbole_alkd.distill.ranks import gumbel_like


def temperature(start: float, end: float, epoch: int, epochs: int) -> float:
    """start (end / start)^(e / epochs) with e = max(epoch - 1, 0): the first two epochs use ``start``,
    as published."""
    return max(end, start * (end / start) ** (max(epoch - 1, 0) / epochs))


class Experts(nn.Module):
    """M small networks that map student vectors to teacher vectors, and a gate on the teacher vector that
    picks among them.

    Expert m: Linear(d_s, h), ReLU, Linear(h, d_t) with h = (d_s + d_t) // 2. Gate: Linear(d_t, M), then a
    Gumbel softmax. With d_s = 10, d_t = 100, M = 30 these are 189,180 parameters, used in training only.
    """

    def __init__(self, student_size: int, teacher_size: int, count: int) -> None:
        super().__init__()
        hidden = max(1, (student_size + teacher_size) // 2)
        self.count = count
        self.gate = nn.Linear(teacher_size, count)
        self.first = nn.Linear(student_size, count * hidden)  # all experts' first layers side by side
        bound = 1 / math.sqrt(hidden)  # as nn.Linear has it
        self.second = nn.Parameter(torch.empty(count * hidden, teacher_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, teacher_size).uniform_(-bound, bound))

    def mix(self, teacher: Tensor, temperature: float) -> Tensor:
        """How much each expert counts for each teacher vector, (n, d_t) -> (n, M); rows sum to 1.
        Fresh noise in every call."""
        if self.count == 1:
            return teacher.new_ones(len(teacher), 1)
        logits = log_softmax(self.gate(teacher), dim=1)
        logits = logits + gumbel_like(logits)
        if temperature < 1e-4:
            # The limit of the softmax. Near it the gate's gradient is zero but for rare ties,
            # where it is 1 / temperature.
            return one_hot(logits.argmax(1), self.count).to(teacher.dtype)
        return softmax(logits / temperature, dim=1)

    def forward(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Sum over entities of ||teacher - mixed experts(student)||^2, a scalar, from (n, d_s) and (n, d_t).

        Memory: the hidden layer, (n, M h), and the gate, (n, M);
        the mixture is taken before the second layer.
        """
        mix = self.mix(teacher, temperature)
        hidden = relu(self.first(student)).view(len(student), self.count, -1)
        mixed = (mix.unsqueeze(2) * hidden).flatten(1)
        return (teacher - mixed @ self.second - mix @ self.bias).square().sum()

    @torch.no_grad()
    def group(self, teacher: Tensor) -> Tensor:
        """The expert that the gate prefers, without noise: (n, d_t) -> (n,)."""
        return self.gate(teacher).argmax(1)

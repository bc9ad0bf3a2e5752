"""A LoRA adapter on an encoder of titles, trained so that items clicked after each other have titles alike.

Pairs of consecutive items of training sessions under InfoNCE (``contrast.py``), on the mean hidden state of
the layer whose vectors are used. Validation pairs say which step is kept, 0 included: that is the frozen
encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_alkd.llm.contrast import TEMPERATURE, info_nce, log_shares

_RANK, _ALPHA = 16, 32
_BATCH, _RATE, _WARM_UP = 64, 3e-4, 20
_CHECK_EVERY, _CHECKED = 50, 512  # steps; validation pairs that are looked at
_PATIENCE = 3  # checks

# Mean hidden states (m, d) of texts, with a gradient where the model has one, and the tokens that were read.
Encode = Callable[[Any, Sequence[str]], "tuple[Tensor, int]"]


@dataclass(frozen=True)
class Tuning:
    """What an encoder is tuned on.

    Attributes:
        pairs: sources (P,), targets (P,) of consecutive items, as places in the texts. valid: the same of
            validation sessions.
        steps: at most. seed: of the adapter and the order of pairs.
    """

    pairs: tuple[np.ndarray, np.ndarray]
    valid: tuple[np.ndarray, np.ndarray]
    steps: int
    seed: int


@dataclass(frozen=True)
class Tuned:
    """What came of it: the step that was kept, the validation losses of every check from step 0 on, the
    tokens read.
    """

    step: int
    losses: tuple[float, ...]
    tokens: int


def tune(
    model: Any, texts: Sequence[str], tuning: Tuning, encode: Encode, centre: Tensor
) -> tuple[Any, Tuned]:
    """Put an adapter on ``model`` and train it.

    Args:
        model: as ``load_text_model`` gives it. encode: how a model reads texts.
        centre: (d,) mean vector of all texts under the frozen model; what is common to all titles tells none
            apart.

    Returns:
        The model with the adapter of the best step, in evaluation mode, and what came of it.
    """
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng(devices=[centre.device] if centre.device.type == "cuda" else []):
        torch.manual_seed(tuning.seed)
        tuned = get_peft_model(model, LoraConfig(r=_RANK, lora_alpha=_ALPHA, target_modules="all-linear"))
    weights = [one for one in tuned.parameters() if one.requires_grad]
    log_scale = torch.tensor(
        -np.log(TEMPERATURE), dtype=torch.float32, device=centre.device, requires_grad=True
    )
    optimizer = torch.optim.Adam([*weights, log_scale], lr=_RATE)
    source, target = tuning.pairs
    log_q = log_shares(target, len(texts)).to(centre.device)
    rng = np.random.default_rng(tuning.seed)
    some = rng.permutation(len(tuning.valid[0]))[:_CHECKED]
    read = 0

    def loss_of(sources: np.ndarray, targets: np.ndarray) -> Tensor:
        nonlocal read
        different, place = np.unique(np.concatenate([sources, targets]), return_inverse=True)
        hidden, tokens = encode(tuned, [texts[k] for k in different])
        read += tokens
        pair = (hidden - centre)[torch.from_numpy(place).to(centre.device)]
        items = torch.from_numpy(targets).to(centre.device)
        return info_nce(pair[: len(sources)], pair[len(sources) :], log_scale.exp(), log_q[items], items)

    def checked() -> float:
        tuned.eval()
        with torch.no_grad():
            return float(loss_of(tuning.valid[0][some], tuning.valid[1][some])) if len(some) else float("nan")

    losses, best, kept = [checked()], 0, [one.detach().clone() for one in weights]
    for step in range(1, (tuning.steps if len(source) else 0) + 1):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, step / _WARM_UP)
        tuned.train()
        drawn = rng.integers(len(source), size=_BATCH)
        loss = loss_of(source[drawn], target[drawn])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % _CHECK_EVERY and step != tuning.steps:
            continue
        losses.append(checked())
        if not len(some) or losses[-1] < min(losses[:-1]):
            best, kept = step, [one.detach().clone() for one in weights]
        elif len(losses) - 1 - int(np.argmin(losses)) >= _PATIENCE:
            break
    with torch.no_grad():
        for one, value in zip(weights, kept, strict=True):
            one.copy_(value)
    return tuned.eval(), Tuned(best, tuple(losses), read)

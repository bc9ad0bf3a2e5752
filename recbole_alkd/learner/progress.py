"""What a stage that is killed resumes from: everything that decides its next epoch,
as it was between two epochs.

A stage that resumes ends with the numbers of one that was never interrupted, on a CPU digit for digit (sums
on a GPU have no fixed order, so there two runs of one seed differ in their last digits anyway). So what is
kept is not only the weights: the optimizer, the extra state of losses, every generator of random numbers, the
places in the batches, and what early stopping knows.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

from recbole_alkd.learner.batches import Cycle

SECONDS = 20.0  # of training between two writes; a stage that is shorter writes nothing
SHARE = 0.02  # of the time that writing may take
# packages whose modules have no state outside of their parameters, buffers and torch's extra state
KNOWN = {"torch", "recbole", "recbole_alkd"}


class ProgressClock:
    """Says when it is time to write. ``earlier``: seconds of training before this start."""

    def __init__(self, earlier: float = 0.0) -> None:
        self.earlier, self._begin = earlier, perf_counter()
        self._last, self._wait = self._begin, SECONDS

    @property
    def seconds(self) -> float:
        """Seconds of training, those of earlier starts among them."""
        return self.earlier + perf_counter() - self._begin

    def due(self) -> bool:
        return perf_counter() - self._last >= self._wait

    def wrote(self, took: float) -> None:
        """Writing took so many seconds: the next one waits long enough for that."""
        self._last, self._wait = perf_counter(), max(SECONDS, took / SHARE)


def keeps_all_state(model: nn.Module) -> bool:
    """Whether all that decides the training of ``model`` and of what stands in its slots is in
    ``model.state_dict()``.

    Modules of a plug-in's own may hold anything; they are trusted once they have ``get_extra_state``,
    torch's way to say so.
    """
    return all(
        type(module).__module__.partition(".")[0] in KNOWN
        or type(module).get_extra_state is not nn.Module.get_extra_state
        for module in model.modules()
    )


def random_state() -> dict[str, Any]:
    """Every generator that ``init_seed`` seeds, as plain data."""
    version, words, gauss = random.getstate()
    used = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    # a tuple: name, keys, place, and what is left of a pair of normal numbers
    numbers: Any = np.random.get_state()
    name, keys, at, has_gauss, cached = numbers
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), at, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if used else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, at, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), at, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def loader_places(loaders: Sequence[Any]) -> list[Any]:
    """Where each loader is, between two epochs."""
    return [one.place() if isinstance(one, Cycle) else _generator_state(one) for one in loaders]


def find_places(loaders: Sequence[Any], places: Sequence[Any]) -> None:
    for one, place in zip(loaders, places, strict=True):
        if isinstance(one, Cycle):
            one.find(place)
        elif place is not None:
            one.generator.set_state(place)


def on_cpu(value: Any) -> Any:
    """Copies of the tensors of a state dict on the CPU, at any depth."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: on_cpu(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [on_cpu(item) for item in value]
    return copy.copy(value)


def _generator_state(loader: Any) -> Any:
    generator = getattr(loader, "generator", None)
    return None if generator is None else generator.get_state()

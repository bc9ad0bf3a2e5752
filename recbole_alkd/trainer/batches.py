"""Batches of a loader without an end, whose place can be kept and found again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class Cycle:
    """One pass over ``loader`` after the other."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self._pass: Iterator[Any] | None = None
        self._begun: Any = None  # the state of the loader's generator before this pass
        self._taken = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._pass is None:
            self._begin()
        assert self._pass is not None
        try:
            batch = next(self._pass)
        except StopIteration:
            self._begin()
            batch = next(self._pass)
        self._taken += 1
        return batch

    def place(self) -> dict[str, Any]:
        """Where it is: what the pass began with, and how many batches of it are taken. Plain data."""
        return {"begun": self._begun, "taken": self._taken}

    def find(self, place: dict[str, Any]) -> None:
        """Go to where ``place`` was; the batches before it are made once more, which decides nothing that comes after."""
        if place["begun"] is None:
            return
        self.loader.generator.set_state(place["begun"])
        self._begin()
        assert self._pass is not None
        for _ in range(place["taken"]):
            next(self._pass)
        self._taken = place["taken"]

    def _begin(self) -> None:
        generator = getattr(self.loader, "generator", None)
        self._begun = None if generator is None else generator.get_state()
        self._pass, self._taken = iter(self.loader), 0


class CycledBatches(Cycle):
    """``steps`` batches an epoch from a loader that is begun anew whenever it ends."""

    def __init__(self, loader: Any, steps: int) -> None:
        super().__init__(loader)
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.steps):
            yield next(self)

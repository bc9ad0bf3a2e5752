"""What is done when a run has its report: rooms that stand above the trainer register it, and none of it can
make a run fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from logging import Logger
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class FinishedRun:
    """A run at its end.

    Attributes:
        model: the distilled student, as it is served. train: the training part of the data. folder: the run
            folder.
        report: what ``result.json`` will hold. settings: the run's.
        stages: stage -> its model and the state that was evaluated. labels: row -> its usable label.
        part, names: the data set of these rows (the training part, or items), and what each row is called;
            None: the training part, by its sessions.
        hints: the rules in the prompts of the labels, made when they are asked for.
    """

    model: Any
    train: Any
    folder: Path
    report: dict[str, Any]
    settings: Any
    stages: Mapping[str, tuple[Any, dict[str, Any]]] = field(default_factory=dict)
    labels: Mapping[int, Any] = field(default_factory=dict)
    part: Any = None
    names: Any = None
    hints: Callable[[], Sequence[str]] = tuple


Ending = Callable[[FinishedRun, Logger], str | None]  # gives what stands at the very end of the log
_endings: dict[str, Ending] = {}


def at_end(name: str, ending: Ending) -> None:
    """Have ``ending`` called with every finished run, once for a name."""
    _endings[name] = ending


def finish(run: FinishedRun, logger: Logger) -> list[str]:
    """Call what was registered; gives the last words of the log. What goes wrong there is a warning: the run
    has its result."""
    last = []
    for name, ending in _endings.items():
        try:
            if words := ending(run, logger):
                last.append(words)
        except Exception as error:
            words = str(error).splitlines()[0] if str(error) else type(error).__name__
            logger.warning(f"{name}: {words}")
    return last

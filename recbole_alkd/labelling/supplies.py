"""What a teacher's preparation needs of the run: cases for hints, LoRA examples.
Made on the driver, handed over as data."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recbole_alkd.files import write_whole
from recbole_alkd.teacher.base import Instance, LLMTeacher, LoraExample, Materials
from recbole_alkd.teacher.local.lora import kept_random_state

logger = logging.getLogger(__name__)
FOLDER = "examples"  # in the teacher's cache
_FORM = 2  # of the file; 1 had fewer held-out examples

Examples = tuple[tuple[LoraExample, ...], tuple[LoraExample, ...]]  # to train on, and held out


def _nothing() -> list[LoraExample]:
    return []


@dataclass(frozen=True)
class Supplies:
    """How to make what a teacher may need. It stays in the process of the run:
    making examples trains recommenders.

    Attributes:
        hint_cases: gives training sessions, with the teacher recommender's own top 20 as candidates, for the
            LLM to summarise into hints.
        lora_examples: gives the examples that an adapter is trained on (it trains the cross-fitted
            recommenders).
        lora_held_out: gives those that judge it, none of which it was trained on.
    """

    hint_cases: Callable[[], list[Instance]]
    lora_examples: Callable[[], list[LoraExample]]
    lora_held_out: Callable[[], list[LoraExample]] = _nothing

    def materials(self, teacher: LLMTeacher, hints: tuple[str, ...] | None) -> Materials:
        """What ``teacher`` needs, as data. LoRA examples are made once for their key and kept in a file of
        its cache."""
        if not teacher.needs() & {"lora_examples", "lora_held_out"}:
            return Materials(hints)
        context = teacher.context
        with kept_random_state():
            examples, held_out = self._lora(context.cache / FOLDER, context.lora_key)
        return Materials(hints, examples, held_out)

    def _lora(self, folder: Path, key: str) -> Examples:
        from filelock import FileLock, Timeout

        if not key:
            return tuple(self.lora_examples()), tuple(self.lora_held_out())
        file = folder / f"{key}.json"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f".{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.info("another process is making these LoRA examples: waiting for it")
            lock.acquire()
        try:
            kept = read_examples(file)
            if kept is None:
                kept = tuple(self.lora_examples()), tuple(self.lora_held_out())
                write_examples(file, *kept)
            return kept
        finally:
            lock.release()


def write_examples(file: Path, examples: Sequence[LoraExample], held_out: Sequence[LoraExample]) -> None:
    """Write examples to ``file``, as a whole or not at all."""
    parts = {"examples": [asdict(one) for one in examples], "held_out": [asdict(one) for one in held_out]}
    write_whole(file, json.dumps({"form": _FORM, **parts}))


def read_examples(file: Path) -> Examples | None:
    """What ``write_examples`` wrote; None where there is no such file, or what is there cannot be used."""
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["form"] == _FORM:
            return tuple(_example(one) for one in content["examples"]), tuple(
                _example(one) for one in content["held_out"]
            )
    return None


def _example(values: dict[str, Any]) -> LoraExample:
    lists = {name: values[name] for name in ("history", "candidates", "ranking")}
    if not all(
        isinstance(part, list) and all(isinstance(item, str) for item in part) for part in lists.values()
    ):
        raise TypeError("an example has lists of item tokens")
    target, natural = values["target"], values["natural"]
    if not isinstance(target, str) or target not in values["candidates"] or not isinstance(natural, bool):
        raise TypeError("a target is one of the candidates")
    return LoraExample(
        tuple(values["history"]), tuple(values["candidates"]), target, natural, tuple(values["ranking"])
    )

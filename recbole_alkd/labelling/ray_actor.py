"""What runs on the nodes of a Ray cluster: one local LLM with its adapter, which answers questions.

It gets data alone: the context, the hints, and the files of the adapter. Weights are found on the node by the
name ``llm_model``, as everywhere; that they are those of the driver is checked by their hash.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recbole_alkd.labelling.question import Question
from recbole_alkd.labels.network import WORKER
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.teacher.base import Answer, Asking, LLMTeacher, Materials


def actor_material(teacher: LLMTeacher, materials: Materials) -> dict[str, Any]:
    """What an actor is made of: the prepared ``teacher`` as data.

    The keys: context, hints, adapter (relative name -> content), identity and version; and for the driver
    gpu, threads and group (questions that are sent together).
    """
    import recbole_alkd

    settings = teacher.context.settings
    report = teacher.lora_report
    adapter = {}
    if report:
        folder = Path(report["adapter"])
        adapter = {
            f"{folder.parent.name}/{folder.name}/{file.relative_to(folder)}": file.read_bytes()
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }
    gpu = (settings.teacher.llm_device or teacher.context.device).partition(":")[0] in ("cuda", "auto")
    return {
        "context": replace(teacher.context, log_metric=None, show_progress=False),
        "hints": materials.hints,
        "adapter": adapter,
        "identity": teacher.identity,
        "version": recbole_alkd.__version__,
        "gpu": gpu,
        "threads": settings.teacher.llm_threads,
        "group": 4 * (settings.teacher.llm_batch_size or (8 if gpu else 1)),
    }


def check_version(driver: str) -> None:
    """AlkdError where this package is of another version here than in the driver."""
    import recbole_alkd

    if recbole_alkd.__version__ != driver:
        raise AlkdError(
            f"recbole_alkd is {recbole_alkd.__version__} here, and {driver} in the driver; "
            "needed: the same version on every node"
        )


class RayActor:
    """One local LLM on a node."""

    def __init__(self, material: dict[str, Any]) -> None:
        os.environ[WORKER] = "1"
        self._material = material
        self._teacher: LLMTeacher | None = None

    def load(self) -> None:
        """Load the LLM and its adapter.

        Raises:
            AlkdError: this node has another version of this package, or other weights.
        """
        from recbole_alkd.registry import teachers

        material = self._material
        check_version(material["version"])
        settings = material["context"].settings
        # adapters are found beside the label store, which is not here
        self._cache = tempfile.TemporaryDirectory(prefix="recbole_alkd-")
        for name, content in material["adapter"].items():
            file = Path(self._cache.name) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        teacher = teachers.get(settings.teacher.llm_teacher)(
            replace(material["context"], cache=Path(self._cache.name))
        )
        if teacher.identity != material["identity"]:
            raise AlkdError(
                f"llm_model: {settings.teacher.llm_model!r} is not the same here as in the driver "
                f"({teacher.identity} and {material['identity']}); needed: the same weights on every node"
            )
        teacher.prepare(Materials(hints=material["hints"]))
        self._teacher = teacher

    def answer(self, questions: Sequence[Question]) -> list[tuple[int, Answer]]:
        """The answers, each with the number of its question."""
        assert self._teacher is not None, "load comes first"
        instances = [question.instance for question in questions if question.instance]
        groups = self._teacher.answers(instances, Asking())
        return [(instance.row, answer) for group in groups for instance, answer in group]

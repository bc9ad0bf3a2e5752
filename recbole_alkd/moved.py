"""Modules that moved stay importable under their old names, so that plug-ins and notebooks of earlier
versions run."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

_LLM = (
    "adapters",
    "api_key",
    "body_limit",
    "bundled",
    "chat_client",
    "likelihood",
    "model_kind",
    "models",
    "prices",
    "reading",
)
_LLM_LATER = ("refusals", "replies", "text_vectors")
_ANSWERS = ("blocks", "json_blocks", "mentions", "rows", "parse")
_LOCAL = ("generate", "judging", "local_check", "lora", "lora_trainer", "measuring", "scorers")
_LEARNER = (
    "batches", "collector", "distillation", "item_text", "late_fusion", "progress", "row_adam",
    "search_space", "table_rows",
)  # fmt: skip
MOVED = {
    "config": "settings.groups",
    **{name: f"settings.{name}" for name in ("error", "keys", "reading", "stock")},
    **{f"teacher.{name}": f"llm.{name}" for name in (*_LLM, *_LLM_LATER)},
    **{f"{old}.{name}": f"teacher.answers.{name}" for old in ("teacher", "llm.answers") for name in _ANSWERS},
    "teacher.thoughts": "llm.answers.thoughts",
    **{f"teacher.{name}": f"teacher.local.{name}" for name in _LOCAL},
    **{f"teacher.{name}": f"labelling.{name}" for name in ("batch", "candidates", "estimate", "interrupt")},
    "teacher.labelling": "labelling.collect",
    **{f"trainer.{name}": f"learner.{name}" for name in _LEARNER},
    "serving.tensors": "tensors",
    "trainer.folds": "labelling.folds",
    "trainer.group": "processes.group",
    **{f"{room}.instances": "labelling.training_rows" for room in ("trainer", "labelling")},
    "data.instances": "data.rows",
    **{f"{room}.simple": "model.baselines" for room in ("trainer", "model")},
    "trainer.deciding": "trainer.identity",
    "trainer.label_only": "trainer.label_command",
    "trainer.reporting": "trainer.report",
    "trainer.ranks": "model.scoring",
    "trainer.rounds": "labelling.rounds",
    "trainer.session_knn": "learner.counting_trainer",
    "trainer.stage": "learner.stage_trainer",
    "trainer.table_distillation": "learner.list_edges",
}  # old name -> new name, both below this package
_PACKAGE = __name__.rpartition(".")[0]


class _Moved(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module of an old name, and gives the module of the new name in its place:
    one module, two names."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        package, _, name = fullname.partition(".")
        if package != _PACKAGE or name not in MOVED:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        name = MOVED[module.__name__.partition(".")[2]]
        sys.modules[module.__name__] = importlib.import_module(f"{_PACKAGE}.{name}")


def install() -> None:
    """Make the old names importable. A second call changes nothing."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.append(_Moved())

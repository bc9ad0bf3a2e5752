"""What makes two runs, or two stages, the same: hashes of settings, seeds of stages,
and which settings decide."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from recbole_alkd.settings.declared import declared
from recbole_alkd.settings.field import fields_of
from recbole_alkd.settings.groups import FIELDS, GROUPS, TextSettings

# RecBole settings that do not change a result, and so do not make another run of it.
_RECBOLE_VOLATILE = {
    "show_progress", "state", "checkpoint_dir", "log_wandb", "wandb_project", "gpu_id", "device",
    "save_dataset",
    "dataset_save_path", "save_dataloaders", "dataloaders_save_path", "local_rank", "config_files",
    "data_path",
    "data_files", "worker", "use_gpu", "nproc", "world_size",
}  # fmt: skip
# Groups that come into play after the recommenders are trained.
LATER_GROUPS = ("selection", "teacher", "lora", "distill")
# Titles are for the student.
TEXT = frozenset(fields_of(TextSettings))
# Of these, what is laid over a student that is trained already.
SERVED = frozenset({"serve_text_dim", "serve_text_weight"})


def volatile() -> set[str]:
    """Settings that do not change what comes out: RecBole's,
    and every field that says so (``decides=False``)."""
    own = {key: spec for key, spec in {**FIELDS, **declared.fields()}.items() if not spec.decides}
    return _RECBOLE_VOLATILE | own.keys()


def later() -> set[str]:
    """Settings that come into play after the recommenders are trained."""
    keys = {key for group in LATER_GROUPS for key in fields_of(GROUPS[group])}
    return keys | {key for group in LATER_GROUPS for key in declared.fields(group)}


def settings_hash(values: Mapping[str, Any]) -> str:
    """Ten hex digits that are the same for the same settings, in any order."""
    text = json.dumps(values, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def stage_seed(seed: int, *names: object) -> int:
    """The seed of one stage, from the run's seed and the stage's name, so that a restarted stage repeats
    itself."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") & 0x7FFFFFFF

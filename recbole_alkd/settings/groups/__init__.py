"""The settings of ALKDRec: flat YAML keys as RecBole has them, typed, checked, and never evaluated as code.

Every setting is a field of one of these frozen dataclasses; its flat key is the field's name. ``FIELDS`` has
what each takes and what it is for. ``properties/model/ALKDRec.yaml`` and ``docs/reference/settings.md`` are
made from it (``recbole_alkd.reference``).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from recbole_alkd.settings.field import Field, fields_of
from recbole_alkd.settings.groups.distill import DistillSettings
from recbole_alkd.settings.groups.group import Group
from recbole_alkd.settings.groups.recommenders import BackboneSettings, TextSettings, TrainingSettings
from recbole_alkd.settings.groups.run import PluginSettings, ReportSettings
from recbole_alkd.settings.groups.selection import SelectionSettings
from recbole_alkd.settings.groups.sessions import SessionSettings
from recbole_alkd.settings.groups.teacher import LoraSettings, TeacherSettings

__all__ = [
    "FIELDS",
    "GROUPS",
    "SESSION_KEYS",
    "BackboneSettings",
    "DistillSettings",
    "Field",
    "Group",
    "LoraSettings",
    "PluginSettings",
    "ReportSettings",
    "SelectionSettings",
    "SessionSettings",
    "Settings",
    "TeacherSettings",
    "TextSettings",
    "TrainingSettings",
]  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """All settings of one run, in groups."""

    session: SessionSettings
    backbone: BackboneSettings
    training: TrainingSettings
    text: TextSettings
    selection: SelectionSettings
    teacher: TeacherSettings
    lora: LoraSettings
    distill: DistillSettings
    report: ReportSettings
    plugin: PluginSettings

    @property
    def lora_examples(self) -> int:
        """How many examples LoRA is trained on at most; by themselves as many as labels are asked for,
        up to 1000."""
        return self.lora.lora_examples or min(self.selection.budget_labels, 1000)

    @property
    def lora_held_out(self) -> int:
        """How many examples judge the adapter at most; by themselves half as many as train it, 10 to 200."""
        given = self.lora.lora_held_out
        return min(200, max(10, self.lora_examples // 2)) if given is None else given

    def flat(self) -> dict[str, Any]:
        """Every key with its value, as YAML has them."""
        return {key: value for group in vars(self).values() for key, value in group.flat().items()}


GROUPS: dict[str, type[Group]] = {
    "session": SessionSettings,
    "backbone": BackboneSettings,
    "training": TrainingSettings,
    "text": TextSettings,
    "selection": SelectionSettings,
    "teacher": TeacherSettings,
    "lora": LoraSettings,
    "distill": DistillSettings,
    "report": ReportSettings,
    "plugin": PluginSettings,
}  # attribute of Settings -> its class
FIELDS: dict[str, Field] = {key: spec for group in GROUPS.values() for key, spec in fields_of(group).items()}
SESSION_KEYS = tuple(fields_of(SessionSettings))

# names that stood here in earlier versions -> the module of this room that has them
_ELSEWHERE = {
    "AlkdError": "error",
    **dict.fromkeys(("is_null", "read_yaml", "read_yaml_file"), "text"),
    **dict.fromkeys(("allowed_words", "is_ours", "parse", "read_settings"), "reading"),
    **dict.fromkeys(("settings_hash", "stage_seed"), "identity"),
}


def __getattr__(name: str) -> Any:
    if name in _ELSEWHERE:
        return getattr(importlib.import_module(f"recbole_alkd.settings.{_ELSEWHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""A run as the recommender of one role sees it, with or without settings of its own laid over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recbole.data.dataloader import TrainDataLoader

from recbole_alkd.model.backbone import role_config
from recbole_alkd.settings import reading
from recbole_alkd.settings.field import fields_of
from recbole_alkd.settings.groups import Settings, TrainingSettings
from recbole_alkd.settings.reading import settings_of

# Settings of a run that a recommender is trained under; those of its own model stand in the model's YAML.
RUN_KEYS = (
    "learning_rate",
    "train_batch_size",
    *fields_of(TrainingSettings),
)


@dataclass(frozen=True)
class RoleRun:
    """The run as the recommender of one role sees it: RecBole's Config, our settings, the training loader."""

    config: Any
    settings: Settings
    train_data: Any

    @classmethod
    def of(cls, config: Any, settings: Settings, train_data: Any, role: str) -> RoleRun:
        """The run's own; a model may have a learning rate and a batch size of its own, in its YAML."""
        own, viewed = cls(config, settings, train_data), role_config(config, settings, role)
        pace = {
            key: viewed[key] for key in ("learning_rate", "train_batch_size") if viewed[key] != config[key]
        }
        return own.laid(role, pace) if pace else own

    @property
    def learning_rate(self) -> float:
        return float(self.config["learning_rate"])

    @property
    def batch_size(self) -> int:
        return int(self.config["train_batch_size"])

    def laid(self, role: str, values: Mapping[str, Any]) -> RoleRun:
        """The run with ``values`` laid over it, and without tuning."""
        config, data = laid_over(self.config, role, values), self.train_data
        if config["train_batch_size"] != self.batch_size:
            data = TrainDataLoader(config, data._dataset, None, shuffle=data.shuffle)
        settings = settings_of(config)
        return RoleRun(config, settings, data)


def laid_over(config: Any, role: str, values: Mapping[str, Any]) -> Any:
    """A copy of RecBole's Config with ``values`` laid over it for the recommender of ``role``, as a run with
    them has it.
    """
    flat = {**config.final_config_dict, "student_tune": 0, "student_search": None}
    flat.update({key: value for key, value in values.items() if key in RUN_KEYS})
    own = {key: value for key, value in values.items() if key not in RUN_KEYS}
    flat[f"{role}_config"] = {**(flat.get(f"{role}_config") or {}), **own}
    return reading.laid_over(config, flat)

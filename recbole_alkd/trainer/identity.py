"""Which settings decide the outcome of a run or of one of its stages:
what names a run folder, a shared stage, a result."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from recbole_alkd.learner.base import Learner, learner_class
from recbole_alkd.learner.search_space import tuning_facts
from recbole_alkd.model.backbone import role_config
from recbole_alkd.processes.group import place
from recbole_alkd.settings.groups import Settings
from recbole_alkd.settings.identity import SERVED, TEXT, later, settings_hash, volatile

ROLES = ("student", "teacher")


def versions() -> dict[str, str]:
    """Of what trains: a stage of another version may come out differently."""
    import numpy
    import recbole
    import torch

    import recbole_alkd

    return {module.__name__: module.__version__ for module in (recbole_alkd, recbole, torch, numpy)}


def plugin_sources(settings: Settings) -> dict[str, str]:
    """Module of ``alkd_plugins`` -> a hash of its source, with all that lies in its folder where it is a
    package."""
    sources = {}
    for name in settings.plugin.alkd_plugins:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is None:
            continue
        files = sorted(Path(file).parent.rglob("*.py")) if Path(file).name == "__init__.py" else [Path(file)]
        sources[name] = settings_hash(
            {str(k): one.read_bytes().hex() for k, one in enumerate(files) if one.is_file()}
        )
    return sources


def outcome_settings(
    config: Any, settings: Settings, roles: tuple[str, ...] = ROLES, labels: bool = True, served: bool = True
) -> dict[str, Any]:
    """The effective settings of a run, defaults among them, that decide what comes out of it.

    Args:
        config: RecBole's Config of the run. settings: ours in it.
        roles: the recommenders that are trained; the settings of the other one, and its model's own,
            do not count.
        labels: whether anything is labelled and distilled.
        served: whether what is laid over a trained student counts as well (late fusion of titles),
            or its training alone.
    """
    others = tuple(f"{role}_" for role in ROLES if role not in roles)
    flat = config.final_config_dict
    left_out = volatile() if labels else volatile() | later()
    if "student" not in roles:
        left_out = left_out | TEXT
    elif not served:
        left_out = left_out | (SERVED if trains_on_titles(settings) else TEXT)
    values = {key: value for key, value in flat.items() if key not in left_out and not key.startswith(others)}
    if settings.backbone.student_tune:
        values["student_tune"] = tuning_facts(settings, roles, labels)
    count = place()[1]
    if count > 1 and any(_learner(settings, role).shares_steps for role in roles):
        values["processes"] = count  # other sums, other draws
    for role in roles:
        # the defaults of the role's model stand in its own YAML file
        own = role_config(config, settings, role).final_config_dict
        values[f"{role} model"] = {
            key: value
            for key, value in own.items()
            if (key not in flat or flat[key] != value)
            and not key.startswith(others)
            and (role == "student" or key not in TEXT)
        }
    return values


def trains_on_titles(settings: Settings) -> bool:
    """Whether titles are in the student's training: by a term of its loss,
    or as edges of a table that counts."""
    return _learner(settings, "student").trains_on_titles(settings)


def _learner(settings: Settings, role: str) -> type[Learner]:
    return learner_class(getattr(settings.backbone, f"{role}_model"))

"""The one reader of RecBole's flat Config: its values as typed settings, checked."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from recbole_alkd.settings.checks import check_together
from recbole_alkd.settings.declared import declared
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.field import Field, fields_of
from recbole_alkd.settings.groups import FIELDS, GROUPS, Settings
from recbole_alkd.settings.nearest import nearest

# What a key of ours starts with. RecBole and its models have no key with these beginnings.
PREFIXES = (
    "alkd_", "llm_", "lora_", "kd_", "budget_", "student_", "teacher_", "label_store", "label_engine",
    "ray_address", "session_", "softmax_",
    "item_text", "serve_text", "report_",
)  # fmt: skip


def spec_of(key: str) -> Field | None:
    """What the setting ``key`` takes: one of ours, or one that a plug-in declares; None for any other."""
    return FIELDS.get(key) or declared.fields().get(key)


def is_ours(key: str, known: Iterable[str] = ()) -> bool:
    """Whether ``key`` is a setting of ours, or a misspelt one (and not one of ``known``, RecBole's own)."""
    if key in FIELDS:
        return True
    if key in set(known) or key in declared.fields():
        return False
    return key.startswith(PREFIXES) or nearest(key, FIELDS, cutoff=0.85) is not None


def parse(key: str, text: str) -> Any:
    """The value of a setting of ours that arrived as text (command line, hyper-parameter search).
    Nothing is evaluated.

    ``None``, ``~`` and an empty text are null. A setting that only takes text is taken as it stands.
    """
    # a misspelt one: any value, for the error that will come
    spec = spec_of(key) or Field(None, (list, dict))
    return spec.parse(key, text)


def allowed_words(key: str) -> str:
    """What the setting ``key`` of ours takes, in words."""
    return FIELDS[key].allowed


def read_settings(values: Mapping[str, Any], known: Iterable[str] | None = ()) -> Settings:
    """Check flat settings and put them into their groups.

    Args:
        values: every key of the run, RecBole's among them.
        known: keys that belong to RecBole, its models or the data set, which are none of ours however they
            are spelt. None: no key is looked at for its spelling.

    Raises:
        AlkdError: a key that looks like ours and is not, a wrong type, a value out of range,
            settings that do not go together.
    """
    if known is not None:
        known = set(known)
        for key in values:
            if key not in FIELDS and is_ours(key, known):
                close = nearest(key, [*FIELDS, *declared.fields()], cutoff=0.0)
                raise AlkdError(f"{key}: no such setting; did you mean {close!r}?")
    groups: list[Any] = []
    for name, group in GROUPS.items():
        given = {
            key: spec.checked(key, values[key]) for key, spec in fields_of(group).items() if key in values
        }
        groups.append(group(**given, own=declared.read(name, values)))
    settings = Settings(*groups)
    check_together(settings)
    return settings


def settings_of(config: Any) -> Settings:
    """The checked settings of a RecBole Config, or of a mapping with its keys."""
    return read_settings(getattr(config, "final_config_dict", config), known=None)


def laid_over(config: Any, values: Mapping[str, Any]) -> Any:
    """A copy of RecBole's Config with ``values`` laid over it; ``config`` stays as it is."""
    viewed = copy.copy(config)
    viewed.final_config_dict = {**config.final_config_dict, **values}
    return viewed

"""The names of all settings: RecBole's, ours, those of models and data sets, and those of plug-ins."""

from __future__ import annotations

import functools

from recbole_alkd.files import properties
from recbole_alkd.settings.declared import declared
from recbole_alkd.settings.groups import FIELDS
from recbole_alkd.settings.nearest import nearest as nearest
from recbole_alkd.settings.recbole_keys import keys_in
from recbole_alkd.settings.recbole_keys import model_names as model_names
from recbole_alkd.settings.recbole_keys import recbole_keys as recbole_keys


@functools.cache
def _shipped_keys() -> frozenset[str]:
    files = (*properties().glob("model/*.yaml"), *properties().glob("dataset/*.yaml"))
    return frozenset().union(*map(keys_in, files))


def known_keys() -> frozenset[str]:
    """Every setting: RecBole's, ours, those of our models and data sets, and those that plug-ins declare."""
    return recbole_keys() | FIELDS.keys() | _shipped_keys() | declared.fields().keys()

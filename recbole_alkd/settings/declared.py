"""Settings that a policy, teacher, loss or backbone declares for itself, where it registers.

They are flat keys like all others: RecBole's Config, YAML files, the command line, ``recbole-alkd settings``,
hints at misspelt keys and the settings hash know them. Those of an entry that a run uses are checked before
anything is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.field import NO_DEFAULT, Field
from recbole_alkd.settings.groups import FIELDS
from recbole_alkd.settings.recbole_keys import recbole_keys


@dataclass(frozen=True)
class Owner:
    """Who declares a setting: the entry ``name`` of a registry.

    Attributes:
        kind: what a reader calls such an entry, such as "selection policy".
        group: the attribute of ``Settings`` whose ``own`` holds the values.
        named_by: the settings that name the entry which a run uses.
    """

    kind: str
    name: str
    group: str
    named_by: tuple[str, ...]

    def used(self, values: Mapping[str, Any]) -> bool:
        """Whether a run with these flat settings uses the entry."""
        for key in self.named_by:
            named = values.get(key, FIELDS[key].default)
            if named == self.name or (isinstance(named, (dict, list)) and self.name in named):
                return True
        return False

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"


class Declared:
    """The settings that entries of registries declare."""

    def __init__(self) -> None:
        self._fields: dict[str, Field] = {}
        self._owners: dict[str, list[Owner]] = {}

    def add(self, owner: Owner, settings: Mapping[str, Field]) -> None:
        """Take up what ``owner`` declares. The same key may be declared twice where it is the same setting.

        Raises:
            AlkdError: a key that is no name, that this package or RecBole has already, or that another entry
                has for something else; a spec that is no ``Field``.
        """
        for key, spec in settings.items():
            if not isinstance(spec, Field):
                raise AlkdError(
                    f"{owner}: {key}: {spec!r} is not allowed; "
                    "allowed: a Field of recbole_alkd.settings.field"
                )
            if not isinstance(key, str) or not key.isidentifier():
                raise AlkdError(f"{owner}: {key!r} is no name of a setting; allowed: letters, digits and _")
            if key in FIELDS or key in recbole_keys():
                raise AlkdError(f"{owner}: the setting {key!r} exists already; give yours a name of its own")
            if key in self._fields and self._fields[key] != spec and self._owners[key] != [owner]:
                raise AlkdError(
                    f"{owner}: {self._owners[key][0]} has a setting {key!r} too, for something else"
                )
            if spec.default is not NO_DEFAULT:
                spec.checked(f"{owner}: {key}", spec.value())
        for key, spec in settings.items():
            self._fields[key] = spec
            owners = self._owners.setdefault(key, [])
            if owner not in owners:
                owners.append(owner)

    def fields(self, group: str | None = None) -> dict[str, Field]:
        """Every declared setting, or those of one group."""
        return {
            key: spec
            for key, spec in self._fields.items()
            if group is None or any(owner.group == group for owner in self._owners[key])
        }

    def owners(self, key: str) -> tuple[Owner, ...]:
        """Who declares ``key``."""
        return tuple(self._owners.get(key, ()))

    def defaults(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The defaults of all declared settings that a run with these flat settings uses and nobody gave."""
        return {
            key: spec.value()
            for key, spec in self._fields.items()
            if key not in values
            and spec.default is not NO_DEFAULT
            and any(owner.used(values) for owner in self._owners[key])
        }

    def read(self, group: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """key -> checked value of the settings of ``group`` whose owners the run uses.

        Raises:
            AlkdError: a value that is not allowed; it names the entry, the setting and what is allowed.
        """
        checked = {}
        for key, spec in self.fields(group).items():
            owner = next((one for one in self._owners[key] if one.group == group and one.used(values)), None)
            if owner is None or (key not in values and spec.default is NO_DEFAULT):
                continue
            checked[key] = spec.checked(f"{owner}: {key}", values[key]) if key in values else spec.value()
        return checked


declared = Declared()

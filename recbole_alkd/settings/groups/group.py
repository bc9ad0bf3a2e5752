"""What every group of settings is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar


@dataclass(frozen=True)
class Group:
    """A group of settings; each is a field made by ``setting``.

    Attributes:
        heading: what stands above the group in YAML and docs.
        own: key -> value of the settings that plug-ins of this group declare (``Registry.register``). A
            policy reads its own as ``self.settings.own["shelf_height"]``.
    """

    heading: ClassVar[str] = ""
    own: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    def flat(self) -> dict[str, Any]:
        """Every key of the group with its value, as YAML has them."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "own"} | dict(
            self.own
        )

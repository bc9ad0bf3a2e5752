"""One small registry, used four times: backbones, policies, teachers, losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.nearest import hint

T = TypeVar("T")


class Registry:
    """Names to classes. ``kind`` is what a reader calls the thing, ``setting`` the YAML key that takes its name."""

    def __init__(self, kind: str, setting: str) -> None:
        self.kind, self.setting = kind, setting
        self._entries: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Class decorator. A name that is taken by another class is an AlkdError; registering the same class again is not."""

        def add(entry: T) -> T:
            known = self._entries.get(name)
            same = known is entry or getattr(known, "__qualname__", 0) == getattr(entry, "__qualname__", 1)
            if known is not None and not same:
                raise AlkdError(f"the {self.kind} {name!r} is registered already, by {known!r}")
            self._entries[name] = entry
            return entry

        return add

    def get(self, name: str) -> Any:
        """The class behind ``name``; AlkdError that lists the names and the nearest one otherwise."""
        try:
            return self._entries[name]
        except (KeyError, TypeError):
            raise AlkdError(self.unknown(name)) from None

    def unknown(self, name: object) -> str:
        return f"{self.setting}: {name!r} is not a known {self.kind}{hint(name, self, 0.5)}; known: {', '.join(self)}"

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))


backbones = Registry("backbone", "student_model")
policies = Registry("selection policy", "alkd_policy")
teachers = Registry("LLM teacher", "llm_teacher")
losses = Registry("distillation loss", "kd_loss")

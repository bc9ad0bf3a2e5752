"""One small registry, used five times: backbones, policies, teachers, losses, learners.

An entry may declare settings of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, TypeVar

from recbole_alkd.settings.declared import Owner, declared
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.field import Field
from recbole_alkd.settings.nearest import hint

T = TypeVar("T")


class Registry:
    """Names to classes.

    Args:
        kind: what a reader calls the thing. setting: the YAML key that takes its name.
        group: the attribute of ``Settings`` whose ``own`` holds what entries declare.
        also: further keys that take a name.
    """

    def __init__(self, kind: str, setting: str, group: str | None = None, also: tuple[str, ...] = ()) -> None:
        self.kind, self.setting = kind, setting
        self._group, self._named_by = group, (setting, *also)
        self._entries: dict[str, Any] = {}

    def register(self, name: str, settings: Mapping[str, Field] | None = None) -> Callable[[T], T]:
        """Class decorator.

        Args:
            name: what the setting calls the entry.
            settings: key -> ``Field`` of settings of its own, beside those in the class attribute
                ``own_settings``. They are flat keys like all others, and a run that uses the entry has them:
                a policy as ``self.settings.own[key]``,
                a teacher or loss as ``context.settings.teacher.own[key]`` or ``.distill.own[key]``,
                a backbone as ``config[key]``.

        Raises:
            AlkdError: another class has the name (registering the same class again is no error);
                a setting that exists already.
        """

        def add(entry: T) -> T:
            known = self._entries.get(name)
            same = known is entry or getattr(known, "__qualname__", 0) == getattr(entry, "__qualname__", 1)
            if known is not None and not same:
                raise AlkdError(f"the {self.kind} {name!r} is registered already, by {known!r}")
            if self._group:
                owner = Owner(self.kind, name, self._group, self._named_by)
                declared.add(owner, {**_own_settings(entry), **(settings or {})})
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
        return (
            f"{self.setting}: {name!r} is not a known {self.kind}{hint(name, self, 0.5)}; "
            f"known: {', '.join(self)}"
        )

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))


def _own_settings(entry: Any) -> dict[str, Field]:
    """``own_settings`` of a class, and, of a backbone, of the model that it views and of its learner."""
    fields: dict[str, Field] = {}
    name = str(getattr(getattr(entry, "view_class", entry), "learner", ""))
    for part in (
        learners.get(name) if name in learners else None,
        getattr(entry, "model_class", None),
        entry,
    ):
        fields |= getattr(part, "own_settings", {})
    return fields


def import_folder(package: str, folder: Iterable[str]) -> None:
    """Import every module and package in the folder of ``package``: those that register something do so.

    A built-in policy, loss, teacher or backbone is one file, and no other file names it.

    Args:
        package: ``__name__`` of the package. folder: its ``__path__``.
    """
    for module in sorted(iter_modules(folder), key=lambda module: module.name):
        import_module(f"{package}.{module.name}")


backbones = Registry("backbone", "student_model", "backbone", ("teacher_model",))
policies = Registry("selection policy", "alkd_policy", "selection")
teachers = Registry("LLM teacher", "llm_teacher", "teacher")
losses = Registry("distillation loss", "kd_loss", "distill", ("item_text_loss",))
# whose settings are those of the backbones that name it
learners = Registry("learner", "learner of a backbone")

"""A study: some arms of a plan at several values of one setting, drawn as lines over it.

study:
  setting: budget_labels
  values: [50, 100, 250]
  arms: [alkdrec, random]   # without it: all that have settings
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from recbole_alkd.bench.arms import CLOSED_FORM, Arm
from recbole_alkd.bench.names import line, seen
from recbole_alkd.settings.error import AlkdError

KEYS = ("setting", "values", "arms")


@dataclass(frozen=True)
class Study:
    """``arms`` (names) are run at each of ``values`` of ``setting``."""

    setting: str
    values: tuple[Any, ...]
    arms: tuple[str, ...]

    @property
    def numeric(self) -> bool:
        """Whether the values are numbers, and so have distances."""
        return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in self.values)

    def words(self, value: Any) -> str:
        """A value as a report shows it; a ratio as 1:5:4."""
        return ":".join(map(str, value)) if isinstance(value, list) else str(value)

    def base_words(self, words: str, point: Any) -> str:
        """The words of a studied arm without those of its value."""
        return words.removesuffix(f", {self.setting} {self.words(point)}")

    def expand(self, arms: Sequence[Arm]) -> tuple[Arm, ...]:
        """Every studied arm at every value in its place, the others as they are."""
        expanded: list[Arm] = []
        for arm in arms:
            if arm.name not in self.arms:
                expanded.append(arm)
                continue
            for value in self.values:
                point = f"{self.setting} {self.words(value)}"
                own = {**arm.settings, self.setting: value}
                name, words = f"{arm.name}, {point}", f"{arm.words}, {point}"
                expanded.append(
                    replace(arm, name=name, words=words, settings=own, base=arm.name, point=value)
                )
        return tuple(expanded)


def read_study(content: Any, arms: Sequence[Arm]) -> Study | None:
    """Check the entry ``study`` of a plan with ``arms``; None where it has none.

    Raises:
        AlkdError: a wrong key, fewer than two values or one twice, an arm that is not in the plan or has no
            settings, or that gives the setting a value of its own.
    """
    if content is None:
        return None
    if not isinstance(content, Mapping) or not {"setting", "values"} <= set(content) <= set(KEYS):
        raise AlkdError(
            f"study: {seen(content)} is not allowed; allowed: {{setting: ..., values: [...], arms: [...]}}"
        )
    setting, values = line(content["setting"], "study, setting"), content["values"]
    if (
        not isinstance(values, list)
        or len(values) < 2
        or any(value in values[:i] for i, value in enumerate(values))
    ):
        raise AlkdError(
            f"study, values: {seen(values)} is not allowed; allowed: a list of at least two different values"
        )
    for value in values:
        line(" ".join(str(value).split()) or value, "study, values")  # it stands in the names of arms
    by_name = {arm.name: arm for arm in arms if arm.stage not in CLOSED_FORM}
    names = content.get("arms", list(by_name))
    if not isinstance(names, list) or not names:
        raise AlkdError(f"study, arms: {seen(names)} is not allowed; allowed: a list of {', '.join(by_name)}")
    for name in names:
        if name not in by_name:
            raise AlkdError(
                f"study, arms: {name!r} is not allowed; allowed: arms of this plan with settings: "
                f"{', '.join(by_name)}"
            )
        if setting in by_name[name].settings:
            raise AlkdError(
                f"study, arms: {name!r} gives {setting} a value of its own "
                f"({by_name[name].settings[setting]!r})"
            )
    return Study(setting, tuple(values), tuple(names))

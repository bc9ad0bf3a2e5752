"""What is searched: values or a range for each setting, from a file and checked before the first trial."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.field import is_a
from recbole_alkd.settings.nearest import hint
from recbole_alkd.settings.reading import spec_of
from recbole_alkd.settings.stock import SPECS
from recbole_alkd.settings.text import read_search_file, read_yaml_file

# What decides how a trial is measured, or where it lies: trials that differ in it cannot be compared.
FIXED = (
    "model", "dataset", "data_path", "config_files", "seed", "reproducibility", "valid_metric",
    "valid_metric_bigger", "metrics", "topk", "eval_args", "eval_step", "checkpoint_dir", "stage_cache",
    "label_store", "alkd_plugins", "use_gpu", "gpu_id", "device", "nproc", "world_size",
)  # fmt: skip
_MOST = 10**15  # of an integer, and of the steps in a range: a float holds both
_RANGE = ("low", "high", "log", "step")


@dataclass(frozen=True)
class Choice:
    """A setting that takes one of ``values``. ``labels``: what a search calls them, in the same order."""

    values: tuple[Any, ...]

    @property
    def labels(self) -> list[str]:
        return [str(value) for value in self.values]

    def __str__(self) -> str:
        return f"one of {', '.join(self.labels)}"


@dataclass(frozen=True)
class Range:
    """A setting that takes a number from ``low`` to ``high``.

    Attributes:
        log: whether its logarithm is spread evenly. step: the distance of allowed numbers; None: any.
        whole: whether only integers are allowed.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False

    def __str__(self) -> str:
        more = f" in steps of {self.step:g}" if self.step else ""
        return f"{self.low:g} to {self.high:g}{more}{', by its logarithm' if self.log else ''}"


Axis = Choice | Range


def read_space(file: str) -> dict[str, Axis]:
    """The space in a file: YAML (``.yaml``, ``.yml``), or RecBole's search file.

    YAML has a list of values, or a mapping of ``low``, ``high`` and, if wanted, ``log: True`` or ``step``,
    for each setting; integers at both ends give integers. RecBole's lines are ``NAME choice [1,2]``,
    ``NAME uniform low,high``, ``NAME loguniform low,high`` (of the logarithm) and
    ``NAME quniform low,high,step``.

    Raises:
        AlkdError: a file that cannot be read, or holds something else.

    Example:
        A file ``space.yaml`` with the lines ``learning_rate: {low: 0.0003, high: 0.03, log: True}`` and
        ``student_embedding_size: [10, 20]``.
    """
    if Path(file).suffix.lower() not in (".yaml", ".yml"):
        space = dict(_of_recbole(read_search_file(file)))
    else:
        content = read_yaml_file(Path(file), f"--space {file!r}")
        if not isinstance(content, dict):
            raise AlkdError(
                f"--space {file!r}: a mapping of settings is expected, such as learning_rate: [0.001, 0.01]"
            )
        space = {str(key): _axis(f"--space {file!r}: {key}", value) for key, value in content.items()}
    if not space:
        raise AlkdError(f"--space {file!r} names no setting; allowed: at least one")
    return space


def check_space(space: Mapping[str, Axis], known: Collection[str], given: Collection[str]) -> None:
    """Refuse what cannot be searched.

    Args:
        known: every key that the run reads. given: those that the command line fixes.

    Raises:
        AlkdError: a setting that nobody reads, that is given on the command line too, or that decides how a
            trial is measured; a value that the setting cannot take.
    """
    for key, axis in space.items():
        spec = spec_of(key) or SPECS.get(key)
        if spec is None and key not in known:
            raise AlkdError(f"--space: {key}: no such setting{hint(key, list(known))}")
        if key in FIXED:
            raise AlkdError(
                f"--space: {key} is the same in every trial, else they cannot be compared; leave it out"
            )
        if key in given:
            raise AlkdError(f"--space: {key} is also given as --{key}=...; give one of the two")
        if spec is not None:
            ends = (
                axis.values
                if isinstance(axis, Choice)
                else tuple(_number(axis, end) for end in (axis.low, axis.high))
            )
            for value in ends:
                spec.checked(f"--space: {key}", value)


def combinations(space: Mapping[str, Axis]) -> int | None:
    """How many different trials there are; None where a range has no steps."""
    count = 1
    for axis in space.values():
        if isinstance(axis, Choice):
            count *= len(axis.values)
        elif axis.step or axis.whole:
            count *= int((axis.high - axis.low) / (axis.step or 1)) + 1
        else:
            return None
    return count


def _of_recbole(space: Mapping[str, Mapping[str, list[Any]]]) -> Iterator[tuple[str, Axis]]:
    for kind, settings in space.items():
        for key, values in settings.items():
            if kind == "choice":
                yield key, _choice(f"--space: {key}", values)
                continue
            low, high, *step = values
            if kind == "loguniform":
                if max(low, high) > 700:
                    too_large = f"e^{max(low, high):g} is too large"
                    raise AlkdError(
                        f"--space: {key}: loguniform has the logarithms of the ends, and {too_large}"
                    )
                low, high = math.exp(low), math.exp(high)
            yield (
                key,
                _range(f"--space: {key}", low, high, kind == "loguniform", step[0] if step else None, False),
            )


def _axis(place: str, value: Any) -> Axis:
    if isinstance(value, list):
        return _choice(place, value)
    if isinstance(value, dict) and {"low", "high"} <= set(value) <= set(_RANGE):
        ends = [value["low"], value["high"], value.get("step")]
        log = value.get("log", False)
        given = [end for end in ends if end is not None]
        numbers = all(is_a(end, int, float) for end in given)
        if numbers and isinstance(log, bool) and not any(abs(end) > _MOST for end in given if is_a(end, int)):
            whole = all(isinstance(end, int) for end in given)
            return _range(place, ends[0], ends[1], log, ends[2], whole)
    allowed = "a list of values, or {low: 1, high: 5} with log: True or step: 1"
    raise AlkdError(f"{place}: {value!r} is not allowed; allowed: {allowed}")


def _choice(place: str, values: list[Any]) -> Choice:
    axis = Choice(tuple(values))
    if not values or len(set(axis.labels)) < len(values):
        raise AlkdError(
            f"{place}: {values!r} is not allowed; allowed: a list of values, all different, at least one"
        )
    return axis


def _range(place: str, low: float, high: float, log: bool, step: float | None, whole: bool) -> Range:
    finite = all(math.isfinite(end) for end in (low, high))
    if (
        not finite
        or not low < high
        or (log and (low <= 0 or step))
        or (step is not None and not (high - low) / _MOST < step <= high - low)
    ):
        steps = "" if step is None else f" in steps of {step:g}"
        raise AlkdError(
            f"{place}: {low:g} to {high:g}{steps} is not allowed; allowed: low < high, both finite; "
            "above 0 and without step for a logarithm; a step above 0 that fits between them"
        )
    return Range(low, high, log, step, whole)


def _number(axis: Range, end: float) -> float:
    return int(end) if axis.whole else float(end)

"""A plan: datasets x backbones x arms x seeds, read from YAML and checked before anything runs.

name: losses                     # names the report
datasets: [alkdrec-ml]           # or {NAME: {setting: value}}
backbones: [SessionFPMC]         # or {NAME: {setting: value}}; teacher recommender and student
seeds: [2020, 2021, 2022]
reference: student               # the arm that the others are compared with
metrics: [ndcg@10, recall@10]    # the first decides
settings: {budget_labels: 500}   # for all runs
arms:
  - student
  - loss:rd
  - {name: more labels, arm: alkdrec, settings: {budget_labels: 1000}}
study: ...                       # arms at several values of a setting: ``study.py``
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_alkd.bench.arms import CLOSED_FORM, Arm, find_arm
from recbole_alkd.bench.names import check_apart, check_content, file_name, line, seen
from recbole_alkd.bench.plan_settings import check_settings, mapping, resolve_files, unknown
from recbole_alkd.bench.study import Study, read_study
from recbole_alkd.checks import import_plugins
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.field import NO_DEFAULT, Field, words
from recbole_alkd.settings.text import read_yaml_file

KEYS = (
    "name",
    "datasets",
    "backbones",
    "seeds",
    "reference",
    "metrics",
    "settings",
    "arms",
    "study",
    "data_path",
)
LARGEST_SEED = 2**32 - 1  # of numpy's generators, which RecBole seeds
_METRIC = re.compile(r"(recall|hit|ndcg|mrr)@[1-9][0-9]{0,6}")


def _are_seeds(values: list[Any]) -> bool:
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in values)
    return bool(values) and whole and min(values) >= 0 and max(values) <= LARGEST_SEED and _all_differ(values)


def _are_metrics(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(one, str) and _METRIC.fullmatch(one.lower()) for one in values)


def _all_differ(values: list[Any]) -> bool:
    return len(set(values)) == len(values)


ENTRIES = {
    "data_path": Field(None, str, check=words("a folder", lambda path: bool(path.strip()))),
    "arms": Field(NO_DEFAULT, list, check=words("a list with at least one entry", bool)),
    "seeds": Field(
        NO_DEFAULT,
        list,
        check=words(f"distinct integers from 0 to {LARGEST_SEED}, at least one", _are_seeds),
    ),
    "metrics": Field(
        ["ndcg@10", "recall@10"],
        list,
        check=words("a list of recall@K, hit@K, ndcg@K, mrr@K", _are_metrics),
    ),
}


@dataclass(frozen=True, eq=False)
class Task:
    """One run: an arm on a data set with a backbone and a seed, and all its settings.
    Every object is a key of its own."""

    dataset: str
    backbone: str
    arm: Arm
    seed: int
    settings: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.dataset}, {self.backbone}, {self.arm.name}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """A checked plan; see the module's text. ``datasets`` and ``backbones`` hold the settings laid over the
    common ones."""

    name: str
    datasets: Mapping[str, Mapping[str, Any]]
    backbones: Mapping[str, Mapping[str, Any]]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    reference: str
    metrics: tuple[str, ...]
    settings: Mapping[str, Any]
    study: Study | None = None

    def reference_of(self, arm: Arm) -> str | None:
        """The arm that ``arm`` is compared with; in a study the one at the same value. None: with nothing."""
        if self.study is None or self.reference not in self.study.arms:
            return None if arm.name == self.reference else self.reference
        if not arm.base or arm.base == self.reference:
            return None
        return next(
            other.name for other in self.arms if (other.base, other.point) == (self.reference, arm.point)
        )

    @property
    def reference_words(self) -> str:
        """What the report calls the reference."""
        arm = next(arm for arm in self.arms if self.reference in (arm.name, arm.base))
        return (
            f"{self.study.base_words(arm.words, arm.point)} at the same value"
            if self.study and arm.base
            else arm.words
        )

    def chosen_arms(self, names: Iterable[str]) -> tuple[str, ...]:
        """The arms of these names, in their order; the name of a studied arm stands for it at every value.

        Raises:
            AlkdError: no arm of this plan has the name.
        """
        chosen: dict[str, None] = {}
        known = dict.fromkeys(name for arm in self.arms for name in (arm.base, arm.name) if name)
        for name in names:
            if name not in known:
                raise AlkdError(f"--arms: {unknown(name, known, 'arm of this plan')}")
            chosen |= dict.fromkeys(arm.name for arm in self.arms if name in (arm.base, arm.name))
        return tuple(chosen)

    def tasks(self) -> Iterator[Task]:
        """Every run. Seeds change fastest, so that runs side by side rarely wait for each other's shared
        stages."""
        for dataset, of_dataset in self.datasets.items():
            for backbone, of_backbone in self.backbones.items():
                both = {"student_model": backbone, "teacher_model": backbone}
                for arm in self.arms:
                    laid = {**self.settings, **of_dataset, **both, **of_backbone, **arm.settings}
                    for seed in self.seeds:
                        yield Task(dataset, backbone, arm, seed, {**laid, "seed": seed})


def read_plan(source: Path, data_path: str | None = None, seeds: Iterable[int] | None = None) -> Plan:
    """Read and check a plan.

    Args:
        source: the YAML file.
        data_path: RecBole's ``data_path`` for all data sets, instead of the plan's.
        seeds: instead of the plan's.

    Raises:
        AlkdError: the file cannot be read; an unknown key, arm or setting; no seeds;
            an arm that changes the evaluation.
    """
    try:
        content = read_yaml_file(source, f"plan {str(source)!r}")
    except RecursionError:
        raise AlkdError(f"plan {str(source)!r}: lists or mappings are nested too deeply") from None
    check_content(content, f"plan {str(source)!r}")
    if not isinstance(content, dict):
        raise AlkdError(f"plan {str(source)!r}: a mapping is expected, with the keys {', '.join(KEYS)}")
    for key in content:
        if key not in KEYS:
            raise AlkdError(f"plan {str(source)!r}: {unknown(key, KEYS, 'key')}")
    settings = mapping(content.get("settings"), "settings")
    import_plugins(settings)  # whose names arms and backbones may take
    path = data_path or content.get("data_path") or settings.get("data_path")
    ENTRIES["data_path"].checked("data_path", path)
    if path:
        settings["data_path"] = str(Path(path).resolve())
    resolve_files(settings, path)
    arms = tuple(_arm(entry, path) for entry in ENTRIES["arms"].checked("arms", content.get("arms")))
    names = [arm.name for arm in arms]
    check_apart((arm.name, arm.words) for arm in arms)
    reference = content.get("reference", names[0])
    if reference not in names:
        raise AlkdError(f"reference: {unknown(reference, names, 'arm of this plan')}")
    study = read_study(content.get("study"), arms)
    if study:
        check_apart((arm.name, arm.words) for arm in study.expand(arms))
    named = content.get("name") is not None
    metrics = ENTRIES["metrics"].checked("metrics", content.get("metrics", ENTRIES["metrics"].value()))
    plan = Plan(
        name=file_name(
            content["name"] if named else source.stem, "name" if named else "name (that of the plan's file)"
        ),
        datasets=_named(content.get("datasets"), "datasets", path),
        backbones=_named(content.get("backbones", ["SessionFPMC"]), "backbones", path),
        arms=study.expand(arms) if study else arms,
        seeds=tuple(
            ENTRIES["seeds"].checked("seeds", content.get("seeds") if seeds is None else list(seeds))
        ),
        reference=reference,
        metrics=tuple(dict.fromkeys(metric.lower() for metric in metrics)),
        settings=settings,
        study=study,
    )
    groups: list[tuple[str, Mapping[str, Any]]] = [("settings", plan.settings)]
    groups += [(f"datasets, {name}", values) for name, values in plan.datasets.items()]
    groups += [(f"backbones, {name}", values) for name, values in plan.backbones.items()]
    check_settings([*groups, *((f"arms, {arm.name}", arm.settings) for arm in plan.arms)])
    return plan


def _arm(entry: Any, data_path: str | None) -> Arm:
    if isinstance(entry, str):
        return find_arm(entry)
    if not isinstance(entry, dict) or not {"name", "arm"} <= set(entry) <= {"name", "arm", "settings"}:
        raise AlkdError(
            f"arms: {seen(entry)} is not allowed; allowed: a name, or {{name: ..., arm: ..., settings: "
            "{...}}"
        )
    name = line(entry["name"], "arms, name")
    base, own = (
        find_arm(line(entry["arm"], f"arms, {name}")),
        mapping(entry.get("settings"), f"arms, {name}"),
    )
    resolve_files(own, data_path)
    if base.stage in CLOSED_FORM and own:
        raise AlkdError(f"arms, {name}: {base.name} has no settings")
    return Arm(name, name, base.stage, {**base.settings, **own})


def _named(value: Any, key: str, data_path: str | None) -> dict[str, dict[str, Any]]:
    if isinstance(value, (list, dict)) and value:
        names = [file_name(name, key) for name in value]
        for name in names:
            if sum(name.casefold() == other.casefold() for other in names) > 1:
                raise AlkdError(
                    f"{key}: {name!r} stands there twice (upper and lower case are alike); "
                    "allowed: different names"
                )
        given = value.values() if isinstance(value, dict) else [None] * len(names)
        settings = [mapping(own, f"{key}, {name}") for name, own in zip(names, given, strict=True)]
        return {name: resolve_files(own, data_path) for name, own in zip(names, settings, strict=True)}
    raise AlkdError(
        f"{key}: {seen(value)} is not allowed; allowed: a list of names, or a mapping from names to settings"
    )

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

import glob
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recbole_alkd.bench.arms import CLOSED_FORM, Arm, find_arm
from recbole_alkd.bench.names import check_apart, check_content, file_name, line, seen
from recbole_alkd.bench.study import Study, read_study
from recbole_alkd.checks import import_plugins
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.keys import known_keys
from recbole_alkd.settings.nearest import hint
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
# All arms are evaluated alike, so none may change what is evaluated.
SHARED_ONLY = (
    "seed", "eval_args", "mask_session_items", "session_window", "session_min_length", "session_time_unit",
    "benchmark_filename",
    "MAX_ITEM_LIST_LENGTH", "data_path", "val_interval", "user_inter_num_interval", "item_inter_num_interval",
    "rm_dup_inter",
)  # fmt: skip
# What the benchmark itself gives to each run, and where a plan says so.
BENCH_ONLY = {
    "seed": "give seeds", "student_model": "give backbones, or an arm model:NAME",
    "teacher_model": "give backbones, or set it for an arm",
    "checkpoint_dir": "runs are kept in the output folder (--out)", "show_progress": "the progress of a run "
                                                                                     "is in its log",
}  # fmt: skip
# Files that a run reads: below where the bench was started, or the data path.
PATH_SETTINGS = ("alkd_picks", "llm_replay_file", "llm_price_file", "student_search")
NAME_OR_PATH = ("llm_prompt", "llm_model", "item_text")


LABELLED = ("distilled", "student_longer")  # stages that ask an LLM teacher
LARGEST_SEED = 2**32 - 1  # of numpy's generators, which RecBole seeds


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
                raise AlkdError(f"--arms: {_unknown(name, known, 'arm of this plan')}")
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
            raise AlkdError(f"plan {str(source)!r}: {_unknown(key, KEYS, 'key')}")
    settings = _mapping(content.get("settings"), "settings")
    import_plugins(settings)  # whose names arms and backbones may take
    path = data_path or content.get("data_path") or settings.get("data_path")
    if path is not None and not (isinstance(path, str) and path):
        raise AlkdError(f"data_path: {seen(path)} is not allowed; allowed: a folder")
    if path:
        settings["data_path"] = str(Path(path).resolve())
    _resolve_files(settings, path)
    arms = tuple(_arm(entry, path) for entry in _list(content.get("arms"), "arms"))
    names = [arm.name for arm in arms]
    check_apart((arm.name, arm.words) for arm in arms)
    reference = content.get("reference", names[0])
    if reference not in names:
        raise AlkdError(f"reference: {_unknown(reference, names, 'arm of this plan')}")
    study = read_study(content.get("study"), arms)
    if study:
        check_apart((arm.name, arm.words) for arm in study.expand(arms))
    named = content.get("name") is not None
    plan = Plan(
        name=file_name(
            content["name"] if named else source.stem, "name" if named else "name (that of the plan's file)"
        ),
        datasets=_named(content.get("datasets"), "datasets", path),
        backbones=_named(content.get("backbones", ["SessionFPMC"]), "backbones", path),
        arms=study.expand(arms) if study else arms,
        seeds=_seeds(content.get("seeds") if seeds is None else list(seeds)),
        reference=reference,
        metrics=_metrics(content.get("metrics", ["ndcg@10", "recall@10"])),
        settings=settings,
        study=study,
    )
    _check_settings(plan)
    return plan


def check_runs(plan: Plan) -> None:
    """Build RecBole's Config of every arm on every data set and look whether its data is there;
    nothing is trained.

    Raises:
        AlkdError: what RecBole or a setting refuses, a data set that is not there or lacks titles for an arm
            that needs them.
    """
    from recbole_alkd.data.titles import titles_of
    from recbole_alkd.registry import teachers

    for task in replace(plan, seeds=plan.seeds[:1]).tasks():
        try:
            if task.dataset.startswith("alkdrec-"):  # its settings apply where its files are
                _check_there(
                    task.dataset, Path(str(task.settings.get("data_path", "dataset"))) / task.dataset
                )
            config = config_of(task.dataset, task.arm.stage, task.settings)
            _check_there(task.dataset, Path(config["data_path"]))
            for key in PATH_SETTINGS:
                if config[key] and not Path(config[key].partition("#")[0]).is_file():
                    raise AlkdError(
                        f"{key}: no file {config[key].partition('#')[0]!r}, nor below the data path"
                    )
            if task.arm.stage in LABELLED and teachers.get(config["llm_teacher"]).needs_titles:
                titles_of(config, config["ITEM_ID_FIELD"])
        except AlkdError as error:
            raise AlkdError(f"{task.dataset}, {task.backbone}, {task.arm.name}: {error}") from None


def config_of(dataset: str, stage: str, settings: Mapping[str, Any]) -> Any:
    """RecBole's Config of a run. Only for a stage that asks the LLM teacher are its device,
    extras and key looked for."""
    from recbole.config import Config

    from recbole_alkd.checks import asking_nobody
    from recbole_alkd.plugin import empty_argv

    with empty_argv(), nullcontext() if stage in LABELLED else asking_nobody():
        return Config(model="ALKDRec", dataset=dataset, config_dict=dict(settings))


def has_clicks(folder: Path, dataset: str) -> bool:
    """Whether ``folder`` has the clicks of a data set: in one file, or in one for each part."""
    name = glob.escape(dataset)
    return any(folder.glob(f"{name}.inter*")) or any(folder.glob(f"{name}.*.inter*"))


def _check_there(dataset: str, folder: Path) -> None:
    if not has_clicks(folder, dataset):
        hint = "give --data-path, the folder above" + _release(dataset)
        raise AlkdError(f"datasets: no {dataset}*.inter in {str(folder)!r}; {hint}")


def _release(dataset: str) -> str:
    """What to do about data that cannot be shipped."""
    if not dataset.startswith("alkdrec-"):
        return ""
    data = " --data Games" if dataset.endswith("games") else ""
    return (
        "; it is the paper's data, which only its authors give out: `recbole-alkd import alkdrec CLONE"
        f"{data} --out DATA/{dataset}` makes it of your clone of their release"
    )


def absolute(path: str) -> str:
    """``FILE`` or ``FILE#key`` with an absolute FILE."""
    name, hash_sign, key = path.partition("#")
    return str(Path(name).resolve()) + hash_sign + key


def _resolve_files(settings: dict[str, Any], data_path: str | None) -> dict[str, Any]:
    """Make the files in ``settings`` absolute: as they stand where there is such a file,
    otherwise below the data path."""
    for key in (*PATH_SETTINGS, *NAME_OR_PATH):
        if isinstance(settings.get(key), str) and settings[key]:
            name = settings[key].partition("#")[0]
            below = Path(data_path or ".") / name
            if below.is_file() and not Path(name).is_file():
                settings[key] = str(below) + settings[key][len(name) :]
            if key not in NAME_OR_PATH or Path(settings[key]).exists():
                settings[key] = absolute(settings[key])
    for key in ("label_store", "stage_cache", "data_path"):  # of a run, which works in another folder
        if isinstance(settings.get(key), str) and settings[key]:
            settings[key] = str(Path(settings[key]).expanduser().resolve())
    return settings


def _check_settings(plan: Plan) -> None:
    known = known_keys()
    groups = [("settings", plan.settings)]
    groups += [(f"datasets, {name}", values) for name, values in plan.datasets.items()]
    groups += [(f"backbones, {name}", values) for name, values in plan.backbones.items()]
    groups += [(f"arms, {arm.name}", arm.settings) for arm in plan.arms]
    for where, values in groups:
        for key in values:
            if key not in known:
                raise AlkdError(f"{where}: {_unknown(key, known, 'setting', listed=False)}")
            if where != "settings" and not where.startswith("datasets") and key in SHARED_ONLY:
                raise AlkdError(f"{where}: {key} decides what is evaluated and must be the same for all arms")
            if key in BENCH_ONLY and not (
                key in ("student_model", "teacher_model") and where.startswith("arms")
            ):
                raise AlkdError(f"{where}: {key} is not for a plan to set; {BENCH_ONLY[key]}")


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
        _mapping(entry.get("settings"), f"arms, {name}"),
    )
    _resolve_files(own, data_path)
    if base.stage in CLOSED_FORM and own:
        raise AlkdError(f"arms, {name}: {base.name} has no settings")
    return Arm(name, name, base.stage, {**base.settings, **own})


def _seeds(values: Any) -> tuple[int, ...]:
    whole = (
        isinstance(values, list)
        and values
        and all(isinstance(v, int) and not isinstance(v, bool) for v in values)
    )
    if not whole or min(values) < 0 or max(values) > LARGEST_SEED or len(set(values)) < len(values):
        raise AlkdError(
            f"seeds: {seen(values)} is not allowed; allowed: distinct integers from 0 to {LARGEST_SEED}, "
            "at least one"
        )
    return tuple(values)


def _metrics(values: Any) -> tuple[str, ...]:
    pattern = re.compile(r"(recall|hit|ndcg|mrr)@[1-9][0-9]{0,6}")
    if (
        not isinstance(values, list)
        or not values
        or not all(isinstance(v, str) and pattern.fullmatch(v.lower()) for v in values)
    ):
        raise AlkdError(
            f"metrics: {seen(values)} is not allowed; allowed: a list of recall@K, hit@K, ndcg@K, mrr@K"
        )
    return tuple(dict.fromkeys(value.lower() for value in values))


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
        settings = [_mapping(own, f"{key}, {name}") for name, own in zip(names, given, strict=True)]
        return {name: _resolve_files(own, data_path) for name, own in zip(names, settings, strict=True)}
    raise AlkdError(
        f"{key}: {seen(value)} is not allowed; allowed: a list of names, or a mapping from names to settings"
    )


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise AlkdError(f"{where}: {seen(value)} is not allowed; allowed: a mapping from settings to values")
    return dict(value)


def _list(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise AlkdError(f"{key}: {seen(value)} is not allowed; allowed: a list with at least one entry")
    return value


def _unknown(word: object, known: Iterable[str], kind: str, listed: bool = True) -> str:
    names = sorted(known)
    return f"{seen(word)} is not a known {kind}{hint(word, names, 0.5)}" + (
        f"; known: {', '.join(names)}" if listed else ""
    )

"""What settings alone tell before anything is read or trained: names, files, and what goes with what.

``check_names`` runs whenever RecBole's Config of an ALKDRec run is made. A check that needs the data belongs
to the trainer's ``Run.open`` and its stages' ``check``, which run before the first epoch.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from recbole_alkd.active.difficulty import check_difficulty
from recbole_alkd.data.columns import check_fields
from recbole_alkd.data.own_settings import check_dataset_name
from recbole_alkd.distill.combined import check_losses
from recbole_alkd.file_checks import asks, check_files, check_folder, check_vectors
from recbole_alkd.registry import backbones, policies, teachers
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.groups import FIELDS, Settings
from recbole_alkd.settings.keys import known_keys, model_names
from recbole_alkd.settings.nearest import nearest
from recbole_alkd.settings.reading import spec_of
from recbole_alkd.settings.stock import SPECS, gpu_text
from recbole_alkd.settings.stock_checks import check_values
from recbole_alkd.teacher.base import check_teacher

_own_command: ContextVar[bool] = ContextVar("own_command", default=False)


@contextlib.contextmanager
def asking_nobody() -> Iterator[None]:
    """Inside of this no LLM is needed: neither its device nor its key is looked for (``select``,
    ``label --dry-run``)."""
    token = asks.set(False)
    try:
        yield
    finally:
        asks.reset(token)


@contextlib.contextmanager
def own_command() -> Iterator[None]:
    """Inside of this the command line is ours: every word of it is a setting, and one that nobody reads is an
    error."""
    token = _own_command.set(True)
    try:
        yield
    finally:
        _own_command.reset(token)


def is_own_command() -> bool:
    """Whether a command of ours is running."""
    return _own_command.get()


def import_plugins(values: Mapping[str, Any]) -> None:
    """Import the modules of ``alkd_plugins``, which register entries and declare settings.
    AlkdError where one cannot be."""
    for module in FIELDS["alkd_plugins"].checked("alkd_plugins", values.get("alkd_plugins", [])):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise AlkdError(f"alkd_plugins: cannot import {module!r}: {error}") from error


def check_names(settings: Settings) -> None:
    """Look every name up, so that a misspelt one ends the run before it starts.

    Raises:
        AlkdError: a name that is not known, a file that cannot be read, settings that do not go together.
    """
    for key in ("student_model", "teacher_model"):
        name = getattr(settings.backbone, key)
        if name not in backbones:
            raise AlkdError(backbones.unknown(name).replace("student_model", key, 1))
    policies.get(settings.selection.alkd_policy)
    teacher = teachers.get(settings.teacher.llm_teacher)
    check_teacher(teacher)
    teacher.check_settings(settings)
    check_difficulty(settings.selection.alkd_difficulty)
    _check_unit(settings)
    _check_role_settings(settings)
    check_losses(settings)
    check_vectors(settings)
    from recbole_alkd.learner.search_space import check_search

    check_search(settings)
    check_files(settings)


# settings that speak of sessions -> what they may be where items are labelled
_OF_ITEMS = {
    "alkd_pool": ("last",),
    "alkd_difficulty": ("consistency",),
    "kd_lists": ("llm", "shuffled", "permuted"),
    "lora_target": ("next_item",),
}


def _check_unit(settings: Settings) -> None:
    """AlkdError where a setting asks for something that items (``alkd_unit: item``) do not have."""
    if settings.selection.alkd_unit == "session":
        return
    for key, allowed in _OF_ITEMS.items():
        value = settings.flat()[key]
        if value not in allowed:
            raise AlkdError(
                f"{key}: {value!r} speaks of sessions and their next items; "
                f"allowed with alkd_unit item: {' | '.join(allowed)}"
            )


def _check_role_settings(settings: Settings) -> None:
    """AlkdError where ``student_config`` or ``teacher_config`` gives a setting a value that it does not take,
    or names none.

    A plug-in may read settings that it does not declare: beside ``alkd_plugins`` only names almost like a
    known one are refused.
    """
    for key in ("student_config", "teacher_config"):
        for name, value in getattr(settings.backbone, key).items():
            spec = spec_of(name) or SPECS.get(name)
            if spec is not None:
                spec.checked(f"{key}: {name}", value)
            elif name not in known_keys():
                close = nearest(str(name), known_keys(), 0.8 if settings.plugin.alkd_plugins else 0.6)
                if close or not settings.plugin.alkd_plugins:
                    raise AlkdError(
                        f"{key}: {name}: no such setting{f'; did you mean {close!r}?' if close else ''}"
                    )


def check_machine(settings: Settings) -> None:
    """The LLM teacher's own ``check``, unless inside of ``asking_nobody``.
    Called once RecBole has set CUDA_VISIBLE_DEVICES."""
    if asks.get():
        if settings.teacher.label_engine == "ray":
            from recbole_alkd.labelling.ray_cluster import check_ray

            check_ray()
        teachers.get(settings.teacher.llm_teacher).check(settings)


# RecBole's settings


def check_keys(
    given: Mapping[str, Any], command_line: Mapping[str, Any], ours: bool, values: Mapping[str, Any]
) -> None:
    """AlkdError where a user gives a setting that nobody reads.

    A plug-in may have settings of its own: beside ``alkd_plugins`` only names that are almost a known one are
    refused. RecBole's own models, and command lines of other programs, may hold anything;
    there it is not looked at, or said.

    Args:
        given: what files and callers give. command_line: what the words of the command line give.
        ours: whether the model is one of ours. values: all settings of the run.
    """
    for key in (*given, *command_line):
        strict = _own_command.get() or (ours and key in given)
        if key in known_keys() or key.startswith("alias_of_") or not (strict or ours):
            continue
        close = nearest(key, known_keys(), 0.8 if values.get("alkd_plugins") or not strict else 0.6)
        hint = f"; did you mean {close!r}?" if close else ""
        if strict and (close or not values.get("alkd_plugins")):
            raise AlkdError(f"{key}: no such setting{hint or '; `recbole-alkd settings` lists all'}")
        logging.getLogger().warning(f"{key}: no setting of RecBole or of this package has this name{hint}")


def check_model_and_dataset(given: Mapping[str, Any], model: Any, dataset: Any, ours: Iterable[str]) -> None:
    """AlkdError where no model or data set is named, or one that cannot be. ``ours``: names of our models."""
    from recbole.utils import get_model

    model = given.get("model") if model is None else model
    dataset = given.get("dataset") if dataset is None else dataset
    if model is None:
        raise AlkdError("model: none is named; give --model=NAME, such as ALKDRec")
    if isinstance(model, str):
        try:
            get_model(model)
        except (ValueError, AttributeError) as error:
            if isinstance(error, AttributeError) and error.name != model:
                raise
            names = [*ours, *model_names()]
            close = nearest(model, names)
            raise AlkdError(
                f"model: {model!r} is no model of RecBole or of this package"
                + (f"; did you mean {close!r}?" if close else "")
            ) from None
    if dataset is None:
        raise AlkdError(
            "dataset: none is named; give --dataset=NAME, the folder and the files data_path/NAME/NAME.inter"
        )
    check_dataset_name(dataset)


def say_device(device: Any, given: Mapping[str, Any]) -> None:
    """A warning where the user asks for a GPU (``use_gpu: True``, or several in ``gpu_id``) and RecBole found
    none."""
    gpus = gpu_text(given.get("gpu_id", ""))
    asked = f"gpu_id: {gpus}" if "," in gpus else "use_gpu: True" if given.get("use_gpu") is True else None
    if asked and device.type == "cpu" and given.get("use_gpu") is not False:
        logging.getLogger().warning(f"{asked}: torch finds no GPU here, the run uses the CPU")


def check_run(values: Mapping[str, Any], model: str, ours: bool) -> None:
    """AlkdError where a run of ``model`` cannot work with RecBole's settings.
    ``ours``: whether it is a model of this package."""
    check_values(values)
    check_folder("checkpoint_dir", Path(values["checkpoint_dir"]))
    check_folder("log", Path("log"))  # RecBole's, always below the working directory
    check_folder("log_tensorboard", Path("log_tensorboard"))
    processes = [key for key in ("nproc", "world_size") if values.get(key) not in (None, -1, 1)]
    if processes and (ours or "local_rank" not in values):
        way = "; for RecBole's own models call recbole.quick_start.run(..., nproc=N)"
        if ours:
            way = "; `recbole-alkd run --nproc=N` and run_recbole_alkd(..., nproc=N) train ALKDRec with more"
        raise AlkdError(
            f"{processes[0]}: {values[processes[0]]!r} is not allowed; allowed here: 1 process{way}"
        )
    if not ours:
        return
    check_fields(values)
    if values["epochs"] < 1:
        raise AlkdError(f"epochs: {values['epochs']} is not allowed; allowed: at least 1")
    if values.get("train_neg_sample_args") is not None:
        raise AlkdError(
            f"train_neg_sample_args: not for {model}, which draws its negatives itself; allowed: ~"
        )
    if not values["repeatable"]:
        raise AlkdError("repeatable: False is not allowed; allowed: True (sessions may hold an item again)")
    if values.get("save_dataloaders"):
        raise AlkdError(
            f"save_dataloaders: True is not allowed with {model}; "
            "allowed: False (reading sessions takes seconds)"
        )
    from recbole_alkd.learner.base import backbones_of

    mode = values["eval_args"].get("mode", "full")
    modes = mode if isinstance(mode, dict) else {"valid": mode, "test": mode}
    for part, name in modes.items():
        if name != "full" and (model == "ALKDRec" or model in backbones_of("counting")):
            raise AlkdError(
                f"eval_args: mode {name!r} for {part} is not allowed with {model}; "
                "allowed: full (every item is ranked)"
            )

"""Makes RecBole know ALKDRec through RecBole's own look-ups: model, trainer, data set, property files, settings.

``register()`` is called when ``recbole_alkd`` is imported. It aliases modules in ``sys.modules`` (``get_model`` asks
there first), sets names on ``recbole.trainer`` and ``recbole.data.dataset`` (``get_trainer``, ``create_dataset``) and
wraps four methods of ``Config``. It may be called any number of times.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from recbole_alkd.checks import check_names
from recbole_alkd.config import FIELDS, SESSION_KEYS, AlkdError, Settings, is_ours, parse, read_settings

MODELS = {
    "ALKDRec": "recbole_alkd.model.alkdrec",
    "SessionFPMC": "recbole_alkd.model.session_fpmc",
    "SessionSTAMP": "recbole_alkd.model.session_stamp",
    "SessionKNN": "recbole_alkd.model.session_knn",
    "AttMix": "recbole_alkd.model.attmix",
}
_registered = False


def properties_dir() -> Path:
    """The folder of our YAML files: inside the package (wheel, sdist) or beside it (checkout, editable install)."""
    package = Path(__file__).resolve().parent
    for folder in (package / "properties", package.parent / "properties"):
        # the marker file keeps some other project's `properties` in site-packages from being taken
        if (folder / "model" / "ALKDRec.yaml").is_file():
            return folder
    raise AlkdError(f"recbole_alkd has lost its properties folder (looked in {package} and beside it): reinstall it")


@functools.cache
def recbole_keys() -> frozenset[str]:
    """Every key that RecBole itself knows: its argument lists and all of its YAML files."""
    import recbole
    from recbole.utils import argument_list

    names = {"model", "dataset", "config_files", "nproc", "world_size", "ip", "port", "local_rank", "offset"}
    for group in ("general", "training", "evaluation", "dataset"):
        names.update(getattr(argument_list, f"{group}_arguments"))
    for path in Path(recbole.__file__).parent.glob("properties/**/*.yaml"):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        names.update(key for key in content or {} if isinstance(key, str))
    return frozenset(names - set(FIELDS))  # RecBole's list of data set arguments holds ours once they are registered


@contextlib.contextmanager
def empty_argv() -> Iterator[None]:
    """RecBole reads ``sys.argv`` whenever a Config is made; inside of this it finds nothing there."""
    before, sys.argv = sys.argv, sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = before


def settings_of(config: Any) -> Settings:
    """The checked settings of a RecBole Config."""
    return read_settings(config.final_config_dict, recbole_keys())


def register() -> None:
    """Register models, trainer, data set and settings with RecBole."""
    global _registered
    if _registered:
        return
    import recbole.data.dataset
    import recbole.trainer
    from recbole.utils import argument_list

    # the built-in entries of the four registries
    for name in ("recbole_alkd.active.policy", "recbole_alkd.teacher", "recbole_alkd.distill", "recbole_alkd.model"):
        importlib.import_module(name)
    for model, path in MODELS.items():
        sys.modules.setdefault(f"recbole.model.sequential_recommender.{model.lower()}", importlib.import_module(path))

    from recbole_alkd.data.dataset import ALKDRecDataset
    from recbole_alkd.trainer import ALKDRecTrainer, SessionKNNTrainer

    recbole.trainer.ALKDRecTrainer = ALKDRecTrainer
    recbole.trainer.SessionKNNTrainer = SessionKNNTrainer
    recbole.data.dataset.ALKDRecDataset = ALKDRecDataset
    # a data set that `save_dataset` wrote is reused only while these keys are unchanged; ours holds the split as well
    arguments = argument_list.dataset_arguments
    arguments.extend(key for key in (*SESSION_KEYS, "eval_args") if key not in arguments)
    _teach_config()
    _registered = True


def _teach_config() -> None:
    from recbole.config import Config

    load_internal, load_cmd_line = Config._load_internal_config_dict, Config._load_cmd_line
    convert, set_defaults, load_files = Config._convert_config_dict, Config._set_default_parameters, Config._load_config_files

    def _load_config_files(self: Any, file_list: Any) -> dict[str, Any]:
        for file in file_list or []:
            _readable_yaml(file)
        return load_files(self, file_list)

    def _load_internal_config_dict(self: Any, model: str, model_class: Any, dataset: str) -> None:
        load_internal(self, model, model_class, dataset)
        if model in MODELS:
            for name in (f"model/{model}.yaml", f"dataset/{dataset}.yaml"):
                file = properties_dir() / name
                if file.is_file():
                    self._update_internal_config_dict(str(file))

    def _load_cmd_line(self: Any) -> dict[str, Any]:
        """Ours are taken out first: RecBole evaluates values and drops one that holds a second ``=``."""
        ours: dict[str, Any] = {}
        rest = []
        for arg in sys.argv[1:]:
            key, equals, text = arg[2:].partition("=")
            if not (arg.startswith("--") and equals and is_ours(key, recbole_keys())):
                rest.append(arg)
            elif ours.get(key, text) != text:
                raise AlkdError(f"--{key} is given twice, as {ours[key]!r} and as {text!r}; give it once")
            else:
                ours[key] = text
        before, sys.argv = sys.argv, sys.argv[:1] + rest
        try:
            values = load_cmd_line(self)
        finally:
            sys.argv = before
        return {**values, **{key: parse(key, text) for key, text in ours.items()}}

    def _convert_config_dict(self: Any, config_dict: dict[str, Any]) -> dict[str, Any]:
        ours = {key: config_dict.pop(key) for key in list(config_dict) if is_ours(key, recbole_keys())}
        values = convert(self, config_dict)
        config_dict.update({key: parse(key, value) if isinstance(value, str) else value for key, value in ours.items()})
        return values

    def _set_default_parameters(self: Any) -> None:
        if self.model == "ALKDRec":
            check_names(read_settings(self.final_config_dict, recbole_keys()))
        set_defaults(self)

    for method in (_load_config_files, _load_internal_config_dict, _load_cmd_line, _convert_config_dict, _set_default_parameters):
        original = getattr(Config, method.__name__)
        method.__doc__ = method.__doc__ or original.__doc__
        setattr(Config, method.__name__, method)


def _readable_yaml(file: str) -> None:
    """RecBole's own message for a bad file is a traceback without the file's name."""
    if not os.path.isfile(file):
        raise AlkdError(f"config file {file!r} does not exist (looked from {os.getcwd()!r})")
    try:
        with open(file, encoding="utf-8") as stream:
            content = yaml.safe_load(stream)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        where = f", line {place.line + 1}, column {place.column + 1}" if place else ""
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise AlkdError(f"config file {file!r}{where}: not readable as YAML: {what}") from None
    if not isinstance(content, dict):
        raise AlkdError(f"config file {file!r}: a mapping of settings is expected (key: value), found {type(content).__name__}")

"""Makes RecBole know ALKDRec through RecBole's own look-ups: model, trainer, data set, property files,
settings.

``register()`` is called when ``recbole_alkd`` is imported. It aliases modules in ``sys.modules``
(``get_model`` asks there first), sets names on ``recbole.trainer`` and ``recbole.data.dataset``
(``get_trainer``, ``create_dataset``) and wraps or replaces seven methods of ``Config``.
It may be called any number of times.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recbole_alkd.checks import (
    check_keys,
    check_machine,
    check_model_and_dataset,
    check_names,
    check_run,
    import_plugins,
    is_own_command,
    say_device,
)
from recbole_alkd.data.columns import FILTERS, WITHOUT_EFFECT
from recbole_alkd.data.own_settings import DataSettings, data_settings, files_digest
from recbole_alkd.file_checks import check_data_files
from recbole_alkd.files import properties
from recbole_alkd.files import properties as properties_dir  # noqa: F401  (its name in earlier versions)
from recbole_alkd.model.backbone import model_defaults, view_and_model
from recbole_alkd.processes.device import own_device
from recbole_alkd.processes.group import place
from recbole_alkd.registry import backbones
from recbole_alkd.settings.declared import declared
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.given import read_config_file, read_setting, settings_among
from recbole_alkd.settings.groups import FIELDS, SESSION_KEYS
from recbole_alkd.settings.keys import recbole_keys as recbole_keys
from recbole_alkd.settings.reading import parse, read_settings
from recbole_alkd.settings.reading import settings_of as settings_of
from recbole_alkd.settings.stock import SPECS, plain
from recbole_alkd.together import share_data, start_together

MODELS = {
    "ALKDRec": "recbole_alkd.model.alkdrec",
    "SessionFPMC": "recbole_alkd.model.session_fpmc",
    "SessionSTAMP": "recbole_alkd.model.session_stamp",
    "SessionKNN": "recbole_alkd.model.session_knn",
    "VSTAN": "recbole_alkd.model.vstan",
    "SLIST": "recbole_alkd.model.slist",
    "AttMix": "recbole_alkd.model.attmix",
}
_registered = False


@contextlib.contextmanager
def empty_argv() -> Iterator[None]:
    """RecBole reads ``sys.argv`` whenever a Config is made; inside of this it finds nothing there."""
    before, sys.argv = sys.argv, sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = before


def _check_before_ordering() -> None:
    """RecBole's session data set says in one line that the times of its clicks are not loaded. Not earlier:
    a Config whose ``load_col`` leaves them out also serves data sets that need none, or read them themselves.
    """
    from recbole.data.dataset import SequentialDataset

    from recbole_alkd.data.columns import check_order

    original = SequentialDataset.data_augmentation

    @functools.wraps(original)
    def data_augmentation(self: Any) -> None:
        check_order(self.config.final_config_dict)
        original(self)

    SequentialDataset.data_augmentation = data_augmentation


def register() -> None:
    """Register models, trainer, data set and settings with RecBole."""
    global _registered
    if _registered:
        return
    import recbole.data.dataset
    import recbole.trainer
    from recbole.utils import argument_list

    # the built-in entries of the registries
    for room in ("active.policy", "teacher", "distill", "model", "learner"):
        importlib.import_module(f"recbole_alkd.{room}")
    for model, path in MODELS.items():
        sys.modules.setdefault(
            f"recbole.model.sequential_recommender.{model.lower()}", importlib.import_module(path)
        )

    from recbole_alkd.data.dataset import ALKDRecDataset
    from recbole_alkd.serving.make import bundle_of_run
    from recbole_alkd.trainer import ALKDRecTrainer, CountingTrainer
    from recbole_alkd.trainer.endings import at_end

    recbole.trainer.ALKDRecTrainer = ALKDRecTrainer
    for model in MODELS:
        if model in backbones and view_and_model(model)[0].learner == "counting":
            setattr(recbole.trainer, f"{model}Trainer", CountingTrainer)
    for model in MODELS:  # the same sessions for all of them
        setattr(recbole.data.dataset, f"{model}Dataset", ALKDRecDataset)
    # a data set that `save_dataset` wrote is reused only while these keys are unchanged;
    # ours holds the split as well
    arguments = argument_list.dataset_arguments
    arguments.extend(key for key in (*SESSION_KEYS, "eval_args", "data_files") if key not in arguments)
    at_end("no bundle is written", bundle_of_run)
    _teach_config()
    _shorten_console()
    start_together()
    share_data()
    _check_before_ordering()
    _registered = True


def _shorten_console() -> None:
    """``init_logger``, as RecBole's entry points call it, knows ``short_log``."""
    from recbole.quick_start import quick_start

    from recbole_alkd.trainer.console import short_console
    from recbole_alkd.trainer.logs import log_of_its_own

    original = quick_start.init_logger

    @functools.wraps(original)
    def init_logger(config: Any) -> None:
        if place()[0]:  # the leader of several processes speaks for all
            return
        with log_of_its_own():
            original(config)
        short_console(config, config["model"] in MODELS or is_own_command())

    quick_start.init_logger = init_logger


def _teach_config() -> None:
    from recbole.config import Config

    load_internal, model_and_dataset = Config._load_internal_config_dict, Config._get_model_and_dataset
    set_defaults, init_device = Config._set_default_parameters, Config._init_device

    def _load_config_files(self: Any, file_list: Any) -> dict[str, Any]:
        """RecBole's loader makes objects, and its message for a bad file is a traceback without the file's
        name."""
        values: dict[str, Any] = {}
        for file in file_list or []:
            values.update(read_config_file(file))
        _know_plugins(values)
        return values

    def _load_internal_config_dict(self: Any, model: str, model_class: Any, dataset: str) -> None:
        load_internal(self, model, model_class, dataset)
        if model in MODELS:
            self._update_internal_config_dict(str(properties() / "model" / f"{model}.yaml"))
        _add_data_settings(self, model, dataset)

    def _load_cmd_line(self: Any) -> dict[str, Any]:
        """RecBole evaluates values, and drops one that holds a second ``=``."""
        return (
            {}
            if "ipykernel_launcher" in sys.argv[0]
            else self._convert_config_dict(settings_among(sys.argv[1:]))
        )

    def _convert_config_dict(self: Any, config_dict: Any) -> dict[str, Any]:
        if not isinstance(config_dict, Mapping) or not all(isinstance(key, str) for key in config_dict):
            raise AlkdError(
                f"config_dict: {config_dict!r} is not allowed; allowed: a mapping from names of settings to "
                "values"
            )
        _know_plugins(config_dict)
        return {key: read_setting(key, value) for key, value in config_dict.items()}

    def _get_model_and_dataset(self: Any, model: Any, dataset: Any) -> Any:
        check_model_and_dataset(self.external_config_dict, model, dataset, MODELS)
        return model_and_dataset(self, model, dataset)

    def _set_default_parameters(self: Any) -> None:
        values, ours = self.final_config_dict, self.model in MODELS
        if self.model == "ALKDRec":
            import_plugins(values)
            values.update(declared.defaults(values))
        check_keys({**self.file_config_dict, **self.variable_config_dict}, self.cmd_config_dict, ours, values)
        if self.model == "ALKDRec":
            settings = read_settings(values, recbole_keys())
            check_names(settings)
        elif ours:
            read_settings(values, recbole_keys())
        for key in SPECS.keys() & values.keys():
            values[key] = plain(key, values[key])
        check_run(values, self.model, ours)
        set_defaults(self)
        values["data_files"] = files_digest(self)
        if self.model == "ALKDRec":
            check_data_files(settings, Path(values["data_path"]), values["dataset"])

    def _init_device(self: Any) -> None:
        rank, count, local_rank = place()
        own_device(self.final_config_dict, self.model, rank, count, local_rank)
        init_device(self)
        say_device(self.final_config_dict["device"], self.external_config_dict)
        if self.model == "ALKDRec" and rank == 0:  # who alone asks
            check_machine(settings_of(self))

    for method in (
        _load_config_files, _load_internal_config_dict, _load_cmd_line, _convert_config_dict,
        _get_model_and_dataset,
        _set_default_parameters, _init_device,
    ):  # fmt: skip
        original = getattr(Config, method.__name__)
        method.__doc__ = method.__doc__ or original.__doc__
        setattr(Config, method.__name__, method)


def _add_data_settings(config: Any, model: str, dataset: str) -> None:
    """Lay what comes with the data set over RecBole's defaults, and give every model of ours the sessions of
    ALKDRec."""
    internal, external = config.internal_config_dict, config.external_config_dict
    config.alkd_notes = ()
    ours = model in MODELS
    if ours and model != "ALKDRec":
        internal["eval_args"] = model_defaults("ALKDRec", [properties()])["eval_args"]
    path = external.get("data_path", internal["data_path"])
    if not isinstance(path, str):
        return
    shipped = properties() / "dataset" / f"{dataset}.yaml" if ours else None
    copy = dataset == "ml-100k"  # of which RecBole has one, and reads no other
    from_data = DataSettings() if copy else data_settings(dataset, Path(path) / dataset, shipped)
    values = {key: value for key, value in from_data.values.items() if ours or key not in FIELDS}
    if model != "ALKDRec" and "MAX_ITEM_LIST_LENGTH" in model_defaults(model, [properties()]):
        values.pop("MAX_ITEM_LIST_LENGTH", None)  # the model's own is part of the model
    if values and not ours and external.get("loss_type", internal.get("loss_type")) == "CE":
        values["train_neg_sample_args"] = None  # RecBole refuses anything else with this loss
    internal.update(values)
    config.alkd_notes = from_data.notes
    given = [key for key in SESSION_KEYS if key in external]
    if external.get("benchmark_filename", internal.get("benchmark_filename")):
        ignored = (
            [key for key in given if key in ("session_window", "session_min_length", "session_time_unit")]
            if ours
            else []
        )
        ignored += [key for key in FILTERS if ours and key in external]
        text = f"{', '.join(ignored)}: no effect on benchmark files, whose rows are sessions already"
    else:
        ignored = [] if ours else given
        text = (
            f"{', '.join(ignored)}: no effect on {model}, which is RecBole's own and reads users, "
            "not sessions; "
        )
        text += "make session files with `recbole-alkd sessions`"
    if ignored:
        config.alkd_notes += ((logging.WARNING, text),)
    unseen = [key for key in WITHOUT_EFFECT if ours and external.get(key)]
    if unseen:
        text = f"{', '.join(unseen)}: no effect on {model}, which sees items and no other columns"
        config.alkd_notes += ((logging.WARNING, text),)
    if not ours:  # ours say it when the data is loaded, in the log of the run
        for level, note in config.alkd_notes:
            logging.getLogger().log(level, note)


def _know_plugins(values: Mapping[str, Any]) -> None:
    """Import the modules that ``values`` or the command line name as plug-ins, so that settings which they
    declare are known while the Config is still being read. What cannot be imported is an error later,
    once all settings are there."""
    words = [word.partition("=")[2] for word in sys.argv[1:] if word.startswith("--alkd_plugins=")]
    for named in (values.get("alkd_plugins"), *words):
        with contextlib.suppress(AlkdError):
            import_plugins(
                {"alkd_plugins": parse("alkd_plugins", named) if isinstance(named, str) else named or []}
            )



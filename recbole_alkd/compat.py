"""What lets RecBole 1.2.1 run on today's numpy, torch and setuptools, and without Ray.

This is the only module that replaces anything inside RecBole for the sake of compatibility. Each shim names the
RecBole line it cures and does nothing where that line is already fine. ``apply()`` may be called any number of times.
"""

from __future__ import annotations

import contextlib
import glob
import importlib
import inspect
import logging
import os
import pickle
import sys
import types
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from recbole_alkd.files import whole_file
from recbole_alkd.memory import rows_at_once
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.stock import check_value
from recbole_alkd.settings.text import read_search_file

RECBOLE_VERSION = "1.2.1"
_UNSAFE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_applied = False


def apply() -> None:
    """Install every shim once. Raises ImportError when RecBole or pandas is a version that cannot work."""
    global _applied
    if _applied:
        return
    _numpy_aliases()
    _check_versions()
    _quiet_known_warnings()
    _keep_anomaly_mode()
    _quick_start_without_ray()
    _readable_checkpoints()
    _download_in_one_process()
    _folders_of_several_runs()
    _use_gpu_decides()
    _search_files_are_data()
    _saved_data_on_trust_alone()
    _metrics_of_whole_lists()
    _scores_in_blocks()
    _applied = True


def _check_versions() -> None:
    import pandas

    try:
        import recbole
    except ModuleNotFoundError as error:
        if error.name != "recbole":
            raise
        # Python 3.12 and later cannot have the Ray that RecBole asks for and does not need here
        raise ImportError(f"recbole_alkd needs RecBole: pip install --no-deps recbole=={RECBOLE_VERSION}", name="recbole") from None

    if recbole.__version__ != RECBOLE_VERSION:
        raise ImportError(
            f"recbole_alkd needs recbole=={RECBOLE_VERSION}, found {recbole.__version__}: pip install recbole=={RECBOLE_VERSION}"
        )
    if int(pandas.__version__.split(".")[0]) >= 3:
        # dataset.py:1217 and ten more lines call Series.agg(len), which sees the whole Series since pandas 3.
        raise ImportError(f"RecBole {RECBOLE_VERSION} needs pandas<3, found {pandas.__version__}: pip install 'pandas<3'")


def _numpy_aliases() -> None:
    """configurator.py:630,631,635 read ``np.float_``, ``np.complex_`` and ``np.unicode_``, gone since numpy 2."""
    for name, value in (("float_", np.float64), ("complex_", np.complex128), ("unicode_", np.str_)):
        if name not in np.__dict__:
            setattr(np, name, value)


def _quiet_known_warnings() -> None:
    """Two deprecations that RecBole raises in every run and a user can do nothing about."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.data\.dataset\.dataset")
    warnings.filterwarnings("ignore", category=FutureWarning, message=r".*torch\.cuda\.amp\.GradScaler.*")


def _keep_anomaly_mode() -> None:
    """sine.py:25 switches torch's anomaly mode on for the whole process, which doubles the time of every step.

    The parameters after training are the same bit for bit (specs: GRU4Rec and STAMP), so the mode that was set before
    the import comes back.
    """
    import torch

    before = torch.is_anomaly_enabled()
    importlib.import_module("recbole.model.sequential_recommender")
    torch.autograd.set_detect_anomaly(before)


def _quick_start_without_ray() -> None:
    """quick_start.py:20 imports ``ray.tune`` for one call, ``tune.report(**metrics)`` (quick_start.py:223).

    Ray 2.6.3, which RecBole pins, has no wheel for Python 3.12 and needs ``pkg_resources``, which left setuptools in
    version 81; from version 2.7 on ``report`` takes one mapping; and on most machines there is no Ray at all. A stand-in
    serves the import and is taken out of ``sys.modules`` again, so that nobody else finds a Ray that is not one. Its
    ``report`` passes the metrics on to the real Ray of a trial.
    """
    if "recbole.quick_start" in sys.modules:
        return
    ray, tune = types.ModuleType("ray"), types.ModuleType("ray.tune")
    tune.report = _report_to_ray  # type: ignore[attr-defined]
    ray.tune = tune  # type: ignore[attr-defined]
    real = {name: sys.modules.pop(name) for name in list(sys.modules) if name == "ray" or name.startswith("ray.")}
    sys.modules["ray"], sys.modules["ray.tune"] = ray, tune
    try:
        importlib.import_module("recbole.quick_start")
    finally:
        del sys.modules["ray"], sys.modules["ray.tune"]
        sys.modules.update(real)


def _report_to_ray(**metrics: Any) -> None:
    """Give the metrics of a trial to Ray Tune. A process that has not imported ``ray.tune`` runs no trial."""
    tune = sys.modules.get("ray.tune")
    if tune is None:
        return
    values = {name: float(value) for name, value in metrics.items()}
    if "metrics" in inspect.signature(tune.report).parameters:  # Ray 2.7 and later
        tune.report(values)
    else:
        tune.report(**values)


def _download_in_one_process() -> None:
    """dataset.py:252 waits at a barrier after a download, which fails in a run that has one process and so no group."""
    import torch
    from recbole.data.dataset import Dataset

    original = Dataset._download

    def _download(self: Dataset) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            original(self)
            return
        barrier = getattr(torch.distributed, "barrier", None)
        torch.distributed.barrier = lambda *_, **__: None  # type: ignore[assignment]
        try:
            original(self)
        finally:
            if barrier is None:
                del torch.distributed.barrier
            else:
                torch.distributed.barrier = barrier

    Dataset._download = _download


def _folders_of_several_runs() -> None:
    """utils.py:51 looks for a folder and then makes it, and fails when another run makes it in between."""
    from recbole.utils import utils

    original = utils.ensure_dir

    def ensure_dir(dir_path: str) -> None:
        os.makedirs(dir_path, exist_ok=True)

    _replace_everywhere("ensure_dir", original, ensure_dir)


def _use_gpu_decides() -> None:
    """configurator.py:490 chooses the device by ``gpu_id`` alone, so that ``use_gpu: False`` trains on a GPU all the same."""
    import torch
    from recbole.config import Config

    original = Config._init_device

    def _init_device(self: Config) -> None:
        original(self)
        if self.final_config_dict["single_spec"] and not self.final_config_dict["use_gpu"]:
            self.final_config_dict["device"] = torch.device("cpu")

    Config._init_device = _init_device


def _search_files_are_data() -> None:
    """hyper_tuning.py:239 evaluates the lists of a search file (NAME choice [..], NAME uniform low,high) as Python."""
    from recbole.trainer import HyperTuning

    def _build_space_from_file(file: str) -> Any:
        return HyperTuning._build_space_from_dict(read_search_file(file))

    _build_space_from_file.__doc__ = HyperTuning._build_space_from_file.__doc__
    HyperTuning._build_space_from_file = staticmethod(_build_space_from_file)


def _replace_everywhere(name: str, original: Any, new: Any) -> None:
    """Set ``new`` wherever a module of RecBole's holds ``original`` as ``name``."""
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] == "recbole" and getattr(module, name, None) is original:
            setattr(module, name, new)


def _metrics_of_whole_lists() -> None:
    """collector.py:246 calls ``.cpu()`` on counts that are no tensors, so that ItemCoverage, AveragePopularity, GiniIndex and
    TailPercentage fail; and collector.py:165 asks for the best k of fewer than k items, after an epoch of training."""
    import torch
    from recbole.evaluator import Collector

    get_data_struct, data_collect = Collector.get_data_struct, Collector.data_collect

    def collected(self: Collector) -> Any:
        plain = {key: value for key, value in self.data_struct._data_dict.items() if not isinstance(value, torch.Tensor)}
        for key in plain:
            del self.data_struct._data_dict[key]
        struct = get_data_struct(self)
        for key, value in plain.items():
            struct.set(key, value)
            self.data_struct.set(key, value)
        return struct

    def begins(self: Collector, train_data: Any) -> None:
        items = train_data._dataset.item_num - 1
        listed = self.register.need("rec.items") or self.register.need("rec.topk")
        if listed and max(self.topk) > items:
            raise AlkdError(f"topk: {max(self.topk)} is more than the {items} items of the data set; allowed: at most {items}")
        data_collect(self, train_data)

    Collector.get_data_struct, Collector.data_collect = collected, begins


def _scores_in_blocks() -> None:
    """general_dataloader.py:252 gives a sequential model ``eval_batch_size`` rows at once, however many items each is scored
    against: 4,096 rows times 834,459 items are 13.7 GB. See ``memory.py`` for how many rows there are instead."""
    from recbole.data.dataloader import FullSortEvalDataLoader

    original = FullSortEvalDataLoader._init_batch_size_and_step

    def _init_batch_size_and_step(self: FullSortEvalDataLoader) -> None:
        original(self)
        if self.is_sequential:
            rows = rows_at_once(self.step, self._dataset.item_num)
            if rows < self.step:
                self.step = rows
                self.set_batch_size(rows)

    FullSortEvalDataLoader._init_batch_size_and_step = _init_batch_size_and_step


# -- data sets and loaders that were saved ------------------------------------------------------------------------------

_trusted: ContextVar[bool] = ContextVar("trusted", default=False)
_opening: ContextVar[bool] = ContextVar("opening", default=False)  # a checkpoint, whose Config is somebody's word


def _saved_data_on_trust_alone() -> None:
    """data/utils.py:61 and :122 unpickle what lies under a certain name in checkpoint_dir, or wherever a Config says, which a
    checkpoint of somebody else brings along. Without trust the data set is read from its own files instead."""
    from recbole.data import utils

    create_dataset, load_split_dataloaders = utils.create_dataset, utils.load_split_dataloaders

    def untrusted(config: Any, setting: str, names: str) -> bool:
        """Whether there is a file that RecBole would unpickle, and nobody trusts it."""
        if config["trust_checkpoint"] or _trusted.get():
            return False
        named = config[setting]
        there = [named] if named else glob.glob(os.path.join(glob.escape(config["checkpoint_dir"]), names))
        there = [path for path in there if os.path.exists(path)]
        if there:
            logging.getLogger().warning(
                f"{there[0]!r} is not read: it can run code. The data set is made from its own files; trust_checkpoint: True "
                "reads files of your own"
            )
        return bool(there)

    def create(config: Any) -> Any:
        _check_model_inputs(config, bool(config["trust_checkpoint"] or _trusted.get()))
        if not untrusted(config, "dataset_save_path", f"{glob.escape(str(config['dataset']))}-*Dataset.pth"):
            return create_dataset(config)
        before = config["dataset_save_path"]
        config["dataset_save_path"] = os.path.join(os.devnull, "none")  # which is never there
        try:
            dataset = create_dataset(config)
        finally:
            config["dataset_save_path"] = before
        return dataset

    def load(config: Any) -> Any:
        names = f"{glob.escape(str(config['dataset']))}-for-{glob.escape(str(config['model']))}-dataloader.pth"
        return None if untrusted(config, "dataloaders_save_path", names) else load_split_dataloaders(config)

    create.__doc__, load.__doc__ = create_dataset.__doc__, load_split_dataloaders.__doc__
    _replace_everywhere("create_dataset", create_dataset, create)
    _replace_everywhere("load_split_dataloaders", load_split_dataloaders, load)


def _check_model_inputs(config: Any, trusted: bool) -> None:
    """kd_dagfm.py:43 evaluates a setting, which a checkpoint of somebody else may bring along; ldiffrec.py:231 unpickles a file
    that lies beside the data. AlkdError where they would do more than read data."""
    if config["model"] == "KD_DAGFM":
        check_value("teacher", config["teacher"])
    elif config["model"] == "LDiffRec" and (config["n_cate"] or 0) > 1 and not trusted:
        path = os.path.join(config["data_path"], "item_emb.npy")
        try:
            np.load(path, mmap_mode="r")
        except FileNotFoundError:
            raise AlkdError(f"n_cate: {config['n_cate']} needs {path!r}, which does not exist; allowed without it: 1") from None
        except (OSError, ValueError) as error:
            raise AlkdError(f"{path!r} is not read: it is no array of numbers, or can run code ({error})") from None


# -- checkpoints ------------------------------------------------------------------------------------------------------
#
# torch>=2.6 reads checkpoints with weights_only=True. trainer.py:307 writes pickle protocol 4, which that reader cannot
# parse at all, and the pickled Config holds classes. So trainers write protocol 2 and the Config leaves its classes out.


def _plain(value: Any) -> Any:
    """Numpy scalars as Python ones, at any depth: the safe reader knows no numpy."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    return value


def save_checkpoint(state: dict[str, Any], path: str) -> None:
    """Write ``state`` so that ``torch.load(path, weights_only=True)`` reads it, whole or not at all."""
    import torch

    with whole_file(path) as stream:
        torch.save(state, stream, pickle_protocol=2)


def load_checkpoint(path: str, map_location: Any = None) -> dict[str, Any]:
    """Read a checkpoint with the safe reader. ValueError that names the file when that cannot read it."""
    import torch

    try:
        # an explicit True wins over TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD in the environment
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(path) from error


@contextlib.contextmanager
def trusted_loads() -> Iterator[None]:
    """Inside of this RecBole's own torch.load calls read any checkpoint. Only on the user's word that the file is theirs.

    torch.load looks at this variable when it is called, and RecBole's calls leave ``weights_only`` open.
    """
    before = os.environ.get(_UNSAFE)
    os.environ[_UNSAFE] = "1"
    token = _trusted.set(True)
    try:
        yield
    finally:
        _trusted.reset(token)
        os.environ.pop(_UNSAFE)
        if before is not None:
            os.environ[_UNSAFE] = before


def _refusal(path: str) -> ValueError:
    return ValueError(
        f"checkpoint {path!r} was not written after `import recbole_alkd` (or is damaged) and reading it could run code: "
        "train it anew, or set `trust_checkpoint: True` if the file is your own"
    )


def _readable_checkpoints() -> None:
    import torch
    import yaml
    from recbole.config import Config
    from recbole.quick_start import quick_start
    from recbole.trainer import Trainer
    from recbole.utils import EvaluatorType, FeatureSource, FeatureType, InputType, ModelType, get_model, set_color

    def config_getstate(self: Config) -> dict[str, Any]:
        state = dict(self.__dict__)
        for name in ("model_class", "yaml_loader"):
            state.pop(name, None)
        return _plain(state)

    def config_setstate(self: Config, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if _opening.get():
            # the file does not decide whether it is trusted, nor where logs are written
            self.final_config_dict = {**self.final_config_dict, "trust_checkpoint": False}
            for key in ("model", "dataset"):
                name = str(self.final_config_dict.get(key))
                if name != os.path.basename(name) or name in (".", "..") or "\\" in name:
                    raise AlkdError(f"the checkpoint's {key} {name!r} is no name of a {key}")
        self.yaml_loader = self._build_yaml_loader()
        try:
            self.model_class = get_model(self.model)
        except ValueError:  # a model class that was passed as an object; the caller still has it
            self.model_class = None

    def _save_checkpoint(self: Trainer, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        if not self.config["single_spec"] and self.config["local_rank"] != 0:
            return
        path = kwargs.pop("saved_model_file", self.saved_model_file)
        state = {
            "config": self.config,
            "epoch": epoch,
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            "state_dict": self.model.state_dict(),
            "other_parameter": self.model.other_parameter(),
            "optimizer": self.optimizer.state_dict(),
        }
        save_checkpoint(state, path)
        if verbose:
            self.logger.info(set_color("Saving current", "blue") + f": {path}")

    def named(path_of: Any, original: Any) -> Any:
        """``original`` with the unreadable file named in the error, or read on the user's word."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            path, trust = path_of(*args, **kwargs)
            if not trust:
                try:
                    return original(*args, **kwargs)
                except pickle.UnpicklingError as error:
                    raise _refusal(str(path)) from error
            with trusted_loads():
                return original(*args, **kwargs)

        wrapped.__doc__, wrapped.__name__ = original.__doc__, original.__name__
        return wrapped

    def resume_path(self: Trainer, resume_file: str) -> tuple[str, bool]:
        return resume_file, bool(self.config["trust_checkpoint"])

    def evaluate_path(
        self: Trainer, eval_data: Any, load_best_model: bool = True, model_file: Any = None, show_progress: bool = False
    ) -> tuple[str, bool]:
        return model_file or self.saved_model_file, bool(load_best_model and self.config["trust_checkpoint"])

    Config.__getstate__, Config.__setstate__ = config_getstate, config_setstate
    Trainer._save_checkpoint = _save_checkpoint
    Trainer.resume_checkpoint = named(resume_path, Trainer.resume_checkpoint)
    Trainer.evaluate = named(evaluate_path, Trainer.evaluate)
    load_data_and_model = quick_start.load_data_and_model

    def opening(model_file: str) -> Any:
        token = _opening.set(True)
        try:
            return load_data_and_model(model_file)
        finally:
            _opening.reset(token)

    opening.__doc__, opening.__name__ = load_data_and_model.__doc__, load_data_and_model.__name__
    loader = named(lambda model_file: (model_file, False), opening)
    quick_start.load_data_and_model = loader
    importlib.import_module("recbole.quick_start").load_data_and_model = loader  # type: ignore[attr-defined]
    torch.serialization.add_safe_globals([Config, ModelType, InputType, EvaluatorType, FeatureType, FeatureSource, yaml.FullLoader])

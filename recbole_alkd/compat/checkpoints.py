"""Checkpoints that torch's safe reader can read. Each shim names the line that it cures.

torch>=2.6 reads checkpoints with weights_only=True. trainer.py:307 writes pickle protocol 4, which that
reader cannot parse at all, and the pickled Config holds classes.
So trainers write protocol 2 and the Config leaves its classes out.
"""

from __future__ import annotations

import importlib
import os
import pickle
from typing import Any

import numpy as np

from recbole_alkd.compat.trust import opening, trusted_loads
from recbole_alkd.files import refusal, save_checkpoint
from recbole_alkd.settings.error import AlkdError

SAVING = "Saving current"  # RecBole's words before the path of a checkpoint


def _plain(value: Any) -> Any:
    """Numpy scalars as Python ones, at any depth: the safe reader knows no numpy."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    return value


def readable_checkpoints() -> None:
    import torch
    import yaml
    from recbole.config import Config
    from recbole.quick_start import quick_start
    from recbole.trainer import Trainer
    from recbole.utils import (
        EvaluatorType,
        FeatureSource,
        FeatureType,
        InputType,
        ModelType,
        get_model,
        set_color,
    )

    def config_getstate(self: Config) -> dict[str, Any]:
        state = dict(self.__dict__)
        for name in ("model_class", "yaml_loader"):
            state.pop(name, None)
        return _plain(state)

    def config_setstate(self: Config, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if opening.get():
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
            self.logger.info(set_color(SAVING, "blue") + f": {path}")

    def named(path_of: Any, original: Any) -> Any:
        """``original`` with the unreadable file named in the error, or read on the user's word."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            path, trust = path_of(*args, **kwargs)
            if not trust:
                try:
                    return original(*args, **kwargs)
                except pickle.UnpicklingError as error:
                    raise refusal(str(path)) from error
            with trusted_loads():
                return original(*args, **kwargs)

        wrapped.__doc__, wrapped.__name__ = original.__doc__, original.__name__
        return wrapped

    def resume_path(self: Trainer, resume_file: str) -> tuple[str, bool]:
        return resume_file, bool(self.config["trust_checkpoint"])

    def evaluate_path(
        self: Trainer,
        eval_data: Any,
        load_best_model: bool = True,
        model_file: Any = None,
        show_progress: bool = False,
    ) -> tuple[str, bool]:
        return model_file or self.saved_model_file, bool(load_best_model and self.config["trust_checkpoint"])

    Config.__getstate__, Config.__setstate__ = config_getstate, config_setstate
    Trainer._save_checkpoint = _save_checkpoint
    Trainer.resume_checkpoint = named(resume_path, Trainer.resume_checkpoint)
    Trainer.evaluate = named(evaluate_path, Trainer.evaluate)
    load_data_and_model = quick_start.load_data_and_model

    def load(model_file: str) -> Any:
        token = opening.set(True)
        try:
            return load_data_and_model(model_file)
        finally:
            opening.reset(token)

    load.__doc__, load.__name__ = load_data_and_model.__doc__, load_data_and_model.__name__
    loader = named(lambda model_file: (model_file, False), load)
    quick_start.load_data_and_model = loader
    importlib.import_module("recbole.quick_start").load_data_and_model = loader  # type: ignore[attr-defined]
    torch.serialization.add_safe_globals(
        [Config, ModelType, InputType, EvaluatorType, FeatureType, FeatureSource, yaml.FullLoader]
    )

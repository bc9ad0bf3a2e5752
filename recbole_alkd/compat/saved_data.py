"""Data sets and loaders that RecBole saved are read on trust alone. Each shim names the line that
it cures."""

from __future__ import annotations

import glob
import logging
import os
from typing import Any

import numpy as np

from recbole_alkd.compat.replacing import replace_everywhere
from recbole_alkd.compat.trust import trusted
from recbole_alkd.settings.error import AlkdError
from recbole_alkd.settings.stock import check_value


def saved_data_on_trust_alone() -> None:
    """data/utils.py:61 and :122 unpickle what lies under a certain name in checkpoint_dir, or wherever a
    Config says, which a checkpoint of somebody else brings along.
    Without trust the data set is read from its own files instead."""
    from recbole.data import utils

    create_dataset, load_split_dataloaders = utils.create_dataset, utils.load_split_dataloaders

    def untrusted(config: Any, setting: str, names: str) -> bool:
        """Whether there is a file that RecBole would unpickle, and nobody trusts it."""
        if config["trust_checkpoint"] or trusted.get():
            return False
        named = config[setting]
        there = [named] if named else glob.glob(os.path.join(glob.escape(config["checkpoint_dir"]), names))
        there = [path for path in there if os.path.exists(path)]
        if there:
            logging.getLogger().warning(
                f"{there[0]!r} is not read: it can run code. The data set is made from its own files; "
                "trust_checkpoint: True "
                "reads files of your own"
            )
        return bool(there)

    def create(config: Any) -> Any:
        _check_model_inputs(config, bool(config["trust_checkpoint"] or trusted.get()))
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
        names = (
            f"{glob.escape(str(config['dataset']))}-for-{glob.escape(str(config['model']))}-dataloader.pth"
        )
        return None if untrusted(config, "dataloaders_save_path", names) else load_split_dataloaders(config)

    create.__doc__, load.__doc__ = create_dataset.__doc__, load_split_dataloaders.__doc__
    replace_everywhere("create_dataset", create_dataset, create)
    replace_everywhere("load_split_dataloaders", load_split_dataloaders, load)


def _check_model_inputs(config: Any, trusted: bool) -> None:
    """kd_dagfm.py:43 evaluates a setting, which a checkpoint of somebody else may bring along;
    ldiffrec.py:231 unpickles a file that lies beside the data. AlkdError where they would do more than read
    data."""
    if config["model"] == "KD_DAGFM":
        check_value("teacher", config["teacher"])
    elif config["model"] == "LDiffRec" and (config["n_cate"] or 0) > 1 and not trusted:
        path = os.path.join(config["data_path"], "item_emb.npy")
        try:
            np.load(path, mmap_mode="r")
        except FileNotFoundError:
            raise AlkdError(
                f"n_cate: {config['n_cate']} needs {path!r}, which does not exist; allowed without it: 1"
            ) from None
        except (OSError, ValueError) as error:
            raise AlkdError(
                f"{path!r} is not read: it is no array of numbers, or can run code ({error})"
            ) from None

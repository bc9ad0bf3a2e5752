"""The names of RecBole's own settings and models."""

from __future__ import annotations

import functools
from pathlib import Path

from recbole_alkd.settings.groups import FIELDS

# Read by RecBole's code, and in none of its lists and files.
_UNLISTED = (
    "norm", "feature_num", "cin", "has_residual", "MASK_ITEM_SEQ", "POS_ITEMS", "NEG_ITEMS", "MASK_INDEX",
    "contrast", "sim",
    "use_filter", "INVERSE_ITEM_SEQ", "tail_ratio", "xgb_early_stopping_rounds", "eta", "CROP_ITEM_SEQ",
    "CROP_ITEM_SEQ_LEN",
    "REORDER_ITEM_SEQ", "REORDER_ITEM_SEQ_LEN", "encoding", "token_num_threshold", "neg_sampling",
    "training_neg_sample_num",
    "model", "dataset", "config_files", "nproc", "world_size", "ip", "port", "local_rank", "offset", "device",
    "single_spec",
    "eval_type", "MODEL_TYPE", "MODEL_INPUT_TYPE", "valid_neg_sample_args", "test_neg_sample_args",
)  # fmt: skip


@functools.cache
def recbole_keys() -> frozenset[str]:
    """Every key that RecBole itself knows: its argument lists, its YAML files, and what only its
    code names."""
    import recbole
    from recbole.utils import argument_list

    names = set(_UNLISTED)
    for group in ("general", "training", "evaluation", "dataset"):
        names.update(getattr(argument_list, f"{group}_arguments"))
    for path in Path(recbole.__file__).parent.glob("properties/**/*.yaml"):
        if path.name not in ("url.yaml", "kg_url.yaml"):  # names of data sets
            names.update(keys_in(path))
    # RecBole's list of data set arguments holds ours once they are registered
    return frozenset(names - set(FIELDS))


def keys_in(path: Path) -> set[str]:
    import yaml

    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {key for key in content or {} if isinstance(key, str)}


def model_names() -> list[str]:
    """RecBole's models, by their files of defaults."""
    import recbole

    return sorted(path.stem for path in Path(recbole.__file__).parent.glob("properties/model/*.yaml"))
